"""Videos: reading and writing, frame by frame."""

from typing import TYPE_CHECKING

from vrdir.lazy import offer

if TYPE_CHECKING:
    from vrdir.video.formats import FORMATS, VIDEO_SUFFIXES, Frame, is_video
    from vrdir.video.reading import VideoReader
    from vrdir.video.writing import VideoWriter

__all__ = [
    "FORMATS",
    "VIDEO_SUFFIXES",
    "Frame",
    "VideoReader",
    "VideoWriter",
    "is_video",
]

_HOMES = {
    "FORMATS": "vrdir.video.formats",
    "Frame": "vrdir.video.formats",
    "VIDEO_SUFFIXES": "vrdir.video.formats",
    "VideoReader": "vrdir.video.reading",
    "VideoWriter": "vrdir.video.writing",
    "is_video": "vrdir.video.formats",
}

__getattr__, _ = offer(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
