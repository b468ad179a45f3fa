"""Files at addresses such as s3://bucket/key, read and written through fsspec.

An address is a URL that fsspec knows (s3, gs, az, http, https, file, memory, ...) or a path.
Requests that may succeed later (time-outs, 5xx answers, broken connections) are tried again; other
failures become errors of the family, which name the address and hold no credentials.
"""

from __future__ import annotations

import contextlib
import errno
import re
import uuid
from collections.abc import Callable
from datetime import datetime
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from vrdir.atomic import HOPELESS
from vrdir.errors import (
    DataError,
    DiskError,
    ExistsError,
    InputError,
    MissingFileError,
    MissingPackageError,
    NotPermittedError,
    VrdirError,
    first_line,
    require,
)

ATTEMPTS = 6  # of one request
LONGEST_WAIT_S = 20.0
TIMEOUT_S = 60  # of connecting and of reading
# Errors of the operating system, as fsspec translates answers of servers, that trying again
# cannot mend.
LASTING = {
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
    errno.EINVAL,
}
PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
}

Result = TypeVar("Result")


class PassingError(VrdirError, OSError):
    """A failure that trying again may mend: a time-out, a broken connection, a 5xx answer."""


class LocalDiskError(DiskError):
    """The disk of this machine, to which a file was to be copied, is full or read-only."""


def is_address(text: str) -> bool:
    """Return whether a text is a URL such as s3://bucket/key, not a path of this machine."""
    return re.match(r"[a-z][a-z0-9+.-]+://", text, re.IGNORECASE) is not None


class Parts(NamedTuple):
    """The parts of an address.

    Attributes:
        scheme: such as "s3".
        host: or bucket, without a user's name and password.
        path: begins with "/" or is empty. Of http it is without the query, which may be a secret;
            object stores have no queries, and their names may hold "?" and "#".
    """

    scheme: str
    host: str
    path: str


def split(address: str) -> Parts:
    """Return the parts of a URL. Raises InputError if it is none, such as s3://[bucket/key."""
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
    """Return an address without the user name, password and query that a URL may hold."""
    if not is_address(address):
        return address
    parts = split(address)
    return f"{parts.scheme}://{parts.host}{parts.path}"


def absolute(address: str) -> str:
    """Return an address, or the absolute path of a path: another program has another folder."""
    return address if is_address(address) else str(Path(address).absolute())


def join(folder: str, name: str) -> str:
    """Return the address of a file below a folder."""
    return f"{folder.rstrip('/')}/{name}"


def open_storage(address: str) -> tuple[Any, str]:
    """Return the fsspec file system of an address and the path in it.

    Raises:
        InputError: the kind of address is unknown.
        MissingPackageError: the package for it is not installed.
    """
    scheme = address.split("://")[0].lower() if is_address(address) else "file"
    fsspec = require("fsspec", "s3", f"addresses such as {shown(address)} need fsspec")
    try:
        system = _file_system(scheme, _host_options(scheme, address))
    except ImportError:
        package = PACKAGES.get(scheme, scheme)
        raise MissingPackageError(
            f"addresses with {scheme}:// need {package}: pip install {package}"
        ) from None
    except ValueError:
        known = "s3, gs, az, http, https, file"
        raise InputError(
            f"{shown(address)}: the scheme {scheme}:// is not supported; use {known}"
        ) from None
    path = address if scheme in ("http", "https") else fsspec.core.strip_protocol(address)
    return system, str(path)


def _host_options(scheme: str, address: str) -> tuple[tuple[str, Any], ...]:
    """Return what a file system must know of the host of an address, to be hashed."""
    if scheme not in ("ftp", "sftp", "ssh", "smb", "hdfs", "webhdfs"):
        return ()
    fsspec = require("fsspec", "s3", "addresses need fsspec")
    return tuple(sorted(fsspec.utils.infer_storage_options(address, {"path": ""}).items()))


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
        system.retries = 1  # `attempt` tries again, and tells what may pass from what may not
    return system


def attempt(action: Callable[[], Result], address: str, attempts: int = ATTEMPTS) -> Result:
    """Run an action on an address; try again, after growing waits, what may pass.

    Raises:
        MissingFileError, NotPermittedError, DataError: it failed for good.
        PassingError: it failed `attempts` times.
    """
    tenacity = require("tenacity", "s3", "addresses need tenacity")

    def once() -> Result:
        try:
            return action()
        except VrdirError:
            raise
        except Exception as error:
            raise translated(error, address) from None

    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(attempts),
        wait=tenacity.wait_random_exponential(0.2, max=LONGEST_WAIT_S),
        retry=tenacity.retry_if_exception_type(PassingError),
        reraise=True,
    )
    return retrying(once)


def translated(error: Exception, address: str) -> VrdirError:
    """Return the family's error for what a file system raised, without its secrets."""
    where, kind = shown(address), type(error).__name__
    if isinstance(error, FileNotFoundError):
        return MissingFileError(f"{where} does not exist")
    if isinstance(error, FileExistsError):
        return ExistsError(f"{where} exists")
    no_credentials = "Credential" in kind or "SignatureDoesNotMatch" in str(error)
    # S3 answers expired credentials with 400; only answers to HEAD do not say so.
    expired = _status(error) == 400 and not address.startswith("http")
    denied = expired or _status(error) in (401, 403)
    if isinstance(error, PermissionError) or no_credentials or denied:
        return NotPermittedError(
            f"{where}: access denied; check the credentials (environment or profile), whether "
            "they have expired, and the rights of the bucket"
        )
    if isinstance(error, OSError) and error.errno in HOPELESS:
        advice = HOPELESS[error.errno]
        return DiskError(f"{where} cannot be written ({error.strerror or kind}); {advice}")
    if isinstance(error, OSError) and error.errno in LASTING:
        return DataError(f"{where}: {error.strerror or kind}")
    if "Redirect" in kind:
        return DataError(f"{where}: the server redirects in a circle, or to no valid address")
    status = _status(error)
    if status is not None and 400 <= status < 500 and status not in (408, 425, 429):
        return DataError(f"{where}: the server returns status {status}")
    if isinstance(error, (OSError, TimeoutError)) or _of_the_network(error):
        reason = f"the server returns status {status}" if status else _without_secrets(error)
        return PassingError(f"{where}: {reason}")
    return DataError(f"{where}: {_without_secrets(error)}")


def _of_the_network(error: Exception) -> bool:
    homes = {base.__module__.split(".")[0] for base in type(error).__mro__}
    return bool(homes & {"aiohttp", "botocore", "aiobotocore", "asyncio", "urllib3", "requests"})


def _status(error: Exception) -> int | None:
    """Return the HTTP status that an error of aiohttp or botocore holds."""
    for candidate in (error, error.__cause__, error.__context__):
        status = getattr(candidate, "status", None)
        response = getattr(candidate, "response", None)
        if status is None and isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if isinstance(status, int):
            return status
    return None


def _without_secrets(error: Exception) -> str:
    """Return an error's first line without URLs and keys, which may hold signatures."""
    line = re.sub(r"https?://\S+", "the server", first_line(error))
    line = re.sub(r"(?i)\b(AKIA|ASIA)[A-Z0-9]{12,}", "(key)", line)
    return line if len(line) <= 200 else line[:197] + "..."


def read(address: str, size: int | None = None) -> bytes:
    """Read a file whole.

    Args:
        address: where it is.
        size: the bytes that it is known to have; fewer are a broken connection, and read again.

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
    """Write a file whole: a reader meets all of it or none.

    Object stores replace an object at once, when all of it has arrived. Elsewhere the content goes
    under a temporary name first.

    Raises:
        NotPermittedError, DataError, DiskError, PassingError: it cannot be written.
    """
    system, path = open_storage(address)
    _replace(system, path, address, lambda target: system.pipe_file(target, content))


def put(path: Path, address: str) -> None:
    """Copy a file of this machine to an address, whole or not at all. Raises as `write`."""
    system, remote = open_storage(address)
    _replace(system, remote, address, lambda target: system.put_file(str(path), target))


def _replace(system: Any, path: str, address: str, send: Callable[[str], None]) -> None:
    """Send a file to its path, or to a temporary name beside it and rename that."""

    def once() -> None:
        if _replaces_at_once(system):
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
    """Write a small file that is not there yet; of several programs that try, one succeeds.

    Storage that cannot promise this (Azure, old S3 servers) lets the last one win.

    Raises:
        ExistsError: it is there, with other content.
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
    """Remove a file, if it is there. Raises as `write`."""
    system, path = open_storage(address)
    with contextlib.suppress(MissingFileError):
        attempt(lambda: system.rm_file(path), address)


def fetch(address: str, path: Path, size: int | None = None) -> None:
    """Copy a file to this machine, in pieces.

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


def _replaces_at_once(system: Any) -> bool:
    return bool(_protocols(system) & {"s3", "gs", "gcs", "az", "abfs", "memory"})


def is_local(system: Any) -> bool:
    """Return whether a file system is the one of this machine."""
    return "file" in _protocols(system)


def _protocols(system: Any) -> set[str]:
    return {system.protocol} if isinstance(system.protocol, str) else set(system.protocol)


def exists(address: str) -> bool:
    """Return whether there is a file. Raises as `read`."""
    return file_info(address) is not None


def modified(address: str) -> float | None:
    """Return when a file was written, in seconds since 1970; None if there is none.

    It is by the storage's clock, in whole seconds on S3; 0 where the storage does not tell.
    Raises as `read`.
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
    """Return what fsspec says of a file; None if there is none. Raises as `read`."""
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
