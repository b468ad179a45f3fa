"""Training: frozen parts, resumed runs, whole runs, errors."""

import json
import math
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning_fabric import Fabric
from tests.conftest import TINY
from torch.optim.swa_utils import AveragedModel

from vrdir.data.items import items_of, split
from vrdir.data.training_set import TrainingSet
from vrdir.data.validation_set import ValidationSet
from vrdir.model.config import PAPER
from vrdir.model.vrdir import VRDIR
from vrdir.training import losses
from vrdir.training.checkpoints import checkpoints_in, load_checkpoint, save_checkpoint
from vrdir.training.earlier_stages import whole_folder
from vrdir.training.fields import steps_in
from vrdir.training.network_stages import RefineStage
from vrdir.training.optimisation import learning_rate, moving_average, optimizer_for
from vrdir.training.paper_stages import BranchStage, DecoderStage, FusionStage
from vrdir.training.recipe_parts import StageSettings
from vrdir.training.run import launched, train
from vrdir.training.settings import RECIPES, Recipe
from vrdir.training.sources import Sources
from vrdir.training.stage import Stage
from vrdir.training.stages import all_stages
from vrdir.training.trainer import Trainer
from vrdir.weights import bundled


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
        "refine": stage | {"loss_weights": {"recognition": 0.5}},
    }
    return Recipe.model_validate(values | changes)


def train_all(settings: Recipe, photos: Path, work_dir: Path, **options: Any) -> Path:
    return train(settings, all_stages(settings), Sources(clean=photos), work_dir, **options)


def trainer(model: VRDIR, settings: Recipe, folder: Path, photos: Path) -> Trainer:
    training, held_out = split(items_of(photos, (), ()), 2)
    branches = settings.model.branches
    data = TrainingSet(training, branches, seed=settings.seed, crop_px=settings.crop_px)
    folder.mkdir(exist_ok=True)
    return Trainer(
        Fabric(accelerator="cpu", devices=1),
        model,
        settings,
        data,
        ValidationSet(held_out, branches, 48),
        folder,
    )


class Killed(Exception):
    """What a test stops a run with."""


class Killer:
    """Watches a run and stops it after a step of a stage, or at one of its lines of metrics."""

    def __init__(self, stage: str, step: int, at: str = "step") -> None:
        self.stage, self.at_step, self.at = stage, step, at

    def step(self, stage: str, step: int, steps: int, batch_size: int) -> None:
        if self.at == "step" and (stage, step) == (self.stage, self.at_step):
            raise Killed

    def metrics(self, line: Any) -> None:
        if self.at == "metrics" and (line["stage"], line["step"]) == (self.stage, self.at_step):
            raise Killed


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
def test_stage_trains_its_part_and_nothing_else(
    name: str, tiny: VRDIR, tmp_path: Path, photo_folder: Path
) -> None:
    settings = recipe(steps=3)
    stage = next(stage for stage in all_stages(settings) if stage.name == name)
    before = state_of(tiny)
    trainer(tiny, settings, tmp_path, photo_folder).run(stage)
    moved = changed(before, state_of(tiny))
    expected = {key for key in before if EXPECTED_TO_TRAIN[name](key)}
    assert moved <= expected
    assert len(moved) > 0.9 * len(expected)  # a bias after a dead unit may not change


@pytest.mark.parametrize(
    "make", [DecoderStage, lambda r: BranchStage(r, "haze"), FusionStage, RefineStage]
)
@pytest.mark.parametrize(("ema_decay", "optimizer"), [(None, "adam"), (0.9, "muon")])
def test_resumed_stage_matches_uninterrupted_stage_bit_for_bit(
    make: Any, ema_decay: float | None, optimizer: str, tmp_path: Path, photo_folder: Path
) -> None:
    settings = recipe(ema_decay=ema_decay, optimizer=optimizer)

    def fresh() -> VRDIR:
        torch.manual_seed(7)
        return VRDIR(TINY)

    unbroken, resumed = fresh(), fresh()
    trainer(unbroken, settings, tmp_path / "unbroken", photo_folder).run(make(settings))
    first = trainer(fresh(), settings, tmp_path / "broken", photo_folder)
    first.watcher = Killer(
        make(settings).name, 3
    )  # after the checkpoint of step 2 and a step that is lost
    with pytest.raises(Killed):
        first.run(make(settings))
    trainer(resumed, settings, tmp_path / "broken", photo_folder).run(make(settings), resume=True)
    assert changed(state_of(unbroken), state_of(resumed)) == set()
    lines = [
        json.loads(line)
        for line in (tmp_path / "broken" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in lines] == [0, 4, 4]


def test_half_precision_leaves_images_as_they_are() -> None:
    """An 8-bit image has 256 levels, of which bfloat16 distinguishes half of the bright ones."""
    seen = []

    class Looking(torch.nn.Conv2d):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            seen.append(image)
            found = super().forward(image)
            seen.append(found)
            return found

    fabric = launched("cpu", Recipe.read("small"))
    image = torch.arange(256.0).view(1, 1, 16, 16) / 255
    fabric.setup_module(Looking(1, 1, 1))(image)
    assert torch.equal(seen[0], image)
    assert seen[1].dtype == torch.bfloat16


def test_moving_average_follows_its_formula() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    average = AveragedModel(network, multi_avg_fn=moving_average(0.3))
    expected = None
    for count, value in enumerate((1.0, 5.0, -2.0, 3.0, 0.5, 8.0)):
        network.weight.data.fill_(value)
        average.update_parameters(network)
        decay = min(0.3, (1 + count) / (10 + count))
        expected = value if expected is None else decay * expected + (1 - decay) * value
        assert float(average.module.weight.detach()) == pytest.approx(expected)


def test_moving_average_is_saved(tmp_path: Path, photo_folder: Path) -> None:
    settings = recipe(ema_decay=0.9)
    model = VRDIR(TINY)
    trainer(model, settings, tmp_path, photo_folder).run(DecoderStage(settings))
    state = load_checkpoint(checkpoints_in(tmp_path / "checkpoints" / "decoder")[-1])
    averaged = {
        name.removeprefix("module."): tensor
        for name, tensor in state["average"].items()
        if name.startswith("module.")
    }
    saved = state_of(VRDIR.from_pretrained(tmp_path / "weights" / "decoder"))
    assert changed(averaged, saved) == set()
    assert changed(state["model"], saved)


def test_accumulation_changes_nothing_but_rounding(tmp_path: Path, photo_folder: Path) -> None:
    ends = []
    for parts in (1, 2, 4):
        torch.manual_seed(7)
        model = VRDIR(TINY)
        settings = recipe(
            decoder={
                "steps": 3,
                "batch_size": 4,
                "accumulate": parts,
                "learning_rate": 1e-3,
                "warmup_steps": 1,
            }
        )
        trainer(model, settings, tmp_path / str(parts), photo_folder).run(DecoderStage(settings))
        ends.append(model.state_dict())
    for end in ends[1:]:
        for name, tensor in ends[0].items():
            torch.testing.assert_close(end[name], tensor, rtol=1e-3, atol=1e-4)


def test_muon_steps_have_equal_size_in_every_direction() -> None:
    torch.manual_seed(0)
    weight, bias, thin = (
        torch.nn.Parameter(torch.randn(*shape)) for shape in ((16, 8, 3, 3), (16,), (1, 8, 1, 1))
    )
    before = [p.detach().clone() for p in (weight, bias, thin)]
    optimizer = optimizer_for([weight, bias, thin], "muon", 0.01)
    # A gradient that one direction dominates by far: Adam's step, the first one's signs, would too.
    loud = torch.outer(torch.randn(16), torch.randn(72)).reshape(16, 8, 3, 3)
    weight.grad, bias.grad, thin.grad = (
        30 * loud + torch.randn_like(weight),
        torch.randn_like(bias),
        torch.randn_like(thin),
    )
    optimizer.step()
    step = (before[0] - weight.detach()).reshape(16, -1)
    singular = torch.linalg.svdvals(step) / (
        0.01 * 0.2 * 72**0.5
    )  # Liu et al.: 0.2 sqrt(max(rows, columns)) a unit
    assert float(singular.min()) > 0.4
    assert float(singular.max()) < 1.4
    for parameter, old in (
        (bias, before[1]),
        (thin, before[2]),
    ):  # Adam's first step is the rate in every element
        torch.testing.assert_close(
            (parameter.detach() - old).abs(), torch.full_like(old, 0.01), rtol=1e-3, atol=1e-5
        )


def test_network_compiles(tmp_path: Path, photo_folder: Path) -> None:
    ends = []
    for backend in (None, "eager"):
        torch.manual_seed(7)
        model = VRDIR(TINY)
        settings = recipe(steps=2, compile=backend)
        trainer(model, settings, tmp_path / str(backend), photo_folder).run(FusionStage(settings))
        ends.append(state_of(model))
    for name, tensor in ends[0].items():
        torch.testing.assert_close(ends[1][name], tensor, rtol=1e-3, atol=1e-4)


def test_old_checkpoints_are_deleted_and_damaged_ones_reported(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        weights = {"weight": torch.rand(1000)}
        save_checkpoint(
            tmp_path,
            step,
            {"step": step, "model": weights, "optimizer": {}, "average": None, "best": 0.0},
            keep=2,
        )
    assert [p.name for p in checkpoints_in(tmp_path)] == ["step-00000002.pt", "step-00000003.pt"]
    assert load_checkpoint(tmp_path / "step-00000003.pt")["step"] == 3
    whole = (tmp_path / "step-00000003.pt").read_bytes()
    flipped = bytes(
        byte ^ 1 if place == len(whole) // 3 else byte for place, byte in enumerate(whole)
    )
    for content in (b"hello", b"", whole[: len(whole) // 2], flipped):
        (tmp_path / "step-00000003.pt").write_bytes(content)
        with pytest.raises(
            ValueError, match=r"step-00000003.pt cannot be read .* continue from step-00000002.pt"
        ):
            load_checkpoint(tmp_path / "step-00000003.pt")


def test_best_network_is_kept_with_the_last(tmp_path: Path, photo_folder: Path) -> None:
    validation = {"photos": 2, "crop_px": 48, "every": 1}
    settings = recipe(
        steps=6,
        validation=validation,
        shares={"haze": 1, "noise": 1, "rain": 1},
        checkpoint_every=1,
        keep_checkpoints=6,
    )
    model = VRDIR(TINY)
    trainer(model, settings, tmp_path, photo_folder).run(DecoderStage(settings))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    scores = [
        sum(line[f"psnr_{kind}"] for kind in ("haze", "noise", "rain"))
        for line in lines
        if "psnr_haze" in line and line["step"]
    ]
    best = VRDIR.from_pretrained(tmp_path / "weights" / "decoder-best")
    assert len(scores) == 6
    then = load_checkpoint(
        tmp_path / "checkpoints" / "decoder" / f"step-{1 + scores.index(max(scores)):08d}.pt"
    )
    assert changed(then["model"], state_of(best)) == set()


def test_checkpoint_of_another_model_is_rejected(
    tiny: VRDIR, tmp_path: Path, photo_folder: Path
) -> None:
    settings = recipe()
    trainer(tiny, settings, tmp_path, photo_folder).run(DecoderStage(settings))
    other = settings.model.model_copy(update={"branches": ("haze", "noise")})
    changed_recipe = settings.model_copy(update={"model": other})
    with pytest.raises(ValueError, match="is of another network than the recipe's"):
        trainer(VRDIR(other), changed_recipe, tmp_path, photo_folder).run(
            DecoderStage(changed_recipe), resume=True
        )


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_loss_that_is_not_finite_stops_with_step_and_files(
    what: str, tiny: VRDIR, tmp_path: Path, photo_folder: Path
) -> None:
    class Broken(DecoderStage):
        def losses(self, model: VRDIR, batch: Any) -> dict[str, torch.Tensor]:
            loss = super().losses(model, batch)["pixel"]
            # sqrt(0) is 0, and its gradient infinite
            return {"pixel": loss * math.nan if what == "loss" else loss + torch.sqrt(loss * 0)}

    threads = set(threading.enumerate())
    message = (
        r"stage decoder, step 1: the loss or its gradient is not finite .*the "
        r"batch was .*\.png.* lower learning_rate"
    )
    with pytest.raises(FloatingPointError, match=message):
        trainer(tiny, recipe(), tmp_path, photo_folder).run(Broken(recipe()))
    assert threads == set(threading.enumerate())  # TensorBoard's, too, ends


def test_papers_network_trains_through_the_papers_stages(
    tmp_path: Path, photo_folder: Path
) -> None:
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
    assert any("loss_ranking" in line for line in lines if line["stage"] == "decoder")


def test_whole_run_writes_its_results_and_can_be_resumed(
    tmp_path: Path, photo_folder: Path
) -> None:
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
    listed = (tmp_path / "data.txt").read_text().splitlines()
    assert (
        sum(line.startswith("train ") for line in listed),
        sum(line.startswith("validate ") for line in listed),
    ) == (10, 2)
    assert (final / "model.safetensors").read_bytes() == before
    assert (tmp_path / "metrics.jsonl").read_text() == lines  # nothing was done twice


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_killed_whole_run_matches_uninterrupted_run(
    precision: str, tmp_path: Path, photo_folder: Path
) -> None:
    settings = recipe(precision=precision, checkpoint_every=1)
    whole = train_all(settings, photo_folder, tmp_path / "whole")

    for stage, step in (("decoder", 0), ("branch-noise", 4), ("refine", 4)):
        watcher = Killer(stage, step, at="metrics")
        with pytest.raises(Killed):
            train_all(
                settings,
                photo_folder,
                tmp_path / "broken",
                resume=(tmp_path / "broken").exists(),
                watcher=watcher,
            )
    broken = train_all(settings, photo_folder, tmp_path / "broken", resume=True)
    assert (whole / "model.safetensors").read_bytes() == (broken / "model.safetensors").read_bytes()


def test_resuming_refuses_another_run(tmp_path: Path, photo_folder: Path) -> None:
    settings = recipe(steps=1)
    with pytest.raises(FileNotFoundError, match="contains no run to continue"):
        train_all(settings, photo_folder, tmp_path / "typo", resume=True)
    assert not (tmp_path / "typo").exists()
    train_all(settings, photo_folder, tmp_path / "run")
    elsewhere = settings.model_copy(
        update={"data": settings.data.model_copy(update={"workers": 1})}
    )
    train_all(
        elsewhere, photo_folder, tmp_path / "run", resume=True
    )  # how the work is done may change
    stored = (tmp_path / "run" / "recipe.yaml").read_text()
    with pytest.raises(ValueError, match="different settings: pixel_loss"):
        train_all(
            settings.model_copy(update={"pixel_loss": "balanced_l1"}),
            photo_folder,
            tmp_path / "run",
            resume=True,
        )
    assert (tmp_path / "run" / "recipe.yaml").read_text() == stored
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    for path in sorted(photo_folder.iterdir())[:-1]:
        (fewer / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match="belongs to a different run: its data are"):
        train_all(settings, fewer, tmp_path / "run", resume=True)


def test_kill_between_config_and_weights_can_be_resumed(tmp_path: Path, photo_folder: Path) -> None:
    settings = recipe(steps=2)
    whole = train_all(settings, photo_folder, tmp_path / "whole")
    train_all(settings, photo_folder, tmp_path / "killed")
    for stage in (
        "branch-rain",
        "fusion",
        "refine",
    ):  # as if killed while branch-rain's weights were being written
        (tmp_path / "killed" / "weights" / stage / "model.safetensors").unlink()
    (tmp_path / "killed" / "weights" / "decoder" / ".abc.partial").write_bytes(b"cut short")
    again = train_all(settings, photo_folder, tmp_path / "killed", resume=True)
    assert (whole / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()
    assert not list((tmp_path / "killed").rglob("*.partial"))


def test_weights_are_written_after_their_config(
    tiny: VRDIR, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    monkeypatch.setattr(
        "vrdir.model.vrdir.write_whole", lambda content, path: written.append(path.name)
    )
    tiny.save_pretrained(tmp_path)
    assert written == ["config.json", "model.safetensors"]  # who finds weights finds a model


def test_resuming_refuses_a_list_of_another_degradation(tmp_path: Path, photo_folder: Path) -> None:
    photos = sorted(photo_folder.iterdir())
    (tmp_path / "haze.txt").write_text(
        "".join(f"{degraded}|{clean}\n" for degraded, clean in pairwise(photos))
    )
    settings, plain = (
        recipe(steps=2),
        Sources(pairs=[f"{tmp_path}/haze.txt"], val_clean=photo_folder),
    )
    train(settings, [DecoderStage(settings)], plain, tmp_path / "run")
    named = Sources(pairs=[f"haze={tmp_path}/haze.txt"], val_clean=photo_folder)
    with pytest.raises(ValueError, match="resume with the data of"):
        train(settings, [DecoderStage(settings)], named, tmp_path / "run", resume=True)


def test_str_means_bundled_weights_and_path_a_folder(
    tiny: VRDIR, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.save_pretrained(Path("small/weights/refine"))  # a work directory of that name
    assert whole_folder(Path("small")) == Path("small/weights/refine")
    assert whole_folder("./small") == Path("small/weights/refine")
    assert whole_folder("small") == bundled.FOLDER / "small"
    assert "the bundled weights small are used" in caplog.text


def test_resuming_refuses_data_in_another_order_or_part(tmp_path: Path, photo_folder: Path) -> None:
    settings = recipe(steps=1, validation={"photos": None, "crop_px": 48, "every": 100})
    lines = [f"@noise:sigma=20|{path}\n" for path in sorted(photo_folder.iterdir())]
    for name, part in (("a", lines[:5]), ("b", lines[5:10]), ("reversed", lines[4::-1])):
        (tmp_path / f"{name}.txt").write_text("".join(part))

    def run(pairs: str, val_pairs: str, resume: bool = False) -> None:
        sources = Sources(
            pairs=[f"noise={tmp_path / pairs}"], val_pairs=[f"noise={tmp_path / val_pairs}"]
        )
        train(settings, [BranchStage(settings, "noise")], sources, tmp_path / "run", resume=resume)

    run("a.txt", "b.txt")
    run("a.txt", "b.txt", resume=True)
    for pairs, val_pairs in (("b.txt", "a.txt"), ("reversed.txt", "b.txt")):
        with pytest.raises(ValueError, match="belongs to a different run: its data are"):
            run(pairs, val_pairs, resume=True)


def test_run_that_cannot_start_writes_nothing(tmp_path: Path, photo_folder: Path) -> None:
    stage = {"steps": 1, "batch_size": 3, "accumulate": 2}
    with pytest.raises(
        ValueError, match="batch_size 3 cannot be divided into 1 processes x 2 parts"
    ):
        train_all(recipe(fusion=stage), photo_folder, tmp_path / "run")
    with pytest.raises(ValueError, match="compile: unknown backend 'nonsense'"):
        train_all(recipe(compile="nonsense"), photo_folder, tmp_path / "run")
    with pytest.raises(
        ValueError, match="the recipe's model is not a valid network: features of stride"
    ):
        train_all(
            recipe(model=TINY.model_dump() | {"strides": (4, 16)}), photo_folder, tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="contains other files than those of a run"):
        train_all(recipe(), photo_folder, tmp_path / "other")
    with pytest.raises(ValueError, match="is not a folder"):
        train_all(recipe(), photo_folder, tmp_path / "other" / "thesis.txt")


def test_damaged_photo_is_neither_trained_nor_validated_on(
    tmp_path: Path, photo_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in photo_folder.iterdir():
        (photos / path.name).write_bytes(path.read_bytes())
    held_out = Sources(clean=photos).items(recipe())[1][0].clean
    held_out.write_bytes(held_out.read_bytes()[:5000])
    train_all(recipe(steps=1), photos, tmp_path / "run")
    assert f"not validated on: {held_out} is damaged" in caplog.text


def test_run_continues_at_a_lower_rate_after_a_loss_that_is_not_finite(
    tmp_path: Path, photo_folder: Path
) -> None:
    settings = recipe(checkpoint_every=1)
    with pytest.raises(Killed):
        train_all(settings, photo_folder, tmp_path / "run", watcher=Killer("decoder", 3))
    lower = settings.decoder.model_copy(update={"learning_rate": 1e-5})
    train_all(
        settings.model_copy(update={"decoder": lower}), photo_folder, tmp_path / "run", resume=True
    )
    sessions = json.loads((tmp_path / "run" / "run.json").read_text())["sessions"]
    assert sessions[1]["changed"] == ["decoder.learning_rate"]
    assert Recipe.read(tmp_path / "run" / "recipe.yaml").decoder.learning_rate == 1e-5
    longer = settings.decoder.model_copy(update={"steps": 9})
    with pytest.raises(
        ValueError, match="different settings: (decoder.learning_rate, )?decoder.steps"
    ):
        train_all(
            settings.model_copy(update={"decoder": longer}),
            photo_folder,
            tmp_path / "run",
            resume=True,
        )


@pytest.mark.parametrize("make", [DecoderStage, lambda r: BranchStage(r, "haze"), FusionStage])
@pytest.mark.parametrize("model", [TINY, PAPER], ids=["tiny", "paper"])
def test_whole_images_of_odd_sizes_are_validated(
    make: Any, model: Any, tmp_path: Path, photo: Any
) -> None:
    for number in range(3):
        photo.rotate(90 * number, expand=True).save(
            tmp_path / f"{number}.png"
        )  # 97 x 75 and 75 x 97
    settings = recipe(
        steps=1, model=model.model_dump(), validation={"photos": 2, "crop_px": None, "every": 1}
    )
    training, held_out = split(items_of(tmp_path, (), ()), 2)
    work_dir = tmp_path / "run"
    work_dir.mkdir()
    data, validation = (
        TrainingSet(training, model.branches, crop_px=32),
        ValidationSet(held_out, model.branches, None),
    )
    Trainer(
        Fabric(accelerator="cpu", devices=1), VRDIR(model), settings, data, validation, work_dir
    ).run(make(settings))
    assert json.loads((work_dir / "metrics.jsonl").read_text().splitlines()[-1])["psnr_haze"] > 0


def test_validation_photos_are_not_trained_on_by_a_list(
    tmp_path: Path, photo_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos = sorted(photo_folder.iterdir())
    (tmp_path / "list.txt").write_text("".join(f"@noise:sigma=25|{path}\n" for path in photos))
    training, held_out = Sources(clean=photo_folder, pairs=[str(tmp_path / "list.txt")]).items(
        recipe()
    )
    assert not {item.clean for item in training} & {item.clean for item in held_out}
    assert len(training) == 2 * (len(photos) - len(held_out))
    assert (
        f"{len(held_out)} pairs are not used for training: their photos are held out for validation"
        in caplog.text
    )
    caplog.clear()
    Sources(clean=photo_folder, val_pairs=[str(tmp_path / "list.txt")]).items(recipe())
    assert f"{len(photos)} photos are in both the training and the validation data" in caplog.text


def test_flags_change_settings_of_named_and_written_models(tmp_path: Path) -> None:
    assert (
        Recipe.read("smoke", **{"model.branch_blocks": 2}).model.branch_blocks == 2
    )  # the recipe spells its model out
    for changes in (
        {"model.strides": [8], "model": "base"},
        {"model": "base", "model.strides": [8]},
    ):
        assert Recipe.read("smoke", **changes).model.strides == (8,)
        assert Recipe.read("smoke", **changes).model.widths[0] == 48
    content = "model: small\ndecoder: &stage {steps: 2}\nbranch: *stage\nfusion: *stage\n"
    (tmp_path / "anchors.yaml").write_text(content)
    changed_recipe = Recipe.read(tmp_path / "anchors.yaml", **{"decoder.steps": 1})
    assert (changed_recipe.decoder.steps, changed_recipe.branch.steps) == (1, 2)


def test_recipe_may_have_fewer_branches_than_shares(tmp_path: Path, photo_folder: Path) -> None:
    model = TINY.model_dump() | {"branches": ("noise",), "clean_branch": False}
    train_all(
        recipe(steps=1, model=model, shares={"clean": 1, "haze": 1, "noise": 1}),
        photo_folder,
        tmp_path,
    )
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "psnr_noise" in text
    assert "psnr_haze" not in text
    assert "psnr_mixed" not in text  # one degradation gives no mixture


def test_shares_without_any_degradation_raise() -> None:
    with pytest.raises(
        ValueError, match="shares: no degradation of the branches noise has a share above 0"
    ):
        recipe(model=TINY.model_dump() | {"branches": ("noise",)}, shares={"haze": 1})


def test_branch_with_lists_alone_needs_no_share() -> None:
    assert (
        sum(Recipe.read("paper").with_branches(["murk"]).mixture.values()) == 0
    )  # the paper's shares have no clean images


def test_clean_images_without_pairs_can_be_trained_on_and_are_pictured(
    tmp_path: Path, photo_folder: Path
) -> None:
    settings = recipe(steps=1, shares={"clean": 1})
    model = VRDIR(TINY)
    trainer(model, settings, tmp_path, photo_folder).run(DecoderStage(settings))
    assert (tmp_path / "pictures" / "decoder" / "step-00000001.png").is_file()


def test_losses_follow_their_formulas() -> None:
    torch.manual_seed(0)
    a, b = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    error = (a - b).abs()
    assert torch.allclose(losses.l1(a, b), error.mean())
    for floor in (0.02, 0.5):
        expected = sum(math.log(floor + float(error[i].mean())) for i in range(2)) / 2
        assert float(losses.balanced_l1(a, b, floor)) == pytest.approx(expected, rel=1e-5)
        stage = DecoderStage(recipe(pixel_loss="balanced_l1", pixel_loss_floor=floor))
        assert float(stage.pixel_loss(a, b)) == pytest.approx(expected, rel=1e-5)
    assert torch.allclose(DecoderStage(recipe(pixel_loss="l1")).pixel_loss(a, b), error.mean())
    for floor in (0, 1.5):
        with pytest.raises(ValueError, match="pixel_loss_floor"):
            Recipe.read("small", pixel_loss_floor=floor)
    assert float(losses.spectrum(a, a)) == 0 < float(losses.spectrum(a, b))
    # A perfect decoder whose degraded output has no likeness at all leaves margin - (1 - 0).
    orthogonal = torch.zeros(1, 3, 2, 2)
    orthogonal[0, 0] = 1
    other = torch.zeros(1, 3, 2, 2)
    other[0, 1] = 1
    assert float(
        losses.ranking(orthogonal, orthogonal, orthogonal, other, margin=1.5)
    ) == pytest.approx(0.5)
    assert float(losses.ranking(orthogonal, orthogonal, orthogonal, other, margin=0.5)) == 0
    maps = [torch.rand(2, 4, 3, 3)]
    assert float(losses.semantic_consistency(maps, [2 * maps[0]])) == pytest.approx(0, abs=1e-6)
    assert float(losses.semantic_consistency(maps, [maps[0].flip(1)])) > 0
    assert float(losses.dense_consistency(maps, [maps[0].flip(1)])) > 0


def test_guidance_loss_prefers_equal_shares_of_present_degradations() -> None:
    present = torch.tensor([[True, True, False], [False, False, False]])
    right = (
        torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
        .view(2, 4, 1, 1)
        .expand(2, 4, 3, 3)
    )
    wrong = right.flip(1)
    known = torch.tensor([True, True])
    assert float(losses.guidance_loss([right], present, known, clean_branch=True)) == pytest.approx(
        math.log(2) / 2, abs=1e-4
    )
    assert float(losses.guidance_loss([wrong], present, known, clean_branch=True)) > 5
    assert (
        float(losses.guidance_loss([wrong], present, ~known, clean_branch=True)) == 0
    )  # nobody knows


def test_learning_rates() -> None:
    cosine = StageSettings(steps=100, learning_rate=1.0, warmup_steps=10)
    assert [learning_rate(cosine, step, 100) for step in (1, 5, 10)] == pytest.approx(
        [0.1, 0.5, 1.0]
    )
    assert learning_rate(cosine, 11, 100) == pytest.approx(1)
    assert learning_rate(cosine, 56, 100) == pytest.approx(0.5)
    assert 0 < learning_rate(cosine, 100, 100) < 1e-3
    constant = StageSettings(steps=100, learning_rate=1.0, warmup_steps=10, schedule="constant")
    assert [learning_rate(constant, step, 100) for step in (5, 10, 50, 100)] == pytest.approx(
        [0.5, 1, 1, 1]
    )
    halving = StageSettings(steps=1200, learning_rate=2e-4, schedule="halving")
    assert [learning_rate(halving, step, 1200) for step in (1, 300, 301, 1200)] == pytest.approx(
        [2e-4, 2e-4, 1e-4, 2.5e-5]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("crop_px: -1", "crop_px"),
        ("crop_pixels: 64", "crop_pixels"),
        ("model: huge", "unknown config 'huge'; choose one of paper, small, field, base"),
        ("shares: {fog: 1}", "unknown fog"),
        ("precision: fp8", "precision"),
        ("ranges: 'haze:fog=1'", "ranges: .*haze accepts"),
        ("optimizer: sgd", "optimizer"),
        ("decoder: {steps: many}", "decoder.steps"),
        ("decoder: {steps: 0 epochs}", "decoder.steps"),
        ("crop_px: 100", "crop_px must be a multiple of 16"),
        ("shares: {haze: .nan}", "shares.haze"),
        ("decoder: {steps: true}", "decoder.steps: .*a number of steps"),
        ("decoder: {steps: 5, learning_rate: .inf}", "decoder.learning_rate"),
        ("decoder: {steps: 5, loss_weights: {degraded: -1}}", "decoder.loss_weights.degraded"),
        ("data: {cache_gib: .inf}", "data.cache_gib"),
        ("seed: 99999999999999999999999", "seed"),
        ("shares: {haze: 0, clean: 0}", "at least one above 0"),
        ("[", "is not valid YAML"),
    ],
)
def test_error_names_wrong_recipe_file_and_field(change: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    content = yaml.safe_load(RECIPES["small"].read_text())
    content.pop(change.split(":")[0], None)
    path.write_text(change + "\n" + yaml.safe_dump(content))
    with pytest.raises(ValueError, match=message) as caught:
        Recipe.read(path)
    assert "recipe.yaml" in str(caught.value)


@pytest.mark.parametrize("name", ["paper", "small", "field", "base", "smoke"])
def test_recipes_are_valid(name: str) -> None:
    recipe = Recipe.read(name)
    stages: list[Stage] = all_stages(recipe)
    further = sum(
        settings is not None
        for settings in (recipe.context, recipe.refine, recipe.whole, recipe.haze)
    )
    assert len(stages) == 1 + len(recipe.model.branches) + 1 + further
    assert (recipe.context is None) == (recipe.model.context is None)
    assert (recipe.refine is None) == (name == "paper")


def test_paper_recipe_has_the_reference_settings() -> None:
    paper = Recipe.read("paper")
    assert paper.model == PAPER
    assert (paper.crop_px, paper.augmentation, paper.pixel_loss, paper.precision, paper.seed) == (
        128,
        "flip",
        "l1",
        "float32",
        2025,
    )
    assert [paper.decoder.batch_size, paper.branch.batch_size, paper.fusion.batch_size] == [
        600,
        300,
        200,
    ]
    for stage in (paper.decoder, paper.branch, paper.fusion):
        steps = steps_in(stage.steps, 72135, stage.batch_size)
        assert steps == math.ceil(1200 * 72135 / stage.batch_size)
        rates = [
            learning_rate(stage, max(1, math.ceil(epoch / 1200 * steps)), steps)
            for epoch in (1, 299, 301, 601, 901, 1200)
        ]
        assert rates == pytest.approx([2e-4, 2e-4, 1e-4, 5e-5, 2.5e-5, 2.5e-5])
        assert stage.clip_norm is None
    assert FusionStage(paper).weights == {"consistency": 1.0, "guidance": 0.0}
    assert DecoderStage(paper).weights == {"degraded": 0.1, "ranking": 1.0}


def test_branch_without_a_share_gets_the_others_mean() -> None:
    branches = ("haze", "noise", "snow")
    settings = recipe(shares={"clean": 1, "haze": 2, "noise": 4, "mixed": 1}).with_branches(
        branches
    )
    assert settings.model.branches == branches
    assert settings.mixture == {"clean": 1, "haze": 2, "noise": 4, "snow": 3, "mixed": 1}


def test_omitted_share_stays_omitted() -> None:
    settings = recipe(shares={"haze": 1})
    assert (
        settings.with_branches(settings.model.branches).mixture == settings.mixture == {"haze": 1}
    )


def test_unknown_loss_raises() -> None:
    settings = recipe()
    wrong = settings.model_copy(
        update={"fusion": StageSettings(steps=1, loss_weights={"gan": 1.0})}
    )
    with pytest.raises(ValueError, match="unknown loss gan for the stage fusion"):
        FusionStage(wrong)
