"""Signals: Ctrl-C and a system that shuts down stop a command, which then cleans up."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vrdir.signals import handled

GRACE = 1.5  # seconds that running work has to end after a signal


class Stopped(BaseException):
    """A signal asked the command to stop."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def stoppable(give_up: Callable[[int], None] | None = None) -> Iterator[None]:
    """Raise Stopped for SIGINT and SIGTERM, so that temporary files are removed.

    Args:
        give_up: called with the signal's number if work that no signal reaches has not ended
            after `GRACE` seconds.
    """
    timers: list[threading.Timer] = []

    def stop(number: int, frame: object) -> None:
        if timers:  # a further signal, while the first one is handled
            return
        if give_up is not None:
            timers.append(threading.Timer(GRACE, give_up, [number]))
            timers[0].daemon = True
            timers[0].start()
        raise Stopped(number)

    with handled(stop, signal.SIGINT, signal.SIGTERM):
        try:
            yield
        finally:
            for timer in timers:
                # The pool does not know a thread that was started at the moment of the signal.
                while timer.is_alive() and any(
                    thread.name.startswith("file_") for thread in threading.enumerate()
                ):
                    time.sleep(0.02)
                timer.cancel()
