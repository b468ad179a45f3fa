"""Reading and writing of video files: only the pixels change."""

import logging
import os
import signal
import subprocess
import sys
import weakref
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

av = pytest.importorskip("av")

from tests.clips import TITLE, clip, damage, packets, pictures, times, view  # noqa: E402

from vrdir.errors import (  # noqa: E402
    DiskError,
    ImageError,
    VideoError,
)
from vrdir.images import memory  # noqa: E402
from vrdir.video.formats import FORMATS, Frame  # noqa: E402
from vrdir.video.reading import VideoReader  # noqa: E402
from vrdir.video.writing import VideoWriter  # noqa: E402


def copy(source: Path, target: Path, stop_at: int | None = None) -> list[Frame]:
    """Copy every frame through reader and writer, damaged ones as black, and return the frames.

    Raises a KeyError after frame `stop_at`.
    """
    frames = []
    with VideoReader(source) as reader, VideoWriter(target, reader) as writer:
        for frame in reader.frames(writer.copy):
            frames.append(frame)
            black = np.zeros((reader.height, reader.width, 3), np.uint8)
            writer.write(black if frame.pixels is None else frame.pixels, frame)
            if len(frames) - 1 == stop_at:
                raise KeyError
    return frames


def difference(first: list[Any], second: list[Any]) -> float:
    """Return the mean absolute difference in 8-bit levels."""
    return float(
        np.mean([np.abs(a.astype(float) - b).mean() for a, b in zip(first, second, strict=True)])
    )


@pytest.mark.parametrize("size", [(64, 48), (63, 47)])
@pytest.mark.parametrize("suffix", [each.suffix for each in FORMATS])
def test_each_format_keeps_frames_times_and_sizes(
    suffix: str, size: tuple[int, int], tmp_path: Path
) -> None:
    odd = {"pix_fmt": "yuv444p"} if size[0] % 2 else {}
    read = copy(clip(tmp_path / "a.mp4", 6, *size, sound=None, **odd), tmp_path / f"b{suffix}")
    with VideoReader(tmp_path / f"b{suffix}") as reader:
        written, unit = list(reader.frames()), reader.time_base
        assert (reader.width, reader.height) == size
    with VideoReader(tmp_path / "a.mp4") as reader:
        times = [frame.pts * reader.time_base for frame in read]
    assert [frame.pts * unit for frame in written] == pytest.approx(times, abs=1e-3)
    assert difference([one.pixels for one in read], [one.pixels for one in written]) < 3


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_tags_in_latin_1_are_read(suffix: str, tmp_path: Path) -> None:
    source = clip(tmp_path / f"a{suffix}", frames=3)
    content = source.read_bytes()
    assert TITLE.startswith("Ü")
    source.write_bytes(content.replace("Ü".encode(), b"\xdcu"))
    assert len(copy(source, tmp_path / f"b{suffix}")) == 3
    with av.open(str(tmp_path / f"b{suffix}")) as new:
        assert new.metadata["title"] == "\ufffdu" + TITLE[1:]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_frames_times_sound_and_tags_are_kept(tmp_path: Path, suffix: str) -> None:
    source = clip(tmp_path / f"a{suffix}", frames=30)
    target = tmp_path / "deep" / f"b{suffix}"
    frames = copy(source, target)
    assert len(frames) == 30
    assert times(target) == times(source)
    assert packets(target, "audio") == packets(source, "audio")
    assert len(packets(target, "audio")) > 20
    assert difference(pictures(target), pictures(source)) < 3
    with av.open(str(source)) as old, av.open(str(target)) as new:
        assert new.metadata["title"] == old.metadata["title"] == TITLE
        assert new.chapters()[0]["metadata"]["title"] == "Abfahrt"
        if suffix != ".mov":  # its language codes have no "deu"
            assert (
                new.streams.audio[0].metadata["language"]
                == old.streams.audio[0].metadata["language"]
                == "deu"
            )
        assert new.streams.video[0].average_rate == old.streams.video[0].average_rate == 25
        assert new.streams.video[0].frames == old.streams.video[0].frames
        if suffix != ".mkv":  # it does not store the duration of its last sound
            assert new.duration == old.duration
    assert [path.name for path in target.parent.iterdir()] == [target.name]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_varying_frame_rate_is_kept(tmp_path: Path, suffix: str) -> None:
    at = [0, 512, 1536, 1600, 4000, 4512, 9999, 12800, 13000, 20000]
    source = clip(tmp_path / f"a{suffix}", len(at), pts=lambda number: 640 + at[number])
    frames = copy(source, tmp_path / f"b{suffix}")
    assert times(tmp_path / f"b{suffix}") == times(source)
    if suffix == ".mp4":
        assert [frame.pts for frame in frames] == [640 + t for t in at]
        with av.open(str(source)) as old, av.open(str(tmp_path / "b.mp4")) as new:
            assert new.streams.video[0].duration == old.streams.video[0].duration
    video = [packets(path, "video") for path in (source, tmp_path / f"b{suffix}")]
    assert sorted(t for t, _ in video[0]) == sorted(t for t, _ in video[1])


@pytest.mark.parametrize(
    ("suffix", "codec", "sound"), [(".mp4", "libx264", "aac"), (".webm", "libvpx-vp9", "libopus")]
)
def test_odd_sizes_are_kept(tmp_path: Path, suffix: str, codec: str, sound: str) -> None:
    pix_fmt = "yuv444p" if codec == "libx264" else "yuv420p"
    source = clip(tmp_path / f"a{suffix}", 6, 67, 45, codec=codec, sound=sound, pix_fmt=pix_fmt)
    copy(source, tmp_path / f"b{suffix}")
    assert [picture.shape for picture in pictures(tmp_path / f"b{suffix}")] == [(45, 67, 3)] * 6
    assert difference(pictures(tmp_path / f"b{suffix}"), pictures(source)) < 4
    assert packets(tmp_path / f"b{suffix}", "audio") == packets(source, "audio")


def test_video_without_sound(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.webm", codec="libvpx-vp9", sound=None)
    copy(source, tmp_path / "b.mp4")
    assert len(pictures(tmp_path / "b.mp4")) == 12


def test_subtitles_are_kept(tmp_path: Path) -> None:
    clip(tmp_path / "a.mkv", words=("words", "more words"))
    copy(tmp_path / "a.mkv", tmp_path / "b.mkv")
    assert [content for _, content in packets(tmp_path / "b.mkv", "subtitles")] == [
        b"words",
        b"more words",
    ]
    assert packets(tmp_path / "b.mkv", "subtitles") == packets(tmp_path / "a.mkv", "subtitles")


def test_rotated_video_is_written_upright(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", rotation=90, tags=[("sample_aspect_ratio", Fraction(4, 3))])
    frames = copy(source, tmp_path / "b.mp4")
    assert frames[0].pixels is not None
    assert frames[0].pixels.shape == (64, 48, 3)
    stored = pictures(source)
    assert difference(pictures(tmp_path / "b.mp4"), [np.rot90(picture) for picture in stored]) < 3
    with av.open(str(tmp_path / "b.mp4")) as new:
        assert next(new.decode(video=0)).rotation == 0
        assert new.streams.video[0].sample_aspect_ratio == Fraction(3, 4)


@pytest.mark.parametrize("colour_range", [1, 2])
def test_colours_and_their_tags_are_kept(tmp_path: Path, colour_range: int) -> None:
    def patches(_: int) -> Any:
        return np.kron(
            np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [128, 128, 128]]], np.uint8),
            np.ones((24, 32, 1), np.uint8),
        )

    tags = [
        ("color_range", colour_range),
        ("colorspace", 1),
        ("color_primaries", 1),
        ("color_trc", 1),
        ("sample_aspect_ratio", Fraction(8, 9)),
    ]
    source = clip(tmp_path / "a.mp4", picture=patches, tags=tags, options={"crf": "5"})
    copy(source, tmp_path / "b.mp4")
    assert (
        difference(pictures(tmp_path / "b.mp4"), pictures(source)) < 4
    )  # another matrix or range: 10 and more
    with av.open(str(source)) as old, av.open(str(tmp_path / "b.mp4")) as new:
        for name, value in tags:
            contexts = [container.streams.video[0].codec_context for container in (old, new)]
            assert getattr(contexts[1], name) == getattr(contexts[0], name) == value, name


def test_ten_bits_become_eight_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = clip(tmp_path / "a.mkv", pix_fmt="yuv420p10le")
    copy(source, tmp_path / "b.mkv")
    assert "more than 8 bits" in caplog.text
    with av.open(str(tmp_path / "b.mkv")) as new:
        assert new.streams.video[0].codec_context.pix_fmt == "yuv420p"
    assert len(pictures(tmp_path / "b.mkv")) == 12


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt"),
    [
        (".mov", "prores_ks", "yuva444p10le"),
        (".webm", "libvpx-vp9", "yuva420p"),
        (".webm", "libvpx-vp9", "yuv420p"),
    ],
)
def test_alpha_is_left_out_with_a_warning(
    tmp_path: Path, suffix: str, codec: str, pix_fmt: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = clip(tmp_path / f"a{suffix}", 3, codec=codec, pix_fmt=pix_fmt, sound=None)
    copy(source, tmp_path / f"b{suffix}")
    transparent = pix_fmt.startswith("yuva")
    warning = f"a{suffix} can be transparent (it has an alpha channel)"
    assert (f"{warning}; it is restored and written without" in caplog.text) == transparent
    with av.open(str(tmp_path / f"b{suffix}")) as new:
        assert not any(
            component.is_alpha for component in next(new.decode(video=0)).format.components
        )
        assert "alpha_mode" not in map(
            str.lower, new.streams.video[0].metadata
        )  # the new picture has no alpha


@pytest.mark.parametrize("part", [slice(None), slice(40, None)])
@pytest.mark.parametrize("bad", [[4], [0], [11], [5, 6, 7]])
def test_damaged_frames_are_reported_with_their_times(
    tmp_path: Path, bad: list[int], part: slice, caplog: pytest.LogCaptureFixture
) -> None:
    # Every frame is a key frame here, so that damage does not spread.
    source = clip(tmp_path / "a.mp4", options={"g": "1", "crf": "10"})
    for number in bad:
        damage(source, number, part)
    caplog.set_level(logging.INFO)
    frames = copy(source, tmp_path / "b.mp4")
    assert [number for number, frame in enumerate(frames) if frame.pixels is None] == bad
    assert [frame.pts for frame in frames] == [512 * number for number in range(12)]
    assert times(tmp_path / "b.mp4") == [Fraction(number, 25) for number in range(12)]
    for number in bad:
        assert f"frame {number}, at {number / 25:.3f} s, is damaged" in caplog.text


def test_hidden_vp8_packets_are_not_frames(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """VP8's alternate reference frames have a time, and are never shown."""
    caplog.set_level(logging.INFO)
    plain = clip(
        tmp_path / "plain.webm",
        frames=10,
        codec="libvpx",
        sound=None,
        options={"auto-alt-ref": "0"},
    )
    with av.open(str(plain)) as source, av.open(str(tmp_path / "hidden.webm"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(
            packet for packet in source.demux(source.streams.video[0]) if packet.size
        ):
            if number == 5:
                content = bytearray(bytes(packet))
                content[0] &= ~0x10
                hidden = av.Packet(bytes(content))
                hidden.pts = hidden.dts = packet.pts - 20
                hidden.time_base, hidden.stream = packet.time_base, stream
                target.mux(hidden)
            packet.stream = stream
            target.mux(packet)
    with VideoReader(tmp_path / "hidden.webm") as reader:
        frames = list(reader.frames())
    assert len(frames) == 10
    assert all(frame.pixels is not None for frame in frames)
    assert "damaged" not in caplog.text


def test_frame_count_is_exact_after_damage(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", frames=40, options={"bf": "3", "g": "10"})
    for number in (3, 10, 25):
        damage(source, number)
    frames = copy(source, tmp_path / "b.mp4")
    missing = {number for number, frame in enumerate(frames) if frame.pixels is None}
    assert {3, 10, 25} <= missing
    assert len(missing) < 20
    assert times(tmp_path / "b.mp4") == [Fraction(number, 25) for number in range(40)]
    assert packets(tmp_path / "b.mp4", "audio") == packets(source, "audio")


def test_truncated_video_is_read_to_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = clip(tmp_path / "a.mkv", frames=40)
    content = source.read_bytes()
    source.write_bytes(content[: len(content) * 2 // 3])
    frames = copy(source, tmp_path / "b.mkv")
    assert 5 < len(frames) < 40
    assert len(pictures(tmp_path / "b.mkv")) == len(frames)
    # An MP4 whose index comes first lists frames that are missing.
    source = clip(tmp_path / "c.mp4", frames=40, container_options={"movflags": "faststart"})
    content = source.read_bytes()
    source.write_bytes(content[: len(content) * 2 // 3])
    frames = copy(source, tmp_path / "d.mp4")
    assert 5 < len(frames) < 40
    assert len(pictures(tmp_path / "d.mp4")) == len(frames)
    assert "c.mp4 is truncated" in caplog.text


def test_error_names_an_unreadable_video(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"gone.mp4 does not exist"):
        VideoReader(tmp_path / "gone.mp4")
    with pytest.raises(VideoError, match="is a folder"):
        VideoReader(tmp_path)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(VideoError, match=r"text.mp4 is not a video, or is damaged"):
        VideoReader(tmp_path / "text.mp4")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        tone: Any = container.add_stream("aac", rate=48000, layout="stereo")
        piece = av.AudioFrame.from_ndarray(
            np.zeros((2, 1024), np.float32), format="fltp", layout="stereo"
        )
        piece.sample_rate = 48000
        container.mux(tone.encode(piece))
        container.mux(tone.encode())
    with pytest.raises(VideoError, match=r"sound.mp4 has no video stream"):
        VideoReader(tmp_path / "sound.mp4")
    source = clip(tmp_path / "bad.mp4", options={"g": "1"})
    for number in range(12):
        damage(source, number)
    with pytest.raises(VideoError, match=r"none of the frames of .*bad.mp4 can be decoded"):
        VideoReader(source)


@pytest.mark.parametrize("name", ["12:30:00.mp4", "data:a.mp4", "a%03d.mp4", "-i.mp4"])
def test_names_that_look_like_addresses_or_options(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip(tmp_path / "a.mp4", frames=3).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(copy(Path(name), Path(f"out-{name}"))) == 3


def test_scripts_that_name_other_files_are_no_videos(tmp_path: Path) -> None:
    clip(tmp_path / "a.mp4", frames=3)
    os.mkfifo(tmp_path / "pipe.mp4")  # opening it would wait for ever
    script = tmp_path / "script.mp4"
    for text in (
        "ffconcat version 1.0\nfile pipe.mp4\n",
        "ffconcat version 1.0\nfile a.mp4\n",
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{tmp_path}/pipe.mp4\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    ):
        script.write_text(text)
        with pytest.raises(VideoError, match=r"script\.mp4 is not a video"):
            VideoReader(script)


def test_frames_that_need_too_much_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = clip(tmp_path / "a.mp4", frames=3)
    monkeypatch.setattr(memory, "most_for_one", lambda: 300_000)
    with pytest.raises(VideoError, match=r"a\.mp4 \(64 x 48 pixels\) needs about .* of memory"):
        VideoReader(source)


def test_failed_writing_names_the_file_and_leaves_no_file(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4")
    with pytest.raises(
        VideoError,
        match=r"\.webm cannot store the sound of .*a.mp4 \(aac\); choose another container",
    ):
        copy(source, tmp_path / "out" / "b.webm")
    with pytest.raises(VideoError, match="no video format for the suffix '.xyz'"):
        copy(source, tmp_path / "out" / "b.xyz")
    (tmp_path / "file").write_text("")
    with pytest.raises(ImageError, match=r"b.mp4 cannot be written \(.*\); check the folder"):
        copy(source, tmp_path / "file" / "b.mp4")
    (tmp_path / "out" / "b.mp4").write_bytes(b"precious")
    with pytest.raises(KeyError):
        copy(source, tmp_path / "out" / "b.mp4", stop_at=5)
    assert (tmp_path / "out" / "b.mp4").read_bytes() == b"precious"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.mp4"]


def test_error_without_pyav_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(VideoError, match=r"pip install 'vrdir\[video\]'"):
        VideoReader(tmp_path / "a.mp4")


COPY = """
import sys
from pathlib import Path
from vrdir.video.reading import VideoReader
from vrdir.video.writing import VideoWriter
source, target = map(Path, sys.argv[1:3])
with VideoReader(source) as reader, VideoWriter(target, reader) as writer:
    for number, frame in enumerate(reader.frames(writer.copy)):
        BODY
        writer.write(frame.pixels, frame)
AFTER
"""


def run(source: Path, target: Path, body: str = "pass", before: str = "", after: str = "") -> Any:
    code = before + COPY.replace("BODY", body).replace("AFTER", after)
    return subprocess.run(
        [sys.executable, "-c", code, str(source), str(target)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_full_disk_leaves_no_file(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    source = clip(
        tmp_path / "a.mp4", picture=lambda _: noise.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    )
    before = (
        "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
    )
    (tmp_path / "out").mkdir()
    result = run(source, tmp_path / "out" / "b.mp4", before=before)
    assert result.returncode == 1
    assert "b.mp4 cannot be written (File too large)" in result.stderr
    assert list((tmp_path / "out").iterdir()) == []


def copied(reader: VideoReader, writer: VideoWriter) -> None:
    with writer:
        for frame in reader.frames(writer.copy):
            assert frame.pixels is not None
            writer.write(frame.pixels, frame)


@pytest.mark.skipif(
    not (Path("/dev/full").exists() and Path("/proc/self/fd").exists()), reason="needs Linux"
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_disk_full_at_the_header_leaves_no_open_file(
    tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    source = clip(tmp_path / "a.mp4", sound=None)
    with (
        VideoReader(source) as reader,
        pytest.raises(
            DiskError, match=r"b\.\w+ cannot be written \(No space left on device\); free some"
        ),
    ):
        copied(reader, VideoWriter(tmp_path / f"b{suffix}", reader, Path("/dev/full")))
    assert capfd.readouterr().err == ""
    assert "/dev/full" not in {
        str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()
    }


def test_killed_run_leaves_no_target(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4")
    result = run(
        source,
        tmp_path / "b.mp4",
        f"if number == 8: import os; os.kill(os.getpid(), {int(signal.SIGKILL)})",
    )
    assert result.returncode == -signal.SIGKILL
    assert not (tmp_path / "b.mp4").exists()


def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    """Our arrays are counted; the frames that FFmpeg holds show in the process's memory."""
    source = clip(tmp_path / "a.mp4", frames=50)
    alive: list[weakref.ref[Any]] = []
    most = 0
    with VideoReader(source) as reader, VideoWriter(tmp_path / "b.mp4", reader) as writer:
        for frame in reader.frames(writer.copy):
            assert frame.pixels is not None
            alive = [ref for ref in alive if ref() is not None] + [weakref.ref(frame.pixels)]
            most = max(most, len(alive))
            writer.write(frame.pixels, frame)
    assert most <= 2
    # 700 frames of 320 x 240 are 160 MB in RGB, and 80 MB in the encoder's format.
    still = view(0, 320, 240)
    source = clip(
        tmp_path / "long.mp4",
        700,
        320,
        240,
        picture=lambda _: still,
        options={"preset": "ultrafast"},
        sound=None,
    )
    usage = "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss"
    memory = f"import resource; peak = {usage}"
    grown = f"import resource; print(({usage} - peak) // 1024)"
    result = run(
        source,
        tmp_path / "c.mp4",
        f"\n        if number == 150:\n            {memory}",
        after=grown,
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 30
    assert os.path.getsize(tmp_path / "c.mp4") > 0  # noqa: PTH202
