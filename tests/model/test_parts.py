"""The parts of the network compute their formulas, which are written again in NumPy here."""

import numpy as np
import pytest
import torch
from torch import nn

from vrdir.model.blocks import ResidualBlock
from vrdir.model.degradation_normalization import DegradationNormalization
from vrdir.model.fourier_modulation import FourierGuidedModulation
from vrdir.model.intrinsic_extractor import Tap
from vrdir.model.semantics_decoder import PixelSkipDecoder, SemanticsDecoder
from vrdir.model.semantics_enhancement import SemanticsEnhancement


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_dnc_computes_its_formula() -> None:
    torch.manual_seed(0)
    branch = DegradationNormalization(8)
    with torch.no_grad():
        branch.gamma.normal_(1, 0.3)
        branch.beta.normal_(0, 0.3)
    features = torch.randn(2, 8, 5, 7)
    f = features.double().numpy()
    gamma, beta = (p.detach().double().numpy() for p in (branch.gamma, branch.beta))
    normalized = (
        gamma * (f - f.mean((2, 3), keepdims=True)) / (np.sqrt(f.var((2, 3), keepdims=True) + 1e-5))
        + beta
    )
    pooled = np.concatenate([f, normalized], 1).mean((2, 3))  # (2, 16)
    w_in, b_in = (p.detach().double().numpy() for p in branch.squeeze.parameters())
    w_out, b_out = (p.detach().double().numpy() for p in branch.excite.parameters())
    hidden = np.maximum(pooled @ w_in[:, :, 0, 0].T + b_in, 0)
    weights = sigmoid(hidden @ w_out[:, :, 0, 0].T + b_out)[:, :, None, None]
    expected = weights[:, :8] * f + weights[:, 8:] * normalized
    np.testing.assert_allclose(branch(features).detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (4, 4)])
def test_dnc_is_finite_on_constant_features(size: tuple[int, int]) -> None:
    branch = DegradationNormalization(4)
    features = torch.full((1, 4, *size), 0.3, requires_grad=True)
    branch(features).sum().backward()
    assert torch.isfinite(branch(features)).all()
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()


@pytest.mark.parametrize("size", [(6, 8), (5, 7), (6, 7), (1, 1)])
def test_fgm_computes_its_formula(size: tuple[int, int]) -> None:
    torch.manual_seed(1)
    modulation = FourierGuidedModulation(3, 4)
    features = torch.randn(2, 3, *size)
    spectrum = np.fft.rfft2(features.double().numpy(), norm="ortho")
    weight, bias = (p.detach().double().numpy() for p in modulation.amplitude.parameters())
    amplitude = (
        np.einsum("oc,bchw->bohw", weight[:, :, 0, 0], np.abs(spectrum)) + bias[None, :, None, None]
    )
    semantics = np.fft.irfft2(amplitude * np.exp(1j * np.angle(spectrum)), s=size, norm="ortho")
    logits = modulation.guidance(torch.from_numpy(semantics).float())
    guidance = modulation(features)
    assert guidance.shape == (2, 4, *size)
    torch.testing.assert_close(guidance, logits.softmax(1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(guidance.sum(1), torch.ones(2, *size))


def test_ise_mixes_its_branches_by_the_guidance() -> None:
    torch.manual_seed(2)
    ise = SemanticsEnhancement(6, ("haze", "noise"), branch_blocks=1, clean_branch=True)
    features = torch.randn(2, 6, 5, 4)
    mixed, guidance = ise(features)
    expected = guidance[:, :1] * ise.branches["haze"](features) + guidance[:, 1:2] * ise.branches[
        "noise"
    ](features)
    torch.testing.assert_close(mixed, expected + guidance[:, 2:] * features)


@pytest.mark.parametrize("attention", [False, True])
def test_new_residual_block_is_the_identity(attention: bool) -> None:
    x = torch.randn(1, 4, 6, 6)
    assert torch.equal(ResidualBlock(4, attention)(x), x)


def test_channel_attention_computes_its_formula_and_starts_at_one() -> None:
    torch.manual_seed(3)
    x = torch.randn(2, 4, 7, 5)
    plain, attending = ResidualBlock(4), ResidualBlock(4, attention=True)
    for block in (plain, attending):
        nn.init.normal_(block.project.weight)
    attending.load_state_dict(plain.state_dict(), strict=False)
    torch.testing.assert_close(attending(x), plain(x))
    assert attending.attend is not None
    weight, bias = (nn.init.normal_(p) for p in attending.attend.parameters())
    hidden = torch.relu(attending.expand(x))
    logits = hidden.mean((2, 3)) @ weight[:, :, 0, 0].T + bias
    scaled = hidden * (2 / (1 + torch.exp(-logits)))[:, :, None, None]
    torch.testing.assert_close(attending(x), x + attending.project(scaled))


def test_untrained_pixel_skip_decoder_returns_the_image() -> None:
    taps = (Tap(4, 6),)
    decoder = PixelSkipDecoder(taps, (8, 8), (1, 1), (1, 1))
    image = torch.rand(1, 3, 8, 12)
    assert torch.equal(decoder([torch.randn(1, 6, 2, 3)], image), image)


def test_decoders_reject_unsuitable_taps() -> None:
    with pytest.raises(ValueError, match="one map of stride 2"):
        SemanticsDecoder((Tap(4, 8),))
    with pytest.raises(ValueError, match="stride \\[16\\]"):
        PixelSkipDecoder((Tap(16, 8),), (8, 8), (1, 1), (1, 1))
    with pytest.raises(ValueError, match="same number of scales"):
        PixelSkipDecoder((Tap(4, 8),), (8, 8), (1,), (1, 1))
