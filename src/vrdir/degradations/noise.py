"""White Gaussian noise, and the noise of a camera."""

import torch
from torch import Tensor
from torch.nn import functional

from vrdir.degradations.declaration import Place, degradation
from vrdir.degradations.draws import Draws
from vrdir.degradations.jpeg import encoded
from vrdir.degradations.parameters import Parameter
from vrdir.degradations.srgb import to_linear, to_srgb

# A typical camera's colours to sRGB. The rows sum to 1: grey stays grey, and the noise of the
# channels mixes.
COLOUR_MATRIX = ((1.7, -0.5, -0.2), (-0.2, 1.5, -0.3), (0.0, -0.5, 1.5))


@degradation(
    "noise",
    Place.NOISE,
    formula="`I = J + sigma / 255 n`",
    source="the denoising benchmarks'",
    synonyms=("gaussian", "gaussian_noise", "awgn", "grain"),
    never_with=("sensor_noise",),
    sigma=Parameter(
        2,
        55,
        bounds=(0, 255),
        about="standard deviation",
        unit="8-bit levels",
        severities=(8, 16, 28, 45, 70),
        milder=(2, 30),
    ),
)
def noise(image: Tensor, draws: Draws) -> Tensor:
    """Add white Gaussian noise: `I = J + sigma / 255 n`, n ~ N(0, 1) in every pixel and channel."""
    sigma = draws.parameter("sigma")
    return image + sigma / 255 * draws.normal(*image.shape[1:])


@degradation(
    "sensor_noise",
    Place.NOISE,
    formula="`l = clip(L + (1 - c) n + c M S D n)`, `n ~ N(0, L / e + (r / e)^2)`",
    source="Foi et al., TIP 2008",
    synonyms=("iso", "iso_noise", "poisson", "shot_noise", "camera_noise"),
    electrons=Parameter(
        60,
        3000,
        bounds=(1, 1e6),
        about="e, that a white pixel collects; 3000 is a good camera at a high ISO, 60 a phone "
        "at night",
        unit="electrons",
        severities=(1500, 500, 180, 70, 25),
        milder=(200, 3000),
        log=True,
    ),
    read_e=Parameter(
        1, 6, bounds=(0, 1000), about="r, standard deviation of the read-out", unit="electrons"
    ),
    correlation=Parameter(
        0.6, 1, bounds=(0, 1), about="c; 0 is white noise in every pixel and channel"
    ),
    jpeg_quality=Parameter(
        70,
        100,
        bounds=(1, 100),
        about="quality of the file; 100 leaves the file out",
        severities=((85, 100), (80, 100), (75, 95), (70, 90), (65, 85)),
        whole=True,
    ),
)
def sensor_noise(image: Tensor, draws: Draws) -> Tensor:
    """Count photons as a sensor does, in linear light, and write a JPEG file.

    `l = clip(L + (1 - c) n + c M S D n)`, `n ~ N(0, L / e + (r / e)^2)`, L the image in linear
    light and l the result. The variance of the noise rises with the light as that of a Poisson
    count does (Foi et al., TIP 2008; the normal approximation gives the same pixels on every
    machine). D keeps each pixel's noise in one colour, as a Bayer sensor (RGGB) measures it, and
    interpolates the others bilinearly. S halves the colour of the noise, which is its difference
    from the channels' mean, and smooths it over 5 x 5 pixels, as cameras do. M is a camera's colour
    matrix. So grain is wider than a pixel and mostly grey, with faint blotches of colour.
    """
    electrons = draws.parameter("electrons")
    read_e, correlation = draws.parameter("read_e"), draws.parameter("correlation")
    quality = draws.parameter("jpeg_quality")
    noisy = to_srgb(sensor_image(to_linear(image), draws, electrons, read_e, correlation))
    return torch.where(quality < 100, encoded(noisy, quality, subsampling=2), noisy)


def sensor_image(
    light: Tensor, draws: Draws, electrons: Tensor, read_e: Tensor, correlation: Tensor
) -> Tensor:
    """Return light (B, 3, H, W) in [0, 1] as a sensor measures it, clipped: see `sensor_noise`."""
    spread = torch.sqrt(light.clamp(0, 1) / electrons + (read_e / electrons) ** 2)
    white = spread * draws.normal(*light.shape[1:])
    grain = demosaicked(white)
    grey = grain.mean(1, keepdim=True)
    grain = grey + 0.5 * functional.avg_pool2d(
        grain - grey, 5, stride=1, padding=2, count_include_pad=False
    )
    mixed = torch.einsum("kc,bchw->bkhw", light.new_tensor(COLOUR_MATRIX), grain)
    return (light + (1 - correlation) * white + correlation * mixed).clamp(0, 1)


def demosaicked(planes: Tensor) -> Tensor:
    """Keep each pixel of planes (B, 3, H, W) in one colour and interpolate the others.

    The colours are in the pattern RG/GB.
    """
    height, width = planes.shape[-2:]
    sites = torch.zeros(3, height, width, device=planes.device)
    sites[0, ::2, ::2] = sites[1, ::2, 1::2] = sites[1, 1::2, ::2] = sites[2, 1::2, 1::2] = 1
    cross, square = [[0, 1, 0], [1, 4, 1], [0, 1, 0]], [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    weights = planes.new_tensor([square, cross, square])[:, None] / 4
    # A mirror about the edge pixel keeps the pattern; a single row or column has nothing to mirror.
    mirrored = functional.pad(
        planes * sites, (1, 1, 1, 1), mode="reflect" if min(height, width) > 1 else "replicate"
    )
    return functional.conv2d(mirrored, weights, groups=3)
