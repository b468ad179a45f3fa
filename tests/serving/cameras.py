"""Cameras for the tests: real streams over the loopback, each sent by its own process.

Run as `python -m tests.serving.cameras KIND ADDRESS_OR_PORT [OPTION=VALUE ...]`. It sends a clip in
real time, from when a client has come. The kinds are in `KINDS` below.
"""

from __future__ import annotations

import base64
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from tests.clips import clip, view

RATE = 25
SDP = """v=0
o=- 0 0 IN IP4 127.0.0.1
s=camera
c=IN IP4 0.0.0.0
t=0 0
m=video 0 RTP/AVP 96
a=rtpmap:96 H264/90000
a=fmtp:96 packetization-mode=1
a=control:track1
"""


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    """Return a free port."""
    with socket.socket(socket.AF_INET, kind) as opened:
        opened.bind(("127.0.0.1", 0))
        port: int = opened.getsockname()[1]
    return port


def slow_clip(path: Path, seconds: int = 60, **options: Any) -> Path:
    """Write a clip of a minute, with five frames a second."""
    return clip(path, frames=5 * seconds, pts=lambda number: number * 2560, sound=None, **options)


@contextmanager
def camera(kind: str, where: str | int, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A camera as a process that is ready, and is killed at the end."""
    words = [f"{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "tests.serving.cameras", kind, str(where), *words]
    process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()


def send(target: Any, container: str, codec: str, frames: int, grows: int = 0) -> None:
    """Send a clip in real time.

    Args:
        target: for PyAV.
        container: FFmpeg's name.
        codec: of the pictures.
        frames: how many.
        grows: the number of the frame from which the picture is twice as large; 0 for never.
    """
    with av.open(target, "w", format=container, container_options={"flush_packets": "1"}) as out:
        stream = _stream(out, codec, 64, 48)
        encoder: Any = stream.codec_context
        start = time.monotonic()
        for number in range(frames):
            large = 0 < grows <= number
            if number == grows and large:
                encoder = _encoder(codec, 128, 96)
            width, height = (128, 96) if large else (64, 48)
            pixels = view(number % 50, width, height)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                format="yuvj420p" if codec == "mjpeg" else "yuv420p"
            )
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            for packet in encoder.encode(frame):
                packet.stream = stream
                out.mux(packet)
            time.sleep(max(0.0, start + number / RATE - time.monotonic()))


def _stream(out: Any, codec: str, width: int, height: int) -> Any:
    stream = out.add_stream(codec, rate=RATE, options=_options(codec))
    stream.width, stream.height = width, height
    stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    stream.codec_context.gop_size = 5
    return stream


def _encoder(codec: str, width: int, height: int) -> Any:
    encoder: Any = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.gop_size = Fraction(1, RATE), 5
    encoder.options = _options(codec)
    return encoder


def _options(codec: str) -> dict[str, str]:
    return {"preset": "ultrafast", "tune": "zerolatency"} if codec == "libx264" else {}


def _accepted(port: str) -> socket.socket:
    with socket.create_server(("127.0.0.1", int(port))) as listening:
        return listening.accept()[0]


def _tcp(port: str, frames: int, **options: Any) -> None:
    with _accepted(port).makefile("wb", buffering=0) as target:
        send(target, "mpegts", "mpeg2video", frames, **options)


def _http(port: str, frames: int, **options: Any) -> None:
    _answer(port, "video/mp2t", frames, "mpegts", "mpeg2video", **options)


def _mjpeg(port: str, frames: int) -> None:
    _answer(port, "multipart/x-mixed-replace; boundary=ffmpeg", frames, "mpjpeg", "mjpeg")


def _answer(port: str, media_type: str, frames: int, *how: str, **options: Any) -> None:
    connection = _accepted(port)
    _request(connection.makefile("rb"))
    connection.sendall(f"HTTP/1.0 200 OK\r\nContent-Type: {media_type}\r\n\r\n".encode())
    with connection.makefile("wb", buffering=0) as target:
        send(target, *how, frames=frames, **options)


def _words(port: str, frames: int, status: str = "200 OK") -> None:
    """Answer each request with a page of words, or an error."""
    with socket.create_server(("127.0.0.1", int(port))) as listening:
        while True:
            connection = listening.accept()[0]
            threading.Thread(target=_say, args=(connection, status), daemon=True).start()


def _say(connection: socket.socket, status: str) -> None:
    with connection:
        _request(connection.makefile("rb"))
        page = b"<html>no video</html>" * 500
        head = f"HTTP/1.0 {status}\r\nContent-Type: text/html\r\n"
        connection.sendall(f"{head}Content-Length: {len(page)}\r\n\r\n".encode() + page)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)


def _silent(port: str, frames: int) -> None:
    """Accept clients, and never say anything."""
    with socket.create_server(("127.0.0.1", int(port))) as listening:
        kept = []
        while True:
            kept.append(listening.accept())


def _rtsp(port: str, frames: int, key: str = "") -> None:
    """Serve RTSP (RFC 2326) with RTP in the same connection, to one player after the other."""
    with socket.create_server(("127.0.0.1", int(port))) as listening:
        while True:
            connection = listening.accept()[0]
            if _rtsp_dialogue(connection, key):
                _rtsp_play(connection, frames)


def _rtsp_dialogue(connection: socket.socket, key: str) -> bool:
    """Answer a player until it wants to see the stream; False if it goes away."""
    lines = connection.makefile("rb")
    secret = base64.b64encode(key.encode()).decode()
    while True:
        method, headers = _request(lines)
        if not method:
            return False
        answer, body = {"Public": "OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN"}, b""
        status = "200 OK"
        if key and headers.get("authorization") != f"Basic {secret}":
            status, answer = "401 Unauthorized", {"WWW-Authenticate": 'Basic realm="camera"'}
        elif method == "DESCRIBE":
            body = SDP.replace("\n", "\r\n").encode()
            answer = {"Content-Type": "application/sdp", "Content-Length": str(len(body))}
        elif method == "SETUP":
            answer = {"Transport": "RTP/AVP/TCP;unicast;interleaved=0-1", "Session": "1"}
        elif method == "PLAY":
            answer = {"Session": "1"}
        answer["CSeq"] = headers["cseq"]
        head = "".join(f"{name}: {value}\r\n" for name, value in answer.items())
        connection.sendall(f"RTSP/1.0 {status}\r\n{head}\r\n".encode() + body)
        if method == "PLAY":
            return True


def _rtsp_play(connection: socket.socket, frames: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as packets:
        packets.bind(("127.0.0.1", 0))
        packets.settimeout(5)
        address = f"rtp://127.0.0.1:{packets.getsockname()[1]}"
        sending = threading.Thread(
            target=send, args=(address, "rtp", "libx264", frames), daemon=True
        )
        sending.start()
        try:
            while True:
                packet = packets.recv(2**16)
                connection.sendall(b"$\0" + len(packet).to_bytes(2, "big") + packet)
        except OSError:  # the player went away, or the clip has ended
            connection.close()


def _request(lines: Any) -> tuple[str, dict[str, str]]:
    """Read a request of HTTP or RTSP: its method and headers."""
    first = lines.readline().decode().split()
    headers = {}
    while line := lines.readline().decode().strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return (first[0] if first else ""), headers


def _push(container: str, codec: str) -> Callable[..., None]:
    def push(address: str, frames: int, **options: Any) -> None:
        for _ in range(600):  # until somebody listens
            try:
                send(address, container, codec, frames, **options)
            except OSError:
                time.sleep(0.2)
            else:
                return

    return push


KINDS: dict[str, Callable[..., None]] = {
    "tcp": _tcp,
    "http": _http,
    "mjpeg": _mjpeg,
    "words": _words,
    "silent": _silent,
    "rtsp": _rtsp,
    "push-udp": _push("mpegts", "mpeg2video"),
    "push-rtmp": _push("flv", "libx264"),
    "push-rtsp": _push("rtsp", "libx264"),
}


if __name__ == "__main__":
    given = dict(word.split("=", 1) for word in sys.argv[3:])
    settings: dict[str, Any] = {
        name: int(value) if value.isdecimal() else value for name, value in given.items()
    }
    settings.setdefault("frames", 10_000)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    KINDS[sys.argv[1]](sys.argv[2], **settings)
