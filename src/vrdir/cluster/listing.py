"""The images at addresses, listed page by page."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from vrdir.cluster.storage import (
    attempt,
    file_info,
    is_address,
    join,
    open_storage,
    read,
    shown,
    split,
)
from vrdir.errors import DataError, MissingFileError
from vrdir.images.folders import is_litter
from vrdir.images.formats import IMAGE_SUFFIXES, plain_suffix
from vrdir.text_files import decode_text

PAGE = 1000  # keys of a bucket that are listed at once
LIST_SUFFIXES = {".txt", ".lst"}


class Source(NamedTuple):
    """A file to restore.

    Attributes:
        address: where it is.
        name: its path below the output, with "/" between folders.
        size: its bytes, or None where the listing does not have them.
        version: what changes when the file does (S3's ETag, else the time); "" if that is unknown.
    """

    address: str
    name: str
    size: int | None
    version: str = ""


def sources(
    inputs: Iterable[str], others: Counter[str] | None = None, more: Container[str] = ()
) -> Iterator[Source]:
    """List the images of folders, patterns, lists and single addresses, page by page.

    Args:
        inputs: addresses of folders (all below them; hidden ones are left out), of files, patterns
            such as s3://bucket/*.jpg, and text files (.txt) with an address a line.
        others: counts the files of folders that are no images, by suffix.
        more: suffixes that are taken besides those of images.

    Yields:
        The images. A file below a folder is named by its path below that folder, one of a pattern
        or list by its path without the bucket or host.

    Raises:
        MissingFileError, NotPermittedError, DataError, PassingError: one cannot be listed.
    """
    others = Counter() if others is None else others
    for given in inputs:
        if plain_suffix(given) in LIST_SUFFIXES:
            yield from _listed(given)
        elif "*" in given or "[" in given:
            yield from _matching(given)
        else:
            yield from _folder_or_file(given, others, more)


def _listed(address: str) -> Iterator[Source]:
    lines = decode_text(read(address), shown(address)).split("\n")
    for number, line in enumerate(lines, 1):
        if not (text := line.strip()) or text.startswith("#"):
            continue
        if text.endswith("/"):
            raise DataError(
                f"{shown(address)}, line {number}: {text} is a folder; list only images"
            )
        yield Source(text, _name_of(text), None)


def _name_of(address: str) -> str:
    """Return a file's path without scheme and bucket or host; of a local path its name."""
    if not is_address(address):
        return PurePosixPath(address).name
    return _inside(split(address).path)


def _inside(path: str) -> str:
    """Return a path that leads nowhere but below the folder it is appended to."""
    return "/".join(part for part in path.split("/") if part not in ("", ".", ".."))


def described(address: str) -> Source:
    """Return a file at an address, named by its host or bucket and its path.

    Raises:
        MissingFileError, NotPermittedError, DataError, PassingError: it cannot be asked for.
    """
    info = file_info(address)
    if info is None:
        raise MissingFileError(f"{shown(address)} does not exist")
    parts = split(address)
    name = _inside(f"{parts.netloc.rpartition('@')[2]}/{parts.path}")
    return Source(address, name, info.get("size"), version_of(info))


def _matching(pattern: str) -> Iterator[Source]:
    system, path = open_storage(pattern)
    found = attempt(lambda: system.glob(path, detail=True), pattern)
    scheme = pattern.split("://")[0] if is_address(pattern) else ""
    files = [info for info in found.values() if info["type"] == "file"]
    if not files:
        raise MissingFileError(f"nothing matches {shown(pattern)}")
    for info in files:
        address = f"{scheme}://{info['name']}" if scheme else str(info["name"])
        yield Source(address, _name_of(address), info.get("size"), version_of(info))


def _folder_or_file(address: str, others: Counter[str], more: Container[str]) -> Iterator[Source]:
    system, path = open_storage(address)
    found = False
    for info in below(system, path, address):
        name = str(info["name"])
        relative = name[len(path.rstrip("/")) + 1 :] if name != path.rstrip("/") else ""
        found = True
        parts = PurePosixPath(relative or PurePosixPath(name).name).parts
        if relative and any(is_litter(part) for part in parts):
            continue
        if plain_suffix(name) not in IMAGE_SUFFIXES and plain_suffix(name) not in more:
            others[plain_suffix(name) or "without a suffix"] += 1
            continue
        whole = address if not relative else join(address, relative)
        yield Source(whole, "/".join(parts), info.get("size"), version_of(info))
    if not found:
        raise MissingFileError(f"{shown(address)} does not exist, or is empty")


def version_of(info: Mapping[str, Any]) -> str:
    """Return what changes when a file does, from what fsspec says of it; "" if that is unknown."""
    names = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")
    return next((str(info[name]).strip('"') for name in names if info.get(name)), "")


def below(system: Any, path: str, address: str) -> Iterator[dict[str, Any]]:
    """List the files below a path, or the file itself, as fsspec describes them.

    No more than one page or folder is held in memory.

    Args:
        system: the file system.
        path: the path in it.
        address: the path's address, for errors.

    Raises:
        MissingFileError, NotPermittedError, DataError, PassingError: it cannot be listed.
    """
    if hasattr(system, "call_s3"):
        yield from _s3_pages(system, path, address)
        return
    info = attempt(lambda: system.info(path), address)
    if info["type"] == "file":
        yield info
        return
    waiting = [path]
    while waiting:
        here = waiting.pop()
        entries = attempt(lambda here=here: system.ls(here, detail=True), address)  # type: ignore[misc]
        folders = []
        for entry in sorted(entries, key=lambda entry: str(entry["name"])):
            if entry["type"] == "directory":
                folders.append(str(entry["name"]))
            else:
                yield entry
        waiting += reversed(folders)


def _s3_pages(system: Any, path: str, address: str) -> Iterator[dict[str, Any]]:
    """List a bucket a page at a time: a listing of all would fill the memory."""
    bucket, _, key = path.rstrip("/").partition("/")
    if key and not address.endswith("/"):
        with contextlib.suppress(MissingFileError):
            info = attempt(lambda: system.info(path), address)
            if info["type"] == "file":
                yield info
                return
    more: dict[str, str] = {}
    prefix = f"{key}/" if key else ""
    while True:
        page = attempt(
            lambda more=more: system.call_s3(  # type: ignore[misc]
                "list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=PAGE, **more
            ),
            address,
        )
        for entry in page.pop("Contents", []):
            if not entry["Key"].endswith("/"):
                name = f"{bucket}/{entry['Key']}"
                yield {**entry, "name": name, "size": entry["Size"], "type": "file"}
        if not page.get("IsTruncated"):
            return
        more = {"ContinuationToken": page["NextContinuationToken"]}
        page.clear()  # or two pages would be in memory at once
