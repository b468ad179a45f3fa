"""Large images band by band, as they would come out in one piece, in a small part of the memory.

Instance normalization, channel attention and the Fourier modulation look at the whole image. Tiles that are restored by themselves
would differ in colour and contrast, with seams between them. So the image is not cut: the network is gone through layer by layer, and
each layer band by band. A band of rows is given the few rows around it that its convolutions see, which makes it exactly that part of
the whole; a mean is taken over all bands before any of them goes on. What is kept between layers is kept in half precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from vrdir.images import crop_to, pad_to_multiple
from vrdir.model.blocks import ResidualBlock, ResidualBlocks
from vrdir.model.control import ALL, Control
from vrdir.model.global_context import lift, resampling
from vrdir.model.global_statistics import GlobalStatistics, Moments, SuppliedStatistics, own_moments
from vrdir.model.semantics_decoder import PixelSkipDecoder
from vrdir.model.vrdir import (
    VRDIR,
    Restoration,
    check_image,
    clean_threshold,
    in_range,
    is_clean,
    shares_of,
)

WHOLE_PIXELS = (
    2**20
)  # up to here an image is restored in one piece, which takes as long and up to 700 MB
BAND_PIXELS = 2**19
# Of a batch, restored at once on a CPU: two images of 256 x 256. Of 32 the features leave the caches, which takes twice the time.
CPU_PIXELS = 2**17


def restore_in_bands(
    model: VRDIR,
    image: Tensor,
    skip_clean: bool | float = False,
    statistics: GlobalStatistics | None = None,
    band_pixels: int = BAND_PIXELS,
    precision: torch.dtype = torch.float16,
    control: Control = ALL,
) -> Restoration:
    """`VRDIR.restore` of one image, layer by layer in bands. Between layers it keeps about 40 bytes a pixel.

    Args:
        model: the network, in evaluation mode. Gradients do not pass.
        image: (1, 3, H, W), RGB in [0, 1], on any device; so is the result.
        skip_clean, statistics, control: as there.
        band_pixels: how many pixels a band has, about.
        precision: in which maps are kept between layers; computed is in float32 throughout. By half precision the bundled networks'
            pixels move by some hundredths of an 8-bit level.

    Raises:
        ValueError: the image has another shape, or there is no clean branch to skip by.
    """
    check_image(image)
    if len(image) != 1:
        raise ValueError(f"one image at a time, not a batch of {len(image)}")
    threshold = clean_threshold(skip_clean, model.config)
    with torch.no_grad():
        bands = Bands(
            model, image, statistics or GlobalStatistics(), band_pixels, precision, control
        )
        features = bands.features()
        guidance = model.guide(features, statistics)
        shares = shares_of(guidance)
        if threshold is not None and bool(is_clean(shares, bands.veil, threshold)):
            return Restoration(image, guidance, shares, bands.veil)
        if control.is_local(model.unveils):
            steering = control.of_guidance(guidance, model.config.branches)
            restored = bands.decoded(features, steering)
        else:
            restored = in_range(bands.image)
        return Restoration(restored, guidance, shares, bands.veil)


class Bands:
    """The parts of the network, each over the whole image in bands. Maps are (1, C, H / stride, W / stride)."""

    def __init__(
        self,
        model: VRDIR,
        image: Tensor,
        statistics: GlobalStatistics,
        band_pixels: int,
        precision: torch.dtype,
        control: Control,
    ) -> None:
        self.model, self.original, self.multiple = model, image, model.config.multiple
        self.statistics, self.precision = statistics, precision
        self.device = next(model.parameters()).device
        self.height, self.width = (side + -side % self.multiple for side in image.shape[-2:])
        self.rows = max(band_pixels // self.width // self.multiple, 1) * self.multiple
        self.control = control
        veil = model.find_veil(image.to(self.device)) if control.lifts() else None
        self.veil = None if veil is None else control.of_veil(veil)
        self.image = self.lifted()

    def of(self, stride: int, at_least: int = 0) -> Iterator[tuple[int, int]]:
        """First row and the one after the last, of each band of a map with a stride."""
        step = max(self.rows, at_least)
        for start in range(0, self.height, step):
            yield start // stride, min(start + step, self.height) // stride

    def empty(self, channels: int, stride: int, dtype: torch.dtype | None = None) -> Tensor:
        shape = (1, channels, self.height // stride, self.width // stride)
        return torch.empty(
            shape,
            dtype=dtype or self.precision,
            device=self.device,
            memory_format=torch.channels_last,
        )

    def lifted(self) -> Tensor:
        """The image without its veil, which is found on a copy of the whole."""
        veil = self.veil
        if veil is None:
            return self.original
        (height, width), (h, w) = self.original.shape[-2:], veil.grid
        down, across = (resampling(*n, self.device) for n in ((h, height), (w, width)))
        clear = torch.empty_like(self.original)
        for start, stop in self.of(1):
            part = self.original[..., start:stop, :].to(self.device)
            clear[..., start:stop, :] = lift(part, veil, down[start:stop], across)
        return clear

    def pixels(self, top: int, bottom: int, image: Tensor | None = None) -> Tensor:
        """These rows of the padded image; both are multiples of the network's."""
        image = self.image if image is None else image
        part = pad_to_multiple(image[..., top : min(bottom, image.shape[-2]), :], self.multiple)
        return part.to(self.device).contiguous(memory_format=torch.channels_last)

    def features(self) -> list[Tensor]:
        """The extractor's, from bands with a margin as wide as it sees."""
        taps = self.model.taps
        maps = [self.empty(tap.channels, tap.stride, torch.float32) for tap in taps]
        margin = -(-self.model.extractor.reach[taps[-1].stride] // self.multiple) * self.multiple
        for start, stop in self.of(
            1, at_least=3 * margin
        ):  # else most of what is computed would be margins, in a wide image
            top = max(start - margin, 0)
            parts = self.model.extract(self.pixels(top, min(stop + margin, self.height)))
            for tap, part, whole in zip(taps, parts, maps, strict=True):
                inside = rows(part, (start - top) // tap.stride, (stop - start) // tap.stride)
                whole[..., start // tap.stride : stop // tap.stride, :] = inside
        return maps

    def decoded(self, features: list[Tensor], guidance: list[Tensor]) -> Tensor:
        """The restored image. Features are let go once they have been used."""
        statistics = []
        for ise, values in zip(self.model.scales, features, strict=True):
            found = own_moments(values)
            statistics.append(
                SuppliedStatistics(
                    {
                        branch: self.statistics.moments(branch, found)
                        for branch in ise.branches.values()
                    }
                )
            )
        reach = 2 * self.model.config.branch_blocks

        def semantics(tap: int, start: int, stop: int) -> Tensor:
            """The mixed features of a tap, these rows."""
            top, bottom = max(start - reach, 0), stop + reach
            mixed = self.model.scales[tap].mix(
                features[tap][..., top:bottom, :],
                guidance[tap][..., top:bottom, :],
                statistics[tap],
            )
            return rows(mixed, start - top, stop - start)

        decoder = self.model.decoder
        if not isinstance(decoder, PixelSkipDecoder):
            return self.semantic_decoded(semantics)

        x = self.empty(decoder.widths[0], 2)
        for start, stop in self.of(2):
            top, bottom = (
                max(start - self.multiple // 2, 0),
                min(stop + self.multiple // 2, self.height // 2),
            )
            part = decoder.begin(
                self.pixels(2 * top, 2 * bottom), self.pixels(2 * top, 2 * bottom, self.original)
            )
            x[..., start:stop, :] = rows(part, start - top, stop - start)
        skips = []
        for scale, blocks in enumerate(decoder.encoder):
            self.blocks(cast(ResidualBlocks, blocks), x, 2 ** (scale + 1))
            skips.append(x)
            if scale < len(decoder.down):
                x = self.empty(decoder.widths[scale + 1], 2 ** (scale + 2))
                for start, stop in self.of(2 ** (scale + 2)):
                    x[..., start:stop, :] = decoder.down[scale](
                        skips[-1][..., 2 * start : 2 * stop, :].float()
                    )

        for scale in reversed(range(len(skips))):
            stride, finer = 2 ** (scale + 1), skips.pop()
            for start, stop in self.of(stride):
                part = finer[..., start:stop, :].float()
                if scale < len(decoder.up):
                    part += decoder.up[scale](x[..., start // 2 : stop // 2, :].float())
                if scale in decoder.scale_of_tap:
                    tap = decoder.scale_of_tap.index(scale)
                    part += decoder.semantics[tap](semantics(tap, start, stop))
                finer[..., start:stop, :] = part
            if scale in decoder.scale_of_tap:
                features.pop()
            x = finer
            self.blocks(cast(ResidualBlocks, decoder.decoder[scale]), x, stride)

        def correction(start: int, stop: int) -> Tensor:
            top = max(start - 1, 0)
            part = decoder.to_correction(x[..., top : stop + 1, :].float())
            return functional.pixel_shuffle(rows(part, start - top, stop - start), 2)

        shift: Tensor | float = 0.0
        if self.statistics.levels:
            total = torch.stack(
                [correction(*band).sum((2, 3), keepdim=True) for band in self.of(2)]
            ).sum(0)
            level = total / (self.height * self.width)
            shift = self.statistics.level(decoder, level) - level
        restored = torch.empty_like(self.image)
        for start, stop in self.of(2):
            gain, residual = (correction(start, stop) + shift).chunk(2, dim=1)
            pixels = self.pixels(2 * start, 2 * stop)
            whole = self.control.of_result(pixels, pixels + gain * pixels + residual)
            self.write(restored, whole, 2 * start)
        return restored

    def semantic_decoded(self, semantics: Callable[[int, int, int], Tensor]) -> Tensor:
        """By the paper's decoder, whose convolutions see two rows of its features."""
        restored = torch.empty_like(self.image)
        for start, stop in self.of(2):
            top, bottom = max(start - 2, 0), min(stop + 2, self.height // 2)
            part = self.model.decoder([semantics(0, top, bottom)], self.image)
            part = rows(part, 2 * (start - top), 2 * (stop - start))
            part = self.control.of_result(self.pixels(2 * start, 2 * stop), part)
            self.write(restored, part, 2 * start)
        return restored

    def write(self, restored: Tensor, part: Tensor, top: int) -> None:
        """Without what was padded."""
        place = restored[..., top : top + part.shape[-2], :]
        place.copy_(in_range(crop_to(part, place.shape[-2:])))

    def blocks(self, blocks: ResidualBlocks, x: Tensor, stride: int) -> None:
        """Residual blocks, in place."""
        for block in blocks:
            self.block(cast(ResidualBlock, block), x, stride)

    def block(self, block: ResidualBlock, x: Tensor, stride: int) -> None:
        statistics = None
        if block.attend is not None:
            total = x.new_zeros(1, x.shape[1], 1, 1, dtype=torch.float32)
            for start, stop in self.of(stride):
                top = max(start - 1, 0)
                hidden = block.expand(x[..., top : stop + 1, :].float()).relu_()
                total += rows(hidden, start - top, stop - start).sum((2, 3), keepdim=True)
            found = Moments(total / (x.shape[-2] * x.shape[-1]))
            statistics = SuppliedStatistics({block: self.statistics.moments(block, found)})
        above: Tensor | None = None  # the last rows of the band before, as they were
        for start, stop in self.of(stride):
            part = x[..., start : stop + 2, :].float()
            part = part if above is None else torch.cat([above, part], 2)
            top = 0 if above is None else above.shape[2]
            end = top + stop - start
            above = part[..., max(end - 2, 0) : end, :].clone()
            x[..., start:stop, :] = rows(block(part, statistics), top, stop - start)


def rows(values: Tensor, start: int, count: int) -> Tensor:
    """`count` rows from `start` on."""
    return values[..., start : start + count, :]
