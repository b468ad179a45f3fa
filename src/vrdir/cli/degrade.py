"""`vrdir degrade`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vrdir.cli.console import AsJson, Format, Overwrite, escape, one_line_errors, out, run_files, suffix_of

if TYPE_CHECKING:
    from vrdir.inference.files import FileJob


def degrade(
    inputs: Annotated[list[str] | None, typer.Argument(metavar="INPUT...", help="Images, folders or patterns.", show_default=False)] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A folder, or a file for one input file.", show_default=False)
    ] = None,
    steps: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="NAME[:PARAMETER=VALUE,...]", help="haze:beta=1.2; repeat it for several, in order."),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same pixels; each file has its own draws, by its name.")] = 0,
    file_format: Format = None,
    overwrite: Overwrite = False,
    list_all: Annotated[bool, typer.Option("--list", help="Name the degradations, their parameters and defaults.")] = False,
    as_json: AsJson = False,
) -> None:
    """Synthesise degradations, to see what a recogniser or a restorer makes of them."""
    from vrdir.degradations.degrade import parameters_of
    from vrdir.degradations.mixture import DEGRADATIONS

    if list_all:
        for name in DEGRADATIONS:
            ranges = [f"{key}={shown(value)}" for key, value in parameters_of(name).items() if value is not None]
            out.print(f"[bold]{name}[/]: {escape(', '.join(ranges))}")
        return
    from vrdir.inference.files import plan_files, process_files

    with one_line_errors():
        if not inputs or output is None or not steps:
            raise ValueError("needs INPUT, -o OUTPUT and at least one --with (--list names the degradations)")
        parsed = [parse_step(step) for step in steps]
        jobs = plan_files(inputs, output, suffix_of(file_format))
    run_files(process_files(jobs, lambda job: degrade_file(job, parsed, seed), overwrite), len(jobs), "degraded", as_json)


def shown(value: Any) -> str:
    return f"{value[0]:g}..{value[1]:g}" if isinstance(value, tuple) else str(value)


def parse_step(text: str) -> tuple[str, dict[str, Any]]:
    """`haze:beta=1.2,airlight=0.8..0.9` -> ("haze", {"beta": 1.2, "airlight": (0.8, 0.9)})."""
    from vrdir.degradations.degrade import parameters_of
    from vrdir.degradations.mixture import DEGRADATIONS

    name, _, rest = text.partition(":")
    if name not in DEGRADATIONS:
        raise ValueError(f"unknown degradation {name!r}; there are {', '.join(DEGRADATIONS)}")
    known = {key: value for key, value in parameters_of(name).items() if value is not None}
    ranges: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if key not in known or not equals:
            raise ValueError(f"{name} takes {', '.join(f'{k}={shown(v)}' for k, v in known.items())}; not {part!r}")
        takes_range, kind = isinstance(known[key], tuple), int if isinstance(known[key], int) else float
        try:
            numbers = tuple(kind(number) for number in (value.split("..") if takes_range else [value]))
            if len(numbers) > 2:
                raise ValueError
        except ValueError:
            wanted = "a number, or a range such as 0.5..1.5" if takes_range else f"one {'whole ' * (kind is int)}number"
            raise ValueError(f"{name}:{key} is {wanted}, not {value!r}") from None
        ranges[key] = numbers[0] if len(numbers) == 1 else numbers
    return name, ranges


def degrade_file(job: FileJob, steps: list[tuple[str, dict[str, Any]]], seed: int) -> dict[str, float]:
    """Degrade one file. Its draws depend on the seed and its name, not on which other files there are."""
    import os
    import zlib

    from vrdir.degradations.degrade import degrade as degrade_image
    from vrdir.images import encode, format_of, read_file, write_file

    image: Any = read_file(job.source)
    for number, (name, ranges) in enumerate(steps):
        image = degrade_image(image, name, zlib.crc32(f"{seed}|{number}|".encode() + os.fsencode(job.source.stem)), **ranges)
    write_file(encode(image, format_of(job.target)), job.target)
    return {}
