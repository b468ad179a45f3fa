"""The sRGB transfer function, between the values of a file and linear light (IEC 61966-2-1)."""

import torch
from torch import Tensor


def to_linear(image: Tensor) -> Tensor:
    """Return the linear light of sRGB values, both in [0, 1].

    `v / 12.92` up to 0.04045, `((v + 0.055) / 1.055)^2.4` above.
    """
    return torch.where(
        image <= 0.04045, image / 12.92, ((image.clamp_min(0) + 0.055) / 1.055) ** 2.4
    )


def to_srgb(light: Tensor) -> Tensor:
    """Return the sRGB values of linear light, both in [0, 1].

    `12.92 l` up to 0.0031308, `1.055 l^(1 / 2.4) - 0.055` above.
    """
    return torch.where(
        light <= 0.0031308, light * 12.92, 1.055 * light.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    )
