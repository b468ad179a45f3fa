"""`-` as input and output: one image through a pipe."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.conftest import text
from typer.testing import CliRunner

from vrdir import Restorer
from vrdir.cli.app import app


def vrdir(*arguments: object, content: bytes = b"") -> Any:
    return CliRunner().invoke(
        app, [str(a) for a in arguments], input=content, catch_exceptions=False
    )


def encoded(photo: Image.Image, file_format: str) -> bytes:
    buffer = io.BytesIO()
    photo.save(buffer, file_format)
    return buffer.getvalue()


def test_standard_input_to_standard_output(
    photo: Image.Image, weights: Path, tmp_path: Path
) -> None:
    content = encoded(photo, "PNG")
    command = [
        sys.executable,
        "-m",
        "vrdir",
        "restore",
        "-",
        "-o",
        "-",
        "--weights",
        str(weights),
        "--device",
        "cpu",
    ]
    result = subprocess.run(command, input=content, capture_output=True, check=False, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout == Restorer(weights, "cpu")(content)
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]  # no folder called "-"


def test_from_and_to_files(photo: Image.Image, tmp_path: Path) -> None:
    photo.save(tmp_path / "a.png")
    how = ("--with", "noise:sigma=20", "--seed", 3)
    assert vrdir("degrade", tmp_path / "a.png", "-o", tmp_path / "noisy.png", *how).exit_code == 0
    out = vrdir("degrade", tmp_path / "a.png", "-o", "-", *how)
    assert out.stdout_bytes == (tmp_path / "noisy.png").read_bytes()
    smaller = vrdir(
        "degrade",
        "-",
        "-o",
        tmp_path / "b.jpg",
        *how,
        "--quality",
        20,
        content=encoded(photo, "PNG"),
    )
    assert (smaller.exit_code, smaller.stdout_bytes) == (0, b"")
    assert Image.open(tmp_path / "b.jpg").format == "JPEG"
    again = vrdir("degrade", "-", "-o", tmp_path / "b.jpg", *how, content=encoded(photo, "PNG"))
    assert again.exit_code == 2
    assert "b.jpg exists; replace it with --overwrite" in text(again)


def test_quality_is_rejected_for_a_format_without_it(photo: Image.Image) -> None:
    result = vrdir(
        "degrade", "-", "-o", "-", "--with", "noise", "--quality", 50, content=encoded(photo, "PNG")
    )
    assert (result.exit_code, result.stdout_bytes) == (2, b"")
    assert (
        "--quality has no effect for PNG: it is for JPEG, WebP, AVIF and HEIC; remove it"
        in text(result)
    )


def test_format_and_size(photo: Image.Image, weights: Path) -> None:
    command = (
        "restore",
        "-",
        "-o",
        "-",
        "--format",
        "webp",
        "--max-side",
        40,
        "--weights",
        weights,
        "--device",
        "cpu",
    )
    picture = Image.open(io.BytesIO(vrdir(*command, content=encoded(photo, "JPEG")).stdout_bytes))
    assert (picture.format, picture.size) == ("WEBP", (40, 31))
    kept = vrdir("degrade", "-", "-o", "-", "--with", "jpeg", content=encoded(photo, "JPEG"))
    assert Image.open(io.BytesIO(kept.stdout_bytes)).format == "JPEG"
    assert np.asarray(Image.open(io.BytesIO(kept.stdout_bytes))).shape == (75, 97, 3)


@pytest.mark.parametrize(
    ("arguments", "content", "status", "message"),
    [
        (("-", "-o", "-"), b"", 1, "standard input is empty (0 bytes)"),
        (("-", "-o", "-"), b"hello", 1, "standard input is not an image"),
        (
            ("-", "a.png", "-o", "-"),
            b"",
            2,
            "- means one image; remove the other inputs",
        ),
        (("-", "-o", "-", "--json"), b"", 2, "--json has no effect for one image of a pipe"),
        (("-", "-o", "-", "--resume"), b"", 2, "--resume has no effect for one image of a pipe"),
        (("-", "-o", "out"), b"", 2, "no image format for the suffix '(none)'"),
        (("-", "-o", "out.mp4"), b"", 2, "out.mp4 is a video, which cannot go through a pipe"),
        (("clip.mp4", "-o", "-"), b"", 2, "clip.mp4 is a video, which cannot go through a pipe"),
        (("nowhere.png", "-o", "-"), b"", 1, "nowhere.png does not exist"),
        ((".", "-o", "-"), b"", 1, ". is a folder, not an image"),
        (
            ("-", "-o", "out.png", "--format", "jpg"),
            b"",
            2,
            "out.png and --format jpg are two different formats; use only one",
        ),
    ],
)
def test_impossible_requests_are_reported(
    arguments: tuple[str, ...],
    content: bytes,
    status: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = vrdir("degrade", *arguments, "--with", "noise", content=content)
    assert (result.exit_code, result.stdout_bytes) == (status, b"")
    assert message in text(result)
    assert not list(tmp_path.iterdir())
