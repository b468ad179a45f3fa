"""PSNR and SSIM on values known beforehand."""

import pytest
import torch

from vrdir.evaluation.restoration_metrics import psnr_rgb, ssim_rgb


def test_psnr_of_a_known_error() -> None:
    clean = torch.full((2, 3, 16, 16), 0.5)
    restored = torch.stack([clean[0] + 0.1, clean[1] + 0.01])
    assert psnr_rgb(restored, clean) == pytest.approx([20, 40], abs=1e-3)


def test_identical_images_get_the_ceiling_and_full_ssim() -> None:
    clean = torch.rand(1, 3, 16, 16)
    assert psnr_rgb(clean, clean) == [100.0]
    assert ssim_rgb(clean, clean) == pytest.approx([1.0])


def test_ssim_falls_with_noise() -> None:
    torch.manual_seed(0)
    clean = torch.rand(1, 3, 32, 32)
    weak, strong = (ssim_rgb((clean + s * torch.randn_like(clean)).clamp(0, 1), clean)[0] for s in (0.02, 0.2))
    assert 1 > weak > strong > 0
