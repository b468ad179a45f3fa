"""The network as one graph: the results of PyTorch's own Fourier transform and padding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vrdir.export.graph import (
    ExportableVRDIR,
    dft_matrix,
    irfft2_by_matrices,
    pad_by_gather,
    rfft2_by_matrices,
)
from vrdir.model.vrdir import VRDIR
from vrdir.tensors import pad_to_multiple

SIZES = [(1, 1), (1, 2), (2, 1), (1, 33), (32, 1), (7, 9), (8, 8), (15, 16), (257, 131)]


@pytest.mark.parametrize("size", SIZES)
def test_fourier_transform_by_matrices_equals_torchs(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    expected = torch.fft.rfft2(x, norm="ortho")
    real, imaginary = rfft2_by_matrices(x)
    torch.testing.assert_close(torch.complex(real, imaginary), expected, atol=1e-5, rtol=0)
    # Also for a spectrum of no real image: both ignore imaginary parts without a mirror image.
    spectrum = torch.randn(
        *expected.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(1)
    )
    back = irfft2_by_matrices(spectrum.real, spectrum.imag, size[1])
    torch.testing.assert_close(
        back, torch.fft.irfft2(spectrum, s=size, norm="ortho"), atol=1e-5, rtol=0
    )


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 50), st.integers(1, 50))
def test_inverse_transform_restores_the_image(height: int, width: int) -> None:
    x = torch.rand(
        1, 1, height, width, generator=torch.Generator().manual_seed(height * 50 + width)
    )
    torch.testing.assert_close(
        irfft2_by_matrices(*rfft2_by_matrices(x), width), x, atol=1e-5, rtol=0
    )


def test_large_angles_keep_their_digits() -> None:
    size = 4099
    k = torch.arange(size, dtype=torch.float64)
    angle = k[:, None] * k * (2 * torch.pi / size)
    for found, expected in zip(dft_matrix(size, size), (angle.cos(), angle.sin()), strict=True):
        assert float((found * size**0.5 - expected).abs().max()) < 5e-7


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([2, 8, 16]))
def test_padding_equals_the_eager_one(height: int, width: int, multiple: int) -> None:
    image = torch.rand(2, 3, height, width)
    assert torch.equal(pad_by_gather(image, multiple), pad_to_multiple(image, multiple))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (45, 70), (64, 64)])
def test_graph_restores_like_the_network(tiny: VRDIR, size: tuple[int, int]) -> None:
    with torch.no_grad():
        for parameter in tiny.fusion_parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        image = torch.rand(2, 3, *size)
        expected = tiny.restore(image)
        restored, shares = ExportableVRDIR(tiny)(image)
        after = tiny.restore(image)
    torch.testing.assert_close(restored, expected.image, atol=1e-5, rtol=0)
    torch.testing.assert_close(shares, expected.shares, atol=1e-5, rtol=0)
    assert torch.equal(after.image, expected.image)  # a copy was rewritten, not the network
