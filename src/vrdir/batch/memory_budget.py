"""Memory for files that are restored side by side: small ones many at once, large ones alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

import torch

from vrdir.images.memory import memory_limit

SHARE = 0.25  # of the machine's memory, or the container's


def share_of_memory() -> int:
    """A quarter of the memory that this process can have, in bytes."""
    return int(SHARE * memory_limit())


class RoomClosedError(RuntimeError):
    """There is no more room: what was to be done with it is no longer wanted."""


class Room:
    """So many bytes for all threads. Who asks for more than there are waits until he is alone, and then has all of torch's threads.

    Args:
        size: bytes; None for a quarter of the machine's memory.
    """

    def __init__(self, size: int | None = None) -> None:
        self.size = share_of_memory() if size is None else size
        self.threads = torch.get_num_threads()
        self._taken = 0
        self._closed = False
        self._changed = Condition()

    @contextmanager
    def taken(self, share: int | None) -> Iterator[None]:
        """Wait until there is room for `share` bytes, None for all of it, and hold them. Raises RoomClosedError."""
        share = self.size if share is None else min(share, self.size)
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._taken + share <= self.size)
            self.check()
            self._taken += share
        own = torch.get_num_threads()  # OpenMP counts them for each thread by itself
        try:
            if share == self.size:
                torch.set_num_threads(self.threads)
            yield
        finally:
            torch.set_num_threads(own)
            with self._changed:
                self._taken -= share
                self._changed.notify_all()

    def close(self) -> None:
        """Give no more room, also to those who wait for it."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def check(self) -> None:
        """Raises RoomClosedError once it is closed: for long work, to ask in between."""
        if self._closed:
            raise RoomClosedError("stopped")
