"""Classification from end to end, with a network trained here on parts of real photos."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from torch import nn

from vrdir.evaluation.recognition.conditions import Condition
from vrdir.evaluation.recognition.labels.classification import read_classification
from vrdir.evaluation.recognition.labels.labelled import LabelledImages
from vrdir.evaluation.recognition.recognisers.contracts import Classifier
from vrdir.evaluation.recognition.restorers import function_for_images
from vrdir.evaluation.recognition.tasks.classification import Classification, rank_classes
from vrdir.evaluation.user_functions import Pixels
from vrdir.restoring.restorer import Restorer

PHOTOS = ("astronaut", "chelsea", "coffee", "motorcycle_left")
SIDE = 64


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a folder per photo with 15 parts of it."""
    root = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for name in PHOTOS:
        photo = opened(name)
        (root / name).mkdir()
        for i in range(15):
            left, top = (
                int(generator.integers(0, side - SIDE)) for side in (photo.width, photo.height)
            )
            photo.crop((left, top, left + SIDE, top + SIDE)).save(root / name / f"{i:02}.png")
    return root


@pytest.fixture(scope="module")
def recogniser() -> Classifier:
    """Train a small network that recognises from which photo a part is."""
    torch.manual_seed(0)
    generator = np.random.default_rng(1)
    network = nn.Sequential(
        *(
            nn.Conv2d(3, 16, 3, 2),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2),
            nn.BatchNorm2d(32),
            nn.ReLU(),
        ),
        *(nn.Conv2d(32, 32, 3, 2), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4)),
    )
    whole = [np.asarray(opened(name)) for name in PHOTOS]
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(250):
        labels = generator.integers(0, 4, 32)
        parts = []
        for label in labels:
            top, left = (generator.integers(0, size - SIDE) for size in whole[label].shape[:2])
            parts.append(whole[label][top : top + SIDE, left : left + SIDE])
        loss = nn.functional.cross_entropy(network(batch(parts)), torch.from_numpy(labels))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    network.eval()

    def run(images: Sequence[Pixels]) -> torch.Tensor:
        with torch.no_grad():
            return network(batch(images))

    return Classifier("tiny", {"licence": "none"}, PHOTOS, run)


def opened(name: str) -> Image.Image:
    return Image.open(Path(skimage.data.__file__).parent / f"{name}.png").convert("RGB")


def batch(images: Sequence[Pixels]) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).movedim(-1, 1).float() / 255 - 0.5


def test_restoring_recovers_accuracy_lost_to_haze(photos: Path, recogniser: Classifier) -> None:
    data = read_classification(photos)
    done: list[str] = []
    spoil = function_for_images(lambda image: np.zeros_like(image))
    result = Classification().evaluate(
        data,
        recogniser,
        [Condition("haze:beta=2"), Condition("jpeg:quality=95")],
        {
            "vrdir": Restorer("small", "cpu"),
            "nothing": function_for_images(lambda image: image),
            "spoil": spoil,
        },
        bootstrap=300,
        progress=done.append,
    )
    haze, jpeg = result.conditions
    assert result.count == len(data.images) == len(done) == 60
    assert result.excluded == []
    keys = [metric.key for metric in result.metrics]
    assert keys[0] == "top1"
    assert "top5" not in keys  # with four classes every answer would be right
    clean, degraded = result.clean["top1"], haze.degraded["top1"]
    assert clean.low <= clean.value <= clean.high
    assert clean.value > 75
    assert clean.value > degraded.value + 15
    assert haze.synthetic

    restored, recovered = haze.restored["vrdir"]["top1"], haze.recovered["vrdir"]["top1"]
    assert recovered is not None
    assert restored.value > degraded.value + 10
    assert recovered.value == pytest.approx(
        (restored.value - degraded.value) / (clean.value - degraded.value)
    )
    assert recovered.low <= recovered.value <= recovered.high
    assert haze.p_value["vrdir"]["top1"] < 0.05
    assert haze.restored["nothing"]["top1"] == degraded
    assert haze.recovered["nothing"]["top1"] == (0, 0, 0)
    assert haze.p_value["nothing"]["top1"] == 1
    assert jpeg.recovered["vrdir"]["top1"] is None  # nothing worth the name was lost
    assert result.clean_restored["spoil"]["top1"].value == 25  # of black images, one class is right
    assert result.clean_p_value["spoil"]["top1"] < 1e-6

    won = [
        case
        for case in result.examples
        if case.improved and case.restorer == "vrdir" and case.condition == haze.name
    ]
    assert 1 <= len(won) <= 4
    for case in won:
        assert case.truth in case.answers["restored"]
        assert case.truth not in case.answers["degraded"]
        assert case.name.startswith(case.truth)
        pictures = {key: make() for key, make in case.pictures.items()}
        assert all(picture.shape == (3, SIDE, SIDE) for picture in pictures.values())
        assert (pictures["restored"] - pictures["clean"]).abs().mean() < (
            pictures["degraded"] - pictures["clean"]
        ).abs().mean()


def test_unknown_labels_are_excluded_by_name(photos: Path, recogniser: Classifier) -> None:
    data = read_classification(photos)
    labels = ["unicorn" if label == "coffee" else label for label in data.labels]
    result = Classification().evaluate(
        LabelledImages(data.images, labels),
        recogniser,
        [Condition("noise")],
        {},
        bootstrap=20,
    )
    assert result.count == 45
    assert len(result.excluded) == 15
    assert result.excluded[0].name == "coffee/00"
    assert "not one of the recogniser's 4 classes" in result.excluded[0].reason
    with pytest.raises(ValueError, match="nothing is left to measure: 60 exclusions"):
        Classification().evaluate(
            LabelledImages(data.images, ["unicorn"] * 60),
            recogniser,
            [Condition("noise")],
            {},
        )


def test_classes_are_ranked_by_scores() -> None:
    ranking = rank_classes(np.array([0.0, 2.0, 1.0]), 2)
    assert (ranking.likeliest, ranking.place) == (1, 1)
    assert ranking.confidence == pytest.approx(0.665, abs=1e-3)
    assert rank_classes(np.array([0.0, np.log(3)]), 0).confidence == pytest.approx(0.75)
    probabilities = np.array([0.1, 0.9])
    assert rank_classes(probabilities, 0).confidence == pytest.approx(0.9)
    tied = rank_classes(np.array([5.0, 5.0, 1.0]), 1)
    assert (tied.likeliest, tied.place) == (0, 1)
    assert rank_classes(np.arange(9.0), 0).place == 8


def test_top_k_counts_the_right_class_among_the_first_k() -> None:
    places = np.array([0, 1, 4, 5])
    hits = {metric.key: metric.function(places).tolist() for metric in Classification.metrics}
    assert hits["top1"] == [True, False, False, False]
    assert hits["top5"] == [True, True, True, False]
