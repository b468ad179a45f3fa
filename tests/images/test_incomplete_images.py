"""Files that lack a part of their picture, which Pillow would leave black or grey."""

import gzip
import io
import os
import struct
import time
import zlib
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFile

from vrdir import ImageError
from vrdir.images import reading
from vrdir.images.convert import open_image
from vrdir.images.reading import decode
from vrdir.images.soundness import whole_files_only

PIXELS = np.random.default_rng(0).integers(1, 256, (80, 64, 3), dtype=np.uint8)


def encoded(pixels: np.ndarray[Any, Any], file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, file_format, **options)
    return buffer.getvalue()


def tiff(pixels: np.ndarray[Any, Any] = PIXELS, **options: Any) -> bytearray:
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        pixels,
        photometric="rgb" if pixels.ndim == 3 else "minisblack",
        metadata=None,
        **options,
    )
    return bytearray(buffer.getvalue())


def entries(content: bytes | bytearray) -> dict[int, tuple[int, int, int, int]]:
    """Read the first directory of a little-endian TIFF.

    Returns:
        By tag: the entry's offset, type and count, and the offset of its values.
    """
    (directory,) = struct.unpack_from("<I", content, 4)
    found = {}
    for place in range(
        directory + 2, directory + 2 + 12 * struct.unpack_from("<H", content, directory)[0], 12
    ):
        tag, kind, count = struct.unpack_from("<HHI", content, place)
        inline = count * {1: 1, 2: 1, 3: 2, 4: 4, 5: 8}.get(kind, 8) <= 4
        found[tag] = (
            place,
            kind,
            count,
            place + 8 if inline else struct.unpack_from("<I", content, place + 8)[0],
        )
    return found


def with_fewer(content: bytearray, *tags: int) -> bytearray:
    """Cut off half of these tags' values."""
    for tag in tags:
        place, kind, count, _ = entries(content)[tag]
        values = content[entries(content)[tag][3] :][: count // 2 * {3: 2, 4: 4}[kind]]
        struct.pack_into("<I", content, place + 4, count // 2)
        if len(values) <= 4:
            content[place + 8 : place + 12] = bytes(values).ljust(4, b"\0")
    return content


def with_values(content: bytearray, tag: int, change: Any) -> bytearray:
    """Change each of a tag's values."""
    _, kind, count, start = entries(content)[tag]
    form = f"<{count}{ {3: 'H', 4: 'I'}[kind] }"
    values = struct.unpack_from(form, content, start)
    struct.pack_into(
        form, content, start, *(change(number, value) for number, value in enumerate(values))
    )
    return content


WHOLE = {
    "strips": lambda: tiff(PIXELS, rowsperstrip=8),
    "tiles": lambda: tiff(PIXELS, tile=(16, 16)),
    "planes": lambda: tiff(np.moveaxis(PIXELS, -1, 0), rowsperstrip=8, planarconfig="separate"),
    "tiles zlib": lambda: tiff(PIXELS, tile=(16, 16), compression="zlib"),
    "planes zlib": lambda: tiff(
        np.moveaxis(PIXELS, -1, 0), rowsperstrip=8, planarconfig="separate", compression="zlib"
    ),
} | {
    name: lambda name=name: bytearray(encoded(PIXELS, "TIFF", compression=name, strip_size=1600))
    for name in ("tiff_lzw", "packbits", "tiff_adobe_deflate", "jpeg")
}  # fmt: skip


@pytest.mark.parametrize("kind", WHOLE)
def test_tiff_with_missing_strips_is_rejected(kind: str) -> None:
    whole = WHOLE[kind]()
    assert decode(bytes(whole), "whole.tif").size == (64, 80)
    offsets, lengths = (324, 325) if "tiles" in kind else (273, 279)
    for damaged in (
        with_fewer(whole.copy(), offsets, lengths),
        with_fewer(whole.copy(), offsets),
        with_values(
            with_values(whole.copy(), offsets, lambda n, v: v * (n % 2)),
            lengths,
            lambda n, v: v * (n % 2),
        ),  # sparse
        with_values(whole.copy(), lengths, lambda n, v: v // 2),
    ):
        with pytest.raises(ImageError, match="half.tif is damaged or truncated"):
            decode(bytes(damaged), "half.tif")
        with pytest.raises(
            ImageError, match="the picture is damaged or truncated"
        ):  # also if opened by Pillow
            open_image(Image.open(io.BytesIO(bytes(damaged))))


def test_tiff_with_fewer_rows_than_declared_is_rejected() -> None:
    for options in (
        {"rowsperstrip": 8},
        {"rowsperstrip": 40},
        {"rowsperstrip": 80},
        {"tile": (16, 16)},
        {"rowsperstrip": 8, "compression": "zlib"},
    ):
        damaged = with_values(tiff(PIXELS[:40], **options), 257, lambda n, v: 80)
        with pytest.raises(ImageError, match="half.tif is damaged or truncated"):
            decode(bytes(damaged), "half.tif")


def test_tiff_with_one_strip_without_length_is_read() -> None:
    content = with_values(tiff(PIXELS, rowsperstrip=80), 279, lambda n, v: 0)
    np.testing.assert_array_equal(np.asarray(decode(bytes(content), "it")), PIXELS)


def test_tiff_with_overlapping_strips_is_rejected() -> None:
    """All strips are the same few bytes of the file."""
    content = with_values(tiff(PIXELS[..., 0].copy(), rowsperstrip=8), 257, lambda n, v: 8000)
    offsets = struct.pack("<1000I", *[8] * 1000)
    for tag, place in ((273, len(content)), (279, len(content) + 4000)):
        struct.pack_into("<HII", content, entries(content)[tag][0] + 2, 4, 1000, place)
    content += offsets + struct.pack("<1000I", *[512] * 1000)
    with pytest.raises(ImageError, match="its 1000 strips need more bytes than it has"):
        decode(bytes(content), "bomb.tif")


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    rows: bytes, height: int, depth: int = 8, colour: int = 2, interlaced: bool = False
) -> bytes:
    header = struct.pack(">IIBBBBB", 64, height, depth, colour, 0, 0, interlaced)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_png_with_missing_rows_is_rejected() -> None:
    draws = np.random.default_rng(1)
    for depth, colour, row_bytes in (
        (8, 2, 192),
        (8, 0, 64),
        (16, 2, 384),
        (16, 0, 128),
        (8, 6, 256),
        (1, 0, 8),
        (8, 4, 128),
    ):
        rows = b"".join(
            b"\0" + draws.integers(1, 256, row_bytes, dtype=np.uint8).tobytes() for _ in range(80)
        )
        assert decode(png(rows, 80, depth, colour), "whole.png").size == (64, 80)
        for cut in (len(rows) // 2, len(rows) - row_bytes // 2):
            with pytest.raises(ImageError, match="half.png is damaged or truncated"):
                decode(png(rows[:cut], 80, depth, colour), "half.png")
    with pytest.raises(ImageError, match="bytes of its pixels are missing"):  # between two passes
        decode(png((b"\0" + b"\7" * 24) * 10, 80, interlaced=True), "half.png")


def test_black_pictures_are_read() -> None:
    black = np.zeros((80, 64, 3), np.uint8)
    files: list[tuple[str, dict[str, Any]]] = [
        ("PNG", {}),
        ("PNG", {"bits": 1}),
        ("JPEG", {}),
        ("TIFF", {}),
        ("JPEG2000", {}),
        ("WEBP", {}),
    ]
    for file_format, options in files:
        pixels = black[..., 0] if options else black
        assert decode(encoded(pixels, file_format, **options), "black").size == (64, 80)
    grey = np.full((81, 67, 3), 128, np.uint8)
    for options in (
        {},
        {"progressive": True},
        {"subsampling": 0},
        {"restart_marker_rows": 1},
        {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"},
    ):
        assert decode(encoded(grey, "JPEG", **options), "grey").size in ((67, 81), (81, 67))


@pytest.mark.parametrize(
    "options",
    [{}, {"subsampling": 0}, {"restart_marker_rows": 1}, {"optimize": True, "quality": 95}],
    ids=str,
)
@pytest.mark.parametrize("turn", [1, 3, 6, 8])
def test_jpeg_with_missing_blocks_is_rejected(options: dict[str, Any], turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    content = encoded(PIXELS, "JPEG", exif=exif, **options)
    named = bytearray(content)
    struct.pack_into(">H", named, content.index(b"\xff\xc0") + 5, 160)
    for damaged in (bytes(named), content[: len(content) * 2 // 3] + b"\xff\xd9"):
        with pytest.raises(
            ImageError, match="half.jpg is damaged or truncated .its last rows are missing"
        ):
            decode(damaged, "half.jpg")


def test_jpeg_2000_with_missing_tiles_is_rejected() -> None:
    for options in ({"no_jp2": True}, {}):
        whole = encoded(PIXELS, "JPEG2000", tile_size=(32, 32), **options)
        assert decode(whole, "whole.jp2").size == (64, 80)
        third = whole.index(b"\xff\x90\0\x0a\0\2")
        with pytest.raises(
            ImageError, match="half.jp2 is damaged or truncated .2 of its 6 tiles are there"
        ):
            decode(whole[:third] + b"\xff\xd9", "half.jp2")


CUT = [
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("PNG", {}),
    ("BMP", {}),
    ("GIF", {}),
    ("TGA", {"compression": "tga_rle"}),
    ("PPM", {}),
    ("JPEG2000", {}),
    ("WEBP", {}),
    ("ICO", {"sizes": [(64, 64)]}),
]


@pytest.mark.parametrize(("file_format", "options"), CUT)
def test_truncated_file_is_rejected_despite_pillow_switch(
    file_format: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    content = encoded(PIXELS, file_format, **options)
    assert min(decode(content, "a").size) >= 51
    with pytest.raises(ImageError, match="^a is"):
        decode(content[: len(content) * 6 // 10], "a")
    assert ImageFile.LOAD_TRUNCATED_IMAGES  # it is theirs again


def test_switch_is_restored_by_the_last_of_several_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with whole_files_only():
        with whole_files_only():
            assert not ImageFile.LOAD_TRUNCATED_IMAGES
        assert not ImageFile.LOAD_TRUNCATED_IMAGES
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def fits(width: int, height: int, content: bytes) -> bytes:
    """Return a FITS file whose picture is compressed by gzip."""
    cards = [
        ["SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 0"],
        [
            *("XTENSION= 'BINTABLE'", "BITPIX  = 8", "NAXIS   = 2", "NAXIS1  = 8", "NAXIS2  = 0"),
            *("PCOUNT  = 0", "GCOUNT  = 1", "ZIMAGE  = T", "ZCMPTYPE= 'GZIP_1  '"),
            *("ZBITPIX = 8", "ZNAXIS  = 2", f"ZNAXIS1 = {width}", f"ZNAXIS2 = {height}"),
        ],
    ]
    headers = ["".join(card.ljust(80) for card in [*part, "END"]).ljust(2880) for part in cards]
    return "".join(headers).encode() + gzip.compress(content)


def test_small_file_for_a_slow_decoder_is_rejected() -> None:
    assert decode(fits(8, 4, bytes(range(128))), "a.fits").size == (8, 4)
    start = time.process_time()
    with pytest.raises(ImageError, match=r"a\.fits has 100 megapixels in \d+ bytes of FITS"):
        decode(fits(10_000, 10_000, bytes(1000)), "a.fits")
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("file_format", "at", "part", "words"),
    [("PNG", 33, chunk(b"teXt", b""), "chunks"), ("JPEG", 2, b"\xff\xfe\0\2", "segments")],
)
def test_files_with_too_many_tiny_parts_are_rejected(
    file_format: str, at: int, part: bytes, words: str
) -> None:
    content = encoded(PIXELS, file_format)
    assert decode(content[:at] + part * 2000 + content[at:], "a").size == (64, 80)
    with pytest.raises(ImageError, match=f"a has too many tiny {words}"):
        decode(content[:at] + part * 25_000 + content[at:], "a")


def test_icons_larger_than_their_header_are_rejected() -> None:
    def icon(picture: bytes) -> bytes:
        return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(picture), 22) + picture

    assert decode(icon(encoded(PIXELS, "PNG")), "a.ico").size == (64, 80)
    header = struct.pack(">IIBBBBB", 13_000, 13_000, 8, 0, 0, 0, 0)
    for picture in (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header),
        struct.pack("<IiiHHIIiiII", 40, 13_000, 26_000, 1, 32, 0, 0, 0, 0, 0, 0),
    ):
        with pytest.raises(ImageError, match=r"a\.ico is an icon of 13000 x \d+ pixels"):
            decode(icon(picture), "a.ico")


def test_jpeg_with_thousands_of_scans_is_rejected() -> None:
    content = encoded(PIXELS, "JPEG", progressive=True)
    last = content.rindex(b"\xff\xc4", 0, content.rindex(b"\xff\xda"))
    for scans, honest in ((1, True), (100, True), (12000, False)):
        many = content[:-2] + content[last:-2] * scans + b"\xff\xd9"
        if honest:
            assert decode(many, "many.jpg").size == (64, 80)
        else:
            with pytest.raises(
                ImageError,
                match=r"many.jpg has 120\d\d scans, where a progressive JPEG has about ten",
            ):
                decode(many, "many.jpg")
    large = bytearray(content[:-2] + content[last:-2] * 100 + b"\xff\xd9")
    struct.pack_into(">HH", large, content.index(b"\xff\xc2") + 5, 8000, 8000)
    with pytest.raises(ImageError, match="scans"):
        decode(bytes(large), "large.jpg")
    after = content + content[last:-2] * 12000  # scans after the picture do not count
    assert decode(after, "after.jpg").size == (64, 80)


@pytest.mark.parametrize(
    "content",
    [
        b"P6\n#" + bytes(50_000_000) + b"\n64 80 255\n" + PIXELS.tobytes(),
        b"P5 " + b" " * 1_000_000 + b"64 80 255\n" + PIXELS.tobytes(),
        b"P4\n" + b"#\n" * 500_000 + b"64 80\n" + PIXELS.tobytes(),
    ],
    ids=["comment", "spaces", "comments"],
)
def test_ppm_with_a_huge_header_is_rejected(content: bytes) -> None:
    with pytest.raises(ImageError, match="huge.ppm has more than 65536 bytes before its pixels"):
        decode(content, "huge.ppm")


def test_ppm_with_comments_is_read() -> None:
    body = np.random.default_rng(0).integers(0, 256, (400, 640, 3), dtype=np.uint8)
    content = b"P6 # one\n# two\n640\t# three\n400\n255\n" + body.tobytes()
    np.testing.assert_array_equal(np.asarray(decode(content, "it")), body)


def test_jpeg_with_much_padding_is_rejected() -> None:
    content = encoded(PIXELS, "JPEG")
    assert decode(content[:2] + b"\xff" * 1000 + content[2:], "it").size == (64, 80)
    with pytest.raises(ImageError, match="it has 20000000 padding bytes between two segments"):
        decode(content[:2] + b"\xff" * 20_000_000 + content[2:], "it")


@pytest.mark.parametrize("file_format", ["JPEG2000", "WEBP", "AVIF"])
def test_large_pictures_are_decoded_in_another_process(
    file_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Because nothing can interrupt these decoders."""
    contents = [
        encoded(pixels, file_format, xmp=b"<x/>")
        for pixels in (PIXELS, np.dstack([PIXELS, PIXELS[..., :1]]))
    ]
    here = [decode(content, "it") for content in contents]
    monkeypatch.setattr(reading, "APART_PIXELS", 100)
    load = Image.Image.load
    for content, expected in zip(contents, here, strict=True):
        with monkeypatch.context() as patch:
            patch.setattr(
                ImageFile.ImageFile,
                "load",
                lambda self: pytest.fail("decoded here") if self.tile else load(self),
            )
            apart = decode(content, "it")
        assert (apart.mode, apart.info.get("xmp"), apart.format) == (
            expected.mode,
            expected.info.get("xmp"),
            expected.format,
        )
        np.testing.assert_array_equal(np.asarray(apart), np.asarray(expected))
    with pytest.raises(ImageError, match="cut is (damaged or truncated|not an image)"):
        decode(contents[0][: len(contents[0]) // 2], "cut")


@pytest.mark.skipif(os.name == "nt", reason="signals end no process on Windows")
def test_decoder_stopped_by_a_signal_is_not_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(PIXELS, "WEBP")
    monkeypatch.setattr(reading, "APART_PIXELS", 100)
    monkeypatch.setattr(
        reading, "DECODE", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    )
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded here"))
    with pytest.raises(ImageError, match=r"a\.webp was not decoded: signal 9 stopped it"):
        decode(content, "a.webp")
