"""Drawing a degradation's parameters, one per image of a batch, reproducibly."""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional

Range = float | tuple[float, float]
"""A parameter: one value for all images, or (low, high) to draw from for each."""

Ranges = Mapping[str, Mapping[str, Range]]
"""Parameters of several degradations, by the degradation's name."""

Generators = Generator | Sequence[Generator]
"""The source of all draws: one for the whole batch, or one for each image, whose pixels then depend on its own alone."""


class Degraded(NamedTuple):
    """What a degradation returns: the degraded batch (B, 3, H, W), not clipped, and what was drawn, (B,) or (B, 3) each."""

    image: Tensor
    parameters: dict[str, Tensor]


class Draws:
    """Draws for one batch. The same seed gives the same numbers.

    Args:
        image: the batch, (B, C, H, W): its B and its device.
        generator: source of all draws, on any device; or one for each image, so that an image's draws do not depend on
            which others are in its batch, nor on how a batch is split between processes.

    Raises:
        ValueError: not as many generators as images.
    """

    def __init__(self, image: Tensor, generator: Generators) -> None:
        self.image, self.generator = image, generator
        if not isinstance(generator, Generator) and len(generator) != image.shape[0]:
            raise ValueError(
                f"one generator, or one for each of the {image.shape[0]} images, not {len(generator)}"
            )

    def uniform(
        self, name: str, limits: Range, lowest: float = -math.inf, highest: float = math.inf
    ) -> Tensor:
        """(B, 1, 1, 1), uniform between the limits.

        Raises:
            ValueError: naming the parameter, if it is no number or range, in the wrong order, or outside lowest..highest.
        """
        low, high = checked(name, limits, lowest, highest)
        return low + (high - low) * self.unit(1, 1, 1)

    def log_uniform(
        self, name: str, limits: Range, lowest: float, highest: float = math.inf
    ) -> Tensor:
        """The same, uniform in the logarithm: for what spans an order of magnitude, such as a length. `lowest` is above 0."""
        low, high = checked(name, limits, lowest, highest)
        return torch.exp(math.log(low) + (math.log(high) - math.log(low)) * self.unit(1, 1, 1))

    def unit(self, *shape: int) -> Tensor:
        """(B, *shape), uniform in [0, 1)."""
        return self._drawn(torch.rand, shape)

    def normal(self, *shape: int) -> Tensor:
        """(B, *shape), standard normal."""
        return self._drawn(torch.randn, shape)

    def smooth_field(self, cells: int) -> Tensor:
        """(B, 1, H, W) in [0, 1]: white noise on a grid of `cells` x `cells`, enlarged bicubically to the image's size."""
        grid = self.unit(1, cells, cells)
        return functional.interpolate(
            grid, size=self.image.shape[-2:], mode="bicubic", align_corners=True
        ).clamp(0, 1)

    def clouds(self) -> Tensor:
        """(B, 1, H, W) in [0, 1], mean about 1/2: four octaves of smooth fields, as drifting fog or a gust has them."""
        return (
            sum(
                (self.smooth_field(3 * 2**octave) * 0.5**octave for octave in range(4)),
                torch.zeros(()),
            )
            / 1.875
        )

    def _drawn(self, draw: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        batch, device, generator = self.image.shape[0], self.image.device, self.generator
        if isinstance(generator, Generator):
            return draw((batch, *shape), generator=generator, device=generator.device).to(device)
        return torch.stack(
            [draw(shape, generator=own, device=own.device).to(device) for own in generator]
        )


def checked(name: str, limits: Range, lowest: float, highest: float) -> tuple[float, float]:
    """The two ends of a parameter. Raises ValueError, naming it."""
    pair = limits if isinstance(limits, (tuple, list)) else (limits, limits)
    if len(pair) != 2 or not all(isinstance(end, Real) and math.isfinite(end) for end in pair):
        raise ValueError(f"{name} is a number or (low, high), not {limits!r}")
    low, high = pair
    if low > high:
        raise ValueError(f"{name} goes from low to high, not from {low} to {high}")
    if low < lowest or high > highest:
        raise ValueError(f"{name} lies between {lowest:g} and {highest:g}; {limits!r} does not")
    return float(low), float(high)


def single(name: str, value: Any, lowest: float, highest: float) -> float:
    """A parameter that is one value for all images. Raises ValueError, naming it."""
    if isinstance(value, (tuple, list)):
        raise ValueError(f"{name} is one number for all images, not {value!r}")
    return checked(name, value, lowest, highest)[0]


def whole(name: str, value: Any, lowest: int, highest: int) -> int:
    """The same, a whole number."""
    number = single(name, value, lowest, highest)
    if not number.is_integer():
        raise ValueError(f"{name} is a whole number, not {value!r}")
    return int(number)


def index(name: str, value: Any) -> int:
    """A whole number of any kind, such as NumPy's. Raises ValueError, naming it."""
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{name} is a whole number, not {value!r}") from None


def parameters(**drawn: Tensor) -> dict[str, Tensor]:
    """The drawn (B, C, 1, 1) tensors as (B,) or (B, C)."""
    return {name: value.flatten(1).squeeze(1) for name, value in drawn.items()}


def pixel_grid(image: Tensor) -> tuple[Tensor, Tensor]:
    """x (1, 1, 1, W) and y (1, 1, H, 1) of a batch's pixels, in pixels from the top left one."""
    height, width = image.shape[-2:]
    x = torch.arange(width, device=image.device, dtype=torch.float32).view(1, 1, 1, -1)
    return x, torch.arange(height, device=image.device, dtype=torch.float32).view(1, 1, -1, 1)
