"""Degradations as text, on images of any kind, with the depth a caller has."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import vrdir
from vrdir.degradations.degrade import apply_degradation, apply_steps
from vrdir.degradations.depth_maps import open_depth
from vrdir.degradations.parameters import shown
from vrdir.degradations.registry import DEGRADATIONS
from vrdir.degradations.steps import Step, parse_degradations


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_text_is_parsed_into_steps_in_order() -> None:
    assert parse_degradations("haze:beta=1.2,airlight=0.8..0.9") == [
        Step("haze", {"beta": 1.2, "airlight": (0.8, 0.9)}, None)
    ]
    assert parse_degradations("jpeg:subsampling=1+snow:severity=3 + noise:sigma=1e+1") == [
        Step("jpeg", {"subsampling": 1}, None),
        Step("snow", {}, 3),
        Step("noise", {"sigma": 10.0}, None),
    ]
    for name in DEGRADATIONS:
        assert parse_degradations(name) == [Step(name, {}, None)]


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_shown_values_can_be_parsed(name: str, photo_batch: Tensor) -> None:
    defaults = DEGRADATIONS[name].defaults
    text = f"{name}:" + ",".join(f"{key}={shown(value)}" for key, value in defaults.items())
    expected = apply_degradation(photo_batch, name, seeded()).image
    assert torch.equal(apply_steps(photo_batch, parse_degradations(text), seeded()), expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fog", "unknown degradation 'fog'; choose (one of|from) haze, night_haze"),
        ("", "unknown degradation ''"),
        ("haze+", "unknown degradation ''"),
        ("haze:sigma=3", r"haze accepts beta=0.4..2.6, .*, or severity=1 to 5; not 'sigma=3'"),
        ("haze:beta", "not 'beta'"),
        ("haze:depth=1", "haze:depth must be one of smooth, regions, mixed, not '1'"),
        (
            "noise:sigma=loud",
            "noise:sigma must be a number, or a range such as 0.5..1.5, not 'loud'",
        ),
        ("noise:sigma=1..2..3", "noise:sigma must be a number"),
        ("noise:severity=6", "noise:severity must be a whole number from 1 to 5, not '6'"),
        ("noise:severity=1..2", "noise:severity must be a whole number"),
        ("rain:layers=2..3", "rain:layers must be one whole number"),
        ("rain:layers=2.5", "rain:layers must be one whole number"),
        ("haze:colour_cast=0.01..0.02", "haze:colour_cast must be one number"),
        ("haze+noise:sigma=x", "noise:sigma must be a number"),
    ],
)
def test_error_names_wrong_text(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_degradations(text)


def test_steps_are_applied_one_after_the_other(photo_batch: Tensor) -> None:
    generator = seeded(3)
    hazy = apply_degradation(photo_batch, "haze", generator, severity=2).image
    expected = apply_degradation(hazy, "noise", generator, sigma=25.0).image
    steps = parse_degradations("haze:severity=2+noise:sigma=25")
    assert torch.equal(apply_steps(photo_batch, steps, seeded(3)), expected)
    turned = apply_steps(photo_batch, steps[::-1], seeded(3))
    assert not torch.equal(turned, expected)
    each = apply_steps(photo_batch, steps, [seeded(1), seeded(2)])
    assert torch.equal(each[1:], apply_steps(photo_batch[1:], steps, [seeded(2)]))


def test_degrade_returns_the_type_of_its_input(photo: Image.Image) -> None:
    hazy = vrdir.degrade(photo, "haze", seed=1, beta=1.2)
    assert isinstance(hazy, Image.Image)
    assert (hazy.size, hazy.mode) == (photo.size, photo.mode)
    array = vrdir.degrade(np.asarray(photo), "haze", seed=1, beta=1.2)
    assert np.array_equal(array, np.asarray(hazy))
    assert np.array_equal(vrdir.degrade(np.asarray(photo), "haze:beta=1.2", seed=1), array)


def test_grey_images_get_the_requested_noise() -> None:
    grey = np.full((200, 200), 128, np.uint8)
    noisy = vrdir.degrade(grey, "noise", seed=0, sigma=25.0)
    assert noisy.shape == (200, 200)
    assert float(noisy.astype(float).std()) == pytest.approx(25, rel=0.03)


def test_severity_applies_to_steps_without_their_own(photo: Image.Image) -> None:
    array = np.asarray(photo)
    assert np.array_equal(
        vrdir.degrade(array, "haze+noise:severity=1", severity=4),
        vrdir.degrade(array, "haze:severity=4+noise:severity=1"),
    )
    assert not np.array_equal(
        vrdir.degrade(array, "haze", severity=4), vrdir.degrade(array, "haze", severity=3)
    )
    with pytest.raises(ValueError, match="a severity must be a whole number from 1 to 5, not 7"):
        vrdir.degrade(array, "haze", severity=7)
    with pytest.raises(
        ValueError,
        match="parameters of several degradations must be in the text, such as haze:beta=",
    ):
        vrdir.degrade(array, "haze+noise", beta=1.0)


def test_depth_of_any_type_is_accepted(photo: Image.Image, tmp_path: Path) -> None:
    width, height = photo.size
    levels = np.tile(np.linspace(0, 255, height).round().astype(np.uint8)[:, None], (1, width))
    exact = levels.astype(np.float32) / 255
    sixteen = levels.astype(np.uint16) * 257
    np.save(tmp_path / "depth.npy", exact)
    Image.fromarray(sixteen).save(tmp_path / "depth.png")
    image = np.asarray(photo)
    expected = vrdir.degrade(image, "haze", seed=2, beta=2.0, depth=exact)
    kinds: list[Any] = [
        levels,
        torch.from_numpy(exact),
        exact[None],
        sixteen,
        Image.fromarray(levels),
        tmp_path / "depth.npy",
        str(tmp_path / "depth.png"),
    ]
    for depth in kinds:
        assert np.array_equal(vrdir.degrade(image, "haze", seed=2, beta=2.0, depth=depth), expected)
    assert np.array_equal(expected[0], image[0])  # the top is near here
    assert np.abs(expected[-1].astype(int) - image[-1]).mean() > 30
    assert not np.array_equal(vrdir.degrade(image, "haze", seed=2, beta=2.0), expected)
    # Of several steps those that know what to do with it get it.
    assert np.array_equal(
        vrdir.degrade(image, "noise:sigma=0+haze:beta=2", seed=2, depth=exact)[0], image[0]
    )
    assert vrdir.degrade(image, "night_haze", depth=exact).shape == image.shape


@pytest.mark.parametrize(
    ("depth", "message"),
    [
        (
            np.zeros((3, 4), np.float32),
            r"the depth has the shape \(3, 4\); it must have the image's size, \(75, 97\)",
        ),
        (np.full((75, 97), np.nan), "negative or infinite values or NaN"),
        (np.full((75, 97), -0.1), "negative"),
        (
            np.zeros((75, 97), np.int64),
            "of int64; a depth map must be uint8, uint16 or floating point",
        ),
        (Image.new("RGB", (97, 75)), "is a RGB picture; a depth map must be grey"),
        ("no_such.npy", "no_such.npy is not an array that can be read"),
        ("no_such.png", "no_such.png does not exist"),
    ],
)
def test_error_names_wrong_depth(depth: Any, message: str, photo: Image.Image) -> None:
    with pytest.raises(ValueError, match=message):
        vrdir.degrade(photo, "haze", depth=depth)


@pytest.mark.parametrize("level", [-1, 65536])
def test_depth_picture_of_integers_does_not_wrap(
    level: int, photo: Image.Image, tmp_path: Path
) -> None:
    Image.fromarray(np.full((photo.height, photo.width), level, np.int32)).save(
        tmp_path / "depth.tif"
    )
    with pytest.raises(
        ValueError,
        match=rf"depth\.tif ranges from {level} to {level}; an integer image must be in 0 to 65535",
    ):
        vrdir.degrade(photo, "haze", depth=tmp_path / "depth.tif")


def test_depth_without_effect_raises(photo: Image.Image) -> None:
    with pytest.raises(
        ValueError, match="has an effect on haze and night_haze only, not on rain, noise"
    ):
        vrdir.degrade(photo, "rain+noise", depth=np.zeros((75, 97), np.float32))


def test_one_depth_serves_a_batch(photo_batch: Tensor) -> None:
    depth = open_depth(np.zeros((75, 97), np.float32), photo_batch)
    assert depth.shape == (1, 1, 75, 97)
    assert torch.equal(
        apply_degradation(photo_batch, "haze", seeded(), depth=depth).image, photo_batch
    )
