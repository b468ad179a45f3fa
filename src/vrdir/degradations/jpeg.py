"""JPEG compression."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from vrdir.degradations.declaration import Place, degradation
from vrdir.degradations.draws import Draws
from vrdir.degradations.parameters import Parameter, Single

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


@degradation(
    "jpeg",
    Place.FILE,
    formula="`F = q round(DCT(f) / q)`",
    source="ITU-T T.81; q scaled as the Independent JPEG Group does",
    synonyms=("jpg", "compression", "artifacts", "jpeg_compression"),
    quality=Parameter(
        10,
        90,
        bounds=(1, 100),
        about="quality of the file",
        severities=(60, 35, 20, 12, 6),
        milder=(25, 90),
        whole=True,
    ),
    subsampling=Single(
        2,
        bounds=(1, 2),
        about="2 for 4:2:0, as cameras and the web use: one chroma value for 2 x 2 pixels; "
        "1 for 4:4:4",
        whole=True,
    ),
)
def jpeg(image: Tensor, draws: Draws) -> Tensor:
    """Compress as JPEG: in blocks of 8 x 8 pixels of Y, Cb and Cr, `F = q round(DCT(f) / q)`.

    q is the table of ITU-T T.81, annex K, times s percent as the Independent JPEG Group does it:
    `s = 5000 / quality` below a quality of 50, `200 - 2 quality` from 50 on. The result is in 8-bit
    levels.
    """
    return encoded(image, draws.parameter("quality"), draws.value("subsampling"))


def encoded(image: Tensor, quality: Tensor, subsampling: int) -> Tensor:
    """Encode and decode a batch (B, 3, H, W), clipped to [0, 1], at a quality (B, 1, 1, 1)."""
    height, width = image.shape[-2:]
    levels = (image.clamp(0, 1) * 255).round()
    unit_px = 8 * subsampling
    levels = functional.pad(levels, (0, -width % unit_px, 0, -height % unit_px), mode="replicate")
    luma, chroma = (torch.einsum("kc,bchw->bkhw", image.new_tensor(YCC), levels).round()).split(
        [1, 2], 1
    )
    if subsampling == 2:
        # libjpeg rounds halves up and down in turn; here they are rounded up.
        chroma = (functional.avg_pool2d(chroma, 2) + 0.01).round()
    luma = quantised(luma - 128, image.new_tensor(LUMINANCE), quality) + 128
    chroma = quantised(chroma, image.new_tensor(CHROMINANCE), quality)
    if subsampling == 2:
        # Weights 3/4 and 1/4: libjpeg's "fancy upsampling".
        chroma = functional.interpolate(
            chroma, scale_factor=2, mode="bilinear", align_corners=False
        )
    decoded = torch.einsum("kc,bchw->bkhw", image.new_tensor(RGB), torch.cat([luma, chroma], 1))
    return decoded[..., :height, :width].round().clamp(0, 255) / 255


def quantised(plane: Tensor, table: Tensor, quality: Tensor) -> Tensor:
    """Quantise the cosine transforms of 8 x 8 blocks of planes (B, C, H, W), levels around 0."""
    batch, channels, height, width = plane.shape
    scale = torch.where(quality < 50, torch.floor(5000 / quality), 200 - 2 * quality)
    steps = torch.floor((table * scale + 50) / 100).clamp(1, 255).view(batch, 1, 1, 1, 8, 8)
    cosines = plane.new_tensor(COSINES)
    # (B, C, rows, columns, 8, 8)
    blocks = plane.view(batch, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    coefficients = (cosines @ blocks @ cosines.T / steps).round() * steps
    return (cosines.T @ coefficients @ cosines).transpose(3, 4).reshape(plane.shape).round()
