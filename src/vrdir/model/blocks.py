"""The residual block that the branches and the decoder share."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from vrdir.model.global_statistics import GlobalStatistics, Moments

M = TypeVar("M", bound=nn.Module)


class ResidualBlock(nn.Module):
    """`x + conv3x3(a * relu(conv3x3(x)))`, without normalisation; `a` is 1 without channel attention.

    Channel attention scales each channel by what it holds on average over the whole image, `a = 2 sigmoid(conv1x1(mean))`
    (squeeze-excite, Hu et al., CVPR 2018; in one layer, as NAFNet's, Chen et al., ECCV 2022). How strong the noise is or how
    hazy the air is one for the whole image, and a pixel's neighbourhood is too small to tell.

    Plain 3 x 3 convolutions are what a CPU runs best (depthwise ones are bound by memory there), and a restorer without
    batch statistics treats an image the same alone and in a batch. The last convolution starts at zero, so a new block
    is the identity and can be added to a trained network without disturbing it; so can attention, which starts at 1.

    Args:
        channels: channels in and out.
        attention: with channel attention.

    Shape: (B, channels, H, W) -> the same.
    """

    def __init__(self, channels: int, attention: bool = False) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, channels, 3, padding=1)
        self.project = nn.Conv2d(channels, channels, 3, padding=1)
        self.attend = nn.Conv2d(channels, channels, 1) if attention else None
        for layer in (self.project, self.attend):
            if layer is not None:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, statistics: GlobalStatistics | None = None) -> Tensor:
        hidden = self.expand(x).relu_()  # in place: nobody needs what came before
        if self.attend is not None:
            mean = hidden.mean((2, 3), keepdim=True)
            if statistics is not None:
                mean = statistics.moments(self, Moments(mean)).mean
            hidden = hidden * (2 * torch.sigmoid(self.attend(mean)))
        return x + self.project(hidden)


class ResidualBlocks(nn.Sequential):
    """`count` residual blocks in a row; none is the identity."""

    def __init__(self, channels: int, count: int, attention: bool = False) -> None:
        super().__init__(*(ResidualBlock(channels, attention) for _ in range(count)))

    def forward(self, x: Tensor, statistics: GlobalStatistics | None = None) -> Tensor:
        for block in self:
            x = block(x, statistics)
        return x


def placed(module: M, device: torch.device) -> M:
    """The module on a device, its weights channels last, which is how convolutions run fastest (on a CPU by a third)."""
    return module.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
