"""Videos with unusual time stamps: every frame is read once, in order, in step with the sound."""

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

av = pytest.importorskip("av")

from tests.clips import clip, damage, packets, pictures, times, view  # noqa: E402
from tests.video.test_video import copy  # noqa: E402

from vrdir.errors import VideoError  # noqa: E402
from vrdir.video.reading import VideoReader  # noqa: E402

# Three B-frames between two others, for any content.
REORDERED = {"x264-params": "bframes=3:b-adapt=0:scenecut=0:keyint=12", "crf": "5"}
FRAMES = 30


@cache
def views() -> Any:
    return np.stack([view(number) for number in range(FRAMES)]).astype(int)


def numbers(frames: list[Any]) -> list[int]:
    """Return the number of the view in each frame."""
    return [int(np.abs(views() - frame).mean((1, 2, 3)).argmin()) for frame in frames]


def check(source: Path, target: Path, shown: list[int] | None = None) -> list[Fraction]:
    """Copy a video, check that every frame is kept, undamaged and in order; return its times."""
    shown = list(range(FRAMES)) if shown is None else shown
    frames = copy(source, target)
    assert [frame.pixels is None for frame in frames] == [False] * len(shown)
    assert numbers([frame.pixels for frame in frames]) == shown
    assert all(a.pts < b.pts for a, b in pairwise(frames))
    assert numbers(pictures(target)) == shown
    found = times(target)
    strict = target.suffix != ".mkv"  # it counts in milliseconds
    assert all(a < b or (a == b and not strict) for a, b in pairwise(found))
    return found


def sound_of(path: Path) -> list[bytes]:
    return [content for _, content in packets(path, "audio")]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(
    ("codec", "options"),
    [("libx264", REORDERED), ("mpeg4", {"bf": "2", "qscale": "2"}), ("mjpeg", {})],
)
def test_avi_without_times(
    tmp_path: Path,
    codec: str,
    options: dict[str, str],
    suffix: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    source = clip(
        tmp_path / "a.avi",
        FRAMES,
        codec=codec,
        pix_fmt=pix_fmt,
        options=options,
        ticks=Fraction(1, 25),
        pts=int,
        sound="libmp3lame",
    )
    found = check(source, tmp_path / f"b{suffix}")
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        assert found == [
            packet.dts * stream.time_base for packet in container.demux(stream) if packet.size
        ]
    assert found[-1] - found[1] == Fraction(FRAMES - 2, 25)
    assert sound_of(tmp_path / f"b{suffix}") == sound_of(source)
    assert "truncated" not in caplog.text


def test_avi_with_empty_places(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = clip(
        tmp_path / "a.avi", FRAMES, options=REORDERED, sound="libmp3lame"
    )  # 600 places per second
    with av.open(str(source)) as container:
        assert container.streams.video[0].frames > 20 * FRAMES
    check(source, tmp_path / "b.mp4")
    assert "truncated" not in caplog.text


def test_truncated_avi(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = clip(
        tmp_path / "a.avi", FRAMES, options=REORDERED, ticks=Fraction(1, 25), pts=int, sound=None
    )
    content = source.read_bytes()
    source.write_bytes(content[: len(content) * 2 // 3])
    frames = copy(source, tmp_path / "b.mp4")
    assert 5 < len(frames) < FRAMES
    assert sum(frame.pixels is None for frame in frames) <= 1  # the one that was cut off
    assert "a.avi is truncated" in caplog.text


@pytest.mark.parametrize("bad", [[5], [29], [8, 9, 10, 21]])
def test_damage_in_avi(tmp_path: Path, bad: list[int]) -> None:
    source = clip(
        tmp_path / "a.avi",
        FRAMES,
        options={"g": "1", "crf": "5"},
        ticks=Fraction(1, 25),
        pts=int,
        sound=None,
    )
    for number in bad:
        damage(source, number)
    frames = copy(source, tmp_path / "b.mkv")
    assert [number for number, frame in enumerate(frames) if frame.pixels is None] == bad
    assert len(times(tmp_path / "b.mkv")) == FRAMES


def rewritten(source: Path, target: Path, change: Callable[[int, Any], None]) -> Path:
    """Copy the video's packets to another file, each changed."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(
            packet for packet in old.demux(old.streams.video[0]) if packet.size
        ):
            change(number, packet)
            packet.stream = stream
            new.mux(packet)
    return target


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".flv"])
def test_times_in_the_order_of_decoding(tmp_path: Path, suffix: str) -> None:
    def decoding(number: int, packet: Any) -> None:
        packet.pts = packet.dts = 1000 + 512 * number

    source = clip(tmp_path / "plain.mp4", FRAMES, options=REORDERED, sound=None)
    found = check(rewritten(source, tmp_path / f"a{suffix}", decoding), tmp_path / "b.mp4")
    assert max(abs(b - a - Fraction(1, 25)) for a, b in pairwise(found)) <= Fraction(1, 1000)


@pytest.mark.parametrize("target", ["b.mp4", "b.mkv"])
@pytest.mark.parametrize("options", [REORDERED, {"bf": "0", "crf": "5"}])
def test_several_frames_in_one_tick(tmp_path: Path, options: dict[str, str], target: str) -> None:
    source = clip(
        tmp_path / "a.mkv", FRAMES, options=options, pts=lambda number: 5 * number
    )  # 2560 per second, with a clock of milliseconds
    found = check(source, tmp_path / target)
    assert max(
        abs(time - Fraction(5 * number, 12800)) for number, time in enumerate(found)
    ) < Fraction(1, 1000)


@pytest.mark.parametrize("target", ["b.mp4", "b.mkv"])
def test_repeated_time(tmp_path: Path, target: str) -> None:
    at = [512 * number if number % 5 else 512 * number - 506 for number in range(FRAMES)]
    at[0] = 0
    source = clip(tmp_path / "a.mkv", FRAMES, options=REORDERED, pts=at.__getitem__)
    assert len(set(times(source))) < FRAMES
    found = check(source, tmp_path / target)
    assert max(abs(a - b) for a, b in zip(found, times(source), strict=True)) < Fraction(1, 1000)


def test_slightly_decreasing_times_are_corrected(tmp_path: Path) -> None:
    def shaken(number: int, packet: Any) -> None:
        packet.pts, packet.dts = 40 * number - 60 * (number == 10), 40 * number - 200

    source = clip(tmp_path / "plain.mkv", FRAMES, options={"g": "1", "crf": "5"}, sound=None)
    check(rewritten(source, tmp_path / "a.mkv", shaken), tmp_path / "b.mp4")


def joined(target: Path, *sources: Path) -> Path:
    target.write_bytes(b"".join(source.read_bytes() for source in sources))
    return target


def moved(source: Path, target: Path, seconds: int) -> Path:
    """Copy a file with another clock."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        picture_and_sound = [old.streams.video[0], old.streams.audio[0]]
        streams = {
            stream.index: new.add_stream_from_template(stream) for stream in picture_and_sound
        }
        for packet in old.demux(picture_and_sound):
            if packet.size:
                ticks = round(seconds / packet.time_base)
                packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    return target


@pytest.mark.parametrize("target", ["b.mp4", "b.mkv"])
@pytest.mark.parametrize(
    ("suffix", "starts"),
    [
        *[(".ts", starts) for starts in ((0, 0, 0), (2, 5000), (5000, 2))],
        *[
            (".mpg", starts) for starts in ((0, 0, 0), (5000, 2))
        ],  # a jump ahead is a pause there (docs/video.md)
        *[
            (".mkv", starts) for starts in ((0, 0), (50, 2))
        ],  # FFmpeg reads two parts; a jump ahead is a pause there
    ],
)
def test_restarted_clock_is_continued(
    tmp_path: Path, suffix: str, starts: tuple[int, ...], target: str
) -> None:
    codec, sound = ("mpeg2video", "mp2") if suffix == ".mpg" else ("libx264", "aac")
    options = {"bf": "2", "b_strategy": "0", "qscale": "2"} if suffix == ".mpg" else REORDERED
    plain = clip(
        tmp_path / "plain.mp4",
        FRAMES,
        options=options,
        codec=codec,
        sound=sound,
        ticks=Fraction(1, 25),
        pts=int,
    )
    parts = [
        moved(plain, tmp_path / f"{number}{suffix}", start) for number, start in enumerate(starts)
    ]
    source = joined(tmp_path / f"a{suffix}", *parts)
    found = check(source, tmp_path / target, [*range(FRAMES)] * len(starts))
    gaps = [b - a for a, b in pairwise(found)]
    ends = {FRAMES * part - 1 for part in range(1, len(starts))}
    assert all(
        abs(gap - Fraction(1, 25)) <= Fraction(1, 1000)
        for number, gap in enumerate(gaps)
        if number not in ends
    )
    assert all(
        0 < gaps[number] < Fraction(1, 4) for number in ends
    )  # sound is a little longer than the picture
    sound_there = packets(tmp_path / target, "audio")
    bare = 7 if suffix == ".ts" else 0  # AAC packets have headers there
    assert [content for _, content in sound_there] == [
        content[bare:] for content in sound_of(source)
    ]
    if target == "b.mp4":
        assert all(a < b for (a, _), (b, _) in pairwise(sound_there))
    # In every part, the offset of sound and picture is that of the first part. It is measured in
    # the middle, because the beginning may overlap.
    per_part = len(sound_there) // len(starts)
    apart = [
        sound_there[per_part * part + per_part // 2][0] - found[FRAMES * part]
        for part in range(len(starts))
    ]
    assert max(abs(value - apart[0]) for value in apart) <= Fraction(3, 1000)


@pytest.mark.parametrize(("suffix", "parts"), [(".mkv", 3), (".mp4", 2)])
def test_unread_parts_warn(
    tmp_path: Path, suffix: str, parts: int, caplog: pytest.LogCaptureFixture
) -> None:
    plain = clip(tmp_path / f"plain{suffix}", 6, options=REORDERED, sound=None)
    copy(plain, tmp_path / "b.mkv")
    assert "further" not in caplog.text
    frames = copy(joined(tmp_path / f"a{suffix}", *[plain] * parts), tmp_path / "b.mkv")
    assert (
        f"a{suffix} contains a second video, which is ignored; join videos with ffmpeg"
        in caplog.text
    )
    assert 6 * (parts - 1) == len(frames)


def test_joined_parts_without_sound(tmp_path: Path) -> None:
    plain = clip(
        tmp_path / "plain.ts", 4, options=REORDERED, sound=None
    )  # shorter than a jump in FFmpeg's sense
    found = check(
        joined(tmp_path / "a.ts", plain, plain, plain), tmp_path / "b.mkv", [0, 1, 2, 3] * 3
    )
    assert [b - a for a, b in pairwise(found)] == [Fraction(1, 25)] * 11


def test_sound_packets_with_equal_times_fit_into_mp4(tmp_path: Path) -> None:
    """MP4 does not accept two packets of sound at one time."""
    source = clip(tmp_path / "plain.mkv", FRAMES, options=REORDERED)
    with av.open(str(source)) as old, av.open(str(tmp_path / "a.mkv"), "w") as new:
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        last: dict[int, int] = {}
        for packet in old.demux():
            if packet.size:
                if packet.stream.type == "audio" and packet.dts % 2 and last:
                    packet.pts = packet.dts = max(last.values())
                last = {0: packet.dts} if packet.stream.type == "audio" else last
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    copy(tmp_path / "a.mkv", tmp_path / "b.mp4")
    there = packets(tmp_path / "b.mp4", "audio")
    assert [content for _, content in there] == sound_of(source)
    assert all(a < b for (a, _), (b, _) in pairwise(there))
    copy(tmp_path / "a.mkv", tmp_path / "b.mkv")
    assert packets(tmp_path / "b.mkv", "audio") == packets(tmp_path / "a.mkv", "audio")


def test_git_lfs_pointer_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{64 * '0'}\nsize 12345\n"
    )
    with pytest.raises(
        VideoError, match=r"a.mp4 is a Git LFS pointer, not the file itself; run: git lfs pull"
    ):
        VideoReader(tmp_path / "a.mp4")
