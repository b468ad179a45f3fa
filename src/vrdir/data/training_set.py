"""Batches of random crops for training, which do not depend on how the work is divided."""

from __future__ import annotations

import logging
import math
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from vrdir.data.augmentation import Augmentation, View, extend
from vrdir.data.batches import Batch, BatchMaker, Crops
from vrdir.data.image_cache import ImageCache
from vrdir.data.items import Item, files_of
from vrdir.data.orders import Cycle
from vrdir.degradations.draws import Ranges, seed_of
from vrdir.degradations.registry import suggestion
from vrdir.errors import DataError, ImageError
from vrdir.images.folders import composed

logger = logging.getLogger(__name__)


class TrainingSet:
    """Items, their decoded images, and random crops of them.

    Args:
        items: the items to train on.
        branches: the model's degradations, in the order of `Batch.present`.
        seed: of orders, crops and degradations.
        ranges: values of the degradations' parameters instead of the defaults; see
            `degrade_mixture`.
        jpeg_share: share of the images that are compressed as JPEG at the end. A clean image is
            then its own target, compressed.
        crop_px: side of the crops; smaller images are extended by mirroring.
        view_px: side of the views that are degraded whole, of which a crop is a window; None
            degrades crops.
        copy_px: side of the reduced copies of whole views; None makes none.
        whole_px: side of the views that a stage on whole views sees; None for that of the copies.
        fog_share: share of these views that are shown in fog as a camera records it, where the
            stage says nothing else.
        overlay_share: share of the images with an overlay (`vrdir.degradations.overlays`).
        augmentation: the views of the photos that the crops show.
        balance: whether pair lists (and the folder of photos) count the same: an epoch repeats the
            shorter ones to the length of the longest.
        pairs_share: share of the images from pair lists, spread evenly over the batches, where a
            stage has photos and lists; None for their share of the lines.
        one_source: as of `BatchMaker`.
        cache_bytes: memory for decoded images.
        device: where batches go.
        on_device: whether all images are kept and cut on the GPU; None does so if they take less
            than a quarter of its memory.

    Raises:
        ImageError: a file's header cannot be read.
        DataError: there are no items, or `pairs_share` is given without both photos and lists.
    """

    def __init__(
        self,
        items: Sequence[Item],
        branches: Sequence[str],
        *,
        seed: int = 0,
        ranges: Ranges = {},  # noqa: B006 - never written to
        jpeg_share: float = 0.0,
        crop_px: int = 128,
        view_px: int | None = None,
        copy_px: int | None = None,
        whole_px: int | None = None,
        fog_share: float = 0.0,
        overlay_share: float = 0.0,
        augmentation: Augmentation = "full",
        balance: bool = False,
        pairs_share: float | None = None,
        one_source: bool = False,
        cache_bytes: int = 8 * 2**30,
        device: torch.device | str = "cpu",
        on_device: bool | None = None,
    ) -> None:
        if not items:
            raise DataError("no training data: use a folder of clean photos or pair lists")
        if pairs_share is not None and len({item.kind == "" for item in items}) < 2:
            raise DataError(
                "data.pairs_share needs both photos and pair lists: use --clean and --pairs, or "
                "remove it"
            )
        self.items, self.branches, self.seed, self.crop_px = (
            list(items),
            list(branches),
            seed,
            crop_px,
        )
        self.augmentation, self.balance, self.pairs_share, self.device = (
            augmentation,
            balance,
            pairs_share,
            torch.device(device),
        )
        self.ranges, self.jpeg_share, self.one_source = ranges, jpeg_share, one_source
        self.view_px, self.copy_px, self.overlay_share = view_px, copy_px, overlay_share
        self.whole_px, self.fog_share = whole_px or copy_px, fog_share
        self.images = ImageCache(files_of(items), cache_bytes, self.device, on_device)
        self.warned: set[int] = set()

    def stage(
        self,
        name: str,
        shares: Mapping[str, float],
        accepts: Callable[[Item], bool],
        whole: bool = False,
        fog_share: float | None = None,
    ) -> StageData:
        """Return the images that a stage trains on.

        Args:
            name: the stage's; each stage has its own crops and degradations.
            shares: relative frequency of each kind of image, for the items that the stage's mixture
                degrades.
            accepts: which items the stage uses.
            whole: whether it trains on whole views.
            fog_share: share of its images that are shown in fog as a camera records it; None for
                the set's in a stage on whole views, and 0 in others.

        Raises:
            DataError: it has no items, or there are no reduced copies to train on.
        """
        if whole and self.copy_px is None:
            raise DataError(f"the stage {name} needs a model with a global context")
        accepted = [i for i, item in enumerate(self.items) if accepts(item)]
        if fog_share is None:
            fog_share = self.fog_share if whole else 0.0
        return StageData(self, name, shares, accepted, whole, fog_share)

    def crop(
        self, index: int, generator: Generator, size: int | None = None
    ) -> tuple[Tensor, Tensor, bool]:
        """Return a clean and a degraded view of an item, and whether it is easily taken for fog.

        The views are (3, size, size) uint8, the same if the degradation is synthesised later.

        Args:
            index: of the item.
            generator: source of the view.
            size: side of the view; `crop_px` by default.

        Raises:
            ImageError: a file cannot be decoded, or the two differ in size.
        """
        item = self.items[index]
        clean = self.images.image(item.clean)
        degraded = clean if item.degraded is None else self.images.image(item.degraded)
        if degraded.shape != clean.shape:
            raise ImageError(f"{item.degraded} and {item.clean} differ in size")
        view = View.drawn(
            self.augmentation,
            size or self.crop_px,
            clean.shape[1],
            clean.shape[2],
            item.degraded is None,
            generator,
        )
        least = min(view.height, view.width)
        clean = extend(clean, least)
        top, left = (
            int(torch.randint(extent - part + 1, (), generator=generator))
            for extent, part in zip(clean.shape[1:], (view.height, view.width), strict=True)
        )

        def cut(image: Tensor) -> Tensor:
            return view.apply(image[:, top : top + view.height, left : left + view.width])

        first = cut(clean)
        other = first if item.degraded is None else cut(extend(degraded, least))
        return first, other, view.doubtful


class StageData:
    """The images of a stage, as an endless sequence.

    Each epoch has all items in a new order. Everything about the n-th image (its item, its crop,
    its degradation) depends only on the seed, the stage's name and n. So a resumed run has the same
    images as an uninterrupted one, and processes that share a batch have together the images of one
    process.
    """

    def __init__(
        self,
        data: TrainingSet,
        name: str,
        shares: Mapping[str, float],
        indices: Sequence[int],
        whole: bool = False,
        fog_share: float = 0.0,
    ) -> None:
        if not indices:
            kinds = ", ".join(sorted({item.kind or "photos" for item in data.items}))
            raise DataError(
                f"no training data for the stage {name} (only {kinds}); add --clean or a pair "
                f"list of its degradation{suggestion(name.removeprefix('branch-'))}"
            )
        self.data, self.name = data, name
        self.view_px = (data.whole_px if whole else data.view_px) or data.crop_px
        self.maker = BatchMaker(
            data.branches,
            dict(shares),
            data.device,
            None if whole else data.crop_px,
            self.view_px,
            data.ranges,
            data.jpeg_share,
            data.copy_px,
            fog_share,
            data.overlay_share,
            data.one_source,
        )
        photos, pairs = (
            [i for i in indices if (data.items[i].kind == "") is own] for own in (True, False)
        )
        if data.pairs_share is None or not (photos and pairs):
            self.share, self.from_all, self.from_lists = 0.0, self._cycle("order", indices), None
        else:
            self.share, self.from_all, self.from_lists = (
                data.pairs_share,
                self._cycle("order", photos),
                self._cycle("aside", pairs),
            )
        self.epoch_length = round(self.from_all.length / (1 - self.share))

    def index(self, n: int) -> int:
        """Return the index of the n-th image's item; n counts from 0."""
        # Of the images before and after this one, those from pair lists aside.
        before, after = (math.floor(count * self.share + 1e-9) for count in (n, n + 1))
        if self.from_lists is None or before == after:
            return self.from_all.index(n - before)
        return self.from_lists.index(before)

    def _cycle(self, name: str, indices: Sequence[int]) -> Cycle:
        lists: dict[str, list[int]] = {}
        for index in indices:
            lists.setdefault(self.data.items[index].kind if self.data.balance else "", []).append(
                index
            )
        return Cycle(list(lists.values()), partial(self._seed, name))

    def crops(self, start: int, count: int) -> Crops:
        """Return the crops `start` to `start + count - 1`.

        An image that cannot be decoded is logged and replaced by the next item.
        """
        clean, degraded, doubtful, items = [], [], [], []
        for n in range(start, start + count):
            for index in (self.index(n + tries) for tries in range(20)):
                try:
                    one, other, doubt = self.data.crop(
                        index, torch.Generator().manual_seed(self._seed("crop", n)), self.view_px
                    )
                    break
                except ImageError as error:
                    if index not in self.data.warned:
                        self.data.warned.add(index)
                        logger.warning("%s; another image is used instead", error)
            else:
                raise ImageError(
                    "20 images in a row cannot be read, the last of them "
                    f"{self.data.items[index].name}; check them"
                )
            clean.append(one)
            degraded.append(other)
            doubtful.append(doubt)
            items.append(index)
        return Crops(
            torch.stack(clean),
            torch.stack(degraded),
            doubtful,
            items,
            [self._seed("pixels", n) for n in range(start, start + count)],
        )

    def batch(self, crops: Crops) -> Batch:
        """Return the batch of crops; see `BatchMaker.batch`."""
        return self.maker.batch(crops, [self.data.items[index] for index in crops.items])

    def batches(
        self,
        batch_size: int,
        steps: range,
        *,
        parts: int = 1,
        rank: int = 0,
        processes: int = 1,
        workers: int = 0,
    ) -> Iterator[list[Batch]]:
        """Yield this process's share of the batch of each step.

        Args:
            batch_size: images a step, of all processes together.
            steps: the steps, counted from 1.
            parts: number of parts of the share, for gradient accumulation.
            rank: number of this process, from 0.
            processes: number of processes.
            workers: processes that read and cut crops in advance; 0 does it in this process.

        Raises:
            DataError: the batch cannot be divided like this.
        """
        check_division(batch_size, parts, processes)
        if self.data.images.resident:  # forked processes cannot use images on a GPU
            workers = 0
        if workers and "fork" not in multiprocessing.get_all_start_methods():
            raise DataError(
                "data.workers needs an operating system that can fork processes; set it to 0"
            )
        count = batch_size // processes
        loader = DataLoader(  # one element is one step; workers inherit the cache by forking
            _Steps(self, batch_size, rank * count, count),
            batch_size=None,
            sampler=steps,
            num_workers=workers,
            multiprocessing_context="fork" if workers else None,
            prefetch_factor=4 if workers else None,
        )
        size = count // parts
        for crops in loader:
            yield [
                self.batch(Crops(*(field[i : i + size] for field in crops)))
                for i in range(0, count, size)
            ]

    def _seed(self, *parts: object) -> int:
        return seed_of(self.data.seed, composed(self.name), *parts)


class _Steps(Dataset[Crops]):
    """The crops of each step, of one process."""

    def __init__(self, data: StageData, batch_size: int, first: int, count: int) -> None:
        self.data, self.batch_size, self.first, self.count = data, batch_size, first, count

    def __getitem__(self, step: int) -> Crops:
        return self.data.crops((step - 1) * self.batch_size + self.first, self.count)


def check_division(batch_size: int, parts: int, processes: int) -> None:
    """Raise DataError if a batch cannot be divided among processes and cut into parts."""
    if batch_size % (processes * parts):
        raise DataError(
            f"batch_size {batch_size} cannot be divided into {processes} processes x {parts} "
            "parts; choose a multiple"
        )
