"""Properties of every degradation: seeds, batches, sizes, severities and errors."""

import itertools
import math
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from torch import Tensor

import vrdir
from vrdir.degradations.degrade import apply_degradation
from vrdir.degradations.draws import Draws
from vrdir.degradations.registry import DEGRADATIONS, can_meet
from vrdir.degradations.steps import parameters_of


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def astronaut() -> Tensor:
    """A sharp photo of many colours, (1, 3, 160, 160)."""
    photo = (
        Image.open(Path(skimage.data.__file__).parent / "astronaut.png")
        .convert("RGB")
        .crop((100, 20, 420, 340))
        .resize((160, 160))
    )
    return torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None] / 255


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_same_seed_same_pixels(name: str, photo_batch: Tensor) -> None:
    before = photo_batch.clone()
    one, two, other = (
        apply_degradation(photo_batch, name, seeded(seed)).image for seed in (3, 3, 4)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert one.shape == photo_batch.shape
    assert 0 <= float(one.min()) <= float(one.max()) <= 1
    assert torch.equal(photo_batch, before)


@pytest.mark.parametrize("name", DEGRADATIONS)
@pytest.mark.parametrize("severity", [None, 4])
def test_image_with_its_own_generator_does_not_depend_on_its_batch(
    name: str, severity: int | None, photo_batch: Tensor
) -> None:
    batch = torch.cat([photo_batch, photo_batch.flip(3)])
    together = apply_degradation(
        batch, name, [seeded(seed) for seed in (5, 6, 7, 5)], severity=severity
    )
    for row, seed in enumerate((5, 6, 7, 5)):
        alone = apply_degradation(batch[row : row + 1], name, [seeded(seed)], severity=severity)
        # A Fourier transform of a batch rounds differently, and JPEG may round that to a level.
        torch.testing.assert_close(together.image[row : row + 1], alone.image, rtol=0, atol=1e-6)
        for key, value in alone.parameters.items():
            assert torch.equal(together.parameters[key][row : row + 1], value), key
    assert not torch.equal(together.image[0], together.image[1])


def test_number_of_generators_matches_images(photo_batch: Tensor) -> None:
    with pytest.raises(
        ValueError, match="use one generator, or one for each of the 2 images, not 3"
    ):
        apply_degradation(photo_batch, "noise", [seeded(), seeded(), seeded()])


@pytest.mark.parametrize("name", DEGRADATIONS)
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 1, 1), (3, 17, 33), (1, 40, 1)])
def test_any_size_is_restored(name: str, batch: int, height: int, width: int) -> None:
    image = torch.rand(batch, 3, height, width, generator=seeded())
    for severity in (None, 5):
        degraded = apply_degradation(image, name, seeded(), severity=severity).image
        assert degraded.shape == image.shape
        assert torch.isfinite(degraded).all()


@pytest.mark.parametrize("name", [name for name in DEGRADATIONS if name != "low_resolution"])
def test_all_tensors_are_on_the_images_device(name: str) -> None:
    # A tensor on the processor cannot be combined with one on the device "meta";
    # low_resolution needs its sizes as numbers.
    image = torch.empty(2, 3, 24, 32, device="meta")
    for severity in (None, 5):
        ranges = (
            {}
            if severity is None
            else {key: values[4] for key, values in DEGRADATIONS[name].severities.items()}
        )
        assert DEGRADATIONS[name](image, seeded(), **ranges).image.device.type == "meta"


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_drawn_parameters_are_returned_for_each_image(name: str, photo_batch: Tensor) -> None:
    drawn = apply_degradation(photo_batch, name, seeded()).parameters
    ranges = {key for key, default in parameters_of(name).items() if isinstance(default, tuple)}
    assert drawn.keys() == ranges
    for key, value in drawn.items():
        assert value.shape == ((2, 3) if key == "airlight" else (2,)), key
        low, high = parameters_of(name)[key]
        slack = 0.031 if key == "airlight" and name == "haze" else 1e-5 * max(1, abs(high))
        floor = (
            low * 0.5 if key == "airlight" else low
        )  # night's is coloured: of its brightness or below
        assert floor - slack <= float(value.min()) <= float(value.max()) <= high + slack, key


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_damage_rises_with_severity(name: str, astronaut: Tensor) -> None:
    errors = []
    for severity in range(1, 6):
        degraded = apply_degradation(astronaut, name, seeded(2), severity=severity).image
        errors.append(float((degraded - astronaut).square().mean()))
    psnr = [-10 * math.log10(error) for error in errors]
    assert all(milder > worse for milder, worse in itertools.pairwise(psnr)), psnr
    assert psnr[0] - psnr[4] > 3


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_presets_name_parameters(name: str, photo_batch: Tensor) -> None:
    degradation = DEGRADATIONS[name]
    for presets in (degradation.severities, degradation.milder):
        assert presets.keys() <= parameters_of(name).keys()
        assert presets
    degradation(photo_batch, seeded(), **degradation.milder)
    for severity in (0, 6, 2.5, "3"):
        with pytest.raises(ValueError, match="whole number from 1 to 5"):
            apply_degradation(photo_batch, name, seeded(), severity=severity)


def test_ranges_override_the_severity(photo_batch: Tensor) -> None:
    drawn = apply_degradation(photo_batch, "haze", seeded(), severity=5, beta=0.25).parameters
    assert torch.equal(drawn["beta"], torch.full((2,), 0.25))


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_every_parameter_is_checked_by_name(name: str, photo_batch: Tensor) -> None:
    for key, default in parameters_of(name).items():
        if default is None:
            continue
        for value in (math.nan, "much", (1.0, 0.0, 2.0), 1e9, -1e9):
            with pytest.raises(ValueError, match=key):
                apply_degradation(photo_batch, name, seeded(), **{key: value})


@pytest.mark.parametrize(
    ("name", "parameter", "value", "message"),
    [
        ("noise", "sigma", (20.0, 10.0), "sigma must go from low to high"),
        ("noise", "sigma", -20.0, "sigma must be between 0 and 255"),
        ("noise", "sigma", math.nan, "sigma must be a number"),
        ("noise", "sigma", "loud", "sigma must be a number"),
        ("haze", "beta", (0.5, math.inf), "beta must be a number"),
        ("haze", "airlight", 2.0, "airlight must be between 0 and 1"),
        ("rain", "coverage", (0.0, 0.1), "coverage must be between"),
        ("rain", "layers", 0, "layers must be between 1 and 10"),
        ("jpeg", "subsampling", 4, "subsampling must be between 1 and 2"),
        ("sensor_noise", "electrons", 0.0, "electrons must be between 1 and 1e"),
    ],
)
def test_error_names_invalid_parameters(
    name: str, parameter: str, value: Any, message: str, photo_batch: Tensor
) -> None:
    with pytest.raises(ValueError, match=message):
        apply_degradation(photo_batch, name, seeded(), **{parameter: value})


def test_unknown_names_raise(photo_batch: Tensor) -> None:
    with pytest.raises(
        ValueError,
        match="unknown degradation 'fog'; choose (one of|from) haze, night_haze, rain, snow",
    ):
        apply_degradation(photo_batch, "fog", seeded())
    with pytest.raises(ValueError, match="noise has no parameter beta; it has sigma"):
        apply_degradation(photo_batch, "noise", seeded(), beta=1.0)


def test_degradations_are_in_physical_order() -> None:
    expected = [
        "haze", "night_haze", "rain", "snow", "raindrops", "defocus_blur", "motion_blur",
        "low_resolution", "low_light", "noise", "sensor_noise", "jpeg",
    ]  # fmt: skip
    assert [name for name in DEGRADATIONS if name in expected] == expected
    places = [one.place for one in DEGRADATIONS.values()]
    assert places == sorted(places)  # type: ignore[type-var]
    assert not can_meet("rain", "snow")
    assert can_meet("haze", "rain")
    excluded = {name for one in DEGRADATIONS.values() for name in one.never_with}
    assert excluded <= DEGRADATIONS.keys()


def test_range_can_be_a_list(photo_batch: Tensor) -> None:
    drawn = apply_degradation(photo_batch, "noise", seeded(), sigma=[10, 12]).parameters["sigma"]
    assert 10 <= float(drawn.min()) <= float(drawn.max()) <= 12


def test_clouds_are_centred_and_bounded() -> None:
    clouds = Draws(torch.zeros(40, 3, 30, 40), seeded()).clouds()
    assert clouds.shape == (40, 1, 30, 40)
    assert 0 <= float(clouds.min()) <= float(clouds.max()) <= 1
    assert float(clouds.mean()) == pytest.approx(0.5, abs=0.05)
    assert float(clouds.std((2, 3)).min()) > 0.03


def test_tables_of_the_docs_are_up_to_date() -> None:
    root = Path(__file__).parents[2]
    tool = runpy.run_path(str(root / "tools" / "document_degradations.py"))
    text = (root / "docs" / "degradations.md").read_text()
    assert tool["page"](text) == text, "run python tools/document_degradations.py"


def test_numbers_of_any_type_and_values_that_are_no_numbers(photo: Image.Image) -> None:
    plain = np.asarray(vrdir.degrade(photo, "haze", seed=3, beta=1.25))
    assert np.array_equal(
        np.asarray(vrdir.degrade(photo, "haze", seed=np.int64(3), beta=np.float32(1.25))), plain
    )
    severe = np.asarray(vrdir.degrade(photo, "noise", severity=2))
    assert np.array_equal(np.asarray(vrdir.degrade(photo, "noise", severity=np.int64(2))), severe)
    assert np.array_equal(np.asarray(vrdir.degrade(photo, "noise", severity=2.0)), severe)
    with pytest.raises(ValueError, match="a seed must be a whole number, not 1.5"):
        vrdir.degrade(photo, "noise", seed=1.5)  # type: ignore[arg-type]
    for name, parameter, value in (
        ("rain", "layers", (2, 6)),
        ("haze", "colour_cast", (0, 0.3)),
        ("rain", "clear_air", (0.0, 1.0)),
    ):
        with pytest.raises(ValueError, match=f"{parameter} must be one number for all images"):
            vrdir.degrade(photo, name, **{parameter: value})
    for name, parameter, value in (("snow", "layers", 2.9), ("jpeg", "subsampling", 1.5)):
        with pytest.raises(ValueError, match=f"{parameter} must be a whole number"):
            vrdir.degrade(photo, name, **{parameter: value})


def test_depth_of_either_byte_order(photo: Image.Image, tmp_path: Path) -> None:
    depth = np.linspace(0, 1, 75 * 97, dtype=np.float32).reshape(75, 97)
    expected = np.asarray(vrdir.degrade(photo, "haze", depth=depth))
    assert np.array_equal(
        np.asarray(vrdir.degrade(photo, "haze", depth=depth.astype(">f4"))), expected
    )
    whole = np.round(depth * 65535).astype(np.uint16)
    expected = np.asarray(vrdir.degrade(photo, "haze", depth=whole.astype(np.float32) / 65535))
    for order in ("<u2", ">u2"):
        Image.frombytes(
            "I;16B" if order == ">u2" else "I;16", (97, 75), whole.astype(order).tobytes()
        ).save(tmp_path / "depth.tif")
        assert np.array_equal(
            np.asarray(vrdir.degrade(photo, "haze", depth=whole.astype(order))), expected
        )
        assert np.array_equal(
            np.asarray(vrdir.degrade(photo, "haze", depth=tmp_path / "depth.tif")), expected
        )
