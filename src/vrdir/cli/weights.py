"""`vrdir weights`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.table import Table

from vrdir.cli.console import out
from vrdir.cli.errors import FAILED, fail, one_line_errors
from vrdir.cli.json_output import print_json
from vrdir.cli.options import AsJson, BackendName
from vrdir.errors import WeightsError
from vrdir.export.backends import BACKENDS
from vrdir.spelling import did_you_mean

VerifyBackend = Annotated[
    BackendName,
    typer.Option(
        help=f"Runtime of the network; for {' and '.join(BACKENDS)} it is exported first."
    ),
]

weights_app = typer.Typer(
    help="The bundled weights: list them, show their facts, check the files.", no_args_is_help=True
)


@weights_app.command("list")
def weights_list(as_json: AsJson = False) -> None:
    """List the bundled weights: names, sizes, licences."""
    from vrdir.weights.bundled import bundled_weights

    if as_json:
        print_json(bundled_weights())
        return
    table = Table("name", "parameters", "file", "licence", "description")
    for name, facts in bundled_weights().items():
        table.add_row(
            name,
            f"{facts['parameters']:,}",
            f"{facts['bytes'] / 2**20:.1f} MiB",
            facts["licence"],
            facts["description"],
        )
    out.print(table)


@weights_app.command("show")
def weights_show(
    name: Annotated[str, typer.Argument(help="Name of bundled weights.")] = "small",
) -> None:
    """Print all facts about a set of weights, as JSON."""
    from vrdir.weights.bundled import bundled_weights

    with one_line_errors():
        facts = known_weights(name, bundled_weights())
    print_json(facts)


@weights_app.command("verify")
def weights_verify(
    name: Annotated[
        str | None, typer.Argument(help="Name of bundled weights; default: all.")
    ] = None,
    backend: VerifyBackend = "torch",
) -> None:
    """Compare the files with their released hashes, and the outputs with the golden ones."""
    from vrdir.restoring.golden import golden_problems
    from vrdir.weights.bundled import bundled_weights

    with one_line_errors():
        if name is not None:
            known_weights(name, bundled_weights())
    for each in [name] if name else bundled_weights():
        with one_line_errors():
            problems = golden_problems(each, backend)
        if problems:
            fail("; ".join(problems), FAILED)
        out.print(f"{each}: intact")


def known_weights(name: str, manifest: Mapping[str, Any]) -> Any:
    """Return the facts about bundled weights.

    Raises:
        WeightsError: there are none of this name.
    """
    if name not in manifest:
        hint = did_you_mean(name, manifest)
        raise WeightsError(
            f"unknown bundled weights {name!r}; choose one of {', '.join(manifest)}{hint}"
        )
    return manifest[name]
