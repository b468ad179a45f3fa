"""The terminal: standard output and standard error, and text that is safe to print."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape as escape_markup

# Without emoji: file names and "list:100:" stay unchanged.
out, err = (
    Console(stderr=errors, highlight=False, soft_wrap=True, emoji=False) for errors in (False, True)
)


def escape(text: object) -> str:
    """Return text that the terminal shows literally, without markup."""
    return escape_markup(printable(text))


def printable(text: object) -> str:
    """Return text that can be encoded: bytes of a file name that are not UTF-8 are escaped."""
    return str(text).encode("utf-8", "backslashreplace").decode()
