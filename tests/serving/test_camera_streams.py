"""`vrdir.Camera` with real streams over the loopback: each protocol, lost and found, bad ones."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from tests.serving.cameras import camera as sending
from tests.serving.cameras import free_port

from vrdir import Camera
from vrdir.errors import InputError, VideoError
from vrdir.serving.camera_source import hidden

LONG = 240.0  # seconds, for a busy machine; what is tested takes a few


@contextmanager
def watched(source: str, **options: Any) -> Iterator[Camera]:
    """A camera without restoring, which ends a test that would hang."""
    with Camera(source, restore=False, **{"timeout": LONG} | options) as camera:
        limit = threading.Timer(LONG, camera.close)
        limit.daemon = True
        limit.start()
        yield camera
        limit.cancel()


@contextmanager
def closed_when(camera: Camera, happened: Callable[[], bool]) -> Iterator[None]:
    """Close a camera from another thread, once something has happened."""

    def close() -> None:
        while not happened() and not over.wait(0.05):
            pass
        camera.close()

    over = threading.Event()
    closing = threading.Thread(target=close)
    closing.start()
    try:
        yield
    finally:
        over.set()
        closing.join()


@pytest.mark.parametrize(
    ("kind", "scheme", "listen"),
    [
        ("tcp", "tcp", False),
        ("http", "http", False),
        ("mjpeg", "http", False),
        ("rtsp", "rtsp", False),
        ("push-udp", "udp", False),
        ("push-rtmp", "rtmp", True),
        ("push-rtsp", "rtsp", True),
    ],
)
def test_streams_are_read(kind: str, scheme: str, listen: bool) -> None:
    port = free_port(socket.SOCK_DGRAM if scheme == "udp" else socket.SOCK_STREAM)
    address = f"{scheme}://127.0.0.1:{port}" + ("/live/key" if scheme != "udp" else "")
    where = f"{address}?pkt_size=1316" if scheme == "udp" else address
    with (
        sending(kind, where if kind.startswith("push") else port),
        watched(address, listen=listen) as camera,
    ):
        frames = [next(camera) for _ in range(5)]
        assert camera.report.connected
    assert all(frame.shape == (48, 64, 3) for frame in frames)
    assert not np.array_equal(frames[0], frames[-1])  # it moves
    assert 30 < frames[0].mean() < 220


@pytest.mark.parametrize(("kind", "scheme"), [("tcp", "tcp"), ("rtsp", "rtsp")])
def test_killed_camera_is_reopened_and_last_frame_is_kept(kind: str, scheme: str) -> None:
    port = free_port()
    with watched(f"{scheme}://127.0.0.1:{port}") as camera:
        with sending(kind, port):
            frames = [next(camera) for _ in range(3)]
        while camera.report.repeated == 0:
            last = next(camera)
        assert last.shape == frames[0].shape
        assert not camera.report.connected
        with sending(kind, port):
            while not camera.report.reconnects:
                next(camera)
            assert camera.report.connected
            assert camera.report.reconnects == 1


def test_stream_continues_when_frame_size_changes() -> None:
    port = free_port()
    with sending("tcp", port, grows=100), watched(f"tcp://127.0.0.1:{port}") as camera:
        shapes = []
        while len(shapes) < 2:
            shape = next(camera).shape
            if shape not in shapes:
                shapes.append(shape)
    assert shapes == [(48, 64, 3), (96, 128, 3)]


def test_ended_source_stops_after_the_timeout() -> None:
    port = free_port()
    with sending("tcp", port, frames=75), watched(f"tcp://127.0.0.1:{port}", timeout=8) as camera:
        with pytest.raises(VideoError, match=r"no frame for 8 seconds \(it refuses"):
            list(camera)
        assert camera.report.restored >= 1


def test_refused_source_is_retried(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    address = f"rtsp://127.0.0.1:{port}/x"

    def losses() -> list[logging.LogRecord]:
        return [record for record in list(caplog.records) if "is lost" in record.getMessage()]

    with (
        caplog.at_level(logging.INFO, "vrdir"),
        watched(address) as camera,
        closed_when(camera, lambda: len(losses()) >= 2),
        pytest.raises(StopIteration),
    ):
        next(camera)
    pauses = [record.args[2] for record in losses() if record.args]  # type: ignore[index]
    assert pauses[:2] == [0.5, 1.0]  # with growing pauses
    assert [record.levelname for record in losses()][:2] == ["WARNING", "INFO"]


def test_silent_source_counts_as_lost(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    with (
        sending("silent", port),
        watched(f"http://127.0.0.1:{port}/x") as camera,
        closed_when(camera, lambda: "no response" in caplog.text),
        pytest.raises(StopIteration),
    ):
        next(camera)
    assert "no response" in caplog.text


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "it does not send a video"),
        ({"status": "404 Not Found"}, "it has no stream of this name"),
        ({"status": "401 Unauthorized"}, "it requires a user and a password"),
        ({"status": "403 Forbidden"}, "it denies access to this user"),
    ],
)
def test_permanent_errors_are_not_retried(options: dict[str, str], reason: str) -> None:
    port = free_port()
    with (
        sending("words", port, **options),
        watched(f"http://127.0.0.1:{port}/x") as camera,
        pytest.raises(VideoError, match=f"cannot be opened: {reason}"),
    ):
        next(camera)


def test_error_names_missing_webcam() -> None:
    with (
        watched("/dev/video98", timeout=2) as camera,
        pytest.raises(
            VideoError, match=r"/dev/video98: no frame for 2 seconds \(it does not exist"
        ),
    ):
        next(camera)


def test_addresses_of_unknown_kinds_are_rejected() -> None:
    with pytest.raises(InputError, match="unsupported scheme; use rtsp"):
        Camera("gopher://me:secret@camera", restore=False)
    with pytest.raises(InputError, match="udp cannot listen"):
        Camera("udp://127.0.0.1:5000", restore=False, listen=True)
    with pytest.raises(InputError, match=r"only rtsp, rtmp, http, tcp addresses can listen"):
        Camera("clip.mp4", restore=False, listen=True)


# --- Passwords --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://me:secret@host/x", "rtsp://host/x"),
        ("rtsp://me:sec@re/t@host:554/x", "rtsp://host:554/x"),
        ("http://host/x?token=secret", "http://host/x?..."),
        ("rtmp://host/live/secret", "rtmp://host/live/..."),
        ("RTMPS://me:secret@host/live/secret?secret", "RTMPS://host/live/..."),
        ("udp://127.0.0.1:5000", "udp://127.0.0.1:5000"),
    ],
)
def test_secrets_are_hidden(address: str, shown: str) -> None:
    assert hidden(address) == shown


def test_camera_password_works_and_is_never_printed(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    caplog.set_level(logging.DEBUG)
    with sending("rtsp", port, key="me:s3cr@t"):
        with watched(f"rtsp://me:s3cr%40t@127.0.0.1:{port}/x") as camera:
            next(camera)
            told = [repr(camera), camera.name, str(camera.report)]
        with (
            watched(f"rtsp://me:wr0ng@127.0.0.1:{port}/x") as camera,
            pytest.raises(VideoError, match="requires a user and a password") as refused,
        ):
            next(camera)
    told += [str(refused.value), repr(refused.value.__context__), caplog.text]
    told += [str(record.__dict__) for record in caplog.records]
    assert not any("s3cr" in text or "wr0ng" in text for text in told)


def test_lost_source_does_not_reveal_its_password(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with (
        watched(f"rtsp://me:s3cret@127.0.0.1:{free_port()}/x", timeout=1.5) as camera,
        pytest.raises(VideoError) as refused,
    ):
        next(camera)
    assert "is lost" in caplog.text
    assert "s3cret" not in caplog.text + str(refused.value)
