"""PSNR and SSIM: values known beforehand, and formulas written out here."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vrdir.evaluation.restoration.metrics import (
    METRICS,
    Scores,
    luma,
    measure,
    not_black,
    psnr_rgb,
    psnr_y,
    ssim_rgb,
    ssim_y,
)


def four(scores: Scores) -> tuple[float, ...]:
    return tuple(scores[key] for key in ("psnr_rgb", "ssim_rgb", "psnr_y", "ssim_y"))


@pytest.fixture
def noisy(photo_batch: Tensor) -> Tensor:
    """(2, 3, 75, 97), 8 bit, the second noisier than the first."""
    torch.manual_seed(0)
    sigma = torch.tensor([0.03, 0.2]).view(2, 1, 1, 1)
    return ((photo_batch + sigma * torch.randn_like(photo_batch)).clamp(0, 1) * 255).round() / 255


def test_psnr_of_a_known_error() -> None:
    clean = torch.full((2, 3, 16, 16), 0.5)
    restored = torch.stack([clean[0] + 0.1, clean[1] + 0.01])
    assert psnr_rgb(restored, clean) == pytest.approx([20, 40], abs=1e-3)


def test_psnr_of_one_grey_level() -> None:
    clean = torch.full((1, 3, 16, 16), 100 / 255)
    level = torch.full((1, 3, 16, 16), 101 / 255)
    assert psnr_rgb(level, clean) == pytest.approx([20 * math.log10(255)], abs=1e-4)  # 48.13 dB
    assert psnr_y(level, clean) == pytest.approx(
        [20 * math.log10(255 * 255 / 219)], abs=1e-4
    )  # Y has 219 levels for 255


def test_share_of_pixels_driven_into_black() -> None:
    levels = torch.tensor([[8, 0, 9, 8], [0, 4, 0, 100]])  # in each channel
    restored = (levels / 255).expand(1, 3, 2, 4)
    true = torch.tensor([[17, 200, 200, 16], [8, 12, 0, 200]])
    clean = (true / 255).expand(1, 3, 2, 4)
    # Only the first two: others are brighter than 8 levels, or at most 8 levels darker than before.
    assert not_black(restored, clean) == [75]
    blue = clean.clone()
    blue[:, :2] = 0
    assert not_black(torch.zeros_like(clean), blue) == pytest.approx([100 * (1 - 6 / 8)])
    assert not_black(clean, clean) == [100]


def test_luma_of_known_colours() -> None:
    colours = np.array([[[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]], dtype=float)
    assert luma(colours)[0].tolist() == pytest.approx([16, 235, 81.481, 144.553, 40.966])


def test_identical_images_get_the_ceiling_and_full_ssim() -> None:
    clean = torch.rand(1, 3, 16, 16)
    assert psnr_rgb(clean, clean) == [100.0]
    assert four(measure(clean, clean)) == pytest.approx((100, 1, 100, 1))


def test_ssim_falls_with_noise() -> None:
    torch.manual_seed(0)
    clean = torch.rand(1, 3, 32, 32)
    weak, strong = (
        ssim_rgb((clean + s * torch.randn_like(clean)).clamp(0, 1), clean)[0] for s in (0.02, 0.2)
    )
    assert 1 > weak > strong > 0


def ssim_by_windows(x: Any, y: Any, weights: Any, peak: float, unbias: float) -> float:
    """Window by window, as Wang et al. write it down."""
    size, values = len(weights), []
    for top in range(x.shape[0] - size + 1):
        for left in range(x.shape[1] - size + 1):
            a, b = (z[top : top + size, left : left + size] for z in (x, y))
            mu_a, mu_b = (weights * a).sum(), (weights * b).sum()
            var_a, var_b = (
                unbias * (weights * (z - mu) ** 2).sum() for z, mu in ((a, mu_a), (b, mu_b))
            )
            covariance = unbias * (weights * (a - mu_a) * (b - mu_b)).sum()
            c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
            values.append(
                (2 * mu_a * mu_b + c1)
                * (2 * covariance + c2)
                / ((mu_a**2 + mu_b**2 + c1) * (var_a + var_b + c2))
            )
    return float(np.mean(values))


def test_all_metrics_agree_with_their_formulas(noisy: Tensor, photo_batch: Tensor) -> None:
    x, y = (image[:1, :, :24, :20] for image in (noisy, photo_batch))
    a, b = (image[0].double().numpy() for image in (x, y))
    line = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    gaussian = np.outer(line, line) / np.outer(line, line).sum()
    uniform = np.full((7, 7), 1 / 49)
    y_a, y_b = (16 + 65.481 * z[0] + 128.553 * z[1] + 24.966 * z[2] for z in (a, b))
    expected = (
        10 * math.log10(1 / ((a - b) ** 2).mean()),
        np.mean([ssim_by_windows(a[c], b[c], uniform, 1, 49 / 48) for c in range(3)]),
        10 * math.log10(255**2 / ((y_a - y_b) ** 2).mean()),
        ssim_by_windows(y_a, y_b, gaussian, 255, 1),
    )
    assert four(measure(x, y)) == pytest.approx(expected, abs=1e-6)


def test_invalid_images_raise() -> None:
    clean = torch.rand(1, 3, 16, 20)
    with pytest.raises(ValueError, match="the same size to be compared, not 20 x 15 and 20 x 16"):
        measure(clean[:, :, 1:], clean)
    with pytest.raises(
        ValueError, match="SSIM needs at least 11 pixels on each side; the image is 20 x 10"
    ):
        measure(clean[:, :, :10], clean[:, :, :10])
    with pytest.raises(
        ValueError, match="SSIM needs at least 7 pixels on each side; the image is 6 x 16"
    ):
        ssim_rgb(clean[..., :6], clean[..., :6])
    with pytest.raises(ValueError, match="NaN"):
        measure(torch.full_like(clean, torch.nan), clean)


def test_measure_agrees_with_each_metric(noisy: Tensor, photo_batch: Tensor) -> None:
    alone = [metric(noisy, photo_batch)[1] for metric in (psnr_rgb, ssim_rgb, psnr_y, ssim_y)]
    assert four(measure(noisy[1:], photo_batch[1:])) == pytest.approx(alone, abs=1e-12)


def test_table_of_metrics_is_consistent() -> None:
    assert len({metric.key for metric in METRICS}) == len(METRICS)
    assert len({metric.label for metric in METRICS}) == len(METRICS)
    assert all(metric.definition for metric in METRICS)
    psnr, ssim, *_ = METRICS
    assert (psnr.heading, psnr.shown(20.456), psnr.shown(None)) == ("PSNR, RGB, dB", "20.46", "-")
    assert (ssim.heading, ssim.shown(0.5, sign="+")) == ("SSIM, RGB", "+0.5000")
