"""`vrdir export`, and `vrdir restore --backend`."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.conftest import text
from typer.testing import CliRunner

from vrdir.cli.app import app
from vrdir.export.backends import BACKENDS

for package in ("onnx", "onnxscript", *(backend.package for backend in BACKENDS.values())):
    pytest.importorskip(package)


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


def test_export_to_onnx_and_restore_with_it(
    weights: Path, photo: Image.Image, tmp_path: Path
) -> None:
    result = run("export", "onnx", "-o", tmp_path / "out" / "net.onnx", "--weights", weights)
    assert result.exit_code == 0, text(result)
    assert re.search(r"2 x 3 x 45 x 70: differs from PyTorch by at most \d\.\de-0\d", text(result))
    assert re.search(
        r"net.onnx: \d\.\d MiB, any batch, height and width; max error \d\.\de-0\d", text(result)
    )
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["net.onnx"]

    photo.save(tmp_path / "a.png")
    expected = run(
        "restore", tmp_path / "a.png", "-o", tmp_path / "torch.png", "--weights", weights, "--json"
    )
    for backend in BACKENDS:
        target = tmp_path / f"{backend}.png"
        files = (
            "restore",
            tmp_path / "a.png",
            "-o",
            target,
            "--weights",
            tmp_path / "out" / "net.onnx",
            "--backend",
            backend,
            "--json",
        )
        result = run(*files)
        assert result.exit_code == 0, text(result)
        ours, theirs = (json.loads(r.stdout)["files"][0]["shares"] for r in (result, expected))
        assert ours == pytest.approx(theirs, abs=2e-4)
        assert (
            np.abs(
                np.asarray(Image.open(target)).astype(int)
                - np.asarray(Image.open(tmp_path / "torch.png"))
            ).max()
            <= 1
        )


def test_export_for_one_size(weights: Path, photo: Image.Image, tmp_path: Path) -> None:
    target = tmp_path / "net.onnx"
    result = run(
        "export",
        "onnx",
        "-o",
        target,
        "--weights",
        weights,
        "--size",
        "40x56",
        "--opset",
        19,
        "--fp16",
    )
    assert result.exit_code == 0, text(result)
    assert re.search(r"net.onnx: \d\.\d MiB, 40 x 56 pixels; max error \d\.\de-0\d", text(result))
    photo.crop((0, 0, 56, 40)).save(tmp_path / "fits.png")
    photo.save(tmp_path / "other.png")
    restored = (
        "restore",
        tmp_path / "fits.png",
        tmp_path / "other.png",
        "-o",
        tmp_path / "out",
        "--backend",
        "onnx",
    )
    result = run(*restored, "--weights", target)
    assert result.exit_code == 1
    assert "other.png: " in text(result)
    assert "accepts only images of 40 x 56 pixels (height x width), not 75 x 97" in text(result)
    assert [one.name for one in (tmp_path / "out").iterdir()] == ["fits.png"]
    for wrong in ("480", "0x9", "axb", "4x5x6", "-1x5"):
        result = run(
            "export", "onnx", "-o", tmp_path / "no.onnx", "--weights", weights, f"--size={wrong}"
        )
        assert result.exit_code == 2
        assert f"--size must be HEIGHTxWIDTH in pixels, such as 480x640, not '{wrong}'" in text(
            result
        )


def test_export_to_openvino_with_json(weights: Path, tmp_path: Path) -> None:
    result = run(
        "export", "openvino", "-o", tmp_path / "out" / "net.xml", "--weights", weights, "--json"
    )
    assert result.exit_code == 0, text(result)
    content = json.loads(result.stdout)
    assert content["files"] == [
        str(tmp_path / "out" / "net.xml"),
        str(tmp_path / "out" / "net.bin"),
    ]
    assert sorted(str(p) for p in (tmp_path / "out").iterdir()) == sorted(content["files"])
    assert 0 < content["max_error"] == max(line["error"] for line in content["errors"]) < 1e-5
    assert [1, 3, 1, 1] in [line["shape"] for line in content["errors"]]


def test_export_with_too_large_difference_is_discarded(weights: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "net.onnx"
    target.parent.mkdir()
    target.write_bytes(b"an older export")
    result = run(
        "export", "onnx", "-o", target, "--weights", weights, "--tolerance", "1e-12", "--overwrite"
    )
    assert result.exit_code == 1
    assert re.search(
        r"net.onnx was discarded: in onnx it differs from PyTorch by up to .*; "
        "at most 1e-12 is allowed",
        text(result),
    )
    assert [(p.name, p.read_bytes()) for p in target.parent.iterdir()] == [
        ("net.onnx", b"an older export")
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("export", "onnx", "-o", "net.pt"), "net.pt must have the suffix .onnx"),
        (("export", "openvino", "-o", "net.onnx"), "net.onnx must have the suffix .xml"),
        (
            ("export", "openvino", "-o", "there.xml"),
            "there.bin exists; replace it with --overwrite",
        ),
        (("export", "onnx", "-o", "net.onnx", "--weights", "huge"), "unknown weights 'huge'"),
        (
            ("export", "onnx", "-o", "net.onnx", "--weights", "other.onnx"),
            "other.onnx is the name of an exported network",
        ),
        (
            ("restore", "a.png", "-o", "b.png", "--backend", "onnx", "--weights", "none.onnx"),
            "exported network none.onnx does not exist",
        ),
        (
            ("restore", "a.png", "-o", "b.png", "--weights", "none.onnx"),
            f"those run with backend {' or '.join(BACKENDS)}",
        ),
        (
            ("restore", "a.png", "-o", "b.png", "--backend", "onnx", "--device", "cuda"),
            "runs on the CPU, not on 'cuda'",
        ),
        (("restore", "a.png", "-o", "b.png", "--backend", "tpu"), "'tpu' is not one of"),
    ],
)
def test_error_names_bad_arguments(
    arguments: tuple[str, ...],
    message: str,
    photo: Image.Image,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    photo.save("a.png")
    Path("there.bin").write_bytes(b"")
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in text(result)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "there.bin"]
