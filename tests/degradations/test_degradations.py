"""Degradations: the formula of the docstring is the formula of the code, and the seed decides the pixels."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vrdir
from vrdir.degradations.degrade import apply_degradation
from vrdir.degradations.draws import Draws
from vrdir.degradations.haze import depth_field, haze
from vrdir.degradations.mixture import CLEAN, DEGRADATIONS, MIXED, degrade_mixture
from vrdir.degradations.noise import noise
from vrdir.degradations.rain import rain, streak_layer


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_same_seed_same_pixels(name: str, photo_batch: torch.Tensor) -> None:
    one, two, other = (apply_degradation(photo_batch, name, seeded(seed)).image for seed in (3, 3, 4))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert one.shape == photo_batch.shape
    assert 0 <= float(one.min()) <= float(one.max()) <= 1


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_what_was_drawn_is_returned_for_each_image(name: str, photo_batch: torch.Tensor) -> None:
    drawn = apply_degradation(photo_batch, name, seeded()).parameters
    assert drawn
    for key, value in drawn.items():
        assert value.shape[0] == 2, key
        limits = DEGRADATIONS[name].__kwdefaults__[key]
        slack = 0.03 if key == "airlight" else 1e-5
        assert limits[0] - slack <= float(value.min()) <= float(value.max()) <= limits[1] + slack


def test_haze_is_atmospheric_scattering(photo_batch: torch.Tensor) -> None:
    depth = torch.linspace(0, 1, 75).view(1, 1, 75, 1).expand(2, 1, 75, 97)
    result = haze(photo_batch, seeded(), beta=1.5, depth=depth)
    assert torch.allclose(result.parameters["beta"], torch.tensor(1.5))
    transmission = torch.exp(-1.5 * depth)
    airlight = result.parameters["airlight"].view(2, 3, 1, 1)
    torch.testing.assert_close(result.image, photo_batch * transmission + airlight * (1 - transmission))
    torch.testing.assert_close(result.image[:, :, 0], photo_batch[:, :, 0])  # nothing at depth 0


def test_depth_is_plausible(photo_batch: torch.Tensor) -> None:
    depth = torch.cat([depth_field(Draws(photo_batch, seeded(seed))) for seed in range(50)])
    assert depth.shape == (100, 1, 75, 97)
    assert 0 <= float(depth.min()) <= float(depth.max()) <= 1.5
    upwards = (depth[:, 0, 0].mean(1) > depth[:, 0, -1].mean(1)).float().mean()
    assert float(upwards) > 0.7  # outdoors the far is above


def test_noise_has_its_sigma() -> None:
    grey = torch.full((2, 3, 200, 200), 0.5)
    for sigma in (5.0, 25.0, 50.0):
        result = noise(grey, seeded(), sigma=sigma)
        assert float(result.image.std() * 255) == pytest.approx(sigma, rel=0.01)
        assert float(result.image.mean()) == pytest.approx(0.5, abs=1e-3)


def test_rain_covers_about_what_it_says_and_only_brightens_the_dark() -> None:
    dark = torch.zeros(4, 3, 128, 128)
    for coverage in (0.05, 0.2):
        result = rain(dark, seeded(), coverage=coverage, length_px=20.0, opacity=0.8, veil=0.0)
        covered = float((result.image[:, 0] > 0.15).float().mean())
        assert coverage / 2.5 < covered < coverage * 2.5
        assert float(result.image.min()) > -1e-5


def test_streaks_lie_along_the_wind() -> None:
    image = torch.zeros(1, 3, 128, 128)
    one = torch.ones(1, 1, 1, 1)
    for degrees in (0.0, 30.0):
        layer = streak_layer(Draws(image, seeded()), 0.05 * one, 40 * one, 1.5 * one, degrees * one)[0, 0].numpy()
        rows, columns = np.gradient(layer)
        # The structure tensor's weak direction is the streaks'.
        tensor = np.array([[(columns**2).sum(), (columns * rows).sum()], [(columns * rows).sum(), (rows**2).sum()]])
        along = np.linalg.eigh(tensor)[1][:, 0]
        angle = np.degrees(np.arctan2(along[0], along[1]))
        assert (angle - degrees + 90) % 180 - 90 == pytest.approx(0, abs=4)


def test_a_mixture_says_what_is_in_each_image(photo_batch: torch.Tensor) -> None:
    names = ("noise", "rain", "haze")
    batch = photo_batch.repeat(20, 1, 1, 1)
    mixture = degrade_mixture(batch, {CLEAN: 1, MIXED: 1, "rain": 1}, names, seeded())
    assert mixture.image.shape == batch.shape
    assert torch.equal(mixture.image, (mixture.image * 255).round() / 255)
    assert set(mixture.kinds) == {CLEAN, MIXED, "rain"}
    for kind, present, image, clean in zip(mixture.kinds, mixture.present, mixture.image, batch, strict=True):
        if kind == CLEAN:
            assert not present.any()
            assert torch.equal(image, clean)
        elif kind == MIXED:
            assert int(present.sum()) >= 2
        else:
            assert present.tolist() == [False, True, False]


def test_unknown_names_are_errors(photo_batch: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="unknown degradation 'snow'; there are haze, rain, noise"):
        apply_degradation(photo_batch, "snow", seeded())
    with pytest.raises(ValueError, match="noise has no parameter beta; it has sigma"):
        apply_degradation(photo_batch, "noise", seeded(), beta=1.0)
    with pytest.raises(ValueError, match="unknown degradation fog"):
        degrade_mixture(photo_batch, {"fog": 1}, ("haze",), seeded())


@pytest.mark.parametrize(
    ("name", "parameter", "value", "message"),
    [
        ("noise", "sigma", (20.0, 10.0), "sigma goes from low to high"),
        ("noise", "sigma", -20.0, "sigma lies between 0 and 255"),
        ("noise", "sigma", math.nan, "sigma is a number"),
        ("noise", "sigma", "loud", "sigma is a number"),
        ("haze", "beta", (0.5, math.inf), "beta is a number"),
        ("haze", "airlight", 2.0, "airlight lies between 0 and 1"),
        ("rain", "coverage", (0.0, 0.1), "coverage lies between"),
        ("rain", "layers", 0, "layers lies between 1 and 10"),
    ],
)
def test_parameters_that_cannot_be_are_named(name: str, parameter: str, value: Any, message: str, photo_batch: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=message):
        apply_degradation(photo_batch, name, seeded(), **{parameter: value})


def test_a_range_may_be_a_list(photo_batch: torch.Tensor) -> None:
    drawn = apply_degradation(photo_batch, "noise", seeded(), sigma=[10, 12]).parameters["sigma"]  # type: ignore[arg-type]
    assert 10 <= float(drawn.min()) <= float(drawn.max()) <= 12


def test_grey_images_get_the_noise_asked_for() -> None:
    grey = np.full((200, 200), 128, np.uint8)
    noisy = vrdir.degrade(grey, "noise", seed=0, sigma=25.0)
    assert noisy.shape == (200, 200)
    assert float(noisy.astype(float).std()) == pytest.approx(25, rel=0.03)


def test_the_public_degrade_gives_back_what_it_was_given(photo: Image.Image) -> None:
    hazy = vrdir.degrade(photo, "haze", seed=1, beta=1.2)
    assert isinstance(hazy, Image.Image)
    assert (hazy.size, hazy.mode) == (photo.size, photo.mode)
    array = vrdir.degrade(np.asarray(photo), "haze", seed=1, beta=1.2)
    assert np.array_equal(array, np.asarray(hazy))
