"""Detection from end to end, with a detector of coloured rectangles."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from scipy import ndimage

from vrdir.evaluation.recognition.conditions import Condition
from vrdir.evaluation.recognition.labels.boxes import Truth
from vrdir.evaluation.recognition.labels.detection import read_detection
from vrdir.evaluation.recognition.labels.labelled import LabelledImages
from vrdir.evaluation.recognition.recognisers.contracts import Detector
from vrdir.evaluation.recognition.restorers import RestoredFolders, function_for_images
from vrdir.evaluation.recognition.tasks.detection import Detection
from vrdir.evaluation.user_functions import Pixels

COLOURS = {"red": 0, "green": 1, "blue": 2}


def find_rectangles(image: Pixels) -> tuple[list[list[float]], list[float], list[int]]:
    """Return connected regions in which one channel exceeds the others by 60 levels."""
    boxes, scores, labels = [], [], []
    for label in range(3):
        lead = image[..., label].astype(int) - np.delete(image, label, 2).max(2)
        regions, _ = ndimage.label(lead > 60)
        for i, (rows, columns) in enumerate(ndimage.find_objects(regions), 1):
            if (regions == i).sum() >= 20:
                boxes.append([columns.start, rows.start, columns.stop, rows.stop])
                scores.append(float(lead[regions == i].mean() / 255))
                labels.append(label)
    return boxes, scores, labels


def detector(*classes: str) -> Detector:
    return Detector("rectangles", {}, classes, find_rectangles)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write twelve scenes of two or three separate rectangles, with YOLO labels.

    grey/ has paler versions, restored/ the scenes themselves.
    """
    root = tmp_path_factory.mktemp("scenes")
    generator = np.random.default_rng(0)
    for folder in ("images", "labels", "grey", "restored/clean", "restored/grey"):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("\n".join(COLOURS) + "\n")
    for number in range(12):
        scene = Image.new("RGB", (120, 80), (90, 90, 90))
        lines = []
        for place in range(int(generator.integers(2, 4))):
            label, left, top = (
                int(generator.integers(3)),
                40 * place + int(generator.integers(2, 12)),
                int(generator.integers(2, 40)),
            )
            width, height = int(generator.integers(10, 26)), int(generator.integers(10, 36))
            colour = [30, 30, 30]
            colour[label] = int(generator.integers(150, 256))
            ImageDraw.Draw(scene).rectangle(
                [left, top, left + width - 1, top + height - 1], tuple(colour)
            )
            lines.append(
                f"{label} {(left + width / 2) / 120} {(top + height / 2) / 80} "
                f"{width / 120} {height / 80}"
            )
        (root / "labels" / f"{number:02}.txt").write_text("\n".join(lines))
        for folder, picture in (
            ("images", scene),
            ("grey", Image.blend(scene, Image.new("RGB", scene.size, "white"), 0.6)),
        ):
            picture.save(root / folder / f"{number:02}.png")
        for folder in ("clean", "grey"):
            scene.save(root / "restored" / folder / f"{number:02}.png")
    return root


def test_restoring_recovers_objects_hidden_by_haze(scenes: Path) -> None:
    data = read_detection(scenes)
    conditions = [Condition("grey", scenes / "grey"), Condition("noise:sigma=2")]

    def stretch(image: Pixels) -> Pixels:
        return ((image.astype(int) - 153).clip(0) * 2.5).clip(0, 255).astype(np.uint8)

    result = Detection().evaluate(
        data,
        detector(*COLOURS),
        conditions,
        {"stretch": function_for_images(stretch)},
        bootstrap=200,
    )
    assert result.count == 12
    assert result.clean["map"] == (100, 100, 100)
    grey, noise = result.conditions
    assert not grey.synthetic
    assert noise.synthetic
    assert grey.degraded["map"].value < 80
    assert grey.restored["stretch"]["map"].value == 100
    assert grey.recovered["stretch"]["map"] == (1, 1, 1)
    assert grey.p_value["stretch"]["map50"] < 0.05
    assert noise.recovered["stretch"]["map"] is None
    assert result.clean_restored["stretch"]["map"].value < 80  # it darkens what was clear
    assert result.clean_p_value["stretch"]["map"] < 0.05

    won = [case for case in result.examples if case.improved and case.condition == "grey"]
    assert 1 <= len(won) <= 4
    found, _, total = won[0].answers["restored"].split(" ")[:3]
    assert found == total
    assert len(won[0].boxes["restored"]) == int(total)
    assert won[0].boxes["restored"][0][4].split()[0] in won[0].truth
    assert len(won[0].boxes.get("degraded", ())) < int(total)


def test_results_in_a_folder_are_evaluated(scenes: Path) -> None:
    conditions = [Condition("grey", scenes / "grey")]
    result = Detection().evaluate(
        read_detection(scenes),
        detector(*COLOURS),
        conditions,
        {"peer": RestoredFolders(scenes / "restored", conditions)},
        bootstrap=50,
    )
    assert result.conditions[0].restored["peer"] == result.clean


def test_images_without_any_object_raise(scenes: Path, tmp_path: Path) -> None:
    for folder in ("images", "labels", "foggy"):
        (tmp_path / folder).mkdir()
    for name, folder in (("00", "images"), ("01", "images"), ("01", "foggy")):
        shutil.copy(scenes / "images" / f"{name}.png", tmp_path / folder)
    shutil.copy(scenes / "labels" / "00.txt", tmp_path / "labels")
    (tmp_path / "labels" / "01.txt").write_text(
        ""
    )  # no object in it, and the only one there is in fog
    shutil.copy(scenes / "classes.txt", tmp_path)
    with pytest.raises(
        ValueError, match="none of the 1 images that could be measured has an object"
    ):
        Detection().evaluate(
            read_detection(tmp_path),
            detector(*COLOURS),
            [Condition("foggy", tmp_path / "foggy")],
            {},
            bootstrap=20,
        )


def test_missing_package_is_noticed_before_the_detector_runs(
    scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Pixels] = []

    def run(image: Pixels) -> tuple[list[list[float]], list[float], list[int]]:
        calls.append(image)
        return find_rectangles(image)

    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(
        ValueError,
        match=r"mAP needs more packages \(faster_coco_eval is missing\): pip install",
    ):
        Detection().evaluate(
            read_detection(scenes),
            Detector("rectangles", {}, list(COLOURS), run),
            [Condition("noise")],
            {},
        )
    assert not calls


def test_detector_may_return_tensors(scenes: Path) -> None:
    def run(image: Pixels) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        boxes, scores, labels = find_rectangles(image)
        return (
            torch.tensor(boxes, dtype=torch.float32, requires_grad=True),
            torch.tensor(scores, requires_grad=True),
            torch.tensor(labels),
        )

    detector = Detector("rectangles", {}, list(COLOURS), run)
    assert (
        Detection()
        .evaluate(read_detection(scenes), detector, [Condition("jpeg")], {}, bootstrap=20)
        .clean["map"]
        .value
        == 100
    )


def test_unknown_classes_are_excluded_by_name(scenes: Path) -> None:
    data = read_detection(scenes)
    known = Detection().match_labels(data, detector("red", "blue"))
    greens = sum(list(truth.labels).count("green") for truth in data.labels)
    assert [one.name for one in known.excluded] == [f"class green ({greens} boxes)"]
    assert (
        sum(len(one.objects.labels) for one in known.labels)
        == sum(len(truth.labels) for truth in data.labels) - greens
    )
    with pytest.raises(
        ValueError, match="no labelled object is left; nothing is left to measure: 3 exclusions"
    ):
        Detection().match_labels(data, detector("cat"))
    empty = Truth(np.zeros((0, 4)), [], np.zeros(0, bool))
    with pytest.raises(ValueError, match="no labelled object is left"):
        Detection().match_labels(LabelledImages(data.images[:1], [empty]), detector("cat"))
