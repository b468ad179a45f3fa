"""Conversion of images of every kind to the package's internal form, and back.

Inside the package an image is a float32 tensor (B, 3, H, W), RGB, in [0, 1]. `open_image` converts
an image to it, and remembers how to convert a result back to the same kind. No other module
converts images.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vrdir.errors import ImageError, InputError
from vrdir.forks import survive_forks
from vrdir.images.metadata import kept_metadata
from vrdir.images.reading import Picture, decode, decoding, load_upright, raw_mode_of, read_file
from vrdir.images.sixteen_bits import DeepPicture
from vrdir.images.writing import encode

Channels = Literal["rgb", "bgr"]  # of arrays and tensors; pictures and files know their own order

logger = logging.getLogger(__name__)
# Resampling filters overshoot [0, 1]. By up to OVERSHOOT it is clipped; by up to MOST too, if at
# most the share RARE of the values does (a bicubic filter can overshoot by 0.45, at single points).
# Anything further is refused as a wrong scale.
OVERSHOOT, MOST, RARE = 0.1, 0.5, 0.01
BAND_ROWS = 256  # converted at once, so that a large image needs little memory
# Pillow's modes, and the mode in which each is restored.
MODES = {
    "1": "L",
    "L": "L",
    "LA": "LA",
    "La": "LA",
    "I;16": "I;16",
    "I;16L": "I;16",
    "I;16B": "I;16",
    "I": "I;16",
    "F": "F",
    "RGB": "RGB",
    "RGBA": "RGBA",
    "RGBX": "RGB",
    "RGBa": "RGBA",
}
# How to convert pictures of other modes.
ADVICE = {
    "CMYK": (
        ", made for print; convert it to RGB first, in a program that applies its colour profile "
        "(Pillow: ImageCms.profileToProfile)"
    )
}


class OpenImage(NamedTuple):
    """An image in the package's internal form.

    Attributes:
        tensor: (B, 3, H, W), float32 in [0, 1].
        close: converts a tensor of that shape back to the kind of the input: the same type, size,
            depth, alpha and metadata.
        grey: the input has no colour; the three channels are equal.
    """

    tensor: Tensor
    close: Callable[[Tensor], Any]
    grey: bool


def open_image(image: Any, channels: Channels = "rgb") -> OpenImage:
    """Convert an image to the package's internal form.

    It may be:

    - a path (str or Path); the result is a PIL image, or a `DeepPicture` where Pillow has no mode
      for it;
    - bytes: an encoded file; the result is bytes in the same file format;
    - a PIL image: grey, palette or RGB, with or without alpha, 16-bit grey; EXIF orientation is
      applied;
    - a `vrdir.images.DeepPicture`: 16 bits per channel in colour, or in grey with alpha;
    - a NumPy array: (H, W), (H, W, C) or (B, H, W, C) with C 1, 3 or 4; uint8, uint16, or float in
      [0, 1];
    - a torch tensor: (H, W), (C, H, W) or (B, C, H, W) with C 1, 3 or 4; uint8, or float in [0, 1].

    A fourth channel is alpha: it is not restored, and put back. Grey is restored as grey.

    A colour profile (Display P3, Adobe RGB) is kept, and the values stay in its space, although
    the network was trained on sRGB. A conversion to sRGB and back would clip every colour outside
    of sRGB; without it, the network sees colours that are only a little weaker.

    Args:
        image: the image.
        channels: the order of colours in arrays and tensors, also in the result: "rgb", or "bgr" as
            in OpenCV.

    Raises:
        ImageError: it is none of these, cannot be read, or contains NaN, infinity or values out of
            range.
    """
    survive_forks()
    if isinstance(image, (str, Path)):
        picture = read_file(Path(image))
        with _naming(str(Path(image))):
            return _open_picture(picture, own=True)
    if isinstance(image, (bytes, bytearray, memoryview)):
        picture = decode(bytes(image), "the bytes given")
        file_format = picture.format or "PNG"
        with _naming("the bytes given"):
            opened = _open_picture(picture, own=True)

        def close(restored: Tensor) -> Any:
            with _enough_memory("the image to write"):
                return encode(opened.close(restored), file_format)

        return opened._replace(close=close)
    if isinstance(image, (Image.Image, DeepPicture)):
        with _enough_memory("the image"):
            return _open_picture(image)
    if isinstance(image, np.ndarray):
        return _to_rgb(_open_numpy(image), channels)
    if isinstance(image, Tensor):
        return _to_rgb(_open_tensor(image), channels)
    raise ImageError(
        f"cannot read an image from a {type(image).__name__}; use a path, bytes, PIL image, NumPy "
        "array or torch tensor"
    )


def checked_channels(channels: str) -> Channels:
    """Return an order of channels. Raises InputError for one that is not known."""
    for known in get_args(Channels):
        if channels == known:
            return known
    raise InputError(f'channels must be "rgb" or "bgr", not {channels!r}')


def _to_rgb(opened: OpenImage, channels: Channels) -> OpenImage:
    """Return an image with colours in the given order as one in RGB."""
    if channels == "rgb" or opened.grey:
        return opened
    return opened._replace(
        tensor=opened.tensor.flip(1), close=lambda restored: opened.close(restored.flip(1))
    )


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Put the name of a file before the message of an ImageError."""
    try:
        with _enough_memory("it"):
            yield
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None


@contextlib.contextmanager
def _enough_memory(name: str) -> Iterator[None]:
    """Raise ImageError where memory ends."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch raises a RuntimeError
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        raise ImageError(
            f"{name} needs more memory than is available; use a smaller copy (--max-side)"
        ) from None


def _open_tensor(image: Tensor, in_range: bool = False) -> OpenImage:
    """Open (H, W), (C, H, W) or (B, C, H, W).

    Gradients pass through floating-point tensors both ways.

    Args:
        image: the tensor.
        in_range: its values are known to be in [0, 1].
    """
    whole = _with_batch(image)
    levels = _levels(image.dtype)
    values = whole.float()
    if levels != 1:
        values = values / levels
    elif not in_range:
        values = _checked(values)
    alpha = whole[:, 3:] if whole.shape[1] == 4 else None
    grey = whole.shape[1] == 1
    rgb = values[:, :3].expand(-1, 3, -1, -1)

    def close(restored: Tensor) -> Tensor:
        result = restored.mean(1, keepdim=True) if grey else restored
        result = (result * levels).round() if levels != 1 else result
        result = result.to(device=image.device, dtype=image.dtype)
        if alpha is not None:
            result = torch.cat([result, alpha], 1)
        return result.reshape(image.shape)

    return OpenImage(rgb, close, grey)


def _with_batch(image: Tensor) -> Tensor:
    """Return a tensor image as (B, C, H, W). Raises ImageError for other shapes."""
    shape = tuple(image.shape)
    if image.ndim not in (2, 3, 4):
        raise ImageError(
            f"a tensor image must have the shape (H, W), (C, H, W) or (B, C, H, W), not {shape}"
        )
    whole = image if image.ndim == 4 else image[None] if image.ndim == 3 else image[None, None]
    if whole.shape[1] not in (1, 3, 4):
        hint = ""
        if whole.shape[-1] in (1, 3, 4):
            hint = "; it looks like (H, W, C): permute it to (C, H, W)"
        raise ImageError(
            f"an image must have 1, 3 or 4 channels (grey, RGB, RGBA), not {whole.shape[1]}: "
            f"shape {shape}{hint}"
        )
    if 0 in whole.shape:
        raise ImageError(f"the image has no pixels: shape {shape}")
    return whole


def _levels(dtype: torch.dtype) -> int:
    """Return the value of white in tensors of a type. Raises ImageError for other types."""
    if dtype == torch.uint8:
        return 255
    if dtype.is_floating_point:
        return 1
    raise ImageError(
        "a tensor image must be uint8 (0 to 255) or floating point (0 to 1), "
        f"not {str(dtype).removeprefix('torch.')}"
    )


def _checked(values: Tensor) -> Tensor:
    """Return floating-point values clipped to [0, 1].

    Raises ImageError if they are out of range.
    """
    low, high = (float(v) for v in values.detach().aminmax())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError("the image contains NaN or infinite values; replace them before restoring")
    if not overshoots_only(values, low, high):
        raise ImageError(
            f"floating-point images must be in [0, 1]; this one ranges from {low:.3g} to "
            f"{high:.3g} (divide by 255, or undo a normalisation)"
        )
    return values.clamp(0, 1)


def overshoots_only(values: Tensor, low: float, high: float) -> bool:
    """Return whether values leave [0, 1] only by what resampling adds.

    Args:
        values: the image, (..., C, H, W).
        low: the least of its values.
        high: the greatest.
    """
    if low >= -OVERSHOOT and high <= 1 + OVERSHOOT:
        return True
    if not (low >= -MOST and high <= 1 + MOST):  # or NaN
        return False
    beyond = (values.detach() - 0.5).abs() > 0.5 + OVERSHOOT
    return float(beyond.float().flatten(-3).mean(-1).max()) <= RARE  # of each image


def _open_numpy(image: np.ndarray[Any, Any]) -> OpenImage:
    """Open (H, W), (H, W, C) or (B, H, W, C)."""
    _check_array(image)
    white = {"uint8": 255, "uint16": 65535}.get(image.dtype.name, 1)
    # Alpha stays in the caller's array, unchanged.
    colour = image[..., :3] if image.ndim > 2 else image[..., None]
    floating = np.array(colour, np.float32, order="C")
    if white != 1:
        floating /= np.float32(white)
    values = torch.from_numpy(floating)
    inner = _open_tensor(values.movedim(-1, -3), in_range=white != 1)

    def close(restored: Tensor) -> np.ndarray[Any, Any]:
        pixels = inner.close(restored).detach().movedim(-3, -1).cpu().numpy()
        result = image.copy().reshape(*colour.shape[:-1], -1)
        for top in range(0, pixels.shape[-3], BAND_ROWS):
            rows = (..., slice(top, top + BAND_ROWS), slice(None), slice(None))
            band = pixels[rows]
            if white != 1:
                band = np.round(band * np.float32(white))
            result[rows][..., : colour.shape[-1]] = band
        return result.reshape(image.shape)

    return OpenImage(inner.tensor, close, inner.grey)


def _check_array(image: np.ndarray[Any, Any]) -> None:
    """Raise ImageError for arrays that are not images."""
    if image.ndim not in (2, 3, 4):
        raise ImageError(
            "an array image must have the shape (H, W), (H, W, C) or (B, H, W, C), not "
            f"{image.shape}"
        )
    if image.ndim > 2 and image.shape[-1] not in (1, 3, 4):
        hint = ""
        if image.shape[-3] in (1, 3, 4):
            hint = "; it looks like (C, H, W): transpose it to (H, W, C)"
        raise ImageError(
            "an array image must have 1, 3 or 4 channels last (grey, RGB, RGBA), "
            f"not shape {image.shape}{hint}"
        )
    known = image.dtype.name in ("uint8", "uint16") or np.issubdtype(image.dtype, np.floating)
    if not known:
        raise ImageError(
            "an array image must be uint8, uint16 or floating point (0 to 1), not "
            f"{image.dtype.name}"
        )


@decoding("the picture")
def _open_picture(image: Picture, own: bool = False) -> OpenImage:
    """Open a picture of any PIL mode that can be converted to RGB and back, or a `DeepPicture`.

    Args:
        image: the picture.
        own: no other code uses it, so that it need not be copied.
    """
    if isinstance(image, DeepPicture):
        return _open_deep(image)
    if raw_mode_of(image, "the picture"):
        logger.warning(
            "an image of 16 bits per channel loses the lower 8 bits when Pillow opens it; use its "
            "path or its bytes instead"
        )
    picture = load_upright(image, "the picture", own=own)
    mode = _mode_for(picture)
    alpha = None
    if mode in ("I;16", "F"):
        array = _grey_array(picture, mode)
        if _is_transparent(picture):
            logger.warning(
                "a grey 16-bit image loses its transparent value when Pillow opens it; use its "
                "path or its bytes instead"
            )
    else:
        converted = _converted(picture, mode)
        alpha = converted.getchannel("A") if mode.endswith("A") else None
        array = _to_array(_converted(converted, mode.removesuffix("A")))
    inner = _open_numpy(array)
    grey = inner.grey or (picture.mode in ("P", "PA") and bool((array == array[..., :1]).all()))
    info = picture.info

    def close(restored: Tensor) -> Image.Image:
        if grey and not inner.grey:  # a palette of greys is restored as grey, and becomes RGB
            restored = restored.mean(1, keepdim=True).expand_as(restored)
        result = Image.fromarray(inner.close(restored))
        if alpha is not None:
            result.putalpha(alpha)
        result.info = kept_metadata(info)
        return result

    return OpenImage(inner.tensor, close, grey)


def _is_transparent(picture: Image.Image) -> bool:
    return (
        "transparency" in picture.info
        or picture.mode == "PA"
        or (picture.mode == "P" and picture.has_transparency_data)
    )


def _mode_for(picture: Image.Image) -> str:
    """Return the PIL mode in which a picture is restored. Raises ImageError if there is none."""
    if picture.mode in ("P", "PA"):
        mode = "RGB"
    elif picture.mode in MODES:
        mode = MODES[picture.mode]
    else:
        advice = ADVICE.get(picture.mode, "; convert it to RGB first")
        raise ImageError(f"it is a {picture.mode} picture{advice}")
    return f"{mode}A" if mode in ("L", "RGB") and _is_transparent(picture) else mode


def _converted(picture: Image.Image, mode: str) -> Image.Image:
    """Return a picture in a mode, without a copy if it already has that mode."""
    return picture if picture.mode == mode else picture.convert(mode)


def _grey_array(picture: Image.Image, mode: str) -> np.ndarray[Any, Any]:
    """Return the pixels of grey with 16 bits or floating point, (H, W)."""
    array = np.asarray(picture)
    if mode == "F":
        return array
    if array.min() < 0 or array.max() > 65535:
        raise ImageError(
            f"grey integer images must be in 0 to 65535; this one ranges from {array.min()} to "
            f"{array.max()}"
        )
    return array.astype(np.uint16)


def _to_array(picture: Image.Image) -> np.ndarray[Any, Any]:
    """Return the pixels of an 8-bit picture.

    `numpy.asarray` of a whole picture would briefly need memory for both.
    """
    width, height = picture.size
    channels = len(picture.getbands())
    pixels = np.empty((height, width, channels)[: 3 if channels > 1 else 2], np.uint8)
    for top in range(0, height, BAND_ROWS):
        bottom = min(top + BAND_ROWS, height)
        pixels[top:bottom] = np.asarray(picture.crop((0, top, width, bottom)))
    return pixels


def _open_deep(picture: DeepPicture) -> OpenImage:
    channels = picture.pixels.shape[2]
    colour = channels - (channels in (2, 4))
    inner = _open_numpy(picture.pixels[..., :colour])

    def close(restored: Tensor) -> DeepPicture:
        pixels = np.concatenate([inner.close(restored), picture.pixels[..., colour:]], -1)
        return DeepPicture(pixels, kept_metadata(picture.info), picture.format)

    return OpenImage(inner.tensor, close, inner.grey)
