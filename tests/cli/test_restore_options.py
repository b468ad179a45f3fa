"""`vrdir restore` with --quality, --max-side and --side-by-side."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.clips import clip
from tests.conftest import text
from typer.testing import CliRunner

from vrdir.cli.app import app
from vrdir.images.reading import read_file
from vrdir.images.reducing import reduced
from vrdir.images.sixteen_bits import DeepPicture
from vrdir.restoring.restorer import Restorer


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


@pytest.mark.parametrize("kind", ["restore", "degrade"])
@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_quality_changes_the_file(
    kind: str, suffix: str, photo: Image.Image, weights: Path, tmp_path: Path
) -> None:
    photo.save(tmp_path / "a.png")
    how = (
        ["--weights", weights, "--device", "cpu"]
        if kind == "restore"
        else ["--with", "noise:sigma=5"]
    )
    sizes = []
    for quality in ("20", "95", None):
        target = tmp_path / f"{quality}.{suffix}"
        given = [] if quality is None else ["--quality", quality]
        assert run(kind, tmp_path / "a.png", "-o", target, *how, *given).exit_code == 0
        sizes.append(target.stat().st_size)
    assert sizes[0] < 0.7 * sizes[1]
    assert sizes[1] == sizes[2]


@pytest.mark.parametrize("kind", ["restore", "degrade"])
def test_quality_without_effect_is_rejected(
    kind: str, photo: Image.Image, weights: Path, tmp_path: Path
) -> None:
    photo.save(tmp_path / "a.png")
    how = ["--weights", weights] if kind == "restore" else ["--with", "noise"]
    result = run(kind, tmp_path / "a.png", "-o", tmp_path / "b.png", *how, "--quality", 80)
    assert result.exit_code == 2
    assert (
        "--quality has no effect here, where no result is a JPEG, WebP, AVIF or HEIC file; "
        "remove it" in text(result)
    )
    assert (
        run(kind, tmp_path / "a.png", "-o", tmp_path / "b.jpg", *how, "--quality", 101).exit_code
        == 2
    )


def test_max_side(photo: Image.Image, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    photo.save(tmp_path / "in" / "wide.png")
    photo.resize((20, 30)).save(tmp_path / "in" / "small.png")
    command = (
        "restore",
        tmp_path / "in",
        "-o",
        tmp_path / "out",
        "--weights",
        weights,
        "--device",
        "cpu",
        "--max-side",
        40,
    )
    result = run(*command, "--json")
    assert result.exit_code == 0, text(result)
    assert Image.open(tmp_path / "out" / "wide.png").size == (40, 31)
    assert Image.open(tmp_path / "out" / "small.png").size == (20, 30)
    smaller = reduced(read_file(tmp_path / "in" / "wide.png"), 40)
    assert np.array_equal(
        np.asarray(Restorer(weights, "cpu")(smaller)),
        np.asarray(Image.open(tmp_path / "out" / "wide.png")),
    )
    assert all(file["change"] > 0 for file in json.loads(result.stdout)["files"])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "F"])
def test_every_kind_of_picture_is_reduced(mode: str) -> None:
    ramp = np.linspace(0, 1, 64)[None].repeat(48, 0)
    if mode in ("I;16", "F"):
        picture = Image.fromarray(
            (ramp * 65535).astype(np.uint16) if mode == "I;16" else ramp.astype(np.float32)
        )
    else:
        picture = Image.fromarray((ramp * 255).astype(np.uint8)).convert(mode)
    picture.info["icc_profile"] = b"a profile"
    smaller = reduced(picture, 16)
    assert smaller.size == (16, 12)
    assert smaller.info["icc_profile"] == b"a profile"
    if mode in ("I;16", "F"):
        values = np.asarray(smaller)[6] / (65535 if mode == "I;16" else 1)
        assert np.abs(values - np.linspace(0, 1, 16)).max() < 0.04
    assert reduced(picture, 64) is picture


def test_transparent_pixels_do_not_change_a_reduced_picture() -> None:
    pixels = np.zeros((8, 8, 4), np.uint16)
    pixels[:, ::2] = 60000, 30000, 10000, 65535  # between them transparent black
    smaller = reduced(DeepPicture(pixels, {"dpi": (72, 72)}), 4)
    assert isinstance(smaller, DeepPicture)
    assert np.abs(smaller.pixels[1:-1, 1:-1, :3].astype(int) - (60000, 30000, 10000)).max() < 300
    assert smaller.info == {"dpi": (72, 72)}


def test_side_by_side(photo: Image.Image, weights: Path, tmp_path: Path) -> None:
    photo.save(tmp_path / "a.png", icc_profile=b"")
    common = ("restore", tmp_path / "a.png", "--weights", weights, "--device", "cpu")
    assert run(*common, "-o", tmp_path / "clear.png").exit_code == 0
    assert run(*common, "-o", tmp_path / "both.png", "--side-by-side").exit_code == 0
    both = np.asarray(Image.open(tmp_path / "both.png"))
    assert both.shape == (75, 2 * 97 + 8, 3)
    assert np.array_equal(both[:, :97], np.asarray(photo))
    assert np.array_equal(both[:, -97:], np.asarray(Image.open(tmp_path / "clear.png")))


@pytest.mark.parametrize("option", [("--max-side", "100"), ("--side-by-side",)])
def test_options_for_images_are_rejected_for_videos(
    option: tuple[str, ...], weights: Path, tmp_path: Path
) -> None:
    pytest.importorskip("av")
    clip(tmp_path / "clip.mp4")
    result = run(
        "restore", tmp_path / "clip.mp4", "-o", tmp_path / "out.mp4", "--weights", weights, *option
    )
    assert result.exit_code == 2
    assert (
        f"{option[0]} has no effect for videos, such as {tmp_path / 'clip.mp4'}; remove it"
        in text(result)
    )


def test_different_size_is_a_different_run(
    photo: Image.Image, weights: Path, tmp_path: Path
) -> None:
    photo.save(tmp_path / "a.png")
    command = (
        "restore",
        tmp_path / "a.png",
        "-o",
        tmp_path / "out",
        "--weights",
        weights,
        "--device",
        "cpu",
        "--resume",
    )
    assert run(*command, "--max-side", 50).exit_code == 0
    other = run(*command, "--max-side", 60)
    assert other.exit_code == 2
    assert "max_side was 50 and is 60" in text(other)
