"""Videos at addresses: each is copied to this machine, restored as a whole, and copied back.

Videos are not divided among workers, because smoothing works from frame to frame, and the parts of
a video would have to be encoded twice, or be joined at key frames that the encoder chooses. Many
videos keep all workers busy without that.
"""

from __future__ import annotations

import tempfile
import time
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from vrdir.cluster import storage
from vrdir.cluster.account import Row, key_of
from vrdir.cluster.addresses import join, shown
from vrdir.cluster.attempts import LocalDiskError
from vrdir.cluster.listing import Source
from vrdir.cluster.work import Gate, Options, check_free, failure, finish
from vrdir.errors import DiskError
from vrdir.images.formats import plain_suffix
from vrdir.video.formats import VIDEO_SUFFIXES


def listed_suffixes() -> set[str]:
    """Return the suffixes of videos to list; none without PyAV, so that videos are skipped."""
    return VIDEO_SUFFIXES if find_spec("av") else set()


def restore_video(gate: Gate, source: Source, output: str, options: Options) -> Row:
    """Restore a video into the output. Failures are recorded in the row, not raised.

    Raises:
        DiskError: the disk of the results is full or read-only.
    """
    start = time.perf_counter()
    target = join(output, source.name)
    row = Row(shown(source.address), shown(target), key=key_of(source))
    with tempfile.TemporaryDirectory(prefix="vrdir-") as folder:
        suffix = plain_suffix(source.name)
        before, after = Path(folder, f"before{suffix}"), Path(folder, f"after{suffix}")
        try:
            check_free(source, target, options)
            storage.fetch(source.address, before, source.size)
            row = row._replace(source_bytes=before.stat().st_size, source_sha256=_sha256(before))
            _restore_here(gate, before, after, options.smoothing)
            storage.put(after, target)
            row = row._replace(target_bytes=after.stat().st_size, target_sha256=_sha256(after))
        except Exception as error:  # the next video is another
            row = failure(row, error)
            if not isinstance(error, LocalDiskError):
                problem = row.error.replace(str(before), row.source)
                row = row._replace(error=problem.replace(str(after), row.target))
    return finish(row, start)


def _restore_here(gate: Gate, before: Path, after: Path, smoothing: float) -> None:
    """Restore a copy. A full disk of this machine is no reason to end a run, as one of results."""
    try:
        gate.restore_video(before, after, smoothing)
    except DiskError as error:
        raise LocalDiskError(str(error)) from None


def _sha256(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()
