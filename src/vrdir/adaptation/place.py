"""Measure the weather on photos of a place: the haze, its colour, and the noise.

The photos have no clean versions and no labels. The network restores them, and its change is the
measurement, as in the diagnosis of `vrdir.Restorer`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from vrdir.data.image_cache import decode, photos_in, readable
from vrdir.data.items import spread
from vrdir.errors import MissingFileError
from vrdir.model.vrdir import VRDIR
from vrdir.restoring.diagnosis import diagnose

MOST_PHOTOS = 60
SIDE_PX = 384
"""The longer side of the copies that are measured."""
MEAN_DEPTH = 0.46
"""The mean depth `-log(t) / beta` in synthetic haze, as measured; t is the transmission."""
WARM = 0.19
"""Red minus blue of the airlight at warmth 1 (`vrdir.degradations.haze`)."""
LEAST_HAZE = 0.08
"""A loss of contrast, 1 - t, below this is not counted as haze."""
LEAST_NOISE = 1.5
GRID = 48
FLAT = 1e-4
"""The haze of an image is not measured if the restored image has less variance than this."""


class Weather(NamedTuple):
    """The measurements on one photo.

    Attributes:
        transmission: t, the share of the contrast that is left, 0.05 to 1; 1 without haze.
        airlight: the colour of the haze, (red, green, blue) in [0, 1]; None without haze.
        noise: the standard deviation of the noise, in 8-bit levels.
    """

    transmission: float
    airlight: tuple[float, float, float] | None
    noise: float


def measure(network: VRDIR, image: Tensor) -> Weather:
    """Measure haze and noise on one photo.

    Haze follows `I = J t + A (1 - t)`. A line is fitted by least squares to the input I as a
    function of the restored image J, on the means of a coarse grid, which noise and streaks hardly
    change. The slope is the transmission t; the offset gives the brightness of the airlight A. Its
    colour is taken from the cells whose darkest channel is brightest (He et al., CVPR 2009),
    because restoring leaves a part of the colour in the image.

    Args:
        network: the network that restores.
        image: RGB, (1, 3, H, W) in [0, 1].
    """
    with torch.no_grad():
        restoration = network.restore(image)
    noise = diagnose(image, restoration)[0].noise or 0.0
    hazy, clear = (
        functional.adaptive_avg_pool2d(each.float(), GRID)[0].flatten(1)
        for each in (image, restoration.image)
    )
    level, own_level = hazy.mean(), clear.mean()
    around, own = (each - each.mean(1, keepdim=True) for each in (hazy, clear))
    variance = float((own**2).mean())
    slope = float((around * own).mean()) / variance if variance > FLAT else 1.0
    if 1 - slope < LEAST_HAZE:
        return Weather(1.0, None, noise)
    haziest = hazy.amin(0).topk(GRID**2 // 50).indices
    colour = hazy[:, haziest].mean(1)
    brightness = (level - slope * own_level) / (1 - slope)
    red, green, blue = (colour - colour.mean() + brightness).clamp(0, 1).tolist()
    return Weather(max(slope, 0.05), (red, green, blue), noise)


def photos_of_place(folder: Path) -> list[Path]:
    """Return up to sixty photos of a folder, evenly distributed over the sorted names.

    Raises:
        MissingFileError: the folder does not exist, or contains no photos.
        DataError: none of its photos can be read.
    """
    if not folder.is_dir():
        raise MissingFileError(f"the folder of photos of the place does not exist: {folder}")
    paths = readable(photos_in(folder))
    if len(paths) > MOST_PHOTOS:
        paths = [paths[i] for i in spread(len(paths), MOST_PHOTOS)]
    return paths


def measure_photos(photos: Iterable[Path], network: VRDIR) -> list[Weather]:
    """Measure photos of a place, each reduced to 384 pixels on the longer side.

    Raises:
        ImageError: a photo cannot be decoded.
    """
    device = next(network.parameters()).device
    return [measure(network, reduced(path, SIDE_PX).to(device)) for path in photos]


def reduced(path: Path, side_px: int) -> Tensor:
    """Return a photo, (1, 3, H, W) in [0, 1], its longer side at most `side_px` pixels.

    Raises:
        ImageError: the photo cannot be decoded.
    """
    image = decode(path)[None].float() / 255
    scale = side_px / max(image.shape[-2:])
    if scale >= 1:
        return image
    size = [max(1, round(side * scale)) for side in image.shape[-2:]]
    return functional.interpolate(image, size, mode="bilinear", antialias=True).clamp(0, 1)


def ranges_of_place(measured: Iterable[Weather], able: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return ranges of degradations' parameters that cover the measurements.

    Args:
        measured: the measurements on the photos.
        able: the degradations whose parameters may be set.

    Returns:
        For haze and noise, if they were measured on enough photos, the range of each parameter.
    """
    measured, able = list(measured), set(able)
    ranges: dict[str, dict[str, Any]] = {}
    hazy = [one for one in measured if one.airlight is not None]
    if "haze" in able and len(hazy) >= max(3, len(measured) // 10):
        betas = [-math.log(one.transmission) / MEAN_DEPTH for one in hazy]
        lights = [sum(one.airlight or ()) / 3 for one in hazy]
        warmths = [(one.airlight[0] - one.airlight[2]) / WARM for one in hazy if one.airlight]
        ranges["haze"] = {
            "beta": between_quantiles(betas, 0.15, (0.1, 6.0)),
            "airlight": between_quantiles(lights, 0.04, (0.05, 1.0)),
            "warmth": between_quantiles(warmths, 0.1, (-1.0, 1.0)),
        }
    noisy = [one.noise for one in measured if one.noise >= LEAST_NOISE]
    if "noise" in able and len(noisy) >= max(3, len(measured) // 10):
        ranges["noise"] = {"sigma": between_quantiles(noisy, 2.0, (1.0, 75.0))}
    return ranges


def between_quantiles(
    values: list[float], margin: float, bounds: tuple[float, float]
) -> tuple[float, float]:
    """Return the range from the 5 % to the 95 % quantile, widened by a margin, within bounds."""
    low, high = torch.quantile(torch.tensor(values), torch.tensor([0.05, 0.95])).tolist()
    low, high = (min(max(end, bounds[0]), bounds[1]) for end in (low - margin, high + margin))
    return round(low, 3), round(max(high, low), 3)
