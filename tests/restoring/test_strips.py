"""Images in strips: the result is the same as for the whole image."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import TINY
from torch import Tensor

import vrdir
from vrdir.model.config import BASE, PAPER, ContextConfig, VRDIRConfig
from vrdir.model.global_statistics import SmoothedLevels
from vrdir.model.vrdir import VRDIR
from vrdir.restoring import network as network_module
from vrdir.restoring.strips import restore_in_strips

HALF_PRECISION = 2e-3  # of pixels in [0, 1]: half a level of 8 bits, with these wild weights


def network(config: VRDIRConfig) -> VRDIR:
    """With random weights everywhere: fresh blocks are the identity, fresh attention is 1."""
    torch.manual_seed(0)
    model = VRDIR(config).eval()
    with torch.no_grad():
        for parameter in [*model.enhancement.parameters(), *model.decoder.parameters()]:
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


NETWORKS = {
    "tiny": network(TINY),
    "no attention": network(
        TINY.model_copy(
            update={"channel_attention": False, "decoder_blocks": (2, 1, 0), "branch_blocks": 2}
        )
    ),
    "base": network(BASE),
    "veil": network(
        TINY.model_copy(update={"context": ContextConfig(side=64, strides=(4, 8), channels=8)})
    ),
    "paper": network(PAPER),
}


def picture(height: int, width: int) -> Tensor:
    """Unevenly bright, so that every part differs from the whole."""
    torch.manual_seed(height * 1000 + width)
    return (
        torch.linspace(0, 0.8, height).view(-1, 1) + 0.2 * torch.rand(1, 3, height, width)
    ).contiguous()


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(height=st.integers(17, 200), width=st.integers(17, 90), strip_rows=st.integers(1, 80))
def test_any_size_in_any_strips(name: str, height: int, width: int, strip_rows: int) -> None:
    model, image = NETWORKS[name], picture(height, width)
    with torch.no_grad():
        whole = model.restore(image)
    parts = restore_in_strips(
        model, image, strip_pixels=strip_rows * width, precision=torch.float32
    )
    assert parts.image.shape == image.shape
    torch.testing.assert_close(parts.image, whole.image, atol=1e-4, rtol=0)
    torch.testing.assert_close(parts.shares, whole.shares, atol=3e-5, rtol=0)
    for guidance, of_whole in zip(parts.guidance, whole.guidance, strict=True):
        torch.testing.assert_close(guidance, of_whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (9, 1), (16, 5), (40, 1)])
def test_smallest_images(size: tuple[int, int]) -> None:
    model, image = NETWORKS["no attention"], picture(*size)
    with torch.no_grad():
        whole = model.restore(image).image
    torch.testing.assert_close(
        restore_in_strips(model, image, strip_pixels=1).image, whole, atol=5e-3, rtol=0
    )


def test_half_precision_differs_little() -> None:
    model, image = NETWORKS["tiny"], picture(170, 130)
    with torch.no_grad():
        whole = model.restore(image).image
    parts = restore_in_strips(model, image, strip_pixels=2000).image
    assert 0 < (parts - whole).abs().amax() < HALF_PRECISION


def test_separately_restored_halves_differ() -> None:
    model, image = NETWORKS["tiny"], picture(160, 64)
    with torch.no_grad():
        whole = model.restore(image).image
        halves = torch.cat([model.restore(half).image for half in image.split(80, 2)], 2)
    assert (halves - whole).abs().amax() > 10 * HALF_PRECISION


def test_smoothed_levels_are_used() -> None:
    model = NETWORKS["tiny"]
    in_one, in_strips = SmoothedLevels(0.8), SmoothedLevels(0.8)
    for brightness in (1.0, 0.6, 0.3):  # the past has a say from the second on
        image = picture(130, 70) * brightness
        in_one.next_frame()
        in_strips.next_frame()
        with torch.no_grad():
            whole, alone = model.restore(image, statistics=in_one), model.restore(image)
        parts = restore_in_strips(model, image, statistics=in_strips, strip_pixels=70 * 32)
        torch.testing.assert_close(parts.image, whole.image, atol=HALF_PRECISION, rtol=0)
    assert (whole.image - alone.image).abs().amax() > 2 * HALF_PRECISION


def test_skip_clean() -> None:
    model, image = NETWORKS["tiny"], picture(100, 80)
    share = float(restore_in_strips(model, image).shares[0, -1])
    assert restore_in_strips(model, image, skip_clean=share * 0.9).image is image
    assert not torch.equal(
        restore_in_strips(model, image, skip_clean=min(share * 1.1, 1)).image, image
    )


def test_one_image_at_a_time() -> None:
    with pytest.raises(ValueError, match="expected one image, not a batch of 2"):
        restore_in_strips(NETWORKS["tiny"], torch.rand(2, 3, 32, 32))
    with pytest.raises(ValueError, match="expected an RGB tensor"):
        restore_in_strips(NETWORKS["tiny"], torch.rand(1, 1, 32, 32))


def test_restorer_processes_large_images_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    restorer = vrdir.Restorer(NETWORKS["tiny"], device="cpu")
    batch = torch.cat([picture(90, 70), 1 - picture(90, 70)])
    whole = restorer.restore(batch)
    calls = []

    def counted(model: VRDIR, image: Tensor, *arguments: object, **named: object) -> object:
        calls.append(image.shape)
        return restore_in_strips(model, image, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(network_module, "WHOLE_PIXELS", 90 * 70 - 1)
    monkeypatch.setattr(network_module, "restore_in_strips", counted)
    parts = restorer.restore(batch)
    assert calls == [(1, 3, 90, 70)] * 2
    np.testing.assert_allclose(parts.image, whole.image, atol=HALF_PRECISION)
    for of_parts, of_whole in zip(parts.shares, whole.shares, strict=True):
        assert of_parts == pytest.approx(of_whole, abs=1e-5)
