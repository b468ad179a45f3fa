"""What a recogniser answers, and how two answers to one image are compared without labels.

Each kind of answer has a distance, which training reduces, and an agreement in [0, 1], which the
proof reports. Both compare the answers on restored images with those on the clean ones.
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
    """A kind of answer: how far two of them are apart, and how far they agree."""

    @property
    @abstractmethod
    def measure(self) -> str:
        """What the agreement is, for reports."""

    @abstractmethod
    def distance(self, found: Any, wanted: Any) -> Tensor:
        """Return how far answers are from the wanted ones, a scalar that gradients pass through."""

    @abstractmethod
    def agreement(self, found: Any, wanted: Any) -> list[float]:
        """Return how far answers agree with the wanted ones, in [0, 1], for each image."""

    def told(self, answers: Any) -> str:
        """Return the answer to the first image in a few words."""
        return ""


class Classes(AnswerKind):
    """Scores of classes, (B, C), as logits or as probabilities."""

    measure = "overlap of the class probabilities with those of the clean photo"

    def distance(self, found: Tensor, wanted: Tensor) -> Tensor:
        """Return `log(1 + KL(wanted || found))`, mean over images.

        The logarithm keeps a few hopeless images from drowning the gradient of all others.
        """
        told, true = log_probabilities(found), log_probabilities(wanted)
        divergence = functional.kl_div(told, true, reduction="none", log_target=True).sum(1)
        return torch.log1p(divergence.clamp_min(0)).mean()

    def agreement(self, found: Tensor, wanted: Tensor) -> list[float]:
        """Return the sum over the classes of the lesser probability: 1 for the same answer."""
        told, true = log_probabilities(found).exp(), log_probabilities(wanted).exp()
        return torch.minimum(told, true).sum(1).clamp(0, 1).tolist()

    def told(self, answers: Tensor) -> str:
        """Return the likeliest class and its probability."""
        probability, number = log_probabilities(answers[:1]).exp().max(1)
        return f"class {int(number)}, {100 * float(probability):.0f} %"


class Embeddings(AnswerKind):
    """Vectors, (B, D), whose direction counts."""

    measure = "cosine similarity with the vector of the clean photo"

    def distance(self, found: Tensor, wanted: Tensor) -> Tensor:
        """Return one minus the cosine, mean over images."""
        return 1 - functional.cosine_similarity(found.float(), wanted.float(), dim=1).mean()

    def agreement(self, found: Tensor, wanted: Tensor) -> list[float]:
        """Return the cosine, at least 0."""
        cosine = functional.cosine_similarity(found.float(), wanted.float(), dim=1)
        return cosine.clamp(0, 1).tolist()


class Boxes(AnswerKind):
    """Found objects, for each image a mapping with boxes, scores and labels (torchvision)."""

    measure = f"F1 against the objects of the clean photo (IoU .5, scores from {SHOWN_SCORE:g})"

    def distance(self, found: Any, wanted: Any) -> Tensor:
        """Return the error of box and score of the wanted objects, mean over objects.

        An object is matched with the found one of its class that overlaps it most. One that is not
        found costs its score; only the features can lead to it.
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
        """Return F1 of the found objects."""
        return [
            f1_of(detections(one), detections(other))
            for one, other in zip(found, wanted, strict=True)
        ]

    def told(self, answers: Any) -> str:
        """Return how many objects are shown."""
        return f"{int((answers[0]['scores'] >= SHOWN_SCORE).sum())} objects"


class Queries(AnswerKind):
    """Answers of a detector with queries (DETR): `logits` (B, Q, C) and `pred_boxes` (B, Q, 4).

    Args:
        other: whether the last class is "no object"; then probabilities are a softmax.
    """

    measure = Boxes.measure

    def __init__(self, other: bool) -> None:
        self.other = other

    def distance(self, found: Any, wanted: Any) -> Tensor:
        """Return the divergence of each query's classes, and its box's error where it is sure."""
        scores, sure = self.scores(found), self.scores(wanted)
        weight = sure.amax(2)
        divergence = bernoulli_divergence(sure, scores).sum()
        off = (found["pred_boxes"].float() - wanted["pred_boxes"].float()).abs().sum(2)
        return (divergence + (off * weight).sum()) / (weight.sum() + len(scores))

    def scores(self, answers: Any) -> Tensor:
        """Return the probability of each class for each query, (B, Q, C)."""
        logits = answers["logits"].float()
        return logits.softmax(2)[..., :-1] if self.other else logits.sigmoid()

    def agreement(self, found: Any, wanted: Any) -> list[float]:
        """Return F1 of the objects."""
        return Boxes().agreement(self.objects(found), self.objects(wanted))

    def objects(self, answers: Any) -> list[dict[str, Tensor]]:
        """Return the objects of each image, with boxes in [0, 1]."""
        best = self.scores(answers).max(2)
        centre, size = answers["pred_boxes"].float().split(2, dim=2)
        boxes = torch.cat([centre - size / 2, centre + size / 2], 2)
        return [
            {"boxes": b, "scores": s, "labels": n}
            for b, s, n in zip(boxes, best.values, best.indices, strict=True)
        ]


class Maps(AnswerKind):
    """Any tensors, such as a detector's prediction maps before boxes are made of them.

    Args:
        chances: whether they are maps (B, 5 + C, h, w) of a box, and probabilities of an object and
            of each class after it (YOLOX); others are compared as numbers.
    """

    def __init__(self, chances: bool) -> None:
        self.chances = chances

    @property
    def measure(self) -> str:
        """What the agreement is, for reports."""
        if self.chances:
            return (
                f"F1 against the clean photo's cells with an object (scores from {SHOWN_SCORE:g})"
            )
        return "similarity of the output to that for the clean photo"

    def distance(self, found: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
        """Return the divergence over the number of objects, or the mean relative error."""
        pairs = list(zip(found, wanted, strict=True))
        if not self.chances:
            return torch.stack([relative_errors(f, w).mean() for f, w in pairs]).mean()
        objects = torch.stack([chances(w).sum() for w in wanted]).sum() + len(wanted[0])
        parts = [bernoulli_divergence(chances(w), chances(f)).sum() for f, w in pairs]
        return torch.stack(parts).sum() / objects

    def agreement(self, found: Sequence[Tensor], wanted: Sequence[Tensor]) -> list[float]:
        """Return F1 of the cells and classes with an object; or one minus the relative error."""
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

    def told(self, answers: Sequence[Tensor]) -> str:
        """Return how many cells have an object."""
        if not self.chances:
            return ""
        cells = [chances(m[:1]).amax(1) >= SHOWN_SCORE for m in answers]
        return f"{sum(int(cell.sum()) for cell in cells)} cells with an object"


def log_probabilities(scores: Tensor) -> Tensor:
    """Return the logarithm of probabilities (B, C), of logits or of probabilities themselves."""
    scores = scores.float()
    sums = scores.detach().sum(1)
    if bool((scores >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        return scores.clamp_min(EPSILON).log()
    return scores.log_softmax(1)


def is_chances(values: Tensor) -> bool:
    """Return whether a tensor (B, 5 + C, h, w) is a box, and probabilities after it."""
    later = values[:, 4:] if values.ndim == 4 and values.shape[1] > 5 else None
    return later is not None and bool(((later >= 0) & (later <= 1)).all())


def chances(prediction: Tensor) -> Tensor:
    """Return the probability of each class at each position, (B, C, h, w)."""
    prediction = prediction.float()
    return prediction[:, 4:5] * prediction[:, 5:]


def relative_errors(found: Tensor, wanted: Tensor) -> Tensor:
    """Return the L1 error over the mean of the wanted values, (B,)."""
    found, wanted = found.float().flatten(1), wanted.float().flatten(1)
    return (found - wanted).abs().mean(1) / wanted.abs().mean(1).clamp_min(EPSILON)


def overlap(boxes: Tensor, box: Tensor) -> Tensor:
    """Return the intersection over union of boxes (N, 4) with one (4,)."""
    starts, ends = torch.maximum(boxes[:, :2], box[:2]), torch.minimum(boxes[:, 2:], box[2:])
    common = (ends - starts).clamp_min(0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (box[2:] - box[:2]).prod()
    return common / (areas - common).clamp_min(EPSILON)


def detections(found: Mapping[str, Tensor]) -> Detections:
    """Return found objects as those of `vrdir evaluate`, from the score that is shown."""
    shown = found["scores"] >= SHOWN_SCORE
    boxes, scores, labels = (
        found[name][shown].detach().float().cpu().numpy().astype(np.float64)
        for name in ("boxes", "scores", "labels")
    )
    return Detections(boxes, scores, labels.astype(np.int64))


def f1_of(found: Detections, wanted: Detections) -> float:
    """Return F1 of detections, with others as the truth."""
    there = wanted.scores >= SHOWN_SCORE
    objects = Objects(wanted.boxes[there], wanted.labels[there], np.zeros(int(there.sum()), bool))
    return f1(match(found, objects), objects)


def kind_of(answers: Any, task: str | None, classes: int | None = None) -> AnswerKind:
    """Return the kind of what a recogniser answered.

    Args:
        answers: its output for a batch.
        task: one of `TASKS`, if it is known.
        classes: the number of its classes, where it is known.

    Raises:
        RecogniserError: the answers are of no kind that is known, or not of the task.
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
