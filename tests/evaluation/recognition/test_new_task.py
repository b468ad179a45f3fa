"""The task of the guide, added as a contributor would add it: one file, then the command runs."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import text
from typer.testing import CliRunner

from vrdir.cli.app import app
from vrdir.errors import InputError
from vrdir.evaluation.recognition import tasks
from vrdir.evaluation.recognition.registry import find_task, task_names

GUIDE = Path(__file__).parents[3] / "docs" / "extending" / "evaluation.md"


@pytest.fixture
def segmentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the guide's file to the package of tasks."""
    (code,) = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "more_tasks").mkdir()
    (tmp_path / "more_tasks" / "segmentation.py").write_text(code)
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(tmp_path / "more_tasks")])
    monkeypatch.delitem(sys.modules, f"{tasks.__name__}.segmentation", raising=False)


@pytest.fixture
def scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make six images with a bright square, their masks, darker versions, and a segmenter."""
    for number in range(6):
        mask = np.zeros((24, 32), np.uint8)
        mask[4 + number : 12 + number, 6:20] = 1
        image = np.where(mask[..., None] == 1, 240, 40).repeat(3, 2).astype(np.uint8)
        for folder, pixels in (("images", image), ("masks", mask), ("dim", image // 2)):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "data" / folder / f"{number}.png")
    (tmp_path / "segmenting.py").write_text(
        "def bright(image):\n    return (image.mean(2) > 150).astype(int)\n"
        "def brighten(image):\n    return (image.astype(int) * 2).clip(0, 255).astype('uint8')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "segmenting", raising=False)


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["evaluate", *arguments], catch_exceptions=False)
    return result.exit_code, text(result), result.stdout


@pytest.mark.usefixtures("segmentation", "scenes")
def test_new_task_needs_one_file(tmp_path: Path) -> None:
    assert "segmentation" in task_names()
    assert "segmentation Measure mean IoU of segmentation" in re.sub(
        r"[\s│]+", " ", run("--help")[1]
    )
    assert "images/ and masks/" in run("segmentation", "--help")[1]
    data = ("--data", "data", "--degraded", "dim=data/dim", "--recogniser", "segmenting:bright")
    restorer = ("--no-vrdir", "--restorer", "peer=segmenting:brighten")
    outputs = ("--csv", "t.csv", "--report", "p.html", "--json", "--limit", "5")
    status, shown, stdout = run("segmentation", *data, *restorer, *outputs)
    assert status == 0, shown
    (result,) = json.loads(stdout)["results"]
    assert (result["task"], result["images"]) == ("segmentation", 5)
    assert result["clean"]["miou"]["value"] == 100
    (dim,) = result["conditions"]
    assert dim["degraded"]["miou"]["value"] < 50
    assert dim["restored"]["peer"]["miou"]["value"] == 100
    assert dim["recovered"]["peer"]["pixels"]["value"] == 1
    assert dim["p_value"]["peer"]["miou"] < 0.1
    assert "segmentation,segmenting:bright,5" in (tmp_path / "t.csv").read_text()
    html = (tmp_path / "p.html").read_text()
    assert "The effect of restoring on recognition: segmentation" in html
    assert "mIoU 100 %" in html


@pytest.mark.usefixtures("segmentation", "scenes")
def test_new_task_accepts_only_declared_options() -> None:
    for spec, message in (
        ("net.onnx", "ONNX files cannot be used for segmentation"),
        ("timm:resnet18", "models of timm cannot be used for segmentation"),
    ):
        status, shown, _ = run(
            "segmentation", "--data", "data", "--recogniser", spec, "--no-vrdir",
            "--restorer", "peer=segmenting:brighten",
        )  # fmt: skip
        assert status == 2
        assert message in shown


def test_error_names_unknown_task() -> None:
    with pytest.raises(InputError, match="unknown task 'captions'; choose one of classification"):
        find_task("captions")
