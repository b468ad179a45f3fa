"""The README's own commands and lines run as they stand there."""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import typer.main
from PIL import Image
from tests.clips import clip
from tests.conftest import IDENTITY_ONNX
from typer.testing import CliRunner

import vrdir
from vrdir.cli.app import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    return [
        line for block in blocks("bash") for line in block.splitlines() if line.startswith("vrdir ")
    ]


@pytest.fixture
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photo: Image.Image) -> Path:
    """A folder with the files that the README's user has."""
    monkeypatch.chdir(tmp_path)
    vrdir.degrade(photo, "haze", seed=1).save("foggy.jpg")
    (tmp_path / "photos").mkdir()
    photo.save("photos/one.png")
    photo.save("photos/two.jpg")
    clip(tmp_path / "clip.mp4")
    return tmp_path


def test_there_are_commands_and_lines_to_test() -> None:
    assert len(commands()) >= 4
    assert len(blocks("python")) >= 1


@pytest.fixture
def own_objects(photo: Image.Image) -> dict[str, Any]:
    """What the README's user has beside files: a classifier, a session, photos."""
    images = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None] / 255
    normalised = (images - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    return {
        "vrdir": vrdir,
        "frame": np.array(photo),
        "photo": photo,
        "target": {"label": 3},
        "boxes": [(1, 2, 3, 4)],
        "model": torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
        ).eval(),
        "images": normalised,
        "session": onnxruntime.InferenceSession(IDENTITY_ONNX, providers=["CPUExecutionProvider"]),
        "batch": images.numpy(),
    }


def test_python_lines(own_files: Path, own_objects: dict[str, Any]) -> None:
    for code in blocks("python"):
        exec(compile(code, "README.md", "exec"), own_objects)
    assert own_objects["logits"].shape == (1, 4)
    assert own_objects["outputs"][0].shape == own_objects["batch"].shape
    assert not np.array_equal(
        own_objects["outputs"][0], own_objects["batch"]
    )  # restored on its way
    assert own_objects["target"] == {"label": 3}
    assert own_objects["sample"]["bboxes"] == [(1, 2, 3, 4)]


def test_commands(own_files: Path) -> None:
    for line in commands():
        arguments = shlex.split(line, comments=True)[1:]
        if arguments[0] == "train":  # hours: only that the command is right
            command: Any = typer.main.get_command(app)
            for name in arguments[:2]:
                command = command.commands[name]
            command.make_context("vrdir", arguments[2:])
            continue
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, f"{line}: {result.output}{result.stderr}"


def test_make_targets_exist() -> None:
    targets = re.findall(r"^make (\w+)", "\n".join(blocks("bash")), re.MULTILINE)
    assert {"demo", "test"} <= set(targets)
    makefile = (ROOT / "Makefile").read_text()
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_linked_files_exist() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link
