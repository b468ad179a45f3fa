"""Decide which file is read and which is written."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Sequence, Set
from pathlib import Path

from vrdir.batch.results import (
    FileJob,
)
from vrdir.images.folders import RealPaths, check_writable, files_below, skipped
from vrdir.images.formats import IMAGE_SUFFIXES, ONLY_READ, WRITTEN_SUFFIXES, plain_suffix
from vrdir.images.writing import format_of
from vrdir.video.formats import VIDEO_SUFFIXES, is_video


def plan_files(
    inputs: Sequence[str | Path],
    output: Path,
    suffix: str | None = None,
    videos: bool = False,
    others: Counter[str] | None = None,
) -> list[FileJob]:
    """Decide what is read and where it goes.

    Args:
        inputs: files, folders (searched with all below them, links followed, hidden ones left out; relative paths and names are
            kept), patterns such as "*.jpg".
        output: a folder; or a file, if the input is one file and `output` is none, yet has a suffix that begins with a letter.
        suffix: give every image's target this suffix, such as ".png"; None keeps each file's own,
            and puts ".png" behind that of a format that is only read ("layers.psd.png").
        videos: take videos, too, by their suffix.
        others: counts the files in folders that are left out for their suffix, by suffix
            (`vrdir.folders.skipped` words it).

    Returns:
        The jobs. Where a folder or pattern was given, what lies in `output` is no input, so a second run does not take the
        first one's results; a sub-folder that cannot be read is a job that will fail and say so.

    Raises:
        FileNotFoundError: an input is not there, or nothing was found.
        PermissionError: a folder may not be read.
        ValueError: `output` cannot be meant or written to, two inputs have the same target, or an input would be written over itself.
    """
    others = Counter() if others is None else others
    single = len(inputs) == 1 and Path(inputs[0]).is_file()
    for given in inputs:
        if not Path(given).exists() and not any(magic in str(given) for magic in "*?["):
            raise FileNotFoundError(f"{given} does not exist")
        if Path(given).exists() and not (Path(given).is_file() or Path(given).is_dir()):
            raise ValueError(f"{given} is a pipe, a socket or a device; give files or folders")
    to_file = (
        single and output.suffix[1:2].isalpha() and not output.is_dir()
    )  # results-1.0 is a folder
    wanted = IMAGE_SUFFIXES | VIDEO_SUFFIXES if videos else IMAGE_SUFFIXES
    if to_file:
        check_writable(output, output.parent)
    if to_file and videos and is_video(output):
        if plain_suffix(inputs[0]) in IMAGE_SUFFIXES - {".gif"}:
            raise ValueError(
                f"{inputs[0]} is an image, {output} a video; give the output an image's suffix"
            )
        return _without_collisions([FileJob(Path(inputs[0]), output)])
    if to_file:
        if videos and is_video(Path(inputs[0])):
            raise ValueError(
                f"{inputs[0]} is a video; give the output one of {', '.join(sorted(VIDEO_SUFFIXES))}, not {output.suffix}"
            )
        format_of(output)
        if suffix is not None and format_of(output) != format_of(
            output.with_suffix(suffix)
        ):  # .jpg and .jpeg are one
            raise ValueError(f"{output} and --format {suffix[1:]} are two formats; give one")
        return _without_collisions([FileJob(Path(inputs[0]), output)])
    if output.suffix.lower() in wanted and not output.is_dir():
        raise ValueError(f"{output} is the name of one file, for several a folder is needed")

    jobs: list[FileJob] = []
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            jobs += [
                FileJob(source, output / source.relative_to(path))
                for source in _files_below(path, output, wanted, others)
            ]
        elif path.is_file():
            jobs.append(FileJob(path, output / path.name))
        else:
            matches = sorted(Path(match) for match in glob.glob(str(given), recursive=True))  # noqa: PTH207 - absolute ones too
            if not matches:
                raise FileNotFoundError(f"{given} does not exist")
            jobs += [
                FileJob(match, output / match.name)
                for match in matches
                if match.is_file() and not _within(match, output)
            ]
            if folders := sum(
                match.is_dir() and match.resolve() != output.resolve() for match in matches
            ):
                others["folder"] += folders
    if not jobs:
        found = f" but {skipped(others)}" if others else ""
        looked_for = ", ".join(sorted(WRITTEN_SUFFIXES | (wanted - IMAGE_SUFFIXES)))
        raise FileNotFoundError(
            f"no images in {', '.join(map(str, inputs))}{found}; looked for {looked_for} and what else Pillow reads"
        )
    check_writable(output, output)
    jobs = [
        job if videos and is_video(job.target) else FileJob(job.source, _named(job.target, suffix))
        for job in jobs
    ]
    return _without_collisions(jobs)


def _named(target: Path, suffix: str | None) -> Path:
    if suffix is not None:
        return target.with_suffix(suffix)
    return target.with_name(f"{target.name}.png") if plain_suffix(target) in ONLY_READ else target


def _files_below(
    folder: Path, output: Path, suffixes: Set[str], others: Counter[str]
) -> list[Path]:
    """The files with these suffixes below a folder, sorted; for a sub-folder that cannot be read, the folder itself."""
    if not os.access(folder, os.R_OK | os.X_OK):
        raise PermissionError(f"{folder} cannot be read; check its permissions")
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
    places = RealPaths()
    taken: dict[str, Path] = {}
    for source, target in jobs:
        place = places.find(target)
        if place == places.find(source) or (
            source.is_symlink() and place == os.path.realpath(source)
        ):
            raise ValueError(f"{source} would be written over itself; choose another output")
        if place in taken:
            raise ValueError(
                f"{taken[place]} and {source} would both be written to {target}; give them different outputs"
            )
        taken[place] = source
    return jobs
