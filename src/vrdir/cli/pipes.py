"""One image through a pipe: `-` is standard input or standard output."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from vrdir.cli.errors import FAILED, fail
from vrdir.cli.options import check_outputs, refuse_unused
from vrdir.cli.signals import stoppable
from vrdir.errors import ImageError, InputError

if TYPE_CHECKING:
    import typer

    from vrdir.images.reading import Picture

PIPE = "-"


def is_piped(inputs: Sequence[str], output: Path) -> bool:
    """Return whether an image is read from standard input or written to standard output."""
    return PIPE in inputs or output == Path(PIPE)


def through_pipe(
    context: typer.Context,
    inputs: Sequence[str],
    output: Path,
    suffix: str | None,
    overwrite: bool,
    work: Callable[[Picture], Any],
    quality: int,
) -> None:
    """Read one image, process it and write it. Standard output gets nothing else.

    Args:
        context: of the command, whose options for folders are refused.
        inputs: "-", or one file.
        output: "-", or a file.
        suffix: of the format that --format names; None for the format of the output file or, to a
            pipe, of the input.
        overwrite: replace the output file.
        work: processes the image.
        quality: of formats that have one.

    Raises:
        InputError: the command cannot be carried out.
        ExistsError: the output file exists.
        typer.Exit: the image cannot be read or written; status 1.
    """
    from vrdir.images.formats import WITH_QUALITY
    from vrdir.images.reading import decode, read_file
    from vrdir.images.writing import encode, write_file

    source, to_pipe = check_pipe(context, inputs, output)
    if not to_pipe:
        check_outputs([output], overwrite)
    file_format = named_format(output, suffix, to_pipe)
    from_pipe = inputs[0] == PIPE
    name = "standard input" if from_pipe else str(source)
    try:
        with stoppable():
            picture = decode(_standard_input(), name) if from_pipe else read_file(source)
            written = file_format or picture.format or "PNG"
            if written not in (*WITH_QUALITY, "MPO"):
                refuse_unused(
                    context, f"for {written}: it is for JPEG, WebP, AVIF and HEIC", "quality"
                )
            content = encode(work(picture), written, name, quality)
            if not to_pipe:
                write_file(content, output)
    except ImageError as error:  # during the work: status 1
        named = name in str(error) or str(output) in str(error)
        fail(error if named else f"{name}: {error}", FAILED)
    if to_pipe:
        _binary(sys.stdout).write(content)
        _binary(sys.stdout).flush()


def check_pipe(context: typer.Context, inputs: Sequence[str], output: Path) -> tuple[Path, bool]:
    """Return the input, and whether the output is a pipe.

    Raises:
        InputError: the inputs, the output or the options do not fit a pipe.
    """
    from vrdir.video.formats import is_video

    if len(inputs) != 1:
        raise InputError(f"{PIPE} means one image; remove the other inputs")
    refuse_unused(context, "for one image of a pipe", "resume")
    if context.params["as_json"]:
        raise InputError("--json has no effect for one image of a pipe; remove it")
    source, to_pipe = Path(inputs[0]), output == Path(PIPE)
    for path in (source, output):
        if is_video(path):
            raise InputError(
                f"{path} is a video, which cannot go through a pipe; use files for input and output"
            )
    if to_pipe and sys.stdout.isatty():
        raise InputError("standard output is a terminal; send it to a file or a pipe")
    return source, to_pipe


def named_format(output: Path, suffix: str | None, to_pipe: bool) -> str | None:
    """Return the format that the output or --format names; None for the format of the input.

    Raises:
        InputError: the output and --format name two formats.
    """
    from vrdir.images.writing import format_of

    if to_pipe and suffix is None:
        return None
    file_format = format_of(output.with_suffix(suffix) if suffix else output)
    if not to_pipe and file_format != format_of(output):
        raise InputError(
            f"{output} and --format {str(suffix)[1:]} are two different formats; use only one"
        )
    return file_format


def _standard_input() -> bytes:
    """Return all that standard input contains. Raises InputError if it is a terminal."""
    if sys.stdin is None or sys.stdin.isatty():
        raise InputError(
            "standard input is a terminal; send an image into it: vrdir ... - < photo.jpg"
        )
    return _binary(sys.stdin).read()


def _binary(stream: Any) -> BinaryIO:
    return stream.buffer
