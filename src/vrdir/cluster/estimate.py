"""Estimate a run: count the images, restore a sample, and calculate hours and costs."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import torch

from vrdir.cluster import listing, storage
from vrdir.cluster.addresses import shown
from vrdir.cluster.listing import Source
from vrdir.cluster.shards import SHARD_SUFFIXES
from vrdir.cluster.work import Options, restore_content
from vrdir.errors import DataError, VrdirError
from vrdir.images.formats import plain_suffix
from vrdir.images.reading import decode
from vrdir.restoring.restorer import Restorer

EFFICIENCY = 0.9  # of workers, compared with the network alone (benchmarks/cluster.py)


class Estimate(NamedTuple):
    """The estimate of a run.

    Attributes:
        images: the number of images.
        bytes: their total size in bytes. Images without a size in the listing count with the mean
            of the others, or else of the sample.
        types: the number of images by suffix.
        skipped: the number of other files by suffix.
        megapixels: the total of all images, calculated from their bytes and the sample.
        sampled: the number of images in the sample.
        unreadable: the number of these that could not be restored.
        seconds_per_megapixel: the time of one worker, with one thread, on this machine.
        read_seconds: the mean time to read one image from the storage.
        workers: the number of workers for which `hours` is calculated.
        hours: the hours of the whole run.
        price: the cost of the whole run; None if no price was given.
    """

    images: int
    bytes: int
    types: dict[str, int]
    skipped: dict[str, int]
    megapixels: float
    sampled: int
    unreadable: int
    seconds_per_megapixel: float
    read_seconds: float
    workers: int
    hours: float
    price: float | None


def estimate(
    inputs: Iterable[str],
    options: Options,
    *,
    workers: int = 1,
    price: float | None = None,
    sample: int = 12,
    seed: int = 0,
) -> Estimate:
    """List the images at addresses, restore a sample on this machine, and estimate the whole run.

    Nothing is written.

    Args:
        inputs: addresses, as for `vrdir.cluster.listing.sources`.
        options: how the images would be restored.
        workers: the number of workers of the run, with one core each.
        price: the price of an hour of a worker, in any currency.
        sample: the number of images to restore.
        seed: the seed of the random choice of the sample.

    Raises:
        MissingFileError, NotPermittedError, PassingError: the inputs cannot be listed.
        DataError: no image of the sample can be restored; or an input is a shard, whose images
            cannot be counted without reading it.
    """
    counted = count(inputs, sample, seed)
    measured = measure(counted.chosen, options)
    images = counted.types.total()
    mean_bytes = (
        counted.bytes / counted.sized if counted.sized else measured.bytes / measured.restored
    )
    megapixels = images * mean_bytes * measured.megapixels / measured.bytes
    seconds = measured.seconds / measured.megapixels
    hours = megapixels * seconds / 3600 / workers / EFFICIENCY
    return Estimate(
        images,
        round(images * mean_bytes),
        dict(counted.types),
        dict(counted.others),
        megapixels,
        len(counted.chosen),
        len(counted.chosen) - measured.restored,
        seconds,
        measured.read_seconds / measured.restored,
        workers,
        hours,
        None if price is None else hours * workers * price,
    )


class Counted(NamedTuple):
    """The counts of a list of images.

    Attributes:
        types: the number of images by suffix.
        others: the number of other files by suffix.
        sized: the number of images with a size in the listing.
        bytes: the sum of these sizes.
        chosen: the sample.
    """

    types: Counter[str]
    others: Counter[str]
    sized: int
    bytes: int
    chosen: list[Source]


def count(inputs: Iterable[str], sample: int, seed: int) -> Counted:
    """Count the images at addresses and choose a random sample, without a list of all in memory.

    Args:
        inputs: addresses, as for `vrdir.cluster.listing.sources`.
        sample: the number of images to choose.
        seed: the seed of the choice.

    Raises:
        MissingFileError, NotPermittedError, PassingError: the inputs cannot be listed.
        DataError: an input is a shard, whose images cannot be counted without reading it.
    """
    others: Counter[str] = Counter()
    types: Counter[str] = Counter()
    sizes, sized = 0, 0
    chosen: list[Source] = []
    chance = random.Random(seed)
    for number, source in enumerate(listing.sources(inputs, others, SHARD_SUFFIXES)):
        if plain_suffix(source.name) in SHARD_SUFFIXES:
            raise DataError(
                f"{shown(source.address)} is a shard: its images cannot be counted without "
                "reading it; use folders of images with vrdir plan"
            )
        types[plain_suffix(source.name)] += 1
        if source.size is not None:
            sizes, sized = sizes + source.size, sized + 1
        # Reservoir sampling: each image has the same chance, without a list of all.
        if len(chosen) < sample:
            chosen.append(source)
        elif (place := chance.randrange(number + 1)) < sample:
            chosen[place] = source
    return Counted(types, others, sized, sizes, chosen)


class Measured(NamedTuple):
    """Sums over those images of a sample that could be restored.

    Attributes:
        restored: the number of images.
        bytes: their size in bytes.
        megapixels: their size in millions of pixels.
        seconds: the time to restore them.
        read_seconds: the time to read them.
    """

    restored: int
    bytes: int
    megapixels: float
    seconds: float
    read_seconds: float


def measure(chosen: Iterable[Source], options: Options) -> Measured:
    """Read and restore images with one thread, and measure the time.

    Raises:
        DataError: no image can be restored.
    """
    restorer = Restorer(**options.restorer)
    own, problem = torch.get_num_threads(), "there is none"
    sums = Measured(0, 0, 0.0, 0.0, 0.0)
    torch.set_num_threads(1)
    try:
        for number, source in enumerate(chosen):
            start = time.perf_counter()
            try:
                content = storage.read(source.address, source.size)
                arrived = time.perf_counter()
                width, height = decode(content, source.name).size
                if number == 0:  # the first run prepares the network
                    restore_content(restorer, content, source.name, options)
                begun = time.perf_counter()
                restore_content(restorer, content, source.name, options)
            except VrdirError as error:
                problem = str(error)
                continue
            sums = Measured(
                sums.restored + 1,
                sums.bytes + len(content),
                sums.megapixels + width * height / 1e6,
                sums.seconds + time.perf_counter() - begun,
                sums.read_seconds + arrived - start,
            )
    finally:
        torch.set_num_threads(own)
    if not sums.restored:
        raise DataError(f"no image of the sample can be restored: {problem}")
    return sums
