"""Restoring the degraded image of every pair and measuring it, and the degraded one, against the clean one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vrdir.data.pairs import Pair, open_pair
from vrdir.degradations.registry import CLEAN
from vrdir.errors import ImageError, first_line
from vrdir.evaluation.restoration.metrics import Scores, measure
from vrdir.images.convert import open_image
from vrdir.images.folders import Names
from vrdir.images.formats import IMAGE_SUFFIXES, plain_suffix
from vrdir.restoring.restorer import Restorer

logger = logging.getLogger(__name__)

Pixels = np.ndarray[Any, np.dtype[np.uint8]]  # (H, W, 3), RGB
Restore = Callable[
    [Pair, Tensor], Tensor
]  # the restored image for a pair, whose degraded image (1, 3, H, W) in [0, 1] is given


class Measured(NamedTuple):
    """What one pair's images are worth: the size in pixels and the figures of the degraded and of the restored one."""

    pair: Pair
    width: int
    height: int
    degraded: Scores
    restored: Scores

    @property
    def gain(self) -> float:
        """PSNR in RGB of the restored image less that of the degraded one, dB; negative where restoring did harm."""
        return self.restored.psnr_rgb - self.degraded.psnr_rgb


class Excluded(NamedTuple):
    """A pair that could not be measured, and why."""

    pair: Pair
    reason: str


@dataclass(frozen=True)
class SetResult:
    """What came of one pair list.

    Attributes:
        name: what the set is called.
        source: the pair list.
        rows: a result per pair, in the list's order.
        restorer: what restored its images.
    """

    name: str
    source: Path
    rows: Sequence[Measured | Excluded]
    restorer: str = "vrdir"

    @property
    def images(self) -> list[Measured]:
        """The pairs that were measured."""
        return [row for row in self.rows if isinstance(row, Measured)]

    @property
    def excluded(self) -> list[Excluded]:
        """The others; they are in no mean."""
        return [row for row in self.rows if isinstance(row, Excluded)]

    @property
    def synthetic(self) -> int:
        """How many pairs, measured or not, have a degraded image that was synthesised."""
        return sum(row.pair.synthesis not in ("", CLEAN) for row in self.rows)

    @property
    def degraded(self) -> Scores | None:
        """Means over the degraded images; None if nothing was measured."""
        return _mean([image.degraded for image in self.images])

    @property
    def restored(self) -> Scores | None:
        """Means over the restored images; None if nothing was measured."""
        return _mean([image.restored for image in self.images])

    @property
    def worse(self) -> list[Measured]:
        """The images that restoring harmed (their PSNR in RGB fell), the most harmed first."""
        return sorted(
            (image for image in self.images if image.gain < 0), key=lambda image: image.gain
        )

    @property
    def cases(self) -> dict[str, Measured]:
        """Worst, median (the lower of two) and best by PSNR in RGB of the restored image, and the most harmed if any was."""
        if not self.images:
            return {}
        ordered = sorted(self.images, key=lambda image: image.restored.psnr_rgb)
        cases = {
            "worst": ordered[0],
            "median": ordered[(len(ordered) - 1) // 2],
            "best": ordered[-1],
        }
        return cases | ({"most harmed": self.worse[0]} if self.worse else {})


def by_network(restorer: Restorer) -> Restore:
    """Restored images by running the network, rounded to 8 bits, as a file would hold them; grey where the degraded one is grey."""

    def restore(pair: Pair, degraded: Tensor) -> Tensor:
        grey = bool((degraded == degraded[:, :1]).all())
        restored = restorer(degraded[:, :1]).expand(degraded.shape) if grey else restorer(degraded)
        return (restored.clamp(0, 1) * 255).round() / 255

    return restore


def by_function(function: Callable[[Pixels], Any]) -> Restore:
    """Restored images by any function of an image (H, W, 3), uint8, RGB, that returns one of the same kind and size.

    For a pair it raises ImageError where the function returns anything else.
    """

    def restore(pair: Pair, degraded: Tensor) -> Tensor:
        image = (degraded[0] * 255).round().byte().movedim(0, -1).cpu().numpy()
        restored = function(image.copy())
        if (
            not isinstance(restored, np.ndarray)
            or restored.dtype != np.uint8
            or restored.shape != image.shape
        ):
            kind = (
                f"{restored.dtype} {restored.shape}"
                if isinstance(restored, np.ndarray)
                else type(restored).__name__
            )
            raise ImageError(
                f"the restorer returned {kind} for an image of uint8 {image.shape}; give back the same kind and size"
            )
        return torch.from_numpy(restored.copy()).movedim(-1, 0)[None] / 255

    return restore


def from_folder(folder: Path) -> Restore:
    """Restored images that lie in files: `folder`/<name of the degraded file without its suffix>.<any image suffix>.

    For a pair it raises ImageError where there is no such file, several, one that cannot be read, or one of another size.

    Raises:
        FileNotFoundError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of restored images at {folder}")
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if plain_suffix(path) in IMAGE_SUFFIXES:
            files.setdefault(path.stem, []).append(path)
    names = Names(files)
    if not files:
        raise FileNotFoundError(
            f"no images in {folder}; restored ones are looked for under the names of the degraded ones"
        )

    def restore(pair: Pair, degraded: Tensor) -> Tensor:
        if pair.degraded is None:
            raise ImageError(
                f"{name_of(pair)} is synthesised and lies in no file that {folder} could hold the restored one of"
            )
        found = files.get(names.find(pair.degraded.stem), [])
        if len(found) != 1:
            problem = (
                f"holds {' and '.join(path.name for path in found)}"
                if found
                else f"holds no {pair.degraded.stem}.*"
            )
            raise ImageError(
                f"{folder} {problem}; one restored image for each degraded one is needed"
            )
        restored = open_image(found[0]).tensor
        if restored.shape != degraded.shape:
            sizes = " and ".join(
                f"{image.shape[3]} x {image.shape[2]}" for image in (restored, degraded)
            )
            raise ImageError(f"{found[0]} and {pair.degraded} have two sizes, {sizes} pixels")
        return restored

    return restore


def check_restored_names(pairs: Iterable[Pair]) -> None:
    """Whether a folder of restored images can hold one for each pair.

    Raises:
        ValueError: a degraded image is synthesised, or two of them would have the same restored one.
    """
    taken: dict[str, Path] = {}
    for pair in pairs:
        if pair.degraded is None:
            raise ValueError(
                f"{name_of(pair)} has no degraded file, so nobody else can have restored it; write files with `vrdir degrade` first"
            )
        other = taken.setdefault(pair.degraded.stem, pair.degraded)
        if other != pair.degraded:
            raise ValueError(
                f"{other} and {pair.degraded} would have the same restored file {other.stem}.*; evaluate one set at a time"
            )


def measure_pairs(pairs: Iterable[Pair], restore: Restore) -> Iterator[Measured | Excluded]:
    """Measure one pair after another; one that cannot be is named and the others still get measured.

    Args:
        pairs: from a pair list.
        restore: `by_network`, `from_folder`, or any other restorer.

    Yields:
        A result per pair, in order.
    """
    return (row for (row,) in measure_by_each(pairs, {"": restore}))


def measure_by_each(
    pairs: Iterable[Pair], restorers: Mapping[str, Restore]
) -> Iterator[tuple[Measured | Excluded, ...]]:
    """As `measure_pairs`, by several restorers: their means are over the same pairs, so one that fails excludes a pair for all.

    Args:
        pairs: from a pair list.
        restorers: by name.

    Yields:
        For each pair a result per restorer.
    """
    for pair in pairs:
        at_work = ""
        try:
            degraded, clean = open_pair(pair)
            before = measure(degraded, clean)
            height, width = clean.shape[2:]
            rows = []
            for name, restore in restorers.items():
                at_work = name if len(restorers) > 1 else ""
                rows.append(
                    Measured(pair, width, height, before, measure(restore(pair, degraded), clean))
                )
        except Exception as error:  # whatever it is, the next pair is another
            logger.debug("%s", name_of(pair), exc_info=True)
            reason = f"{at_work}: {first_line(error)}" if at_work else first_line(error)
            yield (Excluded(pair, reason),) * len(restorers)
        else:
            yield tuple(rows)


def name_of(pair: Pair) -> str:
    """What a pair is called in reports: the degraded file's name, or the clean one's and what was done to it."""
    return (
        pair.degraded.name if pair.degraded is not None else f"{pair.clean.name} ({pair.synthesis})"
    )


def _mean(scores: Sequence[Scores]) -> Scores | None:
    return (
        Scores(*(sum(column) / len(scores) for column in zip(*scores, strict=True)))
        if scores
        else None
    )
