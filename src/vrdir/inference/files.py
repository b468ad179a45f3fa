"""Which file goes where: files, folders and patterns in, one target for each out."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image


class FileJob(NamedTuple):
    """A file to read and the file to write."""

    source: Path
    target: Path


def plan_files(inputs: Sequence[str | Path], output: Path, suffix: str | None = None) -> list[FileJob]:
    """Decide what is restored and where to.

    Args:
        inputs: files, folders (searched with all below them; relative paths and names are kept), patterns such as "*.jpg".
        output: a folder; or a file, if the input is one file and `output` has an image's suffix.
        suffix: give every target this suffix, such as ".png"; None keeps each file's own.

    Returns:
        The jobs, sorted. What lies in `output` is never an input, so a second run does not restore the first one's results.

    Raises:
        FileNotFoundError: an input is not there, or nothing to restore was found.
        PermissionError: a folder may not be read.
        ValueError: two inputs would be written to the same target, or an input over itself.
    """
    Image.init()
    known = set(Image.registered_extensions())
    single = len(inputs) == 1 and Path(inputs[0]).is_file()
    jobs: list[FileJob] = []
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            if not os.access(path, os.R_OK | os.X_OK):  # else its contents would be passed over in silence
                raise PermissionError(f"{path} cannot be read; check its permissions")
            inside = output.resolve()
            for source in sorted(p for p in path.rglob("*") if p.suffix.lower() in known and p.is_file()):
                if path.resolve() == inside or inside not in source.resolve().parents:
                    jobs.append(FileJob(source, output / source.relative_to(path)))
        elif path.is_file():
            to_file = single and output.suffix.lower() in known and not output.is_dir()
            jobs.append(FileJob(path, output if to_file else output / path.name))
        else:
            matches = [Path(match) for match in sorted(glob.glob(str(given), recursive=True))]  # noqa: PTH207 - absolute patterns too
            files = [match for match in matches if match.is_file()]
            if not files:
                raise FileNotFoundError(f"{given} does not exist")
            jobs += [FileJob(match, output / match.name) for match in files]
    if not jobs:
        raise FileNotFoundError(f"no images in {', '.join(map(str, inputs))}")
    if suffix is not None:
        jobs = [FileJob(source, target.with_suffix(suffix)) for source, target in jobs]
    _refuse_collisions(jobs)
    return jobs


def _refuse_collisions(jobs: Sequence[FileJob]) -> None:
    taken: dict[Path, Path] = {}
    for source, target in jobs:
        if target.resolve() == source.resolve():
            raise ValueError(f"{source} would be written over itself; choose another output")
        if target in taken:
            raise ValueError(f"{taken[target]} and {source} would both be written to {target}; restore them to different outputs")
        taken[target] = source
