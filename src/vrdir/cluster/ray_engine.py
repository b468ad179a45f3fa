"""The Ray engine: the list is divided among workers, which read, restore, write and note rows.

The list streams through Ray Data: blocks of sources, sorted by size inside a block so that the
images of a batch are of like size, go to a pool of actors. Ray holds back the list while all are
busy, starts actors where there is work, and gives the batch of a lost actor or node to another. An
actor writes a part of the account after each batch, under a name made from the batch: a batch that
is given out again after its part was written is not restored again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from itertools import islice
from typing import Any, TypeVar

from vrdir.cluster.account import Account, Row, key_of
from vrdir.cluster.listing import Source
from vrdir.cluster.ray_pool import REASON, connect, map_in_actors
from vrdir.cluster.ray_settings import RaySettings
from vrdir.cluster.shards import restore_any
from vrdir.cluster.work import Gate, Options, map_threads
from vrdir.errors import require

WINDOW = 2048  # sources of the list that are sorted by size together
BATCHES = 4  # of a block, after the first window, so that ten million sources are few blocks
WAVE = 4000  # blocks that Ray gets at once; the next ones are listed meanwhile
AT_ONCE = 2  # batches of a worker: the second is read while the last images of the first restore
OVERLAPPED = 3  # threads of a batch that read and write while others restore

Item = TypeVar("Item")


class Worker:
    """An actor with its own network. Ray calls it with a batch of sources."""

    def __init__(self, output: str, options: Options, threads: int) -> None:
        import torch

        from vrdir.restoring.restorer import Restorer

        torch.set_num_threads(threads)
        self.account, self.options = Account(output), options
        self.gate = Gate(Restorer(**options.restorer), threads)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Restore a batch and return its rows by column."""
        sources = [
            Source(str(address), str(name), None if size < 0 else int(size))
            for address, name, size in zip(*(batch[key] for key in Source._fields), strict=True)
        ]
        name = batch_name(sources)
        if not self.account.has_part(name):

            def work(source: Source) -> list[Row]:
                return restore_any(self.gate, source, self.account.output, self.options)

            rows = [
                row
                for found in map_threads(work, sources, self.gate.at_once + OVERLAPPED)
                for row in found
            ]
            self.account.write_part(rows, name)
        else:
            rows = self.account.part(name)
        return {field: [getattr(row, field) for row in rows] for field in Row._fields}


def batch_name(sources: list[Source]) -> str:
    """Return the name of a batch's part in the account."""
    keys = ",".join(str(key_of(source)) for source in sources)
    return blake2b(keys.encode(), digest_size=12).hexdigest()


def restore_on_ray(
    listed: Iterable[Source], account: Account, options: Options, settings: RaySettings
) -> Iterator[Row]:
    """Restore sources on a Ray cluster; see `vrdir.cluster.run.restore_addresses`."""
    connect(settings)
    arguments = {
        "output": account.output,
        "options": options,
        "threads": max(1, int(settings.cpus)),
    }
    for blocks in ahead(waves(blocks_of(listed, settings.batch))):
        data = require("ray.data", "cluster", REASON)
        mapped = map_in_actors(
            data.from_arrow(blocks), Worker, arguments, settings, at_once=AT_ONCE
        )
        for batch in mapped.iter_batches(batch_size=None, batch_format="pyarrow"):
            for row in batch.to_pylist():
                yield Row(**row)


def waves(blocks: Iterator[Any]) -> Iterator[list[Any]]:
    """Divide blocks into lists, so that work begins before the whole bucket is listed."""
    while wave := list(islice(blocks, WAVE)):
        yield wave


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Yield items; while one is used, a thread draws the next."""
    with ThreadPoolExecutor(1, "listing") as pool:
        drawn = pool.submit(next, items, None)
        while (item := drawn.result()) is not None:
            drawn = pool.submit(next, items, None)
            yield item


def blocks_of(listed: Iterable[Source], batch: int) -> Iterator[Any]:
    """Divide sources into pyarrow tables of sources of like size.

    A block is what a worker gets at once. The first ones hold a batch each, so that a short list is
    divided among all workers.
    """
    arrow = require("pyarrow", "cluster", REASON)
    sources, length = iter(listed), batch
    while window := list(islice(sources, WINDOW)):
        window.sort(key=lambda source: (source.size or 0, source.address))
        for start in range(0, len(window), length):
            block = window[start : start + length]
            sizes = [-1 if source.size is None else source.size for source in block]
            yield arrow.table(
                {
                    "address": [source.address for source in block],
                    "name": [source.name for source in block],
                    "size": arrow.array(sizes, arrow.int64()),
                }
            )
        length = BATCHES * batch
