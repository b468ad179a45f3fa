"""PSNR, SSIM and the share of pixels not driven into black, per image, on whole images.

scikit-image computes PSNR and SSIM, in RGB and in Y. `METRICS` is the table of all metrics: to add
a metric, add an entry.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vrdir.errors import ImageError, require
from vrdir.evaluation.metric import Metric

if TYPE_CHECKING:
    from torch import Tensor

PSNR_CEILING = 100.0
"""In dB, reported for identical images, whose PSNR is infinite."""
BLACK = 8
"""A pixel is near black if no channel is above this, in 8-bit levels."""
WANG: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
"""SSIM as Wang et al. (IEEE TIP 2004) define it."""

Scores = Mapping[str, float]
"""Key of a metric -> its value for one image, or the mean over images."""


def measure(image: Tensor, clean: Tensor) -> Scores:
    """Return all metrics of an image against the clean one, both (1, 3, H, W) in [0, 1].

    Raises:
        ImageError: the sizes differ, a value is not finite, or a side is under 11 pixels, where
            the window of SSIM does not fit.
    """
    scores = {metric.key: metric.function(image, clean)[0] for metric in METRICS}
    if not all(map(math.isfinite, scores.values())):
        raise ImageError("an image contains NaN or infinite values, which have no PSNR")
    return scores


def mean_scores(scores: Sequence[Scores]) -> Scores | None:
    """Return the mean of the scores of several images; None for no images."""
    if not scores:
        return None
    return {metric.key: sum(one[metric.key] for one in scores) / len(scores) for metric in METRICS}


def psnr_rgb(restored: Tensor, clean: Tensor) -> list[float]:
    """Return the PSNR in dB over all pixels and channels, at most 100, of each image of a batch.

    Args:
        restored: (B, 3, H, W) in [0, 1].
        clean: the same.

    Raises:
        ImageError: the sizes differ.
    """
    return [_psnr(a, b, 1) for a, b in _images(restored, clean)]


def psnr_y(restored: Tensor, clean: Tensor) -> list[float]:
    """Return the PSNR in dB of `luma`, peak 255, at most 100, of each image of a batch.

    Args:
        restored: (B, 3, H, W) in [0, 1].
        clean: the same.

    Raises:
        ImageError: the sizes differ.
    """
    return [_psnr(luma(a), luma(b), 255) for a, b in _images(restored, clean)]


def ssim_rgb(restored: Tensor, clean: Tensor) -> list[float]:
    """Return the SSIM, the mean over the channels, of each image of a batch.

    Window 7 x 7 uniform, sample covariance (n - 1), K1 0.01, K2 0.03: scikit-image's defaults.

    Args:
        restored: (B, 3, H, W) in [0, 1].
        clean: the same.

    Raises:
        ImageError: the sizes differ, or the window does not fit into the image.
    """
    ssim = _scikit_image("metrics").structural_similarity
    images = _images(restored, clean, window=7)
    return [float(ssim(b, a, channel_axis=2, data_range=1)) for a, b in images]


def ssim_y(restored: Tensor, clean: Tensor) -> list[float]:
    """Return the SSIM of `luma` as Wang et al. (IEEE TIP 2004) define it, per image of a batch.

    Window 11 x 11 Gaussian of sigma 1.5, population covariance (n), K1 0.01, K2 0.03, peak 255:
    what papers report "on Y".

    Args:
        restored: (B, 3, H, W) in [0, 1].
        clean: the same.

    Raises:
        ImageError: the sizes differ, or the window does not fit into the image.
    """
    ssim = _scikit_image("metrics").structural_similarity
    images = _images(restored, clean, window=11)
    return [float(ssim(luma(b), luma(a), data_range=255, **WANG)) for a, b in images]


def not_black(restored: Tensor, clean: Tensor) -> list[float]:
    """Return the share of pixels that are not driven into black, in %, of each image of a batch.

    A pixel is driven into black if its brightest channel is at most 8 of 255 levels, and by more
    than 8 levels darker than in the clean image. Removing too much haze does this to near things.

    Args:
        restored: (B, 3, H, W) in [0, 1].
        clean: the same.

    Raises:
        ImageError: the sizes differ.
    """
    shares = []
    for after, true in _images(restored, clean):
        brightest, wanted = (np.rint(255 * image.max(2)) for image in (after, true))
        driven = (brightest <= BLACK) & (wanted - brightest > BLACK)
        shares.append(100 * (1 - float(driven.mean())))
    return shares


def luma(image: NDArray[Any]) -> NDArray[Any]:
    """Return Y of BT.601 in studio range, 16 to 235, of an (H, W, 3) image in [0, 1]: (H, W).

    It is MATLAB's `rgb2ycbcr`, except for the rounding that MATLAB adds on 8-bit images.
    """
    y: NDArray[Any] = _scikit_image("color").rgb2ycbcr(image)[..., 0]
    return y


def _scikit_image(module: str) -> ModuleType:
    return require(
        f"skimage.{module}", "evaluate", "PSNR and SSIM need more packages (skimage is missing)"
    )


def _images(
    restored: Tensor, clean: Tensor, window: int = 1
) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Return the pairs of images of two batches, (H, W, 3) in float64.

    Raises:
        ImageError: the sizes differ, or `window` pixels a side do not fit.
    """
    if restored.shape != clean.shape:
        shapes = (restored.shape, clean.shape)
        sizes = " and ".join(f"{shape[-1]} x {shape[-2]}" for shape in shapes)
        raise ImageError(f"images must have the same size to be compared, not {sizes} pixels")
    if min(clean.shape[-2:]) < window:
        raise ImageError(
            f"SSIM needs at least {window} pixels on each side; the image is {clean.shape[-1]} x "
            f"{clean.shape[-2]}"
        )
    images = (image.permute(0, 2, 3, 1).double().numpy() for image in (restored, clean))
    return list(zip(*images, strict=True))


def _psnr(restored: NDArray[Any], clean: NDArray[Any], peak: float) -> float:
    if np.array_equal(restored, clean):
        return PSNR_CEILING
    psnr = _scikit_image("metrics").peak_signal_noise_ratio
    return min(float(psnr(clean, restored, data_range=peak)), PSNR_CEILING)


METRICS: tuple[Metric[Callable[[Tensor, Tensor], list[float]]], ...] = (
    Metric(
        "psnr_rgb",
        "PSNR, RGB",
        2,
        "over all pixels and the channels R, G, B; peak 1; "
        f"{PSNR_CEILING:.0f} means identical images",
        psnr_rgb,
        unit="dB",
    ),
    Metric(
        "ssim_rgb",
        "SSIM, RGB",
        4,
        "7 x 7 uniform window and sample covariance (scikit-image's default), "
        "the mean over windows inside the image and over R, G, B; peak 1",
        ssim_rgb,
    ),
    Metric(
        "psnr_y",
        "PSNR, Y",
        2,
        "of Y (BT.601, 16 to 235, MATLAB's `rgb2ycbcr`, not rounded); peak 255; "
        f"{PSNR_CEILING:.0f} means identical images",
        psnr_y,
        unit="dB",
    ),
    Metric(
        "ssim_y",
        "SSIM, Y",
        4,
        "of the same Y with Wang's 11 x 11 Gaussian window, sigma 1.5, and population covariance; "
        "peak 255",
        ssim_y,
    ),
    Metric(
        "not_black",
        "Not black, RGB",
        2,
        "share of pixels that are not driven into black; the others are at most 8 of 255 levels in "
        "their brightest channel, and there by more than 8 levels darker than in the clean image",
        not_black,
        unit="%",
        in_summaries=False,
    ),
)
"""All metrics; verdicts use the first. A label is the metric's name and, after a comma, its
channels; their functions take the restored and the clean batch, (B, 3, H, W) in [0, 1]."""
MAIN = METRICS[0]
SUMMARISED = tuple(metric for metric in METRICS if metric.in_summaries)
"""The metrics in the terminal's table, and in the overview and the captions of the page."""
