"""Write the tables of image formats, video formats and runtimes in the docs from the code.

python tools/document_formats.py

A table is between the lines `<!-- table: NAME -->` and `<!-- end of table -->`.
"""

from __future__ import annotations

import re
from pathlib import Path

from vrdir.export.backends import BACKENDS
from vrdir.images.formats import FORMATS, Format
from vrdir.video.formats import FORMATS as VIDEO_FORMATS

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [DOCS / "images.md", DOCS / "video.md", DOCS / "export.md"]
TABLE = re.compile(r"(<!-- table: ([a-z ]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def keeps(each: Format) -> dict[str, bool]:
    """Return what an image format keeps, by the columns of its table."""
    return {
        "exact": not each.lossy,
        "grey16": each.grey_bits == 16,
        "colour16": each.colour_bits == 16,
        "alpha": each.alpha,
        "exif": each.exif,
        "xmp": each.xmp,
        "icc": each.icc,
    }


def image_formats() -> list[list[str]]:
    """Return the rows of the table of image formats, the head first."""
    rows = [["Format", "Suffix", *keeps(FORMATS[0])]]
    for each in FORMATS:
        answers = ["yes" if kept else "-" for kept in keeps(each).values()]
        rows.append([each.name, " ".join(each.suffixes), *answers])
    return rows


def video_formats() -> list[list[str]]:
    """Return the rows of the table of video formats, the head first."""
    rows = [["Suffix", "Container", "Codec", "`crf`"]]
    rows += [
        [each.suffix, each.container, each.codec, each.options["crf"]] for each in VIDEO_FORMATS
    ]
    return rows


def runtimes() -> list[list[str]]:
    """Return the rows of the table of runtimes, the head first."""
    rows = [["Runtime", "`--backend`", "Extra", "Runs", "`vrdir export` writes"]]
    for each in BACKENDS.values():
        written = " and ".join(each.written) or "-"
        runs = " ".join(each.suffixes)
        rows.append([each.title, f"`{each.name}`", f"`{each.extra}`", runs, written])
    return rows


TABLES = {
    "image formats": image_formats,
    "video formats": video_formats,
    "runtimes": runtimes,
}


def with_tables(page: str) -> str:
    """Return a page's text with its tables written anew."""

    def table(match: re.Match[str]) -> str:
        head, *rows = (f"| {' | '.join(row)} |\n" for row in TABLES[match[2]]())
        rule = "|".join(["", *["---"] * (head.count(" | ") + 1), "\n"])
        return f"{match[1]}\n{head}{rule}{''.join(rows)}\n{match[3]}"

    return TABLE.sub(table, page)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
