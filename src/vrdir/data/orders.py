"""The order in which a stage uses its items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch


class Cycle:
    """Items in turn: each epoch has all of them, in a new order.

    Of several lists, the shorter ones are repeated to the length of the longest.
    """

    def __init__(self, lists: Sequence[Sequence[int]], seed: Callable[[int], int]) -> None:
        self.lists, self.seed = lists, seed
        self.length = len(lists) * max(map(len, lists))

    def index(self, n: int) -> int:
        """Return the index of the n-th image's item."""
        epoch, position = divmod(n, self.length)
        place = random_order(self.length, self.seed(epoch))[position]
        chosen = self.lists[place % len(self.lists)]
        return chosen[place // len(self.lists) % len(chosen)]


@lru_cache(4)
def random_order(length: int, seed: int) -> list[int]:
    """Return a random order of the numbers 0 to `length - 1`."""
    return torch.randperm(length, generator=torch.Generator().manual_seed(seed)).tolist()
