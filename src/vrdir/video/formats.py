"""The video formats that are written, and what reading and writing videos share.

`FORMATS` is the one table of these formats: suffixes, checks, error texts and the table in
docs/video.md are made from it. A new format is one further entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from vrdir.errors import MissingPackageError, VideoError, require

FramePixels = np.ndarray[Any, np.dtype[np.uint8]]

# FFmpeg's flags for conversions: bicubic, full chroma for RGB, accurate rounding. With these, a
# conversion to YUV 4:4:4 and back changes no level.
SCALER = 4 | 0x2000 | 0x40000


class VideoFormat(NamedTuple):
    """How files with one suffix are written.

    Attributes:
        suffix: in lower case.
        container: FFmpeg's name of the container.
        codec: the codec's usual name, to show to users.
        encoder: FFmpeg's name of the encoder.
        options: of the encoder.
        own_clock: a track has its own clock, so that the source's can be used.
        equal_times: several packets of a stream may have the same time.
        odd_sizes: the pixel format for odd widths or heights.
    """

    suffix: str
    container: str
    codec: str
    encoder: str
    options: Mapping[str, str]
    own_clock: bool = False
    equal_times: bool = False
    odd_sizes: str = "yuv444p"


# Visually lossless, so that details which were restored are not lost again.
H264 = {"crf": "16", "preset": "medium"}
VP9 = {"crf": "20", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"}
FORMATS = (
    VideoFormat(".mp4", "mp4", "H.264", "libx264", H264, own_clock=True),
    VideoFormat(".m4v", "mp4", "H.264", "libx264", H264, own_clock=True),
    VideoFormat(".mov", "mov", "H.264", "libx264", H264, own_clock=True),
    VideoFormat(".mkv", "matroska", "H.264", "libx264", H264, equal_times=True),
    VideoFormat(".webm", "webm", "VP9", "libvpx-vp9", VP9, equal_times=True, odd_sizes="yuv420p"),
)
VIDEO_SUFFIXES = {each.suffix for each in FORMATS}


class Frame(NamedTuple):
    """A frame of a video file.

    Attributes:
        pixels: (H, W, 3) uint8, RGB, upright; None where the file is damaged.
        pts: the time at which it is shown, in units of the reader's `time_base`.
        duration: how long it is shown, in the same units; 0 if the file does not say.
    """

    pixels: FramePixels | None
    pts: int
    duration: int


def import_av() -> ModuleType:
    """Import PyAV. Raises VideoError if it is not installed."""
    try:
        av = require("av", "video", "videos need PyAV")
    except MissingPackageError as error:
        raise VideoError(str(error)) from None
    for part in ("av.error", "av.stream"):
        import_module(part)
    return av


def is_video(path: Path) -> bool:
    """Return whether a file is a video, by its suffix."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def format_of_video(path: Path) -> VideoFormat:
    """Return the format to write for a file's suffix. Raises VideoError if there is none."""
    for each in FORMATS:
        if path.suffix.lower() == each.suffix:
            return each
    known = ", ".join(sorted(VIDEO_SUFFIXES))
    raise VideoError(
        f"cannot write {path}: no video format for the suffix "
        f"{path.suffix or '(none)'!r}; use {known}"
    )
