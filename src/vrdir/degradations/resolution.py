"""Low resolution."""

import torch
from torch import Tensor
from torch.nn import functional

from vrdir.degradations.declaration import Place, degradation
from vrdir.degradations.draws import Draws
from vrdir.degradations.parameters import Parameter


@degradation(
    "low_resolution",
    Place.PIXELS,
    formula="`I = up(round8(down(J)))`, bicubic",
    synonyms=("lowres", "downscale", "downsampling", "pixelate"),
    factor=Parameter(
        1.5,
        6,
        bounds=(1, 64),
        about="how many times smaller each side becomes; a side keeps at least one pixel",
        severities=(1.5, 2.2, 3.2, 4.7, 7.0),
        milder=(1.2, 3),
        log=True,
    ),
)
def low_resolution(image: Tensor, draws: Draws) -> Tensor:
    """Reduce the image and enlarge it again: `I = up(round8(down(J)))`.

    It is reduced to `round(H / factor)` x `round(W / factor)` pixels. Both ways are bicubic; the
    filter of the reduction is as wide as the factor, which prevents aliasing. round8 is rounding to
    8 bits.
    """
    factors = draws.parameter("factor").flatten().tolist()
    height, width = image.shape[-2:]
    enlarged = []
    for one, factor in zip(image, factors, strict=True):  # each has its own size
        size = (max(1, round(height / factor)), max(1, round(width / factor)))
        small = functional.interpolate(one[None], size, mode="bicubic", antialias=True)
        small = (small.clamp(0, 1) * 255).round() / 255
        enlarged.append(
            functional.interpolate(small, (height, width), mode="bicubic", antialias=True)
        )
    return torch.cat(enlarged)
