"""How often work was begun on a cluster, so that an image that ends its workers is set aside.

A damaged file may crash a decoder, and a huge one may need more memory than a worker has. Ray then
gives its block to the next worker, without end. After `MOST` lost workers the images of a block are
restored one at a time, and one that loses `MOST` more is failed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

MOST = 2


class Counts:
    """Counts how often each piece of work was begun and not ended. On Ray it is an actor."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()

    def begin(self, names: Sequence[str]) -> int:
        """Count pieces of work that begin, and return how often one of them began before."""
        before = max((self._begun[name] for name in names), default=0)
        self._begun.update(names)
        return before

    def end(self, names: Sequence[str]) -> None:
        """Forget pieces of work that have ended."""
        for name in names:
            self._begun.pop(name, None)


class Tries:
    """What a worker asks the counts of the whole cluster.

    Args:
        counts: the handle of an actor of `Counts`; None outside a cluster, where nothing is
            restored twice.
    """

    def __init__(self, counts: Any = None) -> None:
        self._counts = counts

    def begin(self, names: Sequence[str]) -> bool:
        """Begin pieces of work; return whether they lost too many workers before."""
        if self._counts is None:
            return False
        import ray

        before: int = ray.get(self._counts.begin.remote(names))
        return before >= MOST

    def end(self, names: Sequence[str]) -> None:
        """End pieces of work."""
        if self._counts is not None:
            self._counts.end.remote(names)
