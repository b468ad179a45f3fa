"""Fog as cameras' files show it."""

import pytest
import torch
from torch.nn import functional

from vrdir.degradations.photographed_fog import photographed_fog


def scenes(count: int) -> torch.Tensor:
    coarse = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return functional.interpolate(coarse, size=(96, 96))


def seeded(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def test_range_is_wide_and_local_contrast_small() -> None:
    clear = scenes(16)
    foggy = photographed_fog(clear, seeded(16), beta=4.0).image
    assert foggy.min() >= 0
    assert foggy.max() <= 1
    grey = [x.mean(1).flatten(1) for x in (clear, foggy)]
    local = [
        functional.unfold(x.mean(1, keepdim=True), 24, stride=24).std(1) for x in (clear, foggy)
    ]
    spread = (grey[1].quantile(0.99, 1) - grey[1].quantile(0.01, 1)).median()
    assert spread > 0.3
    assert local[1].median() < 0.5 * local[0].median()


def test_image_depends_only_on_its_generator() -> None:
    clear = scenes(3)
    together = photographed_fog(clear, seeded(3))
    alone = photographed_fog(clear[1:2], seeded(3)[1:2])
    assert torch.allclose(together.image[1:2], alone.image, atol=1e-6)
    assert together.parameters["beta"][1] == alone.parameters["beta"][0]


def test_thicker_fog_leaves_less_contrast() -> None:
    clear = scenes(8)
    quiet = {"noise": 0.0, "softness": 0.0, "quality": 100.0}
    contrasts = [
        photographed_fog(clear, seeded(8), beta=beta, **quiet).image.diff(dim=3).abs().mean()
        for beta in (0.3, 1.5, 5.0)
    ]
    assert contrasts[0] > contrasts[1] > contrasts[2]


def test_error_names_wrong_parameters() -> None:
    with pytest.raises(ValueError, match="gamma must be between 1 and 3"):
        photographed_fog(scenes(1), seeded(1), gamma=4.0)
