"""The global context: estimates the haze of an image from a small copy of the whole image.

In a part of an image, a pale wall and a wall in fog look the same. Only the rest of the image, and
what it shows, can distinguish them: the paper's intrinsic semantics. So the extractor E gets a copy
of the whole image, always of the same size. From the features of its deeper taps, a small head
estimates the veil of haze over the scene, or by how much the local contrast must be raised. `lift`
removes this haze from the image.
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
TONES = 32  # levels of brightness of a tone curve
TILES = 8  # of the copy along a side, each with its own histogram
STEEPEST = 2.0  # slope of a tone curve within the stretched range: noise is raised by no more
MOST_TONE = 1.25  # what the head can ask for; 1 where the picture is in fog
DECIDED = 2.0  # times what it asks for: half certain counts as certain, since missed fog costs more
FOLLOWED = 0.6  # how far 1 stretches the range and follows the curve: more helps no detector
LEAST_SPAN = 1 / 3  # of brightness: a picture's range is stretched by 3 at most
COLOUR = 0.5  # how far colours follow the brightness: 0 keeps their distance from grey, 1 its ratio


class Veil(NamedTuple):
    """The veil of haze over a scene.

    Attributes:
        airlight: A, (B, 3), the colour of the veil, in [0, 1].
        exposure: g, (B, 1), from 1: by how much the scene is too dark.
        log_gain: k, (B, 6, h, w), from 0 to 3, on a grid over the whole image, at six levels of
            brightness relative to the airlight, dark to bright. The transmission is exp(-k).
    """

    airlight: Tensor
    exposure: Tensor
    log_gain: Tensor

    @property
    def grid(self) -> Sequence[int]:
        """Height and width of the grid."""
        return self.log_gain.shape[-2:]

    def times(self, strength: float | Tensor) -> Veil:
        """Return the veil as strong as it is to be taken away: the transmission to this power."""
        return Veil(self.airlight, self.exposure**strength, self.log_gain * strength)

    def amount(self) -> Tensor:
        """Return (B,), how much there is to do: the mean log gain."""
        return self.log_gain.mean((1, 2, 3))


class LocalTone(NamedTuple):
    """How the local contrast of a scene is raised.

    Attributes:
        low, span: (B, 1, 1, 1), the darkest brightness of the scene and how far the brightest is
            above it, at least a third.
        offsets: (B, 32, h, w), what is added to the brightness, on a grid over the whole image, at
            32 levels of it from the darkest to the brightest.
        asked: (B, 12, h, w), how far the head asked to stretch the range and to follow the curve,
            before its limits: what training looks at.
        haze: (B,), the mean of 1 - t over the image, as the head estimates it: for the diagnosis.
    """

    low: Tensor
    span: Tensor
    offsets: Tensor
    asked: Tensor
    haze: Tensor

    @property
    def grid(self) -> Sequence[int]:
        """Height and width of the grid."""
        return self.offsets.shape[-2:]

    def times(self, strength: float | Tensor) -> LocalTone:
        """Return the offsets times the strength."""
        return self._replace(offsets=self.offsets * strength)

    def amount(self) -> Tensor:
        """Return (B,), how much there is to do: the mean change of brightness."""
        return self.offsets.abs().mean((1, 2, 3))


Lift = Veil | LocalTone


class GlobalContext(nn.Module):
    """A head on E's taps of the reduced copy (ours): the veil, or the local tone.

    From the coarsest tap to the finest, features are joined as in a feature pyramid (Lin et al.,
    CVPR 2017); a vector of the whole image modulates the coarsest (FiLM, Perez et al., AAAI 2018).
    The airlight is the mean colour of the places that the head attends to, and a correction.
    The log gain starts at zero everywhere, so that an untrained head leaves images unchanged.

    With `tone` it asks for no airlight, but says for each place and level of brightness how far
    the scene's range is stretched, and how far a tone curve is followed that is measured on the
    copy (`equalised`): both from 0, as it starts, to 0.75. A linear layer after a hidden one
    estimates from the same features how thick the haze is; it changes no pixel.

    Args:
        taps: of E, fine to coarse.
        channels: of the head.
        tone: whether local contrast is raised, instead of a veil taken away.

    Shape: features [(B, C_i, S/s_i, S/s_i)], copy (B, 3, S, S) -> a `Lift` on a grid of S/s_1.
    """

    def __init__(self, taps: Sequence[Tap], channels: int, tone: bool = False) -> None:
        super().__init__()
        self.tone = tone
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
        last = [self.film[2]]
        if tone:
            self.to_strength = nn.Conv2d(channels, 2 * LEVELS, 3, padding=1)
            last.append(self.to_strength)
            self.to_haze = nn.Sequential(
                nn.Linear(4 * channels + 12, 64), nn.ReLU(), nn.Linear(64, 1)
            )
        else:
            self.attend = nn.Conv2d(channels, 1, 1)
            self.to_light = nn.Sequential(
                nn.Linear(2 * channels + 15, 64), nn.ReLU(), nn.Linear(64, 4)
            )
            self.to_gain = nn.Conv2d(channels, LEVELS, 3, padding=1)
            last += [self.to_light[2], self.to_gain]
        for layer in last:
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)
        if not tone:
            nn.init.constant_(cast(Tensor, self.to_gain.bias), OFF)

    def lifting_parameters(self) -> list[nn.Parameter]:
        """Return the parameters on which the lift depends: all but those that estimate the haze."""
        return [
            parameter
            for name, parameter in self.named_parameters()
            if not name.startswith("to_haze")
        ]

    def forward(self, features: Sequence[Tensor], copy: Tensor) -> Lift:
        """Return the lift for the features of a copy and the copy itself."""
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
        if self.tone:
            pooled = torch.cat([seen, x.mean((2, 3)), x.amax((2, 3))], 1).detach()
            haze = torch.sigmoid(self.to_haze(pooled).float()).flatten()
            return self._tone(x, copy, haze)
        weights = torch.softmax(self.attend(x).float().flatten(2), 2)
        attended = (weights * colours.float().flatten(2)).sum(2)
        correction = self.to_light(torch.cat([seen, attended], 1)).float()
        airlight = torch.sigmoid(torch.logit(attended, 0.02) + correction[:, :3])
        brighter = correction[:, 3:]
        exposure = torch.exp(_through(brighter.clamp(0.0, 1.4), brighter))
        log_gain = _above_zero(self.to_gain(x).float()).clamp(max=MOST)
        return Veil(airlight, exposure, log_gain)

    def _tone(self, x: Tensor, copy: Tensor, haze: Tensor) -> LocalTone:
        raw = self.to_strength(x).float()
        asked = DECIDED * raw
        asked = _through(asked.clamp(0.0, MOST_TONE), asked)
        # They are known at fewer levels of brightness than the curve.
        finer = resampling(LEVELS, TONES, x.device).view(TONES, LEVELS, 1, 1)
        stretch, strength = (
            functional.conv2d(part, finer) for part in (FOLLOWED * asked).chunk(2, 1)
        )
        brightness = brightness_of(copy.float())
        darkest = brightness.amin((1, 2, 3), keepdim=True)
        brightest = brightness.amax((1, 2, 3), keepdim=True)
        span = (brightest - darkest).clamp_min(LEAST_SPAN)
        low = ((darkest + brightest - span) / 2).clamp_min(0)
        low = torch.minimum(low, 1 - span)
        levels = _counted(brightness) / (TONES - 1)
        curves = equalised(((brightness - low) / span).clamp(0, 1))
        places = resampling(TILES, raw.shape[-1], x.device)
        curves = resampled(curves - levels, places, places)
        offsets = stretch * (levels - (low + span * levels)) + strength * curves
        return LocalTone(low, span, offsets, raw, haze)

    def _smoothed(self, i: int, x: Tensor) -> Tensor:
        return torch.relu(self.norm[i](self.smooth[i](x)))


def _above_zero(values: Tensor) -> Tensor:
    """Softplus, moved down so that it is exactly zero up to `OFF`."""
    positive = functional.softplus(values)
    return _through(torch.relu(positive - functional.softplus(torch.tensor(OFF))), positive)


def _through(limited: Tensor, values: Tensor) -> Tensor:
    """Return `limited`, with the gradient of `values`, so that training can leave a limit."""
    return limited.detach() + (values - values.detach()) if values.requires_grad else limited


def brightness_of(image: Tensor) -> Tensor:
    """Return the brightness (B, 1, H, W) of RGB images (ITU-R BT.601)."""
    weights = image.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (image * weights).sum(1, keepdim=True)


def equalised(brightness: Tensor) -> Tensor:
    """Return tone curves (B, 32, 8, 8) that spread the brightness (B, 1, S, S) of each place.

    The brightness is in [0, 1].

    Contrast-limited adaptive histogram equalisation (Zuiderveld, 1994): the curve of a tile is the
    cumulated histogram of its surroundings, of two tiles' side here, clipped so that no slope is
    above 2. It estimates no airlight, and so finds contrast in dim fog, in bright fog and behind a
    camera's own tone curve alike.
    """
    side = brightness.shape[-1] // TILES
    counted = (1 - (brightness * (TONES - 1) - _counted(brightness)).abs()).clamp_min(0)
    # With parts of its neighbours a tile has pixels enough, and nothing jumps where it ends.
    histogram = functional.avg_pool2d(
        counted, 2 * side, side, padding=side // 2, count_include_pad=False
    )
    for _ in range(3):
        clipped = histogram.clamp(max=STEEPEST / (TONES - 1))
        histogram = clipped + (1 - clipped.sum(1, keepdim=True)) / TONES
    return histogram.cumsum(1) - histogram / 2


def _counted(like: Tensor) -> Tensor:
    return torch.arange(TONES, device=like.device, dtype=like.dtype).view(1, -1, 1, 1)


def lift(image: Tensor, found: Lift, rows: Tensor, columns: Tensor) -> Tensor:
    """Take the veil away, or raise the local contrast.

    Where there is nothing to do the image is unchanged, exactly.

    Args:
        image: (B, 3, H, W) in [0, 1].
        found: of the whole image.
        rows: (H, h) or (B, H, h), where the grid is read, from `resampling`; for a window of the
            image, its rows of the matrix.
        columns: (W, w) or (B, W, w), likewise.

    Returns:
        (B, 3, H, W), brighter than 1 here and there.
    """
    if isinstance(found, LocalTone):
        return _toned(image, found, rows, columns)
    return _unveiled(image, found, rows, columns)


def _toned(image: Tensor, tone: LocalTone, rows: Tensor, columns: Tensor) -> Tensor:
    """Add to the brightness what the grid says for each pixel's place and level; colours follow."""
    before = brightness_of(image)
    low, span = tone.low.to(image.dtype), tone.span.to(image.dtype)
    position = ((before - low) / span).clamp(0, 1) * (TONES - 1)
    below = position.floor().clamp(max=TONES - 2)
    maps = resampled(tone.offsets.to(image.dtype), rows, columns)
    under, over = (maps.gather(1, (below + step).long()) for step in (0, 1))
    added = torch.lerp(under, over, position - below)
    return image + added + COLOUR * added / (before + 0.02) * (image - before)


def _unveiled(image: Tensor, veil: Veil, rows: Tensor, columns: Tensor) -> Tensor:
    """Take the veil away: `J = (g x - A) exp(k) + A` (Koschmieder's law, solved for the scene).

    k is read from the grid at each pixel's place and at its brightness relative to the airlight,
    `v = min over channels of g x / A`: a pixel that is dark beside the airlight is near, however
    thick the fog behind it. As no scene is darker than black, `exp(-k) >= 1 - v` (the boundary
    constraint of Meng et al., ICCV 2013), so nothing is driven into black.
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
    """Return the well exposed image and the airlight (B, 3, 1, 1)."""
    airlight = veil.airlight.to(image.dtype)[..., None, None].clamp_min(0.02)
    return image * veil.exposure.to(image.dtype)[..., None, None], airlight


def lift_whole(image: Tensor, found: Lift) -> Tensor:
    """Lift whole images (B, 3, H, W)."""
    (height, width), (h, w) = image.shape[-2:], found.grid
    return lift(
        image, found, resampling(h, height, image.device), resampling(w, width, image.device)
    )


def reduced(image: Tensor, side: int) -> Tensor:
    """Return the copy (B, 3, side, side) that the head sees of images (B, 3, H, W)."""
    height, width = image.shape[-2:]
    return resampled(image, *(resampling(n, side, image.device) for n in (height, width)))


def resampled(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Resample maps (B, C, h, w) by matrices (H, h) and (W, w), each with or without a batch."""
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
