"""The manifest of a run over many files: which are finished, so that the run can be resumed."""

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
from typing import Any, NamedTuple

from vrdir import __version__
from vrdir.atomic import HOPELESS
from vrdir.errors import DataError, DiskError, ImageError, InputError
from vrdir.images.folders import RealPaths


class Stamp(NamedTuple):
    """Size and modification time of a file, which show whether it has changed."""

    bytes: int
    mtime_ns: int


class FinishedFile(NamedTuple):
    """What the manifest records of a target.

    Attributes:
        source: absolute path of the source.
        source_stamp: of the source when it was read.
        target_stamp: of the target when it was written.
        shares: the share of each degradation, from 0 to 1.
    """

    source: str
    source_stamp: Stamp
    target_stamp: Stamp
    shares: dict[str, float]


def stamp_of(path: Path) -> Stamp | None:
    """Return the stamp of a file, None if there is no such file."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return Stamp(facts.st_size, facts.st_mtime_ns)


class Manifest:
    """A file of one JSON object a line beside the results: first the run, then each finished file.

    Lines are only ever added, each in one write, before the result gets its name. So a result
    without a line is not from this run. A line that cannot be written whole is removed at once. A
    run that is killed may leave half a line, which the next run cuts off, and a temporary file,
    which `sweep` removes.

    Args:
        folder: where the results go; made if it does not exist.
        command: the name of the command: "restore" gives the file name .vrdir-restore.jsonl.
        settings: all that decides the pixels, such as the weights and the format, in JSON's types.
            Paths are absolute, so that the same relative path elsewhere is another run.
        resume: use what an earlier run recorded. Otherwise finished files are only recorded.

    Attributes:
        new: whether the file was empty.

    Raises:
        InputError: the folder has the manifest of a run with other settings, or another run is
            writing there.
        DataError: the manifest is damaged.
        ImageError: the manifest cannot be written.
    """

    def __init__(
        self, folder: Path, command: str, settings: Mapping[str, Any], resume: bool = True
    ) -> None:
        self.resume = resume
        self.folder, self.path = folder, folder / f".vrdir-{command}.jsonl"
        self.done: dict[str, FinishedFile] = {}  # by target, the last one
        # By target: the sources, and the stamps of all results that were ever written there.
        self.written: dict[str, set[tuple[str, Stamp]]] = {}
        self.places = RealPaths()
        self.lock = threading.Lock()
        self.torn = False  # the file ends in half a line that could not be removed
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

    def __exit__(self, *_: object) -> None:
        with self.lock:  # not while a thread writes
            self.file.close()

    def discard(self) -> None:
        """Remove the file, and the folder if this run made it and it is empty."""
        with self.lock:
            self.file.close()
        with contextlib.suppress(OSError):
            self.path.unlink()
            if self.made_folder:
                self.folder.rmdir()

    def partial_name(self) -> str:
        """Return a name for a temporary file of this run."""
        return f".vrdir-{self.id}-{uuid.uuid4().hex[:8]}.partial"

    def sweep(self, folders: Iterable[Path]) -> None:
        """Remove temporary files that this run left in these folders when it was killed."""
        for folder in set(folders):
            with contextlib.suppress(OSError):
                for partial in folder.glob(f".vrdir-{self.id}-*.partial"):
                    partial.unlink()

    def is_done(self, source: Path, target: Path) -> bool:
        """Return whether the target was made from the source and neither has changed since."""
        finished = self.done.get(self._name(target)) if self.resume else None
        return (
            finished is not None
            and finished.target_stamp == stamp_of(target)
            and finished.source_stamp == stamp_of(source)
            and finished.source == self.places.find(source)
        )

    def is_own(self, source: Path, target: Path) -> bool:
        """Return whether this run made the target from the source and the target is unchanged.

        The source may have changed since.
        """
        written = self.written.get(self._name(target), ())
        return self.resume and (self.places.find(source), stamp_of(target)) in written

    def shares(self, target: Path) -> dict[str, float]:
        """Return the shares that were recorded for a finished file."""
        return self.done[self._name(target)].shares

    def add(
        self, source: Path, made_from: Stamp, target: Path, made: Stamp, shares: Mapping[str, float]
    ) -> None:
        """Record a file that is about to get its name. Threads may call this at the same time.

        Args:
            source: the file that was read.
            made_from: its stamp when it was read.
            target: the file that will be there.
            made: its stamp.
            shares: the share of each degradation.

        Raises:
            DiskError: the disk is full or read-only.
            ImageError: the line cannot be written for another reason.
        """
        line = {
            "source": self.places.find(
                source
            ),  # absolute, so that the working directory may change
            "source_stamp": made_from,
            "target": self._name(target),
            "target_stamp": made,
            "shares": shares,
        }
        with self.lock:
            self._write(line)
            self._record(line)

    def _name(self, target: Path) -> str:
        return os.path.relpath(target, self.folder)

    def _record(self, line: dict[str, Any]) -> None:
        made_from, made = Stamp(*line["source_stamp"]), Stamp(*line["target_stamp"])
        shares = {str(name): float(share) for name, share in line["shares"].items()}
        if not all(map(math.isfinite, shares.values())):
            raise DataError("a share is not finite")
        self.done[line["target"]] = FinishedFile(line["source"], made_from, made, shares)
        self.written.setdefault(line["target"], set()).add((line["source"], made))

    def _write(self, line: Mapping[str, Any]) -> None:
        if self.torn:  # a line after half a line would be read as one with it
            raise DiskError(
                f"{self.path} ends with an incomplete line, because the disk failed; run the same "
                "command again to remove the line"
            )
        content = json.dumps(line).encode() + b"\n"
        try:
            before = self.file.seek(0, os.SEEK_END)
            try:
                if self.file.write(content) != len(content):  # half a line: the disk is full
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except BaseException:  # a signal, too
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
        """Read the finished files of an earlier run, or begin the file with this one."""
        lines = self._whole_lines()
        self.new = not lines
        if self.new:
            self.id = uuid.uuid4().hex[:12]
            self._write({**run, "run": self.id})
            return
        number = 1
        try:
            before = dict(json.loads(lines[0]))
            self.id = before.pop("run")
            # The id goes into a pattern of files to remove, so it must be one that vrdir made.
            if re.fullmatch("[0-9a-f]{12}", self.id) is None:
                raise DataError("no id of a run")
            for number, line in enumerate(lines[1:], 2):  # noqa: B007 - for the message
                self._record(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            raise DataError(
                f"{self.path}, line {number}, is damaged; delete the file to start over, "
                "and add --overwrite to replace the results"
            ) from None
        self._check_same(before, json.loads(json.dumps(run)))

    def _whole_lines(self) -> list[bytes]:
        self.file.seek(0)
        content = self.file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):  # half a line
            self.file.truncate(whole)
        return content[:whole].splitlines()

    def _check_same(self, before: Mapping[str, Any], run: Mapping[str, Any]) -> None:
        """Raise InputError if the manifest is from a run with other settings."""
        differences = [
            f"{key} was {before.get(key)!r} and is {run.get(key)!r}"
            for key in {**before, **run}
            if before.get(key) != run.get(key)
        ]
        if differences:
            raise InputError(
                f"{self.folder} contains the results of a different run "
                f"({'; '.join(differences)}), which cannot be resumed with this command; choose "
                f"another output, or delete {self.path} and add --overwrite"
            )

    def _unwritable(self, error: OSError) -> ImageError:
        advice = HOPELESS.get(error.errno or 0)
        kind = DiskError if advice else ImageError
        return kind(
            f"{self.path} cannot be written ({error.strerror}); "
            f"{advice or 'check the folder and its permissions'}"
        )


def _lock(descriptor: int, folder: Path) -> None:
    """Lock a file as long as it is open. Raises InputError if another process has locked it."""
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another run is writing to {folder}; wait for it, or stop it"
            ) from None
        except OSError:  # a file system without locks
            return
