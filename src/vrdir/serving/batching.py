"""The queue: images that wait are restored in batches of one size, within a budget of pixels.

Nothing here knows HTTP. Threads take jobs from the queue; an event loop or a test waits for their
futures. A job that is given up, or whose deadline has passed, is dropped before work begins; work
that has begun stops at its next step, once nobody wants any result of its batch.
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
FIRST_GUESS = 250_000.0  # pixels a second, until the first job is done
LONGEST_WAIT = 120  # seconds, of Retry-After


class Observer(Protocol):
    """What the queue reports to: the metrics."""

    def batch_done(self, jobs: int, pixels: int, seconds: float) -> None:
        """Note a batch that was restored."""

    def job_started(self, seconds: float) -> None:
        """Note how long a job has waited."""

    def job_dropped(self, reason: str) -> None:
        """Note a job whose result nobody wants any more, whether it waited or was at work."""


class GivenUpError(Exception):
    """Work that was stopped, because nobody wants its results."""


@dataclass(eq=False)
class Job:
    """One image to restore.

    Attributes:
        batch_key: jobs of the same key are restored together.
        pixels: how many pixels the image has, with padding.
        deadline: when the job is dropped, by `time.monotonic`.
        work: what is done: jobs of one key -> one result or exception for each.
        payload: what `work` needs to know.
        future: where the result is put.
        submitted: when the job was accepted, by `time.monotonic`.
        given_up: why nobody wants the result any more; empty while somebody does.
        cost: the memory that the work needs, in pixels of an image restored as a whole; 0 for
            `pixels`. A large image is restored in strips, and costs less than it has pixels.
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
        """Let an image cost its pixels, unless another cost is given."""
        self.cost = self.cost or self.pixels

    def give_up(self, reason: str) -> None:
        """Say that nobody wants the result: "client-gone", "deadline" or "stopping"."""
        self.given_up = self.given_up or reason
        self.future.cancel()


def check_wanted(jobs: Sequence[Job]) -> None:
    """Raise GivenUpError if nobody wants the result of any of these jobs.

    Long work calls this between its steps.
    """
    if all(job.given_up for job in jobs):
        raise GivenUpError(jobs[0].given_up)


class Queue:
    """A bounded queue of jobs and the threads that work on them.

    Args:
        threads: how many threads work. A thread that is alone uses all of them for its batch.
        max_jobs: how many jobs may wait.
        max_pixels: how many pixels may wait.
        work_pixels: the most that jobs at work may cost; one job is always taken.
        batch_pixels: how many pixels one batch may have.
        observer: is notified of batches and dropped jobs.
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
        """How many jobs wait."""
        return len(self._waiting)

    @property
    def pixels(self) -> int:
        """How many pixels wait."""
        return sum(job.pixels for job in list(self._waiting))

    @property
    def at_work(self) -> int:
        """How many jobs are being restored."""
        return len(self._at_work)

    @property
    def _pixels_at_work(self) -> int:
        return sum(job.pixels for job in self._at_work)

    def submit(self, job: Job) -> Future[Any]:
        """Accept a job.

        Raises:
            ProblemError: too many jobs or pixels wait already, or the service stops.
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
        """Finish what was accepted, within a time in seconds, and end the threads."""
        until = time.monotonic() + timeout
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for worker in self._workers:
            worker.join(max(0.0, until - time.monotonic()))
        self.give_up()

    def give_up(self) -> None:
        """Answer all jobs, waiting or at work, that the service is stopping, and take no more."""
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
        """Drop jobs that nobody waits for, or that are late. The caller has the lock."""
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
        """Wait for jobs of one key that fit into the budget; None when the queue has stopped."""
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
        # The oldest job is not overtaken: it waits until those at work leave it enough memory.
        free = self._work_pixels - sum(job.cost for job in self._at_work)
        if first.cost > free and self._at_work:
            return []
        batch: list[Job] = []
        pixels = cost = 0
        # Shares the batch out among the threads that are free, so that none of them idles.
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
            del batch  # what it holds is free while this thread waits

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
        except BaseException as error:  # a thread that ends would leave the queue without work
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
    """Give a job its result or exception, unless it has one, or is cancelled."""
    try:
        if isinstance(result, BaseException):
            job.future.set_exception(result)
        else:
            job.future.set_result(result)
    except InvalidStateError:
        pass


def late() -> ProblemError:
    """Return the problem of a job whose deadline has passed."""
    return ProblemError("deadline", "the image was not restored before its deadline", 10)
