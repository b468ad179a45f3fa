"""How a Ray cluster is used."""

from __future__ import annotations

from typing import NamedTuple


class RaySettings(NamedTuple):
    """How a Ray cluster is used.

    Attributes:
        address: of the cluster; "auto" for the one this machine is a node of, None for one that is
            started on this machine.
        workers: the least and the most workers; Ray adds and removes them between.
        cpus: cores of each worker.
        gpus: GPUs of each worker; a part such as 0.5 lets workers share one.
        batch: images that a worker takes at once. A killed worker loses no more than these.
    """

    address: str | None = "auto"
    workers: tuple[int, int] = (1, 1024)
    cpus: float = 1
    gpus: float = 0
    batch: int = 16
