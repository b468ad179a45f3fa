"""The image contract, and the one door through which images come in and go out.

Inside the package an image is a float32 tensor (B, 3, H, W), RGB, in [0, 1]. `open_image` makes one of whatever a caller
has and remembers how to give the same thing back; nobody else converts.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional

logger = logging.getLogger(__name__)

OVERSHOOT = 0.1  # resampling filters overshoot [0, 1]; this much is clipped, more is taken for a wrong scale

IMAGE_SUFFIXES = {".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
METADATA = {"icc_profile", "exif", "dpi", "xmp"}  # of a PIL picture's info: what a restored picture keeps
# Pillow's modes and the mode in which each is restored
MODES = {"1": "L", "L": "L", "LA": "LA", "La": "LA", "I;16": "I;16", "I;16L": "I;16", "I;16B": "I;16", "I": "I;16", "F": "F"}
MODES |= {"RGB": "RGB", "RGBA": "RGBA", "RGBX": "RGB", "RGBa": "RGBA"}


class ImageError(ValueError):
    """An image that cannot be read, written or understood. The message names it and says what to do."""


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


def open_image(image: Any) -> OpenImage:
    """Take in an image of any of these kinds.

    - path (str or Path): read; given back as a PIL image.
    - bytes: an encoded file; given back as bytes in the same file format.
    - PIL image: grey, palette, RGB, with or without alpha, 16-bit grey. EXIF orientation is applied.
    - NumPy array: (H, W), (H, W, C) or (B, H, W, C) with C 1, 3 or 4; uint8, uint16, or float in [0, 1].
    - torch tensor: (H, W), (C, H, W) or (B, C, H, W) with C 1, 3 or 4; uint8, or float in [0, 1].

    A fourth channel is alpha: it is kept aside and put back. Grey is restored as grey.

    Raises:
        ImageError: it is none of these, cannot be read, or holds NaN, infinity or values out of range.
    """
    if isinstance(image, (str, Path)):
        return _open_pil(read_file(Path(image)))
    if isinstance(image, (bytes, bytearray, memoryview)):
        picture = decode(bytes(image), "the bytes given")
        file_format = picture.format or "PNG"
        opened = _open_pil(picture)
        return opened._replace(close=lambda restored: encode(opened.close(restored), file_format))
    if isinstance(image, Image.Image):
        return _open_pil(image)
    if isinstance(image, np.ndarray):
        return _open_numpy(image)
    if isinstance(image, Tensor):
        return _open_tensor(image)
    raise ImageError(f"cannot take a {type(image).__name__} for an image; give a path, bytes, PIL image, NumPy array or torch tensor")


def _open_tensor(image: Tensor) -> OpenImage:
    """(H, W), (C, H, W) or (B, C, H, W). Gradients pass through floating-point tensors both ways."""
    if image.ndim not in (2, 3, 4):
        raise ImageError(f"a tensor image is (H, W), (C, H, W) or (B, C, H, W), not of shape {tuple(image.shape)}")
    whole = image if image.ndim == 4 else image[None] if image.ndim == 3 else image[None, None]
    if whole.shape[1] not in (1, 3, 4):
        hint = "; it looks like (H, W, C): permute it to (C, H, W)" if whole.shape[-1] in (1, 3, 4) else ""
        raise ImageError(f"an image has 1, 3 or 4 channels (grey, RGB, RGBA), not {whole.shape[1]}: shape {tuple(image.shape)}{hint}")
    if 0 in whole.shape:
        raise ImageError(f"the image has no pixels: shape {tuple(image.shape)}")
    levels = _levels(image.dtype)
    values = whole.float() / levels if levels != 1 else _checked(whole.float())
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
    raise ImageError(f"a tensor image is uint8 (0 to 255) or floating point (0 to 1), not {str(dtype).removeprefix('torch.')}")


def _checked(values: Tensor) -> Tensor:
    """Floating-point values, finite and in range."""
    low, high = (float(v) for v in values.detach().aminmax())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError("the image holds NaN or infinite values; replace them before restoring")
    if low < -OVERSHOOT or high > 1 + OVERSHOOT:
        raise ImageError(
            f"floating-point images are in [0, 1]; this one goes from {low:.3g} to {high:.3g} (divide by 255, or undo a normalisation)"
        )
    return values.clamp(0, 1)


def _open_numpy(image: np.ndarray[Any, Any]) -> OpenImage:
    """(H, W), (H, W, C) or (B, H, W, C)."""
    if image.ndim not in (2, 3, 4):
        raise ImageError(f"an array image is (H, W), (H, W, C) or (B, H, W, C), not of shape {image.shape}")
    if image.ndim > 2 and image.shape[-1] not in (1, 3, 4):
        hint = "; it looks like (C, H, W): transpose it to (H, W, C)" if image.shape[-3] in (1, 3, 4) else ""
        raise ImageError(f"an array image has 1, 3 or 4 channels last (grey, RGB, RGBA), not shape {image.shape}{hint}")
    white = {"uint8": 255, "uint16": 65535}.get(image.dtype.name, 1)
    if white == 1 and not np.issubdtype(image.dtype, np.floating):
        raise ImageError(f"an array image is uint8, uint16 or floating point (0 to 1), not {image.dtype.name}")
    # Alpha stays behind in the caller's array, exactly.
    colour = image[..., :3] if image.ndim > 2 else image[..., None]
    values = torch.from_numpy(np.ascontiguousarray(colour, np.float32) / np.float32(white))
    inner = _open_tensor(values.movedim(-1, -3))

    def close(restored: Tensor) -> np.ndarray[Any, Any]:
        pixels = inner.close(restored).detach().movedim(-3, -1).cpu().numpy()
        result = image.copy().reshape(*colour.shape[:-1], -1)
        result[..., : colour.shape[-1]] = np.round(pixels * white) if white != 1 else pixels
        return result.reshape(image.shape)

    return OpenImage(inner.tensor, close, inner.grey)


def _open_pil(image: Image.Image) -> OpenImage:
    """Any PIL mode with a clear way to RGB and back."""
    picture = _settled(image, "the picture")
    mode = picture.mode
    transparent = "transparency" in picture.info or mode == "PA"
    if mode in ("P", "PA"):
        mode = "RGB"
    elif mode in MODES:
        mode = MODES[mode]
    else:
        raise ImageError(f"it is a {mode} picture; convert it to RGB first")
    if mode == "I;16" or mode == "F":
        array = np.asarray(picture)
        if mode == "I;16":
            if array.min() < 0 or array.max() > 65535:
                raise ImageError(f"grey pictures of integers go from 0 to 65535; this one from {array.min()} to {array.max()}")
            array = array.astype(np.uint16)
        alpha = None
    else:
        if transparent and mode in ("L", "RGB"):
            mode += "A"
        picture_in_mode = picture.convert(mode)
        alpha = picture_in_mode.getchannel("A") if mode.endswith("A") else None
        array = np.asarray(picture_in_mode.convert(mode.removesuffix("A")))
    inner = _open_numpy(array)

    def close(restored: Tensor) -> Image.Image:
        result = Image.fromarray(inner.close(restored))
        if alpha is not None:
            result.putalpha(alpha)
        result.info = {k: v for k, v in picture.info.items() if k in METADATA}
        return result

    return OpenImage(inner.tensor, close, inner.grey)


def _settled(picture: Image.Image, name: str) -> Image.Image:
    """Decoded whole, one frame, upright. Raises ImageError, which calls it `name`."""
    try:
        frames = getattr(picture, "n_frames", 1)
        if frames > 1 and picture.format != "MPO":  # a camera's MPO holds one photo and previews of it
            raise ImageError(f"{name} holds {frames} frames or pages; save each as a file of its own first")
        picture.load()
        upright = ImageOps.exif_transpose(picture)
    except ImageError:
        raise
    except Exception as error:  # decoders of damaged files raise all sorts
        raise ImageError(f"{name} is damaged or cut short ({first_line(error)}); get it again") from None
    upright.format = picture.format
    return upright


def read_file(path: Path) -> Image.Image:
    """Read an image file whole and upright. Raises ImageError: no such file, a folder, empty, no image, damaged, unreadable."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist") from None
    except IsADirectoryError:
        readable = os.access(path, os.R_OK | os.X_OK)
        raise ImageError(f"{path} is a folder{', not an image' if readable else ' that cannot be read; check its permissions'}") from None
    except OSError as error:
        raise ImageError(f"{path} cannot be read ({error.strerror}); check its permissions") from None
    return decode(content, str(path))


def decode(content: bytes, name: str) -> Image.Image:
    """Decode an encoded image file. Raises ImageError, which calls it `name`."""
    if not content:
        raise ImageError(f"{name} is empty (0 bytes)")
    try:
        picture = Image.open(io.BytesIO(content))
    except UnidentifiedImageError:
        raise ImageError(f"{name} is no image, or of a file format that Pillow does not know") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{name} has too many pixels to be opened safely; reduce it first") from None
    except Exception as error:  # decoders of damaged files raise all sorts
        raise ImageError(f"{name} is damaged or cut short ({first_line(error)}); get it again") from None
    if picture.format == "PNG" and content[24:26] in (b"\x10\x02", b"\x10\x04", b"\x10\x06"):
        logger.warning("%s has 16 bits a channel; of colour and of grey with alpha only the upper 8 are read", name)
    return _settled(picture, name)


def encode(picture: Image.Image, file_format: str) -> bytes:
    """Encode as a file of a Pillow format name, with its EXIF, ICC profile and resolution; lossy formats at high quality.

    What the format cannot hold is reduced: 16 bit to 8 bit, and alpha is left out. Raises ImageError if it cannot be written.
    """
    options: dict[str, Any] = {k: v for k, v in picture.info.items() if k in METADATA}
    file_format = "JPEG" if file_format == "MPO" else file_format
    if file_format in ("JPEG", "WEBP", "AVIF"):
        options["quality"] = 95
    if file_format == "JPEG":
        options["subsampling"] = 0
    if picture.mode in ("LA", "RGBA") and file_format in ("JPEG", "BMP", "PPM"):
        picture = picture.convert(picture.mode.removesuffix("A"))
    if picture.mode == "F" and file_format != "TIFF":
        picture = Image.fromarray(np.round(np.asarray(picture).clip(0, 1) * 65535).astype(np.uint16))
    if picture.mode == "I;16" and file_format not in ("PNG", "TIFF"):
        picture = Image.fromarray(np.round(np.asarray(picture) / 257).astype(np.uint8))
    buffer = io.BytesIO()
    try:
        picture.save(buffer, format=file_format, **options)
    except Exception as error:  # encoders raise all sorts too
        raise ImageError(
            f"a {picture.mode} picture cannot be written as {file_format} ({first_line(error)}); choose another format"
        ) from None
    return buffer.getvalue()


def format_of(path: Path) -> str:
    """Pillow's name for the file format that a suffix stands for. Raises ImageError if it cannot be written."""
    file_format = Image.registered_extensions().get(path.suffix.lower())
    if path.suffix.lower() not in IMAGE_SUFFIXES or file_format not in Image.SAVE:
        raise ImageError(
            f"cannot write {path}: no image format for the suffix {path.suffix or '(none)'!r}; use {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return file_format


def write_file(content: bytes, path: Path) -> None:
    """Write an encoded image, whole or not at all. Raises ImageError if it cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(content, path)
    except OSError as error:
        raise ImageError(f"{path} cannot be written ({error.strerror}); check the folder, its permissions and the free space") from None


def write_whole(content: bytes, path: Path) -> None:
    """Write under a temporary name and rename, so that a reader meets the whole file or none."""
    with whole_file(path) as partial:
        partial.write_bytes(content)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; at the end of the block it takes its place, after an error it is removed."""
    partial = path.with_name(f".{uuid.uuid4().hex[:12]}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        with contextlib.suppress(OSError):  # where the folder itself cannot be written to, nothing was left
            partial.unlink(missing_ok=True)


def first_line(error: BaseException) -> str:
    """What an exception says, in one line; its type if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Extend a (B, C, H, W) tensor at the bottom and the right until H and W are multiples of `multiple`.

    By reflection where the image is large enough for it, else by repeating its edge; `crop_to` undoes it.
    """
    height, width = image.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if bottom or right:
        reflects = bottom < height and right < width
        image = functional.pad(image, (0, right, 0, bottom), mode="reflect" if reflects else "replicate")
    return image


def crop_to(image: Tensor, size: Sequence[int]) -> Tensor:
    """The top left `size` = (H, W) of a (B, C, H', W') tensor."""
    return image[..., : size[0], : size[1]]
