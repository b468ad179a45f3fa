"""Low resolution."""

import torch
from torch import Tensor
from torch.nn import functional

from vrdir.degradations.draws import Degraded, Draws, Generators, Range, parameters


def low_resolution(image: Tensor, generator: Generators, *, factor: Range = (1.5, 6.0)) -> Degraded:
    """Fewer pixels, enlarged again: `I = up(round8(down(J)))`, down to `round(H / factor)` x `round(W / factor)` and back to H x W.

    Both ways bicubic, downwards with the filter as wide as the factor (so that nothing aliases); round8 is rounding to 8 bits.

    Args:
        image: J, (B, 3, H, W) in [0, 1].
        generator: source of all draws.
        factor: how many times smaller each side gets, 1 to 64, uniform in the logarithm; a side keeps a pixel at least.

    Returns:
        The batch at its old size, and `factor` (B,).
    """
    drawn = Draws(image, generator).log_uniform("factor", factor, 1, 64)
    height, width = image.shape[-2:]
    enlarged = []
    for one, times in zip(
        image, drawn.flatten().tolist(), strict=True
    ):  # each has a size of its own
        small_size = (max(1, round(height / times)), max(1, round(width / times)))
        small = functional.interpolate(one[None], small_size, mode="bicubic", antialias=True).clamp(
            0, 1
        )
        small = (small * 255).round() / 255
        enlarged.append(
            functional.interpolate(small, (height, width), mode="bicubic", antialias=True)
        )
    return Degraded(torch.cat(enlarged), parameters(factor=drawn))
