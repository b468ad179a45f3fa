"""Apply one degradation or several, by name, to a batch or to an image of any kind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from vrdir.degradations.depth_maps import open_depth
from vrdir.degradations.draws import Degraded, Generators, whole_number
from vrdir.degradations.registry import DEGRADATIONS, find
from vrdir.degradations.steps import Step, at_severity, parse_degradations
from vrdir.errors import InputError
from vrdir.images.convert import Channels, checked_channels, open_image
from vrdir.tensors import usual_defaults


def apply_degradation(
    image: Tensor, name: str, generator: Generators, *, severity: int | None = None, **ranges: Any
) -> Degraded:
    """Apply one degradation to a batch.

    Args:
        image: (B, 3, H, W) in [0, 1].
        name: one of `DEGRADATIONS`, or "overlay" (`vrdir.degradations.overlays`).
        generator: source of all draws: the same seed gives the same pixels; one for the batch, or
            one for each image.
        severity: 1 (barely visible) to 5 (a recogniser mostly fails); None keeps the defaults,
            which span most of it.
        ranges: values of parameters instead of those of the severity or the defaults: one value or
            (low, high) each. haze and night_haze also take a depth (B, 1, H, W).

    Returns:
        The degraded batch, clipped to [0, 1], and the drawn parameters.

    Raises:
        InputError: an unknown degradation, parameter or severity, or a value out of its bounds.
    """
    apply = find(name)
    degraded = apply(image, generator, **(at_severity(name, severity) | ranges))
    return degraded._replace(image=degraded.image.clamp(0, 1))


def apply_steps(image: Tensor, steps: Iterable[Step], generator: Generators) -> Tensor:
    """Apply degradations one after the other to a batch (B, 3, H, W), clipped after each.

    Raises:
        InputError: as `apply_degradation`.
    """
    for step in steps:
        image = apply_degradation(
            image, step.name, generator, severity=step.severity, **step.ranges
        ).image
    return image


def degrade(
    image: Any,
    name: str,
    seed: int = 0,
    severity: int | None = None,
    *,
    channels: Channels = "rgb",
    **ranges: Any,
) -> Any:
    """Degrade an image of any kind that `vrdir.Restorer` takes.

    >>> hazy = vrdir.degrade(photo, "haze", seed=1, beta=1.2)
    >>> stormy = vrdir.degrade(photo, "haze:beta=0.8+rain+sensor_noise", severity=3)

    Args:
        image: path, bytes, PIL image, NumPy array or torch tensor (RGB, unless `channels` is
            "bgr").
        name: a degradation (`vrdir degrade --list` names them), or several joined by "+", with
            parameters after a colon.
        seed: the same seed gives the same pixels.
        severity: 1 (barely visible) to 5 (a recogniser mostly fails), for each degradation without
            its own severity.
        channels: the order of the colours in arrays and tensors, of input and output: "rgb", or
            "bgr" as OpenCV uses.
        ranges: the degradation's parameters, one value each, or (low, high) where the default is a
            range; the defaults otherwise. haze and night_haze also take `depth`: an array, tensor,
            image or path (H, W), 0 near to about 1 far; integers are divided by their white.

    Returns:
        The degraded image, of the type of the input.

    Raises:
        InputError: an unknown degradation or parameter, or a value out of its bounds.
        ImageError: the image or the depth cannot be used.
    """
    steps = parse_degradations(name)
    depth = ranges.pop("depth", None)
    if ranges and len(steps) > 1:
        raise InputError(
            "parameters of several degradations must be in the text, such as "
            f"{steps[0].name}:{next(iter(ranges))}=..."
        )
    steps = [Step(one.name, {**one.ranges, **ranges}, one.severity or severity) for one in steps]
    return degrade_with(image, steps, seed, depth, checked_channels(channels))


def degrade_with(
    image: Any, steps: Sequence[Step], seed: int, depth: Any = None, channels: Channels = "rgb"
) -> Any:
    """Apply steps to an image of any kind and return an image of that kind; see `degrade`."""
    with usual_defaults():
        return _degraded(image, steps, seed, depth, channels)


def _degraded(image: Any, steps: Sequence[Step], seed: int, depth: Any, channels: Channels) -> Any:
    opened = open_image(image, channels)
    if depth is not None:
        taking, opened_depth = taking_depth(steps), open_depth(depth, opened.tensor)
        steps = [
            one._replace(ranges={**one.ranges, "depth": opened_depth}) if one in taking else one
            for one in steps
        ]
    generator = torch.Generator().manual_seed(whole_number("a seed", seed))
    degraded = apply_steps(opened.tensor, steps, generator)
    if opened.grey:  # a grey sensor has one grain, not the mean of three
        degraded = degraded[:, :1].expand(-1, 3, -1, -1)
    return opened.close(degraded)


def with_one_grain(clean: Tensor, degraded: Tensor) -> Tensor:
    """Return a degraded batch (B, 3, H, W) in which grey images stay grey.

    A grey sensor has one grain, not three: where the clean image is grey, the first channel of the
    degraded one is kept.
    """
    grey = (clean == clean[:, :1]).flatten(1).all(1).view(-1, 1, 1, 1)
    return torch.where(grey, degraded[:, :1], degraded)


def taking_depth(steps: Sequence[Step]) -> list[Step]:
    """Return the steps that take a depth. Raises InputError if no step does."""
    taking = [step for step in steps if "depth" in find(step.name).parameters]
    if not taking:
        able = " and ".join(name for name, one in DEGRADATIONS.items() if "depth" in one.parameters)
        names = ", ".join(step.name for step in steps)
        raise InputError(f"a depth has an effect on {able} only, not on {names}")
    return taking
