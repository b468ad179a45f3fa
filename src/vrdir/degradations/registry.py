"""All degradations by name. To add a file of degradations, add one entry here."""

from vrdir.degradations import (  # noqa: F401 - importing them registers them
    blur,
    haze,
    jpeg,
    light,
    noise,
    overlays,
    rain,
    resolution,
    snow,
)
from vrdir.degradations.declaration import (
    DEGRADATIONS,
    OVERLAYS,
    SYNONYMS,
    Degradation,
    Place,
    can_meet,
    degradation,
)
from vrdir.errors import InputError
from vrdir.spelling import did_you_mean

__all__ = [
    "CLEAN",
    "DEGRADATIONS",
    "MIXED",
    "OVERLAYS",
    "SYNONYMS",
    "Degradation",
    "Place",
    "can_meet",
    "degradation",
    "find",
    "suggestion",
]

CLEAN, MIXED = "clean", "mixed"
"""The kinds of images besides single degradations: without any, and with several at once."""


def find(name: str) -> Degradation:
    """Return the degradation or overlay of a name. Raises InputError, with a suggestion."""
    found = DEGRADATIONS.get(name) or OVERLAYS.get(name)
    if found is None:
        known = ", ".join((*DEGRADATIONS, *OVERLAYS))
        raise InputError(f"unknown degradation {name!r}; choose one of {known}{suggestion(name)}")
    return found


def suggestion(*names: str) -> str:
    """Return "; did you mean haze?" for unknown names, or "" if no known name is similar."""
    known = (*DEGRADATIONS, CLEAN, MIXED)
    return "".join(did_you_mean(name, known, SYNONYMS) for name in sorted(names))
