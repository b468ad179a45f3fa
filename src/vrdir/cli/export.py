"""`vrdir export`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vrdir.cli.console import AsJson, Overwrite, Weights, check_outputs, err, escape, one_line_errors, out, stoppable

if TYPE_CHECKING:
    from vrdir.inference.exported_model import Backend

export_app = typer.Typer(help="Write the network for other runtimes, compared with PyTorch.", no_args_is_help=True)

Tolerance = Annotated[float, typer.Option(help="Largest difference to PyTorch allowed, of pixels in [0, 1].", min=0)]


@export_app.command("onnx")
def export_onnx(
    output: Annotated[Path, typer.Option("--output", "-o", help="The .onnx file.", show_default=False)],
    weights: Weights = "small",
    tolerance: Tolerance = 1e-4,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """One .onnx file for any batch, height and width, which carries all that Restorer.from_onnx needs."""
    run("onnx", output, (".onnx",), weights, tolerance, overwrite, as_json)


@export_app.command("openvino")
def export_openvino(
    output: Annotated[Path, typer.Option("--output", "-o", help="The .xml file; a .bin comes with it.", show_default=False)],
    weights: Weights = "small",
    tolerance: Tolerance = 1e-4,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """OpenVINO's own format, two files (.xml and .bin). It also reads what `vrdir export onnx` writes, one file, as it is."""
    run("openvino", output, (".xml", ".bin"), weights, tolerance, overwrite, as_json)


def run(backend: Backend, output: Path, suffixes: tuple[str, ...], weights: str, tolerance: float, overwrite: bool, as_json: bool) -> None:
    """Export, compare and say how far off it is."""
    with one_line_errors():
        if output.suffix != suffixes[0]:
            raise ValueError(f"{output} must be named with the suffix {suffixes[0]}")
        files = [output.with_suffix(suffix) for suffix in suffixes]
        check_outputs(files, overwrite)
        from vrdir.inference.export import export
        from vrdir.inference.restorer import network_of

        network = network_of(weights)
        if not as_json:
            err.print(escape(f"exporting {weights}, which takes up to a minute"))
        with stoppable():
            errors = export(network, output, backend, tolerance=tolerance)
    worst = max(errors.values())
    if as_json:
        lines = [{"shape": [b, 3, h, w], "error": error} for (b, h, w), error in errors.items()]
        sys.stdout.write(json.dumps({"files": [str(file) for file in files], "max_error": worst, "errors": lines}, indent=1) + "\n")
        return
    for (batch, height, width), error in errors.items():
        out.print(f"{batch} x 3 x {height} x {width}: differs from PyTorch by at most {error:.1e}")
    size = sum(file.stat().st_size for file in files) / 2**20
    out.print(escape(f"{' and '.join(map(str, files))}: {size:.1f} MiB, any batch, height and width; max error {worst:.1e}"))
