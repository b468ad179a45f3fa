"""Errors on the command line: one line for the user's mistakes, a traceback for our own."""

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


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Print the user's errors in one line, and exit.

    Only the package's own errors, and system errors that name a file, are the user's. Any other
    exception is a bug and passes.

    The exit status is 2 for what cannot be done as asked, 1 for what failed during the work, and
    128 plus the number of a signal.
    """
    try:
        yield
    except Stopped as signalled:
        fail("stopped", 128 + signalled.number)
    except typer.Exit:  # a RuntimeError to some versions
        raise
    except (VrdirError, ValueError, *NAMED_ERRORS) as error:
        fail(error, FAILED if isinstance(error, ArithmeticError) else WRONG_REQUEST)
    except (RuntimeError, ArithmeticError, MemoryError) as error:
        fail(error, FAILED)
    except OSError as error:
        if error.filename is None:  # of a stream, such as a closed pipe: `vrdir.__main__` ends it
            raise
        fail(error, WRONG_REQUEST if isinstance(error, NAMED_ERRORS) else FAILED)


def fail(message: object, status: int) -> NoReturn:
    """Print an error in one line and exit; with `--debug` its traceback before it.

    Raises:
        typer.Exit: always.
    """
    if SETTINGS.debug and isinstance(message, BaseException):
        err.print(escape("".join(traceback.format_exception(message))))
    text = message
    if isinstance(message, BaseException):
        text = " ".join(str(message).split()) or type(message).__name__
    err.print(f"[bold red]error:[/] {escape(text)}")
    raise typer.Exit(status)


def report_bug(error: BaseException) -> None:
    """Print the traceback of an error that is not the user's, and how to report it."""
    err.print(escape("".join(traceback.format_exception(error))), end="")
    err.print(
        "[bold red]error:[/] this is a fault of vrdir, not yours. Please report it: send the "
        "command, the lines above and the output of `vrdir info` to the project's issues."
    )


def quiet_pillow() -> None:
    """Hide Pillow's warnings, which name lines of its source but no file.

    The readers and writers of this package report what matters about a file.
    """
    if not sys.warnoptions:  # `python -W` and PYTHONWARNINGS ask for them
        warnings.filterwarnings("ignore", module=r"PIL\.")
