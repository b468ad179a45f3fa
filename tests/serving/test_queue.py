"""The queue by itself: batches, budgets, deadlines, dropped jobs."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from PIL import Image

from vrdir import VRDIR, Restorer
from vrdir.serving.batching import GivenUpError, Job, Queue
from vrdir.serving.images import ImageResult, ImageTask, cost_of, restore_batch
from vrdir.serving.problems import ProblemError

LONG = 600.0  # seconds, for a busy machine


class Notes:
    """Remembers what the queue reports."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.dropped: list[str] = []

    def batch_done(self, jobs: int, pixels: int, seconds: float) -> None:
        self.batches.append(jobs)

    def job_started(self, seconds: float) -> None:
        assert seconds >= 0

    def job_dropped(self, reason: str) -> None:
        self.dropped.append(reason)


class Work:
    """Answers each job by its payload, once the gate is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.started = threading.Semaphore(0)
        self.most_pixels = self._pixels = 0
        self._lock = threading.Lock()

    def __call__(self, jobs: Sequence[Job]) -> list[Any]:
        pixels = sum(job.pixels for job in jobs)
        with self._lock:
            self._pixels += pixels
            self.most_pixels = max(self.most_pixels, self._pixels)
        self.started.release()
        self.gate.wait(LONG)
        with self._lock:
            self._pixels -= pixels
        return [job.payload for job in jobs]


def job(work: Work, payload: int, key: str = "a", pixels: int = 10, seconds: float = LONG) -> Job:
    return Job(key, pixels, time.monotonic() + seconds, work, payload)


def queue(notes: Notes, threads: int = 1, **limits: int) -> Queue:
    values = {"max_jobs": 10, "max_pixels": 1000, "work_pixels": 1000, "batch_pixels": 30} | limits
    return Queue(threads, observer=notes, **values)


def test_jobs_of_one_key_share_a_batch_up_to_its_pixels() -> None:
    notes, work = Notes(), Work()
    jobs = queue(notes)
    first = jobs.submit(job(work, 0, key="other"))
    assert work.started.acquire(timeout=LONG)
    futures = [jobs.submit(job(work, number)) for number in range(1, 6)]
    work.gate.set()
    assert [future.result(LONG) for future in [first, *futures]] == [0, 1, 2, 3, 4, 5]
    jobs.stop(LONG)
    assert notes.batches == [1, 3, 2]


def test_pixels_at_work_stay_within_the_budget() -> None:
    notes, work = Notes(), Work()
    jobs = queue(notes, threads=4, work_pixels=100)
    work.gate.set()
    futures = [jobs.submit(job(work, number, key=str(number), pixels=60)) for number in range(9)]
    assert [future.result(LONG) for future in futures] == list(range(9))
    jobs.stop(LONG)
    assert work.most_pixels == 60


def test_budget_counts_job_costs() -> None:
    """Two images of many pixels that cost little are at work at once."""
    work = Work()
    jobs = queue(Notes(), threads=2, work_pixels=100, max_pixels=2000)
    for name in "ab":
        jobs.submit(Job(name, 900, time.monotonic() + LONG, work, cost=40))
    for _ in range(2):
        assert work.started.acquire(timeout=LONG)
    work.gate.set()
    jobs.stop(LONG)
    assert work.most_pixels == 1800


def test_large_image_needs_less_memory_per_pixel() -> None:
    """It is restored in strips; a small one costs its pixels, and what opening it takes."""
    restorer = Restorer("small", "cpu")
    sizes = {(256, 256): (1.0, 1.2), (3000, 2000): (0.1, 0.5), (4000, 2): (2.0, 40.0)}
    for (width, height), (low, high) in sizes.items():
        buffer = io.BytesIO()
        Image.new("RGB", (width, height)).save(buffer, "PNG")
        assert low <= cost_of(buffer.getvalue(), restorer) / (width * height) <= high


def test_image_over_the_whole_budget_is_processed_alone() -> None:
    work = Work()
    jobs = queue(Notes(), work_pixels=100)
    work.gate.set()
    assert jobs.submit(job(work, 7, pixels=900)).result(LONG) == 7
    jobs.stop(LONG)


@pytest.mark.parametrize("limits", [{"max_jobs": 2}, {"max_pixels": 25}])
def test_full_queue_rejects_with_retry_after(limits: dict[str, int]) -> None:
    work = Work()
    jobs = queue(Notes(), **limits)
    jobs.submit(job(work, 0))
    assert work.started.acquire(timeout=LONG)
    futures = [jobs.submit(job(work, number)) for number in (1, 2)]
    with pytest.raises(ProblemError, match="2 images") as refused:
        jobs.submit(job(work, 3))
    assert refused.value.kind == "queue-full"
    assert refused.value.retry_after is not None
    work.gate.set()
    assert [future.result(LONG) for future in futures] == [1, 2]
    jobs.stop(LONG)


def test_cancelled_and_late_jobs_are_dropped_without_work() -> None:
    notes, work = Notes(), Work()
    jobs = queue(notes)
    first = jobs.submit(job(work, 0))
    assert work.started.acquire(timeout=LONG)
    gone, late = jobs.submit(job(work, 1)), jobs.submit(job(work, 2, seconds=0.05))
    gone.cancel()
    time.sleep(0.1)
    work.gate.set()
    assert first.result(LONG) == 0
    with pytest.raises(ProblemError, match="deadline"):
        late.result(LONG)
    jobs.stop(LONG)
    assert sorted(notes.dropped) == ["client-gone", "deadline"]
    assert notes.batches == [1]


def test_error_reaches_the_job_and_the_thread_continues() -> None:
    def fail(jobs: Sequence[Job]) -> list[Any]:
        raise RuntimeError("broken")

    work = Work()
    work.gate.set()
    jobs = queue(Notes())
    with pytest.raises(RuntimeError, match="broken"):
        jobs.submit(Job("b", 1, time.monotonic() + LONG, fail)).result(LONG)
    assert jobs.submit(job(work, 4)).result(LONG) == 4
    jobs.stop(LONG)


def test_stop_finishes_accepted_and_rejects_new_requests() -> None:
    work = Work()
    jobs = queue(Notes())
    futures = [jobs.submit(job(work, number)) for number in range(4)]
    work.gate.set()
    jobs.stop(LONG)
    assert [future.result(0) for future in futures] == [0, 1, 2, 3]
    with pytest.raises(ProblemError, match="stopping"):
        jobs.submit(job(work, 5))


def test_stop_cancels_work_after_the_timeout() -> None:
    notes, work = Notes(), Work()
    jobs = queue(notes)
    futures = [jobs.submit(job(work, number, key=str(number))) for number in range(3)]
    assert work.started.acquire(timeout=LONG)
    jobs.stop(0.1)
    for future in futures:
        with pytest.raises(ProblemError, match="stopped"):
            future.result(LONG)
    work.gate.set()
    assert notes.dropped.count("stopping") >= 2


def test_cancelled_work_stops_at_its_next_step() -> None:
    """An image of several strips: its result is not computed to the end."""
    buffer = io.BytesIO()
    Image.new("RGB", (2400, 1000), "grey").save(buffer, "PNG")
    restorer = Restorer("small", "cpu")
    assert isinstance(restorer.model, VRDIR)
    task = ImageTask(buffer.getvalue(), restorer, None, "PNG", 90, 10**8, with_image=True)
    one = Job("a", 2_400_000, time.monotonic() + LONG, restore_batch, task)
    seen: list[Any] = []

    def leave(*_: Any) -> None:
        seen.append(one)
        one.give_up("client-gone")

    restorer.model.extractor.register_forward_hook(leave)  # it sees the first strip
    assert [type(result) for result in restore_batch([one])] == [GivenUpError]
    assert len(seen) == 1  # of three strips
    with pytest.raises(GivenUpError):
        restore_batch([one])


def test_cancelled_image_does_not_affect_its_batch() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), "grey").save(buffer, "PNG")
    task = ImageTask(buffer.getvalue(), Restorer("small", "cpu"), None, "PNG", 90, 10**8, True)
    gone, wanted = (Job("a", 1600, time.monotonic() + LONG, restore_batch, task) for _ in range(2))
    gone.give_up("client-gone")
    first, second = restore_batch([gone, wanted])
    assert isinstance(first, GivenUpError)
    assert isinstance(second, ImageResult)
