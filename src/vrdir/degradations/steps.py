"""Degradations as text: "haze:severity=2+noise:sigma=20..30"."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from vrdir.degradations.parameters import SEVERITIES, shown
from vrdir.degradations.registry import CLEAN, find
from vrdir.errors import InputError


class Step(NamedTuple):
    """One degradation to apply.

    Attributes:
        name: the degradation's.
        ranges: the values given for its parameters.
        severity: 1 to 5; None for the defaults.
    """

    name: str
    ranges: Mapping[str, Any]
    severity: int | None


def parse_degradations(text: str) -> list[Step]:
    """Read degradations from text, in the order in which they are applied.

    >>> haze, noise = parse_degradations("haze:severity=2+noise:sigma=20..30")
    >>> noise
    Step(name='noise', ranges={'sigma': (20.0, 30.0)}, severity=None)

    "clean" means no degradation.

    Raises:
        InputError: an unknown degradation or parameter, or a value that is not a number or range.
    """
    if text.strip() == CLEAN:
        return []
    return [_parse_step(part) for part in re.split(r"\+(?![0-9])", text)]  # 1e+3 is a number


def _parse_step(text: str) -> Step:
    name, _, rest = text.strip().partition(":")
    parameters = find(name).parameters
    ranges: dict[str, Any] = {}
    severity = None
    for part in filter(None, rest.split(",")):
        key, equals, value = part.strip().partition("=")
        if key == "severity" and equals:
            if value not in map(str, SEVERITIES):
                raise InputError(
                    f"{name}:severity must be a whole number from 1 to 5, not {value!r}"
                )
            severity = int(value)
            continue
        if key not in parameters or not equals:
            known = ", ".join(f"{k}={shown(p.default)}" for k, p in parameters.items())
            raise InputError(f"{name} accepts {known}, or severity=1 to 5; not {part!r}")
        ranges[key] = parameters[key].parsed(f"{name}:{key}", value)
    return Step(name, ranges, severity)


def ranges_of(text: str) -> dict[str, dict[str, Any]]:
    """Read the values of parameters, by degradation, from text; an empty text has none.

    Raises:
        InputError: as `parse_degradations`; or a degradation is named twice, or a value is out of
            its bounds.
    """
    steps = parse_degradations(text) if text.strip() else []
    ranges = {
        step.name: at_severity(step.name, step.severity) | dict(step.ranges) for step in steps
    }
    if len(ranges) < len(steps):
        raise InputError(f"use each degradation once, not as in {text!r}")
    check_ranges(ranges)
    return ranges


def at_severity(name: str, severity: int | None) -> dict[str, Any]:
    """Return the values that a severity sets; none for None.

    Raises:
        InputError: the severity is not 1 to 5, or the degradation is unknown.
    """
    if severity is None:
        return {}
    if severity not in SEVERITIES:
        raise InputError(f"a severity must be a whole number from 1 to 5, not {severity!r}")
    return {key: values[int(severity) - 1] for key, values in find(name).severities.items()}


def parameters_of(name: str) -> dict[str, Any]:
    """Return the parameters of a degradation and their defaults."""
    return find(name).defaults


def check_steps(steps: Iterable[Step]) -> None:
    """Raise InputError for steps that cannot be applied, before any image is read."""
    for step in steps:
        find(step.name).checked(at_severity(step.name, step.severity) | dict(step.ranges))


def check_ranges(ranges: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise InputError for values of parameters that cannot be drawn from."""
    for name, values in ranges.items():
        degradation = find(name)
        try:
            degradation.checked(values)
        except InputError as error:
            named = str(error).startswith(name)
            raise InputError(str(error) if named else f"{name}:{error}") from None
