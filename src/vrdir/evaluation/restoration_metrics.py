"""PSNR and SSIM of restored images, in RGB, per image."""

import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

PSNR_CEILING = 100.0  # dB, reported for identical images, whose PSNR is infinite


def psnr_rgb(restored: Tensor, clean: Tensor) -> list[float]:
    """PSNR in dB over all pixels and channels, for each image of two (B, 3, H, W) batches in [0, 1]; at most 100."""
    with_ceiling = []
    for a, b in zip(clean, restored, strict=True):
        exact = torch.equal(a, b)
        with_ceiling.append(PSNR_CEILING if exact else min(peak_signal_noise_ratio(a.numpy(), b.numpy(), data_range=1), PSNR_CEILING))
    return [float(value) for value in with_ceiling]


def ssim_rgb(restored: Tensor, clean: Tensor) -> list[float]:
    """SSIM (7 x 7 uniform window), the mean over the channels, for each image of two (B, 3, H, W) batches in [0, 1]."""
    pairs = zip(clean, restored, strict=True)
    return [float(structural_similarity(a.numpy(), b.numpy(), channel_axis=0, data_range=1)) for a, b in pairs]
