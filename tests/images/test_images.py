"""Conversion of every kind of image to the package's internal form and back."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import png
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from vrdir.errors import ImageError
from vrdir.images.convert import open_image
from vrdir.images.reading import decode, read_file
from vrdir.images.writing import encode
from vrdir.tensors import crop_to, pad_to_multiple


def encoded(picture: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64", "float16"])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4), (2, 5, 7, 3)])
def test_arrays_are_returned_in_their_own_form(dtype: str, shape: tuple[int, ...]) -> None:
    white = {"uint8": 255, "uint16": 65535}.get(dtype, 1)
    image = (np.random.default_rng(0).random(shape) * white).astype(dtype)
    opened = open_image(image)
    assert opened.tensor.shape == (shape[0] if len(shape) == 4 else 1, 3, 5, 7)
    assert opened.tensor.dtype == torch.float32
    back = opened.close(opened.tensor)
    assert (back.dtype, back.shape) == (image.dtype, image.shape)
    np.testing.assert_allclose(back.astype(float), image.astype(float), atol=1e-6 * white)
    black = opened.close(torch.zeros_like(opened.tensor))
    if shape[-1] == 4:
        assert np.array_equal(black[..., 3], image[..., 3])
        assert not black[..., :3].any()
    else:
        assert not black.any()


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.float32, torch.float16, torch.bfloat16, torch.float64]
)
@pytest.mark.parametrize(
    "shape", [(5, 7), (1, 5, 7), (3, 5, 7), (4, 5, 7), (2, 3, 5, 7), (2, 4, 5, 7)]
)
def test_tensors_are_returned_in_their_own_form(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    image = torch.rand(shape) if dtype.is_floating_point else torch.randint(256, shape)
    image = image.to(dtype)
    opened = open_image(image)
    back = opened.close(opened.tensor)
    assert (back.dtype, back.shape) == (image.dtype, image.shape)
    torch.testing.assert_close(back.float(), image.float(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16", "F"])
def test_pictures_are_returned_in_their_own_mode(mode: str, photo: Image.Image) -> None:
    if mode == "I;16":
        picture = Image.fromarray((np.asarray(photo.convert("L")).astype(np.uint16) * 257) ^ 5)
    elif mode == "F":
        picture = Image.fromarray(np.asarray(photo.convert("L"), np.float32) / 255)
    else:
        picture = photo.convert(mode)
        if mode.endswith("A"):
            picture.putalpha(Image.linear_gradient("L").resize(photo.size))
    opened = open_image(picture)
    back = opened.close(opened.tensor)
    assert (back.mode, back.size) == (mode, photo.size)
    np.testing.assert_allclose(
        np.asarray(back, float), np.asarray(picture, float), atol=1e-6 if mode == "F" else 0.5
    )


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_transparent_colour_becomes_alpha(mode: str, photo: Image.Image) -> None:
    picture = photo.convert(mode)
    key: Any = picture.getpixel((0, 0))
    content = encoded(picture, "PNG", transparency=key)
    opened = open_image(Image.open(io.BytesIO(content)))
    back = opened.close(opened.tensor)
    assert back.mode == ("LA" if mode == "L" else "RGBA")
    assert np.array_equal(
        np.asarray(back.getchannel("A")),
        np.asarray(Image.open(io.BytesIO(content)).convert("RGBA").getchannel("A")),
    )
    assert 0 in np.asarray(back.getchannel("A"))


@pytest.mark.parametrize(
    ("bits", "key"), [(1, 0), (1, 1), (2, 0), (2, 2), (2, 3), (4, 5), (4, 15), (8, 7)]
)
def test_transparent_grey_of_few_bits_becomes_alpha(bits: int, key: int) -> None:
    levels = np.arange(2**bits).repeat(2)[None].repeat(3, 0)
    file = io.BytesIO()
    png.Writer(levels.shape[1], 3, greyscale=True, bitdepth=bits, transparent=key).write(
        file, levels.tolist()
    )
    for image in (Image.open(file), decode(file.getvalue(), "it")):  # before and after decoding
        opened = open_image(image)
        back = opened.close(opened.tensor)
        assert back.mode == "LA"
        np.testing.assert_array_equal(np.asarray(back)[..., 0], levels * 255 // (2**bits - 1))
        np.testing.assert_array_equal(np.asarray(back)[..., 1], np.where(levels == key, 0, 255))


@pytest.mark.parametrize(
    "file_format", ["PNG", "TIFF", "JPEG", "WEBP", "BMP", "JPEG2000", "GIF", "PPM"]
)
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16", "F"])
def test_every_mode_is_written_with_its_brightness(mode: str, file_format: str) -> None:
    ramp = np.linspace(0, 1, 64 * 64).reshape(64, 64)
    picture = {
        "F": lambda: Image.fromarray(ramp.astype(np.float32)),
        "I;16": lambda: Image.fromarray(np.round(ramp * 65535).astype(np.uint16)),
    }.get(mode, lambda: Image.fromarray(np.round(ramp * 255).astype(np.uint8)).convert(mode))()
    written = Image.open(io.BytesIO(encode(picture, file_format)))
    grey = (
        np.asarray(written, float)
        if written.mode.startswith(("I", "F"))
        else np.asarray(written.convert("L"), float)
    )
    lossy = file_format in ("JPEG", "WEBP", "JPEG2000", "GIF")
    grey /= {"F": 1.0, "I": 65535.0}.get(written.mode[0], 255.0)
    np.testing.assert_allclose(
        grey, ramp, atol={"GIF": 0.04}.get(file_format, 0.02) if lossy else 0.003
    )
    if mode == "I;16" and file_format in ("PNG", "TIFF"):
        assert np.array_equal(np.asarray(written), np.asarray(picture))


def test_palette_pictures_become_rgb(photo: Image.Image) -> None:
    palette = photo.quantize(32)
    opened = open_image(palette)
    assert opened.close(opened.tensor).mode == "RGB"
    np.testing.assert_array_equal(
        np.asarray(opened.close(opened.tensor)), np.asarray(palette.convert("RGB"))
    )


def test_exif_orientation_is_applied_and_the_rest_kept(photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    exif[0x010F] = "Maker"
    picture = Image.open(
        io.BytesIO(encoded(photo, "JPEG", exif=exif, icc_profile=b"profile", quality=95))
    )
    opened = open_image(picture)
    assert opened.tensor.shape == (1, 3, photo.width, photo.height)
    back = opened.close(opened.tensor)
    assert back.info["icc_profile"] == b"profile"
    kept = Image.Exif()
    kept.load(back.info["exif"])
    assert kept.get(0x010F) == "Maker"
    assert kept.get(0x0112, 1) == 1


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
def test_bytes_are_returned_in_the_same_format(file_format: str, photo: Image.Image) -> None:
    opened = open_image(encoded(photo, file_format))
    back = opened.close(opened.tensor)
    assert isinstance(back, bytes)
    assert Image.open(io.BytesIO(back)).format == file_format


def test_paths_are_returned_as_pictures(photo: Image.Image, tmp_path: Path) -> None:
    photo.save(tmp_path / "photo.png")
    for path in (tmp_path / "photo.png", str(tmp_path / "photo.png")):
        opened = open_image(path)
        assert np.array_equal(np.asarray(opened.close(opened.tensor)), np.asarray(photo))


def test_gradients_pass_through_open_image() -> None:
    image = torch.rand(3, 5, 7, requires_grad=True)
    opened = open_image(image)
    opened.close(opened.tensor * 2 - opened.tensor).sum().backward()
    assert image.grad is not None
    assert torch.equal(image.grad, torch.ones_like(image))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.full((3, 4, 4), float("nan")), "NaN"),
        (np.full((4, 4, 3), np.inf, np.float32), "infinite"),
        (torch.full((3, 4, 4), 200.0), "divide by 255"),
        (torch.full((3, 4, 4), -2.0), "undo a normalisation"),
        (torch.rand(5, 4, 4), "1, 3 or 4 channels"),
        (torch.rand(6, 4, 3), "permute it"),
        (np.zeros((3, 6, 5), np.uint8), "transpose it"),
        (np.zeros((4, 4, 2), np.uint8), "1, 3 or 4 channels"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "uint8"),
        (np.zeros((4, 4, 3), np.int32), "uint8, uint16 or floating"),
        (torch.rand(3, 0, 4), "no pixels"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (torch.rand(3), "shape"),
        (np.zeros(3, np.uint8), "shape"),
        (Image.new("CMYK", (4, 4)), "a CMYK picture, made for print; convert it to RGB first"),
        (42, "cannot read an image from a int"),
        (b"", "is empty"),
        (b"hello", "not an image"),
    ],
)
def test_invalid_image_raises_with_the_reason(image: object, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        open_image(image)


def test_small_overshoot_is_clipped() -> None:
    opened = open_image(torch.tensor([-0.05, 0.5, 1.05]).view(3, 1, 1))
    assert opened.tensor.flatten().tolist() == [0.0, 0.5, 1.0]


def test_error_names_a_bad_file(tmp_path: Path, photo: Image.Image) -> None:
    whole = encoded(photo, "JPEG")
    cases = {
        "empty.jpg": (b"", "is empty"),
        "text.jpg": (b"hello", "is not an image"),
        "cut.jpg": (whole[: len(whole) // 2], "is damaged or truncated"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=f"{name} {message}"):
            read_file(tmp_path / name)
    picture = Image.open(tmp_path / "cut.jpg")  # not decoded yet, and truncated
    with pytest.raises(ImageError, match="the picture is damaged or truncated"):
        open_image(picture)
    with pytest.raises(ImageError, match="nowhere.jpg does not exist"):
        read_file(tmp_path / "nowhere.jpg")
    with pytest.raises(ImageError, match="is a folder"):
        read_file(tmp_path)


def test_error_in_the_content_names_the_file(tmp_path: Path, photo: Image.Image) -> None:
    photo.convert("CMYK").save(tmp_path / "print.jpg")
    Image.fromarray(np.full((4, 4), 300, np.float32)).save(tmp_path / "range.tif")
    for name, message in (
        ("print.jpg", "it is a CMYK picture"),
        ("range.tif", r"floating-point images must be in \[0, 1\]"),
    ):
        for path in (tmp_path / name, str(tmp_path / name)):
            with pytest.raises(ImageError, match=f"^{re.escape(str(tmp_path / name))}: {message}"):
                open_image(path)
        with pytest.raises(ImageError, match=f"^the bytes given: {message}"):
            open_image((tmp_path / name).read_bytes())
    with pytest.raises(
        ImageError,
        match=r"^out.jpg: a CMYK picture cannot be written as PNG \(.*\); choose another format$",
    ):
        encode(photo.convert("CMYK"), "PNG", "out.jpg")


def test_memory_error_is_not_reported_as_damage(
    photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(*arguments: object, **options: object) -> None:
        raise MemoryError

    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(photo, "PNG", exif=exif)
    for owner, name in (
        (Image, "preinit"),
        (ImageFile.ImageFile, "load"),
        (ImageOps, "exif_transpose"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, short)
            with pytest.raises(MemoryError):
                open_image(content)
    monkeypatch.setattr(Image.Image, "save", short)
    with pytest.raises(MemoryError):
        encode(photo, "PNG")


def test_several_frames_are_rejected(tmp_path: Path, photo: Image.Image) -> None:
    photo.save(tmp_path / "two.gif", save_all=True, append_images=[photo.rotate(90)])
    for frames in (tmp_path / "two.gif", Image.open(tmp_path / "two.gif")):
        with pytest.raises(ImageError, match="contains 2 frames"):
            open_image(frames)


def test_more_grey_modes(photo: Image.Image, caplog: pytest.LogCaptureFixture) -> None:
    grey = np.asarray(photo.convert("L")).astype(np.int32) * 200
    opened = open_image(Image.fromarray(grey))  # mode I
    np.testing.assert_array_equal(np.asarray(opened.close(opened.tensor)), grey)
    big_endian = Image.frombytes("I;16B", photo.size, grey.astype(">u2").tobytes())
    opened = open_image(big_endian)
    np.testing.assert_array_equal(np.asarray(opened.close(opened.tensor)), grey)
    file = io.BytesIO()
    Image.fromarray(grey.astype(np.uint16)).save(file, "PNG", transparency=5)
    open_image(Image.open(file))
    assert "a grey 16-bit image loses its transparent value when Pillow opens it" in caplog.text
    bilevel = photo.convert("1")
    opened = open_image(bilevel)
    np.testing.assert_array_equal(
        np.asarray(opened.close(opened.tensor)), np.asarray(bilevel.convert("L"))
    )


@given(height=st.integers(1, 40), width=st.integers(1, 40), multiple=st.sampled_from([1, 2, 8, 16]))
def test_crop_undoes_padding(height: int, width: int, multiple: int) -> None:
    image = (
        torch.arange(height * width, dtype=torch.float32)
        .view(1, 1, height, width)
        .expand(1, 3, -1, -1)
    )
    padded = pad_to_multiple(image, multiple)
    assert padded.shape[2] % multiple == padded.shape[3] % multiple == 0
    assert padded.shape[2] - height < multiple
    assert padded.shape[3] - width < multiple
    assert torch.equal(crop_to(padded, (height, width)), image)


@pytest.mark.parametrize("kind", ["uint8", "float32", "alpha", "batch", "tensor", "deep"])
def test_bgr_is_converted_to_rgb_and_back(kind: str) -> None:
    generator = np.random.default_rng(0)
    shape = {"alpha": (9, 7, 4), "batch": (2, 9, 7, 3)}.get(kind, (9, 7, 3))
    rgb: Any = generator.integers(0, 256, shape, dtype=np.uint16 if kind == "deep" else np.uint8)
    rgb = rgb.astype(np.float32) / 255 if kind == "float32" else rgb
    bgr = rgb.copy()
    bgr[..., :3] = rgb[..., 2::-1]
    if kind == "tensor":
        rgb, bgr = (torch.from_numpy(array).movedim(-1, -3) for array in (rgb, bgr))
    opened, expected = open_image(bgr, "bgr"), open_image(rgb)
    assert torch.equal(opened.tensor, expected.tensor)
    darker = opened.tensor * torch.tensor([0.2, 0.5, 0.8]).view(3, 1, 1)
    found, wanted = np.asarray(opened.close(darker)), np.asarray(expected.close(darker))
    axis = -3 if kind == "tensor" else -1
    swapped = np.take(wanted, [2, 1, 0, 3][: wanted.shape[axis]], axis)
    assert np.array_equal(found, swapped)
    assert type(opened.close(darker)) is type(bgr)


def test_channel_order_does_not_affect_pictures_and_grey() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    for image in (Image.fromarray(colours), colours[..., 0], colours[..., :1]):
        assert torch.equal(open_image(image, "bgr").tensor, open_image(image).tensor)
