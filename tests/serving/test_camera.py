"""Live sources: real streams over the loopback and files in real time, lost and found again."""

from __future__ import annotations

import io
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import httpx
import numpy as np
import pytest
from PIL import Image
from tests.clips import clip, view
from tests.serving.servers import Server

from vrdir import Camera, Restorer
from vrdir.errors import VideoError
from vrdir.serving.camera import _SizeChoice

# A camera as a process: it waits for one client and sends a clip in real time, again and again.
CAMERA = """
import socket, sys, time
from fractions import Fraction
import av
from tests.clips import view
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listening:
    connection = listening.accept()[0].makefile("wb", buffering=0)
with av.open(connection, "w", format="mpegts") as container:
    stream = container.add_stream("mpeg2video", rate=25)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    start = time.monotonic()
    for number in range(int(sys.argv[2])):
        frame = av.VideoFrame.from_ndarray(view(number % 50), format="rgb24")
        frame.pts, frame.time_base = number, Fraction(1, 25)
        for packet in stream.encode(frame):
            container.mux(packet)
        time.sleep(max(0, start + number / 25 - time.monotonic()))
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        port: int = opened.getsockname()[1]
    return port


@contextmanager
def camera_process(port: int, frames: int = 10_000) -> Iterator[subprocess.Popen[str]]:
    """A camera at tcp://127.0.0.1:PORT that sends this many frames."""
    command = [sys.executable, "-c", CAMERA, str(port), str(frames)]
    process = subprocess.Popen(command, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_file_is_played_in_real_time_and_ends(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4", frames=25)
    start = time.perf_counter()
    with Camera(path, restore=False) as camera:
        frames = list(camera)
    assert time.perf_counter() - start > 0.9  # 25 frames at 25 a second
    assert frames[0].shape == (48, 64, 3)
    report = camera.report
    assert report.received == 25
    assert report.restored + report.dropped == 25
    assert len(frames) == report.restored + report.repeated


def test_late_frames_are_dropped_and_the_delay_stays_bounded(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4", frames=40)
    with Camera(path, restore=False) as camera:
        for _ in camera:
            time.sleep(0.15)  # slower than the camera
    report = camera.report
    assert report.dropped > 10
    assert report.restored < 30
    assert report.p95_ms < 1000  # not the length of the clip, as with a queue


def test_frames_are_restored_like_by_restorer(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mkv", frames=1, codec="ffv1", pix_fmt="bgr0", sound=None)
    restorer = Restorer("small", "cpu")
    (frame,) = Camera(path, restore=restorer)
    (reversed_frame,) = Camera(path, restore=restorer, channels="bgr")
    wanted = next(restorer.stream([view(0)])).astype(int)
    assert abs(frame.astype(int) - wanted).max() <= 1
    assert np.array_equal(reversed_frame[..., ::-1], frame)


def test_max_side_reduces_frames(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4", frames=3)
    frames = list(Camera(path, restore=False, max_side=32))
    assert frames[0].shape == (24, 32, 3)


def test_a_lost_stream_is_found_again_and_the_last_frame_is_kept() -> None:
    port = free_port()
    with Camera(f"tcp://127.0.0.1:{port}", restore=False) as camera:
        limit = threading.Timer(300, camera.close)  # ends a test that would hang
        limit.daemon = True
        limit.start()
        with camera_process(port):
            frames = [next(camera) for _ in range(3)]
        until = time.monotonic() + 240
        while camera.report.repeated == 0 and time.monotonic() < until:
            last = next(camera)
        assert last.shape == frames[0].shape
        assert not camera.report.connected
        with camera_process(port):
            while not camera.report.reconnects and time.monotonic() < until:
                next(camera)
            assert camera.report.connected
            assert camera.report.reconnects == 1


def test_a_source_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"missing\.mp4 cannot be opened"):
        next(Camera(tmp_path / "missing.mp4", restore=False))
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(VideoError, match="cannot be opened"):
        next(Camera(tmp_path / "text.mp4", restore=False))


@pytest.mark.parametrize("wrong", [{"fps": 0}, {"max_side": 0}, {"channels": "rbg"}])
def test_wrong_arguments_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="fps|max_side|channels"):
        Camera(tmp_path, restore=False, **wrong)  # type: ignore[arg-type]


def test_the_size_follows_the_frame_rate() -> None:
    choice = _SizeChoice(None, fps=10)
    for _ in range(8):
        choice.took(0.4, 1280)  # four times too slow at 1280
    assert choice.side == 480
    for _ in range(8):
        choice.took(0.02, 1280)
    assert choice.side == 640
    steady = _SizeChoice(None, fps=None)
    steady.took(9.0, 1280)
    assert steady.side is None


def test_live_shows_frames_over_http_and_reports(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4", frames=200)
    with Server(str(path), command=("live",)) as running:
        with httpx.stream("GET", f"{running.url}/v1/live.mjpg", timeout=300) as answer:
            assert "multipart/x-mixed-replace" in answer.headers["content-type"]
            content = b""
            for piece in answer.iter_bytes():
                content += piece
                if content.count(b"--vrdir-frame") >= 3:
                    break
        jpeg = content.split(b"\r\n\r\n")[1].split(b"\r\n--vrdir-frame")[0]
        assert Image.open(io.BytesIO(jpeg)).size == (64, 48)
        assert running.metric("vrdir_camera_restored") >= 2
        assert running.metric("vrdir_camera_p50_ms") > 0


def test_live_writes_a_video_to_a_pipe(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4", frames=25)
    command = [sys.executable, "-m", "vrdir", "live", str(path), "-o", "-"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=600)
    with av.open(io.BytesIO(done.stdout)) as container:
        frames = list(container.decode(video=0))
    assert frames
    assert (frames[0].width, frames[0].height) == (64, 48)
    assert b"latency" in done.stderr


def test_live_writes_raw_frames_to_a_pipe(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4", frames=5)
    command = [sys.executable, "-m", "vrdir", "live", str(path), "-o", "-", "--format", "raw"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=600)
    assert len(done.stdout) % (64 * 48 * 3) == 0
    assert done.stdout


def test_closing_ends_the_iteration(tmp_path: Path) -> None:
    camera = Camera(clip(tmp_path / "clip.mp4", frames=100), restore=False)
    next(camera)
    threading.Timer(0.2, camera.close).start()
    assert len(list(camera)) < 50
