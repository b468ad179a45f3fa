"""List the images at addresses, page by page."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from vrdir.cluster.addresses import is_address, join, shown, split
from vrdir.cluster.attempts import attempt
from vrdir.cluster.file_systems import is_local, open_storage
from vrdir.cluster.storage import file_info, read
from vrdir.errors import DataError, InputError, MissingFileError, first_line, require
from vrdir.images.folders import is_litter
from vrdir.images.formats import IMAGE_SUFFIXES, plain_suffix
from vrdir.text_files import decode_text

PAGE = 1000  # keys of a bucket that one request lists
LIST_SUFFIXES = {".txt", ".lst"}
REASON = "addresses need fsspec"


class Source(NamedTuple):
    """A file to restore.

    Attributes:
        address: the address of the file.
        name: the path of its result, relative to the output, with "/" between folders.
        size: its size in bytes; None if the listing does not contain it.
        version: a text that changes when the file does (S3's ETag, else the time); "" if unknown.
        clash: whether an earlier source has the same target.
    """

    address: str
    name: str
    size: int | None
    version: str = ""
    clash: bool = False


def sources(
    inputs: Iterable[str],
    others: Counter[str] | None = None,
    more: Container[str] = (),
    without: str | None = None,
) -> Iterator[Source]:
    """List the images of folders, patterns, lists and single addresses, page by page.

    Args:
        inputs: addresses of folders (all files below them, without hidden ones), of files, patterns
            such as s3://bucket/*.jpg, and text files (.txt) with one address per line.
        others: counts the files in folders that are not images, by suffix.
        more: suffixes to list in addition to those of images.
        without: the address of a folder to leave out of folders and patterns, such as that of the
            results.

    Yields:
        The images. The name of a file below a folder is its path relative to that folder; the name
        of a file from a pattern or list is its path without the bucket or host.

    Raises:
        InputError: an address or a pattern is not valid.
        MissingFileError, NotPermittedError, DataError, PassingError: an input cannot be listed.
    """
    others = Counter() if others is None else others
    for given in inputs:
        if plain_suffix(given) in LIST_SUFFIXES:
            yield from _listed(given)
        elif _is_pattern(given):
            yield from _outside(without, _matching(given))
        else:
            found = _folder_or_file(given, others, more)
            yield from (
                found if without is None or is_same(given, without) else _outside(without, found)
            )


def place_of(address: str) -> str:
    """Return the same text for all ways to write an address, such as s3a:// for s3://."""
    system, path = open_storage(address)
    kind = system.protocol if isinstance(system.protocol, str) else system.protocol[0]
    return f"{kind}://{path.rstrip('/')}"


def is_same(one: str, other: str) -> bool:
    """Return whether two addresses name the same file or folder."""
    return place_of(one) == place_of(other)


def _outside(without: str | None, found: Iterator[Source]) -> Iterator[Source]:
    """Leave out the files below a folder; None leaves out nothing."""
    if without is None:
        yield from found
        return
    folder = f"{place_of(without)}/"
    yield from (source for source in found if not place_of(source.address).startswith(folder))


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
    """Return the path of a URL without its bucket or host; for a local path, the file name."""
    if not is_address(address):
        return PurePosixPath(address).name
    return _inside(split(address).path)


def _inside(path: str) -> str:
    """Return a path without "." and "..", so that it stays below the folder it is joined to."""
    return "/".join(part for part in path.split("/") if part not in ("", ".", ".."))


def described(address: str) -> Source:
    """Return the source for a file at an address; its name has the host or bucket, and the path.

    Raises:
        MissingFileError, NotPermittedError, DataError, PassingError: the storage returns no facts
            about the file.
    """
    info = file_info(address)
    if info is None:
        raise MissingFileError(f"{shown(address)} does not exist")
    parts = split(address)
    name = _inside(f"{parts.host}/{parts.path}")
    return Source(address, name, info.get("size"), version_of(info))


def _is_pattern(given: str) -> bool:
    """Return whether an input is a pattern, not a file whose name looks like one."""
    return ("*" in given or "[" in given) and file_info(given) is None


def _matching(pattern: str) -> Iterator[Source]:
    system, path = open_storage(pattern)
    scheme = pattern.split("://")[0] if is_address(pattern) else ""
    found = False
    for info in _matches(system, path, pattern):
        found = True
        address = f"{scheme}://{info['name']}" if scheme else str(info["name"])
        yield Source(address, _name_of(address), info.get("size"), version_of(info))
    if not found:
        raise MissingFileError(f"nothing matches {shown(pattern)}")


def _matches(system: Any, path: str, pattern: str) -> Iterator[dict[str, Any]]:
    """Yield the files that match a pattern, as fsspec describes them; on S3 page by page."""
    if not hasattr(system, "call_s3"):
        found = attempt(lambda: system.glob(path, detail=True), pattern)
        yield from (info for info in found.values() if info["type"] == "file")
        return
    try:
        matches = re.compile(require("fsspec.utils", "s3", REASON).glob_translate(path)).match
    except ValueError as error:
        raise InputError(f"{shown(pattern)} is no pattern ({first_line(error)})") from None
    bucket, _, key = path.partition("/")
    fixed = re.split(r"[*?[]", key, maxsplit=1)[0]
    flat = "/" not in key[len(fixed) :] and "**" not in key  # files in deeper folders cannot match
    for info in _s3_pages(system, bucket, fixed, pattern, {"Delimiter": "/"} if flat else {}):
        if matches(info["name"]):
            yield info


def _folder_or_file(address: str, others: Counter[str], more: Container[str]) -> Iterator[Source]:
    system, path = open_storage(address)
    found = False
    for info in below(system, path, address):
        name = str(info["name"])
        relative = name[len(path.rstrip("/")) + 1 :] if name != path.rstrip("/") else ""
        found = True
        inside = _inside(relative or PurePosixPath(name).name)
        if relative and any(is_litter(part) for part in inside.split("/")):
            continue
        if plain_suffix(name) not in IMAGE_SUFFIXES and plain_suffix(name) not in more:
            others[plain_suffix(name) or "without a suffix"] += 1
            continue
        whole = address if not relative else join(address, relative)
        yield Source(whole, inside, info.get("size"), version_of(info))
    if not found:
        raise MissingFileError(f"{shown(address)} does not exist, or is empty")


def version_of(info: Mapping[str, Any]) -> str:
    """Return a text that changes when a file does, from fsspec's facts about it; "" if unknown."""
    names = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")
    return next((str(info[name]).strip('"') for name in names if info.get(name)), "")


def below(system: Any, path: str, address: str) -> Iterator[dict[str, Any]]:
    """Yield the files below a path, or the file itself, as fsspec describes them.

    In a bucket a name may be both a file and a folder; then all are listed. No more than one page
    or folder is in memory at a time.

    Args:
        system: an fsspec file system.
        path: a path in it.
        address: the address of this path, for error messages.

    Raises:
        MissingFileError, NotPermittedError, DataError, PassingError: the path cannot be listed.
    """
    if hasattr(system, "call_s3"):
        bucket, _, key = path.rstrip("/").partition("/")
        if key and not address.endswith("/") and (info := file_info(address)) is not None:
            yield info
        yield from _s3_pages(system, bucket, f"{key}/" if key else "", address)
        return
    info = attempt(lambda: system.info(path), address)
    if info["type"] == "file":
        yield info
        return
    waiting, seen = [path], set[str]()
    while waiting:
        here = waiting.pop()
        if _entered(system, here, seen):
            continue
        try:
            entries = attempt(partial(system.ls, here, detail=True), address)
        except MissingFileError:
            if here == path:
                raise
            continue  # it was removed after its parent was listed
        folders = []
        for entry in sorted(entries, key=lambda entry: str(entry["name"])):
            if entry["type"] == "directory":
                folders.append(str(entry["name"]))
            else:
                yield entry
        waiting += reversed(folders)


def _entered(system: Any, folder: str, seen: set[str]) -> bool:
    """Return whether a local folder was listed before, also by a link; add it to `seen`."""
    if not is_local(system):
        return False
    real = os.path.realpath(folder)
    if real in seen:
        return True
    seen.add(real)
    return False


def _s3_pages(
    system: Any, bucket: str, prefix: str, address: str, more: Mapping[str, str] | None = None
) -> Iterator[dict[str, Any]]:
    """List a bucket page by page, because the whole list may not fit into memory."""
    more = dict(more or {})
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
        more["ContinuationToken"] = page["NextContinuationToken"]
        page.clear()  # else two pages would be in memory at once
