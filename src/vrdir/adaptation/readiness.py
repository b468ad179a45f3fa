"""Set how readily the global context takes a photo of the place for a photo in fog.

The context decides for every photo whether it shows fog. For a camera with fog every morning it
should decide so more readily than for one indoors. Photos of the place in fog show how much more;
the user's clean photos set the limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vrdir.data.image_cache import decode
from vrdir.data.items import spread
from vrdir.model.global_context import GlobalContext, lift_whole, reduced
from vrdir.model.vrdir import VRDIR

CHANGED = 4.0 / 255
"""Mean change from which a photo counts as changed."""
CLEAN_SHARE = 0.02
"""The additional share of clean photos that the context may change."""
STEPS = (0.04, 0.08, 0.12, 0.16, 0.2, 0.25, 0.3, 0.35, 0.4)
"""The values that are tried, added to the context's strengths; a strength of 0.5 is certainty."""
ENOUGH = 0.95
"""The share of the place's photos that is sufficient."""
MOST_CLEAN = 100
"""The largest number of clean photos that are used."""


class Readiness(NamedTuple):
    """The value that was added to the strengths, and its effect.

    Attributes:
        added: the value, from 0 to 0.4.
        place: the share of the photos of the place that the context changes, before and after.
        clean: the same share of the clean photos.
    """

    added: float
    place: tuple[float, float]
    clean: tuple[float, float]

    def __str__(self) -> str:
        """Return the shares in words."""
        place, clean = (
            " -> ".join(f"{100 * share:.0f}" for share in each) for each in (self.place, self.clean)
        )
        return f"the global context changes {place} % of these photos, {clean} % of clean photos"


def make_ready(network: VRDIR, place: Sequence[Path], clean: Sequence[Path]) -> Readiness | None:
    """Add a value to the strengths of a network's context, so that it changes photos of the place.

    It is the smallest value tried with which the context changes 95 % of these photos by 4 of 255
    levels or more. The share of clean photos that it changes may rise by 2 percentage points, or by
    one photo if that is more; else the value is lower.

    Args:
        network: the network; its context is changed in place.
        place: photos of the place in fog.
        clean: clean photos; up to 100 are used, evenly spread.

    Returns:
        The value and its effect, or None if the network has no context that raises local contrast.

    Raises:
        ImageError: a photo cannot be decoded.
    """
    context = network.context
    if context is None or not context.tone or network.config.context is None:
        return None
    side = network.config.context.side
    if len(clean) > MOST_CLEAN:
        clean = [clean[i] for i in spread(len(clean), MOST_CLEAN)]
    device = next(network.parameters()).device
    seen, left = (
        [reduced(decode(path)[None].to(device).float() / 255, side) for path in paths]
        for paths in (place, clean)
    )
    assert context.to_strength.bias is not None
    start = context.to_strength.bias.detach().clone()
    before = share_changed(network, seen), share_changed(network, left)
    allowed = before[1] + max(CLEAN_SHARE, 1 / max(len(left), 1))
    best = Readiness(0.0, (before[0], before[0]), (before[1], before[1]))
    for added in STEPS:
        if best.place[1] >= ENOUGH:
            break
        _set_bias(context, start + added)
        now = share_changed(network, seen), share_changed(network, left)
        if now[1] > allowed:
            break
        best = Readiness(added, (before[0], now[0]), (before[1], now[1]))
    _set_bias(context, start + best.added)
    return best


def share_changed(network: VRDIR, copies: Sequence[Tensor]) -> float:
    """Return the share of reduced copies, (1, 3, S, S) each, that the context changes."""
    changed = 0
    with torch.no_grad():
        for copy in copies:
            found = network.veil(copy)
            assert found is not None
            changed += float((lift_whole(copy, found) - copy).abs().mean()) >= CHANGED
    return changed / max(len(copies), 1)


def _set_bias(context: GlobalContext, values: Tensor) -> None:
    with torch.no_grad():
        assert context.to_strength.bias is not None
        context.to_strength.bias.copy_(values)
