"""How restoration is evaluated: degraded and restored images are compared with the clean ones."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from vrdir.data.pairs import Pair, open_pair
from vrdir.degradations.registry import CLEAN
from vrdir.errors import first_line
from vrdir.evaluation.restoration.metrics import MAIN, Scores, mean_scores, measure
from vrdir.evaluation.restoration.restorers import RestorePair, pair_name

logger = logging.getLogger(__name__)


class Measured(NamedTuple):
    """The scores of one pair.

    Attributes:
        pair: the pair.
        width, height: its size in pixels.
        degraded: the scores of the degraded image.
        restored: the scores of the restored image.
    """

    pair: Pair
    width: int
    height: int
    degraded: Scores
    restored: Scores

    @property
    def gain(self) -> float:
        """The PSNR in RGB that restoring gains, in dB; negative where it harms."""
        return self.restored[MAIN.key] - self.degraded[MAIN.key]


class ExcludedPair(NamedTuple):
    """A pair that could not be measured, and why."""

    pair: Pair
    reason: str


@dataclass(frozen=True)
class SetResult:
    """The result of one restorer on one pair list.

    Attributes:
        name: the set's name.
        source: the pair list.
        rows: a result per pair, in the list's order.
        restorer: the restorer's name.
    """

    name: str
    source: Path
    rows: Sequence[Measured | ExcludedPair]
    restorer: str = "vrdir"

    @property
    def images(self) -> list[Measured]:
        """The pairs that were measured."""
        return [row for row in self.rows if isinstance(row, Measured)]

    @property
    def excluded(self) -> list[ExcludedPair]:
        """The pairs that could not be measured; they are in no mean."""
        return [row for row in self.rows if isinstance(row, ExcludedPair)]

    @property
    def synthetic(self) -> int:
        """How many pairs, measured or not, have a degraded image that was synthesised."""
        return sum(row.pair.synthesis not in ("", CLEAN) for row in self.rows)

    @property
    def degraded(self) -> Scores | None:
        """The mean scores of the degraded images; None if nothing was measured."""
        return mean_scores([image.degraded for image in self.images])

    @property
    def restored(self) -> Scores | None:
        """The mean scores of the restored images; None if nothing was measured."""
        return mean_scores([image.restored for image in self.images])

    @property
    def worse(self) -> list[Measured]:
        """The images that restoring harmed (their PSNR in RGB fell), the most harmed first."""
        harmed = (image for image in self.images if image.gain < 0)
        return sorted(harmed, key=lambda image: image.gain)

    @property
    def examples(self) -> dict[str, Measured]:
        """The worst, median and best restored image by PSNR in RGB, and the most harmed if any.

        The median is the lower of two.
        """
        if not self.images:
            return {}
        ordered = sorted(self.images, key=lambda image: image.restored[MAIN.key])
        examples = {
            "worst": ordered[0],
            "median": ordered[(len(ordered) - 1) // 2],
            "best": ordered[-1],
        }
        return examples | ({"most harmed": self.worse[0]} if self.worse else {})


def measure_pairs(pairs: Iterable[Pair], restore: RestorePair) -> Iterator[Measured | ExcludedPair]:
    """Measure pairs one after another; one that fails is excluded by name.

    Args:
        pairs: from a pair list.
        restore: a restorer, such as `network_for_pairs` returns.

    Yields:
        A result per pair, in order.
    """
    return (row for (row,) in measure_by_each(pairs, {"": restore}))


def measure_by_each(
    pairs: Iterable[Pair], restorers: Mapping[str, RestorePair]
) -> Iterator[tuple[Measured | ExcludedPair, ...]]:
    """Measure pairs by several restorers.

    Their means are over the same pairs: a restorer that fails excludes the pair for all.

    Args:
        pairs: from a pair list.
        restorers: by name.

    Yields:
        For each pair, a result per restorer.
    """
    for pair in pairs:
        current = ""
        try:
            degraded, clean = open_pair(pair)
            before = measure(degraded, clean)
            height, width = clean.shape[2:]
            rows = []
            for name, restore in restorers.items():
                current = name if len(restorers) > 1 else ""
                after = measure(restore(pair, degraded), clean)
                rows.append(Measured(pair, width, height, before, after))
        except Exception as error:  # the next pair may still work
            logger.debug("%s", pair_name(pair), exc_info=True)
            reason = f"{current}: {first_line(error)}" if current else first_line(error)
            yield (ExcludedPair(pair, reason),) * len(restorers)
        else:
            yield tuple(rows)
