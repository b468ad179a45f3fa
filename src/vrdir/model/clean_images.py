"""Decide which images are clean, so that they can be left unchanged."""

from __future__ import annotations

import torch
from torch import Tensor

from vrdir.errors import InputError
from vrdir.model.config import VRDIRConfig
from vrdir.model.global_context import Lift

# The share of the clean branch from which `skip_clean` leaves an image unchanged. With `small` that
# is four in ten clean photos, and at most 2 % of visibly degraded ones (docs/frontend.md).
CLEAN_SHARE = 0.3
THIN = 0.02  # a mean log gain below which an image counts as free of haze: 2 % of the contrast


def shares_of(guidance: list[Tensor]) -> Tensor:
    """Return the mean of the guidance over positions and taps, (B, K)."""
    return torch.stack([g.mean((2, 3)) for g in guidance]).mean(0)


def is_clean(shares: Tensor, veil: Lift | None, threshold: float) -> Tensor:
    """Return which images are clean, (B,) bool: by the clean branch's share and the context."""
    clean = shares[:, -1] >= threshold
    if veil is None:
        return clean
    return clean & (veil.amount() < THIN)


def clean_threshold(skip_clean: bool | float, config: VRDIRConfig) -> float | None:
    """Return the share from which an image counts as clean; None restores all images.

    Raises:
        InputError: the network has no clean branch, or the share is not above 0 and at most 1.
    """
    if skip_clean is False:
        return None
    if not config.clean_branch:
        raise InputError(
            "skip_clean needs a network with a clean branch (clean_branch in its config); this "
            "one has none"
        )
    threshold = CLEAN_SHARE if skip_clean is True else float(skip_clean)
    if not 0 < threshold <= 1:
        raise InputError(
            f"skip_clean must be True, False or a share above 0 and up to 1, not {skip_clean!r}"
        )
    return threshold
