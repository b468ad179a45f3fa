"""Declaring a degradation: its name, where it happens, its parameters and its function.

    @degradation(
        "noise",
        Place.NOISE,
        formula="`I = J + sigma / 255 n`",
        sigma=Parameter(2, 55, bounds=(0, 255), about="standard deviation", unit="8-bit levels"),
    )
    def noise(image: Tensor, draws: Draws) -> Tensor:
        return image + draws.parameter("sigma") / 255 * draws.normal(*image.shape[1:])

It is registered in `DEGRADATIONS` when its module is imported. docs/extending/degradation.md
explains the steps.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from torch import Tensor

from vrdir.degradations.draws import Degraded, Draws, Generators, parameters
from vrdir.degradations.parameters import SEVERITIES, AnyParameter
from vrdir.errors import InputError

Function = Callable[[Tensor, Draws], Tensor]


class Place(IntEnum):
    """Where a degradation happens on the way from the scene to the file.

    Mixtures apply degradations in this order. Low light comes late, because it falls on haze, rain
    and snow as on everything else: it belongs to the light that reaches the sensor.
    """

    AIR = 1
    FALLING = 2
    GLASS = 3
    FOCUS = 4
    MOTION = 5
    PIXELS = 6
    LIGHT = 7
    NOISE = 8
    FILE = 9


@dataclass(frozen=True)
class Degradation:
    """A degradation, or an overlay: callable, with all facts about it.

    Attributes:
        name: its name in commands, recipes and branches.
        place: where it happens; None for an overlay, which no mixture contains.
        parameters: by name, in the order in which help and docs show them.
        function: of (image (B, 3, H, W) in [0, 1], draws); returns the degraded batch, not clipped.
        formula: for the docs, in Markdown.
        source: the paper or standard that the formula is from.
        synonyms: other names for it, which errors suggest it for.
        never_with: degradations that cannot be in one photo with it.
    """

    name: str
    place: Place | None
    parameters: Mapping[str, AnyParameter]
    function: Function
    formula: str = ""
    source: str = ""
    synonyms: tuple[str, ...] = ()
    never_with: tuple[str, ...] = ()

    def __call__(self, image: Tensor, generator: Generators, **values: Any) -> Degraded:
        """Degrade a batch.

        Args:
            image: (B, 3, H, W) in [0, 1].
            generator: source of all draws; one, or one for each image.
            values: of parameters, one value or (low, high) each; the defaults otherwise.

        Returns:
            The degraded batch, not clipped, and what was drawn.

        Raises:
            InputError: an unknown parameter, or a value out of its bounds.
        """
        draws = Draws(image, generator, self.parameters, self.checked(values))
        degraded = self.function(image, draws)
        return Degraded(degraded, parameters(**draws.drawn), draws.haze)

    @property
    def summary(self) -> str:
        """The first line of the function's docstring; "" under `python -OO`."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    @property
    def defaults(self) -> dict[str, Any]:
        """The default of each parameter."""
        return {key: parameter.default for key, parameter in self.parameters.items()}

    @property
    def severities(self) -> dict[str, tuple[Any, ...]]:
        """For each parameter that a severity sets, its values or ranges at severity 1 to 5."""
        return {key: p.severities for key, p in self.parameters.items() if p.severities}

    @property
    def milder(self) -> dict[str, Any]:
        """Ranges in a mixture: three degradations at full strength would leave nothing to see."""
        return {key: p.milder for key, p in self.parameters.items() if p.milder is not None}

    def checked(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the value of every parameter, defaults included. No pixels are needed.

        Raises:
            InputError: an unknown parameter, or a value out of its bounds.
        """
        unknown = sorted(values.keys() - self.parameters.keys())
        if unknown:
            known = ", ".join(self.parameters)
            raise InputError(f"{self.name} has no parameter {', '.join(unknown)}; it has {known}")
        given = self.defaults | dict(values)
        return {key: p.checked(key, given[key]) for key, p in self.parameters.items()}


DEGRADATIONS: dict[str, Degradation] = {}
"""All degradations by name, in the order in which they occur in nature (`Place`)."""

OVERLAYS: dict[str, Degradation] = {}
"""By name, what is applied like a degradation, but must not be removed by restoring."""

SYNONYMS: dict[str, str] = {}
"""Synonyms of degradations, and their names in this package."""


def degradation(
    name: str,
    place: Place | None,
    *,
    formula: str = "",
    source: str = "",
    synonyms: tuple[str, ...] = (),
    never_with: tuple[str, ...] = (),
    **declared: AnyParameter,
) -> Callable[[Function], Degradation]:
    """Declare a function as a degradation and register it.

    Args:
        name: its name.
        place: where it happens; None for an overlay.
        formula: for the docs.
        source: the paper or standard it is from.
        synonyms: other names, which errors suggest it for.
        never_with: degradations that cannot be in one photo with it.
        declared: its parameters.

    Raises:
        ValueError: another function has this name, or a parameter has not five severities.
    """
    for key, parameter in declared.items():
        if parameter.severities and len(parameter.severities) != len(SEVERITIES):
            raise ValueError(f"{name}.{key} has {len(parameter.severities)} severities, not 5")

    def declare(function: Function) -> Degradation:
        made = Degradation(name, place, declared, function, formula, source, synonyms, never_with)
        _register(made)
        return made

    return declare


def _register(new: Degradation) -> None:
    old = DEGRADATIONS.get(new.name) or OVERLAYS.get(new.name)
    if old is not None and _home(old) != _home(new):
        raise ValueError(f"{new.name} is already declared in {_home(old)}")
    if new.place is None:
        OVERLAYS[new.name] = new
        return
    DEGRADATIONS[new.name] = new
    for other in new.synonyms:
        SYNONYMS[other] = new.name
    in_order = sorted(DEGRADATIONS.values(), key=lambda one: one.place or 0)
    DEGRADATIONS.clear()
    DEGRADATIONS.update({one.name: one for one in in_order})


def _home(of: Degradation) -> str:
    return f"{of.function.__module__}.{of.function.__qualname__}"


def can_meet(one: str, other: str) -> bool:
    """Return whether two degradations can be in one photo."""
    return other not in DEGRADATIONS[one].never_with and one not in DEGRADATIONS[other].never_with
