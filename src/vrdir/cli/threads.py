"""How many threads the command line computes with, and what they do while they wait."""

from __future__ import annotations

import os


def wait_quietly() -> None:
    """Make threads sleep while they wait for work, unless the user has set another policy.

    By default they spin, which takes a processor from other programs. OpenMP reads the policy when
    torch is loaded, so this is called before.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        # GNU's OpenMP spins for about a tenth of a millisecond first, which bridges the gap between
        # two layers, so that small images take less time.
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
        # Without this, Intel's and LLVM's OpenMP spin for 200 ms first.
        os.environ.setdefault("KMP_BLOCKTIME", "0")


def use_threads(threads: int | None) -> int | None:
    """Compute with this many threads, here and in processes that are started; None changes nothing.

    Returns:
        The number, as Typer expects of an option's callback.
    """
    if threads is not None:
        import torch

        os.environ["OMP_NUM_THREADS"] = str(threads)
        torch.set_num_threads(threads)
    return threads
