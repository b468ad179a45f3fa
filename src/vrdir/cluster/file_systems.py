"""The fsspec file system of an address, with time-outs and without fsspec's own caches."""

from __future__ import annotations

from functools import cache
from typing import Any

from vrdir.cluster.addresses import is_address, shown
from vrdir.cluster.attempts import translated
from vrdir.errors import InputError, MissingPackageError, first_line, require

TIMEOUT_S = 60  # of connecting and of reading
# The package that a scheme needs, and what pip installs to get it.
PACKAGES = {
    "s3": ("s3fs", "'vrdir[s3]'"),
    "s3a": ("s3fs", "'vrdir[s3]'"),
    "http": ("aiohttp", "'vrdir[s3]'"),
    "https": ("aiohttp", "'vrdir[s3]'"),
    "gs": ("gcsfs", "gcsfs"),
    "gcs": ("gcsfs", "gcsfs"),
    "az": ("adlfs", "adlfs"),
    "abfs": ("adlfs", "adlfs"),
}


def open_storage(address: str) -> tuple[Any, str]:
    """Return the fsspec file system of an address, and the path in that file system.

    Args:
        address: a URL or a path.

    Raises:
        InputError: the address has an unknown scheme.
        MissingPackageError: the package for this scheme is not installed.
        NotPermittedError, PassingError: the host cannot be reached, such as an FTP server.
    """
    scheme = address.split("://")[0].lower() if is_address(address) else "file"
    fsspec = require("fsspec", "s3", f"addresses such as {shown(address)} need fsspec")
    try:
        system = _file_system(scheme, _host_options(scheme, address))
    except ImportError as error:
        if scheme not in PACKAGES:
            raise MissingPackageError(
                f"addresses with {scheme}:// need another package ({first_line(error)})"
            ) from None
        package, installed = PACKAGES[scheme]
        raise MissingPackageError(
            f"addresses with {scheme}:// need {package}: pip install {installed}"
        ) from None
    except ValueError:
        known = "s3, gs, az, http, https, file"
        raise InputError(
            f"{shown(address)}: the scheme {scheme}:// is not supported; use {known}"
        ) from None
    except OSError as error:  # some file systems connect when they are made
        raise translated(error, address) from None
    path = address if scheme in ("http", "https") else fsspec.core.strip_protocol(address)
    return system, str(path)


def _host_options(scheme: str, address: str) -> tuple[tuple[str, Any], ...]:
    """Return what a file system must know about the host of an address, as hashable pairs."""
    if scheme not in ("ftp", "sftp", "ssh", "smb", "hdfs", "webhdfs"):
        return ()
    fsspec = require("fsspec", "s3", "addresses need fsspec")
    return tuple(sorted(fsspec.utils.infer_storage_options(address).items()))


@cache
def _file_system(scheme: str, options: tuple[tuple[str, Any], ...]) -> Any:
    fsspec = require("fsspec", "s3", "addresses need fsspec")
    settings: dict[str, Any] = {
        key: value for key, value in options if key not in ("path", "protocol", "url_query")
    }
    if scheme in ("s3", "s3a"):
        settings |= {
            "use_listings_cache": False,
            "config_kwargs": {
                "connect_timeout": TIMEOUT_S,
                "read_timeout": TIMEOUT_S,
                "retries": {"total_max_attempts": 1},
            },
        }
    elif scheme in ("http", "https"):
        settings |= {"use_listings_cache": False}
    elif scheme == "file":
        settings |= {"auto_mkdir": True}
    system = fsspec.filesystem(scheme, **settings)
    if hasattr(system, "retries"):
        system.retries = 1  # `attempt` tries again, but only what may pass
    return system


def replaces_at_once(system: Any) -> bool:
    """Return whether a file system replaces a file at once, when all of it has arrived."""
    return bool(_protocols(system) & {"s3", "gs", "gcs", "az", "abfs", "memory"})


def is_local(system: Any) -> bool:
    """Return whether a file system is the one of this machine."""
    return "file" in _protocols(system)


def _protocols(system: Any) -> set[str]:
    return {system.protocol} if isinstance(system.protocol, str) else set(system.protocol)
