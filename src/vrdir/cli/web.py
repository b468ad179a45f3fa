"""`vrdir web`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vrdir.cli.console import err, escape, out
from vrdir.cli.errors import one_line_errors
from vrdir.cli.options import Weights
from vrdir.cli.signals import stoppable

web_app = typer.Typer(help="The page that restores in the browser.", no_args_is_help=True)


@web_app.command("build")
def build(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A new folder for the page.", show_default=False)
    ],
    weights: Weights = "small",
    runtime: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.tgz|DIR",
            help="onnxruntime-web, as npm packs it; default: npm fetches it.",
            show_default=False,
        ),
    ] = None,
    webgpu: Annotated[
        bool, typer.Option("--webgpu", help="Add the files for WebGPU, 27 MB more.")
    ] = False,
) -> None:
    """Write a folder for any web host, whose page restores photos without sending them away."""
    with one_line_errors():
        from vrdir.restoring.loading import network_of
        from vrdir.serving.web_build import build_page

        network = network_of(weights)
        err.print(escape(f"exporting {weights}, which takes up to a minute"))
        with stoppable():
            sizes = build_page(network, weights, folder, runtime, webgpu)
    mebibytes = sum(sizes.values()) / 2**20
    out.print(
        escape(
            f"{folder}: {len(sizes)} files, {mebibytes:.1f} MiB; "
            f"try it: python -m http.server --directory {folder}"
        )
    )
