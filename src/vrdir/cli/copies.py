"""Copy training data from addresses to this machine, by `vrdir.cluster.copies`."""

from __future__ import annotations

from pathlib import Path


def folder_here(given: str | None, gigabytes: float) -> Path | None:
    """Return a folder of this machine: the given one, or copies of the images at an address.

    Args:
        given: a path or address, if any.
        gigabytes: that all copies may take.

    Raises:
        VrdirError: the images cannot be copied.
    """
    if given is None or "://" not in given:
        return None if given is None else Path(given)
    from vrdir.cluster.copies import Copies

    return Copies(int(gigabytes * 1e9)).images(given)


def list_here(given: str, gigabytes: float) -> str:
    """Return "[NAME=]LIST" with a list of this machine, of which all files are on it.

    Raises:
        VrdirError: the list or its files cannot be copied.
    """
    name, equals, path = given.partition("=")
    if not equals or "/" in name or Path(given).exists():
        name, equals, path = "", "", given
    from vrdir.cluster.copies import Copies, is_distant

    if not is_distant(path):
        return given
    return f"{name}{equals}{Copies(int(gigabytes * 1e9)).pairs(path)}"
