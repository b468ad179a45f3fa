"""Distances and agreements of each kind of answer."""

import pytest
import torch
from torch import Tensor

from vrdir.adaptation.answers import (
    Boxes,
    Classes,
    Embeddings,
    Maps,
    Queries,
    kind_of,
    tidied,
)
from vrdir.errors import RecogniserError


def boxes(*rows: tuple[float, float, float, float, float, int]) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor([row[:4] for row in rows]).view(-1, 4),
        "scores": torch.tensor([row[4] for row in rows]),
        "labels": torch.tensor([row[5] for row in rows], dtype=torch.int64),
    }


def test_classes_compare_probabilities() -> None:
    wanted = torch.tensor([[4.0, 0, 0], [0, 4, 0]])
    found = torch.tensor([[0.0, 1, 0], [0, 3, 0]], requires_grad=True)
    distance = Classes().distance(found, wanted)
    divergence = (wanted.softmax(1) * (wanted.log_softmax(1) - found.log_softmax(1))).sum(1)
    assert distance.item() == pytest.approx(divergence.log1p().mean().item())
    assert Classes().distance(wanted, wanted) == pytest.approx(0, abs=1e-6)
    # Probabilities are used unchanged.
    same = Classes().distance(found.softmax(1), wanted.softmax(1))
    assert same.item() == pytest.approx(distance.item(), abs=1e-4)
    distance.backward()
    assert found.grad is not None
    assert found.grad[0, 0] < 0  # descent raises the wanted class
    first, second = Classes().agreement(found, wanted)
    shared = torch.minimum(found[0].softmax(0), wanted[0].softmax(0)).sum().item()
    assert first == pytest.approx(shared)
    assert shared < second < 1
    assert Classes().agreement(wanted, wanted) == [pytest.approx(1)] * 2
    assert Classes().caption(wanted) == "class 0, 96 %"


def test_embeddings_compare_directions() -> None:
    wanted, found = torch.tensor([[1.0, 0]]), torch.tensor([[3.0, 3]])
    assert float(Embeddings().distance(found, wanted)) == pytest.approx(1 - 0.5**0.5)
    assert Embeddings().agreement(found, wanted) == [pytest.approx(0.5**0.5)]


def test_boxes_are_matched_by_class_and_overlap() -> None:
    wanted = [boxes((0, 0, 10, 10, 0.9, 1), (20, 20, 40, 40, 0.8, 2))]
    found = boxes((1, 1, 9, 9, 0.5, 1), (0, 0, 10, 10, 0.9, 2))
    found["scores"].requires_grad_()
    distance = Boxes().distance([found], wanted)
    # The first: 0.4 of its score lost, overlap 0.64; the second: no overlap with its class.
    by_hand = ((0.4 + 0.9 * 0.36) + (0.1 + 0.8)) / 2
    assert distance.item() == pytest.approx(by_hand, abs=1e-5)
    distance.backward()
    assert found["scores"].grad is not None
    assert found["scores"].grad[0] < 0
    assert Boxes().agreement([found], wanted) == [pytest.approx(0.5)]
    assert Boxes().agreement(wanted, wanted) == [1]
    assert Boxes().caption(wanted) == "2 objects"
    nothing = boxes()
    assert float(Boxes().distance([nothing], wanted)) == pytest.approx((0.9 + 0.8) / 2)
    assert Boxes().agreement([nothing], [nothing]) == [1]


def test_queries_are_compared_one_by_one() -> None:
    kind = Queries(other=True)
    logits = torch.tensor([[[6.0, 0, 0], [0, 0, 6]]])
    wanted = {
        "logits": logits,
        "pred_boxes": torch.tensor([[[0.3, 0.3, 0.4, 0.4], [0.8, 0.8, 0.2, 0.2]]]),
    }
    moved = {**wanted, "pred_boxes": wanted["pred_boxes"] + 0.1}
    assert float(kind.distance(wanted, wanted)) == pytest.approx(0, abs=1e-5)
    assert kind.distance(moved, wanted) > 0.1
    assert [len(one["boxes"]) for one in kind.objects(wanted)] == [2]
    assert kind.agreement(wanted, wanted) == [1]  # the second query is not an object
    assert kind.agreement({**wanted, "logits": logits.flip(2)}, wanted) == [0]


def test_maps_are_compared_as_chances_or_as_numbers() -> None:
    maps, kind = torch.full((1, 7, 3, 3), 0.1), Maps(chances=True)
    maps[0, 4:6, 1, 1] = 0.9  # an object of the first class in the middle
    assert kind.distance([maps], [maps]).item() == pytest.approx(0, abs=1e-5)
    assert kind.agreement([maps], [maps]) == [1]
    dim, moved = maps.clone(), maps.roll(1, 3)
    dim[:, 4] *= 0.3
    assert kind.agreement([dim], [maps]) == [0]
    assert kind.agreement([moved], [maps]) == [0]
    assert kind.distance([moved], [maps]) > kind.distance([dim], [maps]) > 0.1
    assert kind.agreement([dim], [dim]) == [1]  # nothing is there, and nothing found
    assert kind.caption([maps]) == "1 cells with an object"
    numbers = torch.randn(2, 4)[:, :, None, None]
    kind = Maps(chances=False)
    assert kind.distance([0 * numbers], [numbers]).item() == pytest.approx(1, abs=1e-5)
    assert kind.agreement([0.9 * numbers], [numbers]) == [pytest.approx(0.9)] * 2


@pytest.mark.parametrize(
    ("answers", "task", "kind"),
    [
        (torch.randn(2, 5), None, Classes),
        (torch.nn.functional.normalize(torch.randn(2, 5)), None, Embeddings),
        (torch.nn.functional.normalize(torch.randn(2, 5)), "classification", Classes),
        (torch.randn(2, 5), "reid", Embeddings),
        ({"logits": torch.randn(2, 5)}, None, Classes),
        ((torch.randn(2, 5),), None, Classes),
        ([boxes(), boxes()], None, Boxes),
        ({"logits": torch.randn(2, 3, 5), "pred_boxes": torch.rand(2, 3, 4)}, None, Queries),
        ((torch.randn(2, 5, 3, 3), [torch.randn(2, 5, 2, 2)]), None, Maps),
        (torch.randn(2, 100, 85), "detection", Maps),
    ],
)
def test_task_is_detected_from_the_output(answers: object, task: str | None, kind: type) -> None:
    assert type(kind_of(tidied(answers), task)) is kind


@pytest.mark.parametrize("answers", ["a word", [], torch.tensor(1.0), {"boxes": 3}])
def test_unsupported_outputs_raise_with_explanation(answers: object) -> None:
    with pytest.raises(RecogniserError, match="the recogniser returns .*expected"):
        kind_of(tidied(answers), None)


def test_detector_is_rejected_as_classifier() -> None:
    with pytest.raises(RecogniserError, match="like a detector"):
        kind_of([boxes()], "classification")
