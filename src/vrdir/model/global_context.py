"""The global context: what the whole picture says about the air in it, from a small copy of it.

In a window, a pale wall and a wall in fog are the same pixels. What tells them apart is the rest of
the picture, and what is in it: the paper's intrinsic semantics, where they are strongest. So E sees
a copy of the whole image, of one size whatever came in, through its deeper taps, and a small
head says what veil lies over the scene. `lift` takes it away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from vrdir.model.intrinsic_extractor import Tap

LEVELS = 6  # of brightness, at which the log gain is known for each place
MOST = 3.0  # the largest log gain: of a twentieth of the contrast, no more can be made
OFF = -4.0  # the head's output up to which nothing is done


class Veil(NamedTuple):
    """What lies over a scene.

    Attributes:
        airlight: A, (B, 3), the colour of the veil, in [0, 1].
        exposure: g, (B, 1), from 1: by how much the scene is too dark.
        log_gain: k, (B, 6, h, w), from 0 to 3, on a grid over the whole image, at six levels of
            brightness relative to the airlight, dark to bright. The transmission is exp(-k).
    """

    airlight: Tensor
    exposure: Tensor
    log_gain: Tensor


class GlobalContext(nn.Module):
    """A head on E's taps of the reduced copy: airlight, exposure and the log gain of the veil (ours).

    From the coarsest tap to the finest, features are joined as in a feature pyramid (Lin et al.,
    CVPR 2017); a vector of the whole image modulates the coarsest (FiLM, Perez et al., AAAI 2018).
    The airlight is the mean colour of the places that the head attends to, and a correction.
    The log gain starts at zero everywhere, so that an untrained head leaves images unchanged.

    Args:
        taps: of E, fine to coarse.
        channels: of the head.

    Shape: features [(B, C_i, S/s_i, S/s_i)], copy (B, 3, S, S) -> a `Veil` with h = w = S/s_1.
    """

    def __init__(self, taps: Sequence[Tap], channels: int) -> None:
        super().__init__()
        extra = [3] + [0] * (len(taps) - 1)  # the finest also sees the colours
        self.lateral = nn.ModuleList(
            nn.Conv2d(tap.channels + more, channels, 1)
            for tap, more in zip(taps, extra, strict=True)
        )
        self.smooth = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1) for _ in range(len(taps))
        )
        self.norm = nn.ModuleList(nn.GroupNorm(4, channels) for _ in range(len(taps)))
        self.film = nn.Sequential(
            nn.Linear(2 * channels + 12, 2 * channels),
            nn.ReLU(),
            nn.Linear(2 * channels, 2 * channels),
        )
        self.attend = nn.Conv2d(channels, 1, 1)
        self.to_light = nn.Sequential(nn.Linear(2 * channels + 15, 64), nn.ReLU(), nn.Linear(64, 4))
        self.to_gain = nn.Conv2d(channels, LEVELS, 3, padding=1)
        for last in (self.film[2], self.to_light[2], self.to_gain):
            for parameter in last.parameters():
                nn.init.zeros_(parameter)
        nn.init.constant_(cast(Tensor, self.to_gain.bias), OFF)

    def forward(self, features: Sequence[Tensor], copy: Tensor) -> Veil:
        height, width = features[0].shape[-2:]
        colours = functional.adaptive_avg_pool2d(copy, (height, width))
        inputs = [torch.cat([features[0], colours.to(features[0].dtype)], 1), *features[1:]]
        maps = [lateral(f) for lateral, f in zip(self.lateral, inputs, strict=True)]
        x = self._smoothed(len(maps) - 1, maps[-1])
        # A 4 x 4 mean keeps single dark or bright pixels out of the extremes.
        blurred = functional.avg_pool2d(colours, 4)
        seen = torch.cat(
            [
                x.mean((2, 3)),
                x.amax((2, 3)),
                colours.mean((2, 3)),
                colours.flatten(2).std(2),
                blurred.amin((2, 3)),
                blurred.amax((2, 3)),
            ],
            1,
        )
        scale, shift = self.film(seen)[..., None, None].chunk(2, 1)
        x = x * (1 + scale) + shift
        for i in reversed(range(len(maps) - 1)):
            x = functional.interpolate(x, size=maps[i].shape[-2:], mode="bilinear") + maps[i]
            x = self._smoothed(i, x)
        weights = torch.softmax(self.attend(x).float().flatten(2), 2)
        attended = (weights * colours.float().flatten(2)).sum(2)
        correction = self.to_light(torch.cat([seen, attended], 1)).float()
        airlight = torch.sigmoid(torch.logit(attended, 0.02) + correction[:, :3])
        brighter = correction[:, 3:]
        exposure = torch.exp(_through(brighter.clamp(0.0, 1.4), brighter))
        log_gain = _above_zero(self.to_gain(x).float()).clamp(max=MOST)
        return Veil(airlight, exposure, log_gain)

    def _smoothed(self, i: int, x: Tensor) -> Tensor:
        return torch.relu(self.norm[i](self.smooth[i](x)))


def _above_zero(values: Tensor) -> Tensor:
    """Softplus, moved down so that it is exactly zero up to `OFF`."""
    positive = functional.softplus(values)
    return _through(torch.relu(positive - functional.softplus(torch.tensor(OFF))), positive)


def _through(limited: Tensor, values: Tensor) -> Tensor:
    """Return `limited`, with the gradient of `values`: what is at a limit must be able to leave it."""
    return limited.detach() + (values - values.detach()) if values.requires_grad else limited


def lift(image: Tensor, veil: Veil, rows: Tensor, columns: Tensor) -> Tensor:
    """Take the veil away: `J = (g x - A) exp(k) + A` (Koschmieder's law, solved for the scene).

    k is read from the grid at each pixel's place and at its brightness relative to the airlight,
    `v = min over channels of g x / A`: a pixel that is dark beside the airlight is near, however
    thick the fog behind it. As no scene is darker than black, `exp(-k) >= 1 - v` (the boundary
    constraint of Meng et al., ICCV 2013), so nothing is driven into black.
    Where k is 0 and g is 1 the image is unchanged, exactly.

    Args:
        image: (B, 3, H, W) in [0, 1].
        veil: of the whole image.
        rows, columns: (H, h) and (W, w), or (B, H, h) and (B, W, w): where the grid is read, from
            `resampling`; for a window of the image, its rows of the matrix.

    Returns:
        (B, 3, H, W), brighter than 1 here and there.
    """
    exposed, airlight = _exposed(image, veil)
    k = log_gain_at(image, veil, rows, columns)
    return exposed + (exposed - airlight) * torch.expm1(k)


def log_gain_at(image: Tensor, veil: Veil, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the log gain k of each pixel, (B, 1, H, W); arguments as of `lift`."""
    exposed, airlight = _exposed(image, veil)
    log_gain = resampled(veil.log_gain.to(image.dtype), rows, columns)
    brightness = (exposed / airlight).amin(1, keepdim=True).clamp(0, 1)
    position = brightness * (LEVELS - 1)
    levels = torch.arange(LEVELS, device=image.device, dtype=image.dtype).view(1, -1, 1, 1)
    k = ((1 - (position - levels).abs()).clamp_min(0) * log_gain).sum(1, keepdim=True)
    return torch.minimum(k, -torch.log((1 - brightness).clamp_min(0.04)))


def _exposed(image: Tensor, veil: Veil) -> tuple[Tensor, Tensor]:
    """The image as bright as it would have been exposed, and the airlight (B, 3, 1, 1)."""
    airlight = veil.airlight.to(image.dtype)[..., None, None].clamp_min(0.02)
    return image * veil.exposure.to(image.dtype)[..., None, None], airlight


def lift_whole(image: Tensor, veil: Veil) -> Tensor:
    """Take the veil of whole images (B, 3, H, W) away."""
    (height, width), (h, w) = image.shape[-2:], veil.log_gain.shape[-2:]
    return lift(
        image, veil, resampling(h, height, image.device), resampling(w, width, image.device)
    )


def reduced(image: Tensor, side: int) -> Tensor:
    """Return the copy (B, 3, side, side) that the head sees of images (B, 3, H, W)."""
    height, width = image.shape[-2:]
    return resampled(image, *(resampling(n, side, image.device) for n in (height, width)))


def resampled(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Resample maps (B, C, h, w) by matrices (H, h) and (W, w) with or without a batch dimension."""
    if rows.ndim == 3:
        rows, columns = rows[:, None], columns[:, None]
    with torch.autocast(maps.device.type, enabled=False):  # half precision would leave bands
        return rows.to(maps.dtype) @ (maps @ columns.to(maps.dtype).mT)


def resampling(before: int, after: int, device: torch.device | None = None) -> Tensor:
    """Return the matrix (after, before) of antialiased bilinear resampling along one side.

    Matrices do with one operation what needs three otherwise: reduce and enlarge, read any part of
    a map, and be exported for images of any size.
    """
    # The scale is a tensor, as sizes are symbols while a graph of any size is traced.
    scale = torch.full((), before, device=device).float() / torch.full((), after, device=device)
    middle = (torch.arange(after, device=device) + 0.5) * scale
    at = torch.arange(before, device=device) + 0.5
    spread = scale.clamp_min(1.0)
    weights = (1 - (middle[:, None] - at[None]).abs() / spread).clamp_min(0)
    return weights / weights.sum(1, keepdim=True)
