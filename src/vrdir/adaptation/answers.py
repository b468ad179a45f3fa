"""The answers (outputs) of recognisers, and how two answers are compared without labels.

Each kind of answer has a distance, which training reduces, and an agreement in [0, 1], which the
proof reports. Both compare the answers for restored images with those for the clean images.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vrdir.errors import RecogniserError
from vrdir.evaluation.recognition.box_matching import Objects, match
from vrdir.evaluation.recognition.recognisers.contracts import Detections
from vrdir.evaluation.recognition.tasks.detection import SHOWN_SCORE, f1
from vrdir.training.recognition import bernoulli_divergence

TASKS = ("classification", "detection", "reid")
"""The tasks, under the names of `vrdir evaluate`."""
EPSILON = 1e-6


class AnswerKind(ABC):
    """A kind of answer, with the distance and the agreement of two answers."""

    @property
    @abstractmethod
    def measure(self) -> str:
        """A description of the agreement, for reports."""

    @abstractmethod
    def distance(self, found: Any, wanted: Any) -> Tensor:
        """Return the distance of answers from the wanted ones, a scalar with gradients."""

    @abstractmethod
    def agreement(self, found: Any, wanted: Any) -> list[float]:
        """Return the agreement of answers with the wanted ones, in [0, 1], for each image."""

    def caption(self, answers: Any) -> str:
        """Return the answer for the first image in a few words, for a picture; or ""."""
        return ""


class Classes(AnswerKind):
    """Scores of classes, (B, C), as logits or as probabilities."""

    measure = "overlap of the class probabilities with those of the clean photo"

    def distance(self, found: Tensor, wanted: Tensor) -> Tensor:
        """Return `log(1 + KL(wanted || found))`, mean over images.

        The logarithm keeps a few images with large distances from dominating the gradient.
        """
        given, true = log_probabilities(found), log_probabilities(wanted)
        divergence = functional.kl_div(given, true, reduction="none", log_target=True).sum(1)
        return torch.log1p(divergence.clamp_min(0)).mean()

    def agreement(self, found: Tensor, wanted: Tensor) -> list[float]:
        """Return the sum over the classes of the smaller probability; 1 for equal answers."""
        given, true = log_probabilities(found).exp(), log_probabilities(wanted).exp()
        return torch.minimum(given, true).sum(1).clamp(0, 1).tolist()

    def caption(self, answers: Tensor) -> str:
        """Return the most probable class and its probability."""
        probability, number = log_probabilities(answers[:1]).exp().max(1)
        return f"class {int(number)}, {100 * float(probability):.0f} %"


class Embeddings(AnswerKind):
    """Vectors (B, D), of which only the direction is compared."""

    measure = "cosine similarity with the vector of the clean photo"

    def distance(self, found: Tensor, wanted: Tensor) -> Tensor:
        """Return one minus the cosine, mean over images."""
        return 1 - functional.cosine_similarity(found.float(), wanted.float(), dim=1).mean()

    def agreement(self, found: Tensor, wanted: Tensor) -> list[float]:
        """Return the cosine, at least 0."""
        cosine = functional.cosine_similarity(found.float(), wanted.float(), dim=1)
        return cosine.clamp(0, 1).tolist()


class Boxes(AnswerKind):
    """Detected objects: for each image a mapping with boxes, scores and labels (torchvision)."""

    measure = f"F1 against the objects of the clean photo (IoU .5, scores from {SHOWN_SCORE:g})"

    def distance(self, found: Any, wanted: Any) -> Tensor:
        """Return the mean error of score and box over the wanted objects.

        A wanted object is matched with the found object of the same class that overlaps it most.
        The error of an object without a match is its score, which has no gradient; only the loss on
        features can help to find it.
        """
        zero = sum((one["scores"].sum() * 0 for one in found), start=torch.zeros(()))
        errors = [zero]
        objects = 0
        for one, other in zip(found, wanted, strict=True):
            shown = other["scores"] >= SHOWN_SCORE
            objects += int(shown.sum())
            for box, score, label in zip(
                other["boxes"][shown], other["scores"][shown], other["labels"][shown], strict=True
            ):
                same = one["labels"] == label
                if not same.any():
                    errors.append(score)
                    continue
                overlaps = overlap(one["boxes"][same].float(), box.float())
                best = overlaps.argmax()
                lost = (score - one["scores"][same][best]).abs()
                errors.append(lost + score * (1 - overlaps[best]))
        return torch.stack([error.float() for error in errors]).sum() / max(objects, 1)

    def agreement(self, found: Any, wanted: Any) -> list[float]:
        """Return the F1 score of the found objects."""
        return [
            f1_of(detections(one), detections(other))
            for one, other in zip(found, wanted, strict=True)
        ]

    def caption(self, answers: Any) -> str:
        """Return the number of objects with a score of at least `SHOWN_SCORE`."""
        return f"{int((answers[0]['scores'] >= SHOWN_SCORE).sum())} objects"


class Queries(AnswerKind):
    """Answers of a detector with queries (DETR): `logits` (B, Q, C) and `pred_boxes` (B, Q, 4).

    Args:
        other: whether the last class means "no object". Then the probabilities are the softmax of
            the logits, else their sigmoid.
    """

    measure = Boxes.measure

    def __init__(self, other: bool) -> None:
        self.other = other

    def distance(self, found: Any, wanted: Any) -> Tensor:
        """Return the divergence of the classes, plus the box error weighted by the wanted score."""
        scores, sure = self.scores(found), self.scores(wanted)
        weight = sure.amax(2)
        divergence = bernoulli_divergence(sure, scores).sum()
        off = (found["pred_boxes"].float() - wanted["pred_boxes"].float()).abs().sum(2)
        return (divergence + (off * weight).sum()) / (weight.sum() + len(scores))

    def scores(self, answers: Any) -> Tensor:
        """Return the probability of each class for each query, (B, Q, C), without "no object"."""
        logits = answers["logits"].float()
        return logits.softmax(2)[..., :-1] if self.other else logits.sigmoid()

    def agreement(self, found: Any, wanted: Any) -> list[float]:
        """Return the F1 score of the objects."""
        return Boxes().agreement(self.objects(found), self.objects(wanted))

    def objects(self, answers: Any) -> list[dict[str, Tensor]]:
        """Return the objects of each image; their boxes x0, y0, x1, y1 are in [0, 1]."""
        best = self.scores(answers).max(2)
        centre, size = answers["pred_boxes"].float().split(2, dim=2)
        boxes = torch.cat([centre - size / 2, centre + size / 2], 2)
        return [
            {"boxes": b, "scores": s, "labels": n}
            for b, s, n in zip(boxes, best.values, best.indices, strict=True)
        ]


class Maps(AnswerKind):
    """Any other tensors, such as a detector's prediction maps, from which boxes are made later.

    Args:
        chances: whether they are maps (B, 5 + C, h, w): four values of a box, the probability of an
            object, and that of each class (YOLOX). Other tensors are compared as numbers.
    """

    def __init__(self, chances: bool) -> None:
        self.chances = chances

    @property
    def measure(self) -> str:
        """A description of the agreement, for reports."""
        if self.chances:
            return (
                f"F1 against the clean photo's cells with an object (scores from {SHOWN_SCORE:g})"
            )
        return "similarity of the output to that for the clean photo"

    def distance(self, found: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
        """Return the divergence divided by the number of objects, or the mean relative error."""
        pairs = list(zip(found, wanted, strict=True))
        if not self.chances:
            return torch.stack([relative_errors(f, w).mean() for f, w in pairs]).mean()
        objects = torch.stack([chances(w).sum() for w in wanted]).sum() + len(wanted[0])
        parts = [bernoulli_divergence(chances(w), chances(f)).sum() for f, w in pairs]
        return torch.stack(parts).sum() / objects

    def agreement(self, found: Sequence[Tensor], wanted: Sequence[Tensor]) -> list[float]:
        """Return the F1 score of cells and classes with an object; or 1 minus relative error."""
        pairs = list(zip(found, wanted, strict=True))
        if not self.chances:
            errors = torch.stack([relative_errors(f, w) for f, w in pairs]).mean(0)
            return (1 - errors).clamp(0, 1).tolist()
        there, seen = (
            torch.cat([(chances(m) >= SHOWN_SCORE).flatten(1) for m in maps], 1)
            for maps in (wanted, found)
        )
        both, total = (there & seen).sum(1), there.sum(1) + seen.sum(1)
        return torch.where(total > 0, 2 * both / total.clamp_min(1), 1.0).tolist()

    def caption(self, answers: Sequence[Tensor]) -> str:
        """Return the number of cells with an object, or "" for other tensors."""
        if not self.chances:
            return ""
        cells = [chances(m[:1]).amax(1) >= SHOWN_SCORE for m in answers]
        return f"{sum(int(cell.sum()) for cell in cells)} cells with an object"


def log_probabilities(scores: Tensor) -> Tensor:
    """Return the logarithm of the probabilities (B, C) for scores: logits, or probabilities."""
    scores = scores.float()
    sums = scores.detach().sum(1)
    if bool((scores >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        return scores.clamp_min(EPSILON).log()
    return scores.log_softmax(1)


def is_chances(values: Tensor) -> bool:
    """Return whether a tensor is (B, 5 + C, h, w) with probabilities after the four box values."""
    later = values[:, 4:] if values.ndim == 4 and values.shape[1] > 5 else None
    return later is not None and bool(((later >= 0) & (later <= 1)).all())


def chances(prediction: Tensor) -> Tensor:
    """Return the probability of each class at each position, (B, C, h, w): object times class."""
    prediction = prediction.float()
    return prediction[:, 4:5] * prediction[:, 5:]


def relative_errors(found: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean absolute error divided by the mean absolute wanted value, (B,)."""
    found, wanted = found.float().flatten(1), wanted.float().flatten(1)
    return (found - wanted).abs().mean(1) / wanted.abs().mean(1).clamp_min(EPSILON)


def overlap(boxes: Tensor, box: Tensor) -> Tensor:
    """Return the intersection over union of boxes (N, 4) with one (4,)."""
    starts, ends = torch.maximum(boxes[:, :2], box[:2]), torch.minimum(boxes[:, 2:], box[2:])
    common = (ends - starts).clamp_min(0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (box[2:] - box[:2]).prod()
    return common / (areas - common).clamp_min(EPSILON)


def detections(found: Mapping[str, Tensor]) -> Detections:
    """Return the objects with a score of at least `SHOWN_SCORE`, as `vrdir evaluate` has them."""
    shown = found["scores"] >= SHOWN_SCORE
    boxes, scores, labels = (
        found[name][shown].detach().float().cpu().numpy().astype(np.float64)
        for name in ("boxes", "scores", "labels")
    )
    return Detections(boxes, scores, labels.astype(np.int64))


def f1_of(found: Detections, wanted: Detections) -> float:
    """Return the F1 score of detections, with other detections as the truth."""
    there = wanted.scores >= SHOWN_SCORE
    objects = Objects(wanted.boxes[there], wanted.labels[there], np.zeros(int(there.sum()), bool))
    return f1(match(found, objects), objects)


def kind_of(answers: Any, task: str | None, classes: int | None = None) -> AnswerKind:
    """Return the kind of the answers of a recogniser.

    Args:
        answers: its output for a batch, as `tidied` returns it.
        task: one of `TASKS`, or None if unknown.
        classes: the number of its classes, or None if unknown.

    Raises:
        RecogniserError: the answers are of an unknown kind, or do not belong to the task.
    """
    if isinstance(answers, Tensor) and answers.ndim == 2 and task != "detection":
        lengths = answers.float().norm(dim=1)
        unit = torch.allclose(lengths, torch.ones_like(lengths), atol=1e-3)
        return Embeddings() if task == "reid" or (task is None and unit) else Classes()
    if isinstance(answers, list) and answers and isinstance(answers[0], Mapping):
        if all({"boxes", "scores", "labels"} <= one.keys() for one in answers):
            return _checked(Boxes(), task)
    elif isinstance(answers, Mapping) and {"logits", "pred_boxes"} <= answers.keys():
        return _checked(Queries(answers["logits"].shape[2] != classes), task)
    elif isinstance(answers, list) and answers and all(isinstance(a, Tensor) for a in answers):
        return _checked(Maps(all(map(is_chances, answers))), task)
    raise RecogniserError(
        f"the recogniser returns {described(answers)}; expected scores or a vector (B, N), "
        "a mapping with boxes, scores and labels for each image, logits and pred_boxes, or "
        "prediction maps"
    )


def _checked(kind: AnswerKind, task: str | None) -> AnswerKind:
    if task in (None, "detection"):
        return kind
    raise RecogniserError(
        f"the recogniser returns boxes like a detector; for {task} it must return one tensor (B, N)"
    )


def described(answers: Any) -> str:
    """Return the structure of an answer in words."""
    if isinstance(answers, Tensor):
        return f"a tensor {tuple(answers.shape)}"
    if isinstance(answers, Mapping):
        return f"a mapping of {', '.join(map(str, answers))}"
    if isinstance(answers, (list, tuple)):
        return f"a list of {', '.join(described(one) for one in answers[:4]) or 'nothing'}"
    return f"a {type(answers).__name__}"


def tidied(answers: Any) -> Any:
    """Return a recogniser's output in one of the forms that `kind_of` knows.

    Outputs of transformers are mappings; one tensor in a tuple, list or mapping is that tensor.
    """
    if isinstance(answers, Tensor):
        return answers if answers.ndim <= 2 else [answers]
    if isinstance(answers, Mapping):
        if {"logits", "pred_boxes"} <= answers.keys():
            return {key: answers[key] for key in ("logits", "pred_boxes")}
        named = next((answers[k] for k in ("logits", "pooler_output") if k in answers), None)
        return tidied(named if named is not None else list(answers.values()))
    if isinstance(answers, (list, tuple)):
        if len(answers) == 1 and not isinstance(answers[0], Mapping):
            return tidied(answers[0])
        if all(isinstance(one, Mapping) for one in answers):
            return list(answers)
        flat = [tensor for one in answers for tensor in _tensors(one)]
        return flat if flat else answers
    return answers


def _tensors(answers: Any) -> list[Tensor]:
    if isinstance(answers, Tensor):
        return [answers] if answers.is_floating_point() else []
    if isinstance(answers, Mapping):
        answers = list(answers.values())
    if isinstance(answers, (list, tuple)):
        return [tensor for one in answers for tensor in _tensors(one)]
    return []
