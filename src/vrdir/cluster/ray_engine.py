"""The Ray engine: workers on a cluster restore images and write the account.

Sources are sorted by size and divided into blocks, so that the images of a block have similar
sizes. Ray Data gets the blocks in waves, and passes them to a pool of actors, the workers. Ray
starts actors when there is work, and gives the block of a lost actor or node to another one. After
each batch of a block, an actor writes a part of the account. The name of the part is computed from
the sources of the batch. So a batch that another actor gets after its part was written is not
restored again. An image that ends its workers is set aside (`vrdir.cluster.tries`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from itertools import chain, islice, takewhile
from typing import Any

from vrdir.cluster.account import DONE, Account, Row, key_of, table_of
from vrdir.cluster.addresses import join, shown
from vrdir.cluster.listing import Source
from vrdir.cluster.ray_pool import REASON, connect, map_in_actors, own_errors
from vrdir.cluster.ray_settings import RaySettings
from vrdir.cluster.shards import restore_any, result_name
from vrdir.cluster.tries import MOST, Counts, Tries
from vrdir.cluster.work import Gate, Options, map_threads
from vrdir.errors import DataError, VrdirError, require
from vrdir.restoring.restorer import Restorer

WINDOW = 2048  # sources that are sorted by size together
BATCHES = 4  # in a block, after the first window, so that ten million sources are few blocks
# Blocks that Ray gets at once, while the next ones are listed: few in the first wave, so that work
# begins early; more in later ones, because workers have to wait for the last blocks of a wave.
FIRST_WAVE, WAVE = 1000, 4000
BLOCKS_OF_A_WORKER = 32  # in a wave, if these are more than WAVE
OVERLAPPED = 4  # threads of a worker that read and write while others restore
ANYWHERE = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}  # outlives its node
COLUMNS = ("address", "name", "size", "clash")  # of a block


class Worker:
    """An actor with its own network. Ray calls it with a block of sources.

    Args:
        output: the address of the folder of the results.
        options: how images are restored and written.
        threads: the number of images that are restored at the same time.
        batch: the number of sources whose rows become one part of the account.
        network: the fingerprint of the network that the run must have; "" for any.
        counts: see `Tries`.
    """

    def __init__(
        self,
        output: str,
        options: Options,
        threads: int,
        batch: int,
        network: str = "",
        counts: Any = None,
    ) -> None:
        import torch

        torch.set_num_threads(threads)
        self.account, self.options, self.batch = Account(output), options, batch
        self.tries = Tries(counts)
        self.failure: VrdirError | None = None  # raised by the first call: Ray hides it until then
        try:
            self.gate = Gate(_network_of(options, network), threads, options.max_megapixels)
        except VrdirError as error:
            self.failure = error

    def __call__(self, block: dict[str, Any]) -> Iterator[Any]:
        """Restore the sources of a block; yield the rows of each batch as a pyarrow table.

        Raises:
            VrdirError: this node has not the network of the run.
        """
        if self.failure is not None:
            raise self.failure
        sources = [
            Source(str(address), str(name), None if size < 0 else int(size), clash=bool(clash))
            for address, name, size, clash in zip(*(block[key] for key in COLUMNS), strict=True)
        ]
        starts = range(0, len(sources), self.batch)
        batches = [sources[start : start + self.batch] for start in starts]
        finished = [self._finished(batch) for batch in batches]
        left = [batch for batch, rows in zip(batches, finished, strict=True) if not rows]
        results = self._results(left)
        for batch, rows in zip(batches, finished, strict=True):
            if not rows:
                rows = list(chain.from_iterable(islice(results, len(batch))))
                self.account.write_part(rows, batch_name(batch))
                self.tries.end([batch_name(batch)])
            yield table_of(rows)

    def _results(self, batches: list[list[Source]]) -> Iterator[list[Row]]:
        """Restore the sources of batches: one stream, in which no thread waits for a batch."""
        sources = chain.from_iterable(batches)
        if self.tries.begin([batch_name(batch) for batch in batches]):
            return map_threads(self._alone, sources, 1)
        return map_threads(self._restored, sources, self.gate.at_once + OVERLAPPED)

    def _alone(self, source: Source) -> list[Row]:
        """Restore a source while no other is at work, unless that ended too many workers."""
        name = [f"alone {key_of(source)}"]
        if self.tries.begin(name):
            return [lost_with(source, self.account.output, self.options)]
        rows = self._restored(source)
        self.tries.end(name)
        return rows

    def _finished(self, batch: list[Source]) -> list[Row]:
        """Return the rows of a batch that a lost worker has finished; none if work is left."""
        name = batch_name(batch)
        rows = self.account.part(name) if self.account.has_part(name) else []
        return [] if any(row.status not in DONE for row in rows) else rows

    def _restored(self, source: Source) -> list[Row]:
        return restore_any(self.gate, source, self.account.output, self.options)


def _network_of(options: Options, expected: str) -> Restorer:
    """Return the restorer of a worker. Raises VrdirError if it is not that of the run."""
    restorer = Restorer(**options.restorer)
    if expected not in ("", restorer.fingerprint()):
        raise DataError(
            f"a node of the cluster has other weights {options.restorer.get('weights', 'small')} "
            "than the machine that runs the command; copy the same to all nodes"
        )
    return restorer


def lost_with(source: Source, output: str, options: Options) -> Row:
    """Return the row of a source that ended its workers."""
    target = join(output, result_name(source.name, options.suffix))
    return Row(
        shown(source.address),
        shown(target),
        status="failed",
        error=f"{MOST} workers were lost while each restored this image alone; it may need more "
        "memory than a worker has, or crash the program that decodes it",
        time=time.time(),
        key=key_of(source),
    )


def batch_name(sources: list[Source]) -> str:
    """Return the name of the part of the account for a batch of sources."""
    keys = ",".join(str(key_of(source)) for source in sources)
    return blake2b(keys.encode(), digest_size=12).hexdigest()


def restore_on_ray(
    listed: Iterable[Source],
    account: Account,
    options: Options,
    settings: RaySettings,
    network: str,
) -> Generator[Row, None, None]:
    """Restore sources on a Ray cluster, and yield their rows.

    The arguments and errors are those of `vrdir.cluster.run.restore_addresses`.
    """
    connect(settings)
    ray = require("ray", "cluster", REASON)
    arguments = {
        "output": account.output,
        "options": options,
        "threads": max(1, int(settings.cpus)),
        "batch": settings.batch,
        "network": network,
        "counts": ray.remote(Counts).options(**ANYWHERE).remote(),
    }
    data = require("ray.data", "cluster", REASON)
    size = BATCHES * settings.batch if settings.gpus else None
    most = max(WAVE, BLOCKS_OF_A_WORKER * settings.workers[1])
    with own_errors():
        for blocks in waves(blocks_of(listed, settings.batch), FIRST_WAVE, most):
            mapped = map_in_actors(data.from_arrow(blocks), Worker, arguments, settings, size)
            for batch in mapped.iter_batches(batch_size=None, batch_format="pyarrow"):
                for row in batch.to_pylist():
                    yield Row(**row)


def waves(blocks: Iterator[Any], first: int, most: int) -> Iterator[list[Any]]:
    """Yield lists of blocks. While one list is processed, a thread prepares the next one.

    So work begins before the whole bucket is listed.

    Args:
        blocks: the blocks.
        first: the number of blocks in the first list; each further list has twice as many.
        most: the largest number of blocks in a list.
    """
    stopped = threading.Event()

    def draw(length: int) -> list[Any]:
        return list(islice(takewhile(lambda _: not stopped.is_set(), blocks), length))

    with ThreadPoolExecutor(1, "listing") as pool:
        try:
            drawn, length = pool.submit(draw, min(first, most)), first
            while wave := drawn.result():
                length = min(2 * length, most)
                drawn = pool.submit(draw, length)
                yield wave
        finally:
            stopped.set()


def blocks_of(listed: Iterable[Source], batch: int) -> Iterator[Any]:
    """Divide sources into blocks, pyarrow tables of sources with similar sizes.

    A worker gets one block at a time. The first blocks contain one batch each, so that a short list
    is divided among all workers; later ones contain `BATCHES`.

    Args:
        listed: the sources.
        batch: the number of sources in a batch.
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
                    "clash": [source.clash for source in block],
                }
            )
        length = BATCHES * batch
