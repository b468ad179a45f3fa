"""What all commands share: `--debug` and `--verbose`, before or after the name, and one check."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vrdir.cli.console import err, escape

# Options that take one path, unless a command takes several.
ONE_PATH = {
    "clean", "csv", "data", "degraded", "depth", "images", "output", "report", "val_clean",
    "work_dir",
}  # fmt: skip
LIBRARY = logging.getLogger("vrdir")


class Settings:
    """The settings of `--debug` and `--verbose`. There is one, `SETTINGS`, for the running command.

    Attributes:
        debug: print the traceback of every error.
        verbose: print what the library logs.
    """

    debug = False
    verbose = False


SETTINGS = Settings()


class TerminalHandler(logging.Handler):
    """A logging handler that prints to standard error, above progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        err.print(escape(self.format(record)))


HANDLER = TerminalHandler()
HANDLER.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))


def set_debug(context: typer.Context, value: bool) -> None:
    """Print tracebacks, and all that the library logs, from now on."""
    SETTINGS.debug = value or (context.parent is not None and SETTINGS.debug)
    show_logs()


def set_verbose(context: typer.Context, value: bool) -> None:
    """Print what the library logs from now on."""
    SETTINGS.verbose = value or (context.parent is not None and SETTINGS.verbose)
    show_logs()


def show_logs() -> None:
    """Print the library's log messages, as the settings say; warnings are always printed."""
    LIBRARY.removeHandler(HANDLER)
    LIBRARY.setLevel(logging.NOTSET)
    if SETTINGS.debug or SETTINGS.verbose:
        LIBRARY.addHandler(HANDLER)
        LIBRARY.setLevel(logging.DEBUG if SETTINGS.debug else logging.INFO)


def common_options() -> list[Any]:
    """Return the options that every command has, as Typer makes them."""
    sample = typer.Typer()

    @sample.command()
    def options(
        debug: Annotated[
            bool,
            typer.Option(
                "--debug", callback=set_debug, help="Print the traceback of errors, and all logs."
            ),
        ] = False,
        verbose: Annotated[
            bool,
            typer.Option("--verbose", callback=set_verbose, help="Print log messages of the work."),
        ] = False,
    ) -> None:
        """Take the options."""

    found = [
        option
        for option in typer.main.get_command(sample).params
        if option.name in ("debug", "verbose")
    ]
    for option in found:
        option.expose_value = False
    return found


class RootGroup(TyperGroup):
    """The command `vrdir`. It adds the common options to itself and to all commands below."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        add_options(self, common_options())


def add_options(command: Any, options: list[Any]) -> None:
    """Add options to a command and to all its sub-commands, which then refuse two paths for one."""
    command.params.extend(options)
    command.parse_args = partial(_parse_once, command, command.parse_args)
    for below in getattr(command, "commands", {}).values():
        add_options(below, options)


def _parse_once(
    command: Any, parse_args: Callable[[Any, list[str]], list[str]], context: Any, args: list[str]
) -> list[str]:
    """Parse a command's arguments; exit if an option that takes one path is given twice.

    Otherwise the first would be ignored silently, as in `--clean photos --clean more`.
    """
    _, _, given = command.make_parser(context).parse_args(list(args))
    for option, count in Counter(given).items():
        if count > 1 and option.name in ONE_PATH and not option.multiple:
            context.fail(f"{option.opts[0]} accepts one path, but is used {count} times")
    return parse_args(context, args)
