"""The table of file formats in docs/images.md, and files from cameras, editors and archives."""

import io
import os
import re
import runpy
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, ImageOps
from tests.conftest import TINY

from vrdir import ImageError, Restorer
from vrdir.batch.results import FileJob
from vrdir.images.convert import open_image
from vrdir.images.formats import FORMATS, ONLY_READ
from vrdir.images.reading import Picture, allow_megapixels, decode, read_file
from vrdir.images.sixteen_bits import DeepPicture
from vrdir.images.writing import encode, format_of
from vrdir.model.vrdir import VRDIR

SUFFIXES = {each.name: each.suffixes[0] for each in FORMATS}
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf='
    b'"http://www.w3.org/1999/02/22-rdf-syntax-ns#"/></x:xmpmeta>'
)
# The table in docs/images.md: what is checked here is what it says.
TOOL = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "document_formats.py"))
COLUMNS = TOOL["keeps"](FORMATS[0])
KEEPS = {
    column: {each.name for each in FORMATS if TOOL["keeps"](each)[column]} for column in COLUMNS
}


@pytest.fixture(autouse=True)
def heif_where_it_is_needed(request: pytest.FixtureRequest) -> None:
    if "HEIF" in getattr(request.node, "callspec", request).__dict__.get("params", {}).values():
        pytest.importorskip("pillow_heif")


@pytest.fixture(scope="module")
def identity() -> Restorer:
    """Return a restorer that returns its input: its decoder was never trained."""
    torch.manual_seed(0)
    return Restorer(VRDIR(TINY), device="cpu")


@pytest.fixture(scope="session")
def display_p3() -> bytes:
    """Return an ICC profile of Display P3: that of sRGB with P3's primaries, adapted to D50."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    primaries = {
        b"rXYZ": (0.51512, 0.2412, -0.00105),
        b"gXYZ": (0.29198, 0.69225, 0.04189),
        b"bXYZ": (0.1571, 0.06657, 0.78407),
    }
    (tags,) = struct.unpack_from(">I", profile, 128)
    for i in range(tags):
        name, offset, _ = struct.unpack_from(">4sII", profile, 132 + 12 * i)
        if name in primaries:
            struct.pack_into(
                ">3i", profile, offset + 8, *(round(value * 65536) for value in primaries[name])
            )
    return bytes(profile)


def exif_of(picture: Picture) -> Image.Exif:
    exif = Image.Exif()
    exif.load(picture.info.get("exif") or b"")
    return exif


def camera_exif(orientation: int = 1) -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif[0x0112] = orientation
    exif[0x8769] = {0x8827: 400, 0x9003: "2020:01:02 03:04:05"}
    exif[0x8825] = {1: "N", 2: (52.0, 31.0, 0.0)}
    return exif


def encoded(picture: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def picture_of(pixels: np.ndarray[Any, Any]) -> Picture:
    """Return a picture of uint8 or uint16 pixels, (H, W) or (H, W, 2 to 4)."""
    return (
        DeepPicture(pixels, {})
        if pixels.dtype == np.uint16 and pixels.ndim == 3
        else Image.fromarray(pixels)
    )


def test_formats_share_no_suffix() -> None:
    suffixes = [suffix for each in FORMATS for suffix in each.suffixes]
    assert len(set(suffixes)) == len(suffixes)
    assert not ONLY_READ & set(suffixes)


@pytest.mark.parametrize("file_format", SUFFIXES)
def test_pixels_that_each_format_keeps(
    file_format: str, identity: Restorer, photo: Image.Image, tmp_path: Path
) -> None:
    """PNG files are restored into each format."""
    rgb = np.asarray(photo)
    ramp = np.asarray(Image.linear_gradient("L").resize(photo.size))
    pictures = {
        "exact": rgb,
        "alpha": np.dstack([rgb, ramp]),
        "grey16": rgb[..., 0] * np.uint16(257) ^ np.uint16(5),
        "colour16": rgb * np.uint16(257) ^ np.uint16(5),
    }
    for what, pixels in pictures.items():
        source, target = tmp_path / f"{what}.png", tmp_path / f"{what}{SUFFIXES[file_format]}"
        source.write_bytes(encode(picture_of(pixels), "PNG"))
        target = target if file_format != "PNG" else tmp_path / f"{what} again.png"
        identity.restore_file(source, target)
        read = np.asarray(read_file(target))
        if what == "alpha":
            blur = 3 if file_format in ("AVIF", "HEIF") else 0  # they compress alpha too
            kept = (
                read.ndim == 3
                and read.shape[2] == 4
                and np.abs(read[..., 3].astype(int) - ramp).max() <= blur
            )
        else:
            kept = read.shape == pixels.shape and np.array_equal(read, pixels)
        assert kept == (file_format in KEEPS[what]), what


@pytest.mark.parametrize("file_format", SUFFIXES)
def test_metadata_that_each_format_keeps(
    file_format: str, identity: Restorer, photo: Image.Image, display_p3: bytes, tmp_path: Path
) -> None:
    """A camera's JPEG is restored into each format, and the result into the same format."""
    (tmp_path / "a.jpg").write_bytes(
        encoded(photo, "JPEG", exif=camera_exif(6), xmp=XMP, icc_profile=display_p3, quality=95)
    )
    suffix = SUFFIXES[file_format]
    identity.restore_file(tmp_path / "a.jpg", tmp_path / f"b{suffix}")
    identity.restore_file(tmp_path / f"b{suffix}", tmp_path / f"c{suffix}")
    for name in ("b", "c"):
        picture = read_file(tmp_path / f"{name}{suffix}")
        assert picture.size == (photo.height, photo.width)  # upright, turned only once
        exif = exif_of(picture)
        values = (
            exif.get(0x010F),
            exif.get_ifd(0x8769).get(0x8827),
            exif.get_ifd(0x8825).get(1),
            exif.get(0x0112, 1),
        )
        assert values == (
            ("Maker", 400, "N", 1) if file_format in KEEPS["exif"] else (None, None, None, 1)
        )
        assert (picture.info.get("xmp") == XMP) == (file_format in KEEPS["xmp"])
        assert (picture.info.get("icc_profile") == display_p3) == (file_format in KEEPS["icc"])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
def test_every_orientation_in_every_format(
    file_format: str, orientation: int, photo: Image.Image
) -> None:
    lossless: dict[str, dict[str, Any]] = {
        "WEBP": {"lossless": True},
        "JPEG": {"quality": 100, "subsampling": 0},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    }
    content = encoded(
        photo, file_format, exif=camera_exif(orientation).tobytes(), **lossless.get(file_format, {})
    )
    expected = ImageOps.exif_transpose(
        Image.open(io.BytesIO(encoded(photo, "PNG", exif=camera_exif(orientation))))
    )
    picture = decode(content, "it")
    assert picture.size == expected.size
    np.testing.assert_allclose(np.asarray(picture, float), np.asarray(expected, float), atol=8)
    assert exif_of(picture).get(0x0112, 1) == 1
    assert exif_of(picture).get(0x010F) == "Maker"


@pytest.mark.parametrize("file_format", ["JPEG", "WEBP", "AVIF", "TIFF"])
def test_orientation_is_removed_from_xmp_too(file_format: str, photo: Image.Image) -> None:
    """Otherwise the next program to open the file would turn it again."""
    xmp, exif = XMP.replace(b"<rdf:RDF", b'<rdf:RDF tiff:Orientation="6"'), camera_exif(6)
    if file_format == "TIFF":
        exif[0x02BC] = xmp
    content = encoded(
        photo, file_format, exif=exif.tobytes(), **({} if file_format == "TIFF" else {"xmp": xmp})
    )
    picture = decode(content, "it")
    assert picture.size == (photo.height, photo.width)
    assert b"Orientation" not in picture.info["xmp"]
    opened = open_image(picture)
    assert opened.tensor.shape == (1, 3, photo.width, photo.height)
    assert decode(encode(opened.close(opened.tensor), file_format), "it").size == (
        photo.height,
        photo.width,
    )


@given(
    mode=st.sampled_from(["L", "LA", "RGB", "RGBA", "P", "L16", "LA16", "RGB16", "RGBA16"]),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    file_format=st.sampled_from(["PNG", "TIFF"]),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=60)
def test_identity_network_returns_the_same_pixels(
    mode: str, height: int, width: int, file_format: str, seed: int
) -> None:
    draws = np.random.default_rng(seed)
    channels = {"L": (), "LA": (2,), "RGB": (3,), "RGBA": (4,), "P": ()}[mode.removesuffix("16")]
    if mode.endswith("16"):
        pixels = draws.integers(0, 65536, (height, width, *channels), dtype=np.uint16)
        file_format = "PNG" if mode == "LA16" else file_format  # a TIFF of it becomes RGBA
        content = encode(picture_of(pixels), file_format)
    else:
        eight = draws.integers(0, 256, (height, width, *channels), dtype=np.uint8)
        picture = Image.fromarray(eight)
        if mode == "P":
            picture = Image.frombytes("P", (width, height), eight.tobytes())
            picture.putpalette(draws.integers(0, 256, 768, dtype=np.uint8).tobytes())
        content = encoded(picture, file_format)
        pixels = np.asarray(picture.convert("RGB") if mode == "P" else picture)
    torch.manual_seed(0)
    restored = np.asarray(decode(Restorer(VRDIR(TINY), device="cpu")(content), "it"))
    assert restored.dtype == pixels.dtype
    np.testing.assert_array_equal(restored, pixels)


def lab(picture: Image.Image, profile: bytes) -> np.ndarray[Any, Any]:
    transform = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    converted = ImageCms.applyTransform(picture, transform)
    assert converted is not None
    return np.asarray(converted).astype(int)


def test_wide_gamut_pictures_keep_their_colours(identity: Restorer, display_p3: bytes) -> None:
    """A green outside of sRGB is kept; a conversion to sRGB and back would clip it."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, :4], pixels[:, 4:] = (20, 250, 30), (255, 10, 20)
    picture = Image.fromarray(pixels)
    restored = Image.open(io.BytesIO(identity(encoded(picture, "PNG", icc_profile=display_p3))))
    assert restored.info["icc_profile"] == display_p3
    np.testing.assert_array_equal(
        lab(restored, restored.info["icc_profile"]), lab(picture, display_p3)
    )
    p3, srgb = ImageCms.ImageCmsProfile(io.BytesIO(display_p3)), ImageCms.createProfile("sRGB")
    there = ImageCms.profileToProfile(picture, p3, srgb)
    assert there is not None
    back = ImageCms.profileToProfile(there, srgb, p3)
    assert back is not None
    assert np.abs(lab(back, display_p3) - lab(picture, display_p3)).max() > 10


def frames(photo: Image.Image) -> Iterator[tuple[str, bytes]]:
    more: dict[str, Any] = {"save_all": True, "append_images": [photo.rotate(180)]}
    for file_format, kind in (
        ("GIF", "frames"),
        ("WEBP", "frames"),
        ("PNG", "frames"),
        ("AVIF", "frames"),
        ("TIFF", "pages"),
    ):
        yield kind, encoded(photo, file_format, **more)


def test_animations_and_pages_are_rejected_with_advice(photo: Image.Image) -> None:
    for kind, content in frames(photo):
        with pytest.raises(
            ImageError, match=f"it contains 2 {kind}; save each as a separate file first"
        ):
            decode(content, "it")


def test_mpo_is_one_photo(identity: Restorer, photo: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(
        encoded(photo, "MPO", save_all=True, append_images=[photo.resize((20, 20))], quality=95)
    )
    identity.restore_file(tmp_path / "a.jpg", tmp_path / "b.jpg")
    with Image.open(tmp_path / "b.jpg") as restored:
        assert (restored.format, restored.size) == ("JPEG", photo.size)


def test_cmyk_is_rejected_with_advice(photo: Image.Image) -> None:
    for file_format in ("JPEG", "TIFF"):
        with pytest.raises(
            ImageError,
            match="CMYK picture, made for print; convert it to RGB first, in a program",
        ):
            open_image(encoded(photo.convert("CMYK"), file_format))


def test_error_names_a_refused_file_once(
    identity: Restorer, photo: Image.Image, tmp_path: Path
) -> None:
    source, target = tmp_path / "print.jpg", tmp_path / "b.png"
    photo.convert("CMYK").save(source)
    for restore in (lambda: identity(str(source)), lambda: identity.restore_file(source, target)):
        with pytest.raises(ImageError, match=f"^{re.escape(str(source))}: it is a CMYK picture"):
            restore()
    (result,) = identity.restore_files([FileJob(source, target)])
    assert (result.error or "").count(str(source)) == 1


def test_error_names_a_result_that_cannot_be_written(
    identity: Restorer, photo: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Image.Image, *arguments: object, **options: object) -> None:
        raise OSError("encoder error -2")

    photo.save(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "save", broken)
    reason = r"a RGB picture cannot be written as WEBP \(encoder error -2\)"
    message = f"{re.escape(str(tmp_path / 'b.webp'))}: {reason}"
    with pytest.raises(ImageError, match=f"^{message}"):
        identity.restore_file(tmp_path / "a.png", tmp_path / "b.webp")
    (result,) = identity.restore_files([FileJob(tmp_path / "a.png", tmp_path / "b.webp")])
    assert re.match(message, result.error or "")


def in_jpeg(content: bytes, exif: bytes) -> bytes:
    """Return a JPEG with these bytes as its EXIF."""
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + content[2:]


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage, and more of it", b"Exif\0\0II*\0", b"Exif\0\0" + bytes(40)]
)
@pytest.mark.parametrize("source", ["jpg", "png", "webp"])
def test_unreadable_exif_is_dropped(
    source: str,
    exif: bytes,
    identity: Restorer,
    photo: Image.Image,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / f"a.{source}"
    path.write_bytes(
        in_jpeg(encoded(photo, "JPEG", xmp=XMP), exif)
        if source == "jpg"
        else encode(photo, source.upper())
    )
    if source != "jpg":
        photo.save(path, exif=exif, xmp=XMP)
    restored = identity(path)
    assert restored.size == photo.size
    assert "exif" not in restored.info
    assert caplog.text.count(f"{path} has EXIF data that cannot be read") == 1
    assert identity(Image.open(path)).size == photo.size  # also if opened by Pillow
    for suffix in ("jpg", "png", "tif", "webp", "avif"):
        identity.restore_file(path, tmp_path / f"b.{suffix}")
        assert read_file(tmp_path / f"b.{suffix}").info.get("xmp") == (
            XMP if source != "png" else None
        )


def test_damaged_exif_of_16_bit_file_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (9, 11, 3), dtype=np.uint16)
    content = encode(DeepPicture(deep, {"exif": camera_exif().tobytes()}), "PNG")
    start, (length,) = (
        content.index(b"eXIf"),
        struct.unpack_from(">I", content, content.index(b"eXIf") - 4),
    )
    chunk = b"eXIf" + b"?" * length
    content = (
        content[:start]
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + content[start + length + 8 :]
    )
    np.testing.assert_array_equal(np.asarray(decode(content, "deep.png")), deep)
    assert caplog.text.count("deep.png has EXIF data that cannot be read") == 1


def test_orientation_is_applied_if_exif_cannot_be_rewritten(
    photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = encoded(photo, "JPEG", exif=camera_exif(6))

    def refuse(self: Image.Exif, offset: int = 8) -> bytes:
        raise struct.error("argument out of range")

    monkeypatch.setattr(Image.Exif, "tobytes", refuse)
    picture = decode(content, "it")
    assert picture.size == (photo.height, photo.width)
    assert "exif" not in picture.info


def many_bytes(key: str, number: int) -> bytes:
    if key == "xmp":
        return XMP + b" " * number
    exif = camera_exif()
    exif[0x8769] = {0x9286: b"c" * number}
    return exif.tobytes()


@pytest.mark.parametrize(("key", "what"), [("exif", "EXIF"), ("xmp", "XMP")])
def test_metadata_too_long_for_jpeg_is_dropped(
    key: str,
    what: str,
    identity: Restorer,
    photo: Image.Image,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = {"exif": XMP, "xmp": camera_exif().tobytes()}[key]
    metadata: dict[str, Any] = {
        key: many_bytes(key, 70000),
        "xmp" if key == "exif" else "exif": other,
    }
    photo.save(tmp_path / "a.webp", **metadata)
    identity.restore_file(tmp_path / "a.webp", tmp_path / "b.jpg")
    assert re.search(
        rf"b.jpg: {what} is not written "
        r"\(it has 70\d\d\d bytes, but JPEG can store at most 65\d\d\d\)",
        caplog.text,
    )
    info = read_file(tmp_path / "b.jpg").info
    assert key not in info
    assert info["xmp" if key == "exif" else "exif"] == other
    caplog.clear()
    for number, kept in (
        ((65504 - len(XMP), True), (65505 - len(XMP), False))
        if key == "xmp"
        else ((65000, True), (65500, False))
    ):
        picture = photo.copy()
        picture.info[key] = many_bytes(key, number)
        assert (key in decode(encode(picture, "JPEG"), "it").info) == kept
    identity.restore_file(tmp_path / "a.webp", tmp_path / "b.png")
    assert len(read_file(tmp_path / "b.png").info[key]) > 70000


def test_exif_of_webp_is_kept_in_jpeg(
    identity: Restorer, photo: Image.Image, tmp_path: Path
) -> None:
    photo.save(tmp_path / "a.webp", exif=camera_exif().tobytes())
    identity.restore_file(tmp_path / "a.webp", tmp_path / "b.jpg")
    assert exif_of(read_file(tmp_path / "b.jpg")).get(0x010F) == "Maker"


@pytest.mark.parametrize("file_format", ["AVIF", "WEBP", "JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("exif", [b"Exif\0\0", b"", None, b"Exif\0\0nonsense, and more"])
def test_invalid_exif_is_not_written(
    file_format: str, exif: bytes | None, photo: Image.Image
) -> None:
    picture = photo.copy()
    picture.info["exif"] = exif
    assert not exif_of(decode(encode(picture, file_format), "it"))


@pytest.mark.parametrize(
    "file_format", ["PNG", "TIFF", "JPEG", "WEBP", "AVIF", "BMP", "JPEG2000", "GIF", "PPM"]
)
@pytest.mark.parametrize(
    "dpi",
    [
        (float("nan"),) * 2,
        (float("inf"),) * 2,
        (-5, -5),
        (0, 0),
        (1e12, 1e12),
        (300, 0),
        300,
        (1, 2, 3),
    ],
)
def test_invalid_resolution_is_dropped(
    file_format: str, dpi: Any, photo: Image.Image, caplog: pytest.LogCaptureFixture
) -> None:
    picture = photo.copy()
    picture.info["dpi"] = dpi
    written = decode(encode(picture, file_format, "b"), "it")
    default = {"TIFF": [1, 1], "BMP": [96, 96]}.get(file_format, [])  # Pillow's own
    assert [round(float(value)) for value in written.info.get("dpi", default)] == default
    assert ("b: the resolution is not written" in caplog.text) == (
        file_format in ("PNG", "TIFF", "JPEG", "BMP")
    )


def test_resolution_is_kept_if_the_format_can_store_it(
    photo: Image.Image, caplog: pytest.LogCaptureFixture
) -> None:
    for file_format, dpi in (
        ("JPEG", 300),
        ("JPEG", 65535),
        ("PNG", 254000),
        ("TIFF", 254000),
        ("BMP", 254000),
    ):
        picture = photo.copy()
        picture.info["dpi"] = (dpi, dpi)
        written = decode(encode(picture, file_format), "it")
        assert [float(value) for value in written.info["dpi"]] == pytest.approx(
            [dpi, dpi], rel=1e-4
        )
    assert not caplog.text
    picture.info["dpi"] = (70000, 70000)  # Pillow would write it modulo 65536
    assert "dpi" not in decode(encode(picture, "JPEG"), "it").info
    assert "JPEG cannot store 70000 x 70000 dots per inch" in caplog.text


def test_tiff_without_resolution_can_be_written_in_any_format(
    identity: Restorer, photo: Image.Image, tmp_path: Path
) -> None:
    content = bytearray(encoded(photo, "TIFF", dpi=(300, 300)))
    (directory,) = struct.unpack_from("<I", content, 4)
    for entry in range(
        directory + 2, directory + 2 + 12 * struct.unpack_from("<H", content, directory)[0], 12
    ):
        tag, _, _, place = struct.unpack_from("<HHII", content, entry)
        if tag in (282, 283):
            struct.pack_into("<II", content, place, 0, 0)
    (tmp_path / "a.tif").write_bytes(content)
    for suffix in ("png", "jpg", "tiff", "webp"):
        identity.restore_file(tmp_path / "a.tif", tmp_path / f"b.{suffix}")
        assert read_file(tmp_path / f"b.{suffix}").size == photo.size


@pytest.fixture(scope="session")
def grey_profile(display_p3: bytes) -> bytes:
    """Return an ICC profile for grey."""
    return display_p3[:16] + b"GRAY" + display_p3[20:]


@pytest.mark.parametrize("file_format", sorted(KEEPS["icc"]))
@pytest.mark.parametrize("mode", ["L", "LA", "I;16", "LA;16", "RGB", "RGBA", "RGB;16"])
def test_profile_is_kept_if_it_matches_the_channels(
    mode: str,
    file_format: str,
    grey_profile: bytes,
    display_p3: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    picture: Picture
    if mode.endswith(";16") and mode != "I;16":
        picture = DeepPicture(np.zeros((20, 30, len(mode) - 3), np.uint16), {})
    else:
        picture = Image.new(mode, (30, 20))
    for profile, grey in ((grey_profile, True), (display_p3, False)):
        picture.info["icc_profile"] = profile
        caplog.clear()
        content = encode(picture, file_format, "b")
        written = Image.open(io.BytesIO(content))
        kept = (written.mode in ("L", "LA", "I;16")) == grey
        assert (written.info.get("icc_profile") or None) == (profile if kept else None)
        assert ("b: the colour profile is not written (it is for" in caplog.text) == (not kept)
        assert picture.info["icc_profile"] == profile  # the caller's picture is unchanged
    if file_format == "WEBP":
        assert written.mode.startswith("RGB")


def previewed(
    photo: Image.Image, order: str, strip: bool = False, between: bytes = b""
) -> tuple[bytes, bytes]:
    """Return EXIF with a preview in its second directory, and the preview's bytes."""
    exif = camera_exif()
    exif.endian = order
    content = bytearray(exif.tobytes()[6:])
    small = photo.resize((16, 12))
    preview = small.tobytes() if strip else encoded(small, "JPEG")
    (first,) = struct.unpack_from(f"{order}I", content, 4)
    link = first + 2 + 12 * struct.unpack_from(f"{order}H", content, first)[0]
    struct.pack_into(f"{order}I", content, link, len(content))
    tags = (0x0111, 0x0117) if strip else (0x0201, 0x0202)
    place = len(content) + 2 + 24 + 4
    content += struct.pack(
        f"{order}HHHIIHHIII", 2, tags[0], 4, 1, place, tags[1], 4, 1, len(preview), 0
    )
    return b"Exif\0\0" + bytes(content) + preview + between, preview


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("strip", [False, True])
@pytest.mark.parametrize("behind", [b"", b"a maker's own"])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "avif", "tif"])
def test_preview_in_exif_is_removed(
    suffix: str,
    behind: bytes,
    strip: bool,
    order: str,
    identity: Restorer,
    photo: Image.Image,
    tmp_path: Path,
) -> None:
    exif, preview = previewed(photo, order, strip, behind)
    photo.save(tmp_path / "a.jpg", exif=exif)
    assert Image.open(tmp_path / "a.jpg").getexif().get_ifd(ExifTags.IFD.IFD1)
    assert preview[100:200] in (tmp_path / "a.jpg").read_bytes()
    restored = identity(tmp_path / "a.jpg")
    identity.restore_file(tmp_path / "a.jpg", tmp_path / f"b.{suffix}")
    for kept in (exif_of(restored), exif_of(read_file(tmp_path / f"b.{suffix}"))):
        assert not kept.get_ifd(ExifTags.IFD.IFD1)
        assert (
            kept.get(0x010F),
            kept.get_ifd(0x8769).get(0x8827),
            kept.get_ifd(0x8825).get(1),
        ) == ("Maker", 400, "N")
    for content in (restored.info["exif"], (tmp_path / f"b.{suffix}").read_bytes()):
        assert preview[100:200] not in content
    assert len(restored.info["exif"]) == len(exif) - (
        0 if behind else len(preview)
    )  # everything else keeps its offset
    assert restored.info["exif"].endswith(behind)


@given(cut=st.integers(0, 400), place=st.integers(0, 399), value=st.integers(0, 255))
@settings(deadline=None, max_examples=100)
def test_preview_in_damaged_exif_raises_nothing(cut: int, place: int, value: int) -> None:
    exif = bytearray(previewed(Image.new("RGB", (16, 16)), "<")[0])
    exif[min(place, len(exif) - 1)] = value
    picture = Image.new("RGB", (8, 8))
    picture.info["exif"] = bytes(exif[: len(exif) - cut])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of EXIF that is cut short
        opened = open_image(picture)
        for file_format in ("JPEG", "TIFF", "PNG"):
            assert encode(opened.close(opened.tensor), file_format)


def test_reduced_bit_depth_warns(caplog: pytest.LogCaptureFixture) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (9, 11, 3), dtype=np.uint16)
    ppm = b"P6 # a comment\n11 9\n65535\n" + deep.astype(">u2").tobytes()
    assert decode(ppm, "deep.ppm").mode == "RGB"
    assert "deep.ppm has 16 bits per channel; only the upper 8 are read" in caplog.text
    caplog.clear()
    for file_format in ("PPM", "JPEG2000", "AVIF", "PNG"):
        decode(encoded(Image.new("RGB", (16, 16)), file_format), "shallow")
    assert not caplog.text


def test_heic_with_ten_bits_warns(caplog: pytest.LogCaptureFixture) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    deep = np.random.default_rng(0).integers(0, 65536, (64, 64, 3), dtype=np.uint16)
    buffer = io.BytesIO()
    pillow_heif.encode("RGB;16", (64, 64), deep.tobytes(), buffer, quality=90)
    assert decode(buffer.getvalue(), "deep.heic").mode == "RGB"
    assert re.search(r"deep.heic has 1\d bits per channel; only the upper 8 are read", caplog.text)


def test_heic_photos_are_read_by_training_and_pairs(photo: Image.Image, tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif")
    (tmp_path / "a.heic").write_bytes(encode(photo, "HEIF"))
    code = (  # a process in which HEIC is not registered yet
        "import sys; from pathlib import Path\n"
        "from vrdir.data.pairs import _header\n"
        "from vrdir.images.headers import image_size\n"
        "path = Path(sys.argv[1]); header = _header(path)\n"
        "print(image_size(path), header.size, repr(header.problem))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.heic"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert done == f"{photo.size} {photo.size} ''\n"


def test_heic_error_names_the_missing_extra(
    photo: Image.Image, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    heic = b"\0\0\0\x18ftypheic" + bytes(100)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(
        ImageError, match=r"a.heic is HEIC, which needs an extra: pip install 'vrdir\[heic\]'"
    ):
        decode(heic, "a.heic")
    with pytest.raises(ImageError, match=r"b.heic is HEIC, which needs an extra"):
        format_of(tmp_path / "b.heic")


def test_megapixel_limit_can_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # restored afterwards
    large = encoded(Image.new("1", (20000, 10000)), "PNG")
    with pytest.raises(
        ImageError,
        match=r"large.png has more than 179 megapixels.*raise the limit \(--max-megapixels",
    ):
        decode(large, "large.png")
    allow_megapixels(400)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(large, "large.png").size == (20000, 10000)
    for limit in (0, -3, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="positive number"):
            allow_megapixels(limit)


@pytest.mark.parametrize("kind", [">u2", "<u2", ">f4", ">f8", ">f2", "u1"])
def test_arrays_keep_their_byte_order(kind: str) -> None:
    white = {"u2": 65535, "u1": 255}.get(kind[-2:], 1)
    array = (np.random.default_rng(0).random((5, 6, 3)) * white).astype(kind)
    opened = open_image(array)
    back = opened.close(opened.tensor)
    assert back.dtype == array.dtype
    np.testing.assert_allclose(back.astype(float), array.astype(float), atol=1e-6 * white)


@pytest.mark.parametrize(
    "name",
    [
        "two words",
        "雨",
        "'quotes\"",
        "new\nline",
        "-o",
        "%04d",
        os.fsdecode(b"latin\xe9"),
        "n" * 250,
    ],
)
def test_unusual_file_names(
    name: str, identity: Restorer, photo: Image.Image, tmp_path: Path
) -> None:
    photo.save(tmp_path / "a.png")
    folder = tmp_path / name
    folder.mkdir()
    source = (tmp_path / "a.png").rename(folder / f"{name}.png")
    identity.restore_file(source, tmp_path / "out" / name / f"{name}.png")
    assert [p.name for p in (tmp_path / "out" / name).iterdir()] == [f"{name}.png"]


def test_very_long_paths(identity: Restorer, photo: Image.Image, tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d" * 200] * 15)
    deep.mkdir(parents=True)
    photo.save(deep / "a.png")
    identity.restore_file(deep / "a.png", deep / "b.png")
    assert (deep / "b.png").is_file()
    with pytest.raises(
        ImageError, match=r"cannot be read \(File name too long\); use a shorter name"
    ):
        read_file(tmp_path / ("n" * 300 + ".png"))
    with pytest.raises(ImageError, match=r"cannot be written \(File name too long\)"):
        identity.restore_file(deep / "a.png", tmp_path / ("n" * 300 + ".png"))


def test_error_names_a_link_to_itself(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("a.png")
    with pytest.raises(ImageError, match=r"a.png cannot be read .*; it is a link to itself"):
        read_file(tmp_path / "a.png")


def with_chunk(content: bytes, name: bytes, data: bytes, crc: int | None = None) -> bytes:
    """Return a PNG with one more chunk after its header, with this checksum or the right one."""
    chunk = name + data
    whole = (
        struct.pack(">I", len(data))
        + chunk
        + struct.pack(">I", zlib.crc32(chunk) if crc is None else crc)
    )
    return content[:33] + whole + content[33:]


@pytest.mark.parametrize(
    ("name", "data", "crc"),
    [
        (b"pHYs", b"\0\0", None),
        (b"gAMA", b"\0", None),
        (b"cHRM", bytes(5), None),
        (b"tEXt", b"Comment\0hello", 1),
        (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2_000_000)), None),
        (b"iCCP", b"profile\0\0" + zlib.compress(bytes(2_000_000)), None),
    ],
)
def test_image_with_metadata_that_pillow_refuses_is_read(
    name: bytes, data: bytes, crc: int | None, photo: Image.Image, caplog: pytest.LogCaptureFixture
) -> None:
    content = with_chunk(encode(photo, "PNG"), name, data, crc)
    with pytest.raises(Exception):  # noqa: B017, PT011
        Image.open(io.BytesIO(content)).load()
    np.testing.assert_array_equal(np.asarray(decode(content, "a.png")), np.asarray(photo))
    assert (
        caplog.text.count("a.png has metadata that cannot be read; all metadata except EXIF") == 1
    )
    deep = np.random.default_rng(0).integers(0, 65536, (9, 11, 3), dtype=np.uint16)
    np.testing.assert_array_equal(
        np.asarray(
            decode(with_chunk(encode(DeepPicture(deep, {}), "PNG"), name, data, crc), "b.png")
        ),
        deep,
    )
    with pytest.raises(ImageError, match="cut.png is "):  # the same message as without the chunk
        decode(content[:-200], "cut.png")


def test_orientation_and_profile_survive_damage_to_other_metadata(
    photo: Image.Image, display_p3: bytes
) -> None:
    bare = Image.fromarray(np.asarray(photo))
    for file_format in ("PNG", "JPEG"):
        plain = encoded(bare, file_format, exif=camera_exif(6), icc_profile=display_p3)
        if file_format == "PNG":
            damaged = with_chunk(plain, b"tEXt", b"Comment\0hello", crc=1)
        else:
            damaged = plain[:2] + b"\xff\xee\x00\x08Adobe\0" + plain[2:]
        turned = decode(damaged, "it")
        assert turned.size == (photo.height, photo.width)
        assert turned.info["icc_profile"] == display_p3
        assert "exif" in turned.info


def test_jpeg_with_a_short_segment_is_read(
    photo: Image.Image, caplog: pytest.LogCaptureFixture
) -> None:
    plain = encode(photo, "JPEG")
    for segment in (b"\xff\xee\x00\x08Adobe\0", b"\xff\xe2\x00\x0eICC_PROFILE\0"):
        content = plain[:2] + segment + plain[2:]
        np.testing.assert_array_equal(
            np.asarray(decode(content, "a.jpg")), np.asarray(decode(plain, "plain.jpg"))
        )


def test_colours_without_a_profile_warn(
    photo: Image.Image, caplog: pytest.LogCaptureFixture
) -> None:
    plain = encode(Image.fromarray(np.asarray(photo)), "PNG")  # the photo has a profile
    p3 = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
    srgb = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    for name, data, space in (
        (b"cICP", b"\x0c\x0d\0\1", "Display P3"),
        (b"cICP", b"\x09\x10\0\1", "BT.2020 PQ"),
        (b"gAMA", struct.pack(">I", 100000), "a gamma of 1"),
        (b"cHRM", p3, "its own primaries"),
    ):
        caplog.clear()
        np.testing.assert_array_equal(
            np.asarray(decode(with_chunk(plain, name, data), "a.png")), np.asarray(photo)
        )
        assert (
            caplog.text.count(f"a.png has other colours than sRGB ({space}), which is ignored") == 1
        )
    caplog.clear()
    for name, data in (
        (b"cICP", b"\x01\x0d\0\1"),
        (b"gAMA", struct.pack(">I", 45455)),
        (b"cHRM", srgb),
    ):
        decode(with_chunk(plain, name, data), "a.png")
    decode(with_chunk(encode(photo, "PNG"), b"gAMA", struct.pack(">I", 100000)), "a.png")
    assert not caplog.text


def test_colours_of_heic_warn(photo: Image.Image, caplog: pytest.LogCaptureFixture) -> None:
    heif = pytest.importorskip("pillow_heif")
    for primaries, space in ((12, "Display P3"), (1, "")):
        caplog.clear()
        file = io.BytesIO()
        heif.from_pillow(Image.fromarray(np.asarray(photo))).save(
            file, color_primaries=primaries, transfer_characteristics=13, quality=90
        )
        decode(file.getvalue(), "a.heic")
        assert ("a.heic has other colours than sRGB (Display P3)" in caplog.text) == bool(space)


def test_palettes_of_greys_and_with_alpha(
    photo: Image.Image, tmp_path: Path, identity: Restorer
) -> None:
    grey = photo.convert("L").quantize(64)
    opened = open_image(grey)
    assert opened.grey
    grey.info["icc_profile"] = photo.info["icc_profile"]  # for RGB, as in every palette picture
    noisy = (opened.tensor + 0.1 * torch.randn(opened.tensor.shape)).clamp(0, 1)
    closed = open_image(grey).close(noisy)
    assert closed.mode == "RGB"
    assert closed.info["icc_profile"] == photo.info["icc_profile"]
    assert open_image(closed).tensor.std(1).max() == 0  # it has no colour
    grey.save(tmp_path / "grey.png", transparency=3)
    assert identity(tmp_path / "grey.png").mode == "RGBA"
    rgba = photo.convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize(photo.size))
    palette = rgba.quantize(32)
    restored = open_image(palette).close(open_image(palette).tensor)
    assert restored.mode == "RGBA"
    np.testing.assert_array_equal(np.asarray(restored), np.asarray(palette.convert("RGBA")))


def test_pipe_is_rejected(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to("pipe.png")
    for name in ("pipe.png", "link.png"):
        with pytest.raises(ImageError, match=f"{name} is a pipe"):
            read_file(tmp_path / name)
