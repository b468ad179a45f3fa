"""Shards, files that contain many images: tar files of WebDataset, and Parquet tables.

The result of a shard is a shard. Its other members or columns stay unchanged, in the same order. An
image that cannot be restored also stays unchanged, so that its labels still belong to an image; its
row in the account has the status "failed".
"""

from __future__ import annotations

import io
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from vrdir.cluster import storage
from vrdir.cluster.account import Row, key_of
from vrdir.cluster.addresses import join, shown
from vrdir.cluster.listing import Source
from vrdir.cluster.videos import restore_video
from vrdir.cluster.work import (
    Gate,
    Options,
    check_free,
    failure,
    finish,
    map_threads,
    restore_source,
    target_name,
)
from vrdir.errors import DataError, first_line, require
from vrdir.images.folders import is_litter
from vrdir.images.formats import IMAGE_SUFFIXES, plain_suffix
from vrdir.video.formats import VIDEO_SUFFIXES

SHARD_SUFFIXES = {".tar", ".parquet"}
ROWS_AT_ONCE = 64  # rows of a Parquet table whose images are in memory
COLUMNS = ("image", "img", "jpg", "png", "bytes", "content")  # usual names of image columns


def restore_any(gate: Gate, source: Source, output: str, options: Options) -> list[Row]:
    """Restore an image, a video, or all images of a shard. Failures are recorded in the rows.

    Raises:
        DiskError: the disk of the results is full or read-only.
    """
    if plain_suffix(source.name) in SHARD_SUFFIXES:
        return restore_shard(gate, source, output, options)
    if plain_suffix(source.name) in VIDEO_SUFFIXES:
        return [restore_video(gate, source, output, options)]
    return [restore_source(gate, source, output, options)]


def result_name(name: str, suffix: str | None) -> str:
    """Return the name of the result of a source; that of shards and videos stays the same."""
    keeps = plain_suffix(name) in SHARD_SUFFIXES | VIDEO_SUFFIXES
    return name if keeps else target_name(name, suffix)


def restore_shard(gate: Gate, source: Source, output: str, options: Options) -> list[Row]:
    """Restore all images of a shard into a shard of the same name.

    Failures are recorded in the rows, not raised.

    Raises:
        DiskError: the disk of the results is full or read-only.
    """
    target = join(output, source.name)
    whole = Row(shown(source.address), shown(target), key=key_of(source))
    start = time.perf_counter()
    try:
        check_free(source, target, options)
        with tempfile.TemporaryDirectory(prefix="vrdir-") as folder:
            before, after = Path(folder, "before"), Path(folder, "after")
            storage.fetch(source.address, before, source.size)
            restore = _restore_tar if plain_suffix(source.name) == ".tar" else _restore_parquet
            rows = list(restore(gate, before, after, whole, options))
            storage.put(after, target)
        return rows or [finish(whole, start)]
    except Exception as error:  # the next shard is another
        return [finish(failure(whole, error), start)]


def _restored(
    gate: Gate, content: bytes, name: str, whole: Row, options: Options
) -> tuple[bytes, Row]:
    """Restore one image of a shard; return its new (or unchanged) content and its row."""
    start = time.perf_counter()
    row = whole._replace(
        source=f"{whole.source}#{name}",
        target=f"{whole.target}#{name}",
        source_bytes=len(content),
        source_sha256=sha256(content).hexdigest(),
    )
    try:
        result = gate.restore(content, name, options._replace(suffix=None))
        row = row._replace(**result.diagnosis._asdict())
        content = result.content
    except Exception as error:  # the next image is another
        row = failure(row, error)
    row = row._replace(target_bytes=len(content), target_sha256=sha256(content).hexdigest())
    return content, finish(row, start)


def _restore_tar(
    gate: Gate, before: Path, after: Path, whole: Row, options: Options
) -> Iterator[Row]:
    """Restore the images of a tar file, member by member."""
    try:
        with tarfile.open(before, "r:*") as old, tarfile.open(after, "w") as new:

            def members() -> Iterator[tuple[tarfile.TarInfo, bytes | None]]:
                for member in old:
                    file = old.extractfile(member) if member.isreg() else None
                    yield member, None if file is None else file.read()

            def work(
                item: tuple[tarfile.TarInfo, bytes | None],
            ) -> tuple[tarfile.TarInfo, bytes | None, Row | None]:
                member, content = item
                name = Path(member.name).name
                if content is None or is_litter(name) or plain_suffix(name) not in IMAGE_SUFFIXES:
                    return member, content, None
                restored, row = _restored(gate, content, member.name, whole, options)
                return member, restored, row

            for member, content, row in map_threads(work, members(), gate.at_once):
                if content is not None:
                    member.size = len(content)
                new.addfile(member, None if content is None else io.BytesIO(content))
                if row is not None:
                    yield row
    except (tarfile.TarError, EOFError) as error:
        raise DataError(
            f"{whole.source} is not a valid tar file ({first_line(error)}); download or copy it "
            "again"
        ) from None


def _restore_parquet(
    gate: Gate, before: Path, after: Path, whole: Row, options: Options
) -> Iterator[Row]:
    """Restore the image column of a Parquet table, 64 rows at a time."""
    arrow = require("pyarrow", "s3", "Parquet tables need pyarrow")
    parquet = require("pyarrow.parquet", "s3", "Parquet tables need pyarrow")
    with _sound_parquet(whole.source):
        table = parquet.ParquetFile(before)
    column = image_column(table.schema_arrow, options.column, whole.source)
    index = table.schema_arrow.get_field_index(column)
    field = table.schema_arrow.field(index)
    number = 0

    def work(item: tuple[str, Any]) -> tuple[Any, Row | None]:
        name, value = item
        content = value["bytes"] if isinstance(value, dict) else value
        if content is None:
            return value, None
        restored, row = _restored(gate, content, name, whole, options)
        return ({**value, "bytes": restored} if isinstance(value, dict) else restored), row

    with parquet.ParquetWriter(after, table.schema_arrow) as writer:
        batches = table.iter_batches(batch_size=ROWS_AT_ONCE)
        while True:
            with _sound_parquet(whole.source):
                if (batch := next(batches, None)) is None:
                    break
                values = batch.column(index).to_pylist()
            named = [(f"{column}[{number + place}]", value) for place, value in enumerate(values)]
            number += len(values)
            results = list(map_threads(work, named, gate.at_once))
            restored = arrow.array([value for value, _ in results], type=field.type)
            columns = [
                restored if place == index else batch.column(place)
                for place in range(batch.num_columns)
            ]
            writer.write_batch(arrow.record_batch(columns, schema=table.schema_arrow))
            yield from (row for _, row in results if row is not None)


@contextmanager
def _sound_parquet(name: str) -> Iterator[None]:
    """Turn pyarrow's errors in a `with` block into a DataError that names the damaged table."""
    arrow = require("pyarrow", "s3", "Parquet tables need pyarrow")
    try:
        yield
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{name} is not a valid Parquet file ({first_line(error)}); download or copy it again"
        ) from None


def image_column(schema: Any, wanted: str | None, name: str) -> str:
    """Return the name of the column of a table that contains encoded images.

    The type of such a column is bytes, or a structure with a field `bytes`, as in data sets of
    Hugging Face.

    Args:
        schema: the pyarrow schema of the table.
        wanted: the column that the user chose; None to find one by type and usual names.
        name: the name of the table, for error messages.

    Raises:
        DataError: no column fits, or the chosen one does not, or several do.
    """
    arrow = require("pyarrow", "s3", "Parquet tables need pyarrow")

    def holds_bytes(kind: Any) -> bool:
        if arrow.types.is_struct(kind):
            return kind.get_field_index("bytes") >= 0 and holds_bytes(kind.field("bytes").type)
        return bool(arrow.types.is_binary(kind) or arrow.types.is_large_binary(kind))

    found = [field.name for field in schema if holds_bytes(field.type)]
    if wanted is not None:
        if wanted not in found:
            raise DataError(
                f"{name} has no column {wanted!r} of type bytes; its columns of this type are "
                f"{', '.join(found) or 'none'}"
            )
        return wanted
    if len(found) == 1:
        return found[0]
    likely = [column for column in COLUMNS if column in found]
    if not likely:
        raise DataError(
            f"{name} has {len(found)} columns of bytes ({', '.join(found)}); choose one with "
            "--column"
        )
    return likely[0]
