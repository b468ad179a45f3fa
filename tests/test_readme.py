"""The commands and Python lines of the README and of the documentation run unchanged.

Blocks marked `bash` and `python` are run. Blocks marked `sh`, and indented commands, need files or
hours that a test does not have: there every command and option must exist.
"""

import re
import shlex
from collections.abc import Iterator
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
RUN = ("README.md", "docs/index.md", "docs/get-started.md")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a page that are marked with a language."""
    text = (ROOT / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    """Return the vrdir commands that a page's readers can run on their own photos."""
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith("vrdir ")]


@pytest.fixture
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photo: Image.Image) -> Path:
    """Return a folder with the files that the readers of the pages have."""
    monkeypatch.chdir(tmp_path)
    vrdir.degrade(photo, "haze", seed=1).save("foggy.jpg")
    (tmp_path / "photos").mkdir()
    photo.save("photos/one.png")
    photo.save("photos/two.jpg")
    clip(tmp_path / "clip.mp4")
    return tmp_path


@pytest.fixture
def own_objects(photo: Image.Image) -> dict[str, Any]:
    """Return what the readers of the pages have besides files: a classifier, a session, photos."""
    images = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None] / 255
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    classifier = (torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    return {
        "vrdir": vrdir,
        "frame": np.array(photo),
        "frames": [np.array(photo)] * 2,
        "photo": photo,
        "target": {"label": 3},
        "boxes": [(1, 2, 3, 4)],
        "model": torch.nn.Sequential(*classifier).eval(),
        "images": (images - mean) / std,
        "session": onnxruntime.InferenceSession(IDENTITY_ONNX, providers=["CPUExecutionProvider"]),
        "batch": images.numpy(),
    }


@pytest.mark.parametrize("page", RUN)
def test_python_lines_run(page: str, own_files: Path, own_objects: dict[str, Any]) -> None:
    given = dict(own_objects)
    assert blocks(page, "python")
    for code in blocks(page, "python"):
        exec(compile(code, page, "exec"), given)
    if "logits" in given:
        assert given["logits"].shape == (1, 4)
    if "outputs" in given:  # restored in front of a network that returns its input
        assert given["outputs"][0].shape == given["batch"].shape
        assert not np.array_equal(given["outputs"][0], given["batch"])
    if "sample" in given:
        assert given["target"] == {"label": 3}
        assert given["sample"]["bboxes"] == [(1, 2, 3, 4)]


@pytest.mark.parametrize("page", [page for page in RUN if commands(page)])
def test_commands_run(page: str, own_files: Path) -> None:
    for line in commands(page):
        arguments = shlex.split(line, comments=True)[1:]
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, f"{line}: {result.output}{result.stderr}"


def vrdir_lines(page: Path) -> Iterator[str]:
    """Yield the commands of a page, those in blocks of `sh` and bare indented ones included."""
    text = page.read_text().replace("\\\n", " ")
    code = re.findall(r"^```(?:ba)?sh\n.*?^```|^ {4}\S.*?$", text, re.MULTILINE | re.DOTALL)
    yield from re.findall(r"^ *vrdir (\S.*)$", "\n".join(code), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_exist(page: Path) -> None:
    for line in vrdir_lines(page):
        arguments = shlex.split(line.split(" > ")[0].split(" | ")[0], comments=True)
        command: Any = typer.main.get_command(app)
        names = [word for word in arguments if not word.startswith("-")]
        while getattr(command, "commands", None) and names:
            found = command.get_command(typer.Context(command), names[0])
            assert found is not None, f"no command {names[0]}: vrdir {line}"
            command, names = found, names[1:]
        known = {
            name for option in command.params for name in (*option.opts, *option.secondary_opts)
        }
        if arguments[0] == "train":
            continue  # its settings are options too; tests/training runs docs/training.md
        used = {word.split("=")[0] for word in arguments if re.fullmatch(r"--[a-z].*", word)}
        unknown = used - known - {"--help", "--version"}
        assert not unknown, f"no option {unknown}: vrdir {line}"


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^ *make (\w[\w-]*)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert {"demo", "test"} <= targets
    for page in PAGES:
        for target in re.findall(r"^ *make (\w[\w-]*)", page.read_text(), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page}: make {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_linked_files_exist(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s#:]+)(?:#[^)]*)?\)", page.read_text())
    for link in links:
        if not link.startswith("../../actions"):  # GitHub's own pages, outside the repository
            assert (page.parent / link).exists(), link


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 120
