"""The bundled weights: complete, small, described, and with the outputs of their release."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from vrdir import Restorer
from vrdir.degradations.degrade import apply_degradation
from vrdir.evaluation.restoration.metrics import psnr_rgb
from vrdir.model.config import CONFIGS
from vrdir.model.vrdir import VRDIR
from vrdir.restoring import golden
from vrdir.restoring.golden import golden_problems
from vrdir.training.settings import RECIPES
from vrdir.weights import bundled

NAMES = sorted(bundled.bundled_weights())


def test_small_weights_are_bundled() -> None:
    assert "small" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_files_and_outputs_match_the_release(name: str) -> None:
    assert golden_problems(name) == []


@pytest.mark.parametrize("name", NAMES)
def test_manifest_is_complete(name: str) -> None:
    facts = bundled.bundled_weights()[name]
    for key in (
        "source",
        "licence",
        "training_data",
        "recipe",
        "commands",
        "commit",
        "sha256",
        "figures",
        "parameters",
        "bytes",
        "description",
    ):
        assert facts[key], key
    folder = bundled.FOLDER / name
    assert facts["bytes"] == (folder / "model.safetensors").stat().st_size
    model = VRDIR.from_pretrained(name)
    assert facts["parameters"] == sum(p.numel() for p in model.parameters())
    assert model.config == CONFIGS[name]
    assert (folder / "README.md").is_file()
    assert facts["recipe"] in RECIPES


def test_small_weights_file_is_small() -> None:
    assert (bundled.FOLDER / "small" / "model.safetensors").stat().st_size < 4 * 2**20


def test_verify_finds_a_changed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "FOLDER", tmp_path)
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "model.safetensors").write_bytes(b"hello")
    problems = bundled.verify("small")
    assert any("not the file that was released" in problem for problem in problems)
    assert any("config.json is missing" in problem for problem in problems)


@pytest.mark.parametrize(
    ("name", "ranges", "gain_db"),
    [("noise", {"sigma": 25.0}, 5), ("haze", {"beta": 1.5}, 3), ("rain", {"coverage": 0.15}, 2)],
)
def test_small_restores_a_held_out_photo(name: str, ranges: dict[str, Any], gain_db: float) -> None:
    import numpy as np
    import skimage.data
    from PIL import Image

    photo = (
        Image.open(Path(skimage.data.__file__).parent / "coffee.png")
        .convert("RGB")
        .resize((300, 200))
    )
    clean = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None] / 255
    degraded = apply_degradation(clean, name, torch.Generator().manual_seed(0), **ranges).image
    restored = Restorer()(degraded)
    assert psnr_rgb(restored, clean)[0] > psnr_rgb(degraded, clean)[0] + gain_db


def test_small_keeps_a_clean_photo(photo_batch: torch.Tensor) -> None:
    assert psnr_rgb(Restorer()(photo_batch), photo_batch)[0] > 40


def test_hub_download_fetches_only_the_model(
    tiny: VRDIR, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    tiny.save_pretrained(tmp_path / "cache")
    asked: dict[str, Any] = {}

    def snapshot_download(repository: str, allow_patterns: list[str]) -> str:
        asked.update(repository=repository, allow_patterns=allow_patterns)
        return str(tmp_path / "cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert VRDIR.from_pretrained("someone/snow").config == tiny.config
    assert asked == {
        "repository": "someone/snow",
        "allow_patterns": ["config.json", "model.safetensors"],
    }

    def offline(repository: str, allow_patterns: list[str]) -> str:
        raise ConnectionError("no network\nlong story")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(
        FileNotFoundError,
        match="'someone/snow' is not a folder here and could not be fetched .*: no network$",
    ):
        VRDIR.from_pretrained("someone/snow")


def test_golden_check_finds_outputs_that_are_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    real = golden.golden_outputs
    monkeypatch.setattr(
        golden,
        "golden_outputs",
        lambda model: {key: value * math.nan for key, value in real(model).items()},
    )
    problems = golden_problems("small")
    assert any(
        "image differs from the golden output by up to nan" in problem for problem in problems
    )


def test_folder_with_the_name_of_bundled_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert bundled.resolve_weights(Path("small")) == bundled.FOLDER / "small"
    Path("small").mkdir()
    assert bundled.resolve_weights(Path("small")) == Path("small")
    assert bundled.resolve_weights("./small") == Path("small")
    assert not caplog.text
    assert bundled.resolve_weights("small") == bundled.FOLDER / "small"
    assert (
        "the bundled weights small are used; to use the folder of that name, write ./small"
        in caplog.text
    )


def test_work_directory_means_its_latest_network(tiny: VRDIR, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "all"
    for stage in ("decoder", "branch-haze", "fusion", "fusion-best"):
        tiny.save_pretrained(run / "weights" / stage)
    assert bundled.resolve_weights(run) == run / "weights" / "fusion"
    assert VRDIR.from_pretrained(str(run)).config == tiny.config
    tiny.save_pretrained(run / "weights" / "refine")
    assert bundled.resolve_weights(str(run)) == run / "weights" / "refine"
    with pytest.raises(
        FileNotFoundError,
        match=r"runs contains no model.safetensors; use one of its sub-folders that do:.*fusion",
    ):
        bundled.resolve_weights(tmp_path / "runs")
    with pytest.raises(
        FileNotFoundError, match=rf"model.safetensors is a file; give {run / 'weights' / 'refine'}$"
    ):
        bundled.resolve_weights(run / "weights" / "refine" / "model.safetensors")


def test_error_lists_model_folders_in_a_work_directory(tiny: VRDIR, tmp_path: Path) -> None:
    tiny.save_pretrained(tmp_path / "run" / "weights" / "decoder")
    with pytest.raises(
        FileNotFoundError,
        match=rf"sub-folders that do: {tmp_path / 'run' / 'weights' / 'decoder'}$",
    ):
        VRDIR.from_pretrained(tmp_path / "run")
