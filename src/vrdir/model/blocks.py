"""The residual block that the branches and the decoder share."""

from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


class ResidualBlock(nn.Module):
    """`x + conv3x3(relu(conv3x3(x)))`, without normalisation.

    Plain 3 x 3 convolutions are what a CPU runs best (depthwise ones are bound by memory there), and a restorer without
    batch statistics treats an image the same alone and in a batch. The last convolution starts at zero, so a new block
    is the identity and can be added to a trained network without disturbing it.

    Args:
        channels: channels in and out.

    Shape: (B, channels, H, W) -> the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, channels, 3, padding=1)
        self.project = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.project(torch.relu(self.expand(x)))


def residual_blocks(channels: int, count: int) -> nn.Sequential:
    """`count` residual blocks in a row; none is the identity."""
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(count)))


def placed(module: M, device: torch.device) -> M:
    """The module on a device, its weights channels last, which is how convolutions run fastest (on a CPU by a third)."""
    return module.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
