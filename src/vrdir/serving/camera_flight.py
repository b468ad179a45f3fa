"""A camera's frames that are restored at the same time, in threads, and given out in order.

Threads share a small frame badly: most layers take less time than it takes to share them. So each
of two threads restores a frame of its own, and gives out twice as many frames, hardly later.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from vrdir.export.exported_model import ExportedModel
from vrdir.images.convert import open_image
from vrdir.model.global_statistics import SmoothedLevels
from vrdir.restoring.network import Network
from vrdir.restoring.restored import restore_opened
from vrdir.restoring.stream import SceneCuts, checked_smoothing

AT_ONCE = 2  # frames
# The most pixels of such a frame, and of what the network sees of it. A larger one has all threads:
# it would come later, and hardly more of them would.
FRAME_PIXELS, NETWORK_PIXELS = 2**18, 2**17

Picture = np.ndarray[Any, np.dtype[np.uint8]]
Work = Callable[[], Picture]


class CameraRestorer:
    """Restores the frames of a camera, also several at the same time.

    The results are those of `Restorer.stream`, which restores one frame after the other.

    Args:
        network: restores the frames.
        smoothing: against flicker, from 0 to below 1.

    Attributes:
        at_once: how many small frames to restore at the same time.
    """

    def __init__(self, network: Network, smoothing: float) -> None:
        self._network = network
        self._levels = SmoothedLevels(checked_smoothing(network, smoothing))
        self._scene = SceneCuts()
        # Other runtimes have threads of their own; a GPU has one queue.
        alone = network.device.type != "cpu" or isinstance(network.model, ExportedModel)
        self.at_once = 1 if alone else min(AT_ONCE, torch.get_num_threads())

    def begin(self, pixels: Picture) -> Work:
        """Begin the next frame (H, W, 3), RGB; return what restores it, in any thread."""
        opened = open_image(pixels, "rgb")
        if self._scene.changed(opened.tensor):
            self._levels.reset()
        levels = self._levels.begin_frame()

        def restore() -> Picture:
            try:
                image: Picture = restore_opened(
                    self._network, opened, levels, diagnosed=False
                ).image
            finally:
                levels.end()
            return image

        return restore


@dataclass
class Flown:
    """A frame that is being restored, or was.

    Attributes:
        due: when it should have arrived; all moments are by `time.perf_counter`.
        side: its longer side, in pixels.
        at_once: how many frames are restored at the same time; 1: it has all threads.
        begun: when its restoration began.
        ended: when it was restored; 0 before.
        future: the restored frame.
    """

    due: float
    side: int
    at_once: int
    begun: float = field(default_factory=time.perf_counter)
    ended: float = 0.0
    future: Future[Picture] = field(default_factory=Future)

    def run(self, work: Work) -> None:
        """Do the work; note its result, or its error for the one who takes the frame."""
        try:
            result = work()
        except BaseException as error:
            self.ended = time.perf_counter()
            self.future.set_exception(error)
        else:
            self.ended = time.perf_counter()
            self.future.set_result(result)


class Flight:
    """The frames that are being restored, oldest first. One thread begins and takes them.

    Args:
        wake: called in another thread when a frame is restored.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._frames: deque[Flown] = deque()
        self._wake = wake
        self._pool: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        return len(self._frames)

    def first_is_done(self) -> bool:
        """Return whether the oldest frame is restored."""
        return bool(self._frames) and self._frames[0].future.done()

    def begin(self, frame: Flown, work: Work) -> None:
        """Restore a frame: a thread of its own does it if others are restored beside it."""
        self._frames.append(frame)
        if frame.at_once == 1:
            frame.run(work)
            return
        if self._pool is None:
            self._pool = _workers(frame.at_once)
        frame.future.add_done_callback(lambda _: self._wake())
        try:
            self._pool.submit(frame.run, work)
        except RuntimeError:  # another thread has closed it
            frame.run(work)

    def take(self) -> tuple[Flown, Picture]:
        """Wait for the oldest frame; return it with its result. Raises what its work raised."""
        frame = self._frames.popleft()
        return frame, frame.future.result()

    def drop_late(self) -> int:
        """Drop frames that have waited longer than they took; return how many.

        Nobody took them meanwhile, and there are newer ones.
        """
        dropped = 0
        while self.first_is_done():
            frame = self._frames[0]
            if time.perf_counter() - frame.ended <= frame.ended - frame.begun:
                break
            self._frames.popleft()
            dropped += 1
        return dropped

    def close(self) -> None:
        """End the threads, as soon as they have restored their frames."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)


def _workers(count: int) -> ThreadPoolExecutor:
    """Start threads that share torch's threads; those of all others stay as they are."""
    threads = torch.get_num_threads()
    started = threading.Barrier(count + 1)

    def start() -> None:
        torch.get_num_threads()  # the first call in a thread sets the number that all others have
        torch.set_num_threads(max(1, threads // count))
        started.wait()

    pool = ThreadPoolExecutor(count, "restoring", initializer=start)
    for _ in range(count):
        pool.submit(int)
    started.wait()
    torch.set_num_threads(threads)  # for threads that are started later, too
    return pool
