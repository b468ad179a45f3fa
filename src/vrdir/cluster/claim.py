"""The claim of a program to an output: a file that it renews, so that no other program writes."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from types import TracebackType
from typing import Any

from vrdir.cluster import storage
from vrdir.cluster.addresses import join, shown
from vrdir.errors import ExistsError, MissingFileError, VrdirError

RENEWED_EVERY_S = 5.0
SILENCE_S = 20.0  # without a renewal, after which a program counts as dead


class Claim:
    """The claim of this program to the folder of an account, for a `with` statement.

    The claim of a dead program is removed: at once if the program ran on this machine, else when it
    was not renewed for 20 seconds.

    Args:
        folder: the address of the account.

    Raises:
        ExistsError: another program has the claim (raised when the `with` block begins).
        NotPermittedError, DataError, DiskError, PassingError: the storage cannot be used.
    """

    def __init__(self, folder: str) -> None:
        self.folder, self.address = folder, join(folder, "_driver.json")
        self._own = {"id": uuid.uuid4().hex, "host": socket.gethostname(), "process": os.getpid()}
        self._lost: VrdirError | None = None
        self._ended = threading.Event()
        self._renewing = threading.Thread(target=self._renew, name="claim", daemon=True)

    def __enter__(self) -> Claim:
        while True:
            try:
                storage.create(self.address, self._content(0))
                break
            except ExistsError:
                self._wait_for_the_other()
        self._renewing.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._renewing.join()
        with contextlib.suppress(VrdirError):  # the claim may stay: it is not renewed any more
            if self._is_own(self._read()):
                storage.remove(self.address)

    def check(self) -> None:
        """Check that this program still has the claim. Raises ExistsError if another one has it."""
        if self._lost is not None:
            raise self._lost

    def _wait_for_the_other(self) -> None:
        """Return when the claim has ended, or remove the claim of a dead program.

        Raises:
            ExistsError: the other program renews its claim.
        """
        first = self._read()
        give_up = time.monotonic() + SILENCE_S
        while self._may_live(first) and time.monotonic() < give_up:
            time.sleep(RENEWED_EVERY_S / 5)
            now = self._read()
            if now is None:
                return
            if now != first:
                raise self._busy(now)
        if self._read() == first:
            storage.remove(self.address)

    def _may_live(self, other: dict[str, Any] | None) -> bool:
        if other is None or other.get("host") != self._own["host"]:
            return other is not None
        try:
            os.kill(int(other["process"]), 0)
        except (ProcessLookupError, KeyError, TypeError, ValueError):
            return False
        except OSError:  # it is another user's
            return True
        return True

    def _busy(self, other: dict[str, Any]) -> ExistsError:
        return ExistsError(
            f"another program writes into {shown(self.folder)} (process {other.get('process')} on "
            f"{other.get('host')}); wait for its end, or stop it"
        )

    def _renew(self) -> None:
        count = 0
        while not self._ended.wait(RENEWED_EVERY_S):
            count += 1
            try:
                found = self._read()
                if found is not None and not self._is_own(found):
                    self._lost = self._busy(found)
                    return
                storage.write(self.address, self._content(count))
            except VrdirError:  # if this lasts, the run itself cannot read or write either
                continue

    def _content(self, count: int) -> bytes:
        return json.dumps({**self._own, "renewed": count}).encode()

    def _read(self) -> dict[str, Any] | None:
        try:
            return dict(json.loads(storage.read(self.address)))
        except MissingFileError:
            return None
        except (ValueError, TypeError):  # a partly written file, or not a claim
            return {}

    def _is_own(self, found: dict[str, Any] | None) -> bool:
        return found is not None and found.get("id") == self._own["id"]
