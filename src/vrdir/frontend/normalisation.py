"""What a recogniser is given in place of RGB in [0, 1]: undone before restoring, redone after."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vrdir.images.convert import Channels, checked_channels

Triple = tuple[float, float, float]


class Normalisation(NamedTuple):
    """How values are made of an image in [0, 1]: `x = (low + image * (high - low) - mean) / std`, channel by channel.

    Attributes:
        mean, std: in the units of `range`, and in the order of `channels`.
        range: (low, high), what black and white are before the mean is taken off.
        channels: the order in which the recogniser takes them.
    """

    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)
    range: tuple[float, float] = (0.0, 1.0)
    channels: Channels = "rgb"

    def undo(self, values: Tensor) -> Tensor:
        """(..., 3, H, W) values, float32 -> RGB, in [0, 1] if the normalisation is the right one."""
        low, high = self.range
        width = high - low
        scale, shift = [s / width for s in self.std], [(m - low) / width for m in self.mean]
        return self._in_order(_affine(values, scale, shift))

    def redo(self, image: Tensor) -> Tensor:
        """(..., 3, H, W) RGB in [0, 1] -> the values that the recogniser takes."""
        low, high = self.range
        scale, shift = (
            [(high - low) / s for s in self.std],
            [(low - m) / s for m, s in zip(self.mean, self.std, strict=True)],
        )
        return _affine(self._in_order(image), scale, shift)

    def _in_order(self, image: Tensor) -> Tensor:
        return image.flip(-3) if self.channels == "bgr" else image


def _affine(values: Tensor, scale: Sequence[float], shift: Sequence[float]) -> Tensor:
    """`values * scale + shift` by channel, in one pass over the pixels."""
    if all(s == 1 for s in scale) and not any(shift):
        return values
    return torch.addcmul(
        values.new_tensor(shift).view(3, 1, 1), values, values.new_tensor(scale).view(3, 1, 1)
    )


def find_normalisation(
    recogniser: Any,
    preprocessing: Any = None,
    *,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    range: float | Sequence[float] | None = None,
    channels: str | None = None,
) -> Normalisation:
    """What is declared; for the rest, what `preprocessing` or the recogniser itself carries; for the rest, RGB in [0, 1].

    Args:
        recogniser: read if it has timm's `pretrained_cfg` or a Hugging Face `image_processor`.
        preprocessing: a timm configuration, a torchvision `weights` or its `weights.transforms()`, or a `Compose`, a Hugging Face image
            processor, or a model that carries one of them.
        mean, std: one number, or one per channel in the order of `channels`.
        range: the value of white (black is 0), or those of black and white.
        channels: "rgb" or "bgr".

    Raises:
        ValueError: a declaration makes no sense, or nothing can be read from `preprocessing`.
    """
    carried = _carried(recogniser)
    found = None if carried is None else _read(carried)
    if preprocessing is not None:
        found = _read(preprocessing)
        if found is None:
            raise ValueError(
                f"no normalisation can be read from a {type(preprocessing).__name__}; declare it with mean=, std=, range=, channels="
            )
    normalisation = found or Normalisation()
    if mean is not None:
        normalisation = normalisation._replace(mean=_triple(mean, "mean"))
    if std is not None:
        normalisation = normalisation._replace(std=_triple(std, "std"))
    if range is not None:
        normalisation = normalisation._replace(range=_pair(range))
    if channels is not None:
        normalisation = normalisation._replace(channels=checked_channels(channels))
    if not normalisation.range[0] < normalisation.range[1] or min(normalisation.std) <= 0:
        raise ValueError(f"range must rise and std be positive: {normalisation}")
    return normalisation


def is_declared(recogniser: Any, *declarations: Any) -> bool:
    """Whether anything tells what a recogniser's tensors are: a declaration that is not None, or what it carries.

    The order of the channels is none: it leaves open what black and white are.
    """
    if any(declaration is not None for declaration in declarations):
        return True
    # torchvision's detectors take [0, 1] and normalise inside.
    inside = getattr(getattr(recogniser, "transform", None), "image_mean", None)
    carried = _carried(recogniser)
    return inside is not None or (carried is not None and _read(carried) is not None)


def _carried(recogniser: Any) -> Any:
    """The description of its input that a recogniser carries. A mean or std of its own it may well apply itself."""
    attributes = (
        getattr(recogniser, name, None)
        for name in ("pretrained_cfg", "default_cfg", "image_processor")
    )
    return next((a for a in attributes if a is not None), None)


def _read(source: Any) -> Normalisation | None:
    """What an object says of a normalisation, by the conventions of timm, torchvision and Hugging Face; None if nothing."""
    carried = _carried(source)
    if carried is not None:
        return _read(carried)
    if hasattr(source, "do_normalize") or hasattr(source, "do_rescale"):
        return _read_image_processor(source)
    if hasattr(source, "transforms") and hasattr(source, "meta"):  # a torchvision weights entry
        return _read(source.transforms())
    mean, std = (
        source.get(k) if isinstance(source, Mapping) else getattr(source, k, None)
        for k in ("mean", "std")
    )
    if mean is not None and std is not None:
        return Normalisation(_triple(mean, "mean"), _triple(std, "std"))
    if _scales(source):
        return Normalisation()
    steps = getattr(source, "transforms", None)
    if isinstance(
        steps, Iterable
    ):  # a Compose: the last that normalises; where none does, whether it scales to [0, 1]
        found = next((one for one in map(_read, reversed(list(steps))) if one is not None), None)
        return found or (Normalisation() if any(map(_scales, steps)) else None)
    # torchvision's detectors normalise inside; their presets only scale
    return Normalisation() if type(source).__module__ == "torchvision.transforms._presets" else None


def _scales(transform: Any) -> bool:
    """Whether it is one of torchvision's that bring integers to [0, 1]."""
    return (
        type(transform).__name__ in ("ToTensor", "ConvertImageDtype")
        or getattr(transform, "scale", None) is True
    )


def _read_image_processor(processor: Any) -> Normalisation:
    """A Hugging Face image processor: rescaled from 0..255, normalised, channels flipped, each if it says so."""
    normalises = bool(getattr(processor, "do_normalize", False))
    mean = _triple(processor.image_mean, "image_mean") if normalises else (0.0, 0.0, 0.0)
    std = _triple(processor.image_std, "image_std") if normalises else (1.0, 1.0, 1.0)
    if getattr(processor, "do_rescale", False):
        white = 255 * float(processor.rescale_factor)
        span = (-1.0, white - 1) if getattr(processor, "rescale_offset", False) else (0.0, white)
    else:  # it is given images scaled by someone else: the mean tells to what
        span = (0.0, 1.0 if not normalises or max(mean) <= 1 else 255.0)
    return Normalisation(
        mean, std, span, "bgr" if getattr(processor, "do_flip_channel_order", False) else "rgb"
    )


def _pair(value: Any) -> tuple[float, float]:
    try:
        low, high = (
            (0.0, float(value)) if isinstance(value, (int, float)) else (float(v) for v in value)
        )
    except (TypeError, ValueError):
        raise ValueError(f"range is the value of white, or (black, white), not {value!r}") from None
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"range must be finite, not {value!r}")
    return low, high


def _triple(value: Any, name: str) -> Triple:
    try:
        values = (
            torch.as_tensor(value, dtype=torch.float64).flatten().tolist()
        )  # numbers, sequences, arrays, tensors
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"{name} is one number or one for each of 3 channels, not {value!r}"
        ) from None
    values = values * 3 if len(values) == 1 else values
    if len(values) != 3:
        raise ValueError(f"{name} is one number or one for each of 3 channels, not {len(values)}")
    if not all(map(math.isfinite, values)):
        raise ValueError(f"{name} must be finite, not {value!r}")
    return values[0], values[1], values[2]
