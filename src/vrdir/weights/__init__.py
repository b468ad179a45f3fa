"""Weights: those in the package, folders, and the Hugging Face hub."""

from typing import TYPE_CHECKING

from vrdir.lazy import offer

if TYPE_CHECKING:
    from vrdir.weights.bundled import bundled_weights, resolve_weights, verify

__all__ = [
    "bundled_weights",
    "resolve_weights",
    "verify",
]

_HOMES = {
    "bundled_weights": "vrdir.weights.bundled",
    "resolve_weights": "vrdir.weights.bundled",
    "verify": "vrdir.weights.bundled",
}

__getattr__, _ = offer(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
