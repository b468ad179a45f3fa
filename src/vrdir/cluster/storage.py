"""Files at addresses such as s3://bucket/key, read and written through fsspec.

An address is a URL that fsspec knows (s3, gs, az, http, https, file, memory, ...) or a path.
A request that may succeed later (after a time-out, a 5xx answer or a lost connection) is tried
again (`vrdir.cluster.attempts`). Other failures become errors of the family; their messages name
the address and contain no credentials.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from vrdir.atomic import HOPELESS
from vrdir.cluster.addresses import shown
from vrdir.cluster.attempts import LocalDiskError, PassingError, attempt, translated
from vrdir.cluster.file_systems import is_local, open_storage, replaces_at_once
from vrdir.errors import ExistsError, MissingFileError


def read(address: str, size: int | None = None) -> bytes:
    """Read a whole file.

    Args:
        address: the file.
        size: its size in bytes, if known. If fewer bytes arrive, the connection was lost, and the
            file is read again.

    Raises:
        MissingFileError, NotPermittedError, DataError, PassingError: it cannot be read.
    """
    system, path = open_storage(address)

    def once() -> bytes:
        content: bytes = system.cat_file(path)
        if size is not None and len(content) < size:
            raise PassingError(f"{shown(address)}: only {len(content)} of {size} bytes arrived")
        return content

    return attempt(once, address)


def write(address: str, content: bytes) -> None:
    """Write a whole file: readers find the old content or all of the new, never a part.

    Object stores replace an object at once, when all of it has arrived. Elsewhere the content is
    written under a temporary name in the same folder, which is then renamed.

    Args:
        address: the file; one that exists is replaced.
        content: its content.

    Raises:
        NotPermittedError, DataError, DiskError, PassingError: it cannot be written.
    """
    system, path = open_storage(address)
    _replace(system, path, address, lambda target: system.pipe_file(target, content))


def put(path: Path, address: str) -> None:
    """Copy a local file to an address, whole or not at all. Raises the errors of `write`."""
    system, remote = open_storage(address)
    _replace(system, remote, address, lambda target: system.put_file(str(path), target))


def _replace(system: Any, path: str, address: str, send: Callable[[str], None]) -> None:
    """Send a file to its path, or to a temporary name in the same folder and rename it."""

    def once() -> None:
        if replaces_at_once(system):
            send(path)
            return
        parent = PurePosixPath(path).parent
        partial = str(parent / f".{uuid.uuid4().hex[:12]}.partial")
        try:
            system.makedirs(str(parent), exist_ok=True)
            send(partial)
            if is_local(system):
                Path(partial).replace(path)  # `mv` would go into a folder of that name
            else:
                system.mv(partial, path)
        except BaseException:
            with contextlib.suppress(Exception):
                system.rm_file(partial)
            raise

    attempt(once, address)


def create(address: str, content: bytes) -> None:
    """Write a small file that does not exist yet; if several programs try, one succeeds.

    Storage that does not support this (Azure, old S3 servers) keeps the content of the last one.

    Args:
        address: the file.
        content: its content.

    Raises:
        ExistsError: the file exists, with other content.
        NotPermittedError, DataError, DiskError, PassingError: it cannot be written.
    """
    system, path = open_storage(address)

    def once() -> None:
        if is_local(system):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with Path(path).open("xb") as file:
                file.write(content)
            return
        try:
            system.pipe_file(path, content, mode="create")
        except TypeError:
            system.pipe_file(path, content)

    try:
        if exists(address):
            raise ExistsError(f"{shown(address)} exists")
        attempt(once, address)
    except ExistsError:
        if read(address) != content:  # else the answer to a request of this program was lost
            raise


def remove(address: str) -> None:
    """Remove a file, if it exists. Raises the errors of `write`."""
    system, path = open_storage(address)
    with contextlib.suppress(MissingFileError):
        attempt(lambda: system.rm_file(path), address)


def fetch(address: str, path: Path, size: int | None = None) -> None:
    """Copy a file to this machine in pieces, so that it need not fit into memory.

    Args:
        address: the file.
        path: where to write it; a file that exists is replaced.
        size: its size in bytes, if known. If fewer bytes arrive, it is copied again.

    Raises:
        LocalDiskError: the disk of this machine is full or read-only.
        MissingFileError, NotPermittedError, DataError, PassingError: it cannot be read.
    """
    system, remote = open_storage(address)

    def once() -> None:
        try:
            system.get_file(remote, str(path))
        except OSError as error:
            if error.errno in HOPELESS:
                raise LocalDiskError(str(translated(error, str(path)))) from None
            raise
        if size is not None and path.stat().st_size < size:
            raise PassingError(
                f"{shown(address)}: only {path.stat().st_size} of {size} bytes arrived"
            )

    attempt(once, address)


def exists(address: str) -> bool:
    """Return whether a file exists. Raises the errors of `read`, except MissingFileError."""
    return file_info(address) is not None


def modified(address: str) -> float | None:
    """Return when a file was last written, in seconds since 1970; None if it does not exist.

    The time is that of the storage's clock, on S3 in whole seconds. It is 0 if the storage does not
    report a time. Raises the errors of `read`, except MissingFileError.
    """
    info = file_info(address)
    if info is None:
        return None
    for name in ("mtime", "LastModified", "last_modified", "updated", "created"):
        value = info.get(name)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, (int, float)):
            return float(value)
    return 0.0


def file_info(address: str) -> dict[str, Any] | None:
    """Return what fsspec reports about a file, such as its "size"; None if it does not exist.

    Raises the errors of `read`, except MissingFileError.
    """
    system, path = open_storage(address)
    bucket, _, key = path.partition("/")

    def once() -> dict[str, Any] | None:
        try:
            if hasattr(system, "call_s3") and key:  # one request; `info` also looks for a folder
                head = system.call_s3("head_object", Bucket=bucket, Key=key)
                return {**head, "name": path, "size": head["ContentLength"], "type": "file"}
            info: dict[str, Any] = system.info(path)
        except FileNotFoundError:
            return None
        return info if info["type"] == "file" else None

    return attempt(once, address)
