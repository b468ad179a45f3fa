"""API keys from a file. They are compared in constant time; a changed file is read again.

A browser cannot send a key with a WebSocket or an `<img>`. So a client with a key can request a
token and put it into the address. A token is signed with a secret of this process, and is valid for
a minute.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

from vrdir.errors import MissingFileError, SettingsError
from vrdir.serving.problems import ProblemError
from vrdir.text_files import read_text

logger = logging.getLogger(__name__)

SHORTEST = 16  # characters: a shorter key can be guessed
TOKEN_SECONDS = 60  # within which a stream can be opened; an open stream continues after it


class ApiKeys:
    """The API keys that the service accepts.

    Args:
        path: a text file with one key per line. Empty lines are skipped, and lines that begin with
            #.

    Raises:
        SettingsError: the file contains no key, or a key of less than 16 characters.
        MissingFileError: the file does not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digests, self._stamp = _read(path), _stamp(path)
        self._secret = secrets.token_bytes(32)

    def reload(self) -> None:
        """Read the file again if it has changed; keep the old keys if it cannot be used."""
        try:
            stamp = _stamp(self._path)
            if stamp != self._stamp:
                self._digests, self._stamp = _read(self._path), stamp
                logger.info("API keys reloaded: %d", len(self._digests))
        except (OSError, SettingsError) as error:
            logger.warning("API keys are unchanged: %s", error)

    def check(self, headers: Mapping[str, str]) -> None:
        """Check the key of a request, from `Authorization: Bearer KEY` or `X-API-Key: KEY`.

        Raises:
            ProblemError: the request has no key, or an unknown one.
        """
        self._checked(headers)

    def token(self, headers: Mapping[str, str]) -> str:
        """Return a new token for the key of a request.

        Raises:
            ProblemError: the request has no key, or an unknown one.
        """
        expiry = int(time.time()) + TOKEN_SECONDS
        return f"{expiry}.{self._signature(self._checked(headers), expiry)}"

    def check_token(self, token: str) -> None:
        """Check a token from an address.

        Raises:
            ProblemError: it has expired, was not made by this process, or its key was removed.
        """
        self.reload()
        text, _, signature = token.partition(".")
        expiry = int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0
        sent = signature.encode("utf-8", "surrogateescape")
        matches = [
            hmac.compare_digest(sent, self._signature(known, expiry).encode())
            for known in self._digests
        ]
        if not any(matches) or expiry < time.time():
            raise ProblemError(
                "key-wrong", "the token is invalid or expired; request another with POST /v1/tokens"
            )

    def _checked(self, headers: Mapping[str, str]) -> bytes:
        """Check the key of a request and return its digest. Raises ProblemError."""
        self.reload()
        scheme, _, credentials = headers.get("authorization", "").partition(" ")
        sent = credentials.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        if not sent:
            raise ProblemError(
                "key-missing", "send the header `Authorization: Bearer KEY` or `X-API-Key: KEY`"
            )
        digest = _digest(sent)
        # All keys are compared, so that the time does not depend on which one matches.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        if not any(matches):
            raise ProblemError("key-wrong", "unknown API key; ask the operator of the service")
        return digest

    def _signature(self, digest: bytes, expiry: int) -> str:
        return hmac.new(self._secret, digest + str(expiry).encode(), hashlib.sha256).hexdigest()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _stamp(path: Path) -> tuple[int, int]:
    try:
        facts = path.stat()
    except FileNotFoundError:
        raise MissingFileError(f"the file of API keys does not exist: {path}") from None
    return facts.st_mtime_ns, facts.st_size


def _read(path: Path) -> list[bytes]:
    _stamp(path)
    lines = [line.strip() for line in read_text(path).splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise SettingsError(f"{path} contains no API key; write one key per line")
    if min(map(len, keys)) < SHORTEST:
        raise SettingsError(
            f"{path} contains an API key shorter than {SHORTEST} characters; use a longer one"
        )
    return [_digest(key) for key in keys]
