"""Files: which goes where, and one after the other whatever becomes of each."""

from __future__ import annotations

import glob
import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import torch

from vrdir.folders import Places, check_writable, files_below, skipped
from vrdir.image_files.formats import IMAGE_SUFFIXES, ONLY_READ, WRITTEN_SUFFIXES, plain_suffix
from vrdir.image_files.whole_files import DiskError, ImageError, first_line, result_file
from vrdir.image_files.writing import QUALITY, format_of
from vrdir.inference.diagnosis import Diagnosis
from vrdir.inference.manifest import Manifest, Stamp
from vrdir.inference.stream import StreamReport
from vrdir.video.formats import VIDEO_SUFFIXES, is_video

logger = logging.getLogger(__name__)


class FileJob(NamedTuple):
    """A file to read and the file to write."""

    source: Path
    target: Path


class ImageOptions(NamedTuple):
    """How restored images are written, and what is shown of them. Videos have none of this.

    Attributes:
        quality: of JPEG, WebP, AVIF and HEIC, 1 to 100.
        max_side: reduce larger images to this many pixels on their longer side, before they are restored.
        side_by_side: write the input and the result in one picture.
        preview_px: make previews of the input and the result, of this many pixels on the longer side; 0 for none.
    """

    quality: int = QUALITY
    max_side: int | None = None
    side_by_side: bool = False
    preview_px: int = 0


PLAIN = ImageOptions()


class Told(NamedTuple):
    """What is worth telling of a finished file.

    Attributes:
        shares: of each degradation.
        video: of a video, the report.
        change: of an image, the mean absolute difference of input and result, in 8-bit levels.
        previews: the input and the result as small WebP files, where they were asked for.
        diagnosis: of an image, what was wrong with it.
    """

    shares: dict[str, float]
    video: StreamReport | None = None
    change: float | None = None
    previews: tuple[bytes, bytes] | None = None
    diagnosis: Diagnosis | None = None


class FileResult(NamedTuple):
    """What became of a file: what is told of it where it was finished (see `Told`), or the error that stopped it.

    `earlier` if it was done before this run was taken up again.
    """

    job: FileJob
    shares: dict[str, float]
    error: str | None
    video: StreamReport | None = None
    earlier: bool = False
    change: float | None = None
    previews: tuple[bytes, bytes] | None = None
    diagnosis: Diagnosis | None = None


Finish = Callable[[Path], Told]
"""Writes to a path what a job's target is to hold, and tells of it."""


def writing(
    content: bytes,
    shares: dict[str, float],
    previews: tuple[bytes, bytes] | None = None,
    diagnosis: Diagnosis | None = None,
) -> Finish:
    """Finishes a job whose result is at hand."""

    def finish(path: Path) -> Told:
        path.write_bytes(content)
        change = None if diagnosis is None else diagnosis.changed
        return Told(shares, None, change, previews, diagnosis)

    return finish


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
            raise ValueError(
                f"{given} is no ordinary file, but a pipe, a socket or a device; give files or folders"
            )
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


def process_files(
    jobs: Sequence[FileJob],
    process: Callable[[FileJob], Finish],
    overwrite: bool = False,
    manifest: Manifest | None = None,
    workers: int = 1,
    stopped: Callable[[], None] = lambda: None,
) -> Generator[FileResult, None, None]:
    """Process files; one that fails is reported and the others still get done, unless the disk is full.

    Args:
        jobs: from `plan_files`.
        process: reads a source and returns what finishes the job.
        overwrite: replace targets that exist; without it they are reported as errors.
        manifest: where finished files are noted. What it says is done, with source and target unchanged, is not done again; a
            target that this run made of the same source before is replaced without `overwrite`, where the source has changed since.
        workers: threads, each with its own file and its share of torch's threads.
        stopped: called where there are several, as soon as nobody asks for further results: what is at work may then give up.

    Yields:
        A result per job, in order; none after one for which there was no room on the disk, or that lies on one that cannot be
        written to. Who stops asking before the end closes the generator, before the manifest: it waits for the files at work.
    """
    if manifest is not None:
        manifest.sweep(job.target.parent for job in jobs)
    with closing(
        _ordered(jobs, lambda job: _finished(job, process, overwrite, manifest), workers, stopped)
    ) as outcomes:
        for result, hopeless in outcomes:
            yield result
            if hopeless:
                return


Outcome = tuple[FileResult, bool]


def _ordered(
    jobs: Sequence[FileJob],
    work: Callable[[FileJob], Outcome],
    workers: int,
    stopped: Callable[[], None],
) -> Generator[Outcome, None, None]:
    """The outcomes in the order of the jobs. Whoever stops asking for them, or is interrupted,
    waits only for what is at work.

    One worker has a thread of its own, too: the main thread waits, and so hears of a signal while a
    decoder is at work.
    """
    threads = torch.get_num_threads()
    at_once = 2 * workers if workers > 1 else 1
    # OpenMP counts threads for each thread by itself; torch's number is what new ones begin with.
    pool = ThreadPoolExecutor(
        max(workers, 1),
        "file",
        initializer=torch.set_num_threads,
        initargs=(max(1, threads // max(workers, 1)),),
    )
    ahead: deque[Future[Outcome]] = deque()
    wait = True
    try:
        for job in jobs:
            ahead.append(pool.submit(work, job))
            if len(ahead) >= at_once:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    except (
        KeyboardInterrupt
    ):  # the command line has another: who pressed it waits for no large image
        wait = False
        raise
    finally:
        stopped()
        pool.shutdown(wait, cancel_futures=True)
        torch.set_num_threads(threads)


def _finished(
    job: FileJob, process: Callable[[FileJob], Finish], overwrite: bool, manifest: Manifest | None
) -> Outcome:
    """A job's result, and whether further ones cannot be written either."""
    if manifest is not None and manifest.is_done(job.source, job.target):
        return FileResult(job, manifest.shares(job.target), None, earlier=True), False
    try:
        if (
            not overwrite
            and job.target.exists()
            and not (manifest is not None and manifest.is_own(job.source, job.target))
        ):
            raise ImageError(
                f"{job.target} exists; replace it by --overwrite, or choose another output"
            )
        source = Stamp.of(job.source)
        finish = process(job)
        told = Told({})

        def note(facts: os.stat_result) -> None:
            if manifest is not None and source is not None:
                manifest.add(
                    job.source,
                    source,
                    job.target,
                    Stamp(facts.st_size, facts.st_mtime_ns),
                    told.shares,
                )

        with result_file(
            job.target, None if manifest is None else manifest.partial_name(), note
        ) as partial:
            told = finish(partial)
        result = FileResult(
            job,
            told.shares,
            None,
            told.video,
            False,
            told.change,
            told.previews,
            told.diagnosis,
        )
        return result, False
    except Exception as error:  # whatever it is, the next file is another
        logger.debug("%s", job.source, exc_info=True)
        message = first_line(error)
        hopeless = isinstance(error, DiskError)
        named = hopeless or any(str(path) in message for path in job)
        return FileResult(job, {}, message if named else f"{job.source}: {message}"), hopeless


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
    places = Places()
    taken: dict[str, Path] = {}
    for source, target in jobs:
        place = places.of(target)
        if place == places.of(source) or (
            source.is_symlink() and place == os.path.realpath(source)
        ):
            raise ValueError(f"{source} would be written over itself; choose another output")
        if place in taken:
            raise ValueError(
                f"{taken[place]} and {source} would both be written to {target}; give them different outputs"
            )
        taken[place] = source
    return jobs
