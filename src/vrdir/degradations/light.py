"""Low light."""

import torch
from torch import Tensor

from vrdir.degradations.declaration import Place, degradation
from vrdir.degradations.draws import Draws
from vrdir.degradations.noise import sensor_image
from vrdir.degradations.parameters import Parameter
from vrdir.degradations.srgb import to_linear, to_srgb

WARM = (1.0, 0.72, 0.42)  # tungsten light, for a camera that is set to a cooler one


@degradation(
    "low_light",
    Place.LIGHT,
    formula="`l = S(2^EV s c L)`",
    source="as `sensor_noise`",
    synonyms=("dark", "darkness", "night", "lowlight", "underexposure"),
    never_with=("sensor_noise",),
    exposure_ev=Parameter(
        -4.5,
        -1.5,
        bounds=(-10, 0),
        about="EV, the exposure",
        unit="stops",
        severities=(-0.8, -1.6, -2.6, -3.6, -4.6),
        milder=(-2.5, -0.8),
    ),
    warmth=Parameter(0, 0.5, bounds=(0, 1), about="w, from daylight (0) to tungsten (1)"),
    unevenness=Parameter(
        0,
        0.7,
        bounds=(0, 1),
        about="u, of the lamps' light",
        severities=((0.0, 0.2), (0.0, 0.3), (0.0, 0.4), (0.1, 0.5), (0.2, 0.6)),
    ),
    electrons=Parameter(
        1000,
        20000,
        bounds=(1, 1e6),
        about="e, that a white pixel would collect in full light",
        unit="electrons",
        severities=(20000, 10000, 5000, 3000, 1500),
        milder=(5000, 20000),
        log=True,
    ),
    read_e=Parameter(
        1, 5, bounds=(0, 1000), about="r, standard deviation of the read-out", unit="electrons"
    ),
)
def low_light(image: Tensor, draws: Draws) -> Tensor:
    """Take the photo in less light, by a sensor: in linear light `l = S(2^EV s c L)`.

    S is the sensor of `sensor_noise` with a correlation of 0.8. `s = 1 - u f` is the reach of the
    lamps, f clouds in [0, 1]. `c = 1 + w (c_warm - 1)` is the colour of the lamps.
    """
    exposure, warmth = draws.parameter("exposure_ev"), draws.parameter("warmth")
    unevenness, electrons = draws.parameter("unevenness"), draws.parameter("electrons")
    read_e = draws.parameter("read_e")
    reach = 1 - unevenness * draws.smooth_field(3)
    colour = 1 + warmth * (image.new_tensor(WARM).view(1, 3, 1, 1) - 1)
    light = 2**exposure * reach * colour * to_linear(image)
    correlation = torch.full_like(exposure, 0.8)
    return to_srgb(sensor_image(light, draws, electrons, read_e, correlation))
