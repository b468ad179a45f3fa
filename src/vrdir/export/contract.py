"""What an exported file contains, and what a runtime does with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vrdir.errors import WeightsError

Pixels = np.ndarray[Any, np.dtype[np.float32]]

FACTS_KEY = "vrdir"  # of the metadata in the file that contain `ExportFacts`
INPUT, OUTPUTS = "image", ("restored", "shares")


class OpenedNetwork(NamedTuple):
    """An exported file in its runtime.

    Attributes:
        run: takes images (B, 3, H, W) in [0, 1] and returns the restored images and the shares
            (B, K). Threads may call it at the same time.
        facts: the text in the metadata under `FACTS_KEY`; None if there is none.
    """

    run: Callable[[Pixels], tuple[Pixels, Pixels]]
    facts: str | None


def check_values(path: Path, constants: Iterable[tuple[str, np.ndarray[Any, Any]]]) -> None:
    """Raise WeightsError if a tensor of a file has a value that is not finite."""
    for name, values in constants:
        if not np.isfinite(values).all():
            raise WeightsError(f"{path} has NaN or infinite values in {name}; export it again")
