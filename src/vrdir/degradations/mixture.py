"""Mixtures: what a batch of clean photos becomes on a bad day, one kind for each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from vrdir.degradations.draws import Draws, Generators, Ranges, single
from vrdir.degradations.jpeg import encoded
from vrdir.degradations.registry import CLEAN, DEGRADATIONS, EXCLUSIVE, MIXED, meant_by

EXCLUDED = [set(pair) for pair in EXCLUSIVE]
JPEG_QUALITY = (60.0, 98.0)  # of the files that photos come in: a web site's to a camera's


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


def degrade_mixture(
    image: Tensor,
    shares: Mapping[str, float],
    names: Sequence[str],
    generator: Generators,
    ranges: Ranges = {},  # noqa: B006 - never written to
    jpeg_share: float = 0.0,
) -> Mixture:
    """Draw a kind for each image of a batch and apply it.

    Args:
        image: (B, 3, H, W) in [0, 1].
        shares: probability of each kind, up to a factor: a degradation's name, "clean" for none, "mixed" for two or three
            of `names` at once (milder than alone, in the order of nature).
        names: the degradations there are, in the order that `present` shall have.
        generator: source of all draws; or one for each image, whose pixels then depend on its own alone.
        ranges: of the parameters of each degradation, where not the defaults; in "mixed" the milder ones come first.
        jpeg_share: probability that an image, whatever its kind, goes through a JPEG file at the end, as most photos do. Without it a
            network may learn that what bears a file's traces has nothing else.

    Raises:
        ValueError: an unknown kind or degradation, shares that are not positive together, or a jpeg_share outside [0, 1].
    """
    unknown = set(names) - DEGRADATIONS.keys() | set(shares) - {*names, CLEAN, MIXED}
    if unknown:
        known = ", ".join((*DEGRADATIONS, CLEAN, MIXED))
        raise ValueError(
            f"unknown degradation {', '.join(sorted(unknown))}; there are {known}{meant_by(*unknown)}"
        )
    weights = torch.tensor([float(share) for share in shares.values()], dtype=torch.float64)
    if not (weights >= 0).all() or not weights.sum() > 0:
        raise ValueError(f"shares are 0 or more, one at least above 0; these are {dict(shares)}")
    draws = Draws(image, generator)
    below = (weights / weights.sum()).cumsum(0)[:-1]
    kinds = [
        list(shares)[index]
        for index in torch.searchsorted(below, draws.unit(1).cpu(), right=True).flatten().tolist()
    ]
    joins = joining(draws.unit(len(names)).cpu(), names)
    alone = torch.tensor([[name == kind for name in names] for kind in kinds], dtype=torch.bool)
    mixed = torch.tensor([kind == MIXED for kind in kinds])
    present = torch.where(mixed[:, None], joins, alone)

    degraded = image.clone()
    for name in sorted(names, key=list(DEGRADATIONS).index):
        here = present[:, list(names).index(name)]
        for chosen, milder in ((here & ~mixed, {}), (here & mixed, DEGRADATIONS[name].milder)):
            rows = chosen.nonzero().flatten().tolist()
            if rows:
                own = (
                    generator
                    if isinstance(generator, Generator)
                    else [generator[row] for row in rows]
                )
                result = (
                    DEGRADATIONS[name]
                    .function(degraded[rows], own, **{**ranges.get(name, {}), **milder})
                    .image
                )
                degraded[rows] = result.clamp(0, 1).to(image.dtype)
    if single("jpeg_share", jpeg_share, 0, 1):
        stored = (draws.unit(1).flatten() < jpeg_share).view(-1, 1, 1, 1)
        quality = draws.uniform("jpeg_quality", JPEG_QUALITY).round()
        degraded = torch.where(stored, encoded(degraded, quality, subsampling=2), degraded)
    return Mixture((degraded * 255).round() / 255, present.to(image.device), kinds)


def joining(draws: Tensor, names: Sequence[str]) -> Tensor:
    """Which of K names join a mixture, (B, K) bool, by uniform draws (B, K).

    In the order of their draws, each that can meet those before it in one photo (`EXCLUSIVE`) is taken: two, and a third if its
    draw is below min(2/3, 2/K). Where the lowest can meet none of the others, the next begins; where none can meet another, the two
    lowest are taken all the same.
    """
    limit = min(2 / 3, 2 / max(1, len(names)))
    joins = torch.zeros(draws.shape, dtype=torch.bool)
    for row, own in enumerate(draws.tolist()):
        order = sorted(range(len(names)), key=own.__getitem__)
        taken: list[int] = []
        for first in range(len(order)):
            taken = order[first : first + 1]
            for number in order[first + 1 :]:
                meets = not any({names[number], names[other]} in EXCLUDED for other in taken)
                if meets and (len(taken) < 2 or (len(taken) < 3 and own[number] < limit)):
                    taken.append(number)
            if len(taken) > 1:
                break
        joins[row, taken if len(taken) > 1 else order[:2]] = True
    return joins
