"""Large images are processed in strips; the result is the same as for the whole image.

Instance normalization, channel attention and the Fourier modulation use the whole image. Tiles that
are restored one by one would differ in colour and contrast, with seams between them. So the image
is not cut: the network runs layer by layer, and each layer strip by strip. A strip of rows gets the
few rows around it that its convolutions see, so its result is exactly that part of the whole. A
mean is taken over all strips before the next layer begins. Maps between layers are kept in half
precision, so the memory is a small part of that for the whole image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from vrdir.errors import InputError
from vrdir.model.blocks import ResidualBlock, ResidualBlocks
from vrdir.model.checks import check_image, in_range
from vrdir.model.clean_images import clean_threshold, is_clean, shares_of
from vrdir.model.control import ALL, Control
from vrdir.model.global_context import Lift, lift, resampling
from vrdir.model.global_statistics import GlobalStatistics, Moments, SuppliedStatistics, own_moments
from vrdir.model.semantics_decoder import PixelSkipDecoder
from vrdir.model.vrdir import VRDIR, Restoration
from vrdir.tensors import crop_to, pad_to_multiple

# Larger images are processed in strips. One of this size takes up to 700 MB as a whole.
WHOLE_PIXELS = 2**20
STRIP_PIXELS = 2**19
# Pixels of a batch that a CPU restores at once: two images of 256 x 256. The features of 32 such
# images do not fit into the caches, which takes twice the time.
CPU_PIXELS = 2**17


def no_check() -> None:
    """Do nothing: the work is never stopped."""


def restore_in_strips(
    model: VRDIR,
    image: Tensor,
    skip_clean: bool | float = False,
    statistics: GlobalStatistics | None = None,
    strip_pixels: int = STRIP_PIXELS,
    precision: torch.dtype = torch.float16,
    control: Control = ALL,
    check: Callable[[], None] = no_check,
) -> Restoration:
    """Restore one image layer by layer in strips, with the result of `VRDIR.restore`.

    It keeps about 40 bytes a pixel between layers.

    Args:
        model: the network, in evaluation mode. Gradients do not pass.
        image: (1, 3, H, W), RGB in [0, 1], on any device; the result is on the same.
        skip_clean: as for `VRDIR.restore`.
        statistics: as for `VRDIR.restore`.
        strip_pixels: the pixels of a strip, roughly.
        precision: the type of maps between layers; each layer computes in float32. Half precision
            changes the pixels of the bundled networks by some hundredths of an 8-bit level.
        control: as for `VRDIR.restore`.
        check: called before each strip of each layer. It may raise an error to stop the work.

    Raises:
        InputError: the image has another shape, or `skip_clean` needs a clean branch that the
            network does not have.
    """
    check_image(image)
    if len(image) != 1:
        raise InputError(f"expected one image, not a batch of {len(image)}")
    threshold = clean_threshold(skip_clean, model.config)
    with torch.no_grad():
        strips = StripNetwork(
            model, image, statistics or GlobalStatistics(), strip_pixels, precision, control, check
        )
        features = strips.features()
        guidance = model.guide(features, statistics)
        shares = shares_of(guidance)
        if threshold is not None and bool(is_clean(shares, strips.lifted_veil, threshold)):
            return Restoration(image, guidance, shares, strips.veil)
        if control.is_local(model.unveils):
            steering = control.of_guidance(guidance, model.config.branches)
            restored = strips.decoded(features, steering)
        else:
            restored = in_range(strips.clear)
        return Restoration(restored, guidance, shares, strips.veil)


class Semantics:
    """The enhanced features of each tap (ISE), computed for some rows when they are needed.

    Args:
        model: the network.
        features: of the extractor, (1, C, H / stride, W / stride) for each tap.
        guidance: the guidance maps of each tap, of the same sizes.
        statistics: where the branches take means over the whole image from.
    """

    def __init__(
        self,
        model: VRDIR,
        features: list[Tensor],
        guidance: list[Tensor],
        statistics: GlobalStatistics,
    ) -> None:
        self.scales, self.features, self.guidance = model.scales, features, guidance
        self.reach = 2 * model.config.branch_blocks  # rows that the branches see on each side
        self.statistics = []
        for scale, values in zip(model.scales, features, strict=True):
            found = own_moments(values)
            moments = {b: statistics.moments(b, found) for b in scale.branches.values()}
            self.statistics.append(SuppliedStatistics(moments))

    def rows(self, tap: int, start: int, stop: int) -> Tensor:
        """Return these rows of a tap."""
        top, bottom = max(start - self.reach, 0), stop + self.reach
        mixed = self.scales[tap].mix(
            self.features[tap][..., top:bottom, :],
            self.guidance[tap][..., top:bottom, :],
            self.statistics[tap],
        )
        return rows(mixed, start - top, stop - start)

    def drop_coarsest(self) -> None:
        """Free the features of the coarsest tap, once they have been used."""
        self.features.pop()


class StripNetwork:
    """The parts of the network, each applied to the whole image in strips.

    Maps are (1, C, H / stride, W / stride), H and W padded to the network's multiple.

    Attributes:
        veil: the veil over the image, None if haze is not to be removed.
        lifted_veil: the part of it that is removed.
        clear: the image without that part, (1, 3, H, W).
    """

    def __init__(
        self,
        model: VRDIR,
        image: Tensor,
        statistics: GlobalStatistics,
        strip_pixels: int,
        precision: torch.dtype,
        control: Control,
        check: Callable[[], None],
    ) -> None:
        self.model, self.original, self.multiple = model, image, model.config.multiple
        self.statistics, self.precision = statistics, precision
        self.control, self.check = control, check
        self.device = next(model.parameters()).device
        self.height, self.width = (side + -side % self.multiple for side in image.shape[-2:])
        self.strip_rows = max(strip_pixels // self.width // self.multiple, 1) * self.multiple
        self.veil = model.find_veil(image.to(self.device)) if control.lifts() else None
        self.lifted_veil = None if self.veil is None else control.of_veil(self.veil)
        self.clear = image if self.lifted_veil is None else self._lifted(self.lifted_veil)

    def strips(self, stride: int, at_least: int = 0) -> Iterator[tuple[int, int]]:
        """Yield the first row of each strip of a map with this stride, and the row after the last.

        Args:
            stride: of the map, in pixels.
            at_least: rows of the image that a strip has at least.
        """
        step = max(self.strip_rows, at_least)
        for start in range(0, self.height, step):
            self.check()
            yield start // stride, min(start + step, self.height) // stride

    def empty(self, channels: int, stride: int, dtype: torch.dtype | None = None) -> Tensor:
        """Return a map without values."""
        return torch.empty(
            (1, channels, self.height // stride, self.width // stride),
            dtype=dtype or self.precision,
            device=self.device,
            memory_format=torch.channels_last,
        )

    def _lifted(self, veil: Lift) -> Tensor:
        """Return the image without a veil, which was found on a reduced copy of the whole image."""
        (height, width), (h, w) = self.original.shape[-2:], veil.grid
        down, across = (resampling(*n, self.device) for n in ((h, height), (w, width)))
        clear = torch.empty_like(self.original)
        for start, stop in self.strips(1):
            part = self.original[..., start:stop, :].to(self.device)
            clear[..., start:stop, :] = lift(part, veil, down[start:stop], across)
        return clear

    def pixels(self, top: int, bottom: int, image: Tensor | None = None) -> Tensor:
        """Return rows of the padded image; `top` and `bottom` are multiples of the network's."""
        image = self.clear if image is None else image
        part = pad_to_multiple(image[..., top : min(bottom, image.shape[-2]), :], self.multiple)
        return part.to(self.device).contiguous(memory_format=torch.channels_last)

    def features(self) -> list[Tensor]:
        """Return the features of each tap, from strips with a margin as wide as the extractor sees.

        A strip has at least three times the rows of its margin: in a wide image most of the work
        would otherwise go into margins.
        """
        taps = self.model.taps
        maps = [self.empty(tap.channels, tap.stride, torch.float32) for tap in taps]
        margin = -(-self.model.extractor.reach[taps[-1].stride] // self.multiple) * self.multiple
        for start, stop in self.strips(1, at_least=3 * margin):
            top = max(start - margin, 0)
            parts = self.model.extract(self.pixels(top, min(stop + margin, self.height)))
            for tap, part, whole in zip(taps, parts, maps, strict=True):
                inside = rows(part, (start - top) // tap.stride, (stop - start) // tap.stride)
                whole[..., start // tap.stride : stop // tap.stride, :] = inside
        return maps

    def decoded(self, features: list[Tensor], guidance: list[Tensor]) -> Tensor:
        """Return the restored image, (1, 3, H, W) in [0, 1]. Used features are freed."""
        semantics = Semantics(self.model, features, guidance, self.statistics)
        decoder = self.model.decoder
        if not isinstance(decoder, PixelSkipDecoder):
            return self._decoded_from_features(semantics)
        skips = self._encoded(decoder)
        x = self._decoded_scales(decoder, skips, semantics)
        return self._corrected(decoder, x)

    def _decoded_from_features(self, semantics: Semantics) -> Tensor:
        """Return the result of the paper's decoder, whose convolutions see two rows of features."""
        restored = torch.empty_like(self.clear)
        for start, stop in self.strips(2):
            top, bottom = max(start - 2, 0), min(stop + 2, self.height // 2)
            part = self.model.decoder([semantics.rows(0, top, bottom)], self.clear)
            part = rows(part, 2 * (start - top), 2 * (stop - start))
            part = self.control.of_result(self.pixels(2 * start, 2 * stop), part)
            self._write(restored, part, 2 * start)
        return restored

    def _encoded(self, decoder: PixelSkipDecoder) -> list[Tensor]:
        """Return the pixel encoder's map at each scale, fine to coarse."""
        x = self.empty(decoder.widths[0], 2)
        margin = self.multiple // 2
        for start, stop in self.strips(2):
            top, bottom = max(start - margin, 0), min(stop + margin, self.height // 2)
            clear = self.pixels(2 * top, 2 * bottom)
            original = self.pixels(2 * top, 2 * bottom, self.original)
            part = decoder.begin(clear, original)
            x[..., start:stop, :] = rows(part, start - top, stop - start)
        skips = []
        for scale, blocks in enumerate(decoder.encoder):
            self._apply_blocks(cast(ResidualBlocks, blocks), x, 2 ** (scale + 1))
            skips.append(x)
            if scale < len(decoder.down):
                stride = 2 ** (scale + 2)
                x = self.empty(decoder.widths[scale + 1], stride)
                for start, stop in self.strips(stride):
                    finer = skips[-1][..., 2 * start : 2 * stop, :].float()
                    x[..., start:stop, :] = decoder.down[scale](finer)
        return skips

    def _decoded_scales(
        self, decoder: PixelSkipDecoder, skips: list[Tensor], semantics: Semantics
    ) -> Tensor:
        """Return the decoder's finest map, of stride 2, from the coarsest scale to the finest.

        The memory of each skip is used for the decoder's map of that scale.
        """
        x = skips[-1]
        for scale in reversed(range(len(skips))):
            stride, finer = 2 ** (scale + 1), skips.pop()
            tap = decoder.scale_of_tap.index(scale) if scale in decoder.scale_of_tap else None
            for start, stop in self.strips(stride):
                part = finer[..., start:stop, :].float()
                if scale < len(decoder.up):
                    part += decoder.up[scale](x[..., start // 2 : stop // 2, :].float())
                if tap is not None:
                    part += decoder.semantics[tap](semantics.rows(tap, start, stop))
                finer[..., start:stop, :] = part
            if tap is not None:
                semantics.drop_coarsest()
            x = finer
            self._apply_blocks(cast(ResidualBlocks, decoder.decoder[scale]), x, stride)
        return x

    def _corrected(self, decoder: PixelSkipDecoder, x: Tensor) -> Tensor:
        """Return the image with the correction from the decoder's finest map."""

        def correction(start: int, stop: int) -> Tensor:
            top = max(start - 1, 0)
            part = decoder.to_correction(x[..., top : stop + 1, :].float())
            return functional.pixel_shuffle(rows(part, start - top, stop - start), 2)

        shift: Tensor | float = 0.0
        if self.statistics.levels:
            sums = [correction(*strip).sum((2, 3), keepdim=True) for strip in self.strips(2)]
            level = torch.stack(sums).sum(0) / (self.height * self.width)
            shift = self.statistics.level(decoder, level) - level
        restored = torch.empty_like(self.clear)
        for start, stop in self.strips(2):
            gain, residual = (correction(start, stop) + shift).chunk(2, dim=1)
            pixels = self.pixels(2 * start, 2 * stop)
            part = self.control.of_result(pixels, pixels + gain * pixels + residual)
            self._write(restored, part, 2 * start)
        return restored

    def _write(self, restored: Tensor, part: Tensor, top: int) -> None:
        """Copy a strip into the result, without the padding."""
        target = restored[..., top : top + part.shape[-2], :]
        target.copy_(in_range(crop_to(part, target.shape[-2:])))

    def _apply_blocks(self, blocks: ResidualBlocks, x: Tensor, stride: int) -> None:
        """Apply residual blocks in place."""
        for block in blocks:
            self._apply_block(cast(ResidualBlock, block), x, stride)

    def _apply_block(self, block: ResidualBlock, x: Tensor, stride: int) -> None:
        statistics = None
        if block.attend is not None:
            total = x.new_zeros(1, x.shape[1], 1, 1, dtype=torch.float32)
            for start, stop in self.strips(stride):
                top = max(start - 1, 0)
                hidden = block.expand(x[..., top : stop + 1, :].float()).relu_()
                total += rows(hidden, start - top, stop - start).sum((2, 3), keepdim=True)
            found = Moments(total / (x.shape[-2] * x.shape[-1]))
            statistics = SuppliedStatistics({block: self.statistics.moments(block, found)})
        above: Tensor | None = None  # the last rows of the previous strip, as they were before
        for start, stop in self.strips(stride):
            part = x[..., start : stop + 2, :].float()
            part = part if above is None else torch.cat([above, part], 2)
            top = 0 if above is None else above.shape[2]
            end = top + stop - start
            above = part[..., max(end - 2, 0) : end, :].clone()
            x[..., start:stop, :] = rows(block(part, statistics), top, stop - start)


def rows(values: Tensor, start: int, count: int) -> Tensor:
    """Return `count` rows of a map (..., H, W), from row `start` on."""
    return values[..., start : start + count, :]
