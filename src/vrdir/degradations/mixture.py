"""Mixtures: a kind of degradation for each image of a batch, drawn at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vrdir.degradations.draws import Draws, Generators, Ranges, generators_of
from vrdir.degradations.jpeg import encoded
from vrdir.degradations.parameters import checked
from vrdir.degradations.registry import CLEAN, DEGRADATIONS, MIXED, can_meet, suggestion
from vrdir.errors import InputError

JPEG_QUALITY = (60.0, 98.0)  # of photos' files, from a web site's to a camera's


class Mixture(NamedTuple):
    """A degraded batch.

    Attributes:
        image: (B, 3, H, W), clipped to [0, 1] and rounded to 8 bits, as a file would store it.
        present: (B, K) bool, which degradations are in which image, in the order of `names`.
        kinds: the kind drawn for each image.
        haze: (B,), the mean of 1 - t of each image's haze; 0 without haze.
    """

    image: Tensor
    present: Tensor
    kinds: list[str]
    haze: Tensor


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
        shares: relative frequency of each kind: a degradation's name, "clean" for no degradation,
            "mixed" for two or three of `names` at once (milder than alone, in the order of nature).
        names: the known degradations, in the order of `Mixture.present`.
        generator: source of all draws; or one for each image, whose pixels then depend only on this
            generator.
        ranges: values of parameters instead of the defaults; in "mixed", the milder ranges have
            precedence.
        jpeg_share: probability that an image of any kind is compressed as JPEG at the end, as most
            photos are. Without it a network may learn that an image with JPEG artefacts has no
            other degradation.

    Raises:
        InputError: an unknown kind or degradation, shares that are negative or all 0, or a
            jpeg_share outside [0, 1].
    """
    _check(shares, names)
    stored_share = checked("jpeg_share", jpeg_share, 0, 1)[0]
    draws = Draws(image, generator)
    kinds = _kinds(shares, draws)
    joins = joining(draws.unit(len(names)).cpu(), names)
    alone = torch.tensor([[name == kind for name in names] for kind in kinds], dtype=torch.bool)
    mixed = torch.tensor([kind == MIXED for kind in kinds])
    present = torch.where(mixed[:, None], joins, alone)

    degraded, haze = image.clone(), torch.zeros(len(image), device=image.device)
    for name in sorted(names, key=list(DEGRADATIONS).index):
        here = present[:, list(names).index(name)]
        for chosen, milder in ((here & ~mixed, {}), (here & mixed, DEGRADATIONS[name].milder)):
            rows = chosen.nonzero().flatten().tolist()
            if rows:
                own = generators_of(generator, rows)
                values = {**ranges.get(name, {}), **milder}
                result = DEGRADATIONS[name](degraded[rows], own, **values)
                degraded[rows] = result.image.clamp(0, 1).to(image.dtype)
                if result.haze is not None:
                    haze[rows] = result.haze.to(haze.dtype)
    if stored_share:
        stored = (draws.unit(1).flatten() < stored_share).view(-1, 1, 1, 1)
        quality = draws.uniform("jpeg_quality", JPEG_QUALITY).round()
        degraded = torch.where(stored, encoded(degraded, quality, subsampling=2), degraded)
    return Mixture((degraded * 255).round() / 255, present.to(image.device), kinds, haze)


def _check(shares: Mapping[str, float], names: Sequence[str]) -> None:
    unknown = set(names) - DEGRADATIONS.keys() | set(shares) - {*names, CLEAN, MIXED}
    if unknown:
        known = ", ".join((*DEGRADATIONS, CLEAN, MIXED))
        raise InputError(
            f"unknown degradation {', '.join(sorted(unknown))}; choose from {known}"
            f"{suggestion(*unknown)}"
        )
    weights = torch.tensor([float(share) for share in shares.values()], dtype=torch.float64)
    if not (weights >= 0).all() or not weights.sum() > 0:
        raise InputError(
            f"shares must be 0 or more, and at least one above 0; they are {dict(shares)}"
        )


def _kinds(shares: Mapping[str, float], draws: Draws) -> list[str]:
    """Draw a kind for each image of a batch, by its share."""
    weights = torch.tensor([float(share) for share in shares.values()], dtype=torch.float64)
    below = (weights / weights.sum()).cumsum(0)[:-1]
    chosen = torch.searchsorted(below, draws.unit(1).cpu(), right=True).flatten().tolist()
    return [list(shares)[index] for index in chosen]


def joining(draws: Tensor, names: Sequence[str]) -> Tensor:
    """Return which of K names join a mixture, (B, K) bool, by uniform draws (B, K).

    Names join in the order of their draws, if they can be in one photo with those before them
    (`can_meet`): two, and a third if its draw is below min(2/3, 2/K). If the lowest can be combined
    with no other, the mixture begins with the next; if all names exclude each other, the two lowest
    are combined.
    """
    limit = min(2 / 3, 2 / max(1, len(names)))
    joins = torch.zeros(draws.shape, dtype=torch.bool)
    for row, own in enumerate(draws.tolist()):
        order = sorted(range(len(names)), key=own.__getitem__)
        taken: list[int] = []
        for first in range(len(order)):
            taken = order[first : first + 1]
            for number in order[first + 1 :]:
                meets = all(can_meet(names[number], names[other]) for other in taken)
                if meets and (len(taken) < 2 or (len(taken) < 3 and own[number] < limit)):
                    taken.append(number)
            if len(taken) > 1:
                break
        joins[row, taken if len(taken) > 1 else order[:2]] = True
    return joins
