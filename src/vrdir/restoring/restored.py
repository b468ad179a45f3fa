"""Restoring of an opened image: the same for images, files and frames."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from threading import Lock
from typing import Any, NamedTuple

import torch

from vrdir.batch.results import Diagnosis
from vrdir.images.open_arrays import OpenImage
from vrdir.model.checks import check_result
from vrdir.model.global_statistics import GlobalStatistics
from vrdir.restoring.diagnosis import diagnose
from vrdir.restoring.network import Network
from vrdir.restoring.strips import no_check
from vrdir.tensors import usual_defaults


class Restored(NamedTuple):
    """A restored image and the degradations that were found.

    Attributes:
        image: of the type of the input.
        shares: the share of each degradation by the guidance maps, for each image of a batch.
        diagnosis: the same in physical terms, for each image of a batch; empty if it was not
            wanted.
    """

    image: Any
    shares: list[dict[str, float]]
    diagnosis: list[Diagnosis]


def restore_opened(
    network: Network,
    opened: OpenImage,
    statistics: GlobalStatistics | None = None,
    check: Callable[[], None] = no_check,
    diagnosed: bool = True,
) -> Restored:
    """Restore an image that was converted to RGB in [0, 1], and convert the result back.

    Args:
        network: the network and its settings.
        opened: the image, or a batch.
        statistics: as for `VRDIR.restore`.
        check: called between steps of the work; it may raise an error to stop it.
        diagnosed: measure the diagnosis, which takes a few milliseconds; otherwise it is empty.

    Raises:
        ResultError: the result is not finite.
    """
    device = network.device
    half = torch.autocast(device.type, torch.bfloat16, enabled=network.precision == "bf16")
    # No inference mode: a recogniser could not use its tensors in training.
    with usual_defaults(), torch.no_grad(), half, _turn_on(str(device)):
        pixels = opened.tensor.to(device).contiguous(memory_format=torch.channels_last)
        restoration = network.restore(pixels, statistics, check)
        check_result(restoration.image, restoration.shares)
        diagnosis = diagnose(pixels, restoration, network.control) if diagnosed else []
    names = network.model.config.guidance_names
    shares = [dict(zip(names, row, strict=True)) for row in restoration.shares.tolist()]
    return Restored(opened.close(restoration.image), shares, diagnosis)


@cache
def _turn_on(device: str) -> AbstractContextManager[Any]:
    """Return what a thread acquires while it computes on a device.

    On a GPU it is a lock, one image after the other: the memory budget is of the machine's memory,
    not of the GPU's, and a GPU has one queue anyway.
    """
    return nullcontext() if device == "cpu" else Lock()
