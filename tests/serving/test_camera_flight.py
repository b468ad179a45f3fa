"""Frames that are restored at the same time: the same results, in order, and none that is old."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.clips import clip, view

from vrdir import Camera, Restorer
from vrdir.serving.camera_flight import CameraRestorer, Flight, Flown, Picture, Work
from vrdir.serving.camera_size import SETTLE_FRAMES

LONG = 300.0  # seconds, for a busy machine
PIXELS = np.zeros((1, 1, 3), np.uint8)


@pytest.fixture
def two_threads() -> Iterator[None]:
    yield from with_threads(2)


@pytest.fixture
def one_thread() -> Iterator[None]:
    yield from with_threads(1)


def with_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def flight() -> Iterator[Flight]:
    made = Flight(lambda: None)
    yield made
    made.close()


def flown(at_once: int = 2) -> Flown:
    return Flown(due=time.perf_counter(), side=64, at_once=at_once)


def noisy_views(count: int) -> list[Picture]:
    """Frames whose levels change from one to the next, and one cut."""
    generator = np.random.default_rng(0)
    frames = [view(3 * number, 96, 64) for number in range(count)]
    frames[count // 2 :] = [255 - frame for frame in frames[count // 2 :]]
    return [
        (frame + generator.normal(0, 5 + 20 * (number % 2), frame.shape)).clip(0, 255).astype("u1")
        for number, frame in enumerate(frames)
    ]


@pytest.mark.usefixtures("one_thread")  # sums are rounded as the number of threads divides them
def test_frames_restored_at_once_are_those_of_a_stream(flight: Flight) -> None:
    restorer, frames = Restorer("small", "cpu"), noisy_views(9)
    camera = CameraRestorer(restorer.network, smoothing=0.8)
    found = []
    for frame in frames:
        flight.begin(flown(), camera.begin(frame))
        if len(flight) == 2:
            found.append(flight.take()[1])
    found.append(flight.take()[1])
    wanted = list(restorer.stream(frames, smoothing=0.8))
    assert all(np.array_equal(*pair) for pair in zip(found, wanted, strict=True))
    alone = [restorer(frame) for frame in frames]
    assert not np.array_equal(found[3], alone[3])  # so the smoothing did something


@pytest.mark.usefixtures("two_threads")
def test_two_frames_run_at_the_same_time_with_a_thread_each(flight: Flight) -> None:
    both, threads = threading.Barrier(2), []

    def work() -> Picture:
        both.wait(LONG)
        threads.append(torch.get_num_threads())
        return PIXELS

    for _ in range(2):
        flight.begin(flown(), work)
    for _ in range(2):
        flight.take()
    assert threads == [1, 1]
    assert torch.get_num_threads() == 2
    started_later: list[int] = []
    later = threading.Thread(target=lambda: started_later.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert started_later == [2]


def test_frames_are_taken_in_order_and_errors_with_their_frame(flight: Flight) -> None:
    first_may_end = threading.Event()

    def slow() -> Picture:
        assert first_may_end.wait(LONG)
        return PIXELS

    def fails() -> Picture:
        raise ArithmeticError("the second")

    flight.begin(flown(), slow)
    second = flown()
    flight.begin(second, fails)
    assert isinstance(second.future.exception(LONG), ArithmeticError)
    assert not flight.first_is_done()
    first_may_end.set()
    assert flight.take()[1] is PIXELS
    with pytest.raises(ArithmeticError, match="the second"):
        flight.take()
    assert len(flight) == 0


def test_frame_that_fails_does_not_hold_up_the_next(flight: Flight) -> None:
    restorer = Restorer("small", "cpu")
    network = restorer.network._replace(model=_Failing(restorer.network.model))
    camera = CameraRestorer(network, smoothing=0.8)
    for number in range(3):
        flight.begin(flown(), camera.begin(view(number)))
    flight.take()
    with pytest.raises(ArithmeticError, match="this frame"):
        flight.take()
    assert flight.take()[1].shape == view(0).shape


class _Failing:
    """A network that fails at its second frame, after the guidance."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._count = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def restore(self, *arguments: Any) -> Any:
        self._count += 1
        if self._count == 2:
            raise ArithmeticError("this frame")
        return self._model.restore(*arguments)


def test_frame_that_nobody_took_in_time_is_dropped(flight: Flight) -> None:
    def work() -> Picture:
        time.sleep(0.05)
        return PIXELS

    old = flown()
    flight.begin(old, work)
    old.future.result(LONG)
    while time.perf_counter() - old.ended <= old.ended - old.begun:
        time.sleep(0.01)
    slow, may_end = flown(), threading.Event()

    def waits() -> Picture:
        assert may_end.wait(LONG)
        return PIXELS

    flight.begin(slow, waits)
    assert flight.drop_late() == 1
    assert len(flight) == 1
    may_end.set()
    assert flight.take()[0] is slow


@pytest.mark.usefixtures("two_threads")
def test_camera_gives_each_frame_once_and_in_order(tmp_path: Path) -> None:
    def picture(number: int) -> Picture:
        return np.full((48, 64, 3), 4 * number, np.uint8)

    path = clip(
        tmp_path / "clip.mkv", 50, codec="ffv1", pix_fmt="bgr0", sound=None, picture=picture
    )
    with Camera(path, Restorer("small", "cpu", strength=0)) as camera:
        found = [int(frame.mean()) // 4 for frame in camera]
    assert found == sorted(set(found))
    report = camera.report
    assert len(found) == report.restored > 1
    assert report.received == report.restored + report.dropped == 50


@pytest.mark.usefixtures("two_threads")
def test_threads_end_with_their_camera(tmp_path: Path) -> None:
    path, restorer = clip(tmp_path / "clip.mp4", frames=50), Restorer("small", "cpu")
    before = threading.active_count()
    for number, _ in enumerate(Camera(path, restorer)):
        if number == 3:
            assert sum(t.name.startswith("restoring") for t in threading.enumerate()) == 2
            break
    gc.collect()
    until = time.monotonic() + LONG
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.05)
    assert threading.active_count() == before


@pytest.mark.usefixtures("two_threads")
def test_no_frame_is_begun_that_would_be_old_when_taken(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4", frames=600, sound=None)
    with Camera(path, Restorer("small", "cpu")) as camera:
        in_flight = []
        for _ in range(8):
            next(camera)
            in_flight.append(len(camera._flight))
        assert max(in_flight) == 1  # beside the one that was given
        for _ in range(3):
            time.sleep(max(0.3, 3 * camera.report.p95_ms / 1000))
            next(camera)
        assert len(camera._flight) == 0


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("at_once", "is_reduced"), [(2, False), (1, True)])
def test_size_for_a_frame_rate_counts_the_frames_that_are_restored_at_once(
    at_once: int, is_reduced: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame takes 0.4 s, and three a second are wanted."""
    begin = CameraRestorer.begin

    def begin_slowly(self: CameraRestorer, pixels: Picture) -> Work:
        restore = begin(self, pixels)

        def slow() -> Picture:
            ends = time.perf_counter() + 0.4
            restored = restore()
            time.sleep(max(0.0, ends - time.perf_counter()))
            return restored

        return slow

    monkeypatch.setattr(CameraRestorer, "begin", begin_slowly)
    path = clip(tmp_path / "clip.mkv", frames=250, width=320, height=240, sound=None)
    with Camera(path, Restorer("small", "cpu"), fps=3) as camera:
        assert camera._restorer is not None
        camera._restorer.at_once = at_once
        for _ in range(SETTLE_FRAMES + 2):
            next(camera)
        assert (camera.report.network_side < 320) == is_reduced
