"""Computing with torch in forked processes, which do not inherit its threads."""

from __future__ import annotations

import os
from functools import cache

import torch


@cache
def survive_forks() -> None:
    """Make every process that is forked from now on compute with one thread.

    Torch computes with OpenMP on a CPU. After a fork, OpenMP in the child still counts on the
    threads of the parent, which do not exist there, and would wait for them forever.
    """
    if hasattr(os, "register_at_fork"):  # Windows has no fork
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))
