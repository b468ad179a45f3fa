"""One image through a pipe: `-` for standard input or standard output."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from vrdir.cli.console import check_outputs, fail, refuse_unused, stoppable

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
    """Read one image, work on it and write it. Nothing else goes to standard output.

    Args:
        context: of the command, whose options for folders are refused.
        inputs: "-", or one file.
        output: "-", or a file.
        suffix: of the format of what is written, as by --format; None for the output file's, or the input's own.
        overwrite: replace the output file.
        work: what is done to the image.
        quality: of lossy formats.

    Raises:
        FileExistsError, ValueError: it cannot be done as asked.
    """
    from vrdir.errors import ImageError
    from vrdir.images.formats import WITH_QUALITY
    from vrdir.images.reading import decode, read_file
    from vrdir.images.writing import encode, format_of, write_file
    from vrdir.video.formats import is_video

    if len(inputs) != 1:
        raise ValueError(f"{PIPE} stands for one image; give no other input beside it")
    refuse_unused(context, "for one image of a pipe", "resume")
    if context.params["as_json"]:
        raise ValueError("--json is of no use for one image of a pipe; leave it out")
    source, to_pipe = Path(inputs[0]), output == Path(PIPE)
    for path in (source, output):
        if is_video(path):
            raise ValueError(f"{path} is a video, which cannot go through a pipe; give two files")
    name = "standard input" if inputs[0] == PIPE else str(source)
    if to_pipe and sys.stdout.isatty():
        raise ValueError("standard output is a terminal; send it to a file or a pipe")
    if not to_pipe:
        check_outputs([output], overwrite)
    file_format = (
        None
        if to_pipe and suffix is None
        else format_of(output.with_suffix(suffix) if suffix else output)
    )
    if not to_pipe and file_format != format_of(output):
        raise ValueError(f"{output} and --format {str(suffix)[1:]} are two formats; give one")
    try:
        with stoppable():
            picture = decode(_standard_input(), name) if inputs[0] == PIPE else read_file(source)
            written = file_format or picture.format or "PNG"
            if written not in (*WITH_QUALITY, "MPO"):
                refuse_unused(
                    context, f"for {written}: it is for JPEG, WebP, AVIF and HEIC", "quality"
                )
            content = encode(work(picture), written, name, quality)
            if not to_pipe:
                write_file(content, output)
    except ImageError as error:  # not as asked, but on the way: status 1
        fail(error if name in str(error) or str(output) in str(error) else f"{name}: {error}", 1)
    if to_pipe:
        _binary(sys.stdout).write(content)
        _binary(sys.stdout).flush()


def _standard_input() -> bytes:
    """Raises ValueError where it is a terminal."""
    if sys.stdin is None or sys.stdin.isatty():
        raise ValueError(
            "standard input is a terminal; send an image into it: vrdir ... - < photo.jpg"
        )
    return _binary(sys.stdin).read()


def _binary(stream: Any) -> BinaryIO:
    return stream.buffer
