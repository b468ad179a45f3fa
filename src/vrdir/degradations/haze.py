"""Haze by atmospheric scattering, by day and by night."""

from typing import get_args

import torch
from torch import Tensor

from vrdir.degradations.declaration import Place, degradation
from vrdir.degradations.depth import DepthKind, drawn_depth
from vrdir.degradations.draws import Draws, pixel_grid
from vrdir.degradations.parameters import Choice, Parameter, Single
from vrdir.degradations.srgb import to_linear, to_srgb

DEPTH = Choice(
    "smooth",
    get_args(DepthKind),
    about="d, a map (about 0 near to 1 far), or how it is drawn: a receding plane, regions with "
    "edges, or one of both",
    takes_map=True,
)


@degradation(
    "haze",
    Place.AIR,
    formula="`I = L (J t + A (1 - t))`, `t = exp(-beta rho d)`",
    source="Koschmieder; He et al., CVPR 2009",
    synonyms=("fog", "foggy", "mist", "misty", "smog", "smoke", "hazy", "dust"),
    never_with=("night_haze",),
    beta=Parameter(
        0.4,
        2.6,
        bounds=(0, 20),
        about="scattering coefficient per unit of depth; 1 is a light haze, 2.5 a thick fog",
        severities=(0.5, 1, 1.6, 2.4, 3.5),
        milder=(0.2, 1.8),
    ),
    airlight=Parameter(0.7, 1, bounds=(0, 1), about="A, the brightness of the haze"),
    colour_cast=Single(
        0.03, bounds=(0, 1), about="how far each channel of A may depart from its brightness"
    ),
    warmth=Parameter(
        0,
        0,
        bounds=(-1, 1),
        about="w, from the blue of thin haze (-1) to the yellow of dust and smog (1)",
        severities=((-0.4, 0.8),) * 5,
    ),
    unevenness=Parameter(
        0,
        0,
        bounds=(0, 1),
        about="u, of the haze's density rho",
        severities=((0.0, 0.2), (0.0, 0.3), (0.0, 0.4), (0.0, 0.5), (0.0, 0.6)),
    ),
    light=Parameter(
        1,
        1,
        bounds=(0.01, 1),
        about="L, the light of the whole scene; fog at dusk or in a tunnel is below 1",
    ),
    depth=DEPTH,
)
def haze(image: Tensor, draws: Draws) -> Tensor:
    """Add atmospheric scattering (Koschmieder): `I = L (J t + A (1 - t))`, `t = exp(-beta rho d)`.

    t is the transmission, d the depth. The density is `rho = 1 + u (2 f - 1)`, f clouds in [0, 1].
    The warmth adds `w (0.04, 0, -0.15)` to A. The recorded `airlight` is (B, 3).
    """
    drawn_beta = draws.parameter("beta")
    brightness = draws.parameter("airlight")
    cast = draws.unit(3, 1, 1) * 2 - 1
    drawn_airlight = (brightness + draws.value("colour_cast") * cast).clamp(0, 1)
    depth = depth_of(draws)
    drawn_warmth = draws.parameter("warmth")
    drawn_airlight = (
        drawn_airlight + drawn_warmth * image.new_tensor([0.04, 0.0, -0.15]).view(1, 3, 1, 1)
    ).clamp(0, 1)
    draws.record("airlight", drawn_airlight)
    drawn_unevenness = draws.parameter("unevenness")
    density = 1 + drawn_unevenness * (2 * draws.clouds() - 1)
    transmission = torch.exp(-drawn_beta * density * depth)
    draws.record_transmission(transmission)
    drawn_light = draws.parameter("light")
    return drawn_light * (image * transmission + drawn_airlight * (1 - transmission))


LAMPS = 8  # most lamps along a street; how many of them are lit is drawn
SODIUM, LED = (1.0, 0.52, 0.13), (0.85, 0.95, 1.0)


@degradation(
    "night_haze",
    Place.AIR,
    formula="`l = L (2^EV s + P) t + A (1 - t) + G`, `t = exp(-beta d)`, `G = exp(-(r/R)^p)`",
    source="Narasimhan and Nayar, CVPR 2003; Metari and Deschenes, ICCV 2007",
    never_with=("rain", "snow", "low_light"),
    exposure_ev=Parameter(
        -4,
        -2,
        bounds=(-10, 0),
        about="EV, the dark without lamps against the day",
        unit="stops",
        severities=(-1.2, -2, -2.8, -3.6, -4.4),
        milder=(-2.5, -1),
    ),
    beta=Parameter(
        0.4,
        2,
        bounds=(0, 20),
        about="scattering coefficient per unit of depth",
        severities=(0.3, 0.6, 1, 1.5, 2.1),
        milder=(0.2, 1),
    ),
    airlight=Parameter(
        0.15, 0.4, bounds=(0, 1), about="A, as displayed (sRGB)", severities=((0.15, 0.3),) * 5
    ),
    lamps=Parameter(1, 6, bounds=(0, LAMPS), about="number of lamps", whole=True),
    glow=Parameter(
        1,
        6,
        bounds=(0, 20),
        about="brightness of the nearest lamp's glow at its centre, as a multiple of white",
        severities=((1.0, 4.0),) * 5,
        milder=(1, 3),
    ),
    depth=DEPTH,
)
def night_haze(image: Tensor, draws: Draws) -> Tensor:
    """Add haze lit by lamps, in linear light: `I = J (2^EV s + P) t + A (1 - t) + G`.

    `t = exp(-beta d)`. s is the colour of the night sky, P the pools of light around the lamps and
    A the dim light of the sky and the town in the haze. G is the glow of the lamps, the shape of
    multiple scattering around a source (Narasimhan and Nayar, CVPR 2003), `exp(-(r / R)^p)` with p
    0.45 to 0.65 as generalised by Metari and Deschenes (ICCV 2007). The lamps are along a street:
    pairs that shrink towards a vanishing point. The recorded `airlight` is (B, 3).
    """
    exposure = draws.parameter("exposure_ev")
    drawn_beta = draws.parameter("beta")
    brightness = draws.parameter("airlight")
    drawn_lamps = draws.parameter("lamps")
    drawn_glow = draws.parameter("glow")
    depth = depth_of(draws)

    sodium, led = (image.new_tensor(colour).view(1, 3, 1, 1) for colour in (SODIUM, LED))
    lamp_colour = torch.lerp(sodium, led, draws.unit(1, 1, 1) ** 2)
    sky = torch.lerp(
        image.new_tensor([0.75, 0.85, 1.1]).view(1, 3, 1, 1), lamp_colour, 0.3 * draws.unit(1, 1, 1)
    )
    drawn_airlight = brightness * torch.lerp(
        torch.ones_like(lamp_colour), lamp_colour, 0.25 + 0.35 * draws.unit(1, 1, 1)
    )
    draws.record("airlight", drawn_airlight)
    pools, glows = street_lamps(draws, drawn_lamps, drawn_beta)
    transmission = torch.exp(-drawn_beta * depth)
    lit = to_linear(image) * (2**exposure * sky + 0.08 * drawn_glow * pools * lamp_colour)
    hazy = (
        lit * transmission
        + to_linear(drawn_airlight) * (1 - transmission)
        + drawn_glow * glows * lamp_colour
    )
    return to_srgb(hazy)


def depth_of(draws: Draws) -> Tensor:
    """Return the depth map that was given, or draw one, (B, 1, H, W)."""
    depth = draws.value("depth")
    return depth if isinstance(depth, Tensor) else drawn_depth(draws, depth)


def street_lamps(draws: Draws, lamps: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Draw the pools of light and the glows of the first `lamps` lamps along a street.

    Both are (B, 1, H, W), and 1 at the nearest lamp.
    """
    x, y = pixel_grid(draws.image)
    height, width = draws.image.shape[-2:]
    vanishing_x = draws.uniform("vanishing_x", (0.25, 0.75))
    vanishing_y = draws.uniform("vanishing_y", (0.35, 0.55))
    near_x, near_y = draws.uniform("near_x", (0.15, 0.5)), draws.uniform("near_y", (0.15, 0.4))
    spacing, radius = (
        draws.uniform("spacing", (0.35, 0.8)),
        draws.log_uniform("radius", (0.01, 0.025), 1e-3),
    )
    power = draws.uniform("power", (0.45, 0.65))
    side = torch.where(draws.unit(1, 1, 1) < 0.5, -1.0, 1.0)
    jitter = draws.unit(LAMPS, 1, 1) - 0.5
    pools, glows = torch.zeros_like(draws.image[:, :1]), torch.zeros_like(draws.image[:, :1])
    for number in range(LAMPS):
        # How many times farther than the nearest pair.
        far = 1 + spacing * (number // 2) + 0.15 * jitter[:, number : number + 1]
        lamp_x = width * (vanishing_x + side * (-1) ** number * near_x / far)
        lamp_y = height * (vanishing_y - near_y / far)
        distance = torch.sqrt((x - lamp_x) ** 2 + (y - lamp_y) ** 2 + 0.25) / height
        drop = (y - lamp_y) / height
        # A lamp lights what is between it and the ground.
        off_pole = torch.maximum(-drop, drop - 0.3 / far).clamp_min(0)
        aside = torch.sqrt(((x - lamp_x) / height) ** 2 + off_pole**2)
        lit = (lamps > number) * torch.exp(-0.15 * beta * (far - 1))
        glows = glows + lit * torch.exp(-((distance * far / radius) ** power))
        pools = pools + lit * torch.exp(-((aside * far / 0.35) ** 2))
    return pools, glows
