"""Files: which goes where, and one after the other whatever becomes of each."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from vrdir.images import IMAGE_SUFFIXES, ImageError, first_line, format_of
from vrdir.inference.stream import StreamReport
from vrdir.video import VIDEO_SUFFIXES, is_video

logger = logging.getLogger(__name__)


class FileJob(NamedTuple):
    """A file to read and the file to write."""

    source: Path
    target: Path


class FileResult(NamedTuple):
    """What became of a file: the share of each degradation where it was restored, of a video the report, or the error that stopped it."""

    job: FileJob
    shares: dict[str, float]
    error: str | None
    video: StreamReport | None = None


def plan_files(inputs: Sequence[str | Path], output: Path, suffix: str | None = None, videos: bool = False) -> list[FileJob]:
    """Decide what is read and where it goes.

    Args:
        inputs: files, folders (searched with all below them; relative paths and names are kept), patterns such as "*.jpg".
        output: a folder; or a file, if the input is one file and `output` has an image's suffix.
        suffix: give every image's target this suffix, such as ".png"; None keeps each file's own.
        videos: take videos, too, by their suffix.

    Returns:
        The jobs. Where a folder or pattern was given, what lies in `output` is no input, so a second run does not take the
        first one's results; a sub-folder that cannot be read is a job that will fail and say so.

    Raises:
        FileNotFoundError: an input is not there, or nothing was found.
        PermissionError: a folder may not be read.
        ValueError: `output` cannot be meant, two inputs have the same target, or an input would be written over itself.
    """
    single = len(inputs) == 1 and Path(inputs[0]).is_file()
    to_file = single and output.suffix != "" and not output.is_dir()
    wanted = IMAGE_SUFFIXES | VIDEO_SUFFIXES if videos else IMAGE_SUFFIXES
    if to_file and videos and is_video(output):
        if Path(inputs[0]).suffix.lower() in IMAGE_SUFFIXES - {".gif"}:
            raise ValueError(f"{inputs[0]} is an image, {output} a video; give the output an image's suffix")
        return _without_collisions([FileJob(Path(inputs[0]), output)])
    if to_file:
        if videos and is_video(Path(inputs[0])):
            raise ValueError(f"{inputs[0]} is a video; give the output one of {', '.join(sorted(VIDEO_SUFFIXES))}, not {output.suffix}")
        format_of(output)
        if suffix is not None and output.suffix.lower() != suffix:
            raise ValueError(f"{output} and --format {suffix[1:]} are two formats; give one")
        return _without_collisions([FileJob(Path(inputs[0]), output)])
    if output.suffix.lower() in wanted and not output.is_dir():
        raise ValueError(f"{output} is the name of one file, for several a folder is needed")

    jobs: list[FileJob] = []
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            jobs += [FileJob(source, output / source.relative_to(path)) for source in _files_below(path, output, wanted)]
        elif path.is_file():
            jobs.append(FileJob(path, output / path.name))
        else:
            matches = sorted(Path(match) for match in glob.glob(str(given), recursive=True))  # noqa: PTH207 - absolute ones too
            if not matches:
                raise FileNotFoundError(f"{given} does not exist")
            jobs += [FileJob(match, output / match.name) for match in matches if match.is_file() and not _within(match, output)]
    if not jobs:
        raise FileNotFoundError(f"no images in {', '.join(map(str, inputs))}; looked for {', '.join(sorted(wanted))}")
    if suffix is not None:
        jobs = [job if videos and is_video(job.target) else FileJob(job.source, job.target.with_suffix(suffix)) for job in jobs]
    return _without_collisions(jobs)


def process_files(
    jobs: Iterable[FileJob], process: Callable[[FileJob], dict[str, float] | StreamReport], overwrite: bool = False
) -> Iterator[FileResult]:
    """Process one file after another; one that fails is reported and the others still get done.

    Args:
        jobs: from `plan_files`.
        process: reads the source, writes the target, returns what is worth telling: shares, or of a video the report.
        overwrite: replace targets that exist; without it they are reported as errors.

    Yields:
        A result per job, in order.
    """
    for job in jobs:
        try:
            if job.target.exists() and not overwrite:
                raise ImageError(f"{job.target} exists; replace it by --overwrite, or choose another output")
            told = process(job)
            yield FileResult(job, told.shares, None, told) if isinstance(told, StreamReport) else FileResult(job, told, None)
        except Exception as error:  # whatever it is, the next file is another
            logger.debug("%s", job.source, exc_info=True)
            message = first_line(error)
            named = any(str(path) in message for path in job)
            yield FileResult(job, {}, message if named else f"{job.source}: {message}")


def _files_below(folder: Path, output: Path, suffixes: set[str]) -> list[Path]:
    """The files with these suffixes below a folder, sorted; for a sub-folder that cannot be read, the folder itself."""
    if not os.access(folder, os.R_OK | os.X_OK):
        raise PermissionError(f"{folder} cannot be read; check its permissions")
    found: list[Path] = []

    def unreadable(error: OSError) -> None:
        found.append(Path(error.filename))

    inside = output.resolve()
    skip_output = folder.resolve() in inside.parents
    for parent, folders, names in os.walk(folder, onerror=unreadable):
        here = Path(parent)
        if skip_output:
            folders[:] = [name for name in folders if (here / name).resolve() != inside]
        found += [here / name for name in names if Path(name).suffix.lower() in suffixes]
    return sorted(found)


def _within(path: Path, output: Path) -> bool:
    return output.resolve() in path.resolve().parents


def _without_collisions(jobs: list[FileJob]) -> list[FileJob]:
    taken: dict[Path, Path] = {}
    for source, target in jobs:
        if target.resolve() == source.resolve():
            raise ValueError(f"{source} would be written over itself; choose another output")
        if target in taken:
            raise ValueError(f"{taken[target]} and {source} would both be written to {target}; give them different outputs")
        taken[target] = source
    return jobs
