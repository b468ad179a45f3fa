"""Random draws for a batch of images, the same for the same seed."""

from __future__ import annotations

import math
import operator
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional

from vrdir.degradations.parameters import AnyParameter, Parameter, Range, checked
from vrdir.errors import InputError

Ranges = Mapping[str, Mapping[str, Any]]
"""Values of the parameters of several degradations, by the degradation's name."""

Generators = Generator | Sequence[Generator]
"""The source of all draws: one for the whole batch, or one for each image.

With one for each, an image's pixels do not depend on the other images of its batch.
"""


class Degraded(NamedTuple):
    """A degraded batch.

    Attributes:
        image: (B, 3, H, W), not clipped.
        parameters: what was drawn, (B,) or (B, 3) each, by name.
        haze: (B,), the mean of 1 - t over each image, where t is the transmission; None of
            degradations other than haze.
    """

    image: Tensor
    parameters: dict[str, Tensor]
    haze: Tensor | None = None


class Draws:
    """Draws for one batch. The same seed gives the same numbers.

    Args:
        image: the batch, (B, C, H, W); only its size and its device are used.
        generator: source of all draws, on any device; or one for each image, so that an image's
            draws depend neither on its batch nor on how a batch is divided among processes.
        parameters: the parameters of a degradation, for `parameter` and `value`.
        values: their checked values, by name.

    Raises:
        InputError: the number of generators is not the number of images.
    """

    def __init__(
        self,
        image: Tensor,
        generator: Generators,
        parameters: Mapping[str, AnyParameter] | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> None:
        self.image, self.generator = image, generator
        self.parameters, self.values = parameters or {}, values or {}
        self.drawn: dict[str, Tensor] = {}
        self.haze: Tensor | None = None
        if not isinstance(generator, Generator) and len(generator) != image.shape[0]:
            raise InputError(
                f"use one generator, or one for each of the {image.shape[0]} images, "
                f"not {len(generator)}"
            )

    def parameter(self, name: str) -> Tensor:
        """Draw a declared parameter for each image, (B, 1, 1, 1), and record it.

        The first call draws; later calls return the same numbers.
        """
        if name not in self.drawn:
            declared = self.parameters[name]
            assert isinstance(declared, Parameter)
            draw = self.log_uniform if declared.log else self.uniform
            drawn = draw(name, self.values[name], *declared.bounds)
            self.drawn[name] = drawn.round() if declared.whole else drawn
        return self.drawn[name]

    def limits(self, name: str) -> tuple[float, float]:
        """Return the lower and upper limit of a declared parameter's range."""
        low, high = self.values[name]
        return low, high

    def value(self, name: str) -> Any:
        """Return a declared parameter that is the same for all images."""
        return self.values[name]

    def record(self, name: str, value: Tensor) -> Tensor:
        """Record the value of a parameter in the image, (B, C, 1, 1), and return it."""
        self.drawn[name] = value
        return value

    def record_transmission(self, transmission: Tensor) -> None:
        """Record how thick the haze is, from the transmission t, (B, 1, H, W)."""
        self.haze = 1 - transmission.mean((1, 2, 3))

    def uniform(
        self, name: str, limits: Range, lowest: float = -math.inf, highest: float = math.inf
    ) -> Tensor:
        """Draw (B, 1, 1, 1), uniform between two limits.

        Raises:
            InputError: naming the parameter, if the limits are not a number or range, in the wrong
                order, or outside `lowest` to `highest`.
        """
        low, high = checked(name, limits, lowest, highest)
        return low + (high - low) * self.unit(1, 1, 1)

    def log_uniform(
        self, name: str, limits: Range, lowest: float, highest: float = math.inf
    ) -> Tensor:
        """Draw as `uniform` does, uniform in the logarithm; `lowest` is above 0.

        For parameters that span an order of magnitude, such as a length.
        """
        low, high = checked(name, limits, lowest, highest)
        return torch.exp(math.log(low) + (math.log(high) - math.log(low)) * self.unit(1, 1, 1))

    def unit(self, *shape: int) -> Tensor:
        """Draw (B, *shape), uniform in [0, 1)."""
        return self._drawn(torch.rand, shape)

    def normal(self, *shape: int) -> Tensor:
        """Draw (B, *shape), standard normal."""
        return self._drawn(torch.randn, shape)

    def smooth_field(self, cells: int) -> Tensor:
        """Draw (B, 1, H, W) in [0, 1]: `cells` x `cells` random values, enlarged bicubically."""
        grid = self.unit(1, cells, cells)
        size = self.image.shape[-2:]
        return functional.interpolate(grid, size=size, mode="bicubic", align_corners=True).clamp(
            0, 1
        )

    def clouds(self) -> Tensor:
        """Draw (B, 1, H, W) in [0, 1], mean about 1/2: four octaves of smooth fields."""
        octaves = (self.smooth_field(3 * 2**octave) * 0.5**octave for octave in range(4))
        return sum(octaves, torch.zeros(())) / 1.875

    def _drawn(self, draw: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        batch, device, generator = self.image.shape[0], self.image.device, self.generator
        if isinstance(generator, Generator):
            return draw((batch, *shape), generator=generator, device=generator.device).to(device)
        return torch.stack(
            [draw(shape, generator=own, device=own.device).to(device) for own in generator]
        )


def generators_of(generator: Generators, rows: Sequence[int]) -> Generators:
    """Return the generators of some images of a batch."""
    return generator if isinstance(generator, Generator) else [generator[row] for row in rows]


def seed_of(*parts: object) -> int:
    """Return a seed that depends on these values alone, and is the same on every machine.

    A name may contain any bytes. Where two spellings of one name (NFC, NFD) are to give one seed,
    the caller composes it first (`vrdir.images.folders.composed`).
    """
    return zlib.crc32("|".join(map(str, parts)).encode("utf-8", "surrogateescape"))


def whole_number(name: str, value: Any) -> int:
    """Return a whole number of any kind, such as NumPy's. Raises InputError, naming it."""
    try:
        return operator.index(value)
    except TypeError:
        raise InputError(f"{name} must be a whole number, not {value!r}") from None


def parameters(**drawn: Tensor) -> dict[str, Tensor]:
    """Return drawn (B, C, 1, 1) tensors as (B,) or (B, C)."""
    return {name: value.flatten(1).squeeze(1) for name, value in drawn.items()}


def pixel_grid(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return x (1, 1, 1, W) and y (1, 1, H, 1) of a batch's pixels, from the top left one."""
    height, width = image.shape[-2:]
    x = torch.arange(width, device=image.device, dtype=torch.float32).view(1, 1, 1, -1)
    return x, torch.arange(height, device=image.device, dtype=torch.float32).view(1, 1, -1, 1)
