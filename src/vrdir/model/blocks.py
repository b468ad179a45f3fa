"""The residual block of the branches (DNC) and of the decoder (SAD); not part of the paper."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from vrdir.model.global_statistics import GlobalStatistics, Moments

M = TypeVar("M", bound=nn.Module)


class ResidualBlock(nn.Module):
    """A residual block with optional channel attention, without normalisation.

        y = x + conv3x3(a * relu(conv3x3(x)))
        a = 2 sigmoid(conv1x1(mean of the channels over H, W))      1 without attention

    Channel attention is squeeze-excite (Hu et al., CVPR 2018) in one layer, as in NAFNet (Chen et
    al., ECCV 2022). The strength of noise or haze is the same in the whole image, and a pixel's
    neighbourhood is too small to measure it.

    Plain 3 x 3 convolutions are fast on a CPU, where depthwise ones are limited by memory. Without
    batch statistics an image gives the same result alone and in a batch. The last convolution
    starts at zero, so a new block is the identity, and can be added to a trained network without
    changing it. The same is true for attention, which starts at 1.

    Args:
        channels: the number of input and output channels.
        attention: whether the block has channel attention.

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
        """Apply the block, with the means over the whole image from `statistics` if given."""
        hidden = self.expand(x).relu_()
        if self.attend is not None:
            mean = hidden.mean((2, 3), keepdim=True)
            if statistics is not None:
                mean = statistics.moments(self, Moments(mean)).mean
            hidden = hidden * (2 * torch.sigmoid(self.attend(mean)))
        return x + self.project(hidden)


class ResidualBlocks(nn.Sequential):
    """A sequence of residual blocks; an empty one is the identity.

    Args:
        channels: the number of input and output channels.
        count: the number of blocks.
        attention: whether the blocks have channel attention.
    """

    def __init__(self, channels: int, count: int, attention: bool = False) -> None:
        super().__init__(*(ResidualBlock(channels, attention) for _ in range(count)))

    def forward(self, x: Tensor, statistics: GlobalStatistics | None = None) -> Tensor:
        """Apply the blocks in order."""
        for block in self:
            x = block(x, statistics)
        return x


def move_to(module: M, device: torch.device) -> M:
    """Move a module to a device, in place, with its weights in channels-last memory format.

    Convolutions are fastest in that format, on a CPU by a third.
    """
    return module.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
