"""The sRGB transfer function: between what a file holds and light, in which lenses blur and sensors count."""

import torch
from torch import Tensor


def to_linear(image: Tensor) -> Tensor:
    """Light of an sRGB value: `v / 12.92` up to 0.04045, `((v + 0.055) / 1.055)^2.4` above (IEC 61966-2-1). Both in [0, 1]."""
    return torch.where(
        image <= 0.04045, image / 12.92, ((image.clamp_min(0) + 0.055) / 1.055) ** 2.4
    )


def to_srgb(light: Tensor) -> Tensor:
    """Its inverse: `12.92 l` up to 0.0031308, `1.055 l^(1 / 2.4) - 0.055` above."""
    return torch.where(
        light <= 0.0031308, light * 12.92, 1.055 * light.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    )
