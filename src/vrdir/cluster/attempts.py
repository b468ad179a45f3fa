"""Requests to storage that may fail: try again what may pass, and turn errors into vrdir's own."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from typing import TypeVar

from vrdir.atomic import HOPELESS
from vrdir.cluster.addresses import shown
from vrdir.errors import (
    DataError,
    DiskError,
    ExistsError,
    MissingFileError,
    NotPermittedError,
    VrdirError,
    first_line,
    require,
)

ATTEMPTS = 6  # of one request
LONGEST_WAIT_S = 20.0
# Errors of the operating system that another attempt cannot mend. fsspec raises them, too, for what
# a server answers.
LASTING = {
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
    errno.EINVAL,
}

Result = TypeVar("Result")


class PassingError(VrdirError, OSError):
    """A failure that may pass: a time-out, a lost connection, or a 5xx answer of the server."""


class LocalDiskError(DiskError):
    """The disk of this machine, to which a file was to be copied, is full or read-only."""


def attempt(action: Callable[[], Result], address: str, attempts: int = ATTEMPTS) -> Result:
    """Run an action; if it fails with an error that may pass, wait and try again.

    The waits are random and grow up to 20 seconds.

    Args:
        action: a request to the storage. It may run several times.
        address: the address that it is about, for error messages.
        attempts: the largest number of attempts.

    Returns:
        What the action returns.

    Raises:
        MissingFileError, ExistsError, NotPermittedError, DataError, DiskError: it failed for good.
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
    """Return an error of the family for one that a file system raised, without secrets.

    Args:
        error: what fsspec, botocore, aiohttp or the operating system raised.
        address: the address of the request.
    """
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
    if isinstance(error, (OSError, TimeoutError)) or _is_of_the_network(error):
        reason = f"the server returns status {status}" if status else _without_secrets(error)
        return PassingError(f"{where}: {reason}")
    return DataError(f"{where}: {_without_secrets(error)}")


def _is_of_the_network(error: Exception) -> bool:
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
