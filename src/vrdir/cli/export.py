"""`vrdir export`: one command for each backend that has its own file format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vrdir.cli.console import err, escape, out
from vrdir.cli.errors import one_line_errors
from vrdir.cli.json_output import print_json
from vrdir.cli.options import AsJson, Overwrite, Weights, check_outputs
from vrdir.cli.signals import stoppable
from vrdir.errors import InputError
from vrdir.export.backends import BACKENDS

if TYPE_CHECKING:
    from vrdir.export.backends import Backend

export_app = typer.Typer(
    help="Export the network for other runtimes, and compare it with PyTorch.",
    no_args_is_help=True,
)

Tolerance = Annotated[
    float | None,
    typer.Option(
        help="Largest allowed difference from PyTorch, for pixels in [0, 1]; default: 1e-4, with "
        "--fp16 1e-2.",
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
            help="One fixed image size, such as 480x640, for OpenCV and TensorRT; default: any.",
        ),
    ] = None,
    opset: Annotated[
        int, typer.Option(help="ONNX opset; older runtimes need a lower one.", min=1)
    ] = 18,
    fp16: Annotated[
        bool,
        typer.Option("--fp16", help="Convolutions in float16; inputs and outputs stay float32."),
    ] = False,
    tolerance: Tolerance = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write one .onnx file, for any batch, height and width, or for one size.

    It contains all that Restorer.from_onnx needs.
    """
    run(
        BACKENDS["onnx"],
        output,
        weights,
        tolerance,
        overwrite,
        as_json,
        size,
        opset=opset,
        half=fp16,
    )


def add_command(backend: Backend) -> None:
    """Add the command that writes a backend's own format."""

    @export_app.command(
        backend.name,
        help=f"Write {backend.title}'s own format, {' and '.join(backend.written)}. "
        f"{backend.title} also runs the file of `vrdir export onnx`.",
    )
    def export_own_format(
        output: Annotated[
            Path,
            typer.Option(
                "--output",
                "-o",
                help="The main file, with the first of these suffixes.",
                show_default=False,
            ),
        ],
        weights: Weights = "small",
        tolerance: Tolerance = None,
        overwrite: Overwrite = False,
        as_json: AsJson = False,
    ) -> None:
        run(backend, output, weights, tolerance, overwrite, as_json)


for each in BACKENDS.values():
    if each.written and each.written != (".onnx",):
        add_command(each)


def size_of(text: str | None) -> tuple[int, int] | None:
    """Return (H, W) of "480x640", None of None.

    Raises:
        InputError: it is not such a text.
    """
    if text is None:
        return None
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise InputError(f"--size must be HEIGHTxWIDTH in pixels, such as 480x640, not {text!r}")
    return int(height), int(width)


def run(
    backend: Backend,
    output: Path,
    weights: str,
    tolerance: float | None,
    overwrite: bool,
    as_json: bool,
    size: str | None = None,
    **how: Any,
) -> None:
    """Export a network, compare it with PyTorch, and print the differences.

    Args:
        backend: whose format is written.
        output: the main file.
        weights: the network.
        tolerance: the largest difference allowed.
        overwrite: replace files that exist.
        as_json: print JSON.
        size: the only image size, as text.
        how: further arguments of `vrdir.export.exporting.export`.
    """
    with one_line_errors():
        only = size_of(size)
        if output.suffix != backend.written[0]:
            raise InputError(f"{output} must have the suffix {backend.written[0]}")
        files = [output.with_suffix(suffix) for suffix in backend.written]
        check_outputs(files, overwrite)
        from vrdir.export.exporting import export
        from vrdir.restoring.loading import network_of

        backend.runtime()  # if it is not installed, nothing is begun
        network = network_of(weights)
        if not as_json:
            err.print(escape(f"exporting {weights}, which takes up to a minute"))
        with stoppable():
            errors = export(network, output, backend.name, tolerance=tolerance, size=only, **how)
    worst = max(errors.values())
    if as_json:
        lines = [{"shape": [b, 3, h, w], "error": error} for (b, h, w), error in errors.items()]
        print_json({"files": [str(file) for file in files], "max_error": worst, "errors": lines})
        return
    for (batch, height, width), error in errors.items():
        out.print(f"{batch} x 3 x {height} x {width}: differs from PyTorch by at most {error:.1e}")
    mebibytes = sum(file.stat().st_size for file in files) / 2**20
    takes = f"{only[0]} x {only[1]} pixels" if only else "any batch, height and width"
    names = " and ".join(map(str, files))
    out.print(escape(f"{names}: {mebibytes:.1f} MiB, {takes}; max error {worst:.1e}"))
