"""Re-identification: ranks by hand, and from end to end by the colours of clothes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vrdir.evaluation.recognition.conditions import Condition
from vrdir.evaluation.recognition.labels.reid import read_reid
from vrdir.evaluation.recognition.recognisers.contracts import Embedder
from vrdir.evaluation.recognition.restorers import function_for_images
from vrdir.evaluation.recognition.tasks.reid import Reidentification, rank_gallery
from vrdir.evaluation.user_functions import Pixels


def test_ranks_and_average_precision_by_hand() -> None:
    gallery = np.eye(6)
    likeness = np.array([[0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [0.4, 0.5, 0.6, 0.7, 0.8, 0.9]])
    persons, cameras = np.array([1, 2, 1, 0, 2, 1]), np.array([1, 2, 2, 1, 2, 3])
    found = rank_gallery(
        likeness, gallery, (np.array([1, 2]), np.array([1, 1])), (persons, cameras)
    )
    # Query 1: its own camera's image falls out, then 2 1 0 2 1: right at places 1 and 4 of 0 to 4.
    # Query 2: 1 2 0 1 2 1: right at places 1 and 4 too.
    assert found.first.tolist() == [1, 1]
    assert found.precision == pytest.approx([(1 / 2 + 2 / 5) / 2] * 2)
    assert found.nearest.tolist() == [2, 1]
    hits = {metric.key: metric.function(found) for metric in Reidentification.metrics}
    assert hits["rank1"].tolist() == [False, False]
    assert hits["rank5"].tolist() == [True, True]


def test_only_images_of_the_person_by_the_same_camera_are_left_out() -> None:
    likeness = np.array([[0.9, 0.8, 0.7]])
    found = rank_gallery(
        likeness,
        np.eye(3),
        (np.array([5]), np.array([1])),
        (np.array([5, 6, 5]), np.array([1, 1, 2])),
    )
    assert found.first.tolist() == [1]
    assert found.precision == pytest.approx([0.5])


def test_ranking_does_not_depend_on_the_batch_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = np.random.default_rng(0)
    queries, gallery = generator.normal(size=(30, 8)), generator.normal(size=(90, 8))
    of_queries = (np.arange(30) % 10, np.zeros(30, int))
    of_gallery = (np.arange(90) % 10, np.arange(90) % 3)
    whole = rank_gallery(queries, gallery, of_queries, of_gallery)
    monkeypatch.setattr("vrdir.evaluation.recognition.tasks.reid.QUERIES_AT_ONCE", 7)
    parts = rank_gallery(queries, gallery, of_queries, of_gallery)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one, other)
    assert 0.05 < whole.precision.mean() < 0.5


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write sixteen people in clothes of different colours, seen by three cameras.

    Another one is seen by one camera only.
    """
    root = tmp_path_factory.mktemp("people")
    generator = np.random.default_rng(0)
    for folder in ("query", "gallery"):
        (root / folder).mkdir()
    for person in range(1, 18):
        shirt, trousers = generator.integers(0, 200, (2, 3))
        for camera, light in ((1, 1.0), (2, 1.2), (3, 0.85)):
            if person == 17 and camera > 1:
                continue
            image = np.full((64, 32, 3), 120.0)
            image[10:34, 6:26], image[34:60, 8:24] = shirt * light, trousers * light
            image += generator.normal(0, 4, image.shape)
            picture = Image.fromarray(image.clip(0, 255).astype(np.uint8))
            picture.save(
                root
                / ("query" if camera == 1 else "gallery")
                / f"{person:04}_c{camera}s1_000001_01.png"
            )
    Image.fromarray(np.full((64, 32, 3), 120, np.uint8)).save(
        root / "gallery" / "0000_c2s1_000001_01.png"
    )
    return root


def clothes(images: Sequence[Pixels]) -> np.ndarray:
    """Return how often each colour occurs in the upper and lower half: 2 x 64 bins."""
    halves = [half.reshape(-1, 3) // 64 for image in images for half in (image[:34], image[34:])]
    counts = [np.bincount(half.astype(int) @ [16, 4, 1], minlength=64) + 0.01 for half in halves]
    return np.sqrt(np.array(counts)).reshape(len(images), -1)


def test_restoring_recovers_persons_hidden_by_haze(people: Path) -> None:
    data = read_reid(people)
    clear = {item.name: np.asarray(Image.open(item.path)) for item in data.images}

    def knows(item: Any, condition: Any, image: Any) -> Any:  # a restorer that cannot be wrong
        return clear[item.name]

    harms = function_for_images(lambda image: np.full_like(image, 77))
    result = Reidentification().evaluate(
        data,
        Embedder("clothes", {}, clothes),
        [Condition("haze:severity=5")],
        {"knows": knows, "harms": harms},
        bootstrap=200,
    )
    assert result.count == 16
    assert [(one.name, one.reason.split(":")[0]) for one in result.excluded] == [
        ("query/0017_c1s1_000001_01", "a query without a match")
    ]
    keys = [metric.key for metric in result.metrics]
    assert keys[:4] == ["rank1", "rank5", "rank10", "map"]
    (haze,) = result.conditions
    assert result.clean["rank1"].value > 60 > haze.degraded["rank1"].value + 25
    assert haze.restored["knows"] == result.clean
    for metric in ("rank1", "map"):
        assert haze.recovered["knows"][metric] == (1, 1, 1)
        assert haze.p_value["knows"][metric] < 0.05
    assert result.clean_restored["harms"]["map"].value < result.clean["map"].value - 30
    assert result.clean_p_value["harms"]["map"] < 0.02
    won = next(case for case in result.examples if case.improved)
    assert won.answers["restored"] == "found first"
    assert won.answers["degraded"].startswith("found at place")
    assert won.truth == f"person {int(won.name.split('/')[1][:4])}"
