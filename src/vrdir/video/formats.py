"""What reading and writing videos share: frames and container formats."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from vrdir.errors import VideoError

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

H264 = {
    "crf": "16",
    "preset": "medium",
}  # visually lossless: what was restored is not to be lost again
VP9 = {"crf": "20", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"}
FORMATS = {  # by suffix: FFmpeg's name of the container, the encoder, its options
    ".mp4": ("mp4", "libx264", H264),
    ".m4v": ("mp4", "libx264", H264),
    ".mov": ("mov", "libx264", H264),
    ".mkv": ("matroska", "libx264", H264),
    ".webm": ("webm", "libvpx-vp9", VP9),
}
VIDEO_SUFFIXES = set(FORMATS)

SCALER = (
    4 | 0x2000 | 0x40000
)  # bicubic, full chroma for RGB, accurate rounding: there and back moves no level


class Frame(NamedTuple):
    """A frame of a video file.

    Attributes:
        pixels: (H, W, 3) uint8, RGB, upright; None where the file is damaged.
        pts: when it is shown, in units of the reader's `time_base`.
        duration: for how long, in the same units, as the file has it; 0 where it does not say.
    """

    pixels: Pixels | None
    pts: int
    duration: int


def import_av() -> ModuleType:
    """PyAV. Raises VideoError if it is not installed."""
    try:
        import av
        import av.error
        import av.stream
    except ImportError:
        raise VideoError("videos need PyAV: pip install 'vrdir[video]'") from None
    return av


def is_video(path: Path) -> bool:
    """Whether a file is a video, by its suffix."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def format_of_video(path: Path) -> tuple[str, str, dict[str, str]]:
    """FFmpeg's name of the container, the encoder and its options, by suffix. Raises VideoError if it cannot be written."""
    try:
        return FORMATS[path.suffix.lower()]
    except KeyError:
        known = ", ".join(sorted(VIDEO_SUFFIXES))
        raise VideoError(
            f"cannot write {path}: no video format for the suffix {path.suffix or '(none)'!r}; use {known}"
        ) from None
