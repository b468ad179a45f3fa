"""Text that users give: pair lists, labels, class names, cards. All of it is read here, however it was encoded."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

from vrdir.errors import first_line
from vrdir.regular_files import read_regular

MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16's, which it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_text(path: Path) -> str:
    """Read a text file: UTF-8, or UTF-16 as Windows programs write it; a byte order mark is no part of it.

    Returns:
        The text; a line ends in "\\n", whether the file has "\\n" or "\\r\\n" there.

    Raises:
        FileNotFoundError: there is no such file.
        PermissionError: it cannot be read.
        ValueError: it is a folder, a pipe, a device or a Git LFS pointer, or holds no such text.
    """
    try:
        content = read_regular(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a folder, not a text file") from None
    except PermissionError:
        raise PermissionError(f"{path} cannot be read; check its permissions") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from None
    try:
        text = content.decode(_encoding(content))
        if "\0" in text:
            raise ValueError
    except ValueError:
        raise ValueError(f"{path} is no text in UTF-8 or UTF-16; save it as UTF-8") from None
    return text.replace("\r\n", "\n")


def read_names(path: Path) -> list[str]:
    """A name a line; blank lines at the end are none. Raises as `read_text`."""
    return [name.strip() for name in read_text(path).rstrip().splitlines()]


def read_json(path: Path) -> Any:
    """Read JSON. Raises as `read_text`, and ValueError where it is none, or nested too deeply."""
    text = read_text(path)
    try:
        return json.loads(text)
    except ValueError as error:  # a number of thousands of digits too
        raise ValueError(f"{path} is no JSON ({first_line(error)})") from None
    except RecursionError:
        raise ValueError(
            f"{path} is no JSON that can be read: its brackets are nested too deeply"
        ) from None


def _encoding(content: bytes) -> str:
    """By its byte order mark; without one the zeros that half of UTF-16's bytes mostly are tell it from UTF-8."""
    for mark, encoding in MARKS.items():
        if content.startswith(mark):
            return encoding
    if b"\0" not in content[:1024]:
        return "utf-8"
    return "utf-16-le" if content[1:1024:2].count(0) >= content[:1024:2].count(0) else "utf-16-be"
