"""Training of the global context: whole views, windows, a detector's loss, the command."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.conftest import TINY
from torch import nn
from typer.testing import CliRunner

from vrdir.cli.app import app
from vrdir.data.items import items_of
from vrdir.data.training_set import TrainingSet
from vrdir.model.config import ContextConfig
from vrdir.model.global_context import lift_whole, reduced
from vrdir.model.vrdir import VRDIR
from vrdir.training.context_stages import ContextStage, HazeStage
from vrdir.training.losses import choice
from vrdir.training.network_stages import RefineStage, WholeStage
from vrdir.training.onnx_network import OnnxNetwork
from vrdir.training.recipe_parts import DetectorSettings
from vrdir.training.recognition import Detection, bernoulli_divergence
from vrdir.training.run import train
from vrdir.training.settings import Recipe
from vrdir.training.sources import Sources
from vrdir.training.stages import all_stages

CONFIG = TINY.model_copy(update={"context": ContextConfig(side=64, strides=(4, 8), channels=8)})


def recipe(**changes: Any) -> Recipe:
    stage = {"steps": 2, "batch_size": 2, "learning_rate": 1e-3, "warmup_steps": 1}
    values = {
        "model": CONFIG.model_dump(),
        "crop_px": 32,
        "view_px": 96,
        "augmentation": "whole",
        "overlay_share": 0.5,
        "ranges": "haze:depth=mixed,light=0.5..1",
        "validation": {"photos": 2, "crop_px": 48, "every": 100},
        "context": stage
        | {"loss_weights": {"recognition": 0.0}, "shares": {"clean": 1, "haze": 3}},
        "decoder": stage,
        "branch": stage,
        "fusion": stage,
        "refine": stage | {"loss_weights": {"recognition": 0.0}},
    }
    return Recipe.model_validate(values | changes)


class Detector(nn.Module):
    """A tiny network with a feature map and a prediction map of YOLOX's kind."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 6, 3, stride=8, padding=1)
        self.head = nn.Conv2d(6, 7, 1)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = torch.relu(self.body(image))
        return features, torch.sigmoid(self.head(features))


@pytest.fixture(scope="module")
def detector_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("detector") / "detector.onnx"
    torch.onnx.export(
        Detector().eval(),
        (torch.rand(1, 3, 64, 64),),
        path,
        input_names=["image"],
        output_names=["features", "predictions"],
        dynamo=False,
    )
    return path


def test_windows_have_the_copy_and_the_place_of_their_view(photo_folder: Path) -> None:
    data = TrainingSet(
        items_of(photo_folder, (), ()),
        CONFIG.branches,
        crop_px=32,
        view_px=96,
        copy_px=64,
        augmentation="whole",
        overlay_share=0.3,
    )
    whole = data.stage("s", {"haze": 1.0, "clean": 1.0}, lambda item: True)
    (batch,) = next(iter(whole.batches(4, range(1, 2))))
    assert batch.clean.shape == batch.degraded.shape == (4, 3, 32, 32)
    assert batch.copy is not None
    assert batch.place is not None
    assert batch.copy.shape == (4, 3, 64, 64)
    assert set(batch.place[:, 2].tolist()) == {96}
    assert batch.place[:, :2].max() <= 64
    # The window is where the copy says it is.
    for window, copy, (top, left, side) in zip(
        batch.degraded, batch.copy, batch.place.tolist(), strict=True
    ):
        scale = 64 / side
        part = copy[
            :,
            round(top * scale) + 2 : round((top + 32) * scale) - 2,
            round(left * scale) + 2 : round((left + 32) * scale) - 2,
        ]
        assert abs(part.mean() - window.mean()) < 0.08


def test_context_stage_sees_whole_views_as_small_as_copies(photo_folder: Path) -> None:
    data = TrainingSet(
        items_of(photo_folder, (), ()), CONFIG.branches, crop_px=32, view_px=96, copy_px=64
    )
    stage = data.stage("context", {"haze": 1.0}, lambda item: True, whole=True)
    (batch,) = next(iter(stage.batches(2, range(1, 2))))
    assert batch.degraded.shape == (2, 3, 64, 64)
    assert batch.copy is not None
    assert torch.allclose(batch.copy, batch.degraded, atol=1e-6)


def test_doubtful_views_are_not_shown_in_fog(photo_folder: Path) -> None:
    data = TrainingSet(
        items_of(photo_folder, (), ()),
        CONFIG.branches,
        crop_px=32,
        copy_px=64,
        augmentation="doubtful",
        fog_share=1.0,
    )
    stage = data.stage("context", {"clean": 1.0}, lambda item: True, whole=True)
    crops = stage.crops(0, 12)
    assert 0 < sum(crops.doubtful) < 12
    fogged = stage.batch(crops).fogged
    assert fogged is not None
    assert fogged.tolist() == [not doubtful for doubtful in crops.doubtful]


def test_some_whole_views_are_shown_in_fog_as_a_camera_takes_it(photo_folder: Path) -> None:
    data = TrainingSet(
        items_of(photo_folder, (), ()),
        CONFIG.branches,
        crop_px=32,
        view_px=96,
        copy_px=64,
        whole_px=80,
        fog_share=0.5,
        jpeg_share=1.0,
    )
    stage = data.stage("context", {"clean": 1.0}, lambda item: True, whole=True)
    (batch,) = next(iter(stage.batches(12, range(1, 2))))
    assert batch.degraded.shape == (12, 3, 80, 80)
    assert batch.copy is not None
    assert batch.copy.shape == (12, 3, 64, 64)
    assert batch.fogged is not None
    assert 2 <= batch.fogged.sum() <= 10
    changed = (batch.degraded - batch.clean).abs().mean((1, 2, 3))
    assert torch.equal(changed > 0.01, batch.fogged)  # a clean photo of a file is its own twin
    windows = data.stage("refine", {"clean": 1.0}, lambda item: True)
    assert next(iter(windows.batches(2, range(1, 2))))[0].fogged is None


def test_tone_context_learns_to_change_only_fog(photo_folder: Path) -> None:
    toning = CONFIG.model_copy(
        update={"context": ContextConfig(side=64, strides=(4, 8), channels=8, tone=True)}
    )
    stage = ContextStage(recipe(model=toning.model_dump(), fog_share=0.5))
    data = TrainingSet(
        items_of(photo_folder, (), ()), CONFIG.branches, crop_px=32, copy_px=64, fog_share=0.5
    )
    shares = {"haze": 1.0}
    (batch,) = next(
        iter(data.stage("context", shares, lambda item: True, whole=True).batches(8, range(1, 2)))
    )
    model = VRDIR(toning)
    assert model.context is not None
    assert stage.losses(model, batch)["pixel"] == 0
    torch.nn.init.constant_(model.context.to_strength.bias, 1.0)
    assert stage.losses(model, batch)["pixel"] > 0.02


def test_indistinguishable_inputs_get_an_intermediate_output() -> None:
    wanted = torch.tensor([True, False])
    assert choice(torch.tensor([1.2, -0.3]).view(2, 1, 1, 1), wanted) == 0
    alike = [choice(torch.full((2, 1, 1, 1), a), wanted).item() for a in (-0.25, 0.375, 1.0)]
    assert alike[1] < min(alike[0], alike[2])


@pytest.fixture
def toning(detector_file: Path) -> Recipe:
    """A recipe for a network with a local-tone context, and for all stages."""
    config = CONFIG.model_copy(
        update={"context": ContextConfig(side=64, strides=(4, 8), channels=8, tone=True)}
    )
    stage = {"steps": 2, "batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 1}
    return recipe(
        model=config.model_dump(),
        whole_px=64,
        fog_share=0.5,
        detector={
            "file": detector_file,
            "features": ["features"],
            "predictions": ["predictions"],
            "side": 64,
        },
        whole=stage | {"loss_weights": {"recognition": 0.0}},
        haze=stage | {"shares": {"clean": 1, "haze": 1}},
    )


def test_all_stages_of_a_context_of_local_tone(
    toning: Recipe, tmp_path: Path, photo_folder: Path
) -> None:
    stages = all_stages(toning)
    assert [stage.name for stage in stages][-2:] == ["whole", "haze"]
    folder = train(toning, stages, Sources(clean=photo_folder), tmp_path / "run")
    assert folder == tmp_path / "run/weights/haze"
    before, whole, haze = (
        VRDIR.from_pretrained(tmp_path / "run/weights" / name).state_dict()
        for name in ("refine", "whole", "haze")
    )
    changed = {name.split(".")[0] for name in whole if not torch.equal(whole[name], before[name])}
    assert changed == {"context", "enhancement", "decoder"}
    changed = {name for name in haze if not torch.equal(haze[name], whole[name])}
    assert changed
    assert all(name.startswith("context.to_haze") for name in changed)


def test_batches_with_only_fog_or_no_fog_work(toning: Recipe, photo_folder: Path) -> None:
    stage = WholeStage(toning)
    stage.prepare(torch.device("cpu"))
    for share in (1.0, 1e-9):
        data = TrainingSet(
            items_of(photo_folder, (), ()),
            CONFIG.branches,
            crop_px=32,
            copy_px=64,
            whole_px=64,
            fog_share=share,
        ).stage("whole", {"haze": 1.0}, lambda item: True, whole=True)
        losses = stage.losses(VRDIR(toning.model), next(iter(data.batches(3, range(1, 2))))[0])
        assert ("detection" in losses) == (share == 1.0)
        assert all(loss.isfinite() for loss in losses.values())


def test_refinement_may_show_fog(toning: Recipe, photo_folder: Path, tmp_path: Path) -> None:
    assert toning.refine is not None
    foggy = toning.model_copy(
        update={"refine": toning.refine.model_copy(update={"fog_share": 0.5})}
    )
    assert RefineStage(toning).detection is None
    stage = RefineStage(foggy)
    stage.prepare(torch.device("cpu"))
    data = TrainingSet(items_of(photo_folder, (), ()), CONFIG.branches, crop_px=64, copy_px=64)
    model = VRDIR(toning.model)
    for share, count in ((1.0, 4), (0.5, 2), (0.0, 0)):
        windows = data.stage("refine", {"haze": 1.0}, lambda item: True, False, share)
        batch = next(iter(windows.batches(4, range(2, 3))))[0]
        if share == 0.5:
            assert batch.fogged is not None
            count = int(batch.fogged.sum())
            assert 0 < count < 4
        losses = stage.losses(model, batch)
        assert ("detection" in losses) == (count > 0)
        assert (losses["pixel"] == 0) == (count == 4)  # no loss of pixels in fog
        assert all(loss.isfinite() for loss in losses.values())
    assert train(foggy, [stage], Sources(clean=photo_folder), tmp_path / "run").is_dir()


def test_refinement_keeps_what_a_teacher_does_in_fog(
    toning: Recipe, photo_folder: Path, tmp_path: Path
) -> None:
    assert toning.refine is not None
    teacher = VRDIR(toning.model)
    with torch.no_grad():
        teacher.decoder.to_correction.bias.fill_(0.05)  # type: ignore[union-attr]
    teacher.save_pretrained(tmp_path / "teacher")
    fog = {"fog_share": 0.5, "teacher": str(tmp_path / "teacher")}
    taught = toning.model_copy(
        update={"refine": toning.refine.model_copy(update=fog), "detector": None}
    )
    stage = RefineStage(taught)
    stage.prepare(torch.device("cpu"))
    data = TrainingSet(items_of(photo_folder, (), ()), CONFIG.branches, crop_px=64, copy_px=64)
    windows = data.stage("refine", {"haze": 1.0}, lambda item: True, False, 0.5)
    batch = next(iter(windows.batches(4, range(2, 3))))[0]
    assert batch.fogged is not None
    assert 0 < int(batch.fogged.sum()) < 4
    same = stage.losses(VRDIR.from_pretrained(tmp_path / "teacher"), batch)["teacher"]
    torch.testing.assert_close(same, stage.pixel_loss(batch.clean, batch.clean))  # no difference
    student = VRDIR(toning.model)
    loss = stage.losses(student, batch)["teacher"]
    assert loss > same
    loss.backward()
    bias = student.decoder.to_correction.bias
    assert isinstance(bias, torch.nn.Parameter)
    assert bias.grad is not None
    assert bias.grad.sum() < 0  # towards the teacher, which is brighter
    assert all(parameter.grad is None for parameter in stage.teacher.parameters())  # type: ignore[union-attr]

    none = data.stage("refine", {"haze": 1.0}, lambda item: True, False, 0.0)
    assert "teacher" not in stage.losses(student, next(iter(none.batches(4, range(2, 3))))[0])
    with pytest.raises(ValueError, match="a teacher in fog, but no fog_share"):
        RefineStage(
            toning.model_copy(
                update={"refine": taught.refine.model_copy(update={"fog_share": None})}  # type: ignore[union-attr]
            )
        )


@pytest.mark.parametrize("name", ["decoder", "fusion"])
def test_stages_whose_losses_do_not_know_fog_refuse_it(toning: Recipe, name: str) -> None:
    foggy = getattr(toning, name).model_copy(update={"fog_share": 0.2})
    with pytest.raises(ValueError, match=f"the stage {name} cannot show fog"):
        all_stages(toning.model_copy(update={name: foggy}))


def test_only_refinement_has_a_teacher(toning: Recipe) -> None:
    taught = toning.decoder.model_copy(update={"teacher": "field"})
    with pytest.raises(ValueError, match="the stage decoder has no use for a teacher"):
        all_stages(toning.model_copy(update={"decoder": taught}))


def test_haze_of_a_batch_is_the_drawn_one(toning: Recipe, photo_folder: Path) -> None:
    for shares, fog, low, high in (
        ({"clean": 1.0}, 0.0, 0.0, 0.0),
        ({"haze": 1.0}, 0.0, 0.05, 0.95),
        ({"clean": 1.0}, 1.0, 0.05, 1.0),
    ):
        data = TrainingSet(
            items_of(photo_folder, (), ()), CONFIG.branches, copy_px=64, fog_share=fog
        ).stage("haze", shares, lambda item: True, whole=True)
        batch = next(iter(data.batches(6, range(1, 2))))[0]
        assert batch.haze is not None
        assert low <= batch.haze.min() <= batch.haze.max() <= high
        assert HazeStage(toning).losses(VRDIR(toning.model), batch)["haze"] > 0


@pytest.mark.parametrize("missing", ["whole", "detector", "haze"])
def test_stages_of_local_tone_need_their_settings(toning: Recipe, missing: str) -> None:
    settings = toning.model_copy(update={missing: None})
    with pytest.raises(ValueError, match="the stage .* needs"):
        (HazeStage if missing == "haze" else WholeStage)(settings)
    veil = {"whole": toning.whole, "haze": toning.haze, "detector": toning.detector}
    with pytest.raises(ValueError, match="local-tone context"):
        (HazeStage if missing == "haze" else WholeStage)(recipe().model_copy(update=veil))


def test_without_copies_there_is_no_context_stage(photo_folder: Path) -> None:
    data = TrainingSet(items_of(photo_folder, (), ()), CONFIG.branches, crop_px=32)
    with pytest.raises(ValueError, match="needs a model with a global context"):
        data.stage("context", {"haze": 1.0}, lambda item: True, whole=True)


def test_context_stage_trains_the_context_and_refinement_the_rest() -> None:
    model, settings = VRDIR(CONFIG), recipe()
    names = {id(p): name for name, p in model.named_parameters()}
    trained = {names[id(p)].split(".")[0] for p in ContextStage(settings).trained(model)}
    assert trained == {"context"}
    refined = {names[id(p)].split(".")[0] for p in RefineStage(settings).trained(model)}
    assert refined == {"enhancement", "decoder"}


def test_shares_of_a_stage_replace_those_of_the_recipe() -> None:
    assert ContextStage(recipe()).shares == {"clean": 1, "haze": 3}
    assert RefineStage(recipe()).shares == recipe().mixture


def test_whole_run_makes_a_network_with_a_context(tmp_path: Path, photo_folder: Path) -> None:
    settings = recipe()
    folder = train(settings, all_stages(settings), Sources(clean=photo_folder), tmp_path / "run")
    network = VRDIR.from_pretrained(folder)
    assert network.config.context == CONFIG.context
    context = VRDIR.from_pretrained(tmp_path / "run/weights/context").state_dict()
    for name, tensor in network.state_dict().items():
        if name.startswith("context."):
            assert torch.equal(tensor, context[name]), name


def test_command_trains_the_context(tmp_path: Path, photo_folder: Path) -> None:
    recipe().write(tmp_path / "recipe.yaml")
    line = ["train", "context", "--recipe", str(tmp_path / "recipe.yaml")]
    line += ["--clean", str(photo_folder), "--work-dir", str(tmp_path / "run")]
    result = CliRunner().invoke(app, line, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "run/weights/context/model.safetensors").is_file()


def test_views_are_twice_as_large_as_crops_by_default() -> None:
    assert recipe(view_px=None).views_px == 64
    assert recipe().views_px == 96
    with pytest.raises(ValueError, match="view_px must be at least crop_px \\(32\\), not 16"):
        recipe(view_px=16)


def test_network_from_an_onnx_file_is_exact_and_differentiable(detector_file: Path) -> None:
    import onnxruntime

    image = torch.rand(1, 3, 64, 64, requires_grad=True)
    features, predictions = OnnxNetwork(detector_file, ["features", "predictions"])(image)
    session = onnxruntime.InferenceSession(detector_file)
    wanted = session.run(["features", "predictions"], {"image": image.detach().numpy()})
    assert np.allclose(features.detach(), wanted[0], atol=1e-5)
    assert np.allclose(predictions.detach(), wanted[1], atol=1e-5)
    predictions.sum().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0


def test_invalid_detector_file_raises(tmp_path: Path, detector_file: Path) -> None:
    with pytest.raises(ValueError, match="has no tensor nothing"):
        OnnxNetwork(detector_file, ["nothing"])
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    with pytest.raises(ValueError, match=r"bad\.onnx is not a readable ONNX file"):
        OnnxNetwork(tmp_path / "bad.onnx", ["x"])
    absent = DetectorSettings(file=tmp_path / "absent.onnx", features=(), predictions=())
    with pytest.raises(FileNotFoundError, match=r"absent\.onnx"):
        Detection(absent).load(torch.device("cpu"))


def test_detection_loss_is_zero_for_the_clean_image_and_pulls_towards_it(
    detector_file: Path,
) -> None:
    settings = DetectorSettings(
        file=detector_file, features=("features",), predictions=("predictions",), side=64, images=2
    )
    detection = Detection(settings)
    detection.load(torch.device("cpu"))
    clean = torch.rand(3, 3, 64, 64)
    assert detection.loss(clean, clean).item() == pytest.approx(0, abs=1e-6)
    image = (0.5 * clean + 0.3).requires_grad_()
    optimizer = torch.optim.Adam([image], 0.02)
    losses = []
    for _ in range(15):
        loss = detection.loss(image, clean)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert bernoulli_divergence(torch.tensor(0.3), torch.tensor(0.3)) == 0


def test_trained_context_removes_haze(photo_folder: Path, tmp_path: Path) -> None:
    """A few steps on thick haze bring a hazy photo nearer to its clean twin."""
    settings = recipe(
        context={
            "steps": 60,
            "batch_size": 4,
            "learning_rate": 4e-3,
            "warmup_steps": 5,
            "loss_weights": {"recognition": 0.0},
            "shares": {"haze": 1},
        },
        ranges="haze:beta=1..3",
    )
    folder = train(settings, [ContextStage(settings)], Sources(clean=photo_folder), tmp_path / "r")
    model = VRDIR.from_pretrained(folder)
    from vrdir.data.image_cache import decode
    from vrdir.degradations.haze import haze

    photos = [decode(path)[None].float() / 255 for path in sorted(photo_folder.glob("*.png"))[:6]]
    before, after = [], []
    for number, photo in enumerate(photos):
        hazy = haze(photo, torch.Generator().manual_seed(number), beta=2.0).image.clamp(0, 1)
        veil = model.veil(reduced(hazy, 64))
        assert veil is not None
        with torch.no_grad():
            after.append((lift_whole(hazy, veil) - photo).abs().mean().item())
        before.append((hazy - photo).abs().mean().item())
    assert sum(after) < 0.9 * sum(before)
