"""Files: which goes where, and one after the other whatever becomes of each."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from vrdir.images import IMAGE_SUFFIXES, ImageError, first_line, format_of

logger = logging.getLogger(__name__)


class FileJob(NamedTuple):
    """A file to read and the file to write."""

    source: Path
    target: Path


class FileResult(NamedTuple):
    """What became of a file: the share of each degradation where it was restored, or the error that stopped it."""

    job: FileJob
    shares: dict[str, float]
    error: str | None


def plan_files(inputs: Sequence[str | Path], output: Path, suffix: str | None = None) -> list[FileJob]:
    """Decide what is read and where it goes.

    Args:
        inputs: files, folders (searched with all below them; relative paths and names are kept), patterns such as "*.jpg".
        output: a folder; or a file, if the input is one file and `output` has an image's suffix.
        suffix: give every target this suffix, such as ".png"; None keeps each file's own.

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
    if to_file:
        format_of(output)
        if suffix is not None and output.suffix.lower() != suffix:
            raise ValueError(f"{output} and --format {suffix[1:]} are two formats; give one")
        return _without_collisions([FileJob(Path(inputs[0]), output)])
    if output.suffix.lower() in IMAGE_SUFFIXES and not output.is_dir():
        raise ValueError(f"{output} is the name of one file, for several a folder is needed")

    jobs: list[FileJob] = []
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            jobs += [FileJob(source, output / source.relative_to(path)) for source in _images_below(path, output)]
        elif path.is_file():
            jobs.append(FileJob(path, output / path.name))
        else:
            matches = sorted(Path(match) for match in glob.glob(str(given), recursive=True))  # noqa: PTH207 - absolute ones too
            if not matches:
                raise FileNotFoundError(f"{given} does not exist")
            jobs += [FileJob(match, output / match.name) for match in matches if match.is_file() and not _within(match, output)]
    if not jobs:
        raise FileNotFoundError(f"no images in {', '.join(map(str, inputs))}; looked for {', '.join(sorted(IMAGE_SUFFIXES))}")
    if suffix is not None:
        jobs = [FileJob(source, target.with_suffix(suffix)) for source, target in jobs]
    return _without_collisions(jobs)


def process_files(jobs: Iterable[FileJob], process: Callable[[FileJob], dict[str, float]], overwrite: bool = False) -> Iterator[FileResult]:
    """Process one file after another; one that fails is reported and the others still get done.

    Args:
        jobs: from `plan_files`.
        process: reads the source, writes the target, returns what is worth telling.
        overwrite: replace targets that exist; without it they are reported as errors.

    Yields:
        A result per job, in order.
    """
    for job in jobs:
        try:
            if job.target.exists() and not overwrite:
                raise ImageError(f"{job.target} exists; replace it by --overwrite, or choose another output")
            yield FileResult(job, process(job), None)
        except Exception as error:  # whatever it is, the next file is another
            logger.debug("%s", job.source, exc_info=True)
            message = first_line(error)
            named = any(str(path) in message for path in job)
            yield FileResult(job, {}, message if named else f"{job.source}: {message}")


def _images_below(folder: Path, output: Path) -> list[Path]:
    """The images below a folder, sorted; for a sub-folder that cannot be read, the folder itself."""
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
        found += [here / name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
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
