"""`vrdir weights`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from vrdir.cli.console import AsJson, fail, one_line_errors, out
from vrdir.spelling import did_you_mean

VerifyBackend = Annotated[
    Literal["torch", "onnx", "openvino"],
    typer.Option(
        help="What runs the network: onnx and openvino are given what is exported for it."
    ),
]

weights_app = typer.Typer(
    help="The bundled weights: what they are, and whether they are intact.", no_args_is_help=True
)


@weights_app.command("list")
def weights_list(as_json: AsJson = False) -> None:
    """What is bundled: names, sizes, licences."""
    from vrdir.weights.bundled import bundled_weights

    if as_json:
        sys.stdout.write(json.dumps(bundled_weights(), indent=1) + "\n")
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
    """All facts about a set of weights, as JSON."""
    from vrdir.weights.bundled import bundled_weights

    with one_line_errors():
        facts = known_weights(name, bundled_weights())
    sys.stdout.write(json.dumps(facts, indent=1) + "\n")


@weights_app.command("verify")
def weights_verify(
    name: Annotated[
        str | None, typer.Argument(help="Name of bundled weights; default: all.")
    ] = None,
    backend: VerifyBackend = "torch",
) -> None:
    """Compare the files with their released hashes, and the network's output, in a backend, with the golden one."""
    from vrdir.restoring.golden import golden_problems
    from vrdir.weights.bundled import bundled_weights

    with one_line_errors():
        if name is not None:
            known_weights(name, bundled_weights())
    for each in [name] if name else bundled_weights():
        with one_line_errors():
            problems = golden_problems(each, backend)
        if problems:
            fail("; ".join(problems), 1)
        out.print(f"{each}: intact")


def known_weights(name: str, manifest: Mapping[str, Any]) -> Any:
    if name not in manifest:
        raise ValueError(
            f"no bundled weights {name!r}; there are {', '.join(manifest)}{did_you_mean(name, manifest)}"
        )
    return manifest[name]
