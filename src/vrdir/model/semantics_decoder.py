"""SAD, semantic-aware decoder (VRD-IR): from features back to an image.

    restored = SAD(ISE(E(x)))

Two decoders have the same interface, `decoder(features, image, original)`. The paper's uses only
the features. `PixelSkipDecoder` (not in the paper) also uses the pixels, and returns them unchanged
where no correction is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from vrdir.errors import InputError
from vrdir.model.blocks import ResidualBlocks
from vrdir.model.global_statistics import GlobalStatistics, shift_to_level
from vrdir.model.intrinsic_extractor import Tap


class SemanticsDecoder(nn.Module):
    """The paper's decoder.

        y = sigmoid(conv3x3(relu(convT4x4(F))))      convT: transposed convolution of stride 2

    Args:
        taps: where the features come from: one tap of stride 2.

    Shape: features [(B, C, H/2, W/2)], image (B, 3, H, W), not used -> (B, 3, H, W) in [0, 1].

    Raises:
        InputError: the taps are others.
    """

    uses_image = False

    def __init__(self, taps: Sequence[Tap]) -> None:
        super().__init__()
        if len(taps) != 1 or taps[0].stride != 2:
            raise InputError(
                f"the paper's decoder needs one map of stride 2, not {[tap.stride for tap in taps]}"
            )
        self.up = nn.ConvTranspose2d(taps[0].channels, 64, 4, stride=2, padding=1)
        self.to_image = nn.Conv2d(64, 3, 3, padding=1)

    def forward(
        self,
        features: Sequence[Tensor],
        image: Tensor,
        original: Tensor | None = None,
        statistics: GlobalStatistics | None = None,
    ) -> Tensor:
        """Return the restored image."""
        return torch.sigmoid(self.to_image(torch.relu(self.up(features[0])))).float()


class PixelSkipDecoder(nn.Module):
    """A U-shaped decoder with a pixel path, which predicts a correction (not in the paper).

        y = x + gain * x + residual

    The residual removes what was added (noise, streaks). The gain restores lost contrast: inverting
    haze is an affine function of the pixel, `J = (I - A) / t + A`, with `gain = 1 / t - 1` (compare
    AOD-Net, Li et al., ICCV 2017, eq. 4).

    A light encoder processes the pixels from stride 2 down (full resolution is ten times slower on
    a CPU). The decoder goes up again from the coarsest scale. At each scale it adds the encoder's
    skip and, where the extractor is tapped, the enhanced features. The last convolution starts at
    zero, so an untrained decoder returns the image.

    Args:
        taps: where the features come from, fine to coarse.
        widths: the channels of the pixel path at strides 2, 4, 8, ...
        encoder_blocks: the number of residual blocks of the encoder at each of these strides.
        decoder_blocks: likewise, of the decoder.
        channel_attention: whether these blocks have channel attention.
        sees_veiled: whether it also uses the image before the veil was removed.

    Shape: features [(B, C_i, H/s_i, W/s_i)], image and original (B, 3, H, W) -> (B, 3, H, W), not
    clamped.

    Raises:
        InputError: the widths and blocks differ in length, or a tap has a stride without a scale.
    """

    uses_image = True

    def __init__(
        self,
        taps: Sequence[Tap],
        widths: Sequence[int],
        encoder_blocks: Sequence[int],
        decoder_blocks: Sequence[int],
        channel_attention: bool = False,
        sees_veiled: bool = False,
    ) -> None:
        super().__init__()
        if not len(widths) == len(encoder_blocks) == len(decoder_blocks) >= 1:
            raise InputError(
                "the decoder's widths, encoder_blocks and decoder_blocks must have the same number "
                "of scales, at least one"
            )
        strides = [2 ** (scale + 1) for scale in range(len(widths))]
        unreachable = [tap.stride for tap in taps if tap.stride not in strides]
        if unreachable:
            raise InputError(
                f"features of stride {unreachable} have no scale in a decoder of strides {strides}"
            )
        self.widths = tuple(widths)
        self.scale_of_tap = tuple(strides.index(tap.stride) for tap in taps)

        self.sees_veiled = sees_veiled
        self.stem = nn.Conv2d(24 if sees_veiled else 12, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList(
            ResidualBlocks(w, n, channel_attention)
            for w, n in zip(widths, encoder_blocks, strict=True)
        )
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.semantics = nn.ModuleList(
            nn.Conv2d(tap.channels, widths[scale], 1)
            for tap, scale in zip(taps, self.scale_of_tap, strict=True)
        )
        self.decoder = nn.ModuleList(
            ResidualBlocks(w, n, channel_attention)
            for w, n in zip(widths, decoder_blocks, strict=True)
        )
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairwise(widths))
        self.to_correction = nn.Conv2d(widths[0], 24, 3, padding=1)
        nn.init.zeros_(self.to_correction.weight)
        nn.init.zeros_(self.to_correction.bias)  # type: ignore[arg-type]

    def forward(
        self,
        features: Sequence[Tensor],
        image: Tensor,
        original: Tensor | None = None,
        statistics: GlobalStatistics | None = None,
    ) -> Tensor:
        """Return the corrected image.

        Args:
            features: one map for each tap, fine to coarse.
            image: (B, 3, H, W), after the veil was removed.
            original: the image before that; None: the same.
            statistics: gives the level of the correction, if given.
        """
        x = self.begin(image, image if original is None else original)
        skips = []
        for scale, blocks in enumerate(self.encoder):
            x = blocks(x, statistics)
            skips.append(x)
            if scale < len(self.down):
                x = self.down[scale](x)

        semantics = {
            scale: project(f)
            for scale, project, f in zip(self.scale_of_tap, self.semantics, features, strict=True)
        }
        for scale in reversed(range(len(skips))):
            if scale < len(self.up):  # not the coarsest, where x is the skip itself
                x = self.up[scale](x) + skips[scale]
            if scale in semantics:
                x = x + semantics[scale]
            x = self.decoder[scale](x, statistics)
        correction = shift_to_level(
            self, functional.pixel_shuffle(self.to_correction(x), 2).float(), statistics
        )
        gain, residual = correction.chunk(2, dim=1)  # (B, 3, H, W) each
        return image + gain * image + residual

    def begin(self, image: Tensor, original: Tensor) -> Tensor:
        """Return the first features of the pixel path, at stride 2."""
        seen = torch.cat([image, original], 1) if self.sees_veiled else image
        return self.stem(functional.pixel_unshuffle(seen, 2))
