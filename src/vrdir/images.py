"""The image contract, and the one door through which images come in and go out.

Inside the package an image is a float32 tensor (B, 3, H, W), RGB, in [0, 1]. `open_image` makes one of whatever a caller
has and remembers how to give the same thing back; nobody else converts.
"""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import logging
import os
import re
import struct
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional

from vrdir.sixteen_bits import DeepPicture, encode_deep, raw_mode, read_deep, with_alpha

logger = logging.getLogger(__name__)

# Errors that every further file would meet too, and what to do about them.
HOPELESS = {
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room within the quota",
    errno.EROFS: "choose an output on a disk that can be written to",
}

OVERSHOOT = 0.1  # resampling filters overshoot [0, 1]; this much is clipped, more is taken for a wrong scale

HEIF_SUFFIXES = {".heic", ".heif"}  # read and written with the extra `heic`
IMAGE_SUFFIXES = {".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"} | HEIF_SUFFIXES
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
METADATA = {"icc_profile", "exif", "dpi", "xmp"}  # of a PIL picture's info: what a restored picture keeps
# Of a TIFF's own tags, what other formats call EXIF: description, maker, model, software, time, artist, copyright, and the lists of
# the exposure and the place. The rest says how that file is laid out.
TIFF_EXIF = {0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298, 0x8769, 0x8825}
# Pillow's modes and the mode in which each is restored
MODES = {"1": "L", "L": "L", "LA": "LA", "La": "LA", "I;16": "I;16", "I;16L": "I;16", "I;16B": "I;16", "I": "I;16", "F": "F"}
MODES |= {"RGB": "RGB", "RGBA": "RGBA", "RGBX": "RGB", "RGBa": "RGBA"}
ORIENTATION = 0x0112
EXIF_LIMIT, XMP_LIMIT = 65533, 65504  # bytes, in a JPEG: a segment less what it begins with
DPI_LIMITS = {"JPEG": 65535.0, "PNG": 5e7, "TIFF": 5e7, "BMP": 5e7}  # in 16 bits; in 31 bits, as pixels a metre
ADVICE = {  # on modes that are none of these
    "CMYK": ", made for print; convert it to RGB first, in a program that applies its colour profile (Pillow: ImageCms.profileToProfile)"
}
Picture = Image.Image | DeepPicture


class ImageError(ValueError):
    """An image that cannot be read, written or understood. The message names it and says what to do."""


class DiskError(ImageError):
    """Nothing more can be written where the results go: the disk is full, or can only be read."""


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

    - path (str or Path): read; given back as a PIL image, or as a `DeepPicture` where Pillow has no mode for it.
    - bytes: an encoded file; given back as bytes in the same file format.
    - PIL image: grey, palette, RGB, with or without alpha, 16-bit grey. EXIF orientation is applied.
    - `vrdir.sixteen_bits.DeepPicture`: 16 bits a channel in colour, or in grey with alpha.
    - NumPy array: (H, W), (H, W, C) or (B, H, W, C) with C 1, 3 or 4; uint8, uint16, or float in [0, 1].
    - torch tensor: (H, W), (C, H, W) or (B, C, H, W) with C 1, 3 or 4; uint8, or float in [0, 1].

    A fourth channel is alpha: it is kept aside and put back. Grey is restored as grey. A colour profile (Display P3, Adobe RGB) goes
    along unchanged and the values stay in its space, though the network was trained on sRGB: a conversion to sRGB and back would
    clip every colour outside of sRGB, and what the network sees is only a little less colourful than it should be.

    Raises:
        ImageError: it is none of these, cannot be read, or holds NaN, infinity or values out of range.
    """
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
        return _open_numpy(image)
    if isinstance(image, Tensor):
        return _open_tensor(image)
    raise ImageError(f"cannot take a {type(image).__name__} for an image; give a path, bytes, PIL image, NumPy array or torch tensor")


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
        raise ImageError(f"a tensor image is (H, W), (C, H, W) or (B, C, H, W), not of shape {tuple(image.shape)}")
    whole = image if image.ndim == 4 else image[None] if image.ndim == 3 else image[None, None]
    if whole.shape[1] not in (1, 3, 4):
        hint = "; it looks like (H, W, C): permute it to (C, H, W)" if whole.shape[-1] in (1, 3, 4) else ""
        raise ImageError(f"an image has 1, 3 or 4 channels (grey, RGB, RGBA), not {whole.shape[1]}: shape {tuple(image.shape)}{hint}")
    if 0 in whole.shape:
        raise ImageError(f"the image has no pixels: shape {tuple(image.shape)}")
    levels = _levels(image.dtype)
    values = whole.float() / levels if levels != 1 else whole.float() if in_range else _checked(whole.float())
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


def _open_picture(image: Picture) -> OpenImage:
    """Any PIL mode with a clear way to RGB and back, and those that Pillow lacks."""
    if isinstance(image, DeepPicture):
        return _open_deep(image)
    if _raw_mode(image, "the picture"):
        logger.warning("a picture of 16 bits a channel, opened by Pillow, has lost the lower 8; give its path or its bytes instead")
    picture = _settled(image, "the picture")
    mode = picture.mode
    transparent = "transparency" in picture.info or mode == "PA"
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
        result.info = _carried(picture.info)
        return result

    return OpenImage(inner.tensor, close, inner.grey)


def _open_deep(picture: DeepPicture) -> OpenImage:
    channels = picture.pixels.shape[2]
    colour = channels - (channels in (2, 4))
    inner = _open_numpy(picture.pixels[..., :colour])

    def close(restored: Tensor) -> DeepPicture:
        pixels = np.concatenate([inner.close(restored), picture.pixels[..., colour:]], -1)
        return DeepPicture(pixels, _carried(picture.info), picture.format)

    return OpenImage(inner.tensor, close, inner.grey)


def _carried(info: dict[Any, Any]) -> dict[Any, Any]:
    """Of what a picture carries, what still holds once its pixels have changed."""
    carried = {k: v for k, v in info.items() if k in METADATA and v}
    if isinstance(carried.get("exif"), bytes):
        carried["exif"] = _without_preview(carried["exif"])
    return carried


def _without_preview(exif: bytes) -> bytes:
    """EXIF without its second directory, which holds a small picture of how the photo was.

    All else keeps its place, as makers' own notes need it: they point into the EXIF by numbers that nobody else knows.
    """
    start = 6 if exif.startswith(b"Exif\0\0") else 0
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[start : start + 4])
    if order is None:
        return exif
    result = bytearray(exif)
    with contextlib.suppress(struct.error):  # of EXIF that is cut short
        (first,) = struct.unpack_from(f"{order}I", exif, start + 4)
        link = start + first + 2 + 12 * struct.unpack_from(f"{order}H", exif, start + first)[0]
        (second,) = struct.unpack_from(f"{order}I", exif, link)
        if not second:
            return exif
        struct.pack_into(f"{order}I", result, link, 0)
        values = {}
        for entry in range(struct.unpack_from(f"{order}H", exif, start + second)[0]):
            tag, kind, count = struct.unpack_from(f"{order}HHI", exif, start + second + 2 + 12 * entry)
            if kind in (3, 4) and count == 1:
                (values[tag],) = struct.unpack_from(order + "HI"[kind - 3], exif, start + second + 10 + 12 * entry)
        for place, length in ((0x0201, 0x0202), (0x0111, 0x0117)):  # a JPEG; or pixels, in one strip
            begin = start + values.get(place, len(exif))
            end = min(begin + values.get(length, 0), len(exif))
            if begin < end == len(result):
                del result[begin:]
            elif begin < end:
                result[begin:end] = bytes(end - begin)
    return bytes(result)


def _settled(picture: Image.Image, name: str, quiet: bool = False) -> Image.Image:
    """Decoded whole, one frame, upright. Raises ImageError, which calls it `name`, as warnings do unless `quiet`."""
    try:
        frames = getattr(picture, "n_frames", 1)
        if frames > 1 and picture.format != "MPO":  # a camera's MPO holds one photo and previews of it
            kind = "pages" if picture.format == "TIFF" else "frames"
            raise ImageError(f"{name} holds {frames} {kind}; save each as a file of its own first (such as `magick FILE %04d.png`)")
        white = _grey_white(picture)
        picture.load()
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # decoders of damaged files raise all sorts
        raise ImageError(f"{name} is damaged or cut short ({first_line(error)}); get it again") from None
    upright = _upright(picture, name, quiet)
    transparent = upright.info.get("transparency")
    if isinstance(transparent, int) and transparent <= white < 255:  # Pillow scales the pixels to 255, and leaves this as it was
        upright.info["transparency"] = transparent * 255 // white
    upright.format = picture.format
    return upright


def _grey_white(picture: Image.Image) -> int:
    """The value of white in an opened PNG, not yet decoded, of grey with 2 or 4 bits; 255 for all others."""
    tiles = getattr(picture, "tile", None)
    if picture.format != "PNG" or not tiles:
        return 255
    args = tiles[0].args
    return {"L;2": 3, "L;4": 15}.get(args if isinstance(args, str) else args[0], 255)


def _upright(picture: Image.Image, name: str, quiet: bool) -> Image.Image:
    """A decoded picture turned as its EXIF says. What of that cannot be read is left behind: the pixels are sound all the same."""
    try:
        if picture.info.get("exif"):
            Image.Exif().load(picture.info["exif"])  # what the picture itself says of it, after an error, is that there is none
        upright = ImageOps.exif_transpose(picture)
        if picture.format == "TIFF" and (exif := _descriptive(picture.getexif())):  # which Pillow leaves among the file's tags
            upright.info["exif"] = exif.tobytes()
        return upright
    except MemoryError:
        raise
    except Exception as error:  # and so do those of odd metadata
        if not quiet:
            logger.warning("%s has EXIF that cannot be read (%s); it is left out", name, first_line(error))
    bare = picture.copy()
    for key in ("exif", "Raw profile type exif"):
        bare.info.pop(key, None)
    try:
        orientation = picture.getexif().get(ORIENTATION)  # which may be read where the rest cannot
        if orientation is not None:
            bare.getexif()[ORIENTATION] = orientation
        return ImageOps.exif_transpose(bare)
    except MemoryError:
        raise
    except Exception:
        return bare


def _descriptive(exif: Image.Exif) -> Image.Exif:
    """Of EXIF, or a TIFF's tags, those that say something of the photo."""
    kept = Image.Exif()
    for tag in TIFF_EXIF & set(exif):
        kept[tag] = exif.get_ifd(tag) if tag in (0x8769, 0x8825) else exif[tag]
    return kept


def read_file(path: Path) -> Picture:
    """Read an image file whole and upright. Raises ImageError: no such file, a folder, empty, no image, damaged, unreadable."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist") from None
    except IsADirectoryError:
        readable = os.access(path, os.R_OK | os.X_OK)
        raise ImageError(f"{path} is a folder{', not an image' if readable else ' that cannot be read; check its permissions'}") from None
    except OSError as error:
        advice = {errno.ENAMETOOLONG: "give it a shorter name", errno.ELOOP: "it is a link that leads to itself"}
        raise ImageError(f"{path} cannot be read ({error.strerror}); {advice.get(error.errno or 0, 'check its permissions')}") from None
    return decode(content, str(path))


def decode(content: bytes, name: str) -> Picture:
    """Decode an encoded image file. Raises ImageError, which calls it `name`."""
    if not content:
        raise ImageError(f"{name} is empty (0 bytes)")
    picture = _opened(content, name)
    if _raw_mode(picture, name):
        planes = itertools.count()  # of one file, so that one warning is enough
        pixels, info = read_deep(lambda: _opened(content, name), lambda plane: _settled(plane, name, quiet=next(planes) > 0))
        return DeepPicture(pixels, info, picture.format)
    bits = _bits_lost(picture, content)
    if bits:
        logger.warning("%s has %d bits a channel; only the upper 8 are read (PNG and TIFF are read whole)", name, bits)
    settled = _settled(picture, name)
    if settled.mode == "I;16" and "transparency" in settled.info:
        return DeepPicture(with_alpha(np.asarray(settled)[..., None], settled.info["transparency"]), settled.info, picture.format)
    return settled


def _raw_mode(picture: Image.Image, name: str) -> str | None:
    try:
        return raw_mode(picture)
    except ValueError as error:
        raise ImageError(f"{name} cannot be read: {error}") from None


def _opened(content: bytes, name: str) -> Image.Image:
    """The header read, the pixels not yet. Raises ImageError, which calls it `name`."""
    try:
        return open_header(io.BytesIO(content), name)
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{name} is no image, or of a file format that Pillow does not know") from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise ImageError(
            f"{name} has more than {limit:.0f} megapixels, which few honest files have; if you trust it, raise the limit "
            "(--max-megapixels, or PIL.Image.MAX_IMAGE_PIXELS)"
        ) from None
    except Exception as error:  # decoders of damaged files raise all sorts
        raise ImageError(f"{name} is damaged or cut short ({first_line(error)}); get it again") from None


def open_header(file: IO[bytes], name: str) -> Image.Image:
    """A picture of which the header is read and no pixel. Raises ImageError, which calls it `name`, or what Pillow raises."""
    start = file.read(12)
    file.seek(0)
    if start[4:8] == b"ftyp" and start[8:] in HEIF_BRANDS:
        register_heif(name)
    return Image.open(file)


def register_heif(name: str) -> None:
    """Teach Pillow HEIC. Raises ImageError, which names the file and the extra, where that is not installed."""
    try:
        import pillow_heif
    except ImportError:
        raise ImageError(f"{name} is HEIC, which needs an extra: pip install 'vrdir[heic]'") from None
    pillow_heif.register_heif_opener()


def allow_megapixels(limit: float) -> None:
    """Open pictures of up to `limit` megapixels, in this whole process. Pillow's own limit is about 179.

    Raises:
        ValueError: the limit is not positive, or infinite.
    """
    if not (limit > 0 and np.isfinite(limit)):
        raise ValueError(f"a limit of megapixels is a positive number, not {limit}")
    Image.MAX_IMAGE_PIXELS = round(limit * 1e6 / 2)  # Pillow warns from there on and refuses from twice that


def _bits_lost(picture: Image.Image, content: bytes) -> int:
    """The bits a channel of a file that Pillow reads as 8; 0 for one that loses none."""
    bits = 8
    if picture.mode in ("L", "LA", "RGB", "RGBA"):
        if picture.format == "PPM":  # P6, width, height, white: comments aside, the fourth word
            white = [word for line in content[:200].split(b"\n") for word in line.partition(b"#")[0].split()][3:4]
            bits = int(white[0]).bit_length() if white and white[0].isdigit() and content[:2] in (b"P2", b"P3", b"P5", b"P6") else 8
        elif picture.format == "JPEG2000":  # the SIZ segment, up to the first channel's depth
            start = content.find(b"\xff\x4f\xff\x51")
            bits = (content[start + 42] & 0x7F) + 1 if 0 <= start < len(content) - 42 else 8
        elif picture.format == "AVIF":  # the av1C box: high_bitdepth, twelve_bit
            start = content.find(b"av1C")
            bits = 8 + 2 * (content[start + 6] >> 6 & 1) + 2 * (content[start + 6] >> 5 & 1) if 0 <= start < len(content) - 6 else 8
        elif picture.format == "HEIF":
            bits = int(picture.info.get("bit_depth", 8))
    return bits if bits > 8 else 0


def encode(picture: Picture, file_format: str, name: str = "") -> bytes:
    """Encode as a file of a Pillow format name, with its EXIF, XMP, ICC profile and resolution; lossy formats at high quality.

    What the format cannot hold is left out: 16 bit become 8, alpha goes, and so does metadata (docs/images.md has the table).
    Raises ImageError if it cannot be written, which calls it `name`, as do warnings of metadata that other pictures would keep.
    """
    file_format = "JPEG" if file_format == "MPO" else file_format
    if isinstance(picture, DeepPicture) and file_format not in ("PNG", "TIFF"):
        picture = picture.reduced()
    try:
        return _encoded(picture, file_format, _fitting(picture, file_format, name or "the picture"))
    except MemoryError:
        raise
    except Exception as error:  # encoders raise all sorts too
        raise ImageError(
            f"{name}{': ' if name else ''}a {picture.mode} picture cannot be written as {file_format} ({first_line(error)}); "
            "choose another format"
        ) from None


def _encoded(picture: Picture, file_format: str, metadata: dict[str, Any]) -> bytes:
    """A file with this metadata, and none of the picture's own."""
    options = {"icc_profile": None, **metadata}  # without which Pillow takes the picture's own
    xmp = options.get("xmp")
    if xmp and file_format == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8", "replace"))
    if file_format == "TIFF":
        options["exif"] = _tiff_tags(options)
    if file_format == "HEIF":
        options = {"exif": None, "xmp": None, **options}
    if file_format in ("JPEG", "WEBP", "AVIF", "HEIF"):
        options["quality"] = 95
    if file_format == "JPEG":
        options["subsampling"] = 0
    if isinstance(picture, DeepPicture):
        return encode_deep(picture._replace(info={}), file_format, **options)
    if file_format == "PNG":
        options["compress_level"] = 4  # of 9: half the time of Pillow's 6, and files as small
    return _encode_pil(picture, file_format, options)


def _fitting(picture: Picture, file_format: str, name: str) -> dict[str, Any]:
    """What a picture carries that a file of this format can hold. A warning tells what else it left out of the file, called `name`."""
    fitting: dict[str, Any] = {}
    checks: dict[str, tuple[str, Callable[[Any, Picture, str], Any]]] = {}
    if file_format in DPI_LIMITS:
        checks["dpi"] = ("the resolution", _fitting_dpi)
    if file_format in ("PNG", "TIFF", "JPEG", "WEBP", "AVIF", "HEIF"):  # the others have no place for any of these
        checks |= {"exif": ("EXIF", _fitting_exif), "xmp": ("XMP", _fitting_xmp), "icc_profile": ("the colour profile", _fitting_profile)}
    carried = _carried(picture.info)
    for key, (what, check) in checks.items():
        if key in carried:
            try:
                value = check(carried[key], picture, file_format)
            except MemoryError:
                raise
            except Exception as error:  # readers of odd metadata raise all sorts
                logger.warning("%s: %s is left out (%s)", name, what, first_line(error))
            else:
                fitting |= {key: value} if value else {}
    return fitting


def _fitting_dpi(dpi: Any, picture: Picture, file_format: str) -> tuple[float, float]:
    """Raises ValueError for what no file can say."""
    across, down = (float(value) for value in dpi)
    if not all(0 < value <= DPI_LIMITS[file_format] for value in (across, down)):  # NaN is not either
        raise ValueError(f"{across:g} x {down:g} dots per inch are none that {file_format} can hold")
    return across, down


def _fitting_exif(exif: bytes, picture: Picture, file_format: str) -> bytes:
    """With the beginning that a JPEG needs, which a WebP's lacks. Raises whatever Pillow does for what is none."""
    content = re.sub(rb"^(Exif\0\0)+", b"", exif)
    if not content:
        return b""
    exif = b"Exif\0\0" + content
    Image.Exif().load(exif)
    if file_format == "TIFF":
        _tiff_tags({"exif": exif})
    if file_format == "JPEG" and len(exif) > EXIF_LIMIT:
        raise ValueError(f"it has {len(exif)} bytes, a JPEG holds {EXIF_LIMIT}")
    return exif


def _fitting_xmp(xmp: str | bytes, picture: Picture, file_format: str) -> bytes:
    """Raises ValueError for more of it than fits in."""
    xmp = xmp.encode("utf-8", "replace") if isinstance(xmp, str) else bytes(xmp)
    if file_format == "JPEG" and len(xmp) > XMP_LIMIT:
        raise ValueError(f"it has {len(xmp)} bytes, a JPEG holds {XMP_LIMIT}")
    return xmp


def _fitting_profile(profile: bytes, picture: Picture, file_format: str) -> bytes:
    """Raises ValueError for one of other channels than the file will have, by which others would show wrong colours, or none."""
    mode = picture.mode
    if mode not in ("RGB", "RGBA"):  # such as grey, which WebP writes as RGB
        blank = np.zeros((16, 16, picture.pixels.shape[2]), np.uint16) if isinstance(picture, DeepPicture) else None
        small = Image.new(mode, (16, 16)) if blank is None else DeepPicture(blank, {})
        mode = Image.open(io.BytesIO(_encoded(small, file_format, {}))).mode
    space = b"GRAY" if mode.startswith(("L", "I", "F", "1")) else b"RGB "
    told = profile[16:20]
    if told and told != space:
        raise ValueError(f"it is for {told.decode('ascii', 'replace').strip()}, {file_format} has this picture as {space.decode().strip()}")
    return profile


def _encode_pil(picture: Image.Image, file_format: str, options: dict[str, Any]) -> bytes:
    if picture.mode in ("LA", "RGBA") and file_format in ("JPEG", "BMP", "PPM"):
        picture = picture.convert(picture.mode.removesuffix("A"))
    if picture.mode == "F" and file_format != "TIFF":
        picture = Image.fromarray(np.round(np.asarray(picture).clip(0, 1) * 65535).astype(np.uint16))
    if picture.mode == "I;16" and file_format not in ("PNG", "TIFF", "JPEG2000", "PPM"):
        picture = Image.fromarray(np.round(np.asarray(picture) / 257).astype(np.uint8))
    buffer = io.BytesIO()
    picture.save(buffer, format=file_format, **options)
    return buffer.getvalue()


def _tiff_tags(options: dict[str, Any]) -> bytes:
    """EXIF, and XMP, as tags of a TIFF."""
    exif = Image.Exif()
    exif.load(options.get("exif", b""))
    tags = _descriptive(exif)
    if options.get("xmp"):
        tags[0x02BC] = options["xmp"]
    return tags.tobytes()


def format_of(path: Path) -> str:
    """Pillow's name for the file format that a suffix stands for. Raises ImageError if it cannot be written."""
    suffix = path.suffix.lower()
    if suffix in HEIF_SUFFIXES:
        register_heif(str(path))
    file_format = Image.registered_extensions().get(suffix)
    if suffix not in IMAGE_SUFFIXES or file_format not in Image.SAVE:
        raise ImageError(
            f"cannot write {path}: no image format for the suffix {path.suffix or '(none)'!r}; use {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return file_format


def write_file(content: bytes, path: Path) -> None:
    """Write an encoded image, whole or not at all. Raises DiskError or ImageError as `result_file`."""
    with result_file(path) as partial:
        partial.write_bytes(content)


@contextlib.contextmanager
def result_file(path: Path, partial_name: str | None = None, before: Callable[[os.stat_result], None] | None = None) -> Iterator[Path]:
    """`whole_file` in a folder that is made if need be.

    Raises:
        DiskError: the disk is full or can only be read, so that no other file could be written either.
        ImageError: it cannot be written for another reason.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path, partial_name, before) as partial:
            yield partial
    except OSError as error:
        advice = HOPELESS.get(error.errno or 0)
        if advice:
            raise DiskError(f"{path} cannot be written ({error.strerror}); {advice}") from None
        raise ImageError(f"{path} cannot be written ({error.strerror}); check the folder and its permissions") from None


def write_whole(content: bytes, path: Path) -> None:
    """Write under a temporary name and rename, so that a reader meets the whole file or none."""
    with whole_file(path) as partial:
        partial.write_bytes(content)


@contextlib.contextmanager
def whole_file(path: Path, partial_name: str | None = None, before: Callable[[os.stat_result], None] | None = None) -> Iterator[Path]:
    """A temporary name beside `path` to write to; at the end of the block it takes its place, after an error it is removed.

    Args:
        partial_name: the temporary name; None for one that nobody else has.
        before: called just before the renaming, with what the file's size and time will be.
    """
    partial = path.with_name(partial_name or f".{uuid.uuid4().hex[:12]}.partial")
    try:
        yield partial
        if before is not None:
            before(partial.stat())
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
