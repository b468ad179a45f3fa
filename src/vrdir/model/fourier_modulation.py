"""FGM: Fourier guided modulation, which decides where which branch is believed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vrdir.model.global_statistics import GlobalStatistics, levelled


class FourierGuidedModulation(nn.Module):
    """Guidance maps from the amplitude spectrum of the features (VRD-IR, section 3.3).

        A, phi = |FFT(F)|, angle(FFT(F))        degradations live mostly in the amplitude
        A'     = conv1x1(A)
        S      = inverse FFT(A' * exp(i phi))   as large as F, odd sizes too
        G      = softmax over k of conv3x3(S)

    Args:
        channels: C, channels of the features.
        branches: K, how many branches share the features out.

    Shape: (B, C, H, W) -> (B, K, H, W); the K maps sum to 1 at every position.
    """

    def __init__(self, channels: int, branches: int) -> None:
        super().__init__()
        self.amplitude = nn.Conv2d(channels, channels, 1)
        self.guidance = nn.Conv2d(channels, branches, 3, padding=1)

    def forward(self, features: Tensor, statistics: GlobalStatistics | None = None) -> Tensor:
        # Half precision has no FFT on most devices, and a spectrum spans too wide a range for it.
        with torch.autocast(features.device.type, enabled=False):
            # The orthonormal transform keeps a noise floor's amplitude the same for every image size.
            spectrum = torch.fft.rfft2(features.float(), norm="ortho")
            amplitude = spectrum.abs()
            # A' exp(i phi) = (A' / A) F, without the angle; where there is no amplitude there is no phase, and 0 is taken.
            ratio = self.amplitude(amplitude) / amplitude.clamp_min(1e-8)
            semantics = torch.fft.irfft2(spectrum * ratio, s=features.shape[-2:], norm="ortho")
            return torch.softmax(levelled(self, self.guidance(semantics), statistics), dim=1)
