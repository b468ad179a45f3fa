"""The losses of the stages. Each takes RGB batches (B, 3, H, W) or feature maps (B, C, h, w) and returns a scalar."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def l1(restored: Tensor, clean: Tensor) -> Tensor:
    """Mean absolute error, the pixel loss of the paper."""
    return (restored - clean).abs().mean()


def balanced_l1(restored: Tensor, clean: Tensor, floor: float = 0.06) -> Tensor:
    """`mean over images of log(floor + L1 of the image)`: every degradation counts by its relative error.

    Under plain L1 a hazy image, whose error is ten times a noisy one's, has ten times the say. The logarithm gives each
    image a gradient relative to its own error; `floor` (15 levels of 8 bits) keeps those whose error goes to zero, clean
    ones above all, from taking over.
    """
    return torch.log(floor + (restored - clean).abs().mean((1, 2, 3))).mean()


def balanced_detail(restored: Tensor, clean: Tensor, floor: float = 0.02) -> Tensor:
    """`mean over images of log(floor + L1 of the differences between neighbours)`, both ways.

    The local contrast, balanced as in `balanced_l1`.
    """
    errors = [
        (restored.diff(dim=side) - clean.diff(dim=side)).abs().mean((1, 2, 3)) for side in (2, 3)
    ]
    return torch.log(floor + errors[0] + errors[1]).mean()


def spectrum(restored: Tensor, clean: Tensor) -> Tensor:
    """L1 between the amplitude spectra, relative to the clean one's mean: degradations live mostly in the amplitude."""
    a, b = (torch.fft.rfft2(image.float(), norm="ortho").abs() for image in (restored, clean))
    return ((a - b).abs().mean((1, 2, 3)) / b.mean((1, 2, 3)).clamp_min(1e-3)).mean()


def ranking(
    restored_clean: Tensor,
    clean: Tensor,
    restored_degraded: Tensor,
    degraded: Tensor,
    margin: float,
) -> Tensor:
    """Similarity ranking: `max(0, margin - (cos(SAD(E(y)), y) - cos(SAD(E(x)), x)))` (VRD-IR, stage 1).

    The decoder is to be a better prior for clean semantics than for degraded ones.
    """
    closeness = functional.cosine_similarity(restored_clean.flatten(1), clean.flatten(1))
    other = functional.cosine_similarity(restored_degraded.flatten(1), degraded.flatten(1))
    return torch.relu(margin - (closeness - other)).mean()


def semantic_consistency(features: Sequence[Tensor], clean: Sequence[Tensor]) -> Tensor:
    """`1 - cos(GMP(F), GMP(E(y)))`, GMP the global max pool over H and W, averaged over taps (VRD-IR, stage 2)."""
    distances = [
        1 - functional.cosine_similarity(f.float().amax((2, 3)), c.float().amax((2, 3))).mean()
        for f, c in zip(features, clean, strict=True)
    ]
    return torch.stack(distances).mean()


def dense_consistency(features: Sequence[Tensor], clean: Sequence[Tensor]) -> Tensor:
    """`1 - cos(F, E(y))` over the channels, at every position, averaged over positions and taps (ours, stage 4)."""
    distances = [
        1 - functional.cosine_similarity(f.float(), c.float(), dim=1).mean()
        for f, c in zip(features, clean, strict=True)
    ]
    return torch.stack(distances).mean()


def guidance_loss(
    guidance: Sequence[Tensor], present: Tensor, known: Tensor, clean_branch: bool
) -> Tensor:
    """Cross-entropy between the mean guidance and what was really done to the image: even shares of what is present.

    It needs no labels but those that the synthesis itself wrote, or the name of a pair list, and makes the guidance maps a diagnosis.

    Args:
        guidance: one (B, K, h, w) per tap.
        present: (B, number of degradations) bool.
        known: (B,) bool; an image of which it is not known what is in it has no say.
        clean_branch: K counts a last branch, for images with nothing present; without it these have no say.
    """
    wanted = present.float()
    if clean_branch:
        wanted = torch.cat([wanted, (~present.any(1, keepdim=True)).float()], 1)
    wanted = wanted / wanted.sum(1, keepdim=True).clamp_min(1) * known[:, None]
    losses = [-(wanted * torch.log(g.mean((2, 3)).clamp_min(1e-6))).sum(1).mean() for g in guidance]
    return torch.stack(losses).mean()


def choice(asked: Tensor, wanted: Tensor, margin: float = 0.25) -> Tensor:
    """Squared distance of what is asked for, (B, C, h, w), to 1 or more where it is wanted, and else to `-margin` or less.

    So what cannot be told apart gets something in between, and what plainly is not wanted nothing.
    """
    short = torch.relu(1 - asked.float()) ** 2
    beyond = torch.relu(asked.float() + margin) ** 2
    return torch.where(wanted.view(-1, 1, 1, 1), short, beyond).mean()
