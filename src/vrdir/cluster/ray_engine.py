"""The Ray engine: the list is divided among workers, which read, restore, write and note rows.

The list streams through Ray Data: blocks of sources, sorted by size inside a block so that the
images of a batch are of like size, go to a pool of actors. Ray holds back the list while all are
busy, starts actors where there is work, and gives the batch of a lost actor or node to another. An
actor writes a part of the account after each batch, under a name made from the batch: a batch that
is given out again after its part was written is not restored again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import islice
from typing import Any

from vrdir.cluster.account import Account, Row, key_of
from vrdir.cluster.listing import Source
from vrdir.cluster.ray_settings import RaySettings
from vrdir.cluster.shards import restore_any
from vrdir.cluster.work import Gate, Options, map_threads
from vrdir.errors import require

REASON = "--engine ray needs Ray"
WINDOW = 2048  # sources of the list that are sorted by size together
BATCHES = 8  # of a block, after the first window, so that ten million sources are few blocks
OVERLAPPED = 4  # threads of a worker that read and write while others restore


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
    ray = require("ray", "cluster", REASON)
    data = require("ray.data", "cluster", REASON)
    connect(ray, settings)
    data.DataContext.get_current().enable_progress_bars = False
    blocks = [ray.put(block) for block in blocks_of(listed, settings.batch)]
    if not blocks:
        return
    rows = data.from_arrow_refs(blocks).map_batches(
        Worker,
        fn_constructor_kwargs={
            "output": account.output,
            "options": options,
            "threads": max(1, int(settings.cpus)),
        },
        batch_size=settings.batch,
        batch_format="numpy",
        compute=data.ActorPoolStrategy(
            min_size=settings.workers[0], max_size=max(settings.workers)
        ),
        num_cpus=settings.cpus,
        num_gpus=settings.gpus or None,
    )
    for batch in rows.iter_batches(batch_size=None, batch_format="pyarrow"):
        for row in batch.to_pylist():
            yield Row(**row)


def connect(ray: Any, settings: RaySettings) -> None:
    """Connect to the cluster, unless this program is connected.

    Raises:
        InputError: there is none at the address.
    """
    from vrdir.errors import InputError, first_line

    if ray.is_initialized():
        return
    try:
        ray.init(settings.address, log_to_driver=False, logging_level="error")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(
            f"no Ray cluster at {settings.address!r} ({first_line(error)}); start one with "
            "'ray start --head', or leave --ray-address out to start one on this machine"
        ) from None


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
