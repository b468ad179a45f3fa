"""ISE, intrinsic semantics enhancement, at one scale (section 3.1).

The branches (DNC), one for each degradation, and the modulation (FGM) that mixes them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vrdir.model.degradation_normalization import DegradationNormalization
from vrdir.model.fourier_modulation import FourierGuidedModulation
from vrdir.model.global_statistics import GlobalStatistics, own_moments

CLEAN = "clean"


class SemanticsEnhancement(nn.Module):
    """`ISE(F) = sum_k G_k * DNC_k(F)` with `G = FGM(F)` (VRD-IR, section 3.1).

    Args:
        channels: C, the channels of the features.
        branches: the names of the degradations, one DNC branch each, in the order of the guidance
            maps.
        branch_blocks: the number of residual blocks in each branch.
        clean_branch: add a last branch, the identity, for features without degradation (not in the
            paper).

    Shape: (B, C, H, W) -> features (B, C, H, W) and guidance (B, K, H, W).
    """

    def __init__(
        self, channels: int, branches: Sequence[str], branch_blocks: int, clean_branch: bool
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleDict(
            {name: DegradationNormalization(channels, branch_blocks) for name in branches}
        )
        self.clean_branch = clean_branch
        self.modulation = FourierGuidedModulation(channels, len(branches) + clean_branch)

    def forward(
        self, features: Tensor, statistics: GlobalStatistics | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the enhanced features and the guidance."""
        guidance = self.modulation(features, statistics)
        return self.mix(features, guidance, statistics), guidance

    def mix(
        self, features: Tensor, guidance: Tensor, statistics: GlobalStatistics | None = None
    ) -> Tensor:
        """Return the branches' features (B, C, H, W), mixed by guidance (B, K, H, W)."""
        found = own_moments(features.float())
        mixed = torch.zeros_like(features)
        for branch, share in zip(
            self.branches.values(), guidance.to(features.dtype).split(1, dim=1), strict=False
        ):
            mixed = torch.addcmul(mixed, branch(features, statistics, found), share)
        if self.clean_branch:
            mixed = torch.addcmul(mixed, features, guidance[:, -1:].to(features.dtype))
        return mixed
