"""The GPU gives what the CPU gives. These tests need a GPU and are skipped without one."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator
from torch.nn import functional

from vrdir import Restorer
from vrdir.data.items import items_of
from vrdir.data.training_set import TrainingSet
from vrdir.degradations.photographed_fog import photographed_fog
from vrdir.degradations.registry import DEGRADATIONS
from vrdir.model.vrdir import VRDIR
from vrdir.restoring.network import Precision
from vrdir.training.run import train
from vrdir.training.settings import Recipe
from vrdir.training.sources import Sources
from vrdir.training.stages import all_stages
from vrdir.training.trainer import Interrupted

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

BRANCHES = ("haze", "noise", "sensor_noise", "rain")


def generators(count: int) -> list[Generator]:
    return [Generator("cuda").manual_seed(seed) for seed in range(count)]


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_degradation_runs_on_the_gpu(name: str, photo_batch: torch.Tensor) -> None:
    first, second = (
        DEGRADATIONS[name](photo_batch.cuda(), generators(2)).image.clamp(0, 1) for _ in range(2)
    )
    assert first.device.type == "cuda"
    assert torch.equal(first, second)
    assert not torch.equal(first.cpu(), photo_batch)


@pytest.mark.parametrize("depth", ["smooth", "regions", "mixed"])
def test_haze_of_every_depth_runs_on_the_gpu(depth: str, photo_batch: torch.Tensor) -> None:
    result = DEGRADATIONS["haze"](photo_batch.cuda(), generators(2), depth=depth)
    assert result.haze is not None
    assert result.image.isfinite().all()


def test_photographed_fog_runs_on_the_gpu(photo_batch: torch.Tensor) -> None:
    assert photographed_fog(photo_batch.cuda(), generators(2)).image.isfinite().all()


@pytest.mark.parametrize("whole", [False, True])
def test_batches_are_made_on_the_gpu(photo_folder: Path, whole: bool) -> None:
    data = TrainingSet(
        items_of(photo_folder, (), ()),
        BRANCHES,
        crop_px=64,
        view_px=96,
        copy_px=64,
        whole_px=96,
        jpeg_share=0.5,
        overlay_share=0.5,
        augmentation="all",
        device="cuda",
    ).stage("refine", dict.fromkeys(("clean", *BRANCHES, "mixed"), 1.0), bool, whole, 0.3)
    batch = next(iter(data.batches(24, range(1, 2))))[0]
    assert batch.clean.shape == (24, 3, *2 * [96 if whole else 64])
    parts = [part for part in batch if isinstance(part, torch.Tensor)]
    assert {part.device.type for part in parts} == {"cuda"}
    assert all(part.isfinite().all() for part in parts)


@pytest.mark.parametrize("weights", ["small", "field"])
def test_gpu_restores_as_the_cpu_does(weights: str, photo_batch: torch.Tensor) -> None:
    hazy = 0.5 * photo_batch + 0.45
    models = [VRDIR.from_pretrained(weights, device=device) for device in ("cpu", "cuda")]
    with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
        expected = models[0].restore(hazy)
        found = models[1].restore(hazy.cuda())
    assert (found.image.cpu() - expected.image).abs().max() < 2e-3
    assert (found.shares.cpu() - expected.shares).abs().max() < 2e-3


def test_large_images_follow_their_copies_on_the_gpu(photo_batch: torch.Tensor) -> None:
    large = functional.interpolate(0.5 * photo_batch + 0.45, (620, 800), mode="bicubic").clamp(0, 1)
    with torch.backends.cudnn.flags(allow_tf32=False):
        results = [Restorer("small", device)(large) for device in ("cpu", "cuda")]
    assert (results[0] - VRDIR.from_pretrained("small")(large)).abs().max() > 0.01
    torch.testing.assert_close(results[1].cpu(), results[0], atol=2e-3, rtol=0)


@pytest.mark.parametrize(("precision", "allowed"), [("float32", 1e-3), ("bf16", 1e-2)])
def test_restorer_streams_on_the_gpu(
    precision: Precision, allowed: float, photo_batch: torch.Tensor
) -> None:
    frames = [(0.5 * image + 0.45).permute(1, 2, 0).numpy() for image in photo_batch] * 2
    on_gpu, on_cpu = Restorer(device="cuda", precision=precision), Restorer(device="cpu")
    for found, expected in zip(on_gpu.stream(frames), on_cpu.stream(frames), strict=True):
        assert found.shape == expected.shape
        assert abs(found - expected).mean() < allowed


def short(name: str) -> Recipe:
    """Return a recipe of four steps a stage."""
    changes = {"precision": "bf16", "checkpoint_every": 2, "crop_px": 64, "view_px": 96}
    recipe = Recipe.read(name, **changes, **{"validation.photos": 2, "validation.crop_px": 64})
    length = {"batch_size": 4, "steps": 4, "warmup_steps": 1}
    stages = {
        stage: settings.model_copy(update=length)
        for stage in ("context", "decoder", "branch", "fusion", "refine")
        if (settings := getattr(recipe, stage)) is not None
    }
    return recipe.model_copy(update=stages)


@pytest.mark.parametrize("name", ["smoke", "base"])
def test_all_stages_train_on_the_gpu(name: str, photo_folder: Path, tmp_path: Path) -> None:
    recipe, sources = short(name), Sources(clean=photo_folder)
    weights = train(recipe, all_stages(recipe), sources, tmp_path / "run", device="cuda")
    assert VRDIR.from_pretrained(weights).config == recipe.model


class Stop:
    """Sends this process a signal after the second step."""

    def step(self, stage: str, step: int, steps: int, batch_size: int) -> None:
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    def metrics(self, line: Mapping[str, Any]) -> None:
        pass


def test_training_resumes_on_the_gpu(photo_folder: Path, tmp_path: Path) -> None:
    recipe, sources = short("smoke"), Sources(clean=photo_folder)
    stage = all_stages(recipe)[0]
    with pytest.raises(Interrupted):
        train(recipe, [stage], sources, tmp_path / "run", device="cuda", watcher=Stop())
    assert train(recipe, [stage], sources, tmp_path / "run", device="cuda", resume=True).is_dir()
