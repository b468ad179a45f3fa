"""Decide which files are read and where each result is written."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Sequence, Set
from pathlib import Path

from vrdir.batch.results import FileJob
from vrdir.errors import InputError, MissingFileError, NotPermittedError
from vrdir.images.folders import RealPaths, check_writable, files_below, skipped
from vrdir.images.formats import IMAGE_SUFFIXES, ONLY_READ, WRITTEN_SUFFIXES, plain_suffix
from vrdir.images.writing import format_of
from vrdir.video.formats import VIDEO_SUFFIXES, is_video

WILDCARDS = "*?["


def plan_files(
    inputs: Sequence[str | Path],
    output: Path,
    suffix: str | None = None,
    videos: bool = False,
    others: Counter[str] | None = None,
) -> list[FileJob]:
    """Decide which files are read and where each result is written.

    Where a folder or pattern was given, files below `output` are not inputs, so a second run does
    not read the results of the first. A sub-folder that cannot be read becomes a job that fails
    with that reason.

    Args:
        inputs: files, folders or patterns such as "*.jpg". Folders are searched with all their
            sub-folders; links are followed, hidden files are left out, relative paths are kept.
        output: a folder. It may be a file if there is one input file; a name is treated as a file
            if it is not a folder and has a suffix that begins with a letter.
        suffix: give the target of every image this suffix, such as ".png". None keeps the suffix
            of each file, and adds ".png" to a format that can only be read ("layers.psd.png").
        videos: read videos, too.
        others: counts the files in folders that are left out because of their suffix, by suffix
            (see `vrdir.images.folders.skipped`).

    Returns:
        The jobs, folder after folder, sorted inside each.

    Raises:
        MissingFileError: an input does not exist, or no image was found.
        NotPermittedError: a folder may not be read.
        InputError: `output` does not fit the inputs or cannot be written, two inputs have the same
            target, or a result would replace its own input.
    """
    others = Counter() if others is None else others
    for given in inputs:
        _check_input(given)
    wanted = IMAGE_SUFFIXES | VIDEO_SUFFIXES if videos else IMAGE_SUFFIXES
    if len(inputs) == 1 and Path(inputs[0]).is_file() and _names_a_file(output):
        job = FileJob(Path(inputs[0]), output)
        _check_single(job, suffix, videos)
        return _without_collisions([job])
    if output.suffix.lower() in wanted and not output.is_dir():
        raise InputError(f"{output} is one file, but there are several inputs; use a folder")
    found = [job for given in inputs for job in _jobs_of(given, output, wanted, others)]
    if not found:
        raise MissingFileError(_nothing_found(inputs, wanted, others))
    check_writable(output, output)
    jobs = [
        job if videos and is_video(job.target) else FileJob(job.source, _named(job.target, suffix))
        for job in found
    ]
    return _without_collisions(jobs)


def _check_input(given: str | Path) -> None:
    if given == "":  # which `Path` treats as the current folder
        raise InputError(
            "an input is empty, perhaps because a variable is not set; use . for the current folder"
        )
    path = Path(given)
    if not path.exists() and not any(wildcard in str(given) for wildcard in WILDCARDS):
        raise MissingFileError(f"{given} does not exist")
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(f"{given} is a pipe, a socket or a device; use files or folders")


def _names_a_file(output: Path) -> bool:
    """Return whether an output is a file by its suffix: results-1.0 is a folder, a.3gp is not."""
    known = output.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES
    return (known or output.suffix[1:2].isalpha()) and not output.is_dir()


def _check_single(job: FileJob, suffix: str | None, videos: bool) -> None:
    """Check the formats of one input file and one output file. Raises InputError."""
    source, target = job
    check_writable(target, target.parent)
    if videos and is_video(target):
        if plain_suffix(source) in IMAGE_SUFFIXES - {".gif"}:
            raise InputError(
                f"{source} is an image, but {target} is a video; use an image's suffix for the "
                "output"
            )
        return
    if videos and is_video(source):
        suffixes = ", ".join(sorted(VIDEO_SUFFIXES))
        raise InputError(
            f"{source} is a video; use one of {suffixes} for the output, not {target.suffix}"
        )
    # Formats, not suffixes: .jpg and .jpeg are the same.
    if format_of(target) != format_of(target.with_suffix(suffix) if suffix else target):
        raise InputError(
            f"{target} and --format {str(suffix)[1:]} are two different formats; use only one"
        )


def _jobs_of(
    given: str | Path, output: Path, wanted: Set[str], others: Counter[str]
) -> list[FileJob]:
    """Return the jobs of one input, with the names of the sources."""
    path = Path(given)
    if path.is_dir():
        sources = _files_below(path, output, wanted, others)
        return [FileJob(source, output / source.relative_to(path)) for source in sources]
    if path.is_file():
        return [FileJob(path, output / path.name)]
    found = glob.glob(str(given), recursive=True)  # noqa: PTH207 - absolute patterns too
    matches = sorted(Path(match) for match in found)
    if not matches:
        raise MissingFileError(f"{given} does not exist")
    folders = sum(match.is_dir() and match.resolve() != output.resolve() for match in matches)
    if folders:
        others["folder"] += folders
    return [
        FileJob(match, output / match.name)
        for match in matches
        if match.is_file() and not _within(match, output)
    ]


def _nothing_found(inputs: Sequence[str | Path], wanted: Set[str], others: Counter[str]) -> str:
    found = f" but {skipped(others)}" if others else ""
    looked_for = ", ".join(sorted(WRITTEN_SUFFIXES | (wanted - IMAGE_SUFFIXES)))
    return (
        f"no images in {', '.join(map(str, inputs))}{found}; looked for {looked_for} and the other "
        "formats that Pillow reads"
    )


def _named(target: Path, suffix: str | None) -> Path:
    if suffix is not None:
        return target.with_suffix(suffix)
    return target.with_name(f"{target.name}.png") if plain_suffix(target) in ONLY_READ else target


def _files_below(
    folder: Path, output: Path, suffixes: Set[str], others: Counter[str]
) -> list[Path]:
    """Return the files with these suffixes below a folder, sorted.

    A sub-folder that cannot be read is in the list itself.
    """
    if not os.access(folder, os.R_OK | os.X_OK):
        raise NotPermittedError(f"{folder} cannot be read; check its permissions")
    unreadable: list[Path] = []
    found = files_below(
        folder,
        suffixes,
        without=output,
        others=others,
        unreadable=lambda error: unreadable.append(Path(error.filename)),
    )
    return sorted([*found, *unreadable])


def _within(path: Path, output: Path) -> bool:
    return output.resolve() in path.resolve().parents


def _without_collisions(jobs: list[FileJob]) -> list[FileJob]:
    """Return the jobs. Raises InputError if two share a target, or one replaces its own source."""
    places = RealPaths()
    sources: dict[str, Path] = {}  # by the place of the target
    for source, target in jobs:
        place = places.find(target)
        own = place == places.find(source)
        if own or (source.is_symlink() and place == os.path.realpath(source)):
            raise InputError(
                f"the output would overwrite its input, {source}; choose another output"
            )
        if place in sources:
            raise InputError(
                f"{sources[place]} and {source} would both be written to {target}; "
                "use different outputs"
            )
        sources[place] = source
    return jobs
