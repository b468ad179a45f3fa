"""Reading of text files that users give: pair lists, labels, class names, cards.

Every such file is read here, whatever its encoding.
"""

from __future__ import annotations

import codecs
import json
import os
from pathlib import Path
from typing import Any

from vrdir.errors import DataError, MissingFileError, NotPermittedError, first_line
from vrdir.regular_files import open_regular

MOST_BYTES = 1 << 30  # of a text file: COCO's own labels have half of it
# Encodings by byte order mark; UTF-32's first, because one of them begins with that of UTF-16.
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, or in UTF-16 as Windows programs write it.

    Returns:
        The text without a byte order mark; lines end in a line feed, also where the file has a
        carriage return before it.

    Raises:
        MissingFileError: the file does not exist.
        NotPermittedError: it may not be read.
        DataError: it is a folder, a pipe, a device or a Git LFS pointer, larger than 1 GiB, or no
            text in UTF-8 or UTF-16.
    """
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > MOST_BYTES:
                limit = f"{MOST_BYTES >> 30} GiB"
                raise DataError(f"{path} has more than {limit}; divide it into several files")
            content = file.read()
    except FileNotFoundError:
        raise MissingFileError(f"file {path} does not exist") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder, not a text file") from None
    except PermissionError:
        raise NotPermittedError(f"{path} cannot be read; check its permissions") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    return decode_text(content, str(path))


def decode_text(content: bytes, name: str) -> str:
    """Return the text of a file that was read from anywhere, as `read_text` does.

    Raises:
        DataError: it is not text in UTF-8 or UTF-16; the message begins with `name`.
    """
    try:
        text = content.decode(_encoding(content))
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise DataError(f"{name} is not text in UTF-8 or UTF-16; save it as UTF-8")
    return text.replace("\r\n", "\n")


def read_names(path: Path) -> list[str]:
    """Read one name per line; blank lines at the end are ignored. Raises as `read_text`."""
    return [name.strip() for name in read_text(path).rstrip().splitlines()]


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: it is not JSON, or nested too deeply.
        VrdirError: it cannot be read; as `read_text`.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except ValueError as error:  # also a number of thousands of digits
        raise DataError(f"{path} is not JSON ({first_line(error)})") from None
    except RecursionError:
        raise DataError(f"{path} cannot be read: its brackets are nested too deeply") from None


def _encoding(content: bytes) -> str:
    """Return the encoding by the byte order mark; without one, by the zeros among the first bytes.

    About half of the bytes of UTF-16 are mostly zeros; UTF-8 has none.
    """
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            return encoding
    if b"\0" not in content[:1024]:
        return "utf-8"
    return "utf-16-le" if content[1:1024:2].count(0) >= content[:1024:2].count(0) else "utf-16-be"
