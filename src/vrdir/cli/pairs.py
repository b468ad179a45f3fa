"""The commands `vrdir pairs`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vrdir.cli.console import err, escape, out
from vrdir.cli.errors import one_line_errors
from vrdir.cli.options import AsJson, Overwrite
from vrdir.errors import DataError, ExistsError, InputError

if TYPE_CHECKING:
    from vrdir.data.public_datasets import Matching

pairs_app = typer.Typer(
    help="Lists of degraded images with their clean versions, for training and evaluation.",
    no_args_is_help=True,
)


Clean = Annotated[
    Path,
    typer.Option(help="Folder of the clean images; sub-folders are included.", show_default=False),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output", "-o", help="The list to write, such as pairs.txt.", show_default=False
    ),
]
Degraded = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the degraded images; sub-folders are included.", show_default=False
    ),
]
Rule = Annotated[
    str | None,
    typer.Option(
        help="Rule that finds the clean image of a degraded file by its name; `vrdir pairs rules` "
        "lists all rules. Default: same-name."
    ),
]
Steps = Annotated[
    list[str] | None,
    typer.Option(
        "--with",
        metavar="NAME[:PARAMETER=VALUE,...]",
        help="Synthesise the degraded images, as in noise:sigma=25; repeat it for several, in "
        "order.",
    ),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Treat an image without a partner as an error.")
]


@pairs_app.command("build")
def pairs_build(
    clean: Clean,
    output: Output,
    degraded: Degraded = None,
    rule: Rule = None,
    steps: Steps = None,
    strict: Strict = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write a pair list from two folders or a public data set: a line degraded|clean per pair."""
    from vrdir.data.pairs import write_pairs
    from vrdir.data.public_datasets import CLEAN_ONLY, match

    with one_line_errors():
        check_output(output, overwrite)
        if degraded is None and not steps:
            raise InputError(
                "needs --degraded DIR, or --with NAME to synthesise the degraded images"
            )
        chosen = rule or (CLEAN_ONLY if steps else "same-name")
        matching = match(chosen, degraded, clean, "+".join(steps or []))
        unmatched = [
            unmatched_of(matching.without_clean, "degraded", "clean"),
            unmatched_of(matching.without_degraded, "clean", "degraded"),
        ]
        if strict and any(unmatched):
            raise InputError(
                f"{'; '.join(filter(None, unmatched))}; nothing was written (--strict)"
            )
        write_pairs(matching.pairs, output)
    for message in filter(None, unmatched):
        err.print(f"[bold yellow]warning:[/] {escape(message)}")
    print_matching(matching, output, chosen, as_json)


def check_output(output: Path, overwrite: bool) -> None:
    """Raise InputError or ExistsError if a list cannot be written there."""
    if output.is_dir():
        raise InputError(
            f"{output} is a folder; name the list to write, such as {output / 'pairs.txt'}"
        )
    if output.exists() and not overwrite:
        raise ExistsError(f"{output} exists; replace it with --overwrite, or choose another output")


def print_matching(matching: Matching, output: Path, rule: str, as_json: bool) -> None:
    """Print the counts of a new list."""
    clean_images = len({pair.clean for pair in matching.pairs})
    if not as_json:
        counts = f"{counted(len(matching.pairs), 'pair')}, {counted(clean_images, 'clean image')}"
        out.print(escape(f"{output}: {counts}, by the rule {rule}"))
        return
    facts = {
        "list": str(output),
        "rule": rule,
        "pairs": len(matching.pairs),
        "clean_images": clean_images,
    }
    left = {
        "without_clean": matching.without_clean,
        "without_degraded": matching.without_degraded,
    }
    print_json(facts | {name: [str(path) for path in paths] for name, paths in left.items()})


@pairs_app.command("check")
def pairs_check(
    lists: Annotated[
        list[Path], typer.Argument(metavar="LIST...", help="Pair lists.", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Check every file of pair lists: missing files, unreadable images, different sizes.

    It prints counts, and a fingerprint to compare downloads.
    """
    with one_line_errors():
        reports = [report_of(path) for path in lists]
    if as_json:
        print_json(
            {"lists": reports, "problems": sum(len(report["problems"]) for report in reports)}
        )
    for report in () if as_json else reports:
        for problem in report["problems"]:
            err.print(f"[bold red]problem:[/] {escape(problem)}")
        out.print(escape(summary_of(report)))
    if any(report["problems"] for report in reports):
        raise typer.Exit(1)


@pairs_app.command("rules")
def pairs_rules() -> None:
    """Show the rules, with examples of file names."""
    from vrdir.data.public_datasets import RULES

    for name, rule in RULES.items():
        out.print(f"[bold]{name}[/]: {escape(rule.help)}")
        for degraded, clean in rule.examples:
            out.print(escape(f"  {degraded or '@noise:sigma=25'}|{clean}"))


def unmatched_of(files: Sequence[Path], side: str, other: str) -> str:
    """Return one line on the files without a twin, or "" if every file has one."""
    if not files:
        return ""
    have = "have" if len(files) > 1 else "has"
    return f"{counted(len(files), f'{side} image')} {have} no {other} twin, the first is {files[0]}"


def report_of(path: Path) -> dict[str, Any]:
    """Return the counts and problems of a list. Raises MissingFileError."""
    from rich.progress import track

    from vrdir.data.pairs import scan, survey

    try:
        pairs, problems = scan(path)
    except DataError as error:  # no list at all
        pairs, problems = [], [str(error)]
    seen = survey(
        track(pairs, str(path), console=err, disable=not err.is_terminal, transient=True), path
    )
    return {"list": str(path)} | seen._asdict() | {"problems": problems + seen.problems}


def summary_of(report: dict[str, Any]) -> str:
    """Return a report as one line."""
    if report["problems"]:
        return f"{report['list']}: {counted(len(report['problems']), 'problem')} (named above)"
    synthesised = f" ({report['synthesised']:,} synthesised)" if report["synthesised"] else ""
    sizes = " x ".join(
        " to ".join(map(str, dict.fromkeys(report[extents]))) for extents in ("widths", "heights")
    )
    return (
        f"{report['list']}: {counted(report['pairs'], 'pair')}{synthesised}, "
        f"{counted(report['clean'], 'clean image')}, {sizes} pixels, "
        f"fingerprint {report['fingerprint']}"
    )


def counted(number: int, what: str) -> str:
    """Return a number with its noun, in the plural where needed."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def print_json(content: Any) -> None:
    """Print JSON on standard output."""
    sys.stdout.write(json.dumps(content, indent=1) + "\n")
