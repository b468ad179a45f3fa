"""The queue of images: images of the same size are restored together, within a memory limit.

This module does not use HTTP. Threads take jobs from the queue, and an event loop or a test waits
for the jobs' futures. A job that was given up, or whose deadline has passed, is removed from the
queue. Work that has begun stops at its next step when all jobs of its batch were given up.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from vrdir.serving.problems import ProblemError

logger = logging.getLogger(__name__)

CPU_BATCH_PIXELS = 2**17  # more in one batch is slower on a CPU: features leave the caches
GPU_BATCH_PIXELS = 2**23
FIRST_GUESS = 250_000.0  # pixels per second, until the first batch is done
LONGEST_WAIT = 120  # seconds, the largest value of the header Retry-After


class Observer(Protocol):
    """The interface through which the queue reports what it does; `Metrics` implements it."""

    def batch_done(self, jobs: int, pixels: int, seconds: float) -> None:
        """Count a batch that was processed: its jobs, their pixels, and the time."""

    def job_started(self, seconds: float) -> None:
        """Record how many seconds a job waited before work on it began."""

    def job_dropped(self, reason: str) -> None:
        """Count a job that was given up, before or during the work on it."""


class GivenUpError(Exception):
    """Work was stopped because all jobs of its batch were given up."""


@dataclass(eq=False)
class Job:
    """One image to restore.

    Attributes:
        batch_key: jobs with the same key may be processed in one batch.
        pixels: the number of pixels of the image, with padding.
        deadline: the time after which the job is dropped, as of `time.monotonic`.
        work: the function that processes a batch. It takes jobs with the same key, and returns a
            result or an exception for each.
        payload: the data for `work`.
        future: receives the result or the exception.
        submitted: the time when the job was made, as of `time.monotonic`.
        given_up: why the result is no longer needed; "" while it is needed.
        cost: the memory that the work needs, in pixels of an image that is restored as a whole; 0
            means `pixels`. A large image is restored in strips, so its cost is below its pixels.
    """

    batch_key: Hashable
    pixels: int
    deadline: float
    work: Callable[[Sequence[Job]], Sequence[Any]]
    payload: Any = None
    future: Future[Any] = field(default_factory=Future)
    submitted: float = field(default_factory=time.monotonic)
    given_up: str = ""
    cost: int = 0

    def __post_init__(self) -> None:
        """Set the cost to the number of pixels, unless a cost is given."""
        self.cost = self.cost or self.pixels

    def give_up(self, reason: str) -> None:
        """Give up the job, for the reason "client-gone", "deadline" or "stopping"."""
        self.given_up = self.given_up or reason
        self.future.cancel()


def check_wanted(jobs: Sequence[Job]) -> None:
    """Check that at least one of these jobs is still needed. Long work calls it between its steps.

    Raises:
        GivenUpError: all of the jobs were given up.
    """
    if all(job.given_up for job in jobs):
        raise GivenUpError(jobs[0].given_up)


class Queue:
    """A bounded queue of jobs, and the threads that process them.

    Args:
        threads: the number of threads. If only one batch is in work, torch uses as many threads for
            it.
        max_jobs: the largest number of waiting jobs.
        max_pixels: the largest total of the pixels of waiting jobs; one job is always accepted.
        work_pixels: the largest total cost of the jobs in work; one job is always taken.
        batch_pixels: the largest number of pixels of a batch.
        observer: is notified of batches, and of jobs that begin or are given up.
    """

    def __init__(
        self,
        threads: int,
        max_jobs: int,
        max_pixels: int,
        work_pixels: int,
        batch_pixels: int,
        observer: Observer,
    ) -> None:
        self._threads, self._max_jobs, self._max_pixels = threads, max_jobs, max_pixels
        self._work_pixels, self._batch_pixels = work_pixels, batch_pixels
        self._observer = observer
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._at_work: list[Job] = []
        self._batches_at_work = 0
        self._speed = FIRST_GUESS
        self._workers = [
            threading.Thread(target=self._run, name=f"restore-{number}", daemon=True)
            for number in range(threads)
        ]
        for worker in self._workers:
            worker.start()

    @property
    def length(self) -> int:
        """The number of jobs that wait."""
        return len(self._waiting)

    @property
    def pixels(self) -> int:
        """The total of the pixels of the jobs that wait."""
        return sum(job.pixels for job in list(self._waiting))

    @property
    def at_work(self) -> int:
        """The number of jobs in work."""
        return len(self._at_work)

    @property
    def _pixels_at_work(self) -> int:
        return sum(job.pixels for job in self._at_work)

    def submit(self, job: Job) -> Future[Any]:
        """Add a job to the queue and return its future.

        Raises:
            ProblemError: too many jobs or pixels wait already, or the queue was stopped.
        """
        with self._changed:
            if self._stopping:
                raise ProblemError("stopping", "the service is stopping; try again soon", 5)
            self._drop_dead()
            pixels = self.pixels
            if len(self._waiting) >= self._max_jobs or (
                self._waiting and pixels + job.pixels > self._max_pixels
            ):
                raise ProblemError(
                    "queue-full",
                    f"{len(self._waiting)} images of {pixels / 1e6:.1f} megapixels are waiting",
                    self._expected_wait(pixels),
                )
            self._waiting.append(job)
            self._changed.notify_all()
        return job.future

    def stop(self, timeout: float) -> None:
        """Finish the accepted jobs, within a time in seconds, and end the threads."""
        until = time.monotonic() + timeout
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for worker in self._workers:
            worker.join(max(0.0, until - time.monotonic()))
        self.give_up()

    def give_up(self) -> None:
        """Give up all jobs, waiting or in work, with the problem "stopping", and accept no more."""
        with self._changed:
            self._stopping = True
            waiting, at_work = list(self._waiting), list(self._at_work)
            self._waiting.clear()
            self._changed.notify_all()
        for _ in waiting:
            self._observer.job_dropped("stopping")
        for job in waiting + at_work:
            _settle(job, ProblemError("stopping", "the service was stopped; try again soon", 5))
            job.give_up("stopping")

    def _expected_wait(self, pixels: int) -> int:
        seconds = (pixels + self._pixels_at_work) / self._speed
        return min(LONGEST_WAIT, max(1, math.ceil(seconds)))

    def _drop_dead(self) -> None:
        """Remove jobs that were given up or are late. The caller must hold the lock."""
        now = time.monotonic()
        alive: deque[Job] = deque()
        for job in self._waiting:
            if job.deadline <= now:
                _settle(job, late())
                job.give_up("deadline")
            if job.given_up or job.future.cancelled():
                self._observer.job_dropped(job.given_up or "client-gone")
            else:
                alive.append(job)
        self._waiting = alive

    def _take(self) -> list[Job] | None:
        """Wait for a batch that fits into the memory limit; return None if the queue is stopped."""
        with self._changed:
            while True:
                self._drop_dead()
                batch = self._next_batch()
                if batch:
                    self._at_work += batch
                    self._batches_at_work += 1
                    return batch
                if self._stopping and not self._waiting:
                    return None
                self._changed.wait(1.0 if self._waiting else None)

    def _next_batch(self) -> list[Job]:
        if not self._waiting:
            return []
        first = self._waiting[0]
        # No job overtakes the oldest one, which waits until there is enough memory for it.
        free = self._work_pixels - sum(job.cost for job in self._at_work)
        if first.cost > free and self._at_work:
            return []
        batch: list[Job] = []
        pixels = cost = 0
        # Divide the jobs of this key among the idle threads.
        alike = sum(job.batch_key == first.batch_key for job in self._waiting)
        idle = max(1, self._threads - self._batches_at_work)
        most = max(1, math.ceil(alike / idle))
        for job in list(self._waiting):
            if job.batch_key != first.batch_key or len(batch) >= most:
                continue
            pixels, cost = pixels + job.pixels, cost + job.cost
            if batch and (pixels > self._batch_pixels or cost > free):
                break
            self._waiting.remove(job)
            if job.future.set_running_or_notify_cancel():
                batch.append(job)
            else:
                self._observer.job_dropped(job.given_up or "client-gone")
        return batch

    def _run(self) -> None:
        while (batch := self._take()) is not None:
            self._work_on(batch)
            del batch  # so that its memory is free while this thread waits

    def _work_on(self, batch: list[Job]) -> None:
        start = time.monotonic()
        pixels = sum(job.pixels for job in batch)
        for job in batch:
            self._observer.job_started(start - job.submitted)
        try:
            with self._changed:
                alone = self._batches_at_work == 1 and not self._waiting
            torch.set_num_threads(self._threads if alone else 1)
            results = batch[0].work(batch)
        except BaseException as error:  # else the thread would end, and the queue stop
            results = [error] * len(batch)
        seconds = max(time.monotonic() - start, 1e-6)
        with self._changed:
            for job in batch:
                self._at_work.remove(job)
            self._batches_at_work -= 1
            self._speed += 0.2 * (pixels / seconds - self._speed)
            self._changed.notify_all()
        self._observer.batch_done(len(batch), pixels, seconds)
        for job, result in zip(batch, results, strict=True):
            if job.given_up:
                self._observer.job_dropped(job.given_up)
            _settle(job, result)


def _settle(job: Job, result: Any) -> None:
    """Set the result or exception of a job, unless it has one or was cancelled."""
    try:
        if isinstance(result, BaseException):
            job.future.set_exception(result)
        else:
            job.future.set_result(result)
    except InvalidStateError:
        pass


def late() -> ProblemError:
    """Return the error for a job whose deadline has passed."""
    return ProblemError("deadline", "the image was not restored before its deadline", 10)
