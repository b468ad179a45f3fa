"""16 bits per channel, in files made by other encoders: pypng and tifffile."""

import io
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import png
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vrdir.errors import ImageError
from vrdir.images.convert import open_image
from vrdir.images.reading import decode, read_file
from vrdir.images.sixteen_bits import DeepPicture
from vrdir.images.writing import encode

CHANNELS = {"LA": 2, "RGB": 3, "RGBA": 4}


def noise(mode: str, height: int = 21, width: int = 34) -> np.ndarray[Any, np.dtype[np.uint16]]:
    return np.random.default_rng(0).integers(
        0, 65536, (height, width, CHANNELS[mode]), dtype=np.uint16
    )


def as_png(pixels: np.ndarray[Any, Any], **options: Any) -> bytes:
    """Encode with pypng."""
    height, width, channels = pixels.shape
    buffer = io.BytesIO()
    writer = png.Writer(
        width, height, bitdepth=16, greyscale=channels < 3, alpha=channels in (2, 4), **options
    )
    writer.write_array(buffer, pixels.ravel().tolist())
    return buffer.getvalue()


def as_tiff(pixels: np.ndarray[Any, Any], alpha: str = "unassalpha", **options: Any) -> bytes:
    """Encode with tifffile."""
    buffer = io.BytesIO()
    extra = [alpha] if pixels.shape[-1] == 4 else None
    tifffile.imwrite(buffer, pixels, photometric="rgb", extrasamples=extra, **options)
    return buffer.getvalue()


def deep(content: bytes) -> DeepPicture:
    picture = decode(content, "it")
    assert isinstance(picture, DeepPicture)
    return picture


@pytest.mark.parametrize("interlace", [False, True])
@pytest.mark.parametrize("mode", CHANNELS)
def test_png_is_read_exactly(mode: str, interlace: bool) -> None:
    pixels = noise(mode)
    picture = deep(as_png(pixels, interlace=interlace))
    assert (picture.mode, picture.size, picture.format) == (f"{mode};16", (34, 21), "PNG")
    np.testing.assert_array_equal(picture.pixels, pixels)


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("compression", [None, "zlib", "lzma"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_tiff_is_read_exactly(
    mode: str, byteorder: str, compression: str | None, tile: tuple[int, int] | None
) -> None:
    pixels = noise(mode)
    content = as_tiff(pixels, byteorder=byteorder, compression=compression, tile=tile)
    np.testing.assert_array_equal(deep(content).pixels, pixels)


def test_tiff_with_a_predictor_is_read_exactly() -> None:
    pixels = noise("RGB")
    differences = np.diff(pixels, axis=1, prepend=np.uint16(0))  # modulo 65536
    # tifffile needs another library to predict, so a neighbouring tag is turned into the
    # predictor's.
    content = as_tiff(
        differences, byteorder="<", compression="zlib", extratags=[(316, 3, 1, 2, True)]
    )
    content = content.replace(struct.pack("<HHI", 316, 3, 1), struct.pack("<HHI", 317, 3, 1))
    np.testing.assert_array_equal(deep(content).pixels, pixels)


def test_premultiplied_alpha_is_undone_in_16_bits() -> None:
    colour, alpha = noise("RGB"), np.maximum(noise("RGBA")[..., 3:], 20000)
    multiplied = np.round(colour * (alpha / 65535)).astype(np.uint16)
    picture = deep(as_tiff(np.concatenate([multiplied, alpha], -1), alpha="assocalpha"))
    np.testing.assert_array_equal(picture.pixels[..., 3:], alpha)
    np.testing.assert_allclose(picture.pixels[..., :3].astype(int), colour.astype(int), atol=2)


def test_error_names_a_file_with_separate_channels() -> None:
    planes = np.moveaxis(noise("RGB"), -1, 0).copy()
    with pytest.raises(
        ImageError,
        match=r"photo.tif cannot be read: it stores its 16-bit channels one after the other",
    ):
        decode(as_tiff(planes, planarconfig="separate"), "photo.tif")


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_transparent_colour_becomes_alpha(mode: str) -> None:
    pixels = noise("RGB")[..., : {"L": 1, "RGB": 3}[mode]]
    key = tuple(int(value) for value in pixels[0, 0])
    picture = deep(as_png(pixels, transparent=key if mode == "RGB" else key[0]))
    np.testing.assert_array_equal(picture.pixels[..., :-1], pixels)
    expected = np.where((pixels == pixels[0, 0]).all(-1), 0, 65535)
    np.testing.assert_array_equal(picture.pixels[..., -1], expected)


@given(
    mode=st.sampled_from(list(CHANNELS)),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    smooth=st.booleans(),
)
@settings(deadline=None, max_examples=40)
def test_written_files_are_read_by_other_libraries(
    mode: str, height: int, width: int, smooth: bool
) -> None:
    pixels = noise(mode, height, width)
    if smooth:
        pixels = (pixels // 1000).cumsum(1).astype(np.uint16)
    written = encode(DeepPicture(pixels, {}), "PNG")
    _, _, rows, facts = png.Reader(bytes=written).asDirect()
    assert (facts["bitdepth"], facts["planes"]) == (16, CHANNELS[mode])
    np.testing.assert_array_equal(
        np.array([list(row) for row in rows]).reshape(pixels.shape), pixels
    )
    with tifffile.TiffFile(io.BytesIO(encode(DeepPicture(pixels, {}), "TIFF"))) as file:
        read = file.asarray().reshape(height, width, -1)
        assert read.dtype == np.uint16
        np.testing.assert_array_equal(read if mode != "LA" else read[..., 2:], pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_orientation_turns_all_16_bits(file_format: str, orientation: int) -> None:
    pixels = noise("RGB")
    exif = Image.Exif()
    exif[0x0112] = orientation
    if file_format == "PNG":
        content = encode(DeepPicture(pixels, {"exif": exif.tobytes()}), "PNG")
    else:
        content = as_tiff(pixels, extratags=[(0x0112, 3, 1, orientation, True)])
    small = Image.fromarray((pixels >> 8).astype(np.uint8))
    buffer = io.BytesIO()
    small.save(buffer, file_format, exif=exif)
    picture = deep(content)
    expected = decode(buffer.getvalue(), "8 bits")
    np.testing.assert_array_equal(picture.pixels >> 8, np.asarray(expected))
    again = deep(encode(picture, file_format))
    np.testing.assert_array_equal(again.pixels, picture.pixels)  # not turned again


def test_16_bit_picture_opened_by_pillow_warns(caplog: pytest.LogCaptureFixture) -> None:
    picture = Image.open(io.BytesIO(as_png(noise("RGB"))))
    assert open_image(picture).tensor.shape == (1, 3, 21, 34)
    assert (
        "loses the lower 8 bits when Pillow opens it; use its path or its bytes instead"
        in caplog.text
    )


def test_error_names_a_damaged_file() -> None:
    for content in (as_png(noise("RGB")), as_tiff(noise("RGB"), compression="zlib")):
        with pytest.raises(
            ImageError, match=r"photo is damaged or truncated|photo is not an image"
        ):
            decode(content[: len(content) // 2], "photo")


def test_open_image_keeps_16_bits(tmp_path: Path) -> None:
    for mode in CHANNELS:
        pixels = noise(mode)
        (tmp_path / "deep.png").write_bytes(as_png(pixels))
        opened = open_image(tmp_path / "deep.png")
        assert opened.grey == (mode == "LA")
        assert opened.tensor.shape == (1, 3, 21, 34)
        back = opened.close(opened.tensor)
        assert isinstance(back, DeepPicture)
        np.testing.assert_array_equal(np.asarray(back), pixels)
        back.save(tmp_path / "again.png")
        np.testing.assert_array_equal(np.asarray(read_file(tmp_path / "again.png")), pixels)
        if mode.endswith("A"):
            np.testing.assert_array_equal(
                opened.close(opened.tensor * 0).pixels[..., -1], pixels[..., -1]
            )
        content = open_image(as_png(pixels))
        assert isinstance(content.close(content.tensor), bytes)
    with pytest.raises(
        ValueError, match=r"again.jpg: 16 bits per channel can be saved as .png, .apng, .tif, .tiff"
    ):
        back.save(tmp_path / "again.jpg")
    np.testing.assert_allclose(np.asarray(back.reduced(), float), pixels / 257, atol=0.5)


def test_saving_replaces_a_file_atomically(tmp_path: Path) -> None:
    """A program that has the old file open can still read all of it."""
    (tmp_path / "deep.png").write_bytes(as_png(noise("RGB")))
    picture = read_file(tmp_path / "deep.png")
    assert isinstance(picture, DeepPicture)
    (tmp_path / "out.png").write_bytes(b"former")
    with (tmp_path / "out.png").open("rb") as former:
        picture.save(tmp_path / "out.png")
        assert former.read() == b"former"
    np.testing.assert_array_equal(np.asarray(read_file(tmp_path / "out.png")), picture.pixels)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep.png", "out.png"]


def test_tiff_with_white_as_zero_is_inverted() -> None:
    pixels = noise("RGB")[..., 0]
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, photometric="miniswhite")
    seen = decode(file.getvalue(), "xray.tif")
    np.testing.assert_array_equal(np.asarray(seen), 65535 - pixels)
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(encode(seen, "TIFF"))), 65535 - pixels)
    black_is_zero = io.BytesIO()
    tifffile.imwrite(black_is_zero, pixels, photometric="minisblack")
    np.testing.assert_array_equal(np.asarray(decode(black_is_zero.getvalue(), "a.tif")), pixels)


def test_unsupported_tiff_has_its_own_error() -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, noise("RGB").astype(np.float32) / 65535, photometric="rgb")
    with pytest.raises(
        ImageError,
        match="float.tif is a type of TIFF that Pillow cannot read; save it as RGB, RGBA or grey",
    ):
        decode(file.getvalue(), "float.tif")
    whole = io.BytesIO()
    Image.new("RGB", (50, 40), (9, 99, 199)).save(whole, "TIFF", compression="tiff_lzw")
    for cut in (len(whole.getvalue()) // 2, 8):
        with pytest.raises(ImageError, match="cut.tif is damaged or truncated"):
            decode(whole.getvalue()[:cut], "cut.tif")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_saving_keeps_metadata(suffix: str, tmp_path: Path) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
    info = {
        "xmp": xmp,
        "dpi": (300, 300),
        "transparency": (1, 2, 3),
    }  # a profile for other pixels
    DeepPicture(noise("RGB"), info | {"xmp": xmp.decode()}).save(tmp_path / f"b{suffix}")
    assert read_file(tmp_path / f"b{suffix}").info["xmp"] == xmp
    DeepPicture(noise("RGB"), info).save(tmp_path / f"a{suffix}")
    saved = read_file(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(np.asarray(saved), noise("RGB"))
    assert saved.info["xmp"] == xmp
    assert saved.info["dpi"][0] == pytest.approx(300, abs=0.1)


def test_bands_do_not_change_the_file() -> None:
    pixels = noise("RGBA", 200, 9)
    np.testing.assert_array_equal(
        np.asarray(decode(encode(DeepPicture(pixels, {}), "PNG"), "a")), pixels
    )


def test_encoding_needs_little_memory() -> None:
    pixels = noise("RGB", 1500, 800)
    tracemalloc.start()
    try:
        content = encode(DeepPicture(pixels, {}), "PNG")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * pixels.nbytes + 2 * len(content)  # 16 times, if filtered in one piece
