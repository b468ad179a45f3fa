"""Adapt weights to one recogniser and one place, without labels. See docs/adapt.md."""

from typing import TYPE_CHECKING

from vrdir.lazy import offer

if TYPE_CHECKING:
    from vrdir.adaptation.adapting import adapt
    from vrdir.adaptation.answers import AnswerKind
    from vrdir.adaptation.job import Adaptation
    from vrdir.adaptation.proof import Proof
    from vrdir.adaptation.recogniser import InputFormat, Recogniser, load_recogniser
    from vrdir.adaptation.settings import AdaptationSettings

__all__ = [
    "Adaptation",
    "AdaptationSettings",
    "AnswerKind",
    "InputFormat",
    "Proof",
    "Recogniser",
    "adapt",
    "load_recogniser",
]

_HOMES = {
    "Adaptation": "vrdir.adaptation.job",
    "AdaptationSettings": "vrdir.adaptation.settings",
    "AnswerKind": "vrdir.adaptation.answers",
    "InputFormat": "vrdir.adaptation.recogniser",
    "Proof": "vrdir.adaptation.proof",
    "Recogniser": "vrdir.adaptation.recogniser",
    "adapt": "vrdir.adaptation.adapting",
    "load_recogniser": "vrdir.adaptation.recogniser",
}

__getattr__, _ = offer(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
