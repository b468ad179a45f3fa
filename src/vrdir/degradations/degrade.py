"""One degradation or several, by name, on any image."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vrdir.degradations.depth import DepthKind
from vrdir.degradations.draws import Degraded, Generators, Range, index
from vrdir.degradations.overlays import KINDS
from vrdir.degradations.registry import CLEAN, DEGRADATIONS, STEPS, meant_by
from vrdir.images.convert import Channels, checked_channels, open_image
from vrdir.images.reading import read_file
from vrdir.regular_files import open_regular

WORDS = {"depth": get_args(DepthKind), "kind": KINDS}  # the parameters that are no numbers


def apply_degradation(
    image: Tensor,
    name: str,
    generator: Generators,
    *,
    severity: int | None = None,
    **ranges: Range | Tensor | None,
) -> Degraded:
    """Apply one degradation to a batch.

    Args:
        image: (B, 3, H, W) in [0, 1].
        name: one of `DEGRADATIONS`, or "overlay" (`vrdir.degradations.overlays`).
        generator: source of all draws: the same seed gives the same pixels; one, or one for each image.
        severity: 1 (barely visible) to 5 (a recogniser mostly fails); None leaves the defaults, which span most of it.
        ranges: replace those of the severity or the defaults, one value or (low, high) each; haze and night_haze take a
            depth (B, 1, H, W) too.

    Returns:
        The degraded batch, clipped to [0, 1], and the drawn parameters.

    Raises:
        ValueError: an unknown degradation, parameter or severity.
    """
    if name not in STEPS:
        raise ValueError(
            f"unknown degradation {name!r}; there are {', '.join(STEPS)}{meant_by(name)}"
        )
    allowed = parameters_of(name)
    if not ranges.keys() <= allowed.keys():
        raise ValueError(
            f"{name} has no parameter {', '.join(sorted(ranges.keys() - allowed.keys()))}; it has {', '.join(allowed)}"
        )
    degraded = STEPS[name].function(image, generator, **{**at_severity(name, severity), **ranges})
    return Degraded(degraded.image.clamp(0, 1), degraded.parameters)


def parameters_of(name: str) -> dict[str, Any]:
    """The parameters of a degradation and their defaults."""
    return dict(STEPS[name].function.__kwdefaults__ or {})


def at_severity(name: str, severity: int | None) -> dict[str, Range]:
    """The parameters that a severity sets; none for None. Raises ValueError if it is not 1 to 5."""
    if severity is None:
        return {}
    if severity not in (1, 2, 3, 4, 5):
        raise ValueError(f"a severity is a whole number from 1 to 5, not {severity!r}")
    return {
        parameter: values[int(severity) - 1] for parameter, values in STEPS[name].severities.items()
    }


class Step(NamedTuple):
    """One degradation to apply: its name, the ranges given for its parameters, and its severity, or None for the defaults."""

    name: str
    ranges: Mapping[str, Any]
    severity: int | None


def parse_degradations(text: str) -> list[Step]:
    """Read degradations from text, in the order in which they are to be applied.

    >>> parse_degradations("haze:severity=2+noise:sigma=20..30")
    [Step(name='haze', ranges={}, severity=2), Step(name='noise', ranges={'sigma': (20.0, 30.0)}, severity=None)]

    "clean" stands for none.

    Raises:
        ValueError: an unknown degradation or parameter, or what is no number or range.
    """
    if text.strip() == CLEAN:
        return []
    return [_parse_step(part) for part in re.split(r"\+(?![0-9])", text)]  # 1e+3 is a number


def _parse_step(text: str) -> Step:
    name, _, rest = text.strip().partition(":")
    if name not in STEPS:
        raise ValueError(
            f"unknown degradation {name!r}; there are {', '.join(STEPS)}{meant_by(name)}"
        )
    known = {key: value for key, value in parameters_of(name).items() if value is not None}
    ranges: dict[str, Any] = {}
    severity = None
    for part in filter(None, rest.split(",")):
        key, equals, value = part.strip().partition("=")
        if key == "severity" and equals:
            severity = int(value) if value in ("1", "2", "3", "4", "5") else None
            if severity is None:
                raise ValueError(f"{name}:severity is a whole number from 1 to 5, not {value!r}")
            continue
        if key not in known or not equals:
            raise ValueError(
                f"{name} takes {', '.join(f'{k}={shown(v)}' for k, v in known.items())}, or severity=1 to 5; not {part!r}"
            )
        if isinstance(known[key], str):
            if value not in WORDS[key]:
                raise ValueError(f"{name}:{key} is {', '.join(WORDS[key])}, not {value!r}")
            ranges[key] = value
            continue
        takes_range, kind = (
            isinstance(known[key], tuple),
            int if isinstance(known[key], int) else float,
        )
        try:
            numbers = tuple(
                kind(number) for number in (value.split("..") if takes_range else [value])
            )
            if len(numbers) > 2:
                raise ValueError
        except ValueError:
            wanted = (
                "a number, or a range such as 0.5..1.5"
                if takes_range
                else f"one {'whole ' * (kind is int)}number"
            )
            raise ValueError(f"{name}:{key} is {wanted}, not {value!r}") from None
        ranges[key] = numbers[0] if len(numbers) == 1 else numbers
    return Step(name, ranges, severity)


def ranges_of(text: str) -> dict[str, dict[str, Range]]:
    """The ranges of parameters, by degradation, that `parse_degradations` reads from text; none from an empty one.

    Raises:
        ValueError: as `parse_degradations`; a degradation is named twice, or a value is out of its range.
    """
    steps = parse_degradations(text) if text.strip() else []
    ranges = {
        step.name: at_severity(step.name, step.severity) | dict(step.ranges) for step in steps
    }
    if len(ranges) < len(steps):
        raise ValueError(f"each degradation's ranges are given once, not as in {text!r}")
    check_steps(Step(name, values, None) for name, values in ranges.items())
    return ranges


def check_steps(steps: Iterable[Step]) -> None:
    """Raise ValueError for what cannot be drawn: whoever does so hours later, or for each of many files, is to know it now."""
    apply_steps(torch.full((1, 3, 32, 32), 0.5), steps, torch.Generator().manual_seed(0))


def shown(value: Any) -> str:
    """A parameter as `parse_degradations` reads it: 0.5..1.5, or a number."""
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        return f"{value[0]:g}..{value[1]:g}" if value[0] != value[1] else f"{value[0]:g}"
    return f"{value:g}"


def apply_steps(image: Tensor, steps: Iterable[Step], generator: Generators) -> Tensor:
    """Apply degradations one after the other to a batch (B, 3, H, W), clipped to [0, 1] after each. Raises as `apply_degradation`."""
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
    """Degrade an image of any kind that `vrdir.Restorer` takes; the same kind is given back.

    >>> hazy = vrdir.degrade(photo, "haze", seed=1, beta=1.2)
    >>> stormy = vrdir.degrade(photo, "haze:beta=0.8+rain+sensor_noise", severity=3)

    Args:
        image: path, bytes, PIL image, NumPy array or torch tensor (both RGB, unless `channels` says otherwise).
        name: a degradation (`vrdir degrade --list` names them), or several joined by "+" with parameters after a colon.
        seed: the same seed gives the same pixels.
        severity: 1 (barely visible) to 5 (a recogniser mostly fails), for each that names none of its own.
        channels: the order of the colours in arrays and tensors, both ways: "rgb", or "bgr" as OpenCV has them.
        ranges: the degradation's parameters, one value each, or (low, high) where the default is a range; its defaults otherwise.
            For haze and night_haze also `depth`: an array, tensor, picture or path (H, W), 0 near to about 1 far; integers are
            divided by their white.

    Raises:
        ValueError: an unknown degradation or parameter, or no image.
    """
    steps = parse_degradations(name)
    depth = ranges.pop("depth", None)
    if ranges and len(steps) > 1:
        raise ValueError(
            f"parameters of several degradations stand in the text, such as {steps[0].name}:{next(iter(ranges))}=..."
        )
    steps = [Step(one.name, {**one.ranges, **ranges}, one.severity or severity) for one in steps]
    return degrade_with(image, steps, seed, depth, checked_channels(channels))


def degrade_with(
    image: Any, steps: Sequence[Step], seed: int, depth: Any = None, channels: Channels = "rgb"
) -> Any:
    """Apply steps to an image of any kind; the same kind is given back. As `degrade`, with the text already read."""
    opened = open_image(image, channels)
    if depth is not None:
        taking, opened_depth = taking_depth(steps), open_depth(depth, opened.tensor)
        steps = [
            one._replace(ranges={**one.ranges, "depth": opened_depth}) if one in taking else one
            for one in steps
        ]
    degraded = apply_steps(
        opened.tensor, steps, torch.Generator().manual_seed(index("a seed", seed))
    )
    if opened.grey:  # a grey sensor has one grain, not the mean of three
        degraded = degraded[:, :1].expand(-1, 3, -1, -1)
    return opened.close(degraded)


def with_one_grain(clean: Tensor, degraded: Tensor) -> Tensor:
    """Of a batch (B, 3, H, W), what was made of grey images in grey: a grey sensor has one grain, not three."""
    grey = (clean == clean[:, :1]).flatten(1).all(1).view(-1, 1, 1, 1)
    return torch.where(grey, degraded[:, :1], degraded)


def taking_depth(steps: Sequence[Step]) -> list[Step]:
    """Those of the steps that take a depth. Raises ValueError if none does."""
    taking = [step for step in steps if "depth" in parameters_of(step.name)]
    if not taking:
        able = " and ".join(name for name in DEGRADATIONS if "depth" in parameters_of(name))
        raise ValueError(
            f"a depth is of use for {able} only, not for {', '.join(step.name for step in steps)}"
        )
    return taking


def open_depth(depth: Any, image: Tensor) -> Tensor:
    """A depth map of any kind as (1, 1, H, W), in units of the scene's depth, for a batch (B, 3, H, W).

    Args:
        depth: (H, W) array or tensor, grey picture, or path of a picture or a .npy file; 0 near to about 1 far; integers of
            8 and 16 bits are divided by their white.
        image: the batch, whose size it must have.

    Raises:
        ValueError: it is none of these, of another size, or holds negative or no numbers.
    """
    source = "the depth"
    if isinstance(depth, (str, Path)):
        source = str(depth)
        if Path(depth).suffix.lower() == ".npy":
            try:
                with open_regular(depth) as file:
                    depth = np.load(file, allow_pickle=False)
            except (OSError, ValueError) as error:
                raise ValueError(f"{source} is no array that can be read ({error})") from None
        else:
            depth = read_file(Path(depth))
    if isinstance(depth, Image.Image):
        if depth.mode not in ("L", "I;16", "I;16L", "I;16B", "I", "F"):
            raise ValueError(
                f"{source} is a {depth.mode} picture; a depth map is grey, of 8 or 16 bits, or a .npy file"
            )
        depth = np.asarray(depth)
        if depth.dtype == np.int32:
            if depth.min() < 0 or depth.max() > 65535:
                raise ValueError(
                    f"{source} goes from {depth.min()} to {depth.max()}; a picture of integers goes from 0 to 65535 at most"
                )
            depth = depth.astype(np.uint16)
    values = (
        depth.cpu() if isinstance(depth, Tensor) else torch.from_numpy(_native(np.array(depth)))
    )
    white = {torch.uint8: 255, torch.uint16: 65535}.get(values.dtype, 1)
    if white == 1 and not values.dtype.is_floating_point:
        kind = str(values.dtype).removeprefix("torch.")
        raise ValueError(f"{source} is of {kind}; a depth map is uint8, uint16 or floating point")
    if values.squeeze().shape != image.shape[-2:] and values.shape != image.shape[-2:]:
        raise ValueError(
            f"{source} is of shape {tuple(values.shape)}; give one of the image's size, {tuple(image.shape[-2:])}"
        )
    values = values.float() / white
    if not torch.isfinite(values).all() or values.min() < 0:
        raise ValueError(
            f"{source} holds negative or infinite values or NaN; a depth is 0 (near) or more"
        )
    return values.reshape(1, 1, *image.shape[-2:]).to(image.device)


def _native(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The same in this machine's byte order, which torch needs."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)
