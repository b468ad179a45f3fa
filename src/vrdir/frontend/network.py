"""The restoration network of a front-end: load it, and keep its parameters in float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vrdir.errors import WeightsError
from vrdir.export.exported_model import ExportedModel
from vrdir.model.blocks import move_to
from vrdir.model.vrdir import VRDIR
from vrdir.restoring.loading import network_of
from vrdir.restoring.restorer import Restorer

if TYPE_CHECKING:
    from typing_extensions import Self


class KeepsDtypes(nn.Module):
    """A module whose parameters follow `to(device)` and memory formats, but never change dtype.

    `half()`, `bfloat16()` and `to(dtype)` of a model that contains it leave its parameters as they
    are. The network's Fourier transform needs float32.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Apply `fn` as `torch.nn.Module` does for `to`, `half` and `cuda`, keeping dtypes."""

        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keep_dtype, recurse)  # type: ignore[no-untyped-call]


def load_network(weights: str | Path | VRDIR | Restorer, device: torch.device) -> VRDIR:
    """Load the restoration network onto a device.

    Args:
        weights: a name, folder or repository id as for `Restorer`, a network, or a `Restorer`,
            whose network is used. An existing network is moved to the device in place.
        device: where to run it.

    Raises:
        WeightsError: an exported network, or one that does not compute in float32.
        MissingFileError: the weights do not exist.
    """
    if isinstance(weights, Restorer) and weights.precision != "float32":
        raise WeightsError(
            f"a front-end computes in float32, but this Restorer in {weights.precision}; pass a "
            "Restorer with precision float32, or the weights"
        )
    network = weights.model if isinstance(weights, Restorer) else weights
    if isinstance(network, ExportedModel):
        raise WeightsError(
            "a front-end needs backend torch, since gradients pass through it; pass the weights "
            "instead of the exported file"
        )
    return move_to(network_of(network), device)
