"""How sure a figure is: bootstrap intervals over images, and paired tests of two answers to the same images.

All variants of an image (clean, degraded, restored) are drawn together, so differences between them have intervals too.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import binomtest

Array = np.ndarray[Any, np.dtype[Any]]

EDGE = 1.959964  # standard deviations from the middle of a normal distribution to the edges of its central 95 %
NOTHING = 1e-9  # per cent; a difference below it is rounding


class Estimate(NamedTuple):
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


class Figure(NamedTuple):
    """A metric of one variant, in per cent, and what it came to in each resample, (R,)."""

    value: float
    draws: Array


def bootstrap_weights(images: int, resamples: int, seed: int) -> Array:
    """How often each image was drawn, (resamples, images): every row sums to `images` (Efron 1979). The same seed, the same rows."""
    generator = np.random.default_rng(seed)
    weights = np.empty((resamples, images), np.uint16)
    for row in weights:
        row[:] = np.bincount(generator.integers(images, size=images), minlength=images)
    return weights


def mean_figure(values: Array, weights: Array) -> Figure:
    """The mean in per cent of a value in [0, 1] per image, (images,), and of its resamples by `bootstrap_weights`."""
    return Figure(
        100 * float(values.mean()), 100 * (weights @ values.astype(np.float64)) / len(values)
    )


def estimate(figure: Figure) -> Estimate:
    """A figure with its bias-corrected percentile interval (Efron & Tibshirani 1993, section 14.3, without acceleration).

    Resamples miss rare classes and repeat images, so their mAP is higher than the set's; plain percentiles would be off by that.
    With 150 resamples of 128 COCO images for new sets, 83 % of plain 95 % intervals held the truth, and 91 % of these.
    """
    return Estimate(figure.value, *_interval(*figure))


def recovered_share(clean: Figure, degraded: Figure, restored: Figure) -> Estimate | None:
    """(restored - degraded) / (clean - degraded): the share of what was lost that came back; 1 is all, below 0 is harm.

    None where nothing was lost above noise: the 95 % interval of clean - degraded, over the same resamples, reaches down to 0.
    Resamples without a loss, which are few then, have no share and are left out of the interval.
    """
    lost = clean.draws - degraded.draws
    if (
        not _interval(clean.value - degraded.value, lost)[0] > NOTHING
        or clean.value - degraded.value <= NOTHING
    ):
        return None
    share = (restored.value - degraded.value) / (clean.value - degraded.value)
    return Estimate(
        share,
        *_interval(share, (restored.draws - degraded.draws)[lost > NOTHING] / lost[lost > NOTHING]),
    )


def mcnemar(before: Array, after: Array) -> float:
    """Two-sided exact McNemar test of yes or no per image, (images,) each: a binomial test of the images whose answer changed.

    Returns:
        The p-value; 1 where no answer changed.
    """
    won, lost = int((after & ~before).sum()), int((before & ~after).sum())
    return float(binomtest(won, won + lost).pvalue) if won + lost else 1.0


def randomisation_p_value(observed: float, swapped: Array) -> float:
    """Two-sided p-value of a difference by randomisation: how often it is as large when the two answers of each image are swapped
    at random; the observed one counts as a draw, so it is never 0 (Phipson & Smyth 2010).

    Args:
        observed: restored less degraded.
        swapped: the same difference under random swaps, (R,).

    Returns:
        The p-value; NaN for a difference that is NaN.
    """
    if math.isnan(observed):
        return math.nan
    as_large = np.abs(swapped) >= abs(observed) - 1e-9 * max(
        1.0, abs(observed)
    )  # of equal ones, rounding leaves some below
    return (int(as_large.sum()) + 1) / (len(swapped) + 1)


def sign_flips(images: int, resamples: int, seed: int) -> Array:
    """Which images have their two answers swapped, (resamples, images) bool, each with probability one half."""
    return (
        np.random.default_rng(seed)
        .integers(2, size=(resamples, images), dtype=np.uint8)
        .astype(bool)
    )


def paired_mean_test(before: Array, after: Array, resamples: int, seed: int) -> float:
    """Two-sided randomisation test of a mean of values per image, (images,) each: signs of the differences are flipped at random."""
    difference = (after - before).astype(np.float64)
    swapped = 1 - 2.0 * sign_flips(len(difference), resamples, seed)
    return randomisation_p_value(float(difference.mean()), swapped @ difference / len(difference))


def _interval(value: float, draws: Array) -> tuple[float, float]:
    draws = draws[~np.isnan(draws)]
    if not len(draws):
        return math.nan, math.nan
    tied = np.isclose(
        draws, value, rtol=1e-9, atol=1e-9
    )  # equal shares, computed another way, differ in the last bit
    below = float(np.mean((draws < value) & ~tied) + np.mean(tied) / 2)
    bias = 2 * ndtri(
        np.clip(below, 0.05, 0.95)
    )  # beyond that a correction is a guess: the ends would be single resamples
    low, high = np.quantile(draws, [ndtr(bias - EDGE), ndtr(bias + EDGE)])
    return float(low), float(high)
