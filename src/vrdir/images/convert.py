"""The image contract, and the one door through which images come in and go out.

Inside the package an image is a float32 tensor (B, 3, H, W), RGB, in [0, 1]. `open_image` makes one of whatever a caller
has and remembers how to give the same thing back; nobody else converts.
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

from vrdir.errors import ImageError
from vrdir.forks import survive_forks
from vrdir.images.metadata import carried
from vrdir.images.reading import Picture, decode, decoding, raw_mode_of, read_file, settled
from vrdir.images.sixteen_bits import DeepPicture
from vrdir.images.writing import encode

Channels = Literal["rgb", "bgr"]  # of arrays and tensors; pictures and files know their own order

logger = logging.getLogger(__name__)
OVERSHOOT = 0.1  # resampling filters overshoot [0, 1]: this much is clipped; up to MOST of it, too, where it is RARE; more is taken for a
MOST, RARE = 0.5, 0.01  # wrong scale. A bicubic filter can make 0.45 of it, at lone points
# Pillow's modes and the mode in which each is restored
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
}
MODES |= {"RGB": "RGB", "RGBA": "RGBA", "RGBX": "RGB", "RGBa": "RGBA"}
ADVICE = {  # on modes that are none of these
    "CMYK": ", made for print; convert it to RGB first, in a program that applies its colour profile (Pillow: ImageCms.profileToProfile)"
}


class OpenImage(NamedTuple):
    """An image inside the door.

    Attributes:
        tensor: (B, 3, H, W), float32 in [0, 1].
        close: turns a tensor of that shape back into what came in: same type, size, depth, alpha, metadata.
        grey: it came in without colour; its three channels are the same.
    """

    tensor: Tensor
    close: Callable[[Tensor], Any]
    grey: bool


def open_image(image: Any, channels: Channels = "rgb") -> OpenImage:
    """Take in an image of any of these kinds.

    - path (str or Path): read; given back as a PIL image, or as a `DeepPicture` where Pillow has no mode for it.
    - bytes: an encoded file; given back as bytes in the same file format.
    - PIL image: grey, palette, RGB, with or without alpha, 16-bit grey. EXIF orientation is applied.
    - `vrdir.images.sixteen_bits.DeepPicture`: 16 bits a channel in colour, or in grey with alpha.
    - NumPy array: (H, W), (H, W, C) or (B, H, W, C) with C 1, 3 or 4; uint8, uint16, or float in [0, 1].
    - torch tensor: (H, W), (C, H, W) or (B, C, H, W) with C 1, 3 or 4; uint8, or float in [0, 1].

    The colours of arrays and tensors are in the order of `channels`: RGB, or BGR as OpenCV has them; they are given back in that order.
    A fourth channel is alpha: it is kept aside and put back. Grey is restored as grey. A colour profile (Display P3, Adobe RGB) goes
    along unchanged and the values stay in its space, though the network was trained on sRGB: a conversion to sRGB and back would
    clip every colour outside of sRGB, and what the network sees is only a little less colourful than it should be.

    Raises:
        ImageError: it is none of these, cannot be read, or holds NaN, infinity or values out of range.
    """
    survive_forks()
    if isinstance(image, (str, Path)):
        picture = read_file(Path(image))
        with _naming(str(Path(image))):
            return _open_picture(picture)
    if isinstance(image, (bytes, bytearray, memoryview)):
        picture = decode(bytes(image), "the bytes given")
        file_format = picture.format or "PNG"
        with _naming("the bytes given"):
            opened = _open_picture(picture)
        return opened._replace(close=lambda restored: encode(opened.close(restored), file_format))
    if isinstance(image, (Image.Image, DeepPicture)):
        return _open_picture(image)
    if isinstance(image, np.ndarray):
        return _in_rgb(_open_numpy(image), channels)
    if isinstance(image, Tensor):
        return _in_rgb(_open_tensor(image), channels)
    raise ImageError(
        f"cannot take a {type(image).__name__} for an image; give a path, bytes, PIL image, NumPy array or torch tensor"
    )


def checked_channels(channels: str) -> Channels:
    """An order of channels. Raises ValueError for one that is not known."""
    for known in get_args(Channels):
        if channels == known:
            return known
    raise ValueError(f'channels is "rgb" or "bgr", not {channels!r}')


def _in_rgb(opened: OpenImage, channels: Channels) -> OpenImage:
    """The same image, whose colours came in this order, in the order of the contract."""
    if channels == "rgb" or opened.grey:
        return opened
    return opened._replace(
        tensor=opened.tensor.flip(1), close=lambda restored: opened.close(restored.flip(1))
    )


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Put the name of a file before what is wrong with it."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None


def _open_tensor(image: Tensor, in_range: bool = False) -> OpenImage:
    """(H, W), (C, H, W) or (B, C, H, W), known to be in range or not. Gradients pass through floating-point tensors both ways."""
    if image.ndim not in (2, 3, 4):
        raise ImageError(
            f"a tensor image is (H, W), (C, H, W) or (B, C, H, W), not of shape {tuple(image.shape)}"
        )
    whole = image if image.ndim == 4 else image[None] if image.ndim == 3 else image[None, None]
    if whole.shape[1] not in (1, 3, 4):
        hint = (
            "; it looks like (H, W, C): permute it to (C, H, W)"
            if whole.shape[-1] in (1, 3, 4)
            else ""
        )
        raise ImageError(
            f"an image has 1, 3 or 4 channels (grey, RGB, RGBA), not {whole.shape[1]}: shape {tuple(image.shape)}{hint}"
        )
    if 0 in whole.shape:
        raise ImageError(f"the image has no pixels: shape {tuple(image.shape)}")
    levels = _levels(image.dtype)
    values = (
        whole.float() / levels
        if levels != 1
        else whole.float()
        if in_range
        else _checked(whole.float())
    )
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


def _levels(dtype: torch.dtype) -> int:
    """The value of white."""
    if dtype == torch.uint8:
        return 255
    if dtype.is_floating_point:
        return 1
    raise ImageError(
        f"a tensor image is uint8 (0 to 255) or floating point (0 to 1), not {str(dtype).removeprefix('torch.')}"
    )


def _checked(values: Tensor) -> Tensor:
    """Floating-point values, finite and in range."""
    low, high = (float(v) for v in values.detach().aminmax())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError("the image holds NaN or infinite values; replace them before restoring")
    if not overshoots_only(values, low, high):
        raise ImageError(
            f"floating-point images are in [0, 1]; this one goes from {low:.3g} to {high:.3g} (divide by 255, or undo a normalisation)"
        )
    return values.clamp(0, 1)


def overshoots_only(values: Tensor, low: float, high: float) -> bool:
    """Whether values, whose extremes are given, are those of an image in [0, 1], but for what resampling adds."""
    if low >= -OVERSHOOT and high <= 1 + OVERSHOOT:
        return True
    if not (low >= -MOST and high <= 1 + MOST):  # or NaN
        return False
    beyond = (values.detach() - 0.5).abs() > 0.5 + OVERSHOOT
    return float(beyond.float().flatten(-3).mean(-1).max()) <= RARE  # of each image


def _open_numpy(image: np.ndarray[Any, Any]) -> OpenImage:
    """(H, W), (H, W, C) or (B, H, W, C)."""
    if image.ndim not in (2, 3, 4):
        raise ImageError(
            f"an array image is (H, W), (H, W, C) or (B, H, W, C), not of shape {image.shape}"
        )
    if image.ndim > 2 and image.shape[-1] not in (1, 3, 4):
        hint = (
            "; it looks like (C, H, W): transpose it to (H, W, C)"
            if image.shape[-3] in (1, 3, 4)
            else ""
        )
        raise ImageError(
            f"an array image has 1, 3 or 4 channels last (grey, RGB, RGBA), not shape {image.shape}{hint}"
        )
    white = {"uint8": 255, "uint16": 65535}.get(image.dtype.name, 1)
    if white == 1 and not np.issubdtype(image.dtype, np.floating):
        raise ImageError(
            f"an array image is uint8, uint16 or floating point (0 to 1), not {image.dtype.name}"
        )
    # Alpha stays behind in the caller's array, exactly.
    colour = image[..., :3] if image.ndim > 2 else image[..., None]
    floating = np.array(colour, np.float32, order="C")
    if white != 1:
        floating /= np.float32(white)
    values = torch.from_numpy(floating)
    inner = _open_tensor(values.movedim(-1, -3), in_range=white != 1)

    def close(restored: Tensor) -> np.ndarray[Any, Any]:
        pixels = inner.close(restored).detach().movedim(-3, -1).cpu().numpy()
        result = image.copy().reshape(*colour.shape[:-1], -1)
        if white != 1:
            pixels = pixels * np.float32(white)
            np.round(pixels, out=pixels)
        result[..., : colour.shape[-1]] = pixels
        return result.reshape(image.shape)

    return OpenImage(inner.tensor, close, inner.grey)


@decoding("the picture")
def _open_picture(image: Picture) -> OpenImage:
    """Any PIL mode with a clear way to RGB and back, and those that Pillow lacks."""
    if isinstance(image, DeepPicture):
        return _open_deep(image)
    if raw_mode_of(image, "the picture"):
        logger.warning(
            "a picture of 16 bits a channel, opened by Pillow, has lost the lower 8; give its path or its bytes instead"
        )
    picture = settled(image, "the picture")
    mode = picture.mode
    transparent = (
        "transparency" in picture.info
        or mode == "PA"
        or (mode == "P" and picture.has_transparency_data)
    )
    if mode in ("P", "PA"):
        mode = "RGB"
    elif mode in MODES:
        mode = MODES[mode]
    else:
        raise ImageError(f"it is a {mode} picture{ADVICE.get(mode, '; convert it to RGB first')}")
    if mode == "I;16" or mode == "F":
        array = np.asarray(picture)
        if mode == "I;16":
            if array.min() < 0 or array.max() > 65535:
                raise ImageError(
                    f"grey pictures of integers go from 0 to 65535; this one from {array.min()} to {array.max()}"
                )
            array = array.astype(np.uint16)
        alpha = None
        if transparent:
            logger.warning(
                "a grey picture of 16 bits with a transparent value, opened by Pillow, loses that; give its path or bytes instead"
            )
    else:
        if transparent and mode in ("L", "RGB"):
            mode += "A"
        picture_in_mode = picture.convert(mode)
        alpha = picture_in_mode.getchannel("A") if mode.endswith("A") else None
        array = np.asarray(picture_in_mode.convert(mode.removesuffix("A")))
    inner = _open_numpy(array)
    grey = inner.grey or (picture.mode in ("P", "PA") and bool((array == array[..., :1]).all()))

    def close(restored: Tensor) -> Image.Image:
        if grey and not inner.grey:  # a palette of greys has none of its own mode: it stays RGB
            restored = restored.mean(1, keepdim=True).expand_as(restored)
        result = Image.fromarray(inner.close(restored))
        if alpha is not None:
            result.putalpha(alpha)
        result.info = carried(picture.info)
        return result

    return OpenImage(inner.tensor, close, grey)


def _open_deep(picture: DeepPicture) -> OpenImage:
    channels = picture.pixels.shape[2]
    colour = channels - (channels in (2, 4))
    inner = _open_numpy(picture.pixels[..., :colour])

    def close(restored: Tensor) -> DeepPicture:
        pixels = np.concatenate([inner.close(restored), picture.pixels[..., colour:]], -1)
        return DeepPicture(pixels, carried(picture.info), picture.format)

    return OpenImage(inner.tensor, close, inner.grey)
