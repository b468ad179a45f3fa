"""A fixed set of images to validate on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from torch import Generator, Tensor

from vrdir.data.augmentation import View, extend
from vrdir.data.image_cache import ImageCache
from vrdir.data.items import Item, files_of
from vrdir.data.pairs import synthesised
from vrdir.degradations.degrade import with_one_grain
from vrdir.degradations.draws import Ranges, seed_of
from vrdir.degradations.mixture import degrade_mixture
from vrdir.degradations.registry import CLEAN, DEGRADATIONS
from vrdir.errors import ImageError
from vrdir.images.folders import composed

logger = logging.getLogger(__name__)


class ValidationSet:
    """Fixed pairs: the centre of every image, or all of it, degraded the same way every time.

    Args:
        items: the items to validate on.
        branches: the model's degradations.
        crop_px: side of the centre crops; None takes whole images.
        cache_bytes: how much of the decoded images is kept in memory.
        ranges: of the degradations' parameters, where they are not the defaults.
        jpeg_share: as of `TrainingSet`.
        whole: reduce or enlarge the largest centre square to `crop_px`, instead of cutting it out.

    Raises:
        ImageError: a file's header cannot be read.
    """

    def __init__(
        self,
        items: Sequence[Item],
        branches: Sequence[str],
        crop_px: int | None,
        cache_bytes: int = 2 * 2**30,
        ranges: Ranges = {},  # noqa: B006 - never written to
        jpeg_share: float = 0.0,
        whole: bool = False,
    ) -> None:
        self.whole = whole
        self.items, self.crop_px, self.ranges, self.jpeg_share = (
            list(items),
            crop_px,
            ranges,
            jpeg_share,
        )
        self.able = [name for name in branches if name in DEGRADATIONS]
        self.images = ImageCache(files_of(items), cache_bytes)

    def check(self) -> None:
        """Decode every image. A photo that cannot be decoded is logged and left out.

        Raises:
            ImageError: an image of a pair list cannot be decoded.
        """
        for item in list(self.items):
            try:
                for path in files_of([item]):
                    self.images.image(path)
            except ImageError as error:
                if not item.drawn:
                    raise
                logger.warning("not validated on: %s", error)
                self.items.remove(item)

    def kinds(self, shares: Mapping[str, float], accepts: Callable[[Item], bool]) -> list[str]:
        """Return the kinds of images that `pairs` yields."""
        items = [item for item in self.items if accepts(item)]
        drawn = (
            [kind for kind, share in shares.items() if share > 0]
            if any(item.drawn for item in items)
            else []
        )
        return drawn + sorted({item.kind for item in items if not item.drawn})

    def pairs(
        self, shares: Mapping[str, float], accepts: Callable[[Item], bool]
    ) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Yield (kind, degraded, clean), each image (1, 3, H, W) in [0, 1], kind after kind.

        Args:
            shares: the kinds of the stage's mixture; each photo is degraded to each kind.
            accepts: which items the stage uses.

        Raises:
            ImageError: a file cannot be decoded.
        """
        items = [item for item in self.items if accepts(item)]
        for kind in [kind for kind, share in shares.items() if share > 0]:
            for item in [item for item in items if item.drawn]:
                clean = self._cut(item.clean, self.crop_px)
                generator = Generator().manual_seed(
                    seed_of("validation", kind, composed(item.clean.stem))
                )
                degraded = degrade_mixture(
                    clean, {kind: 1.0}, self.able, [generator], self.ranges, self.jpeg_share
                ).image
                degraded = with_one_grain(clean, degraded)
                yield kind, degraded, degraded if kind == CLEAN else clean
        for item in sorted([item for item in items if not item.drawn], key=lambda item: item.kind):
            clean = self._cut(item.clean, self.crop_px)
            degraded = (
                synthesised(clean, item.synthesis, item.clean)
                if item.degraded is None
                else self._cut(item.degraded, self.crop_px)
            )
            yield item.kind, degraded, clean

    def _cut(self, path: Path, size: int | None) -> Tensor:
        image = self.images.image(path)
        if size is not None and self.whole:
            side = min(image.shape[1:])
            top, left = ((extent - side) // 2 for extent in image.shape[1:])
            square = View(size, side, side, False, False, None)
            image = square.apply(image[:, top : top + side, left : left + side])
        elif size is not None:
            image = extend(image, size)
            top, left = ((extent - size) // 2 for extent in image.shape[1:])
            image = image[:, top : top + size, left : left + size]
        return image[None].float() / 255
