"""Handlers of signals for a block of code."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def handled(handler: Callable[[int, Any], object], *numbers: int) -> Iterator[None]:
    """Handle signals by a function in this block, and restore the handlers at its end.

    Python receives signals only in the main thread. In another thread the handlers stay unchanged.

    Args:
        handler: called with the signal's number and the current frame.
        numbers: the signals, such as `signal.SIGINT`.
    """
    before: dict[int, Any] = {}
    try:
        for number in numbers:
            before[number] = signal.signal(number, handler)
    except ValueError:  # not the main thread
        pass
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
