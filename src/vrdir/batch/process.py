"""Process files one by one or side by side, whatever becomes of each."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

import torch

from vrdir.atomic import result_file
from vrdir.batch.manifest import Manifest, Stamp
from vrdir.batch.results import FileJob, FileResult, Finish, Outcome
from vrdir.errors import DiskError, ImageError, first_line

logger = logging.getLogger(__name__)


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


_Ended = tuple[FileResult, bool]


def _ordered(
    jobs: Sequence[FileJob],
    work: Callable[[FileJob], _Ended],
    workers: int,
    stopped: Callable[[], None],
) -> Generator[_Ended, None, None]:
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
    ahead: deque[Future[_Ended]] = deque()
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
) -> _Ended:
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
        told = Outcome({})

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
