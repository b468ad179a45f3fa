"""Load the network and choose the device that a Restorer computes with."""

from __future__ import annotations

from pathlib import Path

import torch

from vrdir.errors import InputError, WeightsError, first_line
from vrdir.export.backends import BACKENDS, FORMATS, TORCH
from vrdir.export.exported_model import ExportedModel
from vrdir.export.exporting import cached_export
from vrdir.model.blocks import move_to
from vrdir.model.loading import check_finite
from vrdir.model.vrdir import VRDIR
from vrdir.spelling import did_you_mean


def load_model(weights: str | Path | VRDIR, device: str, backend: str) -> VRDIR | ExportedModel:
    """Load a network for a backend, in evaluation mode.

    Args:
        weights: as for `Restorer`.
        device: as for `Restorer`.
        backend: "torch", or a name in `vrdir.export.backends.BACKENDS`.

    Raises:
        InputError: the device does not exist, or the backend does not run on it.
        WeightsError: the weights cannot be used.
        MissingFileError: there are no such weights.
    """
    if backend == TORCH:
        return move_to(network_of(weights), choose_device(device)).eval()
    if str(device) not in ("auto", "cpu"):
        raise InputError(
            f"backend {backend} runs on the CPU, not on {device!r}; "
            "choose device cpu, or backend torch"
        )
    file = _exported_file(weights) or cached_export(network_of(weights), backend)
    return ExportedModel(file, backend)


def network_of(weights: str | Path | VRDIR) -> VRDIR:
    """Return a network in PyTorch.

    Args:
        weights: the network itself, or its name, folder or repository id; see
            `VRDIR.from_pretrained`.

    Raises:
        WeightsError: the network is not in float32, is not finite, or is an exported file.
        MissingFileError: there are no such weights.
    """
    if isinstance(weights, VRDIR):
        types = {str(parameter.dtype).removeprefix("torch.") for parameter in weights.parameters()}
        if others := sorted(types - {"float32"}):
            raise WeightsError(
                f"the network contains parameters in {' and '.join(others)}; convert it to "
                "float32: network.float()"
            )
        check_finite(weights.state_dict(), "the network")
        return weights
    if _exported_file(weights) is not None:
        raise WeightsError(
            f"{weights} is the name of an exported network; those run with backend "
            f"{' or '.join(BACKENDS)}, not torch"
        )
    return VRDIR.from_pretrained(weights)


def _exported_file(weights: str | Path | VRDIR) -> Path | None:
    """Return the path if `weights` names an exported network."""
    if isinstance(weights, VRDIR) or Path(weights).suffix not in FORMATS:
        return None
    return Path(weights)


def choose_device(device: str) -> torch.device:
    """Return a torch device by name; "auto" is a GPU if there is one, else the CPU.

    Raises:
        InputError: there is no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        hint = did_you_mean(
            str(device),
            ("cpu", "cuda", "auto", "mps"),
            {"gpu": "cuda", "nvidia": "cuda", "metal": "mps"},
        )
        raise InputError(
            f"device {device!r} is not available ({first_line(error)}); choose cpu, cuda or "
            f"auto{hint}"
        ) from None
    return chosen
