"""Training checkpoints: written whole or not at all, read without unpickling code."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from vrdir.atomic import write_whole
from vrdir.errors import WeightsError, first_line

KEYS = {"step", "model", "optimizer", "average", "best"}


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write `folder/step-N.pt`, whole or not at all, and delete all but the last `keep`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:08d}.pt"
    content = io.BytesIO()  # torch does not report why a file cannot be written
    torch.save(state, content)
    write_whole(content.getbuffer(), path)
    for old in checkpoints_in(folder)[:-keep]:
        old.unlink()
    return path


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first."""
    return sorted(p for p in folder.glob("step-*.pt") if re.fullmatch(r"step-\d+\.pt", p.name))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        WeightsError: it is damaged; the message names the file and the checkpoint before it.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not check the checksums
            if archive.testzip() is not None:
                raise WeightsError("its checksums do not match")
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or state.keys() != KEYS:
            raise WeightsError("it is not a checkpoint of vrdir")
    except Exception as error:
        before = [p for p in checkpoints_in(path.parent) if p < path]
        remedy = (
            f"delete it to continue from {before[-1].name}"
            if before
            else "delete it and start the stage again"
        )
        raise WeightsError(
            f"{path} cannot be read ({type(error).__name__}: {first_line(error)}); {remedy}"
        ) from None
    return state
