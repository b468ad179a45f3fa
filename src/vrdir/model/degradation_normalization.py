"""DNC, degradation normalization and compensation: the branch of one degradation (section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vrdir.model.blocks import ResidualBlocks
from vrdir.model.global_statistics import GlobalStatistics, Moments, own_moments


class DegradationNormalization(nn.Module):
    """One DNC branch (VRD-IR, section 3.2).

        F_n    = gamma * (F - mean(F)) / std(F) + beta    mean, std per image and channel over H, W
        w1, w2 = sigmoid(SE([F ; F_n]))                   squeeze-excite, 2C -> C / 4 -> 2C
        DNC(F) = w1 * F + w2 * F_n

    Instance normalization removes the degradation's style from the features; compensation restores
    the content that was removed with it. Residual blocks may follow (none in the paper), since
    rescaling channels cannot remove a rain streak.

    Args:
        channels: C, the channels of the features.
        blocks: the number of residual blocks after the compensation.

    Shape: (B, C, H, W) -> (B, C, H, W), with H and W of at least 1.
    """

    def __init__(self, channels: int, blocks: int = 0) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        squeezed = max(channels // 4, 1)
        self.squeeze = nn.Conv2d(2 * channels, squeezed, 1)
        self.excite = nn.Conv2d(squeezed, 2 * channels, 1)
        self.blocks = ResidualBlocks(channels, blocks)

    def forward(
        self,
        features: Tensor,
        statistics: GlobalStatistics | None = None,
        found: Moments | None = None,
    ) -> Tensor:
        """Apply the branch.

        Args:
            features: (B, C, H, W).
            statistics: gives the moments to use instead of the features' own, if given.
            found: the features' own moments, if they are known already.
        """
        # Statistics are computed in float32 under bfloat16 autocast, too.
        full = features.float()
        found = found or own_moments(full)
        mean, variance = found if statistics is None else statistics.moments(self, found)
        assert variance is not None
        # The mean of F_n over the image is beta by construction, so it needs no pass over the map.
        squeezed = torch.cat([mean, self.beta.expand_as(mean)], dim=1)
        weights = torch.sigmoid(self.excite(torch.relu(self.squeeze(squeezed))))
        keep, restyle = weights.float().chunk(2, dim=1)  # each (B, C, 1, 1)
        # w1 F + w2 F_n is one scale and one shift per channel. The epsilon inside the root keeps
        # them finite for a constant map.
        gain = restyle * self.gamma * torch.rsqrt(variance + 1e-5)
        compensated = torch.addcmul(restyle * self.beta - gain * mean, keep + gain, full)
        return self.blocks(compensated.to(features.dtype), statistics)
