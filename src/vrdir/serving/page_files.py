"""The files of the page, and their media types."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

# The media types of the page's files, by suffix; files of other suffixes are not served.
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
    ".gz": "application/gzip",
    ".bin": "application/octet-stream",
    ".txt": "text/plain; charset=utf-8",
}
FOLDER = Path(str(files("vrdir.serving"))) / "page"


def page_files(folder: Path) -> dict[str, Path]:
    """Return the files of a folder that are served, by their path relative to it."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in MEDIA_TYPES
    }
