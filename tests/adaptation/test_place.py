"""The weather of a place, measured on its photos."""

from pathlib import Path
from statistics import mean

import pytest
import torch
from PIL import Image

import vrdir
from vrdir.adaptation.place import (
    Weather,
    measure,
    measure_photos,
    photos_of_place,
    ranges_of_place,
)
from vrdir.data.image_cache import decode
from vrdir.model.vrdir import VRDIR


@pytest.fixture(scope="module")
def small() -> VRDIR:
    return VRDIR.from_pretrained("small")


def test_haze_its_colour_and_noise_are_measured(small: VRDIR, photos: Path) -> None:
    clean = [decode(path)[None].float() / 255 for path in sorted(photos.glob("*_2.png"))]

    def measured(name: str, **values: float) -> list[Weather]:
        return [measure(small, vrdir.degrade(photo, name, 1, **values)) for photo in clean]

    def colour(hazy: list[Weather]) -> tuple[float, float]:
        lights = [one.airlight for one in hazy if one.airlight is not None]
        assert len(lights) >= 3
        brightness = mean(sum(light) / 3 for light in lights)
        return brightness, mean(light[0] - light[2] for light in lights)

    assert all(measure(small, photo).noise < 2 for photo in clean)
    assert all(measure(small, photo).transmission > 0.9 for photo in clean)
    bright = measured("haze", beta=1.5, airlight=0.9)
    dim = measured("haze", beta=1.5, airlight=0.6)
    yellow = measured("haze", beta=1.5, airlight=0.9, warmth=1.0)
    assert all(one.transmission < 0.8 for one in bright)
    assert colour(bright)[0] == pytest.approx(0.9, abs=0.15)
    assert colour(dim)[0] < colour(bright)[0] - 0.1
    assert colour(yellow)[1] > colour(bright)[1] + 0.05
    assert [one.noise for one in measured("noise", sigma=25)] == [pytest.approx(25, abs=6)] * 4


def test_thicker_haze_gives_thicker_synthesis(small: VRDIR, photos: Path, tmp_path: Path) -> None:
    betas = []
    for beta in (0.5, 2.0):
        folder = tmp_path / str(beta)
        folder.mkdir()
        for path in sorted(photos.glob("*_0.png")):
            with Image.open(path) as photo:
                vrdir.degrade(photo, "haze", 1, beta=beta).save(folder / path.name)
        ranges = ranges_of_place(measure_photos(photos_of_place(folder), small), ["haze", "noise"])
        assert "noise" not in ranges
        betas.append(ranges["haze"]["beta"])
    assert betas[0][1] < betas[1][1]
    assert betas[0][0] < betas[1][0]


def test_ranges_cover_the_measured_values() -> None:
    seen = [Weather(t, (0.8, 0.8, 0.7), 10.0) for t in (0.4, 0.5, 0.6, 0.7)]
    ranges = ranges_of_place(seen, ["haze", "noise"])
    low, high = ranges["haze"]["airlight"]
    assert low <= sum((0.8, 0.8, 0.7)) / 3 <= high
    assert ranges["haze"]["warmth"][0] < 0.1 / 0.19 < ranges["haze"]["warmth"][1]
    assert ranges["noise"]["sigma"] == (8.0, 12.0)
    assert set(ranges_of_place(seen, ["noise"])) == {"noise"}


def test_clear_photos_do_not_change_the_synthesis() -> None:
    assert ranges_of_place([Weather(1.0, None, 0.4)] * 5, ["haze", "noise"]) == {}


def test_measured_values_are_drawable(small: VRDIR) -> None:
    torch.manual_seed(0)
    dark = measure(small, torch.zeros(1, 3, 40, 40))
    assert ranges_of_place([dark] * 4, ["haze"]) == {}
