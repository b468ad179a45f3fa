"""The settings of a recipe as flags of `vrdir train`, which its help lists."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from typer.core import TyperCommand

from vrdir.cli.console import escape, out
from vrdir.errors import InputError

STAGES = ("context", "decoder", "branch", "fusion", "refine", "whole", "haze")
# The settings of the recipe are read by `given_settings`.
EXTRA = {"allow_extra_args": True, "ignore_unknown_options": True}


def flags_of(command: str) -> dict[str, tuple[str, str]]:
    """Return the settings of a recipe as flags of a command: key and description by flag.

    The settings of the command's stage lack its name: `train branch --steps 500`. Those of other
    stages are left out.
    """
    from vrdir.training.fields import described
    from vrdir.training.settings import Recipe

    flags = {}
    for setting in described(Recipe):
        stage, _, rest = setting.key.partition(".")
        own = stage == command and rest != ""
        if own or stage not in STAGES or command == "all":
            flag = "--" + re.sub(r"[._]", "-", rest if own else setting.key)
            flags[flag] = (setting.key, setting.description)
    return flags


class RecipeCommand(TyperCommand):
    """A command whose help lists a flag for every setting of the recipe."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help and the flags."""
        super().format_help(ctx, formatter)
        try:
            flags = flags_of(self.name or "")
        except ModuleNotFoundError:  # the command itself names what is missing
            return
        table = Table(
            "flag",
            "setting of the recipe, which has its default; values are YAML",
            box=None,
            header_style="bold",
        )
        for flag, (_, text) in flags.items():
            table.add_row(flag, escape(text))
        out.print(table)


def given_settings(
    command: str, arguments: Sequence[str], others: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the settings among a command's arguments: `--steps 500` or `--steps=500`.

    Args:
        command: the command's name.
        arguments: all arguments that are not its own options.
        others: its own options, to suggest for a mistyped one.

    Raises:
        InputError: an argument is not a setting.
    """
    from vrdir.yaml_files import parse_yaml

    flags, rest, settings = flags_of(command), list(arguments), {}
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if flag not in flags:
            close = difflib.get_close_matches(flag, [*others, *flags], 3)
            see = (
                f"did you mean {', '.join(close)}?"
                if close
                else f"see vrdir train {command} --help"
            )
            raise InputError(f"unknown option {flag}; {see}")
        if not equals and not rest:
            raise InputError(f"{flag} needs a value")
        text = value if equals else rest.pop(0)
        try:
            settings[flags[flag][0]] = parse_yaml(text)
        except ValueError as error:
            raise InputError(
                f"{flag}: {reprlib.repr(text)} is not a YAML value ({error})"
            ) from None
    return settings
