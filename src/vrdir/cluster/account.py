"""The account of a run: a table with a row for each image, in Parquet files (its parts)."""

from __future__ import annotations

import json
import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np

from vrdir import __version__
from vrdir.cluster import listing, storage
from vrdir.cluster.addresses import join, shown
from vrdir.cluster.file_systems import open_storage
from vrdir.cluster.listing import Source
from vrdir.errors import DataError, ExistsError, MissingFileError, require

FOLDER = ".vrdir-account"
READERS = 16  # threads that read parts
DONE = {"restored", "failed"}  # the statuses of images that a resumed run skips
REASON = "the account of a run over addresses needs pyarrow"


class Row(NamedTuple):
    """The result of one image.

    Attributes:
        source: the address of the image, without secrets.
        target: the address of the result, without secrets.
        source_bytes: the size of the image in bytes; 0 if it was not read.
        target_bytes: the size of the result in bytes; 0 if it was not written.
        source_sha256: the SHA-256 of the image; "" if it was not read.
        target_sha256: the SHA-256 of the result; "" if it was not written.
        status: "restored", "failed", "unreachable" or "exists". "failed" is an image that cannot be
            restored; a resumed run skips it. A resumed run tries the last two again: the storage or
            the disk failed, or another file has the name of the target.
        error: the error message; "" if there is none.
        haze, noise, rain, changed: the diagnosis (`vrdir.batch.results.Diagnosis`); None for images
            that were not restored. The haze is also None if the network does not measure it.
        seconds: the time for reading, restoring and writing.
        time: when the image was finished, in seconds since 1970, by the clock of the worker.
        key: a hash of address and size, by which a resumed run recognises the image.
    """

    source: str
    target: str
    source_bytes: int = 0
    target_bytes: int = 0
    source_sha256: str = ""
    target_sha256: str = ""
    status: str = "restored"
    error: str = ""
    haze: float | None = None
    noise: float | None = None
    rain: float | None = None
    changed: float | None = None
    seconds: float = 0.0
    time: float = 0.0
    key: int = 0


def key_of(source: Source) -> int:
    """Return 63 bits of a hash of a source's address and size."""
    return hash_of(f"{source.address}\0{source.size}")


def hash_of(text: str) -> int:
    """Return 63 bits of a hash of a text."""
    content = text.encode("utf-8", "surrogateescape")
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "big") >> 1


def schema() -> Any:
    """Return the account's pyarrow schema."""
    arrow = require("pyarrow", "s3", REASON)
    text, whole, real = arrow.string(), arrow.int64(), arrow.float64()
    kinds = {
        "source_bytes": whole,
        "target_bytes": whole,
        "haze": real,
        "noise": real,
        "rain": real,
        "changed": real,
        "seconds": real,
        "time": real,
        "key": whole,
    }
    return arrow.schema([(name, kinds.get(name, text)) for name in Row._fields])


def _fields(names: Sequence[str]) -> Any:
    """Return the part of the schema with these columns."""
    arrow = require("pyarrow", "s3", REASON)
    return arrow.schema([schema().field(name) for name in names])


def _read_part(address: str, columns: Sequence[str]) -> Any:
    """Return columns of a part, as a pyarrow table. Raises DataError if the part is damaged."""
    arrow = require("pyarrow", "s3", REASON)
    parquet = require("pyarrow.parquet", "s3", REASON)
    content = storage.read(address)
    try:
        part = parquet.read_table(arrow.BufferReader(content), columns=list(columns))
        part = part.select(list(columns)).cast(_fields(columns))
        part.validate(full=True)
    except (arrow.ArrowException, OSError, ValueError, KeyError):  # any of them for damaged files
        raise DataError(f"{shown(address)} is damaged; delete it") from None
    return part


def table_of(rows: Sequence[Row]) -> Any:
    """Return rows as a pyarrow table."""
    arrow = require("pyarrow", "s3", REASON)
    columns = {field: [getattr(row, field) for row in rows] for field in Row._fields}
    return arrow.table(columns, schema=schema())


class Account:
    """The account of a run, in the folder `.vrdir-account` among the results.

    The folder contains _run.json, the settings of the run, and Parquet files, the parts of the
    account. A part is written whole or not at all, so a killed run loses only the rows of images
    that no part has yet. pyarrow reads the folder as one table:
    `pyarrow.dataset.dataset(".../.vrdir-account")`.

    Args:
        output: the address of the folder of the results.
    """

    def __init__(self, output: str) -> None:
        self.output = output
        self.folder = join(output, FOLDER)

    def begin(self, settings: Mapping[str, Any], resume: bool) -> None:
        """Write the settings of a new run, or check that a resumed run has the same settings.

        Args:
            settings: the settings that decide the pixels, as JSON values.
            resume: whether an earlier run may be continued.

        Raises:
            ExistsError: there is an account, and `resume` is False; or another program is writing
                one at the same time.
            DataError: the account belongs to a run with other settings, or is damaged.
            NotPermittedError, PassingError: the storage cannot be read or written.
        """
        address = join(self.folder, "_run.json")
        run = {"vrdir": __version__, **settings}
        try:
            noted = dict(json.loads(storage.read(address)))
        except MissingFileError:
            # With an id of its own, so that of two equal runs that begin together one fails.
            content = {**run, "id": uuid.uuid4().hex}
            storage.create(address, json.dumps(content, indent=1).encode())
            return
        except (ValueError, TypeError, RecursionError):
            raise DataError(
                f"{shown(address)} is damaged; delete the folder that contains it"
            ) from None
        if not resume:
            raise ExistsError(
                f"{shown(self.folder)} is the account of an earlier run; continue it with "
                "--resume, or choose another output"
            )
        different = sorted(
            name
            for name in (run.keys() | noted.keys()) - {"id"}
            if run.get(name) != noted.get(name)
        )
        if different:
            raise DataError(
                f"the run at {shown(self.output)} was made with other settings "
                f"({', '.join(different)}); use the same, or choose another output"
            )

    def begun(self) -> float | None:
        """Return when the run began, by the storage's clock; see `storage.modified`."""
        return storage.modified(join(self.folder, "_run.json"))

    def write_part(self, rows: Sequence[Row], name: str | None = None) -> None:
        """Write rows as a part. A part of the same name is replaced; by default the name is new."""
        if not rows:
            return
        arrow = require("pyarrow", "s3", REASON)
        parquet = require("pyarrow.parquet", "s3", REASON)
        sink = arrow.BufferOutputStream()
        parquet.write_table(table_of(rows), sink)
        part = f"part-{name or uuid.uuid4().hex}.parquet"
        storage.write(join(self.folder, part), sink.getvalue().to_pybytes())

    def part(self, name: str) -> list[Row]:
        """Return the rows of a part. Raises DataError if the part is damaged."""
        part = _read_part(join(self.folder, f"part-{name}.parquet"), Row._fields)
        return [Row(**row) for row in part.to_pylist()]

    def has_part(self, name: str) -> bool:
        """Return whether a part of this name exists."""
        return storage.exists(join(self.folder, f"part-{name}.parquet"))

    def parts(self) -> Iterator[str]:
        """Yield the addresses of the parts."""
        system, path = open_storage(self.folder)
        for entry in listing.below(system, path, self.folder):
            name = str(entry["name"]).rpartition("/")[2]
            if name.startswith("part-") and name.endswith(".parquet"):
                yield join(self.folder, name)

    def table(self, columns: Sequence[str] | None = None) -> Any:
        """Return all rows as a pyarrow table; by default with all columns (the fields of `Row`).

        An image has several rows if a resumed run tried it again; `rows` returns the last ones.
        """
        arrow = require("pyarrow", "s3", REASON)
        wanted = list(columns or Row._fields)
        return arrow.concat_tables([_fields(wanted).empty_table(), *self._tables(wanted)])

    def _tables(self, columns: Sequence[str]) -> Iterator[Any]:
        """Yield the parts as pyarrow tables. Threads read them, because a long run has many."""
        with ThreadPoolExecutor(READERS, "account") as pool:
            yield from pool.map(_read_part, sorted(self.parts()), repeat(columns))

    def rows(self) -> list[Row]:
        """Return the last row of each source, sorted by the address of the source."""
        rows = sorted((Row(**row) for row in self.table().to_pylist()), key=lambda row: row.time)
        latest = {row.source: row for row in rows}
        done = {row.key for row in rows if row.status in DONE}  # a shard has several rows
        left = (row for row in latest.values() if row.status in DONE or row.key not in done)
        return sorted(left)

    def finished(self) -> Keys:
        """Return the keys of the images that a resumed run skips (their status is in `DONE`)."""
        found = [np.empty(0, np.int64)]
        for table in self._tables(["key", "status"]):
            done = np.isin(table.column("status").to_numpy(zero_copy_only=False), list(DONE))
            found.append(table.column("key").to_numpy()[done])
        return Keys(np.unique(np.concatenate(found)))


class Keys:
    """A set of hashes of 63 bits. Each takes 8 bytes, so that ten million take 80 MB.

    Args:
        keys: the initial keys, a sorted array of int64.
    """

    def __init__(self, keys: np.ndarray[Any, Any] | None = None) -> None:
        self.keys = np.empty(0, np.int64) if keys is None else keys
        self._added: set[int] = set()

    def __contains__(self, key: int) -> bool:
        place = int(np.searchsorted(self.keys, key))
        return key in self._added or (place < len(self.keys) and int(self.keys[place]) == key)

    def __len__(self) -> int:
        return len(self.keys) + len(self._added)

    def add(self, key: int) -> bool:
        """Add a key and return whether it is new."""
        if key in self:
            return False
        self._added.add(key)
        if len(self._added) > max(4096, len(self.keys) // 64):  # a Python set is large
            added = np.fromiter(self._added, np.int64, len(self._added))
            self.keys = np.union1d(self.keys, added)
            self._added = set()
        return True


class Recorder:
    """Collects rows and writes them to an account, a part for every `most` rows.

    Several threads may use it. Call `flush` to write the remaining rows.

    Args:
        account: the account to write to.
        most: the number of rows of a part.

    Attributes:
        counts: the number of rows with each status.
    """

    def __init__(self, account: Account, most: int = 500) -> None:
        self.account, self.most = account, most
        self.counts: Counter[str] = Counter()
        self._rows: list[Row] = []
        self._lock = threading.Lock()

    def add(self, row: Row) -> None:
        """Add a row; write a part if there are enough rows."""
        with self._lock:
            self.counts[row.status] += 1
            self._rows.append(row)
            full = self._rows if len(self._rows) >= self.most else []
            if full:
                self._rows = []
        self.account.write_part(full)

    def flush(self) -> None:
        """Write a part with the rows that were not written yet."""
        with self._lock:
            rows, self._rows = self._rows, []
        self.account.write_part(rows)
