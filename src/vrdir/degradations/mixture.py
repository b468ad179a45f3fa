"""Mixtures: what a batch of clean photos becomes on a bad day, one kind for each image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from vrdir.degradations.draws import Degraded
from vrdir.degradations.haze import haze
from vrdir.degradations.noise import noise
from vrdir.degradations.rain import rain

DEGRADATIONS: dict[str, Callable[..., Degraded]] = {"haze": haze, "rain": rain, "noise": noise}
"""By name, in the order in which nature applies them: the air, what falls through it, the sensor."""

CLEAN, MIXED = "clean", "mixed"

# A mixture of three at full strength leaves nothing to see; its parts are milder than each alone.
MILDER: dict[str, dict[str, tuple[float, float]]] = {
    "haze": {"beta": (0.2, 1.8)},
    "rain": {"coverage": (0.02, 0.25), "veil": (0.0, 0.1)},
    "noise": {"sigma": (2.0, 30.0)},
}


class Mixture(NamedTuple):
    """A degraded batch.

    Attributes:
        image: (B, 3, H, W), clipped to [0, 1] and rounded to 8 bits, as a file would hold it.
        present: (B, K) bool, which degradation went into which image, in the order of `names`.
        kinds: the kind drawn for each image.
    """

    image: Tensor
    present: Tensor
    kinds: list[str]


def degrade_mixture(image: Tensor, shares: Mapping[str, float], names: Sequence[str], generator: Generator) -> Mixture:
    """Draw a kind for each image of a batch and apply it.

    Args:
        image: (B, 3, H, W) in [0, 1].
        shares: probability of each kind, up to a factor: a degradation's name, "clean" for none, "mixed" for two or more
            of `names` at once (milder than alone).
        names: the degradations there are, in the order that `present` shall have.
        generator: source of all draws.

    Raises:
        ValueError: an unknown kind or degradation.
    """
    unknown = set(names) - DEGRADATIONS.keys() | set(shares) - {*names, CLEAN, MIXED}
    if unknown:
        raise ValueError(f"unknown degradation {', '.join(sorted(unknown))}; there are {', '.join(DEGRADATIONS)}, {CLEAN}, {MIXED}")
    batch = image.shape[0]
    weights = torch.tensor([float(shares[kind]) for kind in shares], device=generator.device)
    drawn = torch.multinomial(weights, batch, replacement=True, generator=generator).tolist()
    kinds = [list(shares)[index] for index in drawn]
    # For a mixture each degradation joins with probability 2 / 3; fewer than two and all of them join.
    joins = torch.rand(batch, len(names), generator=generator, device=generator.device).cpu() < 2 / 3
    joins[joins.sum(1) < 2] = True
    alone = torch.tensor([[name == kind for name in names] for kind in kinds], dtype=torch.bool)
    mixed = torch.tensor([kind == MIXED for kind in kinds])
    present = torch.where(mixed[:, None], joins, alone)

    degraded = image.clone()
    for name in sorted(names, key=list(DEGRADATIONS).index):
        here = present[:, list(names).index(name)]
        for chosen, ranges in ((here & ~mixed, {}), (here & mixed, MILDER[name])):
            if chosen.any():
                rows = chosen.to(image.device)
                degraded[rows] = DEGRADATIONS[name](degraded[rows], generator, **ranges).image.to(image.dtype)
    return Mixture((degraded.clamp(0, 1) * 255).round() / 255, present.to(image.device), kinds)
