"""Collect clean photos to train on from packages of free software.

    dpkg-deb -x gcompris-qt-data_26.2-1_all.deb UNPACKED/gcompris      # and so on
    python tools/package_photos.py UNPACKED OUT

tools/package_photos.txt names the packages with their versions and licences, and each photo: the
SHA-256 of its file, its longest side in pixels, and its name. Photos are reduced to that side, at
which they are sharp and free of JPEG's blocks. They were chosen by eye: no drawings, cut-outs,
murky water or haze. None of them is a test photo; they were compared by grey copies of 16 x 16
pixels, and mirror images of these. Photos inside Qt's resource bundles (.rcc) are found, too.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageOps

from vrdir.atomic import whole_file

LIST = Path(__file__).with_suffix(".txt")
# How a JPEG or WebP file begins.
START = re.compile(rb"\xff\xd8\xff[\xe0\xe1\xdb]|RIFF....WEBP", re.DOTALL)


class Photo(NamedTuple):
    """A listed photo: the longest side it is reduced to, and its name."""

    side_px: int
    name: str


def listed(file: Path) -> dict[str, Photo]:
    """Return the photos that a list names, by the SHA-256 of their files."""
    lines = (
        line.split() for line in file.read_text().splitlines() if line and not line.startswith("#")
    )
    return {digest: Photo(int(side), name) for digest, side, name in lines}


def files_in(folder: Path) -> Iterator[bytes]:
    """Yield the contents of the files in a folder, and of the files bundled in them."""
    for path in sorted(
        path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()
    ):
        content = path.read_bytes()
        yield content
        if path.suffix == ".rcc":
            yield from bundled(content)


def bundled(bundle: bytes) -> Iterator[bytes]:
    """Yield the JPEG and WebP files that a Qt resource bundle stores uncompressed.

    Four bytes before each file hold its length, big-endian.
    """
    for match in START.finditer(bundle):
        start = match.start()
        end = start + int.from_bytes(bundle[max(start - 4, 0) : start], "big")
        # Otherwise the bytes before it are not a length, and no file begins here.
        if end <= len(bundle):
            yield bundle[start:end]


def reduced(content: bytes, side_px: int) -> Image.Image:
    """Return an image file's picture, upright and RGB, reduced to a longest side in pixels."""
    stored = Image.open(io.BytesIO(content))
    if stored.format == "JPEG":
        # Decode at a reduced size: some files have 30 megapixels.
        stored.draft("RGB", (2 * side_px, 2 * side_px))
    image = ImageOps.exif_transpose(stored).convert("RGB")
    image.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    return image


def main() -> None:
    """Write the listed photos as PNG files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("unpacked", type=Path, help="folder with the packages, unpacked")
    parser.add_argument("out", type=Path, help="folder to write PNG files to")
    parser.add_argument("--list", type=Path, default=LIST, help="default: the one beside this tool")
    arguments = parser.parse_args()
    if not arguments.unpacked.is_dir():
        parser.error(f"{arguments.unpacked} is not a folder")
    wanted = listed(arguments.list)
    arguments.out.mkdir(parents=True, exist_ok=True)
    total = len(wanted)
    for content in files_in(arguments.unpacked):
        if photo := wanted.pop(hashlib.sha256(content).hexdigest(), None):
            with whole_file(arguments.out / f"{photo.name}.png") as part:
                reduced(content, photo.side_px).save(part, format="PNG")
    print(f"{total - len(wanted)} of {total} photos written to {arguments.out}")
    for photo in wanted.values():
        print(f"not found: {photo.name}")
    if wanted:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
