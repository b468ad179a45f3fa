"""Degradations of images: haze, rain, snow, blur, low light, noise, JPEG."""

from typing import TYPE_CHECKING

from vrdir.lazy import offer

if TYPE_CHECKING:
    from vrdir.degradations.degrade import apply_degradation
    from vrdir.degradations.draws import Degraded, Draws
    from vrdir.degradations.mixture import Mixture, degrade_mixture
    from vrdir.degradations.parameters import Choice, Parameter, Single
    from vrdir.degradations.registry import DEGRADATIONS, Degradation, Place, degradation
    from vrdir.degradations.steps import parse_degradations, ranges_of

__all__ = [
    "DEGRADATIONS",
    "Choice",
    "Degradation",
    "Degraded",
    "Draws",
    "Mixture",
    "Parameter",
    "Place",
    "Single",
    "apply_degradation",
    "degradation",
    "degrade_mixture",
    "parse_degradations",
    "ranges_of",
]

# `degradation` is from the registry, so that built-in degradations are registered before others.
_HOMES = {
    "Choice": "vrdir.degradations.parameters",
    "DEGRADATIONS": "vrdir.degradations.registry",
    "Degradation": "vrdir.degradations.registry",
    "Degraded": "vrdir.degradations.draws",
    "Draws": "vrdir.degradations.draws",
    "Mixture": "vrdir.degradations.mixture",
    "Parameter": "vrdir.degradations.parameters",
    "Place": "vrdir.degradations.registry",
    "Single": "vrdir.degradations.parameters",
    "apply_degradation": "vrdir.degradations.degrade",
    "degradation": "vrdir.degradations.registry",
    "degrade_mixture": "vrdir.degradations.mixture",
    "parse_degradations": "vrdir.degradations.steps",
    "ranges_of": "vrdir.degradations.steps",
}

__getattr__, _ = offer(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
