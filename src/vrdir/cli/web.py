"""`vrdir web`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vrdir.cli.console import err, escape, out
from vrdir.cli.errors import one_line_errors
from vrdir.cli.options import Weights
from vrdir.cli.signals import stoppable
from vrdir.errors import InputError, require

web_app = typer.Typer(
    help="Build a page that restores photos in the browser.", no_args_is_help=True
)


@web_app.command("build")
def build(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="DIR|FILE.html",
            help="A new folder for a web host, or one file that also opens from disk.",
            show_default=False,
        ),
    ],
    weights: Weights = "small",
    runtime: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.tgz|DIR",
            help="The npm package onnxruntime-web; default: download it with npm.",
            show_default=False,
        ),
    ] = None,
    webgpu: Annotated[
        bool, typer.Option("--webgpu", help="Add the files for WebGPU (a folder only).")
    ] = False,
) -> None:
    """Write a page that restores photos in the browser; photos stay on the device."""
    with one_line_errors():
        from vrdir.restoring.loading import network_of
        from vrdir.serving.web_build import build_file, build_page

        for module in ("onnx", "onnxscript", "onnxruntime"):
            require(module, "export", f"vrdir web build needs {module}")
        one_file = target.suffix == ".html"
        if one_file and webgpu:
            raise InputError("--webgpu needs a folder: a page opened from disk cannot use it")
        network = network_of(weights)
        err.print(escape(f"exporting {weights}, which takes up to a minute"))
        with stoppable():
            if one_file:
                size = build_file(network, weights, target, runtime)
                out.print(escape(f"{target}: {size / 2**20:.1f} MiB; open it in a browser"))
                return
            sizes = build_page(network, weights, target, runtime, webgpu)
    for address, size in sorted(sizes.items(), key=lambda item: -item[1]):
        if size >= 2**20:
            out.print(escape(f"{address}: {size / 2**20:.1f} MiB"))
    out.print(
        escape(
            f"{target}: {len(sizes)} files, {sum(sizes.values()) / 2**20:.1f} MiB; "
            f"try it: python -m http.server --directory {target}"
        )
    )
