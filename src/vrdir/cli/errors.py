"""Errors on the command line: one line for the user's mistakes, a traceback for bugs."""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from vrdir.cli.console import err, escape
from vrdir.cli.settings import SETTINGS
from vrdir.cli.signals import Stopped
from vrdir.errors import VrdirError

WRONG_REQUEST, FAILED = 2, 1  # exit statuses
NAMED_ERRORS = (FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError)


def users_status(error: BaseException) -> int | None:
    """Return the exit status of a user's error; None for a bug.

    Only the package's own errors, and system errors that name a file, are the user's.
    """
    if isinstance(error, VrdirError):
        return FAILED if isinstance(error, ArithmeticError) else WRONG_REQUEST
    if isinstance(error, OSError) and error.filename is not None:
        return WRONG_REQUEST if isinstance(error, NAMED_ERRORS) else FAILED
    return None


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Print the user's errors in one line, and exit. Other exceptions pass.

    The exit status is 2 if the command cannot be carried out, 1 if something failed during the
    work, and 128 plus the number of a signal.

    Raises:
        typer.Exit: after a user's error, or a signal.
    """
    try:
        yield
    except Stopped as signalled:
        fail("stopped", 128 + signalled.number)
    except Exception as error:
        status = users_status(error)
        if status is None:
            raise
        fail(error, status)


def fail(message: object, status: int) -> NoReturn:
    """Print an error in one line, and exit.

    Raises:
        typer.Exit: always.
    """
    print_error(message)
    raise typer.Exit(status)


def print_error(message: object) -> None:
    """Print an error in one line; with `--debug` its traceback before it."""
    if not isinstance(message, BaseException):
        err.print(f"[bold red]error:[/] {escape(message)}")
        return
    if SETTINGS.debug:
        err.print(escape("".join(traceback.format_exception(message))))
    text = " ".join(str(message).split()) or type(message).__name__
    err.print(f"[bold red]error:[/] {escape(text)}")


def report_bug(error: BaseException) -> None:
    """Print the traceback of an error that is not the user's, and how to report it."""
    err.print(escape("".join(traceback.format_exception(error))), end="")
    err.print(
        "[bold red]error:[/] this is a bug in vrdir. Please report it in the project's issues, "
        "with the command, the lines above and the output of `vrdir info`."
    )


def quiet_pillow() -> None:
    """Hide Pillow's warnings, which name lines of its source but no file.

    The readers and writers of this package report what matters about a file.
    """
    if not sys.warnoptions:  # `python -W` and PYTHONWARNINGS request them
        warnings.filterwarnings("ignore", module=r"PIL\.")
