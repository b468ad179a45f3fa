"""What each file format keeps (the table in docs/images.md), and files as they come from cameras, editors and archives."""

import io
import os
import re
import struct
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps
from tests.conftest import TINY

from vrdir import ImageError, Restorer
from vrdir.images import IMAGE_SUFFIXES, Picture, allow_megapixels, decode, encode, format_of, open_image, read_file
from vrdir.model.vrdir import VRDIR
from vrdir.sixteen_bits import DeepPicture

FORMATS = {"PNG": "png", "TIFF": "tif", "JPEG": "jpg", "WEBP": "webp", "AVIF": "avif", "HEIF": "heic", "JPEG2000": "jp2", "BMP": "bmp"}
FORMATS |= {"PPM": "ppm", "GIF": "gif"}
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/></x:xmpmeta>'
# The columns of the table in docs/images.md: the formats that keep it.
KEEPS = {
    "exact": {"PNG", "TIFF", "JPEG2000", "BMP", "PPM"},
    "grey16": {"PNG", "TIFF", "JPEG2000", "PPM"},
    "colour16": {"PNG", "TIFF"},
    "alpha": {"PNG", "TIFF", "WEBP", "AVIF", "HEIF", "JPEG2000"},
    "exif": {"PNG", "TIFF", "JPEG", "WEBP", "AVIF", "HEIF"},
    "xmp": {"PNG", "TIFF", "JPEG", "WEBP", "AVIF", "HEIF"},
    "icc": {"PNG", "TIFF", "JPEG", "WEBP", "AVIF", "HEIF"},
}


@pytest.fixture(autouse=True)
def heif_where_it_is_needed(request: pytest.FixtureRequest) -> None:
    if "HEIF" in getattr(request.node, "callspec", request).__dict__.get("params", {}).values():
        pytest.importorskip("pillow_heif")


@pytest.fixture(scope="module")
def identity() -> Restorer:
    """A network whose decoder was never trained gives back what it is given."""
    torch.manual_seed(0)
    return Restorer(VRDIR(TINY), device="cpu")


@pytest.fixture(scope="session")
def display_p3() -> bytes:
    """An ICC profile of Display P3: littlecms' sRGB with P3's primaries, adapted to D50, in place of its own."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    primaries = {b"rXYZ": (0.51512, 0.2412, -0.00105), b"gXYZ": (0.29198, 0.69225, 0.04189), b"bXYZ": (0.1571, 0.06657, 0.78407)}
    (tags,) = struct.unpack_from(">I", profile, 128)
    for i in range(tags):
        name, offset, _ = struct.unpack_from(">4sII", profile, 132 + 12 * i)
        if name in primaries:
            struct.pack_into(">3i", profile, offset + 8, *(round(value * 65536) for value in primaries[name]))
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
    """uint8 or uint16, (H, W) or (H, W, 2 to 4)."""
    return DeepPicture(pixels, {}) if pixels.dtype == np.uint16 and pixels.ndim == 3 else Image.fromarray(pixels)


def test_the_table_says_what_is_tested_here() -> None:
    lines = (Path(__file__).parents[1] / "docs" / "images.md").read_text().splitlines()
    columns, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|"))
    assert columns[2:] == list(KEEPS)
    assert {row[0] for row in rows} == set(FORMATS)
    assert {suffix for row in rows for suffix in row[1].split()} == IMAGE_SUFFIXES
    for row in rows:
        assert dict(zip(columns[2:], row[2:], strict=True)) == {what: "yes" if row[0] in KEEPS[what] else "-" for what in KEEPS}, row[0]


@pytest.mark.parametrize("file_format", FORMATS)
def test_what_a_format_keeps_of_pixels(file_format: str, identity: Restorer, photo: Image.Image, tmp_path: Path) -> None:
    """A PNG with everything, restored into each format."""
    rgb = np.asarray(photo)
    ramp = np.asarray(Image.linear_gradient("L").resize(photo.size))
    pictures = {
        "exact": rgb,
        "alpha": np.dstack([rgb, ramp]),
        "grey16": rgb[..., 0] * np.uint16(257) ^ np.uint16(5),
        "colour16": rgb * np.uint16(257) ^ np.uint16(5),
    }
    for what, pixels in pictures.items():
        source, target = tmp_path / f"{what}.png", tmp_path / f"{what}.{FORMATS[file_format]}"
        source.write_bytes(encode(picture_of(pixels), "PNG"))
        target = target if file_format != "PNG" else tmp_path / f"{what} again.png"
        identity.restore_file(source, target)
        read = np.asarray(read_file(target))
        if what == "alpha":
            blur = 3 if file_format in ("AVIF", "HEIF") else 0  # which compress alpha too
            kept = read.ndim == 3 and read.shape[2] == 4 and np.abs(read[..., 3].astype(int) - ramp).max() <= blur
        else:
            kept = read.shape == pixels.shape and np.array_equal(read, pixels)
        assert kept == (file_format in KEEPS[what]), what


@pytest.mark.parametrize("file_format", FORMATS)
def test_what_a_format_keeps_of_metadata(
    file_format: str, identity: Restorer, photo: Image.Image, display_p3: bytes, tmp_path: Path
) -> None:
    """A JPEG as a camera writes it, restored into each format, and that once more into its own."""
    (tmp_path / "a.jpg").write_bytes(encoded(photo, "JPEG", exif=camera_exif(6), xmp=XMP, icc_profile=display_p3, quality=95))
    suffix = FORMATS[file_format]
    identity.restore_file(tmp_path / "a.jpg", tmp_path / f"b.{suffix}")
    identity.restore_file(tmp_path / f"b.{suffix}", tmp_path / f"c.{suffix}")
    for name in ("b", "c"):
        picture = read_file(tmp_path / f"{name}.{suffix}")
        assert picture.size == (photo.height, photo.width)  # upright, and turned once
        exif = exif_of(picture)
        said = (exif.get(0x010F), exif.get_ifd(0x8769).get(0x8827), exif.get_ifd(0x8825).get(1), exif.get(0x0112, 1))
        assert said == (("Maker", 400, "N", 1) if file_format in KEEPS["exif"] else (None, None, None, 1))
        assert (picture.info.get("xmp") == XMP) == (file_format in KEEPS["xmp"])
        assert (picture.info.get("icc_profile") == display_p3) == (file_format in KEEPS["icc"])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
def test_every_orientation_in_every_format(file_format: str, orientation: int, photo: Image.Image) -> None:
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}
    content = encoded(photo, file_format, exif=camera_exif(orientation).tobytes(), **lossless.get(file_format, {}))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded(photo, "PNG", exif=camera_exif(orientation)))))
    picture = decode(content, "it")
    assert picture.size == expected.size
    np.testing.assert_allclose(np.asarray(picture, float), np.asarray(expected, float), atol=8)
    assert exif_of(picture).get(0x0112, 1) == 1
    assert exif_of(picture).get(0x010F) == "Maker"


@pytest.mark.parametrize("file_format", ["JPEG", "WEBP", "AVIF", "TIFF"])
def test_an_orientation_in_xmp_goes_too(file_format: str, photo: Image.Image) -> None:
    """Else the next to open the file, this package among them, would turn it once more."""
    xmp, exif = XMP.replace(b"<rdf:RDF", b'<rdf:RDF tiff:Orientation="6"'), camera_exif(6)
    if file_format == "TIFF":
        exif[0x02BC] = xmp
    content = encoded(photo, file_format, exif=exif.tobytes(), **({} if file_format == "TIFF" else {"xmp": xmp}))
    picture = decode(content, "it")
    assert picture.size == (photo.height, photo.width)
    assert b"Orientation" not in picture.info["xmp"]
    opened = open_image(picture)
    assert opened.tensor.shape == (1, 3, photo.width, photo.height)
    assert decode(encode(opened.close(opened.tensor), file_format), "it").size == (photo.height, photo.width)


@given(
    mode=st.sampled_from(["L", "LA", "RGB", "RGBA", "P", "L16", "LA16", "RGB16", "RGBA16"]),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    file_format=st.sampled_from(["PNG", "TIFF"]),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=60)
def test_the_identity_gives_back_the_same_pixels(mode: str, height: int, width: int, file_format: str, seed: int) -> None:
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
    transform = ImageCms.buildTransform(ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("LAB"), "RGB", "LAB")
    converted = ImageCms.applyTransform(picture, transform)
    assert converted is not None
    return np.asarray(converted).astype(int)


def test_wide_gamut_pictures_keep_their_colours(identity: Restorer, display_p3: bytes) -> None:
    """A green outside of sRGB stays that green; a way through sRGB, which a network trained on it might suggest, would lose it."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, :4], pixels[:, 4:] = (20, 250, 30), (255, 10, 20)
    picture = Image.fromarray(pixels)
    restored = Image.open(io.BytesIO(identity(encoded(picture, "PNG", icc_profile=display_p3))))
    assert restored.info["icc_profile"] == display_p3
    np.testing.assert_array_equal(lab(restored, restored.info["icc_profile"]), lab(picture, display_p3))
    p3, srgb = ImageCms.ImageCmsProfile(io.BytesIO(display_p3)), ImageCms.createProfile("sRGB")
    there = ImageCms.profileToProfile(picture, p3, srgb)
    assert there is not None
    back = ImageCms.profileToProfile(there, srgb, p3)
    assert back is not None
    assert np.abs(lab(back, display_p3) - lab(picture, display_p3)).max() > 10


def frames(photo: Image.Image) -> Iterator[tuple[str, bytes]]:
    more: dict[str, Any] = {"save_all": True, "append_images": [photo.rotate(180)]}
    for file_format, kind in (("GIF", "frames"), ("WEBP", "frames"), ("PNG", "frames"), ("AVIF", "frames"), ("TIFF", "pages")):
        yield kind, encoded(photo, file_format, **more)


def test_animations_and_pages_are_refused_in_words(photo: Image.Image) -> None:
    for kind, content in frames(photo):
        with pytest.raises(ImageError, match=f"it holds 2 {kind}; save each as a file of its own first"):
            decode(content, "it")


def test_a_cameras_mpo_is_one_photo(identity: Restorer, photo: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(photo, "MPO", save_all=True, append_images=[photo.resize((20, 20))], quality=95))
    identity.restore_file(tmp_path / "a.jpg", tmp_path / "b.jpg")
    with Image.open(tmp_path / "b.jpg") as restored:
        assert (restored.format, restored.size) == ("JPEG", photo.size)


def test_cmyk_is_refused_with_advice(photo: Image.Image) -> None:
    for file_format in ("JPEG", "TIFF"):
        with pytest.raises(ImageError, match="CMYK picture, made for print; convert it to RGB first, in a program that applies its"):
            open_image(encoded(photo.convert("CMYK"), file_format))


def test_depth_that_cannot_be_read_is_told(caplog: pytest.LogCaptureFixture) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (9, 11, 3), dtype=np.uint16)
    ppm = b"P6 # a comment\n11 9\n65535\n" + deep.astype(">u2").tobytes()
    assert decode(ppm, "deep.ppm").mode == "RGB"
    assert "deep.ppm has 16 bits a channel; only the upper 8 are read" in caplog.text
    caplog.clear()
    for file_format in ("PPM", "JPEG2000", "AVIF", "PNG"):
        decode(encoded(Image.new("RGB", (16, 16)), file_format), "shallow")
    assert not caplog.text


def test_heic_with_ten_bits_is_told(caplog: pytest.LogCaptureFixture) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    deep = np.random.default_rng(0).integers(0, 65536, (64, 64, 3), dtype=np.uint16)
    buffer = io.BytesIO()
    pillow_heif.encode("RGB;16", (64, 64), deep.tobytes(), buffer, quality=90)
    assert decode(buffer.getvalue(), "deep.heic").mode == "RGB"
    assert re.search(r"deep.heic has 1\d bits a channel; only the upper 8 are read", caplog.text)


def test_heic_photos_are_trained_and_measured_on_too(photo: Image.Image, tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif")
    (tmp_path / "a.heic").write_bytes(encode(photo, "HEIF"))
    code = (  # a process that has not yet met HEIC
        "import sys; from pathlib import Path; from vrdir.data.image_cache import header_bytes; from vrdir.data.pairs import _header\n"
        "path = Path(sys.argv[1]); print(header_bytes(path), _header(path).size, repr(_header(path).problem))"
    )
    said = subprocess.run([sys.executable, "-c", code, tmp_path / "a.heic"], capture_output=True, text=True, check=True).stdout
    assert said == f"{3 * photo.width * photo.height} {photo.size} ''\n"


def test_heic_names_its_extra_where_that_is_missing(photo: Image.Image, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    heic = b"\0\0\0\x18ftypheic" + bytes(100)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"a.heic is HEIC, which needs an extra: pip install 'vrdir\[heic\]'"):
        decode(heic, "a.heic")
    with pytest.raises(ImageError, match=r"b.heic is HEIC, which needs an extra"):
        format_of(tmp_path / "b.heic")


def test_large_photos_are_opened_when_the_user_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # put back afterwards
    large = encoded(Image.new("1", (20000, 10000)), "PNG")
    with pytest.raises(ImageError, match=r"large.png has more than 179 megapixels.*raise the limit \(--max-megapixels"):
        decode(large, "large.png")
    allow_megapixels(400)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(large, "large.png").size == (20000, 10000)
    for limit in (0, -3, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="positive number"):
            allow_megapixels(limit)


@pytest.mark.parametrize("kind", [">u2", "<u2", ">f4", ">f8", ">f2", "u1"])
def test_arrays_of_any_byte_order_come_back_as_they_were(kind: str) -> None:
    white = {"u2": 65535, "u1": 255}.get(kind[-2:], 1)
    array = (np.random.default_rng(0).random((5, 6, 3)) * white).astype(kind)
    opened = open_image(array)
    back = opened.close(opened.tensor)
    assert back.dtype == array.dtype
    np.testing.assert_allclose(back.astype(float), array.astype(float), atol=1e-6 * white)


@pytest.mark.parametrize("name", ["two words", "雨", "'quotes\"", "new\nline", "-o", "%04d", os.fsdecode(b"latin\xe9"), "n" * 250])
def test_any_name(name: str, identity: Restorer, photo: Image.Image, tmp_path: Path) -> None:
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
    with pytest.raises(ImageError, match=r"cannot be read \(File name too long\); give it a shorter name"):
        read_file(tmp_path / ("n" * 300 + ".png"))
    with pytest.raises(ImageError, match=r"cannot be written \(File name too long\)"):
        identity.restore_file(deep / "a.png", tmp_path / ("n" * 300 + ".png"))


def test_a_link_to_itself_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("a.png")
    with pytest.raises(ImageError, match=r"a.png cannot be read .*; it is a link that leads to itself"):
        read_file(tmp_path / "a.png")
