"""Further clean photos to train on, out of packages of free software that ship photographs.

    dpkg-deb -x gcompris-qt-data_26.2-1_all.deb UNPACKED/gcompris      # and so on, those of tools/package_photos.txt
    python tools/package_photos.py UNPACKED OUT

tools/package_photos.txt names the packages, their versions and licences, and each photo by the SHA-256 of its file, the longest side
it is reduced to (in pixels; sharp and free of JPEG's blocks at that size), and its name. The photos were chosen by eye: no drawings,
cut-outs, murky water or haze. None of them is one of the test photos, compared by their 16 x 16 grey reductions and the mirror
images of those. Photos inside Qt's resource bundles (.rcc) are found, too.
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
START = re.compile(rb"\xff\xd8\xff[\xe0\xe1\xdb]|RIFF....WEBP", re.DOTALL)  # of a JPEG or WebP file


class Photo(NamedTuple):
    side_px: int
    name: str


def listed(file: Path) -> dict[str, Photo]:
    """SHA-256 of a file -> what becomes of it."""
    lines = (
        line.split() for line in file.read_text().splitlines() if line and not line.startswith("#")
    )
    return {digest: Photo(int(side), name) for digest, side, name in lines}


def files_in(folder: Path) -> Iterator[bytes]:
    """What is in a folder's files, and in the bundles among them."""
    for path in sorted(
        path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()
    ):
        content = path.read_bytes()
        yield content
        if path.suffix == ".rcc":
            yield from bundled(content)


def bundled(bundle: bytes) -> Iterator[bytes]:
    """The JPEG and WebP files in a Qt resource bundle that it stores as they are: each after its length, 4 bytes, big-endian."""
    for match in START.finditer(bundle):
        start = match.start()
        end = start + int.from_bytes(bundle[max(start - 4, 0) : start], "big")
        if end <= len(
            bundle
        ):  # else what stands before it is no length, and this no file's beginning
            yield bundle[start:end]


def reduced(content: bytes, side_px: int) -> Image.Image:
    stored = Image.open(io.BytesIO(content))
    if stored.format == "JPEG":
        stored.draft("RGB", (2 * side_px, 2 * side_px))  # not to decode 30 megapixels for one
    image = ImageOps.exif_transpose(stored).convert("RGB")
    image.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    return image


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("unpacked", type=Path, help="folder with the packages, unpacked")
    parser.add_argument("out", type=Path, help="folder to write PNG files to")
    parser.add_argument("--list", type=Path, default=LIST, help="default: the one beside this tool")
    arguments = parser.parse_args()
    if not arguments.unpacked.is_dir():
        parser.error(f"{arguments.unpacked} is no folder")
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
