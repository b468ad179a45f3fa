"""The strength of the restoration, the choice of degradations, and the diagnosis."""

from typing import Any

import pytest
import torch
from torch import Tensor

import vrdir
from vrdir.model.config import ContextConfig, VRDIRConfig
from vrdir.model.control import Control, checked_control
from vrdir.model.global_context import LEVELS, Veil, lift_whole
from vrdir.model.vrdir import VRDIR, Restoration
from vrdir.restoring.diagnosis import diagnose
from vrdir.restoring.strips import restore_in_strips


@pytest.fixture(scope="module")
def network() -> VRDIR:
    torch.manual_seed(3)
    model = VRDIR(
        VRDIRConfig(
            extractor="efficientnet_lite0",
            strides=(4,),
            branches=("haze", "noise", "rain"),
            clean_branch=True,
            decoder="pixel_skip",
            widths=(8, 8),
            encoder_blocks=(0, 1),
            decoder_blocks=(1, 0),
            context=ContextConfig(side=64, strides=(4, 8), channels=8),
        )
    )
    assert model.context is not None
    torch.nn.init.normal_(model.context.to_gain.weight, 0, 0.2)
    torch.nn.init.constant_(model.context.to_gain.bias, 0.0)
    torch.nn.init.normal_(model.decoder.to_correction.weight, 0, 0.05)
    return model.eval().requires_grad_(False)


@pytest.fixture
def image() -> Tensor:
    return 0.3 + 0.5 * torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(5))


def test_strength_scales_the_change(network: VRDIR, image: Tensor) -> None:
    results = {s: network.restore(image, control=Control(s)).image for s in (0.0, 0.5, 1.0, 2.0)}
    assert torch.equal(results[0.0], image)
    assert torch.equal(results[1.0], network(image))
    changes = [(results[s] - image).abs().mean().item() for s in (0.5, 1.0, 2.0)]
    assert changes == sorted(changes)
    assert changes[0] < 0.75 * changes[1]


def test_only_haze_removes_just_the_veil(network: VRDIR, image: Tensor) -> None:
    veil = network.find_veil(image)
    assert veil is not None
    restored = network.restore(image, control=Control(only=frozenset({"haze"})))
    assert torch.allclose(restored.image, lift_whole(image, veil).clamp(0, 1), atol=1e-6)


def test_only_noise_keeps_the_veil_and_skips_other_branches(network: VRDIR, image: Tensor) -> None:
    control = Control(only=frozenset({"noise"}))
    restored = network.restore(image, control=control)
    assert restored.veil is None
    masked = control.of_guidance(restored.guidance, network.config.branches)[0]
    assert torch.equal(masked[:, [0, 2]], torch.zeros_like(masked[:, [0, 2]]))
    assert torch.allclose(masked.sum(1), torch.ones_like(masked[:, 0]), atol=1e-6)
    assert not torch.equal(restored.image, network(image))


@pytest.mark.parametrize(
    "control",
    [Control(0.4), Control(1.7, frozenset({"noise"})), Control(0.7, frozenset({"haze"}))],
)
def test_strips_have_the_same_control(network: VRDIR, image: Tensor, control: Control) -> None:
    whole = network.restore(image[:1], control=control).image
    in_strips = restore_in_strips(
        network, image[:1], strip_pixels=1024, precision=torch.float32, control=control
    )
    assert torch.allclose(in_strips.image, whole, atol=2e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strength": 2.5}, "strength must be a number from 0 to 2, not 2.5"),
        ({"strength": float("nan")}, "strength"),
        ({"only": {"fog"}}, "from haze, noise, rain; not 'fog'"),
        ({"only": ()}, "not nothing"),
    ],
)
def test_error_names_wrong_control(network: VRDIR, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vrdir.Restorer(network, device="cpu", **settings)


def test_single_name_can_be_a_string() -> None:
    assert checked_control(1, "haze", ("haze", "rain")).only == frozenset({"haze"})


def flat(log_gain: float) -> Veil:
    return Veil(torch.full((1, 3), 0.9), torch.ones(1, 1), torch.full((1, LEVELS, 8, 8), log_gain))


def test_haze_is_the_mean_of_one_minus_the_transmission() -> None:
    hazy = 0.5 * (0.3 + 0.3 * torch.rand(1, 3, 96, 96)) + 0.5 * 0.9
    veil = flat(torch.log(torch.tensor(2.0)).item())
    restored = Restoration(lift_whole(hazy, veil).clamp(0, 1), [], torch.zeros(1, 1), veil)
    (found,) = diagnose(hazy, restored)
    assert found.haze == pytest.approx(0.5, abs=1e-4)
    assert found.noise is not None
    assert found.noise < 0.01
    assert found.rain == 0


@pytest.mark.parametrize("sigma", [5.0, 20.0])
def test_noise_is_in_levels_of_the_input(sigma: float) -> None:
    generator = torch.Generator().manual_seed(0)
    scene = 0.4 + 0.1 * torch.rand(1, 3, 8, 8, generator=generator)
    scene = torch.nn.functional.interpolate(scene, size=(128, 128), mode="bicubic")
    hazy = 0.5 * scene + 0.5 * 0.9
    noisy = hazy + sigma / 255 * torch.randn(hazy.shape, generator=generator)
    veil = flat(torch.log(torch.tensor(2.0)).item())
    (found,) = diagnose(noisy, Restoration(scene, [], torch.zeros(1, 1), veil))
    assert found.noise == pytest.approx(sigma, rel=0.15)
    assert found.rain is not None
    assert found.rain < 0.02


@pytest.mark.parametrize("strength", [0.5, 1.5])
def test_diagnosis_does_not_depend_on_the_strength(
    network: VRDIR, image: Tensor, strength: float
) -> None:
    trained = vrdir.Restorer(network, "cpu").restore(image).diagnosis
    changed = vrdir.Restorer(network, "cpu", strength=strength).restore(image).diagnosis
    assert [one.haze for one in changed] == [one.haze for one in trained]
    assert trained[0].haze is not None
    assert trained[0].haze > 0.01


@pytest.mark.parametrize("strength", [0.5, 1.5])
def test_noise_is_that_of_the_input_at_any_strength(strength: float) -> None:
    generator = torch.Generator().manual_seed(0)
    scene = torch.full((1, 3, 128, 128), 0.5)
    noisy = scene + 10 / 255 * torch.randn(scene.shape, generator=generator)
    restored = noisy + strength * (scene - noisy)
    result = Restoration(restored, [], torch.zeros(1, 1))
    (found,) = diagnose(noisy, result, Control(strength))
    assert found.noise == pytest.approx(10, rel=0.1)


def test_at_strength_0_haze_is_measured_and_noise_is_not(network: VRDIR, image: Tensor) -> None:
    trained = vrdir.Restorer(network, "cpu").restore(image).diagnosis[0]
    found = vrdir.Restorer(network, "cpu", strength=0).restore(image).diagnosis[0]
    assert (found.haze, found.noise, found.rain, found.changed) == (trained.haze, None, None, 0)
    assert str(found) == f"haze {trained.haze:.0%}, changed by 0.0 levels"


def test_rain_is_the_share_of_pixels_under_streaks() -> None:
    scene = torch.full((1, 3, 100, 100), 0.4)
    rainy = scene.clone()
    rainy[..., ::10] += 0.3
    (found,) = diagnose(rainy, Restoration(scene, [], torch.zeros(1, 1)))
    assert found.rain == pytest.approx(0.1)
    assert found.haze is None
    assert found.changed == pytest.approx(0.03 * 255, rel=1e-3)


def test_tiny_image_has_a_diagnosis(network: VRDIR) -> None:
    restored = vrdir.Restorer(network, device="cpu").restore(torch.rand(3, 1, 2))
    assert "changed by" in str(restored.diagnosis[0])
