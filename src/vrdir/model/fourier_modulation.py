"""FGM, Fourier guided modulation: how much of each branch to use at each position (section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vrdir.model.global_statistics import GlobalStatistics, shift_to_level


class FourierGuidedModulation(nn.Module):
    """Guidance maps from the amplitude spectrum of the features (VRD-IR, section 3.3).

        A, phi = |FFT(F)|, angle(FFT(F))        degradations change mostly the amplitude
        A'     = conv1x1(A)
        S      = inverse FFT(A' * exp(i phi))   of the size of F, odd sizes too
        G      = softmax over k of conv3x3(S)

    Args:
        channels: C, the channels of the features.
        branches: K, the number of branches.

    Shape: (B, C, H, W) -> guidance (B, K, H, W); the K maps sum to 1 at every position.
    """

    def __init__(self, channels: int, branches: int) -> None:
        super().__init__()
        self.amplitude = nn.Conv2d(channels, channels, 1)
        self.guidance = nn.Conv2d(channels, branches, 3, padding=1)

    def forward(self, features: Tensor, statistics: GlobalStatistics | None = None) -> Tensor:
        """Return the guidance maps, at the level that `statistics` wants if given."""
        # Most devices have no FFT in half precision, and a spectrum exceeds its range.
        with torch.autocast(features.device.type, enabled=False):
            # With the orthonormal transform, noise has the same amplitude in every image size.
            spectrum = torch.fft.rfft2(features.float(), norm="ortho")
            amplitude = spectrum.abs()
            # A' exp(i phi) = (A' / A) FFT(F), which needs no angle; it is 0 where A is 0.
            ratio = self.amplitude(amplitude) / amplitude.clamp_min(1e-8)
            semantics = torch.fft.irfft2(spectrum * ratio, s=features.shape[-2:], norm="ortho")
            return torch.softmax(shift_to_level(self, self.guidance(semantics), statistics), dim=1)
