"""Video files for the tests: a view that pans over a photo, with a tone as sound."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import skimage.data
from PIL import Image

TICKS = Fraction(1, 12800)  # the unit of the video stream's clock
TITLE = "Überfahrt, 3 Uhr"


def view(number: int, width: int = 64, height: int = 48) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return frame `number`: (H, W, 3) uint8."""
    photo = (
        Image.open(Path(skimage.data.__file__).parent / "chelsea.png")
        .convert("RGB")
        .resize((2 * width + 200, 2 * height))
    )
    return np.asarray(photo.crop((number, 0, number + width, height))).copy()


def clip(
    path: Path,
    frames: int = 12,
    width: int = 64,
    height: int = 48,
    pts: Callable[[int], int] = lambda number: number * 512,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    sound: str | None = "aac",
    picture: Callable[[int], Any] | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    rotation: int = 0,
    words: Sequence[str] = (),
    tags: Sequence[tuple[str, Any]] = (),
    ticks: Fraction = TICKS,
) -> Path:
    """Write a clip with a title, a chapter, a tone tagged as German, and subtitles.

    It has 25 frames per second, or the times that `pts` returns, in ticks.
    """
    with av.open(str(path), "w", container_options=container_options or {}) as container:
        stream: Any = container.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.time_base = ticks
        for name, value in tags:
            setattr(stream.codec_context, name, value)
        if rotation:
            stream.set_display_rotation(rotation)
        tone: Any = container.add_stream(sound, rate=48000, layout="stereo") if sound else None
        if tone:
            tone.metadata["language"] = "deu"
        subtitles: Any = (
            container.add_mux_stream("subrip", time_base=Fraction(1, 1000)) if words else None
        )
        container.metadata["title"] = TITLE
        container.set_chapters(
            [
                {
                    "id": 1,
                    "start": 0,
                    "end": 240,
                    "time_base": Fraction(1, 1000),
                    "metadata": {"title": "Abfahrt"},
                }
            ],
        )
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(
                picture(number) if picture else view(number, width, height), format="rgb24"
            )
            frame = frame.reformat(
                format=pix_fmt, dst_colorspace=1 if ("colorspace", 1) in tags else None
            )
            frame.pts, frame.time_base = pts(number), ticks
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if tone:
            wave = (0.3 * np.sin(np.arange(48000 * frames // 25) * 2 * np.pi * 440 / 48000)).astype(
                np.float32
            )
            for start in range(0, len(wave), 960):
                piece = av.AudioFrame.from_ndarray(
                    np.stack([wave[start : start + 960]] * 2), format="fltp", layout="stereo"
                )
                piece.sample_rate, piece.pts, piece.time_base = 48000, start, Fraction(1, 48000)
                container.mux(tone.encode(piece))
            container.mux(tone.encode())
        for number, word in enumerate(words):
            packet: Any = av.Packet(word.encode())
            packet.stream, packet.time_base, packet.duration = subtitles, Fraction(1, 1000), 100
            packet.pts = packet.dts = 200 * number
            container.mux(packet)
    return path


def pictures(path: Path) -> list[Any]:
    """Return the frames, (H, W, 3) uint8 each, as any player decodes them."""
    with av.open(str(path)) as container:
        return [
            frame.to_ndarray(format="rgb24")
            for frame in container.decode(container.streams.video[0])
        ]


def times(path: Path) -> list[Fraction]:
    """Return the time of each frame, in seconds."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [frame.pts * stream.time_base for frame in container.decode(stream)]


def packets(path: Path, kind: str) -> list[tuple[Fraction, bytes]]:
    """Return the time and bytes of each packet of the first stream of a kind."""
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[0]
        return [
            (packet.pts * stream.time_base, bytes(packet))
            for packet in container.demux(stream)
            if packet.size
        ]


def damage(path: Path, number: int, part: slice = slice(None)) -> None:
    """Overwrite a frame's bytes in the file, all or a part of them.

    `number` counts the frames in the order in which they are shown.
    """
    with av.open(str(path)) as container:
        found = [packet for packet in container.demux(container.streams.video[0]) if packet.size]
        packet = sorted(found, key=lambda packet: packet.pts)[number]
        position, size = packet.pos, packet.size
    where = range(position, position + size)[part]
    content = bytearray(path.read_bytes())
    content[where.start : where.stop] = (
        np.random.default_rng(1).integers(0, 256, len(where), dtype=np.uint8).tobytes()
    )
    path.write_bytes(content)
