"""PSNR and SSIM of restored images, per image, in RGB and in Y; on whole images, nothing shaved off. scikit-image computes them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

PSNR_CEILING = 100.0  # dB, reported for identical images, whose PSNR is infinite

DEFINITIONS = {
    "psnr_rgb": f"PSNR in dB over all pixels and the channels R, G, B; peak 1; {PSNR_CEILING:.0f} stands for identical images",
    "ssim_rgb": "SSIM with a 7 x 7 uniform window and sample covariance, the mean over windows inside the image and over R, G, B; peak 1",
    "psnr_y": f"PSNR in dB of Y (BT.601, 16 to 235, not rounded); peak 255; {PSNR_CEILING:.0f} stands for identical images",
    "ssim_y": "SSIM of Y (BT.601, 16 to 235) with Wang's 11 x 11 Gaussian window, sigma 1.5, and population covariance; peak 255",
}
WANG: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
"""SSIM as Wang et al. (IEEE TIP 2004) define it."""


class Scores(NamedTuple):
    """The four figures of one image; `DEFINITIONS` says what each is."""

    psnr_rgb: float
    ssim_rgb: float
    psnr_y: float
    ssim_y: float


def measure(image: Tensor, clean: Tensor) -> Scores:
    """All four figures of an image against the clean one, both (1, 3, H, W) in [0, 1].

    Raises:
        ValueError: two sizes, values that are not finite, or a side under 11 pixels, where the window of SSIM does not fit.
    """
    figures = (metric(image, clean) for metric in (psnr_rgb, ssim_rgb, psnr_y, ssim_y))
    scores = Scores(*(figure[0] for figure in figures))
    if not all(map(math.isfinite, scores)):
        raise ValueError("an image holds NaN or infinite values, which have no PSNR")
    return scores


def psnr_rgb(restored: Tensor, clean: Tensor) -> list[float]:
    """PSNR in dB over all pixels and channels, for each image of two (B, 3, H, W) batches in [0, 1]; at most 100."""
    return [_psnr(a, b, 1) for a, b in _images(restored, clean)]


def psnr_y(restored: Tensor, clean: Tensor) -> list[float]:
    """PSNR in dB of `luma`, peak 255, for each image of two (B, 3, H, W) batches in [0, 1]; at most 100."""
    return [_psnr(luma(a), luma(b), 255) for a, b in _images(restored, clean)]


def ssim_rgb(restored: Tensor, clean: Tensor) -> list[float]:
    """SSIM, the mean over the channels, for each image of two (B, 3, H, W) batches in [0, 1].

    Window 7 x 7 uniform, sample covariance (n - 1), K1 0.01, K2 0.03: what scikit-image computes unless told otherwise.

    Raises:
        ValueError: the window does not fit into the image.
    """
    images = _images(restored, clean, window=7)
    return [float(structural_similarity(b, a, channel_axis=2, data_range=1)) for a, b in images]


def ssim_y(restored: Tensor, clean: Tensor) -> list[float]:
    """SSIM of `luma` as Wang et al. (IEEE TIP 2004) define it, for each image of two (B, 3, H, W) batches in [0, 1].

    Window 11 x 11 Gaussian of sigma 1.5, population covariance (n), K1 0.01, K2 0.03, peak 255: what papers report "on Y".

    Raises:
        ValueError: the window does not fit into the image.
    """
    images = _images(restored, clean, window=11)
    return [
        float(structural_similarity(luma(b), luma(a), data_range=255, **WANG)) for a, b in images
    ]


def luma(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Y of BT.601 in studio range, 16 to 235, of an (H, W, 3) image in [0, 1]: (H, W).

    It is MATLAB's `rgb2ycbcr`, but for the rounding that MATLAB adds on 8-bit images.
    """
    return rgb2ycbcr(image)[..., 0]


def _images(
    restored: Tensor, clean: Tensor, window: int = 1
) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """The images of two batches, (H, W, 3) in float64, if the two are of one size and a window fits in."""
    if restored.shape != clean.shape:
        sizes = " and ".join(
            f"{shape[-1]} x {shape[-2]}" for shape in (restored.shape, clean.shape)
        )
        raise ValueError(f"only images of one size can be compared, not {sizes} pixels")
    if min(clean.shape[-2:]) < window:
        raise ValueError(
            f"SSIM needs {window} pixels a side; the image is {clean.shape[-1]} x {clean.shape[-2]}"
        )
    images = (image.permute(0, 2, 3, 1).double().numpy() for image in (restored, clean))
    return list(zip(*images, strict=True))


def _psnr(restored: np.ndarray[Any, Any], clean: np.ndarray[Any, Any], peak: float) -> float:
    if np.array_equal(restored, clean):
        return PSNR_CEILING
    return min(float(peak_signal_noise_ratio(clean, restored, data_range=peak)), PSNR_CEILING)
