"""The network as one graph without branches, for runtimes without Python and Fourier transforms.

It computes what `VRDIR.restore` computes, written so that batch, height and width stay free: the
padding is a gather, and the Fourier transform is matrix products, exact to float32's rounding.
(Transforms of free size fail in ONNX Runtime and give wrong results in OpenVINO.) PyTorch itself
keeps the fast transform.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from vrdir.model.checks import in_range
from vrdir.model.clean_images import shares_of
from vrdir.model.fourier_modulation import FourierGuidedModulation
from vrdir.model.global_context import lift_whole
from vrdir.model.vrdir import VRDIR
from vrdir.tensors import crop_to, pad_by_gather


class ExportableVRDIR(nn.Module):
    """A copy of a network on the CPU, in evaluation mode, that torch.export can trace.

    Shape: image (B, 3, H, W), RGB in [0, 1], H and W from 1 up -> restored (B, 3, H, W) and shares
    (B, K).
    """

    def __init__(self, model: VRDIR) -> None:
        super().__init__()
        network = copy.deepcopy(model).to("cpu")
        network = network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        for ise in network.scales:
            ise.modulation = MatrixFourierModulation(ise.modulation)
        self.network: VRDIR = network.requires_grad_(False).eval()
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the restored images and the shares."""
        network, multiple = self.network, self.network.config.multiple
        veil = network.find_veil(image)
        clear = image if veil is None else lift_whole(image, veil)
        original, padded = (pad_by_gather(part, multiple) for part in (image, clear))
        mixed, guidance = network.enhance(network.extract(padded))
        restored = network.decoder(mixed, padded, original)
        return in_range(crop_to(restored, image.shape[-2:])), shares_of(guidance)


class MatrixFourierModulation(nn.Module):
    """FGM with matrix products for the Fourier transform, on the parameters of a given FGM.

    Shape: (B, C, H, W) -> (B, K, H, W).
    """

    def __init__(self, modulation: FourierGuidedModulation) -> None:
        super().__init__()
        self.amplitude, self.guidance = modulation.amplitude, modulation.guidance

    def forward(self, features: Tensor, statistics: None = None) -> Tensor:
        """Return the guidance maps."""
        real, imaginary = rfft2_by_matrices(features)
        amplitude = torch.sqrt(real * real + imaginary * imaginary)
        ratio = self.amplitude(amplitude) / amplitude.clamp_min(1e-8)  # A' exp(i phi) = (A' / A) F
        semantics = irfft2_by_matrices(ratio * real, ratio * imaginary, features.shape[-1])
        return torch.softmax(self.guidance(semantics), dim=1)


def rfft2_by_matrices(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the real and the imaginary part of `torch.fft.rfft2(x, norm="ortho")`.

    Shape: (..., H, W) -> two of (..., H, W // 2 + 1).
    """
    height, width = x.shape[-2:]
    cos, sin = dft_matrix(width, width // 2 + 1)
    real, imaginary = x @ cos.T, -(x @ sin.T)
    cos, sin = dft_matrix(height, height)
    return cos @ real + sin @ imaginary, cos @ imaginary - sin @ real


def irfft2_by_matrices(real: Tensor, imaginary: Tensor, width: int) -> Tensor:
    """Return `torch.fft.irfft2(real + i imaginary, s=(H, width), norm="ortho")`.

    Shape: two of (..., H, width // 2 + 1) -> (..., H, width).
    """
    cos, sin = dft_matrix(real.shape[-2], real.shape[-2])
    real, imaginary = cos @ real - sin @ imaginary, cos @ imaginary + sin @ real
    cos, sin = dft_matrix(width, width // 2 + 1)
    # Every frequency of a real signal has a mirror image that is not stored, except 0 and, for an
    # even size, the highest.
    twice = torch.arange(width // 2 + 1) * 2
    weight = torch.where(torch.remainder(twice, torch.full((), width)) == 0, 1.0, 2.0)[:, None]
    return real @ (weight * cos) - imaginary @ (weight * sin)


def dft_matrix(size: int, frequencies: int) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of `2 pi k n / size`, divided by `sqrt(size)`.

    The angle is reduced to half a turn while it is an integer: a large one loses its last digits in
    float32.

    Shape: two of (frequencies, size), float32.
    """
    period = torch.full((), size)
    steps = torch.arange(frequencies)[:, None] * torch.arange(size)
    half = period // 2
    angle = (torch.remainder(steps + half, period) - half).float() * (2 * math.pi / period.float())
    scale = torch.rsqrt(period.float())
    return scale * torch.cos(angle), scale * torch.sin(angle)
