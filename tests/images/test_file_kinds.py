"""Recognition of file kinds: camera RAW, TIFFs with smaller copies, Git LFS pointers, documents."""

import io
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from vrdir import ImageError
from vrdir.data.pairs import Pair, pair_problems
from vrdir.images.convert import open_image
from vrdir.images.headers import image_size
from vrdir.images.reading import decode, read_file

PIXELS = np.random.default_rng(0).integers(0, 256, (80, 64, 3), dtype=np.uint8)
SMALL = PIXELS[::4, ::4].copy()
DNG = [(50706, "B", 4, b"\1\4\0\0", True)]
CFA: dict[str, Any] = {"photometric": 32803}


def tiff(
    *pages: tuple[np.ndarray[Any, Any], int],
    below: int = 0,
    tags: Any = (),
    big: bool = False,
    **options: Any,
) -> bytes:
    """Return a TIFF of pages with their NewSubfileType; the last `below` are in SubIFDs."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, bigtiff=big) as file:
        for number, (pixels, kind) in enumerate(pages):
            more: dict[str, Any] = {"subifds": below, "extratags": tags} if number == 0 else {}
            photometric = "rgb" if pixels.ndim == 3 else "minisblack"
            chosen = {"photometric": photometric} | (
                options if pixels.ndim == 2 or "photometric" not in options else {}
            )
            file.write(pixels, subfiletype=kind, metadata=None, **chosen, **more)
    return buffer.getvalue()


RAWS: dict[str, bytes] = {
    "a.dng": tiff((SMALL, 1), (PIXELS[..., 0], 0), below=1, tags=DNG, **CFA),
    "preview first.dng": tiff((SMALL, 1), (PIXELS, 0), below=1, tags=DNG),
    "a.nef": tiff((SMALL, 1), (PIXELS[..., 0], 0), below=1, **CFA),
    "a.pef": tiff((PIXELS[..., 0], 0), (SMALL, 1), **CFA),
    "renamed.tif": tiff((SMALL, 1), (PIXELS[..., 0], 0), below=1, **CFA),
    "linear.tif": tiff((SMALL, 1), (PIXELS[..., 0], 0), below=1, **CFA).replace(
        b"\1\0\0\0\x23\x80", b"\1\0\0\0\x4c\x88"
    ),
    "by its suffix.ARW": tiff((PIXELS, 0)),
    "a.cr2": b"II*\0\x10\0\0\0CR\2\0" + bytes(200),
    "a.cr3": b"\0\0\0\x18ftypcrx " + bytes(200),
    "a.raf": b"FUJIFILMCCD-RAW 0201" + bytes(200),
    "a.rw2": b"IIU\0\x18\0\0\0" + bytes(200),
    "a.orf": b"IIRO\x08\0\0\0" + bytes(200),
    "a.x3f": b"FOVb" + bytes(200),
    "a.mrw": b"\0MRM" + bytes(200),
    "a.crw": b"II\x1a\0\0\0HEAPCCDR" + bytes(200),
    "cut.nef": tiff((PIXELS, 0))[:6],
}


@pytest.mark.parametrize("name", RAWS)
def test_camera_raw_is_rejected_with_advice(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(RAWS[name])
    message = f"{name} is a camera's RAW file: develop it first .rawpy, darktable."
    with pytest.raises(ImageError, match=message):
        read_file(tmp_path / name)
    with pytest.raises(ImageError, match=message):
        image_size(tmp_path / name)
    (problem,) = pair_problems([Pair(tmp_path / name, None, "noise", 1)], tmp_path / "list")
    assert "develop it first" in problem


def test_dng_opened_by_pillow_is_rejected() -> None:
    for name in ("a.dng", "a.nef"):
        with pytest.raises(ImageError, match="camera's RAW file"):
            open_image(Image.open(io.BytesIO(RAWS[name])))


PYRAMIDS: dict[str, Callable[[], bytes]] = {
    "overviews": lambda: tiff((PIXELS, 0), (PIXELS[::2, ::2], 1), (SMALL, 1)),
    "overviews and masks": lambda: tiff(
        (PIXELS, 0), (PIXELS[..., 0] > 127, 4), (SMALL, 1), (SMALL[..., 0] > 127, 5)
    ),
    "thumbnail first": lambda: tiff((SMALL, 1), (PIXELS, 0)),
    "thumbnail first, BigTIFF": lambda: tiff((SMALL, 1), (PIXELS, 0), big=True),
    "full size below": lambda: tiff((SMALL, 1), (PIXELS, 0), below=1),
    "overviews below": lambda: tiff((PIXELS, 0), (SMALL, 1), below=1),
    "compressed": lambda: tiff((SMALL, 1), (PIXELS, 0), (SMALL, 1), compression="zlib"),
    "one that calls itself reduced": lambda: tiff((PIXELS, 1)),
    "all call themselves reduced": lambda: tiff((SMALL, 1), (PIXELS, 1)),
}


@pytest.mark.parametrize("kind", PYRAMIDS)
def test_tiff_with_smaller_copies_is_one_page(kind: str, tmp_path: Path) -> None:
    content = PYRAMIDS[kind]()
    (tmp_path / "a.tif").write_bytes(content)
    np.testing.assert_array_equal(np.asarray(decode(content, "a.tif")), PIXELS)
    assert image_size(tmp_path / "a.tif") == PIXELS.shape[1::-1]
    assert not pair_problems([Pair(tmp_path / "a.tif", None, "noise", 1)], tmp_path / "list")
    if kind != "full size below":  # Pillow ignores that
        assert open_image(Image.open(tmp_path / "a.tif")).tensor.shape == (1, 3, 80, 64)


def test_16_bit_tiff_with_smaller_copies_is_one_page() -> None:
    deep = PIXELS.astype(np.uint16) * 257 ^ 5
    for content in (
        tiff((deep, 0), (deep[::2, ::2], 1)),
        tiff((deep[::2, ::2].copy(), 1), (deep, 0)),
    ):
        np.testing.assert_array_equal(np.asarray(decode(content, "a.tif")), deep)


def test_tiff_with_several_pages_is_rejected(tmp_path: Path) -> None:
    content = tiff((PIXELS, 0), (SMALL, 1), (PIXELS, 0))
    with pytest.raises(ImageError, match=r"a.tif contains 2 pages"):
        decode(content, "a.tif")
    (tmp_path / "a.tif").write_bytes(content)
    (problem,) = pair_problems([Pair(tmp_path / "a.tif", None, "noise", 1)], tmp_path / "list")
    assert "contains 2 frames or pages" in problem


def test_tiff_directories_in_a_circle_do_not_hang() -> None:
    content = bytearray(tiff((PIXELS, 0)))
    (first,) = struct.unpack_from("<I", content, 4)
    link = first + 2 + 12 * struct.unpack_from("<H", content, first)[0]
    struct.pack_into("<I", content, link, first)
    np.testing.assert_array_equal(np.asarray(decode(bytes(content), "a.tif")), PIXELS)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


def test_git_lfs_pointers_are_reported(tmp_path: Path) -> None:
    message = "a.jpg is a Git LFS pointer, not the file itself; run: git lfs pull"
    (tmp_path / "a.jpg").write_bytes(LFS)
    for read in (read_file, image_size, open_image):
        with pytest.raises(ImageError, match=message):
            read(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match="is a Git LFS pointer"):
        open_image(LFS)
    (problem,) = pair_problems([Pair(tmp_path / "a.jpg", None, "noise", 1)], tmp_path / "list")
    assert message in problem


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"%PDF-1.7\n", "a PDF document; export its pages"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "an EPS drawing"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
        (b"<!DOCTYPE html><title>404</title>", "a web page"),
        (b"\xff\x0a\0\0", "JPEG XL"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "a video"),
        (b"PK\3\4", "an archive"),
    ],
)
def test_error_names_the_kind_of_other_files(content: bytes, kind: str) -> None:
    with pytest.raises(ImageError, match=f"it is {kind}"):
        decode(content + bytes(50), "it")


def test_replaced_pil_image_open_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ultralytics replaces it, and tries to install a library for files that are not images."""

    def other(*arguments: object, **options: object) -> None:
        raise ModuleNotFoundError("No module named 'pi_heif'")

    monkeypatch.setattr(Image, "open", other)
    content = io.BytesIO()
    Image.fromarray(PIXELS).save(content, "PNG")
    np.testing.assert_array_equal(np.asarray(decode(content.getvalue(), "it")), PIXELS)
    with pytest.raises(
        ImageError, match="it is not an image, or has a file format that Pillow does not support"
    ):
        decode(b"hello", "it")


@pytest.mark.parametrize("length", [257, 300, 5000])
def test_palette_with_more_alpha_values_than_colours(length: int) -> None:
    from tests.images.test_incomplete_images import chunk

    palette = Image.fromarray(PIXELS).quantize(16)
    buffer = io.BytesIO()
    palette.save(buffer, "PNG")
    content = buffer.getvalue()
    place = content.index(b"IDAT") - 4
    content = content[:place] + chunk(b"tRNS", bytes([255]) * length) + content[place:]
    for image in (content, Image.open(io.BytesIO(content))):
        opened = open_image(image)
        back = opened.close(opened.tensor)
        back = decode(back, "it") if isinstance(back, bytes) else back
        assert isinstance(back, Image.Image)
        np.testing.assert_array_equal(
            np.asarray(back.convert("RGB")), np.asarray(palette.convert("RGB"))
        )


def test_every_decoder_exception_becomes_an_image_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also exceptions after decoding: of conversions, turning, looking for depth."""
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).quantize(16).save(buffer, "PNG")
    for error in (
        ValueError("odd"),
        RuntimeError("odd"),
        OverflowError("odd"),
        RecursionError("odd"),
        AssertionError("odd"),
        KeyError("odd"),
    ):

        def broken(*arguments: object, error: Exception = error, **options: object) -> None:
            raise error

        for owner, name in (
            (Image.Image, "convert"),
            (Image.Image, "load"),
            (sys.modules["vrdir.images.reading"], "bits_lost"),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, broken)
                with pytest.raises(ImageError, match="is damaged or truncated .*odd"):
                    open_image(buffer.getvalue())


def test_pipes_are_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link.png").symlink_to("pipe")
    for read in (read_file, image_size, open_image):
        with pytest.raises(ImageError, match="link.png is a pipe, a socket or a device"):
            read(tmp_path / "link.png")
    (problem,) = pair_problems([Pair(tmp_path / "link.png", None, "noise", 1)], tmp_path / "list")
    assert "is a pipe, a socket or a device" in problem


def test_video_that_is_not_a_regular_file(tmp_path: Path) -> None:
    pytest.importorskip("av")
    from vrdir.errors import VideoError
    from vrdir.video.reading import VideoReader

    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "pointer.mp4").write_bytes(LFS)
    for name, message in (
        ("pipe.mp4", "pipe.mp4 is a pipe, a socket or a device"),
        ("pointer.mp4", "pointer.mp4 is a Git LFS pointer, not the file itself; run: git lfs pull"),
        ("nowhere.mp4", "nowhere.mp4 does not exist"),
    ):
        with pytest.raises(VideoError, match=message):
            VideoReader(tmp_path / name)


def test_lists_and_labels_that_are_not_regular_files(tmp_path: Path) -> None:
    from vrdir.data.pairs import read_pairs
    from vrdir.degradations.degrade import degrade
    from vrdir.evaluation.recognition.labels.classification import read_classification
    from vrdir.evaluation.recognition.labels.detection import read_detection

    os.mkfifo(tmp_path / "pipe")
    for name in ("labels.json", "labels.csv", "depth.npy"):
        (tmp_path / name).symlink_to("pipe")
    for read in (
        lambda: read_pairs(Path("/dev/zero")),
        lambda: read_pairs(tmp_path / "pipe"),
        lambda: read_detection(tmp_path / "labels.json"),
        lambda: read_classification(tmp_path / "labels.csv"),
        lambda: degrade(PIXELS, "haze", depth=tmp_path / "depth.npy"),
    ):
        with pytest.raises(ValueError, match="is a pipe, a socket or a device"):
            read()
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    (tmp_path / "a.txt").symlink_to("pipe")
    with pytest.raises(
        (ValueError, FileNotFoundError), match=r"a.txt|ordinary|pipe: a file of a type"
    ):
        read_detection(tmp_path)


def test_folder_with_a_link_to_a_pipe_is_restored(tiny: Any, tmp_path: Path) -> None:
    from vrdir import Restorer
    from vrdir.batch.plan import plan_files

    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").symlink_to("../pipe")
    Image.fromarray(PIXELS).save(tmp_path / "in" / "b.png")
    jobs = plan_files([tmp_path / "in"], tmp_path / "out")
    first, second = Restorer(tiny, "cpu").restore_files(jobs)
    assert "is a pipe, a socket or a device" in (first.error or "")
    assert second.error is None
    for given in (tmp_path / "pipe", tmp_path / "in" / "a.png", "/dev/zero"):
        with pytest.raises(ValueError, match="is a pipe, a socket or a device"):
            plan_files([given], tmp_path / "out")
