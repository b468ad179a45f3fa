"""The settings for a Ray cluster."""

from __future__ import annotations

from typing import NamedTuple


class RaySettings(NamedTuple):
    """How a Ray cluster is used.

    Attributes:
        address: the address of the cluster; "auto" for the cluster of which this machine is a node;
            None to start one on this machine.
        workers: the smallest and the largest number of workers; Ray starts and ends them as needed.
        cpus: the cores of each worker.
        gpus: the GPUs of each worker; with a part such as 0.5, workers share a GPU.
        batch: the number of images that a worker takes at once. If it is killed, at most these are
            restored again.
    """

    address: str | None = "auto"
    workers: tuple[int, int] = (1, 1024)
    cpus: float = 1
    gpus: float = 0
    batch: int = 16
