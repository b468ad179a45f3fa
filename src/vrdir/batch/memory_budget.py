"""A memory budget for files that are processed at the same time.

Many small files fit into it at once; a large file waits until it is alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

import torch

from vrdir.images.memory import memory_limit

SHARE = 0.25  # of the memory of the machine, or of the container


def share_of_memory() -> int:
    """Return a quarter of the memory that this process can have, in bytes."""
    return int(SHARE * memory_limit())


class BudgetClosedError(RuntimeError):
    """The run was stopped: the result that the memory was for is no longer wanted."""


class MemoryBudget:
    """A number of bytes that threads share.

    A thread that asks for all of them, or more, waits until it is alone, and then computes with
    all of torch's threads.

    Args:
        size: bytes; None for a quarter of the machine's memory.
    """

    def __init__(self, size: int | None = None) -> None:
        self.size = share_of_memory() if size is None else size
        self.threads = torch.get_num_threads()
        self._reserved = 0
        self._closed = False
        self._changed = Condition()

    @contextmanager
    def reserve(self, size: int | None) -> Iterator[None]:
        """Wait for memory, and hold it until the end of the block.

        Args:
            size: bytes; None for the whole budget.

        Raises:
            BudgetClosedError: the budget is closed, or is closed during the wait.
        """
        size = self.size if size is None else min(size, self.size)
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._reserved + size <= self.size)
            self.check()
            self._reserved += size
        own = torch.get_num_threads()  # OpenMP keeps a number for each thread
        try:
            if size == self.size:
                torch.set_num_threads(self.threads)
            yield
        finally:
            torch.set_num_threads(own)
            with self._changed:
                self._reserved -= size
                self._changed.notify_all()

    def close(self) -> None:
        """Give no more memory, not even to threads that wait for it."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def check(self) -> None:
        """Raise BudgetClosedError if the budget is closed. Long work calls this at its steps."""
        if self._closed:
            raise BudgetClosedError("the run was stopped")
