"""The options that several commands have, and checks of their values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vrdir.cli.threads import use_threads
from vrdir.errors import ExistsError, ImageError, InputError
from vrdir.export.backends import BACKEND_NAMES, BACKENDS

if TYPE_CHECKING:
    from vrdir.batch.results import FileJob

    BackendName = str
else:
    BackendName = Literal[BACKEND_NAMES]  # from the table; Typer checks the choice

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...",
        help="Files, folders (with all sub-folders) or patterns.",
        show_default=False,
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output", "-o", help="A folder, or a file for one input file.", show_default=False
    ),
]
Weights = Annotated[
    str,
    typer.Option(help="Name of bundled weights, a model folder, or a Hugging Face repository id."),
]
SeveralWeights = Annotated[
    list[str] | None,
    typer.Option(
        "--weights",
        metavar="[NAME=]WEIGHTS",
        help="Bundled weights, a model folder, or a Hugging Face repository id; default: small. "
        "Repeat it for several columns.",
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option(help="Device to compute on: auto, cpu, cuda, cuda:1, ...")]
Backend = Annotated[
    BackendName,
    typer.Option(
        help=f"Runtime of the network. {' and '.join(BACKENDS)} run on the CPU, with weights or "
        "with a file that vrdir export wrote."
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format", help="File format of the results, such as png; default: the input's format."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Keep a manifest in the output folder; the same command then continues a stopped run.",
    ),
]
Quality = Annotated[
    int,
    typer.Option(
        min=1,
        max=100,
        help="Quality of JPEG, WebP, AVIF and HEIC results; higher gives larger files.",
    ),
]
MaxMegapixels = Annotated[
    float | None,
    typer.Option(
        help="Refuse images above this many megapixels (default 179), to stop decompression bombs."
    ),
]
Precision = Annotated[
    Literal["float32", "bf16"],
    typer.Option(help="bf16 is faster on processors with bfloat16, and slightly less exact."),
]
MaxSide = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Reduce larger images to this many pixels on the longer side before restoring.",
    ),
]
Smoothing = Annotated[
    float, typer.Option(min=0, max=0.99, help="Temporal smoothing of videos, 0 (off) to 0.99.")
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        callback=use_threads,
        help="Number of threads; default: one for each processor core.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print a machine-readable result.")]


def check_outputs(paths: Sequence[Path], overwrite: bool) -> None:
    """Check that results can be written, before time is spent on them.

    Raises:
        InputError: two are the same file, one is a folder, or one cannot be written.
        ExistsError: one exists and may not be replaced.
    """
    from vrdir.images.folders import check_writable

    if len({path.resolve() for path in paths}) < len(paths):
        raise InputError(f"two results would be written to {paths[0]}; use different names")
    for path in paths:
        if path.is_dir():
            raise InputError(f"{path} is a folder; use the name of a file")
        if path.exists() and not overwrite:
            raise ExistsError(f"{path} exists; replace it with --overwrite, or choose another name")
        check_writable(path, path.parent)


def refuse_unused(context: typer.Context, why: str, *options: str) -> None:
    """Raise InputError if the user gave an option that would have no effect.

    Args:
        context: of the command.
        why: the end of the message, such as "for videos".
        options: names without "--".
    """
    for option in options:
        source = context.get_parameter_source(option.replace("-", "_"))
        if source is not None and source.name == "COMMANDLINE":
            raise InputError(f"--{option} has no effect {why}; remove it")


def name_and_value(text: str) -> tuple[str, str]:
    """Split `NAME=VALUE`. A value alone, or a path that contains "=", gives ("", text)."""
    name, equals, value = text.partition("=")
    return (name, value) if equals and name and value and not Path(text).exists() else ("", text)


def check_quality(context: typer.Context, jobs: Sequence[FileJob]) -> None:
    """Raise InputError if --quality was given and no result has a format with a quality."""
    from vrdir.images.formats import WITH_QUALITY
    from vrdir.images.writing import format_of

    def may_have_quality(target: Path) -> bool:
        try:
            return format_of(target) in WITH_QUALITY
        except ImageError:  # the file fails later, with the reason
            return True

    if not any(may_have_quality(job.target) for job in jobs):
        refuse_unused(
            context, "here, where no result is a JPEG, WebP, AVIF or HEIC file", "quality"
        )


def allow(max_megapixels: float | None) -> None:
    """Set the limit for images that are opened, in megapixels; None keeps the default."""
    if max_megapixels is not None:
        from vrdir.images.reading import allow_megapixels

        allow_megapixels(max_megapixels)


def suffix_of(file_format: str | None) -> str | None:
    """Return ".png" for "png", None for None.

    Raises:
        ImageError: the format cannot be written.
    """
    from vrdir.images.writing import format_of

    if file_format is None:
        return None
    suffix = "." + file_format.lower().removeprefix(".")
    format_of(Path("image" + suffix))
    return suffix
