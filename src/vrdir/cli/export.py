"""`vrdir export`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vrdir.cli.console import (
    AsJson,
    Overwrite,
    Weights,
    check_outputs,
    err,
    escape,
    one_line_errors,
    out,
    stoppable,
)

if TYPE_CHECKING:
    from vrdir.export.runtimes import Backend

export_app = typer.Typer(
    help="Write the network for other runtimes, compared with PyTorch.", no_args_is_help=True
)

Tolerance = Annotated[
    float | None,
    typer.Option(
        help="Largest difference to PyTorch allowed, of pixels in [0, 1]; default: 1e-4, with --fp16 1e-2.",
        min=0,
    ),
]


@export_app.command("onnx")
def export_onnx(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The .onnx file.", show_default=False)
    ],
    weights: Weights = "small",
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW",
            help="The only size it is to take, one image at a time, such as 480x640: for OpenCV, TensorRT.",
        ),
    ] = None,
    opset: Annotated[int, typer.Option(help="Of ONNX; what a runtime knows decides.", min=1)] = 18,
    fp16: Annotated[
        bool,
        typer.Option("--fp16", help="Convolutions in float16; inputs and outputs stay float32."),
    ] = False,
    tolerance: Tolerance = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """One .onnx file, for any batch, height and width or for one size; it carries all that Restorer.from_onnx needs."""
    run(
        "onnx",
        output,
        (".onnx",),
        weights,
        tolerance,
        overwrite,
        as_json,
        size,
        opset=opset,
        half=fp16,
    )


@export_app.command("openvino")
def export_openvino(
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="The .xml file; a .bin comes with it.", show_default=False
        ),
    ],
    weights: Weights = "small",
    tolerance: Tolerance = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """OpenVINO's own format, two files (.xml and .bin). It also reads what `vrdir export onnx` writes, one file, as it is."""
    run("openvino", output, (".xml", ".bin"), weights, tolerance, overwrite, as_json)


def size_of(text: str | None) -> tuple[int, int] | None:
    """(H, W) of "480x640". Raises ValueError if it is no such text."""
    if text is None:
        return None
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise ValueError(f"--size is HEIGHTxWIDTH in pixels, such as 480x640, not {text!r}")
    return int(height), int(width)


def run(
    backend: Backend,
    output: Path,
    suffixes: tuple[str, ...],
    weights: str,
    tolerance: float | None,
    overwrite: bool,
    as_json: bool,
    size: str | None = None,
    **how: Any,
) -> None:
    """Export, compare and say how far off it is."""
    with one_line_errors():
        only = size_of(size)
        if output.suffix != suffixes[0]:
            raise ValueError(f"{output} must be named with the suffix {suffixes[0]}")
        files = [output.with_suffix(suffix) for suffix in suffixes]
        check_outputs(files, overwrite)
        from vrdir.export.export import export
        from vrdir.restoring.loading import network_of

        network = network_of(weights)
        if not as_json:
            err.print(escape(f"exporting {weights}, which takes up to a minute"))
        with stoppable():
            errors = export(network, output, backend, tolerance=tolerance, size=only, **how)
    worst = max(errors.values())
    if as_json:
        lines = [{"shape": [b, 3, h, w], "error": error} for (b, h, w), error in errors.items()]
        sys.stdout.write(
            json.dumps(
                {"files": [str(file) for file in files], "max_error": worst, "errors": lines},
                indent=1,
            )
            + "\n"
        )
        return
    for (batch, height, width), error in errors.items():
        out.print(f"{batch} x 3 x {height} x {width}: differs from PyTorch by at most {error:.1e}")
    mebibytes = sum(file.stat().st_size for file in files) / 2**20
    takes = f"{only[0]} x {only[1]} pixels" if only else "any batch, height and width"
    out.print(
        escape(
            f"{' and '.join(map(str, files))}: {mebibytes:.1f} MiB, {takes}; max error {worst:.1e}"
        )
    )
