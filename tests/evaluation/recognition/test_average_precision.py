"""Average precision: by hand, and against faster-coco-eval on random scenes."""

import numpy as np
import pytest

from vrdir.evaluation.recognition.average_precision import (
    average_precisions,
    coco_precisions,
    rank_detections,
)
from vrdir.evaluation.recognition.box_matching import (
    Matches,
    Objects,
    keep_classes,
    match,
    overlap,
)
from vrdir.evaluation.recognition.recognisers.contracts import Detections
from vrdir.evaluation.recognition.statistics import Resampling, bootstrap_weights, random_swaps
from vrdir.evaluation.recognition.tasks.detection import Detection, f1, swap_test

METRICS = Detection.metrics
Scene = tuple[list[Detections], list[Objects]]


def scenes(images: int, seed: int, spread_px: float = 1.5, levels: int = 60) -> Scene:
    """Return random objects of five classes, some of them crowds, and detections.

    Detections are near the objects and elsewhere; many images share their scores.
    """
    generator = np.random.default_rng(seed)
    found, objects = [], []
    for _ in range(images):
        count = int(generator.integers(0, 7))
        corner = generator.uniform(0, 80, (count, 2))
        boxes = np.concatenate([corner, corner + generator.uniform(6, 40, (count, 2))], 1)
        labels = generator.integers(0, 5, count)
        objects.append(Objects(boxes, labels, generator.random(count) < 0.15))
        seen = np.repeat(np.arange(count), generator.integers(0, 3, count))
        near = boxes[seen] + generator.normal(0, spread_px, (len(seen), 4))
        elsewhere = np.concatenate([c := generator.uniform(0, 80, (4, 2)), c + 20], 1)
        every = np.concatenate([near, elsewhere])
        every[:, 2:] = np.maximum(every[:, 2:], every[:, :2] + 1)
        kinds = np.concatenate([labels[seen], generator.integers(0, 5, 4)])
        found.append(
            Detections(
                every, (generator.permutation(60)[: len(every)] % levels + 1) / levels, kinds
            )
        )
    return found, objects


def own(
    found: list[Detections], objects: list[Objects], weights: np.ndarray | None = None
) -> np.ndarray:
    ranked = rank_detections([match(*one) for one in zip(found, objects, strict=True)], objects)
    return average_precisions(ranked, np.ones((1, len(objects))) if weights is None else weights)


def test_hand_computed_case_of_two_of_three_objects() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10.0]])
    objects = Objects(boxes, np.zeros(3, int), np.zeros(3, bool))
    found = Detections(
        np.array([boxes[0], [60, 60, 70, 70], [20, 0, 30, 8]]),
        np.array([0.9, 0.8, 0.7]),
        np.zeros(3, int),
    )
    (precision,) = own([found], [objects])
    # Right, wrong, right (IoU .8): precision 1 up to recall 1/3 (34 of 101 points),
    # 2/3 up to recall 2/3 (33 more), then 0.
    assert precision[0] == pytest.approx((34 + 33 * 2 / 3) / 101)
    assert precision[6] == pytest.approx(precision[0])  # the threshold .8 is reached
    assert precision[7] == pytest.approx(34 / 101)
    matches = match(found, objects)
    assert f1(matches, objects) == pytest.approx(2 * 2 / 6)
    assert coco_precisions([found], [objects])[0] == pytest.approx(precision[0])


def test_overlap_by_hand() -> None:
    boxes, others = (
        np.array([[0, 0, 10, 10.0]]),
        np.array([[5, 0, 15, 10.0], [20, 20, 30, 30], [0, 0, 40, 40]]),
    )
    assert overlap(boxes, others, np.array([False, False, False]))[0] == pytest.approx(
        [1 / 3, 0, 1 / 16]
    )
    assert overlap(boxes, others, np.array([True, False, True]))[0] == pytest.approx([1 / 2, 0, 1])


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_agrees_with_faster_coco_eval(seed: int) -> None:
    found, objects = scenes(30, seed, levels=12)  # equal scores within an image too
    assert any(one.ignored.any() for one in objects)
    whole = coco_precisions(found, objects)
    (precision,) = own(found, objects)
    assert 0.05 < whole.mean() < whole[0] < 0.9
    assert precision == pytest.approx(whole, abs=1e-9)


def test_resample_agrees_with_faster_coco_eval() -> None:
    found, objects = scenes(20, 7)
    weights = bootstrap_weights(20, Resampling(8, 0))
    for precision, row in zip(own(found, objects, weights), weights, strict=True):
        drawn = np.repeat(np.arange(20), row)
        whole = coco_precisions([found[i] for i in drawn], [objects[i] for i in drawn])
        assert precision == pytest.approx(whole, abs=1e-9)


def test_only_100_detections_of_a_present_class_count() -> None:
    found, objects = scenes(6, 2)
    generator = np.random.default_rng(0)
    corner = generator.uniform(0, 80, (150, 2))
    many = [  # all right ones have lower scores than 150 others, most of them of class 1
        Detections(
            np.concatenate([one.boxes, np.concatenate([corner, corner + 9], 1)]),
            np.concatenate([one.scores / 2, 0.6 + 0.4 * generator.random(150)]),
            np.concatenate([one.labels, generator.choice([1, 77], 150, p=[0.9, 0.1])]),
        )
        for one in found
    ]
    whole = coco_precisions(many, objects)
    assert own(many, objects)[0] == pytest.approx(whole, abs=1e-9)
    fewer = [keep_classes(one, np.arange(5)) for one in many]
    assert max(int((one.labels == 1).sum()) for one in fewer) == 100
    assert not any((one.labels == 77).any() for one in fewer)
    assert coco_precisions(fewer, objects) == pytest.approx(whole, abs=1e-12)


def test_precision_without_detections_is_0_and_without_objects_nan() -> None:
    nothing = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    _, objects = scenes(5, 0)
    assert coco_precisions([nothing] * 5, objects).tolist() == [0.0] * 10
    assert own([nothing] * 5, objects).tolist() == [[0.0] * 10]
    assert np.isnan(own([nothing] * 5, objects, np.zeros((1, 5)))).all()


def test_swap_test_of_a_better_and_of_the_same_detector() -> None:
    def matched(found: list[Detections], objects: list[Objects]) -> list[Matches]:
        return [match(*one) for one in zip(found, objects, strict=True)]

    poor, objects = scenes(40, 3, spread_px=8)
    exact = [Detections(one.boxes, np.ones(len(one.boxes)), one.labels) for one in objects]
    swaps = random_swaps(40, Resampling(200, 0))
    better = swap_test(METRICS, matched(poor, objects), matched(exact, objects), objects, swaps)
    assert set(better.values()) == {1 / 201}
    same = swap_test(METRICS, matched(poor, objects), matched(poor, objects), objects, swaps)
    assert set(same.values()) == {1}
    assert better.keys() == same.keys() >= {"map", "map50"}
