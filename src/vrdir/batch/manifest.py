"""The manifest of a run over many files: what it has finished, so that it can be interrupted at any moment and taken up again."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import sys
import threading
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from vrdir import __version__
from vrdir.atomic import HOPELESS
from vrdir.errors import DiskError, ImageError
from vrdir.images.folders import RealPaths


class Stamp(NamedTuple):
    """What tells that a file is as it was."""

    bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> Stamp | None:
        """None if there is no such file."""
        try:
            facts = path.stat()
        except OSError:
            return None
        return cls(facts.st_size, facts.st_mtime_ns)


class Manifest:
    """A file of one JSON object a line beside the results: first which run it is, then a line for each finished file.

    Lines are only ever added, each in one write before the result gets its name, so that a result without a line is not of this
    run. A line that could not be written whole is taken back at once. A run that was killed may leave half a last line, which is
    cut off; and a temporary file, which `sweep` removes.

    Args:
        folder: where the results go; made if need be.
        command: "restore", for a manifest called .vrdir-restore.jsonl.
        settings: what decides the pixels, such as the weights and the format; JSON's types. Paths are absolute, so that the same
            words in another working directory are another run.
        resume: take up what it notes. Else it only notes, so that the run can be resumed where it is interrupted.

    Attributes:
        new: nothing was in it.

    Raises:
        ValueError: the folder has the manifest of a run with other settings, one that is damaged, or another run is at work there.
        ImageError: it cannot be written.
    """

    def __init__(
        self, folder: Path, command: str, settings: Mapping[str, Any], resume: bool = True
    ) -> None:
        self.resume = resume
        self.folder, self.path = folder, folder / f".vrdir-{command}.jsonl"
        self.done: dict[
            str, tuple[str, Stamp, Stamp, dict[str, float]]
        ] = {}  # target: source, its stamp, the target's, shares
        self.written: dict[
            str, set[tuple[str, Stamp]]
        ] = {}  # target: source and stamp of all that were ever written there
        self.places = RealPaths()
        self.lock = threading.Lock()
        self.torn = False  # the file ends in half a line that could not be taken back
        run = {"command": command, "vrdir": __version__, **settings}
        self.made_folder = not folder.exists()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.file = self.path.open("a+b", buffering=0)
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            _lock(self.file.fileno(), self.folder)
            self._read(run)
        except BaseException:
            self.file.close()
            raise

    def __enter__(self) -> Manifest:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self.lock:  # not while a thread writes
            self.file.close()

    def discard(self) -> None:
        """Remove the file, once it is of no more use; and the folder, if nothing went into it."""
        with self.lock:
            self.file.close()
        with contextlib.suppress(OSError):
            self.path.unlink()
            if self.made_folder:
                self.folder.rmdir()

    def partial_name(self) -> str:
        """A name for a temporary file of this run."""
        return f".vrdir-{self.id}-{uuid.uuid4().hex[:8]}.partial"

    def sweep(self, folders: Iterable[Path]) -> None:
        """Remove the temporary files that this run left in any of these folders when it was killed."""
        for folder in set(folders):
            with contextlib.suppress(OSError):
                for partial in folder.glob(f".vrdir-{self.id}-*.partial"):
                    partial.unlink()

    def is_done(self, source: Path, target: Path) -> bool:
        """Whether the target was made from the source, and neither has changed since."""
        if not self.resume:
            return False
        noted, made_from, made, _ = self.done.get(self._name(target), (None, None, None, None))
        return (
            made is not None
            and made == Stamp.of(target)
            and made_from == Stamp.of(source)
            and noted == self.places.find(source)
        )

    def is_own(self, source: Path, target: Path) -> bool:
        """Whether what lies at the target was made from the source by this run, whatever the source was then, and not changed since."""
        return self.resume and (self.places.find(source), Stamp.of(target)) in self.written.get(
            self._name(target), ()
        )

    def shares(self, target: Path) -> dict[str, float]:
        """What was told of a finished file."""
        return self.done[self._name(target)][3]

    def add(
        self, source: Path, made_from: Stamp, target: Path, made: Stamp, shares: Mapping[str, float]
    ) -> None:
        """Note a file that is about to get its name; threads may. Raises DiskError or ImageError if the line cannot be written."""
        noted = self.places.find(
            source
        )  # an absolute path: "a.png" would be another file in another working directory
        line = {
            "source": noted,
            "source_stamp": made_from,
            "target": self._name(target),
            "target_stamp": made,
            "shares": shares,
        }
        with self.lock:
            self._write(line)
            self._note(line)

    def _name(self, target: Path) -> str:
        return os.path.relpath(target, self.folder)

    def _note(self, line: dict[str, Any]) -> None:
        made_from, made = Stamp(*line["source_stamp"]), Stamp(*line["target_stamp"])
        shares = {str(name): float(share) for name, share in line["shares"].items()}
        if not all(map(math.isfinite, shares.values())):
            raise ValueError("a share is no number")
        self.done[line["target"]] = line["source"], made_from, made, shares
        self.written.setdefault(line["target"], set()).add((line["source"], made))

    def _write(self, line: Mapping[str, Any]) -> None:
        if self.torn:  # a line behind half a one would be read as one with it
            raise DiskError(
                f"{self.path} ends in half a line, as the disk failed; the same command again cuts it off"
            )
        content = json.dumps(line).encode() + b"\n"
        try:
            before = self.file.seek(0, os.SEEK_END)
            try:
                if self.file.write(content) != len(content):
                    raise OSError(
                        errno.ENOSPC, os.strerror(errno.ENOSPC)
                    )  # half a line: the disk is full
            except BaseException:  # a signal too
                self._cut(before)
                raise
        except OSError as error:
            raise self._unwritable(error) from None

    def _cut(self, length: int) -> None:
        self.torn = True
        with contextlib.suppress(OSError):
            self.file.truncate(length)
            self.torn = False

    def _read(self, run: dict[str, Any]) -> None:
        self.file.seek(0)
        content = self.file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):  # half a line
            self.file.truncate(whole)
        lines = content[:whole].splitlines()
        self.new = not lines
        if self.new:
            self.id = uuid.uuid4().hex[:12]
            self._write({**run, "run": self.id})
            return
        number = 0
        try:
            before = dict(json.loads(lines[0]))
            self.id = before.pop("run")
            if (
                re.fullmatch("[0-9a-f]{12}", self.id) is None
            ):  # it goes into a pattern of files to remove
                raise ValueError("it names no run")
            for line in lines[1:]:
                number += 1
                self._note(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            raise ValueError(
                f"{self.path}, line {number + 1}, is damaged; delete the file to start over, and add --overwrite to replace the results"
            ) from None
        run = json.loads(json.dumps(run))
        other = [
            f"{key} was {before.get(key)!r} and is {run.get(key)!r}"
            for key in {**before, **run}
            if before.get(key) != run.get(key)
        ]
        if other:
            raise ValueError(
                f"{self.folder} holds the results of another run ({'; '.join(other)}), which this one cannot go on with; "
                f"choose another output, or delete {self.path} and add --overwrite"
            )

    def _unwritable(self, error: OSError) -> ImageError:
        advice = HOPELESS.get(error.errno or 0)
        kind = DiskError if advice else ImageError
        return kind(
            f"{self.path} cannot be written ({error.strerror}); {advice or 'check the folder and its permissions'}"
        )


def _lock(descriptor: int, folder: Path) -> None:
    """Held as long as the file is open, by whichever process. Raises ValueError if another one holds it."""
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another run is writing to {folder}; wait for it, or stop it"
            ) from None
        except OSError:  # a file system without locks
            return
