"""The report page and the summary of a run over many files.

The page is one self-contained HTML file that needs no network. It shows the files in pages, so it
works with thousands of them.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vrdir.batch.results import FileResult
from vrdir.images.changes import UNCHANGED
from vrdir.images.writing import write_file

TEMPLATE = Path(__file__).with_name("folder_report.html")
# Up to a number of files: pixels on the longer side of a preview.
PREVIEWS = ((100, 640), (1000, 400), (5000, 240))
SMALLEST_PX = 128


def preview_px(files: int) -> int:
    """Return the longer side of previews, in pixels, that keeps the page below about 100 MB."""
    return next((side for most, side in PREVIEWS if files <= most), SMALLEST_PX)


class Summary:
    """The counts of the restored images of a run."""

    def __init__(self) -> None:
        self.changes: list[tuple[float, str]] = []
        self.mostly: Counter[str] = Counter()

    def add(self, result: FileResult) -> None:
        """Count a file. Only images of this run that did not fail are counted."""
        if result.change is not None:
            self.changes.append((result.change, result.job.source.name))
            if result.shares:
                self.mostly[max(result.shares, key=result.shares.__getitem__)] += 1

    def __str__(self) -> str:
        """Return the summary in one line; "" for fewer than two images."""
        if len(self.changes) < 2:
            return ""
        mean = sum(change for change, _ in self.changes) / len(self.changes)
        (least, first), (most, last) = min(self.changes), max(self.changes)
        same = sum(change < UNCHANGED for change, _ in self.changes)
        most_seen = ", ".join(f"{name} {count}" for name, count in self.mostly.most_common())
        parts = [
            f"changed by {mean:.1f} of 255 levels on average, "
            f"from {least:.1f} ({first}) to {most:.1f} ({last})",
            f"{same} unchanged" if same else "",
            f"mostly {most_seen}" if most_seen else "",
        ]
        return "; ".join(filter(None, parts))


class FolderReport:
    """The report page of a run, to which results are added one by one.

    Args:
        path: the page to write.
        facts: facts about the run, by name.

    Attributes:
        skipped: which files in the folders were left out, in words.
    """

    def __init__(self, path: Path, facts: Mapping[str, str]) -> None:
        self.path, self.facts, self.skipped = path, dict(facts), ""
        self.files: list[dict[str, Any]] = []
        self.summary = Summary()

    def add(self, result: FileResult) -> None:
        """Add a result."""
        self.summary.add(result)
        file: dict[str, Any] = {
            "name": str(result.job.source),
            "target": str(result.job.target),
            "state": state_of(result),
        }
        if result.error is not None:
            file["note"] = result.error
        elif result.video is not None:
            file["note"] = str(result.video)
        if result.change is not None:
            file["change"] = round(result.change, 2)
        if result.shares:
            file["shares"] = {name: round(share, 3) for name, share in result.shares.items()}
        if result.previews is not None:
            file["before"], file["after"] = (
                base64.b64encode(preview).decode() for preview in result.previews
            )
        self.files.append(file)

    def write(self, title: str) -> None:
        """Write the page.

        Args:
            title: the title of the page.

        Raises:
            ImageError: the page cannot be written.
        """
        content = {
            "title": title,
            "facts": self.facts,
            "summary": str(self.summary),
            "skipped": self.skipped,
            "files": self.files,
        }
        # Escaped, so that no file name can end the script element.
        data = json.dumps(content).replace("<", "\\u003c")
        page = TEMPLATE.read_text(encoding="utf-8").replace("{{data}}", data)
        write_file(page.encode("utf-8", "backslashreplace"), self.path)


def state_of(result: FileResult) -> str:
    """Return "failed", "earlier", "video", "restored", or "same" (change below half a level)."""
    if result.error is not None:
        return "failed"
    if result.earlier:
        return "earlier"
    if result.video is not None:
        return "video"
    return "same" if result.change is not None and result.change < UNCHANGED else "restored"
