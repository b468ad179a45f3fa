"""Control: how strongly an image is restored, and which degradations are removed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vrdir.errors import InputError
from vrdir.model.global_context import Lift

HAZE, CLEAN = "haze", "clean"
STRONGEST = 2.0


class Control(NamedTuple):
    """How strongly an image is restored, and which degradations are removed.

    Attributes:
        strength: 0 leaves the image unchanged, 1 restores as trained; up to 2. The transmission is
            taken to this power, the exposure too, and what the local network adds is multiplied.
        only: the degradations to remove; None for all.
    """

    strength: float = 1.0
    only: frozenset[str] | None = None

    def lifts(self) -> bool:
        """Return whether haze is removed."""
        return self.only is None or HAZE in self.only

    def is_local(self, unveils: bool) -> bool:
        """Return whether the local network has anything to do.

        Args:
            unveils: whether the global context removes all haze, so that none is left for it.
        """
        return self.only is None or bool(self.only - {HAZE}) or not unveils

    def of_veil(self, veil: Lift) -> Lift:
        """Return the lift of the global context, times the strength."""
        return veil if self.strength == 1 else veil.times(self.strength)

    def of_guidance(self, guidance: list[Tensor], branches: Sequence[str]) -> list[Tensor]:
        """Return the guidance maps without the branches that are switched off.

        Their share goes to the clean branch, or to the others if there is no clean branch.
        """
        if self.only is None:
            return guidance
        masked = []
        for maps in guidance:
            names = [*branches, CLEAN][: maps.shape[1]]
            kept = torch.tensor([name in (*self.only, CLEAN) for name in names], device=maps.device)
            left = maps * kept.view(1, -1, 1, 1)
            missing = 1 - left.sum(1, keepdim=True)
            clean = [name == CLEAN for name in names]
            if any(clean):
                masked.append(left + missing * left.new_tensor(clean).view(1, -1, 1, 1))
                continue
            masked.append(left / (1 - missing).clamp_min(1e-6))
        return masked

    def of_result(self, clear: Tensor, restored: Tensor) -> Tensor:
        """Return the restored image with the local network's correction times the strength."""
        if self.strength == 1:
            return restored
        return clear + self.strength * (restored - clear)


ALL = Control()


def checked_control(
    strength: float, only: Iterable[str] | str | None, branches: Sequence[str]
) -> Control:
    """Return the control for a network with these branches.

    Raises:
        ValueError: the strength is outside 0 to 2, or the network has no branch of a name.
    """
    if isinstance(strength, bool) or not math.isfinite(strength) or not 0 <= strength <= STRONGEST:
        raise InputError(f"strength must be a number from 0 to {STRONGEST:g}, not {strength!r}")
    if only is None:
        return Control(float(strength))
    names = frozenset([only] if isinstance(only, str) else only)
    unknown = sorted(names - set(branches))
    if unknown or not names:
        said = ", ".join(map(repr, unknown)) or "nothing"
        raise InputError(f"only must name what to remove, from {', '.join(branches)}; not {said}")
    return Control(float(strength), names)
