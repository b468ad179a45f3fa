"""Parameters of degradations: default, limits, unit, severities and description in one place.

Help texts, checks and the tables of docs/degradations.md are made from these declarations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from torch import Tensor

from vrdir.errors import InputError

Range = float | tuple[float, float]
"""A parameter's value: one for all images, or (low, high) to draw from for each image."""

SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Parameter:
    """A number that is drawn for each image, uniformly between two limits.

    Attributes:
        low, high: the default range.
        bounds: the lowest and the highest value that is allowed.
        about: what it is, in a few words.
        unit: such as "pixels"; "" for a plain number.
        severities: its values or ranges at severity 1 to 5; () where a severity keeps the default.
        milder: its range in a mixture with other degradations; None keeps the default.
        log: whether it is drawn uniformly in its logarithm, as for lengths; bounds are above 0.
        whole: whether what was drawn is rounded to a whole number.
    """

    low: float
    high: float
    bounds: tuple[float, float]
    about: str
    unit: str = ""
    severities: tuple[Range, ...] = ()
    milder: Range | None = None
    log: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        def floats(value: Range) -> Range:
            low, high = value if isinstance(value, tuple) else (value, value)
            return (float(low), float(high)) if isinstance(value, tuple) else float(value)

        object.__setattr__(self, "severities", tuple(map(floats, self.severities)))
        object.__setattr__(self, "milder", None if self.milder is None else floats(self.milder))

    @property
    def default(self) -> tuple[float, float]:
        """The range that is used if none is given."""
        return float(self.low), float(self.high)

    @property
    def allowed(self) -> str:
        """The bounds, in words."""
        return f"{self.bounds[0]:g} to {self.bounds[1]:g}"

    def checked(self, name: str, value: Any) -> tuple[float, float]:
        """Return the two ends of a value or range. Raises InputError, naming the parameter."""
        return checked(name, value, *self.bounds)

    def parsed(self, name: str, text: str) -> Range:
        """Read "0.5" or "0.5..1.5". Raises InputError, naming the parameter."""
        try:
            numbers = [float(number) for number in text.split("..")]
            if len(numbers) > 2:
                raise ValueError
        except ValueError:
            raise InputError(
                f"{name} must be a number, or a range such as 0.5..1.5, not {text!r}"
            ) from None
        return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


@dataclass(frozen=True)
class Single:
    """A number that is the same for all images. Its attributes are those of `Parameter`."""

    default: float
    bounds: tuple[float, float]
    about: str
    unit: str = ""
    severities: tuple[Range, ...] = ()
    milder: Range | None = None
    whole: bool = False

    @property
    def allowed(self) -> str:
        """The bounds, in words."""
        return f"one number, {self.bounds[0]:g} to {self.bounds[1]:g}"

    def checked(self, name: str, value: Any) -> float:
        """Return the number, an int if it must be whole. Raises InputError, naming it."""
        if isinstance(value, (tuple, list)):
            raise InputError(f"{name} must be one number for all images, not {value!r}")
        number = checked(name, value, *self.bounds)[0]
        if not self.whole:
            return number
        if not number.is_integer():
            raise InputError(f"{name} must be a whole number, not {value!r}")
        return int(number)

    def parsed(self, name: str, text: str) -> float:
        """Read a number. Raises InputError, naming the parameter."""
        try:
            return int(text) if self.whole else float(text)
        except ValueError:
            kind = "one whole number" if self.whole else "one number"
            raise InputError(f"{name} must be {kind}, not {text!r}") from None


@dataclass(frozen=True)
class Choice:
    """A word that is the same for all images.

    Attributes:
        default: one of the words.
        words: those that are allowed.
        about: what it is, in a few words.
        takes_map: whether a tensor, one number for each pixel, may be given instead.
    """

    default: str
    words: tuple[str, ...]
    about: str
    takes_map: bool = False
    unit: str = ""
    severities: tuple[Range, ...] = ()
    milder: Range | None = None

    @property
    def allowed(self) -> str:
        """The words that are allowed."""
        return ", ".join(self.words)

    def checked(self, name: str, value: Any) -> str | Tensor:
        """Return the word or the map. Raises InputError, naming the parameter."""
        if self.takes_map and isinstance(value, Tensor):
            return value
        if not isinstance(value, str) or value not in self.words:
            or_map = ", or a map" if self.takes_map else ""
            raise InputError(
                f"{name} must be one of {', '.join(self.words)}{or_map}; not {value!r}"
            )
        return value

    def parsed(self, name: str, text: str) -> str:
        """Read a word. Raises InputError, naming the parameter."""
        if text not in self.words:
            raise InputError(f"{name} must be one of {', '.join(self.words)}, not {text!r}")
        return text


AnyParameter = Parameter | Single | Choice


def checked(name: str, value: Any, lowest: float, highest: float) -> tuple[float, float]:
    """Return the two ends of a value or range.

    Raises:
        InputError: it is not a number or (low, high), or outside `lowest` to `highest`.
    """
    pair: Sequence[Any] = value if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or not all(isinstance(end, Real) and math.isfinite(end) for end in pair):
        raise InputError(f"{name} must be a number or (low, high), not {value!r}")
    low, high = pair
    if low > high:
        raise InputError(f"{name} must go from low to high, not from {low} to {high}")
    if low < lowest or high > highest:
        raise InputError(f"{name} must be between {lowest:g} and {highest:g}, not {shown(value)}")
    return float(low), float(high)


def shown(value: Any) -> str:
    """Return a value as `parsed` reads it: "0.5..1.5", "3" or a word."""
    if isinstance(value, str):
        return value
    if isinstance(value, (tuple, list)):
        low, high = value
        return f"{low:g}..{high:g}" if low != high else f"{low:g}"
    return f"{value:g}"
