"""All degradations by name, what each severity means, and how mild each is in a mixture."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from vrdir.degradations.blur import defocus_blur, motion_blur
from vrdir.degradations.draws import Degraded, Range
from vrdir.degradations.haze import haze, night_haze
from vrdir.degradations.jpeg import jpeg
from vrdir.degradations.light import low_light
from vrdir.degradations.noise import noise, sensor_noise
from vrdir.degradations.overlays import overlay
from vrdir.degradations.rain import rain, raindrops
from vrdir.degradations.resolution import low_resolution
from vrdir.degradations.snow import snow
from vrdir.spelling import did_you_mean

Severities = tuple[Range, Range, Range, Range, Range]


CLEAN, MIXED = (
    "clean",
    "mixed",
)  # what an image may be beside having one degradation: none, or several


class Degradation(NamedTuple):
    """A degradation and its presets.

    Attributes:
        function: of (image, generator, *, parameters).
        severities: for each parameter that a severity sets, its value or range at severity 1 (barely visible) to 5 (a
            recogniser mostly fails); the others keep their defaults.
        milder: ranges in a mixture, of which three at full strength would leave nothing to see.
    """

    function: Callable[..., Degraded]
    severities: Mapping[str, Severities]
    milder: Mapping[str, Range]


DEGRADATIONS: dict[str, Degradation] = {
    "haze": Degradation(
        haze,
        {
            "beta": (0.5, 1.0, 1.6, 2.4, 3.5),
            "warmth": ((-0.4, 0.8),) * 5,
            "unevenness": ((0.0, 0.2), (0.0, 0.3), (0.0, 0.4), (0.0, 0.5), (0.0, 0.6)),
        },
        {"beta": (0.2, 1.8)},
    ),
    "night_haze": Degradation(
        night_haze,
        {
            "exposure_ev": (-1.2, -2.0, -2.8, -3.6, -4.4),
            "beta": (0.3, 0.6, 1.0, 1.5, 2.1),
            "airlight": ((0.15, 0.3),) * 5,
            "glow": ((1.0, 4.0),) * 5,
        },
        {"exposure_ev": (-2.5, -1.0), "beta": (0.2, 1.0), "glow": (1.0, 3.0)},
    ),
    "rain": Degradation(
        rain,
        {  # 1 and 2 as in Rain100L: one wind, sharp thin streaks, clear air; 4 and 5 as in Rain100H: several layers, and veil
            "coverage": (0.06, 0.12, 0.22, 0.35, 0.5),
            "length_px": ((12.0, 25.0), (15.0, 35.0), (20.0, 45.0), (25.0, 55.0), (30.0, 60.0)),
            "width_px": ((0.3, 0.55),) * 5,
            "opacity": (0.3, 0.36, 0.42, 0.5, 0.62),
            "veil": (0.0, 0.0, 0.03, 0.06, 0.12),
            "angle_deg": ((-25.0, 25.0),) * 5,
            "blur_px": ((0.0, 0.4), (0.0, 0.5), (0.1, 0.7), (0.3, 0.9), (0.4, 1.1)),
            "unevenness": ((0.2, 0.7),) * 5,
            "mist": (0.0, 0.15, 0.4, 0.7, 1.1),
            "layers": (3, 3, 4, 4, 4),
        },
        {"coverage": (0.02, 0.25), "veil": (0.0, 0.1)},
    ),
    "snow": Degradation(
        snow,
        {
            "coverage": (0.03, 0.08, 0.17, 0.3, 0.48),
            "size_px": ((1.5, 3.0), (2.0, 4.0), (2.0, 5.0), (2.5, 6.0), (3.0, 7.0)),
            "trail_px": ((0.0, 3.0), (0.0, 5.0), (1.0, 7.0), (2.0, 9.0), (3.0, 11.0)),
            "mist": (0.0, 0.2, 0.45, 0.8, 1.3),
        },
        {"coverage": (0.02, 0.15), "mist": (0.0, 0.5)},
    ),
    "raindrops": Degradation(
        raindrops,
        {
            "coverage": (0.02, 0.06, 0.12, 0.22, 0.38),
            "radius_px": ((7.0, 20.0),) * 5,
        },
        {"coverage": (0.02, 0.12)},
    ),
    "defocus_blur": Degradation(
        defocus_blur, {"radius_px": (1.0, 2.0, 3.5, 5.5, 8.0)}, {"radius_px": (0.5, 3.0)}
    ),
    "motion_blur": Degradation(
        motion_blur, {"length_px": (4.0, 8.0, 14.0, 22.0, 32.0)}, {"length_px": (2.0, 12.0)}
    ),
    "low_resolution": Degradation(
        low_resolution, {"factor": (1.5, 2.2, 3.2, 4.7, 7.0)}, {"factor": (1.2, 3.0)}
    ),
    "low_light": Degradation(
        low_light,
        {
            "exposure_ev": (-0.8, -1.6, -2.6, -3.6, -4.6),
            "electrons": (20000.0, 10000.0, 5000.0, 3000.0, 1500.0),
            "unevenness": ((0.0, 0.2), (0.0, 0.3), (0.0, 0.4), (0.1, 0.5), (0.2, 0.6)),
        },
        {"exposure_ev": (-2.5, -0.8), "electrons": (5000.0, 20000.0)},
    ),
    "noise": Degradation(noise, {"sigma": (8.0, 16.0, 28.0, 45.0, 70.0)}, {"sigma": (2.0, 30.0)}),
    "sensor_noise": Degradation(
        sensor_noise,
        {
            "electrons": (1500.0, 500.0, 180.0, 70.0, 25.0),
            "jpeg_quality": (
                (85.0, 100.0),
                (80.0, 100.0),
                (75.0, 95.0),
                (70.0, 90.0),
                (65.0, 85.0),
            ),
        },
        {"electrons": (200.0, 3000.0)},
    ),
    "jpeg": Degradation(
        jpeg, {"quality": (60.0, 35.0, 20.0, 12.0, 6.0)}, {"quality": (25.0, 90.0)}
    ),
}
"""By name, in the order in which nature applies them: the air, what falls through it, what hangs on the lens, the lens and
its motion, the sensor's pixels, the light that they count and its noise, the file. Little light comes late since it falls on
haze, rain and snow as on the rest: it is a matter of what reaches the sensor."""

TRANSFORMS: dict[str, Degradation] = {"overlay": Degradation(overlay, {}, {})}
"""By name, what is no degradation, but can be applied as one is: nothing is to be removed again."""

STEPS = DEGRADATIONS | TRANSFORMS

EXCLUSIVE = (
    ("haze", "night_haze"),
    ("rain", "snow"),
    ("night_haze", "rain"),
    ("night_haze", "snow"),
    ("night_haze", "low_light"),
    ("low_light", "sensor_noise"),
    ("noise", "sensor_noise"),
)
"""What does not meet in one photo: our rain and snow are lit by day, and a dark photo has its sensor's noise already."""

SYNONYMS = {
    **dict.fromkeys(("fog", "foggy", "mist", "misty", "smog", "smoke", "hazy", "dust"), "haze"),
    **dict.fromkeys(("rainy", "rain_streaks", "drizzle", "derain"), "rain"),
    **dict.fromkeys(("drops", "waterdrops", "droplets"), "raindrops"),
    **dict.fromkeys(("snowy", "snowfall", "sleet"), "snow"),
    **dict.fromkeys(("blur", "out_of_focus", "gaussian_blur"), "defocus_blur"),
    **dict.fromkeys(("shake", "camera_shake"), "motion_blur"),
    **dict.fromkeys(("dark", "darkness", "night", "lowlight", "underexposure"), "low_light"),
    **dict.fromkeys(("gaussian", "gaussian_noise", "awgn", "grain"), "noise"),
    **dict.fromkeys(("iso", "iso_noise", "poisson", "shot_noise", "camera_noise"), "sensor_noise"),
    **dict.fromkeys(("jpg", "compression", "artifacts", "jpeg_compression"), "jpeg"),
    **dict.fromkeys(("lowres", "downscale", "downsampling", "pixelate"), "low_resolution"),
}
"""What else a degradation is called, and its name here."""


def meant_by(*names: str) -> str:
    """Return "; did you mean haze?" for names that are no degradations here, or "" where none is near."""
    return "".join(
        did_you_mean(name, (*DEGRADATIONS, CLEAN, MIXED), SYNONYMS) for name in sorted(names)
    )
