"""A run over addresses, on this machine or on Ray, with an account so that it can be resumed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from itertools import chain
from typing import Any, Literal

import torch

from vrdir.cluster import listing
from vrdir.cluster.account import Account, Keys, Recorder, Row, hash_of, key_of
from vrdir.cluster.addresses import absolute, shown
from vrdir.cluster.claim import Claim
from vrdir.cluster.listing import Source
from vrdir.cluster.ray_pool import REASON
from vrdir.cluster.ray_settings import RaySettings
from vrdir.cluster.shards import SHARD_SUFFIXES, restore_any, result_name
from vrdir.cluster.videos import listed_suffixes
from vrdir.cluster.work import Gate, Options, for_workers, map_threads
from vrdir.errors import InputError, require
from vrdir.images.formats import IMAGE_SUFFIXES, plain_suffix
from vrdir.restoring.restorer import Restorer
from vrdir.video.formats import VIDEO_SUFFIXES

Engine = Literal["local", "ray"]
OVERLAPPED = 6  # threads that read and write while others restore
FLUSH_S = 5.0  # seconds after which rows are written: a killed run loses no more


def restore_addresses(
    inputs: Iterable[str],
    output: str,
    options: Options,
    *,
    resume: bool = False,
    engine: Engine = "local",
    others: Counter[str] | None = None,
    ray: RaySettings | None = None,
) -> Generator[Row, None, None]:
    """Restore images at addresses into a folder at an address, and write an account.

    Args:
        inputs: addresses, as for `vrdir.cluster.listing.sources`.
        output: the address of the folder for the results. It will contain the account, in
            `.vrdir-account`.
        options: how images are restored and written.
        resume: continue an earlier run with the same settings: skip the images that its account has
            as restored or failed.
        engine: "local" for this machine, "ray" for a Ray cluster.
        others: counts the files that are not images, by suffix.
        ray: how the cluster is used; None for the default settings.

    Yields:
        The row of each image, when it is finished.

    Raises:
        ExistsError: the output has an account, and `resume` is False; or another program writes
            into the output.
        InputError: the output is also an input, so that results would replace their sources, or
            has the name of a file.
        DataError: the account belongs to a run with other settings, or is damaged.
        MissingFileError, NotPermittedError, PassingError, DiskError: an input cannot be listed, or
            the output cannot be written.
        MissingPackageError: a package for the storage or the engine is not installed.
    """
    if engine == "ray":
        require("ray.data", "cluster", REASON)
    # On Ray this program restores nothing, and may have no GPU.
    here = {**options.restorer, "device": "cpu"} if engine == "ray" else options.restorer
    restorer = Restorer(**here)
    inputs = list(inputs)
    check_output(output, inputs)
    if engine == "ray":  # its workers are in other folders
        inputs, output = [absolute(given) for given in inputs], absolute(output)
        options = options._replace(restorer=for_workers(options.restorer))
    wanted = SHARD_SUFFIXES | listed_suffixes()
    listed: Iterator[Source] = listing.sources(inputs, others, wanted, without=output)
    if engine == "ray":
        listed = (source._replace(address=absolute(source.address)) for source in listed)
    first = next(listed, None)  # if the inputs cannot be listed, nothing is written
    account = Account(output)
    account.begin(settings_of(options, restorer), resume)
    with Claim(account.folder) as claim:
        options = options._replace(since=_since(account))
        listed = distinct(chain([] if first is None else [first], listed), options.suffix)
        if resume:
            finished = account.finished()
            listed = (source for source in listed if key_of(source) not in finished)
        if engine == "ray":
            from vrdir.cluster.ray_engine import restore_on_ray

            rows = restore_on_ray(
                listed, account, options, ray or RaySettings(), restorer.fingerprint()
            )
        else:
            rows = restore_here(listed, account, options, restorer)
        with closing(rows):
            for row in rows:
                claim.check()
                yield row


def _since(account: Account) -> float | None:
    """Return when the run began; wait, if needed, so that all results get a later time."""
    since = account.begun()
    if since == int(since or 0):  # a clock of whole seconds, as of S3
        time.sleep(1)
    return since


def check_output(output: str, inputs: Iterable[str]) -> None:
    """Raise InputError if the output has the name of a file, or is also an input."""
    if plain_suffix(output) in IMAGE_SUFFIXES | SHARD_SUFFIXES | VIDEO_SUFFIXES:
        raise InputError(
            f"the output {shown(output)} has the name of a file; give a folder, such as "
            "s3://bucket/clear, in which each result has the name of its source"
        )
    for given in inputs:
        if listing.is_same(given, output):
            raise InputError(f"{shown(given)} would be written over itself; choose another output")


def distinct(listed: Iterable[Source], suffix: str | None) -> Iterator[Source]:
    """Leave out sources that were listed before, and mark those whose target an earlier one has.

    Each source takes 16 bytes of memory, for the hashes of its address and of its target.

    Args:
        listed: the sources.
        suffix: the suffix of all results; None keeps each file's.
    """
    seen = Keys()
    for source in listed:
        if seen.add(hash_of(f"source\0{source.address}")):
            new = seen.add(hash_of(f"target\0{result_name(source.name, suffix)}"))
            yield source._replace(clash=not new)


def settings_of(options: Options, restorer: Restorer) -> dict[str, Any]:
    """Return the settings that decide the pixels of a run, for its account, as JSON values."""
    return {
        "weights": restorer.fingerprint(),
        "backend": str(options.restorer.get("backend", "torch")),
        "suffix": options.suffix,
        "quality": options.quality,
        "max_side": options.max_side,
        "max_megapixels": options.max_megapixels,
        "column": options.column,
        "smoothing": options.smoothing,
    }


def restore_here(
    listed: Iterable[Source], account: Account, options: Options, restorer: Restorer
) -> Generator[Row, None, None]:
    """Restore on this machine, in threads: some restore while others read and write.

    Yields:
        The row of each image, when it is finished.
    """
    gate = Gate(restorer, torch.get_num_threads(), options.max_megapixels)
    recorder = Recorder(account)
    last = time.monotonic()

    def work(source: Source) -> list[Row]:
        return restore_any(gate, source, account.output, options)

    try:
        for rows in map_threads(work, listed, gate.at_once + OVERLAPPED):
            for row in rows:
                recorder.add(row)
            if time.monotonic() - last > FLUSH_S:
                recorder.flush()
                last = time.monotonic()
            yield from rows
    finally:
        recorder.flush()
