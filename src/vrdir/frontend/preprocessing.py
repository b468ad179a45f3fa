"""Find how a recogniser's input is normalised: declared by the user, or read from an object.

Read are timm's `pretrained_cfg`, torchvision's weights and transforms, and Hugging Face's image
processors, by the attributes that they have; none of these packages is imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vrdir.errors import InputError
from vrdir.frontend.normalisation import Normalisation, as_range, as_triple
from vrdir.images.convert import checked_channels

# Attributes by which models and pipelines describe their own input.
DESCRIPTIONS = ("pretrained_cfg", "default_cfg", "image_processor")


def find_normalisation(
    recogniser: Any,
    preprocessing: Any = None,
    *,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    range: float | Sequence[float] | None = None,
    channels: str | None = None,
) -> Normalisation:
    """Return the normalisation of a recogniser's input.

    Each field is taken from the first that gives it: the declaration, `preprocessing`, the
    recogniser's own description; else RGB in [0, 1] is assumed.

    Args:
        recogniser: read if it has timm's `pretrained_cfg` or a Hugging Face `image_processor`.
        preprocessing: a timm configuration, a torchvision `weights`, its `transforms()` or a
            `Compose`, a Hugging Face image processor, or a model that has one of them.
        mean: one number, or one per channel in the order of `channels`.
        std: likewise, positive.
        range: the value of white (black is 0), or those of black and white.
        channels: "rgb" or "bgr".

    Raises:
        InputError: a declaration is invalid, or nothing can be read from `preprocessing`.
    """
    description = _description_of(recogniser)
    found = None if description is None else _read(description)
    if preprocessing is not None:
        found = _read(preprocessing)
        if found is None:
            raise InputError(
                f"no normalisation can be read from a {type(preprocessing).__name__}; "
                "declare it with mean=, std=, range=, channels="
            )
    normalisation = found or Normalisation()
    if mean is not None:
        normalisation = normalisation._replace(mean=as_triple(mean, "mean"))
    if std is not None:
        normalisation = normalisation._replace(std=as_triple(std, "std"))
    if range is not None:
        normalisation = normalisation._replace(range=as_range(range))
    if channels is not None:
        normalisation = normalisation._replace(channels=checked_channels(channels))
    if not normalisation.range[0] < normalisation.range[1] or min(normalisation.std) <= 0:
        raise InputError(f"range must be increasing and std positive: {normalisation}")
    return normalisation


def is_declared(recogniser: Any, *declarations: Any) -> bool:
    """Return whether the normalisation is known: declared, or described by the recogniser.

    Args:
        recogniser: read as in `find_normalisation`.
        *declarations: mean, std, range and preprocessing, None where they are not given. The
            channel order is not among them, as it does not give the values of black and white.
    """
    if any(declaration is not None for declaration in declarations):
        return True
    # torchvision's detectors take RGB in [0, 1] and normalise it themselves.
    if getattr(getattr(recogniser, "transform", None), "image_mean", None) is not None:
        return True
    description = _description_of(recogniser)
    return description is not None and _read(description) is not None


def _description_of(recogniser: Any) -> Any:
    """Return the object that describes a recogniser's input, or None.

    The recogniser's own `mean` or `std` is not read, because it may apply them itself.
    """
    found = (getattr(recogniser, name, None) for name in DESCRIPTIONS)
    return next((description for description in found if description is not None), None)


def _read(source: Any) -> Normalisation | None:
    """Return the normalisation that an object describes, or None if it describes none."""
    description = _description_of(source)
    if description is not None:
        return _read(description)
    if hasattr(source, "do_normalize") or hasattr(source, "do_rescale"):
        return _read_image_processor(source)
    if hasattr(source, "transforms") and hasattr(source, "meta"):  # torchvision's weights
        return _read(source.transforms())
    mean, std = (
        source.get(name) if isinstance(source, Mapping) else getattr(source, name, None)
        for name in ("mean", "std")
    )
    if mean is not None and std is not None:
        return Normalisation(as_triple(mean, "mean"), as_triple(std, "std"))
    if _scales(source):
        return Normalisation()
    steps = getattr(source, "transforms", None)
    if isinstance(steps, Iterable):
        return _read_compose(list(steps))
    # torchvision's detectors normalise inside; their presets only scale.
    return Normalisation() if type(source).__module__ == "torchvision.transforms._presets" else None


def _read_compose(steps: list[Any]) -> Normalisation | None:
    """Read torchvision's `Compose`: its last step that normalises, else whether a step scales."""
    for step in reversed(steps):
        found = _read(step)
        if found is not None:
            return found
    return Normalisation() if any(map(_scales, steps)) else None


def _scales(transform: Any) -> bool:
    """Return whether this is one of torchvision's transforms from integers to [0, 1]."""
    return (
        type(transform).__name__ in ("ToTensor", "ConvertImageDtype")
        or getattr(transform, "scale", None) is True
    )


def _read_image_processor(processor: Any) -> Normalisation:
    """Read Hugging Face's image processor: rescaling, normalisation and channel order."""
    normalises = bool(getattr(processor, "do_normalize", False))
    mean = as_triple(processor.image_mean, "image_mean") if normalises else (0.0, 0.0, 0.0)
    std = as_triple(processor.image_std, "image_std") if normalises else (1.0, 1.0, 1.0)
    if getattr(processor, "do_rescale", False):
        white = 255 * float(processor.rescale_factor)
        span = (-1.0, white - 1) if getattr(processor, "rescale_offset", False) else (0.0, white)
    else:  # its images are scaled before it; the mean shows whether to 1 or to 255
        span = (0.0, 1.0 if not normalises or max(mean) <= 1 else 255.0)
    flips = getattr(processor, "do_flip_channel_order", False)
    return Normalisation(mean, std, span, "bgr" if flips else "rgb")
