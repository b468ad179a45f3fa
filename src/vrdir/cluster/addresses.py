"""Addresses such as s3://bucket/key: recognised, divided, and shown without secrets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from vrdir.errors import InputError


def is_address(text: str) -> bool:
    """Return whether a text is a URL such as s3://bucket/key, not a path on this machine."""
    return re.match(r"[a-z][a-z0-9+.-]+://", text, re.IGNORECASE) is not None


class Parts(NamedTuple):
    """The parts of an address.

    Attributes:
        scheme: such as "s3".
        host: the host or bucket, without a user name and password.
        path: begins with "/", or is empty. For http and https the query is removed, because it may
            be secret. Object stores have no queries, so "?" and "#" are part of their names.
    """

    scheme: str
    host: str
    path: str


def split(address: str) -> Parts:
    """Return the parts of a URL.

    Raises:
        InputError: it is not a valid URL, such as s3://[bucket/key.
    """
    scheme, _, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    try:
        urlsplit(f"{scheme}://{host}")
    except ValueError as error:
        raise InputError(f"{scheme}://... is not a valid address ({error})") from None
    path = slash + path
    if scheme.lower() in ("http", "https"):
        host, path = (re.split("[?#]", part, maxsplit=1)[0] for part in (host, path))
    return Parts(scheme, host.rpartition("@")[2], path)


def shown(address: str) -> str:
    """Return an address without its user name, password and query; a path unchanged."""
    if not is_address(address):
        return address
    parts = split(address)
    return f"{parts.scheme}://{parts.host}{parts.path}"


def absolute(address: str) -> str:
    """Return an address unchanged, or the absolute path of a path.

    The workers of a cluster run in other folders.
    """
    return address if is_address(address) else str(Path(address).absolute())


def join(folder: str, name: str) -> str:
    """Return the address of a file below a folder."""
    return f"{folder.rstrip('/')}/{name}"
