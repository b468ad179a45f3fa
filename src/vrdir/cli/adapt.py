"""`vrdir adapt`: adapt weights to a recogniser and a place, without labels."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from vrdir.cli.console import err, escape, out
from vrdir.cli.errors import fail, one_line_errors
from vrdir.cli.options import AsJson, Device, Threads, Weights
from vrdir.cli.signals import stoppable
from vrdir.errors import InputError, MissingPackageError

if TYPE_CHECKING:
    from vrdir.adaptation.job import Adaptation
    from vrdir.adaptation.recogniser import InputFormat

Recogniser = Annotated[
    str,
    typer.Option(
        metavar="SPEC",
        help="module:function that returns a PyTorch module (or is one), timm:NAME, "
        "torchvision:NAME, transformers:NAME, or FILE.onnx.",
        show_default=False,
    ),
]
Clean = Annotated[
    Path,
    typer.Option(
        metavar="DIR",
        help="Folder of clean photos like those that the recogniser will see: a few hundred, "
        "without labels.",
        show_default=False,
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        help="Folder for the new weights, their model card and the report.",
        show_default=False,
    ),
]
Degraded = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder of photos of the place in bad weather, without labels: they set how strong "
        "synthetic haze and noise are, and how readily a global context recognises fog.",
        show_default=False,
    ),
]
Degradations = Annotated[
    str | None,
    typer.Option(
        "--with",
        metavar="DEGRADATIONS",
        help="Degradations to adapt to, such as haze+rain or haze:beta=0.5..2; default: all that "
        "the weights restore.",
        show_default=False,
    ),
]
Minutes = Annotated[
    float,
    typer.Option(help="Approximate duration in minutes; it is converted to a number of steps."),
]
Steps = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Number of training steps, instead of --minutes; with it a run can be repeated "
        "exactly.",
        show_default=False,
    ),
]
Task = Annotated[
    Literal["classification", "detection", "reid"] | None,
    typer.Option(
        help="The recogniser's task; default: detected from its output.", show_default=False
    ),
]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Layer whose features are compared; repeat it for several. Default: the last one at "
        "each resolution.",
        show_default=False,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        metavar="PX|HxW",
        help="Size of the recogniser's input; default: read from the recogniser, or 224.",
        show_default=False,
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBERS",
        help="Mean that the recogniser's preprocessing subtracts: one number or three, such as "
        "0.485,0.456,0.406; default: read from the recogniser.",
        show_default=False,
    ),
]
Std = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBERS",
        help="Standard deviation that the preprocessing divides by.",
        show_default=False,
    ),
]
White = Annotated[
    float | None,
    typer.Option(
        "--range", help="Value of white before the preprocessing, 1 or 255.", show_default=False
    ),
]
Channels = Annotated[
    Literal["rgb", "bgr"] | None,
    typer.Option(
        help="Order of the recogniser's colour channels; default: rgb.", show_default=False
    ),
]
Trained = Annotated[
    Literal["decoder", "last", "channels", "all"],
    typer.Option(
        help="Parameters to train: the decoder's upsampling path, its two finest scales, each "
        "channel's offset and attention, or all."
    ),
]
Answers = Annotated[
    float, typer.Option(min=0, help="Weight of the loss on the recogniser's outputs.")
]
Features = Annotated[
    float, typer.Option(min=0, help="Weight of the loss on the recogniser's features.")
]
Guard = Annotated[
    float,
    typer.Option(
        min=0,
        help="Weight of the penalty for images that become worse than with the initial weights.",
    ),
]
Rate = Annotated[float, typer.Option("--learning-rate", help="Peak learning rate.")]
Batch = Annotated[
    int | None,
    typer.Option("--batch-size", min=1, help="Images per step; default: 4 of 224 x 224 pixels."),
]
View = Annotated[
    int | None,
    typer.Option(
        "--view-px",
        min=16,
        help="Side of the training crops in pixels; default: that of the recogniser's input, at "
        "most 416.",
        show_default=False,
    ),
]
HeldOut = Annotated[
    int | None,
    typer.Option(
        min=6,
        help="Number of photos held out for the proof; default: a fifth, 9 to 96.",
        show_default=False,
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Continue a stopped adaptation; use the same command as before."),
]
Anyway = Annotated[
    bool, typer.Option("--write-anyway", help="Write the weights even if the proof shows no gain.")
]


def adapt(
    context: typer.Context,
    recogniser: Recogniser,
    clean: Clean,
    output: Output,
    degraded: Degraded = None,
    degradations: Degradations = None,
    minutes: Minutes = 20.0,
    steps: Steps = None,
    weights: Weights = "small",
    task: Task = None,
    layers: Layers = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    white: White = None,
    channels: Channels = None,
    trained: Trained = "decoder",
    answers: Answers = 1.0,
    features: Features = 0.5,
    guard: Guard = 1.0,
    learning_rate: Rate = 4e-4,
    batch_size: Batch = None,
    view_px: View = None,
    held_out: HeldOut = None,
    seed: Seed = 2026,
    resume: Resume = False,
    write_anyway: Anyway = False,
    device: Device = "auto",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Adapt weights to your own frozen recogniser, without labels, and prove that it helps.

    In every step, clean photos are degraded at random, and a part of the network learns to restore
    them so that the recogniser gives the same output as for the clean photos. Held-out photos show
    whether it does. If there is no gain, or something becomes worse, no weights are written and the
    exit status is 1.
    """
    # Anything that a recogniser prints is not part of the JSON.
    with one_line_errors(), redirect_stdout(sys.stderr) if as_json else nullcontext(), stoppable():
        sys.path.append("")  # module:function may be in the current folder
        result = _adapt(context.params, quiet=as_json)
    _show(result, as_json)
    if result.weights is None:
        raise typer.Exit(1)


def _adapt(given: Mapping[str, Any], quiet: bool) -> Adaptation:
    """Adapt with the options by name, a progress bar, and lines on what is done."""
    try:
        from vrdir.adaptation.adapting import adapt as run
        from vrdir.adaptation.settings import AdaptationSettings
        from vrdir.cli.train_progress import RunProgress
        from vrdir.training.trainer import Interrupted
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"adapting needs more packages ({error.name} is missing): "
            "pip install 'vrdir[train,evaluate]'"
        ) from None
    for name in ("lightning_fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    names = ["weights", "degraded", "task", "device", "resume", "write_anyway"]
    names += AdaptationSettings.model_fields

    def note(sentence: str) -> None:
        if not quiet:
            err.print(escape(sentence))

    try:
        with RunProgress(["adapt"], lines=not quiet) as progress:
            return run(
                given["recogniser"],
                given["clean"],
                given["output"],
                layers=given["layers"] or (),
                input_format=_format(
                    *(given[name] for name in ("size", "mean", "std", "white", "channels"))
                ),
                watcher=progress,
                note=note,
                **{name: given[name] for name in names},
            )
    except Interrupted as stopped:
        fail(stopped, 128 + stopped.signal_number)


def _format(
    size: str | None,
    mean: str | None,
    std: str | None,
    white: float | None,
    channels: str | None,
) -> InputFormat:
    from vrdir.adaptation.recogniser import InputFormat

    sides = None
    if size is not None:
        parts = size.lower().split("x")
        if len(parts) > 2 or not all(part.isdecimal() and int(part) for part in parts):
            raise InputError(
                f"--size must be a number of pixels, or HxW such as 256x128, not {size!r}"
            )
        sides = (int(parts[0]), int(parts[-1]))
    return InputFormat(sides, _numbers("--mean", mean), _numbers("--std", std), white, channels)


def _numbers(option: str, text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f"{option} must be one number, or three numbers with commas, not {text!r}"
        ) from None


def _show(result: Adaptation, as_json: bool) -> None:
    """Print the figures, the verdict, and what was written."""
    if as_json:
        content = {
            "weights": str(result.weights) if result.weights is not None else None,
            "report": str(result.report),
            "paid": result.proof.paid,
            "verdict": result.proof.verdict(),
            "share": result.share,
            "steps": result.steps,
            "measure": result.proof.measure,
            "photos": result.proof.photos,
            "figures": result.proof.figures(),
        }
        sys.stdout.write(json.dumps(content, indent=1) + "\n")
        return
    table = Table("photos")
    for head in ("as they are", "before", "after", "gain", "PSNR, dB"):
        table.add_column(head, justify="right")
    for row in result.proof.rows():
        table.add_row(*(cell.partition("\n")[0] for cell in row))
    out.print(table)
    out.print(f"in %: {result.proof.measure}")
    out.print(escape(result.proof.verdict()))
    written = result.weights if result.weights is not None else "none written"
    out.print(escape(f"weights: {written}; report: {result.report}"))
