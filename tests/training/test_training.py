"""Training: what is frozen stays frozen, a resumed run is the unbroken one, and a whole run makes weights that restore."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tests.conftest import TINY

from vrdir.data.loaders import CleanPhotos, photos_in, split
from vrdir.model.vrdir import PAPER, VRDIR
from vrdir.training import losses
from vrdir.training.checkpoints import checkpoints_in, load_checkpoint, save_checkpoint
from vrdir.training.run import train_all
from vrdir.training.settings import Recipe, StageSettings
from vrdir.training.stages import BranchStage, DecoderStage, FusionStage, RefineStage, Stage, all_stages
from vrdir.training.trainer import Trainer, learning_rate

ROOT = Path(__file__).parents[2]


def recipe(steps: int = 4, **changes: Any) -> Recipe:
    stage = {"steps": steps, "batch_size": 2, "learning_rate": 1e-3, "warmup_steps": 1}
    values = {
        "model": TINY.model_dump(),
        "crop_px": 32,
        "validation": {"photos": 2, "crop_px": 48, "every": 100},
        "checkpoint_every": 2,
        "decoder": stage,
        "branch": stage,
        "fusion": stage,
        "refine": stage | {"weights": {"recognition": 0.5}},
    }
    return Recipe.model_validate(values | changes)


def trainer(model: VRDIR, settings: Recipe, folder: Path, photos: Path) -> Trainer:
    training, held_out = split(photos_in(photos), 2)
    return Trainer(model, settings, CleanPhotos(training), CleanPhotos(held_out), folder)


def state_of(model: VRDIR) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


EXPECTED_TO_TRAIN = {
    "decoder": lambda name: name.startswith("decoder."),
    "branch-noise": lambda name: ".branches.noise." in name,
    "fusion": lambda name: ".modulation." in name,
    "refine": lambda name: not name.startswith("extractor."),
}


@pytest.mark.parametrize("name", EXPECTED_TO_TRAIN)
def test_a_stage_trains_its_part_and_nothing_else(name: str, tiny: VRDIR, tmp_path: Path, photo_folder: Path) -> None:
    settings = recipe(steps=3)
    stage = next(stage for stage in all_stages(settings) if stage.name == name)
    before = state_of(tiny)
    trainer(tiny, settings, tmp_path, photo_folder).run(stage)
    moved = changed(before, state_of(tiny))
    expected = {key for key in before if EXPECTED_TO_TRAIN[name](key)}
    assert moved <= expected
    assert len(moved) > 0.9 * len(expected)  # a bias behind a dead unit may stand still


def test_the_optimiser_holds_only_what_trains(tiny: VRDIR, photo_folder: Path, tmp_path: Path) -> None:
    settings = recipe()
    for stage in all_stages(settings):
        parameters = trainer(tiny, settings, tmp_path, photo_folder)._freeze_all_but(stage)
        assert {id(p) for p in parameters} == {id(p) for p in tiny.parameters() if p.requires_grad}
        assert not any(p.requires_grad for p in tiny.extractor.parameters())


@pytest.mark.parametrize("make", [DecoderStage, lambda r: BranchStage(r, "haze"), FusionStage, RefineStage])
def test_a_resumed_stage_ends_bit_for_bit_where_an_unbroken_one_does(make: Any, tmp_path: Path, photo_folder: Path) -> None:
    def fresh() -> VRDIR:
        torch.manual_seed(7)
        return VRDIR(TINY)

    unbroken = fresh()
    trainer(unbroken, recipe(), tmp_path / "unbroken", photo_folder).run(make(recipe()))

    class Killed(Exception):
        pass

    broken = fresh()
    first = trainer(broken, recipe(), tmp_path / "broken", photo_folder)
    step, calls = first._step, []

    def dying(*arguments: Any) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 4:  # after the checkpoint of step 2 and a step that is lost
            raise Killed
        return step(*arguments)

    first._step = dying  # type: ignore[method-assign]
    with pytest.raises(Killed):
        first.run(make(recipe()))
    resumed = fresh()
    trainer(resumed, recipe(), tmp_path / "broken", photo_folder).run(make(recipe()), resume=True)
    assert changed(state_of(unbroken), state_of(resumed)) == set()


def test_checkpoints_are_kept_few_and_damaged_ones_are_named(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, {"step": step, "model": {}, "optimizer": {}})
    assert [p.name for p in checkpoints_in(tmp_path)] == ["step-00000002.pt", "step-00000003.pt"]
    assert load_checkpoint(tmp_path / "step-00000003.pt")["step"] == 3
    for content in (b"hello", b""):
        (tmp_path / "step-00000003.pt").write_bytes(content)
        with pytest.raises(ValueError, match=r"step-00000003.pt cannot be read .* go on from step-00000002.pt"):
            load_checkpoint(tmp_path / "step-00000003.pt")


def test_a_checkpoint_of_another_model_is_refused(tiny: VRDIR, tmp_path: Path, photo_folder: Path) -> None:
    settings = recipe()
    trainer(tiny, settings, tmp_path, photo_folder).run(DecoderStage(settings))
    other = settings.model.model_copy(update={"branches": ("haze", "noise")})
    changed_recipe = settings.model_copy(update={"model": other})
    with pytest.raises(ValueError, match="is of another network than the recipe's"):
        trainer(VRDIR(other), changed_recipe, tmp_path, photo_folder).run(DecoderStage(changed_recipe), resume=True)


def test_a_loss_that_is_not_finite_stops_with_the_step(tiny: VRDIR, tmp_path: Path, photo_folder: Path) -> None:
    class Broken(DecoderStage):
        def losses(self, model: VRDIR, batch: Any) -> dict[str, torch.Tensor]:
            return {"pixel": super().losses(model, batch)["pixel"] * math.nan}

    with pytest.raises(FloatingPointError, match=r"stage decoder, step 1: the loss is not finite .* lower learning_rate"):
        trainer(tiny, recipe(), tmp_path, photo_folder).run(Broken(recipe()))


def test_a_batch_depends_on_seed_stage_and_step_alone(tiny: VRDIR, tmp_path: Path, photo_folder: Path) -> None:
    settings = recipe()
    one, two = (trainer(tiny, settings, tmp_path / name, photo_folder) for name in "ab")
    decoder, fusion = DecoderStage(settings), FusionStage(settings)
    assert torch.equal(one.batch(decoder, 5).degraded, two.batch(decoder, 5).degraded)
    assert not torch.equal(one.batch(decoder, 5).clean, one.batch(decoder, 6).clean)
    assert not torch.equal(one.batch(decoder, 5).clean, one.batch(fusion, 5).clean)


def test_the_papers_network_trains_through_the_papers_stages(tmp_path: Path, photo_folder: Path) -> None:
    settings = recipe(steps=2, model=PAPER.model_dump(), refine=None)
    torch.manual_seed(0)
    model = VRDIR(PAPER)
    runner = trainer(model, settings, tmp_path, photo_folder)
    for stage in all_stages(settings):
        runner.run(stage)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(line["stage"] for line in lines)) == [
        "decoder", "branch-haze", "branch-noise", "branch-rain", "fusion",
    ]  # fmt: skip
    assert any("ranking" in line for line in lines if line["stage"] == "decoder")


def test_a_whole_run_leaves_what_it_should_and_can_be_resumed(tmp_path: Path, photo_folder: Path) -> None:
    settings = recipe(steps=2)
    final = train_all(settings, photo_folder, tmp_path)
    assert final == tmp_path / "weights" / "refine"
    assert Recipe.read(tmp_path / "recipe.yaml") == settings
    for stage in ("decoder", "branch-haze", "branch-noise", "branch-rain", "fusion", "refine"):
        assert (tmp_path / "weights" / stage / "model.safetensors").is_file()
        assert list((tmp_path / "pictures" / stage).glob("*.png"))
    with pytest.raises(FileExistsError, match="--resume"):
        train_all(settings, photo_folder, tmp_path)
    before = (final / "model.safetensors").read_bytes()
    lines = (tmp_path / "metrics.jsonl").read_text()
    assert train_all(settings, photo_folder, tmp_path, resume=True) == final
    assert len((tmp_path / "photos.txt").read_text().splitlines()) == 10
    assert (final / "model.safetensors").read_bytes() == before
    assert (tmp_path / "metrics.jsonl").read_text() == lines  # nothing was done twice


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_whole_run_that_was_killed_ends_as_an_unbroken_one(precision: str, tmp_path: Path, photo_folder: Path) -> None:
    settings = recipe(precision=precision, checkpoint_every=1)
    whole = train_all(settings, photo_folder, tmp_path / "whole")

    class Killed(Exception):
        pass

    for stage, step in (("decoder", 0), ("branch-noise", 4), ("refine", 4)):

        def report(line: Any, at: tuple[str, int] = (stage, step)) -> None:
            if (line["stage"], line["step"]) == at:
                raise Killed

        with pytest.raises(Killed):
            train_all(settings, photo_folder, tmp_path / "broken", resume=(tmp_path / "broken").exists(), report=report)
    broken = train_all(settings, photo_folder, tmp_path / "broken", resume=True)
    assert (whole / "model.safetensors").read_bytes() == (broken / "model.safetensors").read_bytes()


def test_resuming_refuses_what_is_not_the_same_run(tmp_path: Path, photo_folder: Path) -> None:
    settings = recipe(steps=1)
    with pytest.raises(FileNotFoundError, match="holds no run to go on with"):
        train_all(settings, photo_folder, tmp_path / "typo", resume=True)
    assert not (tmp_path / "typo").exists()
    train_all(settings, photo_folder, tmp_path / "run")
    stored = (tmp_path / "run" / "recipe.yaml").read_text()
    with pytest.raises(ValueError, match="differs in pixel_loss"):
        train_all(settings.model_copy(update={"pixel_loss": "balanced_l1"}), photo_folder, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "recipe.yaml").read_text() == stored
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    for path in sorted(photo_folder.iterdir())[:-1]:
        (fewer / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match="the training photos are not those"):
        train_all(settings, fewer, tmp_path / "run", resume=True)


def test_a_recipe_may_have_fewer_branches_than_shares(tmp_path: Path, photo_folder: Path) -> None:
    model = TINY.model_dump() | {"branches": ("noise",), "clean_branch": False}
    train_all(recipe(steps=1, model=model, shares={"clean": 1, "haze": 1, "noise": 1}), photo_folder, tmp_path)
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "psnr_noise" in text
    assert "psnr_haze" not in text


def test_shares_that_leave_nothing_to_train_on_are_an_error() -> None:
    with pytest.raises(ValueError, match="shares leave nothing to train on for a model with the branches noise"):
        recipe(model=TINY.model_dump() | {"branches": ("noise",)}, shares={"haze": 1})


def test_clean_images_alone_can_be_trained_on_and_are_pictured(tmp_path: Path, photo_folder: Path) -> None:
    settings = recipe(steps=1, shares={"clean": 1})
    model = VRDIR(TINY)
    trainer(model, settings, tmp_path, photo_folder).run(DecoderStage(settings))
    assert (tmp_path / "pictures" / "decoder" / "step-00000001.png").is_file()


def test_losses_are_their_formulas() -> None:
    torch.manual_seed(0)
    a, b = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    error = (a - b).abs()
    assert torch.allclose(losses.l1(a, b), error.mean())
    expected = sum(math.log(0.01 + float(error[i].mean())) for i in range(2)) / 2
    assert float(losses.balanced_l1(a, b)) == pytest.approx(expected, rel=1e-5)
    assert float(losses.spectrum(a, a)) == 0 < float(losses.spectrum(a, b))
    # A perfect decoder whose degraded output has no likeness at all leaves margin - (1 - 0).
    orthogonal = torch.zeros(1, 3, 2, 2)
    orthogonal[0, 0] = 1
    other = torch.zeros(1, 3, 2, 2)
    other[0, 1] = 1
    assert float(losses.ranking(orthogonal, orthogonal, orthogonal, other, margin=1.5)) == pytest.approx(0.5)
    assert float(losses.ranking(orthogonal, orthogonal, orthogonal, other, margin=0.5)) == 0
    maps = [torch.rand(2, 4, 3, 3)]
    assert float(losses.semantic_consistency(maps, [2 * maps[0]])) == pytest.approx(0, abs=1e-6)
    assert float(losses.semantic_consistency(maps, [maps[0].flip(1)])) > 0
    assert float(losses.dense_consistency(maps, [maps[0].flip(1)])) > 0


def test_the_guidance_loss_wants_even_shares_of_what_is_present() -> None:
    present = torch.tensor([[True, True, False], [False, False, False]])
    right = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]).view(2, 4, 1, 1).expand(2, 4, 3, 3)
    wrong = right.flip(1)
    assert float(losses.guidance_loss([right], present, clean_branch=True)) == pytest.approx(math.log(2) / 2, abs=1e-4)
    assert float(losses.guidance_loss([wrong], present, clean_branch=True)) > 5


def test_learning_rates() -> None:
    cosine = StageSettings(steps=100, learning_rate=1.0, warmup_steps=10)
    assert [learning_rate(cosine, step) for step in (1, 5, 10)] == pytest.approx([0.1, 0.5, 1.0])
    assert learning_rate(cosine, 55) == pytest.approx(0.5)
    assert learning_rate(cosine, 100) == pytest.approx(0)
    halving = StageSettings(steps=1200, learning_rate=2e-4, schedule="halving")
    assert [learning_rate(halving, step) for step in (1, 300, 301, 1200)] == pytest.approx([2e-4, 2e-4, 1e-4, 2.5e-5])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("crop_px: -1", "crop_px"),
        ("crop_pixels: 64", "crop_pixels"),
        ("model: huge", "no config 'huge'; there are paper, small"),
        ("shares: {fog: 1}", "unknown fog"),
        ("precision: fp8", "precision"),
        ("decoder: {steps: many}", "decoder.steps"),
        ("crop_px: 100", "crop_px must be a multiple of 16"),
        ("shares: {haze: .nan}", "shares are finite"),
        ("shares: {haze: 0, clean: 0}", "not all of them 0"),
        ("[", "no YAML"),
    ],
)
def test_a_wrong_recipe_is_an_error_that_names_file_and_field(change: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    content = yaml.safe_load((ROOT / "recipes" / "small.yaml").read_text())
    content.pop(change.split(":")[0], None)
    path.write_text(change + "\n" + yaml.safe_dump(content))
    with pytest.raises(ValueError, match=message) as caught:
        Recipe.read(path)
    assert "recipe.yaml" in str(caught.value)


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_recipes_are_valid(path: Path) -> None:
    stages: list[Stage] = all_stages(Recipe.read(path))
    assert len(stages) >= 5


def test_an_unknown_loss_is_an_error() -> None:
    settings = recipe()
    wrong = settings.model_copy(update={"fusion": StageSettings(steps=1, weights={"gan": 1.0})})
    with pytest.raises(ValueError, match="stage fusion has no loss gan"):
        FusionStage(wrong)
