"""Recognisers: ONNX files and their cards, resizing, functions, and errors."""

import importlib
import importlib.util
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.conftest import LFS_POINTER
from tests.evaluation.recognition.onnx_files import FLOAT, INT64, write_onnx

from vrdir.errors import RecogniserError
from vrdir.evaluation.recognition.recognisers.contracts import Classifier, Detector, Embedder
from vrdir.evaluation.recognition.recognisers.resizing import centre_cropped, letterboxed
from vrdir.evaluation.recognition.registry import find_task, task_names

CROP = {
    "mode": "shorter_side_centre_crop",
    "shorter_side": 10,
    "crop": 8,
    "filter": "bicubic",
    "antialias": True,
}
BOX = {
    "mode": "letterbox",
    "size": [8, 8],
    "align": "top-left",
    "pad": 114,
    "filter": "bilinear",
    "antialias": True,
}
STRETCH = {"mode": "stretch", "size": [8, 4], "filter": "bilinear", "antialias": True}
NAMES = ["red", "green", "blue"]

pytest.importorskip("onnxruntime")


def load_recogniser(spec: str, task: str) -> Any:
    return find_task(task).load(spec)


def classifier(path: Path, resize: dict[str, Any] = CROP, **card: Any) -> Path:
    """Write a classifier whose logit of a colour is the mean of its channel."""
    nodes = [("GlobalAveragePool", ["image"], ["mean"]), ("Flatten", ["mean"], ["logits"])]
    card = {
        "task": "classification",
        "licence": "MIT",
        "classes": {"names": NAMES},
        "resize": resize,
        **card,
    }
    return write_onnx(
        path, nodes, {"image": ("B", 3, 8, 8)}, {"logits": (FLOAT, ("B", 3))}, {}, card
    )


def detector(path: Path, boxes: list[list[float]], label: int = 2) -> Path:
    constants: dict[str, np.ndarray] = {
        "b": np.array(boxes, np.float32).reshape(-1, 4),
        "s": np.full(len(boxes), 0.75, np.float32),
        "l": np.full(len(boxes), label, np.int64),
    }
    nodes = [("Identity", [name[0]], [name]) for name in ("boxes", "scores", "labels")]
    outputs = {"boxes": (FLOAT, ("N", 4)), "scores": (FLOAT, ("N",)), "labels": (INT64, ("N",))}
    card = {"task": "detection", "classes": {"names": NAMES, "count": 3}, "resize": BOX}
    return write_onnx(path, nodes, {"image": (1, 3, 8, 8)}, outputs, constants, card)


def plain(colour: tuple[int, int, int], width: int = 40, height: int = 30) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def test_onnx_classifier_and_its_card(tmp_path: Path) -> None:
    recogniser = load_recogniser(str(classifier(tmp_path / "colours.onnx")), "classification")
    scores = recogniser([plain((255, 0, 51)), plain((0, 255, 0))])
    np.testing.assert_allclose(scores, np.array([[1, 0, 0.2], [0, 1, 0]]), atol=1e-6)
    assert (recogniser.name, recogniser.classes) == ("colours", NAMES)
    assert recogniser.facts["licence"] == "MIT"
    assert len(recogniser.facts["sha256"]) == 64
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    by_file = load_recogniser(
        str(classifier(tmp_path / "x.onnx", classes={"names": "names.txt"}, non_commercial=True)),
        "classification",
    )
    assert by_file.classes == ["a", "b", "c"]
    assert by_file.facts["licence"] == "MIT (non-commercial use only)"


def test_documented_cards_are_valid(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[3] / "docs" / "recognition.md").read_text()
    cards = [
        json.loads(block)
        for block in re.findall(r"^```json\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    ]
    (tmp_path / "classes.txt").write_text("red\ngreen\nblue\n")
    tasks = ["classification", "detection", "reid"]
    assert [card["task"] for card in cards][:3] == tasks
    assert {card["task"] for card in cards} == {
        name for name in task_names() if find_task(name).onnx_outputs
    }
    for task, card in zip(tasks, cards, strict=False):
        resize = card["resize"]
        height, width = resize.get("size") or [resize["crop"]] * 2
        if task == "detection":
            constants: dict[str, np.ndarray] = {
                "b": np.zeros((0, 4), np.float32),
                "s": np.zeros(0, np.float32),
                "l": np.zeros(0, np.int64),
            }
            nodes = [("Identity", [name[0]], [name]) for name in ("boxes", "scores", "labels")]
            outputs = {
                "boxes": (FLOAT, ("N", 4)),
                "scores": (FLOAT, ("N",)),
                "labels": (INT64, ("N",)),
            }
            path = write_onnx(
                tmp_path / "net.onnx",
                nodes,
                {"image": (1, 3, height, width)},
                outputs,
                constants,
                card,
            )
        else:
            name = {"classification": "logits", "reid": "embedding"}[task]
            nodes = [("GlobalAveragePool", ["image"], ["mean"]), ("Flatten", ["mean"], [name])]
            path = write_onnx(
                tmp_path / "net.onnx",
                nodes,
                {"image": ("B", 3, height, width)},
                {name: (FLOAT, ("B", 3))},
                {},
                card,
            )
        assert load_recogniser(str(path), task).facts["file"] == "net.onnx"


def test_onnx_detector_returns_boxes_in_pixels_of_the_image(tmp_path: Path) -> None:
    found = load_recogniser(str(detector(tmp_path / "d.onnx", [[1, 2, 3, 6]])), "detection")(
        plain((0, 0, 0), 32, 16)
    )
    assert found.boxes.tolist() == [[4, 8, 12, 24]]
    assert (found.scores.tolist(), found.labels.tolist()) == ([0.75], [2])
    nothing = load_recogniser(str(detector(tmp_path / "n.onnx", [])), "detection")(plain((0, 0, 0)))
    assert [len(part) for part in nothing] == [0, 0, 0]
    with pytest.raises(RecogniserError, match=r"returned labels from .* to 3, .* classes 0 to 2"):
        load_recogniser(str(detector(tmp_path / "w.onnx", [[1, 2, 3, 6]], label=3)), "detection")(
            plain((0, 0, 0))
        )


def test_onnx_embedder_returns_unit_vectors(tmp_path: Path) -> None:
    nodes = [("GlobalAveragePool", ["image"], ["mean"]), ("Flatten", ["mean"], ["embedding"])]
    card = {"task": "reid", "classes": None, "resize": STRETCH}
    path = write_onnx(
        tmp_path / "e.onnx",
        nodes,
        {"image": ("B", 3, 8, 4)},
        {"embedding": (FLOAT, ("B", 3))},
        {},
        card,
    )
    embed = load_recogniser(str(path), "reid")
    vectors = embed([plain((60, 80, 0)), plain((0, 0, 9))])
    np.testing.assert_allclose(vectors, np.array([[0.6, 0.8, 0], [0, 0, 1]]), atol=1e-6)
    with pytest.raises(ValueError, match="vector of zeros"):
        embed([plain((0, 0, 0))])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda path: classifier(path, {**CROP, "mode": "stretch"}),
            "mode 'stretch'; for classification it must be 'shorter",
        ),
        (lambda path: classifier(path, {**CROP, "filter": "box"}), "filter 'box'"),
        (
            lambda path: classifier(path, {**CROP, "crop": 7}),
            r"resize ends at \[7, 7\].* is \[8, 8\]",
        ),
        (lambda path: classifier(path, task="reid"), "task 'reid', but 'classification' is needed"),
        (lambda path: classifier(path, sha256="0"), "describes another file"),
        (
            lambda path: classifier(path, classes={"names": ["a"]}),
            "has 3 classes, but its card names 1",
        ),
        (
            lambda path: classifier(path, classes={"names": NAMES, "count": 4}),
            "4 classes, but 3 names",
        ),
        (lambda path: classifier(path, classes=None), "contains no class names"),
        (
            lambda path: classifier(path, classes={"names": "none.txt"}),
            "none.txt, which does not exist",
        ),
    ],
)
def test_card_that_does_not_match_the_network_raises(
    make: Callable[[Path], Path], message: str, tmp_path: Path
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_recogniser(str(make(tmp_path / "x.onnx")), "classification")


@pytest.mark.parametrize("name", ["x.onnx", "x.json", "names.txt"])
def test_git_lfs_pointer_is_reported(tmp_path: Path, name: str) -> None:
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    path = classifier(tmp_path / "x.onnx", classes={"names": "names.txt"})
    (tmp_path / name).write_text(LFS_POINTER)
    with pytest.raises(
        ValueError, match=rf"{name} is a Git LFS pointer, not the file itself; run: git lfs pull"
    ):
        load_recogniser(str(path), "classification")


def test_network_with_other_inputs_or_outputs_raises(tmp_path: Path) -> None:
    card = {"task": "classification", "classes": {"names": NAMES}, "resize": CROP}
    flat = [("Flatten", ["data"], ["logits"])]
    path = write_onnx(
        tmp_path / "in.onnx", flat, {"data": (1, 3, 8, 8)}, {"logits": (FLOAT, (1, 192))}, {}, card
    )
    with pytest.raises(
        ValueError,
        match=r"has the inputs data tensor\(float\) \[1, 3, 8, 8\]; it must have one, image",
    ):
        load_recogniser(str(path), "classification")
    path = write_onnx(
        tmp_path / "out.onnx",
        [("Flatten", ["image"], ["y"])],
        {"image": ("B", 3, 8, 8)},
        {"y": (FLOAT, ("B", 192))},
        {},
        card,
    )
    with pytest.raises(
        ValueError,
        match=r"returns y .*; classification needs logits of 2 dimensions",
    ):
        load_recogniser(str(path), "classification")
    (tmp_path / "torn.onnx").write_bytes(b"torn")
    (tmp_path / "torn.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match="not an ONNX file that onnxruntime can open"):
        load_recogniser(str(tmp_path / "torn.onnx"), "classification")
    (tmp_path / "torn.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"needs a card torn.json next to it"):
        load_recogniser(str(tmp_path / "torn.onnx"), "classification")
    with pytest.raises(FileNotFoundError, match="recogniser .* does not exist"):
        load_recogniser(str(tmp_path / "none.onnx"), "classification")


def test_resizing_follows_the_card() -> None:
    picture = Image.new("RGB", (40, 20), "red")
    canvas, scale = letterboxed(picture, 16, 114, Image.Resampling.BILINEAR)
    assert (canvas.size, scale) == ((16, 16), 0.4)
    assert canvas.getpixel((15, 7)) == (255, 0, 0)
    assert canvas.getpixel((0, 8)) == (114, 114, 114)
    halves = Image.new("RGB", (60, 20))
    halves.paste("white", (30, 0, 60, 20))
    cropped = np.asarray(centre_cropped(halves, 10, 8, Image.Resampling.BICUBIC))
    assert cropped.shape == (8, 8, 3)
    assert cropped[:, 0].max() == 0  # the edge between black and white is in the middle
    assert cropped[:, -1].min() == 255


def test_classes_of_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_networks.py").write_text(
        "import numpy as np\n"
        "def colours(images):\n    return np.stack([image.mean((0, 1)) for image in images])\n"
        "colours.classes = ['red', 'green', 'blue']\n"
        "def boxes(image):\n    return [[0, 0, 5, 5]], [0.5], [0]\n"
        "def nothing(image):\n    return None\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    recogniser = load_recogniser("their_networks:colours", "classification")
    assert recogniser([plain((9, 0, 0))]).tolist() == [[9, 0, 0]]
    embedder = load_recogniser("their_networks:colours", "reid")
    assert embedder([plain((9, 0, 0))]).tolist() == [[1, 0, 0]]
    with pytest.raises(ValueError, match="has no class names"):
        load_recogniser("their_networks:boxes", "detection")
    (tmp_path / "their_networks.py").write_text(
        (tmp_path / "their_networks.py").read_text() + "CLASSES = ['thing']\n"
    )
    monkeypatch.delitem(sys.modules, "their_networks")
    importlib.invalidate_caches()
    found = load_recogniser("their_networks:boxes", "detection")(plain((0, 0, 0)))
    assert found.boxes.tolist() == [[0, 0, 5, 5]]
    with pytest.raises(RecogniserError, match="does not return boxes, scores and labels"):
        load_recogniser("their_networks:nothing", "detection")(plain((0, 0, 0)))


@pytest.mark.parametrize(
    ("recogniser", "message"),
    [
        (
            Classifier("it", {}, NAMES, lambda images: np.zeros((1, 2))),
            r"scores of shape \(1, 2\).*\(1, 3\)",
        ),
        (Classifier("it", {}, NAMES, lambda images: np.full((1, 3), np.nan)), "not finite"),
        (Classifier("it", {}, NAMES, lambda images: [["a", "b", "c"]]), "expected numbers"),
        (
            Embedder("it", {}, lambda images: np.zeros((1, 0))),
            r"expected numbers of shape \(1, D\)",
        ),
    ],
)
def test_invalid_output_raises(recogniser: Classifier | Embedder, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recogniser([plain((0, 0, 0))])


def test_detector_with_different_numbers_of_boxes_and_scores_raises() -> None:
    with pytest.raises(RecogniserError, match=r"boxes of shape \(2, 4\).*\(1, 4\)"):
        Detector("it", {}, NAMES, lambda image: (np.zeros((2, 4)), [0.5], [0]))(plain((0, 0, 0)))


@pytest.mark.parametrize("package", ["timm", "torchvision", "transformers"])
def test_missing_package_is_reported_with_the_install_command(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # importing it fails, installed or not
    with pytest.raises(ValueError, match=f"pip install {package}"):
        load_recogniser(f"{package}:x", "classification")


@pytest.mark.parametrize(
    ("spec", "task"),
    [("timm:resnet18", "detection"), ("torchvision:resnet18", "reid"), ("resnet18", "reid")],
)
def test_package_without_models_for_the_task_is_reported(spec: str, task: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be used for|is not a recogniser; use FILE.onnx"):
        load_recogniser(spec, task)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_cards_and_class_names_in_any_unicode_encoding(encoding: str, tmp_path: Path) -> None:
    path = classifier(tmp_path / "colours.onnx", classes={"names": "cafe\u0301.txt", "count": 3})
    card = path.with_suffix(".json")
    card.write_bytes((card.read_text() + "\r\n\r\n").encode(encoding))
    (tmp_path / "caf\u00e9.txt").write_bytes(
        "rot\r\n gr\u00fcn\r\nblau\r\n\r\n \r\n".encode(encoding)
    )
    assert load_recogniser(str(path), "classification").classes == ["rot", "gr\u00fcn", "blau"]
    (tmp_path / "caf\u00e9.txt").write_bytes(b"rot\ngr\xfcn\nblau\n")
    with pytest.raises(ValueError, match=r"caf\u00e9.txt is no.* text in UTF-8 or UTF-16"):
        load_recogniser(str(path), "classification")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"[" * 100000,
            "colours.json .*brackets are nested too deeply",
        ),
        (b"{", "colours.json is no.* JSON"),
        (b'{"resize": ' + b"9" * 5000 + b"}", "colours.json is no.* JSON"),
        (b"\xff", "colours.json is no.* text"),
        (b"9" * 400, "colours.json has no `resize`"),
        (
            json.dumps(
                {"task": "classification", "resize": {**CROP, "filter": ["bicubic"]}}
            ).encode(),
            "resize.filter",
        ),
        (
            json.dumps(
                {"task": "classification", "resize": CROP, "classes": {"names": 3}}
            ).encode(),
            "contains no class names",
        ),
    ],
)
def test_invalid_card_is_reported(content: bytes, message: str, tmp_path: Path) -> None:
    path = classifier(tmp_path / "colours.onnx")
    path.with_suffix(".json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_recogniser(str(path), "classification")


@pytest.mark.parametrize("name", ["/etc", "", "no such name", "../.."])
def test_unknown_transformers_model_is_reported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for task in ("classification", "detection", "reid"):
        with pytest.raises(ValueError, match=f"^transformers:{re.escape(name)} cannot be loaded"):
            load_recogniser(f"transformers:{name}", task)
