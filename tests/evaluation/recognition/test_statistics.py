"""Intervals and tests, against values by hand or from theory."""

import math

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from vrdir.evaluation.recognition.statistics import (
    Figure,
    Resampling,
    bootstrap_weights,
    estimate,
    mcnemar,
    mean_figure,
    paired_mean_test,
    random_swaps,
    randomisation_p_value,
    recovered_share,
)


def test_resamples_have_the_size_of_the_data_and_depend_on_the_seed() -> None:
    weights = bootstrap_weights(40, Resampling(500, 3))
    assert weights.shape == (500, 40)
    assert (weights.sum(1) == 40).all()
    assert (weights == bootstrap_weights(40, Resampling(500, 3))).all()
    assert (weights != bootstrap_weights(40, Resampling(500, 4))).any()
    assert (weights == 0).mean() == pytest.approx(
        math.exp(-1), abs=0.02
    )  # what a draw with replacement misses


def test_interval_of_a_share_agrees_with_theory() -> None:
    hits = np.arange(400) < 280
    share = estimate(mean_figure(hits, bootstrap_weights(400, Resampling(4000, 0))))
    half = 100 * 1.96 * math.sqrt(0.7 * 0.3 / 400)
    assert share.value == pytest.approx(70)
    assert share.low == pytest.approx(70 - half, abs=0.5)
    assert share.high == pytest.approx(70 + half, abs=0.5)


def test_interval_is_corrected_if_resamples_are_too_high() -> None:
    draws = np.random.default_rng(0).normal(
        1, 1, 20_000
    )  # of a figure of 0: off by one standard deviation
    low, high = estimate(Figure(0.0, draws))[1:]
    assert low == pytest.approx(1 - 2 - 1.96, abs=0.15)
    assert high == pytest.approx(1 - 2 + 1.96, abs=0.15)
    assert estimate(Figure(5.0, np.full(10, 5.0))) == (5, 5, 5)


def test_mcnemar_is_a_binomial_test_of_changed_answers() -> None:
    before = np.array([False] * 10 + [True] * 2 + [True] * 30 + [False] * 5)
    after = np.array([True] * 10 + [False] * 2 + [True] * 30 + [False] * 5)
    by_hand = 2 * sum(math.comb(12, k) for k in range(3)) / 2**12
    assert mcnemar(before, after) == pytest.approx(by_hand)
    assert mcnemar(after, before) == pytest.approx(by_hand)
    assert mcnemar(before, before) == 1


def test_p_values_of_chance_and_of_a_constant_difference() -> None:
    generator = np.random.default_rng(1)
    before = generator.random(50)
    assert paired_mean_test(before, before, Resampling(200, 0)) == 1
    assert paired_mean_test(before, before + 0.1, Resampling(200, 0)) == 1 / 201
    by_chance = [
        paired_mean_test(before, generator.random(50), Resampling(200, seed)) for seed in range(40)
    ]
    assert 0.3 < np.mean(by_chance) < 0.7  # uniform where nothing is the matter


def test_difference_of_nan_has_no_p_value() -> None:
    assert math.isnan(randomisation_p_value(math.nan, np.full(50, math.nan)))


def test_randomisation_of_three_images_counts_all_swaps() -> None:
    difference = np.array([1.0, 2.0, 3.0])
    swaps = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)], bool)
    swapped = (1 - 2.0 * swaps) @ difference / 3
    assert randomisation_p_value(2.0, swapped) == pytest.approx(
        (2 + 1) / (8 + 1)
    )  # all kept and all swapped are as large
    assert random_swaps(2000, Resampling(1, 0)).mean() == pytest.approx(0.5, abs=0.05)


def test_recovered_share_and_its_interval() -> None:
    weights = bootstrap_weights(200, Resampling(2000, 0))
    image = np.arange(200)
    clean, degraded, restored = (mean_figure(image % 10 < hits, weights) for hits in (9, 4, 7))
    share = recovered_share(clean, degraded, restored)
    assert share is not None
    assert share.value == pytest.approx((70 - 40) / (90 - 40))
    assert 0.45 < share.low < 0.6 < share.high < 0.75
    alone = [estimate(figure) for figure in (clean, degraded, restored)]
    assert (
        share.high - share.low < (alone[2].high - alone[2].low) / 50 * 2
    )  # closer than if the three were drawn apart


def test_no_share_is_recovered_without_a_loss() -> None:
    weights = bootstrap_weights(100, Resampling(500, 0))
    same, other = (np.arange(100) % 4 < 3, (np.arange(100) + 1) % 4 < 3)
    clean, degraded = mean_figure(same, weights), mean_figure(other, weights)
    assert recovered_share(clean, degraded, clean) is None
    worse = mean_figure(np.zeros(100), weights)
    assert recovered_share(worse, clean, clean) is None
    assert recovered_share(clean, worse, worse) == (0, 0, 0)


@pytest.mark.parametrize(("images", "right"), [(6, 5), (7, 4), (60, 50), (300, 200)])
def test_ties_are_found_despite_rounding(images: int, right: int) -> None:
    """A rate's interval is that of exact counts, in which ties are exact."""
    values = np.arange(images) < right
    weights = bootstrap_weights(images, Resampling(1000, 0))
    counts = np.round(weights @ values.astype(float))
    below = np.mean(counts < right) + np.mean(counts == right) / 2
    bias = 2 * ndtri(np.clip(below, 0.05, 0.95))
    expected = np.quantile(
        100 * counts / images, [ndtr(bias + ndtri(0.025)), ndtr(bias + ndtri(0.975))]
    )
    assert estimate(mean_figure(values, weights))[1:] == pytest.approx(expected)
