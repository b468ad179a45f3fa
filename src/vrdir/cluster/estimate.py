"""What a run would take: counts and sizes, and from a quick sample hours and money."""

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

EFFICIENCY = 0.9  # of workers against a bare network (benchmarks/cluster.py)


class Estimate(NamedTuple):
    """What a run would take.

    Attributes:
        images: their number.
        bytes: their size together; of images without a size in the listing, as the sample's.
        types: the number of images by suffix.
        skipped: the number of other files by suffix.
        megapixels: of all images, by the sample's pixels a byte.
        sampled, unreadable: images of the sample, and those of them that could not be restored.
        seconds_per_megapixel: of one worker, with one thread, on this machine.
        read_seconds: of reading one image from the storage, on average.
        workers: for which the hours are.
        hours: of the whole run.
        price: of the whole run, None where no price of a worker's hour was given.
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
    """List the images at addresses, restore a few of them here, and estimate the whole run.

    Nothing is written.

    Args:
        inputs: see `vrdir.cluster.listing.sources`.
        options: how the images would be restored.
        workers: workers of one core each that the run would have.
        price: of an hour of a worker, in any currency.
        sample: images that are restored.
        seed: chooses the sample.

    Raises:
        MissingFileError, NotPermittedError, PassingError: the inputs cannot be listed.
        DataError: none of the sample can be restored, or the inputs are shards, whose images
            are not counted without reading them.
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
    """What a list of images holds.

    Attributes:
        types, others: the numbers of images and of other files by suffix.
        sized, bytes: images whose size the listing has, and the sum of these sizes.
        chosen: the sample.
    """

    types: Counter[str]
    others: Counter[str]
    sized: int
    bytes: int
    chosen: list[Source]


def count(inputs: Iterable[str], sample: int, seed: int) -> Counted:
    """Count the images at addresses and choose a sample, in little memory.

    Raises:
        MissingFileError, NotPermittedError, PassingError: they cannot be listed.
        DataError: there is a shard, whose images are not counted without reading it.
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
        # Reservoir sampling: each image has the same chance, and no list of all is held.
        if len(chosen) < sample:
            chosen.append(source)
        elif (place := chance.randrange(number + 1)) < sample:
            chosen[place] = source
    return Counted(types, others, sized, sizes, chosen)


class Measured(NamedTuple):
    """The sums over a sample's images that could be restored."""

    restored: int
    bytes: int
    megapixels: float
    seconds: float
    read_seconds: float


def measure(chosen: Iterable[Source], options: Options) -> Measured:
    """Read and restore images with one thread and take the time.

    Raises:
        DataError: none could be restored.
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
