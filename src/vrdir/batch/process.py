"""Process many files, one by one or several at the same time; a file that fails stops no other."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

import torch

from vrdir.atomic import result_file
from vrdir.batch.manifest import Manifest, Stamp, stamp_of
from vrdir.batch.results import FileJob, FileResult, Outcome, ResultWriter
from vrdir.errors import DiskError, ImageError, first_line

logger = logging.getLogger(__name__)


def process_files(
    jobs: Sequence[FileJob],
    process: Callable[[FileJob], ResultWriter],
    overwrite: bool = False,
    manifest: Manifest | None = None,
    workers: int = 1,
    stop: Callable[[], None] = lambda: None,
) -> Generator[FileResult, None, None]:
    """Process files. A file that fails is reported and the others are still processed.

    After Ctrl-C in your own program, the exception is raised at once, and `stop` is called;
    Python then waits for the threads before it exits, so `process` should end soon.

    Args:
        jobs: from `plan_files`.
        process: reads a source and returns the function that writes the result.
        overwrite: replace targets that exist; otherwise they are reported as errors.
        manifest: records finished files. Files that it records as finished, with source and target
            unchanged, are not processed again. A target that this run made from the same source is
            replaced without `overwrite` if the source has changed since.
        workers: threads; each processes one file at a time, with its share of torch's threads.
        stop: called when no further results are wanted, so that running work can stop.

    Yields:
        A result per job, in order. After a full or read-only disk (`DiskError`) there is none.
        Close the generator before the manifest if you stop early: it waits for running files.
    """
    if manifest is not None:
        manifest.sweep(job.target.parent for job in jobs)

    def work(job: FileJob) -> _Ended:
        return _processed(job, process, overwrite, manifest)

    with closing(_in_order(jobs, work, workers, stop)) as results:
        for result, disk_failed in results:
            yield result
            if disk_failed:
                return


_Ended = tuple[FileResult, bool]  # and whether the disk failed, so that no other can be written


def _in_order(
    jobs: Sequence[FileJob],
    work: Callable[[FileJob], _Ended],
    workers: int,
    stop: Callable[[], None],
) -> Generator[_Ended, None, None]:
    """Yield the results in the order of the jobs.

    Closing the generator, or a signal, waits only for running work. A single worker has its own
    thread as well: the main thread only waits, so a signal reaches it while a decoder runs.
    """
    threads = torch.get_num_threads()
    at_once = 2 * workers if workers > 1 else 1
    # OpenMP keeps a number of threads for each thread; a new one starts with torch's number.
    pool = ThreadPoolExecutor(
        max(workers, 1),
        "file",
        initializer=torch.set_num_threads,
        initargs=(max(1, threads // max(workers, 1)),),
    )
    waiting: deque[Future[_Ended]] = deque()
    wait = True
    try:
        for job in jobs:
            waiting.append(pool.submit(work, job))
            if len(waiting) >= at_once:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except KeyboardInterrupt:  # only outside the command line, which has its own signal handler
        wait = False
        raise
    finally:
        stop()
        pool.shutdown(wait, cancel_futures=True)
        torch.set_num_threads(threads)


def _processed(
    job: FileJob,
    process: Callable[[FileJob], ResultWriter],
    overwrite: bool,
    manifest: Manifest | None,
) -> _Ended:
    """Return the result of a job, and whether the disk failed."""
    if manifest is not None and manifest.is_done(job.source, job.target):
        return FileResult(job, manifest.shares(job.target), None, earlier=True), False
    try:
        _check_target(job, overwrite, manifest)
        source = stamp_of(job.source)
        outcome = _written(job, process(job), source, manifest)
    except Exception as error:  # any error: the next file is another
        logger.debug("%s", job.source, exc_info=True)
        message, disk_failed = first_line(error), isinstance(error, DiskError)
        named = disk_failed or any(str(path) in message for path in job)
        return FileResult(job, {}, message if named else f"{job.source}: {message}"), disk_failed
    shares, video, change, previews, diagnosis = outcome
    return FileResult(job, shares, None, video, False, change, previews, diagnosis), False


def _check_target(job: FileJob, overwrite: bool, manifest: Manifest | None) -> None:
    """Raise ImageError if the target exists and may not be replaced."""
    own = manifest is not None and manifest.is_own(job.source, job.target)
    if job.target.exists() and not overwrite and not own:
        raise ImageError(
            f"{job.target} exists; replace it with --overwrite, or choose another output"
        )


def _written(
    job: FileJob, write: ResultWriter, source: Stamp | None, manifest: Manifest | None
) -> Outcome:
    """Write the target and record it in the manifest, just before it gets its name."""
    outcome = Outcome({})

    def record(facts: os.stat_result) -> None:
        if manifest is not None and source is not None:
            made = Stamp(facts.st_size, facts.st_mtime_ns)
            manifest.add(job.source, source, job.target, made, outcome.shares)

    partial_name = None if manifest is None else manifest.partial_name()
    with result_file(job.target, partial_name, record) as partial:
        outcome = write(partial)
    return outcome
