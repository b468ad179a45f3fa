"""JPEG compression: what a file loses."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from vrdir.degradations.draws import Degraded, Draws, Generators, Range, parameters, whole

# ITU-T T.81, tables K.1 and K.2
LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *[(99,) * 8] * 4,
)
# Y, Cb and Cr of RGB (JFIF), and back
YCC = ((0.299, 0.587, 0.114), (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))
RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))
COSINES = tuple(
    tuple(
        math.sqrt((1 if u == 0 else 2) / 8) * math.cos((2 * x + 1) * u * math.pi / 16)
        for x in range(8)
    )
    for u in range(8)
)


def jpeg(
    image: Tensor, generator: Generators, *, quality: Range = (10.0, 90.0), subsampling: int = 2
) -> Degraded:
    """JPEG compression: in blocks of 8 x 8 pixels of Y, Cb and Cr, `F = q round(DCT(f) / q)`.

    q is the table of ITU-T T.81, annex K, times s percent as the Independent JPEG Group does it:
    `s = 5000 / quality` below a quality of 50, `200 - 2 quality` from there on.

    Args:
        image: (B, 3, H, W) in [0, 1]; what is outside is clipped.
        generator: source of all draws.
        quality: 1 to 100, rounded to whole numbers.
        subsampling: 2 for 4:2:0, as cameras and the web have it: one chroma value for 2 x 2 pixels; 1 for 4:4:4.

    Returns:
        The batch as decoded, in 8-bit levels, and `quality` (B,).
    """
    drawn = Draws(image, generator).uniform("quality", quality, 1, 100).round()
    return Degraded(
        encoded(image, drawn, whole("subsampling", subsampling, 1, 2)), parameters(quality=drawn)
    )


def encoded(image: Tensor, quality: Tensor, subsampling: int) -> Tensor:
    """Encode and decode a batch (B, 3, H, W) at quality (B, 1, 1, 1)."""
    height, width = image.shape[-2:]
    levels = (image.clamp(0, 1) * 255).round()
    unit_px = 8 * subsampling
    levels = functional.pad(levels, (0, -width % unit_px, 0, -height % unit_px), mode="replicate")
    luma, chroma = (torch.einsum("kc,bchw->bkhw", image.new_tensor(YCC), levels).round()).split(
        [1, 2], 1
    )
    if subsampling == 2:
        chroma = (
            functional.avg_pool2d(chroma, 2) + 0.01
        ).round()  # libjpeg has halves go up and down in turn
    luma = quantised(luma - 128, image.new_tensor(LUMINANCE), quality) + 128
    chroma = quantised(chroma, image.new_tensor(CHROMINANCE), quality)
    if subsampling == 2:  # weights 3/4 and 1/4, which libjpeg calls fancy upsampling
        chroma = functional.interpolate(
            chroma, scale_factor=2, mode="bilinear", align_corners=False
        )
    decoded = torch.einsum("kc,bchw->bkhw", image.new_tensor(RGB), torch.cat([luma, chroma], 1))
    return decoded[..., :height, :width].round().clamp(0, 255) / 255


def quantised(plane: Tensor, table: Tensor, quality: Tensor) -> Tensor:
    """Planes (B, C, H, W), in levels around 0, after quantisation of each 8 x 8 block's cosine transform."""
    batch, channels, height, width = plane.shape
    scale = torch.where(quality < 50, torch.floor(5000 / quality), 200 - 2 * quality)
    steps = torch.floor((table * scale + 50) / 100).clamp(1, 255).view(batch, 1, 1, 1, 8, 8)
    cosines = plane.new_tensor(COSINES)
    blocks = plane.view(batch, channels, height // 8, 8, width // 8, 8).transpose(
        3, 4
    )  # (B, C, rows, columns, 8, 8)
    coefficients = (cosines @ blocks @ cosines.T / steps).round() * steps
    return (cosines.T @ coefficients @ cosines).transpose(3, 4).reshape(plane.shape).round()
