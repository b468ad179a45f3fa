"""The losses of the stages.

Each takes RGB batches (B, 3, H, W) or feature maps (B, C, h, w) and returns a scalar.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def l1(restored: Tensor, clean: Tensor) -> Tensor:
    """Return the mean absolute error, the pixel loss of the paper."""
    return (restored - clean).abs().mean()


def balanced_l1(restored: Tensor, clean: Tensor, floor: float = 0.06) -> Tensor:
    """Return `mean over images of log(floor + L1 of the image)`.

    Under plain L1, a hazy image, whose error is ten times that of a noisy one, has ten times the
    weight. The logarithm gives each image a gradient relative to its own error. `floor` (15 levels
    of 8 bits) prevents images whose error goes to zero, clean images above all, from dominating.
    """
    return torch.log(floor + (restored - clean).abs().mean((1, 2, 3))).mean()


def balanced_detail(restored: Tensor, clean: Tensor, floor: float = 0.02) -> Tensor:
    """Return `mean over images of log(floor + L1 of the differences between neighbours)`.

    It compares local contrast, horizontally and vertically, balanced as in `balanced_l1`.
    """
    errors = [
        (restored.diff(dim=side) - clean.diff(dim=side)).abs().mean((1, 2, 3)) for side in (2, 3)
    ]
    return torch.log(floor + errors[0] + errors[1]).mean()


def spectrum(restored: Tensor, clean: Tensor) -> Tensor:
    """Return the L1 between the amplitude spectra, relative to the mean of the clean one.

    Degradations change mostly the amplitude.
    """
    a, b = (torch.fft.rfft2(image.float(), norm="ortho").abs() for image in (restored, clean))
    return ((a - b).abs().mean((1, 2, 3)) / b.mean((1, 2, 3)).clamp_min(1e-3)).mean()


def ranking(
    restored_clean: Tensor,
    clean: Tensor,
    restored_degraded: Tensor,
    degraded: Tensor,
    margin: float,
) -> Tensor:
    """Return the similarity ranking of stage 1 (VRD-IR).

    `max(0, margin - (cos(SAD(E(y)), y) - cos(SAD(E(x)), x)))`: the decoder must reconstruct from
    clean semantics better than from degraded ones.
    """
    closeness = functional.cosine_similarity(restored_clean.flatten(1), clean.flatten(1))
    other = functional.cosine_similarity(restored_degraded.flatten(1), degraded.flatten(1))
    return torch.relu(margin - (closeness - other)).mean()


def semantic_consistency(features: Sequence[Tensor], clean: Sequence[Tensor]) -> Tensor:
    """Return `1 - cos(GMP(F), GMP(E(y)))`, averaged over taps (VRD-IR, stage 2).

    GMP is the global max pool over H and W.
    """
    distances = [
        1 - functional.cosine_similarity(f.float().amax((2, 3)), c.float().amax((2, 3))).mean()
        for f, c in zip(features, clean, strict=True)
    ]
    return torch.stack(distances).mean()


def dense_consistency(features: Sequence[Tensor], clean: Sequence[Tensor]) -> Tensor:
    """Return `1 - cos(F, E(y))` over the channels, averaged over positions and taps (stage 4)."""
    distances = [
        1 - functional.cosine_similarity(f.float(), c.float(), dim=1).mean()
        for f, c in zip(features, clean, strict=True)
    ]
    return torch.stack(distances).mean()


def guidance_loss(
    guidance: Sequence[Tensor], present: Tensor, known: Tensor, clean_branch: bool
) -> Tensor:
    """Return the cross-entropy between the mean guidance and the degradations of the image.

    The target is an equal share for each degradation that is present. It needs no labels: the
    synthesis, or the name of a pair list, gives them. It makes the guidance maps a diagnosis.

    Args:
        guidance: one (B, K, h, w) per tap.
        present: (B, number of degradations) bool.
        known: (B,) bool; images whose degradations are unknown do not count.
        clean_branch: whether K includes a last branch, for clean images; without it, clean images
            do not count.
    """
    wanted = present.float()
    if clean_branch:
        wanted = torch.cat([wanted, (~present.any(1, keepdim=True)).float()], 1)
    wanted = wanted / wanted.sum(1, keepdim=True).clamp_min(1) * known[:, None]
    losses = [-(wanted * torch.log(g.mean((2, 3)).clamp_min(1e-6))).sum(1).mean() for g in guidance]
    return torch.stack(losses).mean()


def choice(asked: Tensor, wanted: Tensor, margin: float = 0.25) -> Tensor:
    """Return the squared distance of answers (B, C, h, w) to 1 where wanted, else to `-margin`.

    Answers above 1, or below `-margin`, cost nothing.

    Where the two kinds cannot be told apart, the answer that costs least is in between.
    """
    short = torch.relu(1 - asked.float()) ** 2
    beyond = torch.relu(asked.float() + margin) ** 2
    return torch.where(wanted.view(-1, 1, 1, 1), short, beyond).mean()
