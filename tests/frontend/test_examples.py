"""The examples of the front-end run and print what they should."""

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.frontend.optional import import_or_skip

EXAMPLES = Path(__file__).parents[2] / "examples"


def write_detector(path: Path) -> None:
    """Write an ONNX detector that finds one box, whose score is the mean of the image."""
    onnx = import_or_skip("onnx")
    graph = """
        <ir_version: 8, opset_import: ["" : 17]>
        detector (float[1, 3, 64, 64] image)
            => (float[N, 4] boxes, float[N] scores, int64[N] labels) {
            boxes = Constant <value = float[1, 4] {8, 8, 32, 24}> ()
            labels = Constant <value = int64[1] {1}> ()
            mean = ReduceMean <keepdims = 0> (image)
            one = Constant <value = int64[1] {1}> ()
            scores = Reshape (mean, one)
        }
    """
    onnx.save(onnx.parser.parse_model(graph), path)


def run(name: str, *arguments: object) -> None:
    """Run an example as a program."""
    sys.argv = [name, *map(str, arguments)]
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


@pytest.fixture(autouse=True)
def _arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", sys.argv)


def test_detector_example_runs(
    photo: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import_or_skip("onnxruntime")
    write_detector(tmp_path / "net.onnx")
    photo.save(tmp_path / "photo.png")
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    target = tmp_path / "boxes.png"
    options = ("--classes", tmp_path / "names.txt", "-o", target)
    run("frontend_detector.py", tmp_path / "net.onnx", tmp_path / "photo.png", *options)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines[:3]] == [
        "as it is: 1 objects",
        "restored before resizing: 1 objects",
        "restored at the input: 1 objects",
    ]
    with Image.open(target) as both:
        assert both.size == (2 * photo.width, photo.height)
        red = (np.asarray(both.convert("RGB")) == (255, 0, 0)).all(-1)
    assert red.sum() > 100


def test_classifier_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    import_or_skip("efficientnet_lite_pytorch")
    run("frontend_classifier.py")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["as it is", "restored before"]


def test_onnx_example_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import_or_skip("onnxruntime")
    write_detector(tmp_path / "net.onnx")
    run("frontend_onnx.py", tmp_path / "net.onnx")
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["boxes (1, 4)", "scores (1,)", "labels (1,)"]


def test_transform_example_runs() -> None:
    # As a program: its data loader starts a process that imports it again.
    command = [sys.executable, str(EXAMPLES / "frontend_transform.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "(400, 600, 3) [(10, 20, 200, 300)]",
        "torch.Size([2, 224, 224, 3]) torch.uint8",
        "torch.Size([2, 224, 224, 3]) torch.uint8",
    ]


def test_huggingface_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    import_or_skip("transformers")
    run("frontend_huggingface.py")
    assert capsys.readouterr().out.splitlines()[-2:] == ["2", "torch.Size([1, 2])"]


def test_torchvision_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    import_or_skip("torchvision")
    run("frontend_torchvision.py")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == ["torch.Size([1, 1000])", "torch.Size([3, 224, 224])"]


def test_ultralytics_example_runs(
    photo: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import_or_skip("ultralytics")
    photo.save(tmp_path / "photo.png")
    run("frontend_ultralytics.py", tmp_path / "photo.png", "--model", "yolov8n.yaml")
    assert f"{tmp_path / 'photo.png'} (75, 97)" in capsys.readouterr().out


def test_spandrel_example_runs(
    photo: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import_or_skip("spandrel")
    photo.save(tmp_path / "photo.png")
    run("frontend_spandrel.py", tmp_path / "photo.png", "-o", tmp_path / "restored.png")
    assert capsys.readouterr().out == "VRD-IR: haze, noise, sensor_noise, rain, clean\n"
    with Image.open(tmp_path / "restored.png") as restored:
        assert restored.size == photo.size
