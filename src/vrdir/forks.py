"""Forked processes, into which torch's threads do not follow."""

from __future__ import annotations

import os
from functools import cache

import torch


@cache
def survive_forks() -> None:
    """Have every process that is forked from now on compute with one thread.

    OpenMP, with which torch computes on a CPU, goes on to count on the threads that it had before the fork. They are not
    there in the child, which would wait for them for ever; alone it waits for nobody.
    """
    if hasattr(os, "register_at_fork"):  # Windows forks nothing
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))
