"""Files: which goes where, and one after the other whatever becomes of each."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from vrdir.folders import image_files
from vrdir.images import IMAGE_SUFFIXES, DiskError, ImageError, first_line, format_of, write_file
from vrdir.inference.manifest import Manifest, Stamp

logger = logging.getLogger(__name__)


class FileJob(NamedTuple):
    """A file to read and the file to write."""

    source: Path
    target: Path


class FileResult(NamedTuple):
    """What became of a file: the share of each degradation where it was restored, or the error that stopped it.

    `earlier` if it was done before this run was taken up again.
    """

    job: FileJob
    shares: dict[str, float]
    error: str | None
    earlier: bool = False


class Processed(NamedTuple):
    """The content of a target, and the share of each degradation in its source."""

    content: bytes
    shares: dict[str, float]


def plan_files(inputs: Sequence[str | Path], output: Path, suffix: str | None = None) -> list[FileJob]:
    """Decide what is read and where it goes.

    Args:
        inputs: files, folders (searched with all below them, links followed, hidden ones left out; relative paths and names are
            kept), patterns such as "*.jpg".
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


def process_files(
    jobs: Sequence[FileJob], process: Callable[[FileJob], Processed], overwrite: bool = False, manifest: Manifest | None = None
) -> Iterator[FileResult]:
    """Process one file after another; one that fails is reported and the others still get done, unless the disk is full.

    Args:
        jobs: from `plan_files`.
        process: reads the source and returns what is to be written, and what is worth telling.
        overwrite: replace targets that exist; without it they are reported as errors.
        manifest: where finished files are noted. What it says is done, with source and target unchanged, is not done again; a
            target that this run wrote before is replaced without `overwrite`, where its source has changed since.

    Yields:
        A result per job, in order; none after one for which there was no room on the disk, or that lies on one that cannot be
        written to.
    """
    if manifest is not None:
        manifest.sweep(job.target.parent for job in jobs)
    for job in jobs:
        if manifest is not None and manifest.is_done(job.source, job.target):
            yield FileResult(job, manifest.shares(job.target), None, earlier=True)
            continue
        try:
            if not overwrite and job.target.exists() and not (manifest is not None and manifest.is_own(job.target)):
                raise ImageError(f"{job.target} exists; replace it by --overwrite, or choose another output")
            yield FileResult(job, _processed(job, process, manifest), None)
        except Exception as error:  # whatever it is, the next file is another
            logger.debug("%s", job.source, exc_info=True)
            message = first_line(error)
            named = isinstance(error, DiskError) or any(str(path) in message for path in job)
            yield FileResult(job, {}, message if named else f"{job.source}: {message}")
            if isinstance(error, DiskError):
                return


def _processed(job: FileJob, process: Callable[[FileJob], Processed], manifest: Manifest | None) -> dict[str, float]:
    source = Stamp.of(job.source)
    content, shares = process(job)
    if manifest is None or source is None:
        write_file(content, job.target)
    else:
        note = lambda facts: manifest.add(job.source, source, job.target, Stamp(facts.st_size, facts.st_mtime_ns), shares)  # noqa: E731
        write_file(content, job.target, manifest.partial_name, note)
    return shares


def _images_below(folder: Path, output: Path) -> list[Path]:
    """The images below a folder, sorted; for a sub-folder that cannot be read, the folder itself."""
    if not os.access(folder, os.R_OK | os.X_OK):
        raise PermissionError(f"{folder} cannot be read; check its permissions")
    unreadable: list[Path] = []
    found = list(image_files(folder, without=output, unreadable=lambda error: unreadable.append(Path(error.filename))))
    return sorted(found + unreadable)


class _Places:
    """Where files really are, whatever links lead there. Folders are resolved once each, not with every file in them."""

    def __init__(self) -> None:
        self.folders: dict[str, str] = {}

    def of(self, path: Path) -> str:
        folder, name = os.path.split(path)
        if folder not in self.folders:
            self.folders[folder] = os.path.realpath(folder)
        return os.path.join(self.folders[folder], name)  # noqa: PTH118 - a hundred thousand of them


def _within(path: Path, output: Path) -> bool:
    return output.resolve() in path.resolve().parents


def _without_collisions(jobs: list[FileJob]) -> list[FileJob]:
    places = _Places()
    taken: dict[str, Path] = {}
    for source, target in jobs:
        place = places.of(target)
        if place == places.of(source) or (source.is_symlink() and place == os.path.realpath(source)):
            raise ValueError(f"{source} would be written over itself; choose another output")
        if place in taken:
            raise ValueError(f"{taken[place]} and {source} would both be written to {target}; give them different outputs")
        taken[place] = source
    return jobs
