"""`vrdir live`: frames over HTTP and WebSocket, to pipes, files and addresses; bad inputs."""

from __future__ import annotations

import contextlib
import io
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest
from PIL import Image
from tests.clips import clip, pictures, view
from tests.serving.cameras import camera as sending
from tests.serving.cameras import free_port, slow_clip
from tests.serving.servers import Server, get
from websockets.sync.client import connect

from vrdir import Camera
from vrdir.errors import ExistsError, InputError, MissingFileError, VideoError
from vrdir.serving.output import Output, RawOutput, Sender, fitted, sender_for

LONG = 300.0  # seconds, for a busy machine


def live(
    *words: str | Path, seconds: float = 600, **options: Any
) -> subprocess.CompletedProcess[bytes]:
    """Run `vrdir live` to its end."""
    command = [sys.executable, "-m", "vrdir", "live", *map(str, words)]
    return subprocess.run(command, capture_output=True, timeout=2 * LONG, check=False, **options)


# --- The service ------------------------------------------------------------------------------


def test_frames_are_shown_over_http_and_a_websocket(tmp_path: Path) -> None:
    path = slow_clip(tmp_path / "clip.mp4")
    with Server(str(path), command=("live",)) as running:
        with httpx.stream("GET", f"{running.url}/v1/live.mjpg", timeout=LONG) as answer:
            assert "multipart/x-mixed-replace" in answer.headers["content-type"]
            content = b""
            for piece in answer.iter_bytes():
                content += piece
                if content.count(b"--vrdir-frame") >= 3:
                    break
        jpeg = content.split(b"\r\n\r\n")[1].split(b"\r\n--vrdir-frame")[0]
        assert Image.open(io.BytesIO(jpeg)).size == (64, 48)
        with connect(f"ws://127.0.0.1:{running.port}/v1/live", open_timeout=LONG) as messages:
            jpegs = [messages.recv(LONG) for _ in range(2)]
        assert [Image.open(io.BytesIO(jpeg)).size for jpeg in jpegs] == [(64, 48)] * 2
        assert jpegs[0] != jpegs[1]
        assert running.metric("vrdir_camera_restored") >= 2
        assert running.metric("vrdir_camera_p50_ms") > 0
        assert running.metric("vrdir_camera_connected") == 1
        assert running.metric("vrdir_camera_network_side") == 64


def test_killed_camera_is_reopened_and_metrics_report_it(tmp_path: Path) -> None:
    port = free_port()
    options = [f"rtsp://me:s3cret@127.0.0.1:{port}/x"]
    with Server(*options, command=("live",)) as running:
        for found_again in (0, 1):
            with sending("rtsp", port, key="me:s3cret"):
                wait_for(running, "vrdir_camera_connected", 1)
                wait_for(running, "vrdir_camera_restored", 3 + found_again)
                assert running.metric("vrdir_camera_reconnects") == found_again
            wait_for(running, "vrdir_camera_connected", 0)
        wait_for(running, "vrdir_camera_repeated", 1)
        with connect(f"ws://127.0.0.1:{running.port}/v1/live", open_timeout=LONG) as messages:
            assert Image.open(io.BytesIO(messages.recv(LONG))).size == (64, 48)  # the last one
        running.stop()
    assert any("is lost" in line["message"] for line in running.log)
    assert "s3cret" not in str(running.log)


def wait_for(running: Server, metric: str, least: float) -> None:
    """Wait until a metric is as large as this, or is 0."""
    until = time.monotonic() + LONG
    while time.monotonic() < until:
        value = running.metric(metric)
        if value >= least > 0 or value == least == 0:
            return
        time.sleep(0.1)
    raise AssertionError(f"{metric} is {value}, not {least}")


def test_keys_guard_the_view(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("0123456789abcdef\n")
    path = slow_clip(tmp_path / "clip.mp4")
    with Server(str(path), "--keys", str(keys), command=("live",)) as running:
        assert get(f"{running.url}/v1/live.mjpg").status_code == 401
        with pytest.raises(Exception, match="401"):
            connect(f"ws://127.0.0.1:{running.port}/v1/live", open_timeout=LONG)
        headers = {"X-API-Key": "0123456789abcdef"}
        address = f"ws://127.0.0.1:{running.port}/v1/live"
        with connect(address, additional_headers=headers, open_timeout=LONG) as messages:
            assert Image.open(io.BytesIO(messages.recv(LONG))).size == (64, 48)


def test_service_ends_with_its_file(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4", frames=5)
    with Server(str(path), command=("live",)) as running:
        assert running.wait(LONG) == 0
    assert running.wait_for("camera closed")["received"] == 5


def test_without_a_camera_there_is_no_view(tmp_path: Path) -> None:
    with Server() as running:
        answer = get(f"{running.url}/v1/live.mjpg")
        assert answer.status_code == 501
        with pytest.raises(Exception, match="501"):
            connect(f"ws://127.0.0.1:{running.port}/v1/live", open_timeout=LONG)


# --- Pipes and files --------------------------------------------------------------------------


def test_video_goes_to_a_pipe(tmp_path: Path) -> None:
    done = live(clip(tmp_path / "clip.mp4", frames=25), "-o", "-")
    assert done.returncode == 0, done.stderr
    with av.open(io.BytesIO(done.stdout)) as container:
        frames = list(container.decode(video=0))
    assert frames
    assert (frames[0].width, frames[0].height) == (64, 48)
    assert frames[0].colorspace == 1  # BT.709, as it says
    assert b"latency" in done.stderr
    assert b"written" in done.stderr


def test_foggy_clip_is_restored_with_a_report(tmp_path: Path) -> None:
    def foggy(number: int) -> Any:
        return (0.45 * view(number, 256, 192) + 0.55 * 225).astype(np.uint8)

    path = slow_clip(tmp_path / "fog.mp4", width=256, height=192, picture=foggy, seconds=6)
    done = live(path, "-o", "-", "--network-side", "192")
    assert done.returncode == 0, done.stderr
    with av.open(io.BytesIO(done.stdout)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert frames[-1].shape == (192, 256, 3)
    assert frames[-1].std() > 1.3 * foggy(29).std()
    told = " ".join(done.stderr.decode().split())
    found = re.search(
        r"30 frames received, (\d+) dropped, (\d+) restored .* latency (\d+) ms", told
    )
    assert found, told
    assert int(found[1]) + int(found[2]) == 30
    assert int(found[2]) >= len(frames) > 0


def test_raw_frames_go_to_a_pipe(tmp_path: Path) -> None:
    done = live(clip(tmp_path / "clip.mp4", frames=5), "-o", "-", "--format", "raw")
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert len(done.stdout) % (64 * 48 * 3) == 0
    assert b"rgb24, 64 x 48" in done.stderr


def test_video_goes_to_a_new_file(tmp_path: Path) -> None:
    target = tmp_path / "out.mkv"
    sender = sender_for(str(target), raw=False)
    for number in range(10):
        sender.write(view(number))
        time.sleep(0.1)
    sender.close()
    frames = pictures(target)
    assert len(frames) == sender.written
    assert abs(frames[0].astype(int) - view(0)).mean() < 8  # the colours are right
    with pytest.raises(ExistsError, match="already exists"):
        sender_for(str(target), raw=False)


def test_signal_ends_with_a_complete_file_and_a_report(tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    path = slow_clip(tmp_path / "clip.mp4")
    command = [sys.executable, "-m", "vrdir", "live", str(path), "-o", str(target)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        until = time.monotonic() + LONG
        while not (target.exists() and target.stat().st_size) and time.monotonic() < until:
            time.sleep(0.1)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        told = process.stderr.read()
        assert process.wait(LONG) == 130
    assert b"latency" in told
    assert pictures(target)


@pytest.mark.parametrize("raw", [False, True])
def test_closed_pipe_ends_the_output(tmp_path: Path, raw: bool) -> None:
    path = slow_clip(tmp_path / "clip.mp4")
    command = [sys.executable, "-m", "vrdir", "live", str(path), "-o", "-"]
    command += ["--format", "raw"] * raw
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1000)
        process.stdout.close()
        assert process.stderr is not None
        told = process.stderr.read().decode()
        assert process.wait(LONG) == 2
    assert "was closed" in told
    assert "Traceback" not in told


def test_frames_of_another_size_are_fitted() -> None:
    content = io.BytesIO()
    output = RawOutput(content)
    output.write(view(0))
    output.write(view(0, 128, 96))  # twice as large
    output.write(view(0, 48, 48))  # of another shape: black at both sides
    size = 64 * 48 * 3
    frames = [
        np.frombuffer(content.getvalue()[start : start + size], np.uint8).reshape(48, 64, 3)
        for start in (0, size, 2 * size)
    ]
    assert len(content.getvalue()) == 3 * size
    assert abs(frames[1].astype(int).mean() - view(0, 128, 96).mean()) < 3
    assert not frames[2][:, :8].any()
    assert not frames[2][:, -8:].any()
    assert np.array_equal(frames[2][:, 8:56], view(0, 48, 48))
    assert fitted(view(0, 65, 49), 64, 48).shape == (48, 64, 3)


# --- Addresses --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "path", "listen"),
    [("udp", "", False), ("tcp", "", True), ("rtmp", "/live/key", True), ("rtsp", "/live", True)],
)
def test_frames_are_pushed_to_an_address(scheme: str, path: str, listen: bool) -> None:
    port = free_port(socket.SOCK_DGRAM if scheme == "udp" else socket.SOCK_STREAM)
    address = f"{scheme}://127.0.0.1:{port}{path}"
    script = (
        "import sys, time\n"
        "from tests.clips import view\n"
        "from vrdir.serving.output import sender_for\n"
        "sender = sender_for(sys.argv[1], raw=False)\n"
        "for number in range(100_000):\n"
        "    sender.write(view(number % 50))\n"
        "    time.sleep(0.04)\n"
    )
    with Camera(address, restore=False, timeout=LONG, listen=listen) as camera:
        pushing = subprocess.Popen([sys.executable, "-c", script, address])
        try:
            frames = [next(camera) for _ in range(3)]
        finally:
            pushing.kill()
            pushing.wait()
    assert all(frame.shape == (48, 64, 3) for frame in frames)
    assert 30 < frames[0].mean() < 220


def test_lost_address_is_reconnected(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    sender = sender_for(f"tcp://127.0.0.1:{port}", raw=False)
    for found_again in (0, 1):
        with socket.create_server(("127.0.0.1", port)) as listening:
            listening.settimeout(0.02)
            connection = None
            until = time.monotonic() + LONG
            while connection is None and time.monotonic() < until:
                sender.write(view(0))  # also without a listener: it is dropped
                with contextlib.suppress(TimeoutError):
                    connection = listening.accept()[0]
            assert connection is not None
            connection.settimeout(0.02)
            received = b""
            while not received and time.monotonic() < until:
                sender.write(view(0))
                with contextlib.suppress(TimeoutError):
                    received = connection.recv(1000)
            assert received[0] == 0x47  # MPEG-TS
            assert sender.reconnects >= found_again
            connection.close()
    assert "trying again" in caplog.text
    with contextlib.suppress(VideoError):
        sender.close()


class Slow(Output):
    """Keeps the first frame until it may go on."""

    def __init__(self) -> None:
        self.frames: list[Any] = []
        self.busy, self.may_go_on = threading.Event(), threading.Event()

    def write(self, frame: Any) -> None:
        self.frames.append(frame)
        self.busy.set()
        assert self.may_go_on.wait(LONG)

    def close(self) -> None:
        pass


def test_slow_output_gets_newest_frame_and_blocks_nothing() -> None:
    slow = Slow()
    sender = Sender(lambda: slow, again=False)
    sender.write(view(0))
    assert slow.busy.wait(LONG)
    for number in range(1, 20):  # this would wait for ever, if it waited for the output
        sender.write(view(number))
    slow.may_go_on.set()
    sender.close()
    assert sender.written == len(slow.frames) == 2
    assert sender.dropped == 18
    assert np.array_equal(slow.frames[-1], view(19))


@pytest.mark.parametrize(
    ("target", "raw", "message"),
    [
        ("gopher://me:s3cret@host", False, "unsupported scheme; use udp"),
        ("udp://127.0.0.1:5000", True, "standard output"),
    ],
)
def test_targets_of_unknown_kinds_are_rejected(target: str, raw: bool, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        sender_for(target, raw)
    assert "s3cret" not in str(refused.value)


def test_file_of_unknown_type_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"out\.unknown cannot be written"):
        sender_for(str(tmp_path / "out.unknown"), raw=False)
    with pytest.raises(MissingFileError, match="does not exist; create it first"):
        sender_for(str(tmp_path / "missing" / "out.mp4"), raw=False)


# --- The command line -------------------------------------------------------------------------


def test_bad_requests_are_answered_in_one_line(tmp_path: Path) -> None:
    for words, message in (
        ([tmp_path / "missing.mp4", "-o", "-"], "it does not exist"),
        (["gopher://x", "-o", "-"], "unsupported scheme"),
        ([f"rtsp://me:s3cret@127.0.0.1:{free_port()}/x", "-o", "-", "--timeout", "2"], "no frame"),
    ):
        done = live(*words)
        told = done.stderr.decode()
        assert done.returncode == 2
        assert message in " ".join(told.split())
        assert "Traceback" not in told
        assert "s3cret" not in told


def test_source_may_be_in_the_environment(tmp_path: Path) -> None:
    import os

    path = clip(tmp_path / "clip.mp4", frames=3)
    done = live("-o", "-", env=os.environ | {"VRDIR_SOURCE": str(path)})
    assert done.returncode == 0, done.stderr


def test_service_whose_camera_cannot_be_opened_ends(tmp_path: Path) -> None:
    done = live(tmp_path / "missing.mp4", "--port", "0")
    assert done.returncode == 2
    assert b"it does not exist" in b" ".join(done.stderr.split())


def test_threads_end_with_the_camera(tmp_path: Path) -> None:
    before = threading.active_count()
    slow = Slow()
    slow.may_go_on.set()
    sender = Sender(lambda: slow, again=False)
    sender.write(view(0))
    sender.close()
    assert threading.active_count() == before


# --- The page of the documentation ------------------------------------------------------------


def test_python_lines_of_the_page_run() -> None:
    text = (Path(__file__).parents[2] / "docs" / "live.md").read_text()
    port = free_port()
    found: list[tuple[int, ...]] = []
    given: dict[str, Any] = {
        "onnxruntime": pytest.importorskip("onnxruntime"),
        "show": lambda frame: found.append(frame.shape),
        "detector": lambda frame: found.append(frame.shape),
    }
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    with sending("rtsp", port):
        for block in blocks:
            code = block.replace("rtsp://camera/", f"rtsp://127.0.0.1:{port}/")
            exec(compile(code, "docs/live.md", "exec"), given)
    assert found[:3] == [(48, 64, 3)] * 3
    assert len(found) >= 4


def test_command_of_the_page_runs(tmp_path: Path) -> None:
    clip(tmp_path / "clip.mp4", frames=25)
    text = (Path(__file__).parents[2] / "docs" / "live.md").read_text()
    (line,) = re.findall(r"^```bash\nvrdir live ([^#\n]*)", text, re.MULTILINE)
    done = live(*line.split(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert pictures(tmp_path / "restored.mkv")
