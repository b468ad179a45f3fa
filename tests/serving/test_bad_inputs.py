"""Every bad input of the table in docs/serving.md gets its response, and the service continues."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from PIL import Image
from tests.serving.raw import POST, connected, png_header, raw, said
from tests.serving.servers import (
    ANSWER_SECONDS,
    Server,
    assert_problem,
    encoded,
    get,
    post,
)
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from vrdir.serving.problems import KINDS

KEY = "a-long-key-for-tests-1234"
PAGE = Path(__file__).parents[2] / "docs/serving.md"
CUT_OFF = "-"  # no answer: the connection is closed

Answer = httpx.Response | bytes | str
Send = Callable[[Server], Answer]


def image(side: int = 64, file_format: str = "PNG") -> bytes:
    """Return an encoded image with some texture."""
    picture = Image.effect_noise((side, side), 50).convert("RGB")
    return encoded(picture, file_format)


def body(content: bytes, **headers: str) -> Send:
    """Send a body."""
    return lambda server: post(f"{server.url}/v1/restore", content=content, headers=headers)


def query(text: str) -> Send:
    """Send an image with parameters."""
    return lambda server: post(f"{server.url}/v1/restore?{text}", content=image(16))


def form(content: bytes, media_type: str = "multipart/form-data; boundary=x") -> Send:
    """Send a form."""
    headers = {"Content-Type": media_type}
    return lambda server: post(f"{server.url}/v1/restore", content=content, headers=headers)


def fields(count: int, size: int = 1) -> bytes:
    """Return a form with fields and no file."""
    head = b'--x\r\nContent-Disposition: form-data; name="f%d"\r\n\r\n'
    return b"".join(head % number + b"1" * size + b"\r\n" for number in range(count)) + b"--x--\r\n"


def bytes_of(*parts: bytes, pause: float = 0.0) -> Send:
    """Send these bytes over a connection, with pauses in between."""
    return lambda server: raw(server, *parts, pause=pause)


def asked(path: str, method: str = "GET", **headers: str) -> Send:
    """Ask for an address."""
    return lambda server: httpx.request(
        method, server.url + path, headers=headers, timeout=ANSWER_SECONDS
    )


def two_files(server: Server) -> Answer:
    files = [("image", ("a.png", image())), ("image", ("b.png", image()))]
    return post(f"{server.url}/v1/restore", files=files)


def unread(server: Server) -> Answer:
    """Ask for 30 MB of sample photos, one request after the other, and take nothing of them."""
    with connected(server, receive_buffer=4096) as connection:
        connection.sendall(b"GET /samples/noise.jpg HTTP/1.1\r\nHost: localhost\r\n\r\n" * 300)
        server.wait_for("connection closed", problem="send-timeout")
        return b""


def idle(server: Server) -> Answer:
    with connected(server) as connection:
        return said(connection)


def left_early(server: Server) -> Answer:
    """Close the connection in the middle of the body."""
    with connected(server) as connection:
        connection.sendall(POST + b"Content-Length: 1000\r\n\r\nabc")
        connection.shutdown(socket.SHUT_WR)
        return said(connection)


def stream(text: str = "", origin: str | None = None) -> Send:
    """Ask for a stream that is refused."""
    lines = [f"GET /v1/stream?{text} HTTP/1.1", "Host: localhost", "Upgrade: websocket"]
    lines += ["Connection: Upgrade", "Sec-WebSocket-Version: 13"]
    lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    lines += [] if origin is None else [f"Origin: {origin}"]
    return bytes_of("\r\n".join([*lines, "", ""]).encode())


def frame(content: bytes) -> Send:
    """Send a frame of a stream; return the text message about it, or the code of the close."""

    def send(server: Server) -> Answer:
        with connect(
            f"ws://127.0.0.1:{server.port}/v1/stream", open_timeout=ANSWER_SECONDS
        ) as opened:
            try:
                opened.send(content)
                return str(opened.recv(timeout=ANSWER_SECONDS))
            except ConnectionClosed as closed:
                return str(closed.rcvd.code if closed.rcvd else closed)

    return send


def too_many_streams(server: Server) -> Answer:
    address = f"ws://127.0.0.1:{server.port}/v1/stream"
    with connect(address, open_timeout=ANSWER_SECONDS):
        return stream()(server)


def too_many_connections(server: Server) -> Answer:
    held = [socket.create_connection(("127.0.0.1", server.port), ANSWER_SECONDS) for _ in range(60)]
    try:
        return said(held[-1])
    finally:
        for connection in held:
            connection.close()


def memory_full(server: Server) -> Answer:
    """Hold the memory of bodies by four uploads that never end."""
    part = b"x" * 200_000
    held = [connected(server) for _ in range(4)]
    try:
        for connection in held:
            connection.sendall(POST + b"Content-Length: 250000\r\n\r\n" + part)
        server.wait_for_metric("vrdir_bodies_bytes", 700_000)
        return post(f"{server.url}/v1/restore", content=image(256))
    finally:
        for connection in held:
            connection.close()


def key(**headers: str) -> Send:
    """Ask a service that has keys."""
    return asked("/v1/weights", **headers)


class Bad(NamedTuple):
    """A row of the table, and how it is tried.

    Attributes:
        words: the first column.
        status: the second column; `CUT_OFF` without a response.
        kind: the third column; empty where there is none.
        send: makes the bad input.
        server: the fixture that gets it.
    """

    words: str
    status: str
    kind: str
    send: Send
    server: str = "server"


WRONG_LENGTHS = b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"
BOTH_LENGTHS = b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
HEADER_FLOOD = b"".join(b"X-%d: %s\r\n" % (number, b"y" * 100) for number in range(1000))
CHUNK = b"10000\r\n" + b"x" * 65536 + b"\r\n"
FOREIGN = "https://evil.example"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
MP4 = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + b"\0" * 100

CASES = [
    Bad("`strength` that is not a number from 0 to 2", "400", "bad-parameter",
        query("strength=nan")),
    Bad("`max_side` that is not a whole number", "400", "bad-parameter", query("max_side=1e3")),
    Bad("`quality` over 100", "400", "bad-parameter", query("quality=101")),
    Bad("`only` with an unknown degradation", "400", "bad-parameter", query("only=fog")),
    Bad("unknown `weights`", "400", "bad-parameter", query("weights=large")),
    Bad("`weights` that are a path", "400", "bad-parameter", query("weights=../../etc/passwd")),
    Bad("an unknown parameter", "400", "bad-parameter", query("path=/etc/passwd")),
    Bad("a repeated parameter", "400", "bad-parameter", query("strength=1&strength=2")),
    Bad("an empty body", "400", "no-image", body(b"")),
    Bad("a form without a file", "400", "no-image", form(fields(1))),
    Bad("a form with an empty file", "400", "no-image", form(
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n\r\n--x--\r\n')),
    Bad("a truncated form", "400", "no-image", form(fields(3)[:-40])),
    Bad("a form without a boundary", "400", "bad-request", form(b"--x", "multipart/form-data")),
    Bad("a form with two files", "400", "bad-request", two_files),
    Bad("a form with a field over 1 KiB", "400", "bad-request", form(fields(1, 9000))),
    Bad("a form with more than 20 fields", "400", "bad-request", form(fields(10_000))),
    Bad("text", "415", "not-an-image", body(b"hello")),
    Bad("a web page", "415", "not-an-image", body(b"<!doctype html><html>")),
    Bad("PDF", "415", "not-an-image", body(b"%PDF-1.7 ....")),
    Bad("SVG", "415", "not-an-image", body(SVG)),
    Bad("a video", "415", "not-an-image", body(MP4)),
    Bad("a compressed body (`Content-Encoding`)", "415", "not-an-image",
        body(b"\x1f\x8b\x08" + b"\0" * 20, **{"Content-Encoding": "gzip"})),
    Bad("an image with a width of 0", "415", "not-an-image", body(png_header(0, 64))),
    Bad("a truncated image", "422", "damaged-image", body(image()[: len(image()) // 2])),
    Bad("an image with only a header", "422", "damaged-image", body(png_header(64, 64))),
    Bad("an animation", "422", "damaged-image", body(encoded(
        Image.new("L", (8, 8)), "GIF", save_all=True, append_images=[Image.new("L", (8, 8), 9)]))),
    Bad("a decompression bomb of ten gigapixels", "413", "image-too-large",
        body(png_header(100_000, 100_000))),
    Bad("an image over `--max-megapixels`", "413", "image-too-large",
        body(encoded(Image.new("RGB", (1000, 600)))), "strict"),
    Bad("a declared length over `--max-body`", "413", "body-too-large",
        bytes_of(POST + b"Expect: 100-continue\r\nContent-Length: 999999999999\r\n\r\n"), "strict"),
    Bad("an endless body", "413", "body-too-large",
        bytes_of(POST + b"Transfer-Encoding: chunked\r\n\r\n", *[CHUNK] * 40), "strict"),
    Bad("a slow body", "408", "body-timeout",
        bytes_of(POST + b"Content-Length: 1000\r\n\r\n", *[b"x"] * 5, pause=0.5), "strict"),
    Bad("bodies that fill `--max-bodies` together", "503", "memory-full", memory_full, "impatient"),
    Bad("a client that disconnects while it sends its body", CUT_OFF, "", left_early),
    Bad("a client that does not read its response", CUT_OFF, "", unread, "impatient"),
    Bad("a length that is not a number", "400", "bad-request",
        bytes_of(POST + b"Content-Length: ten\r\n\r\n")),
    Bad("two lengths", "400", "bad-request", bytes_of(POST + WRONG_LENGTHS)),
    Bad("a length together with a chunked body", "400", "bad-request",
        bytes_of(POST + BOTH_LENGTHS)),
    Bad("a malformed chunk", "400", "bad-request",
        bytes_of(POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n")),
    Bad("headers over 32 KiB", "400", "bad-request", bytes_of(POST, HEADER_FLOOD)),
    Bad("slow headers", CUT_OFF, "", bytes_of(POST, *[b"X-A: b\r\n"] * 10, pause=0.5), "strict"),
    Bad("a connection without a request", CUT_OFF, "", idle, "strict"),
    Bad("TLS", "400", "bad-request",
        bytes_of(b"\x16\x03\x01\x02\x00\x01\r\n\r\n")),
    Bad("HTTP/2", "400", "bad-request", bytes_of(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")),
    Bad("a malformed `Host` or `Origin`", "400", "bad-request",
        bytes_of(b"GET /v1/weights HTTP/1.1\r\nHost: [bad\r\n\r\n")),
    Bad("more connections than `--max-connections`", "503", "too-many-connections",
        too_many_connections, "strict"),
    Bad("an unknown address", "404", "not-found", asked("/v2/restore")),
    Bad("an address that is the path of a file", "404", "not-found",
        bytes_of(b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n")),
    Bad("a wrong method", "405", "method-not-allowed", asked("/v1/restore")),
    Bad("`Accept` without a format that can be written", "406", "not-acceptable",
        body(image(), Accept="image/x-icon")),
    Bad("a page of another site", "403", "foreign-origin", asked("/v1/weights", Origin=FOREIGN)),
    Bad("an unknown host name", "403", "foreign-origin",
        asked("/v1/weights", Host="evil.example")),
    Bad("no key, with `--keys`", "401", "key-missing", key(), "keyed"),
    Bad("a wrong key", "403", "key-wrong", key(**{"X-API-Key": "wrong"}), "keyed"),
    Bad("an invalid or expired token", "403", "key-wrong",
        asked("/v1/live.mjpg?token=9.9"), "keyed"),
    Bad("`/v1/detect` without `--detector`", "501", "not-offered", asked("/v1/detect", "POST")),
    Bad("`/v1/live.mjpg` without a camera", "501", "not-offered", asked("/v1/live.mjpg")),
    Bad("`/v1/stream` without a WebSocket", "426", "upgrade-required", asked("/v1/stream")),
    Bad("a stream with wrong parameters", "400", "bad-parameter", stream("smoothing=1")),
    Bad("a stream of another site", "403", "foreign-origin", stream(origin=FOREIGN)),
    Bad("more streams than `--max-streams`", "503", "queue-full", too_many_streams, "strict"),
    Bad("a frame that is not an image", "in a message", "not-an-image", frame(b"hello")),
    Bad("a frame over `--max-body`", "close 1009", "", frame(b"x" * 300_000), "strict"),
]  # fmt: skip

# Rows that other tests try, since they need more than one bad input.
ELSEWHERE = [
    ("more images than `--max-queue`", "503", "queue-full"),  # test_running
    ("an image that is not done within `--deadline`", "504", "deadline"),  # test_running
    (
        "a request that cannot be finished before the service stops",
        "503",
        "stopping",
    ),  # test_running
    ("a result that is not finite", "422", "unusable-result"),  # test_problems
    ("a bug", "500", "internal-error"),  # test_problems
]


@pytest.fixture(scope="module")
def strict() -> Iterator[Server]:
    """A server with tight limits."""
    with Server(
        *("--max-body", "0.25", "--max-megapixels", "0.5"),
        *("--body-timeout", "2", "--header-timeout", "3"),
        *("--max-connections", "20", "--max-streams", "1"),
    ) as running:
        yield running


@pytest.fixture(scope="module")
def impatient() -> Iterator[Server]:
    """A server that does not wait for slow readers, and has little memory."""
    with Server("--send-timeout", "1", "--max-bodies", "0.8") as running:
        yield running


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that asks for a key."""
    path = tmp_path_factory.mktemp("keys") / "keys.txt"
    path.write_text(f"{KEY}\n")
    with Server("--keys", str(path)) as running:
        yield running


@pytest.mark.parametrize("bad", CASES, ids=[bad.words for bad in CASES])
def test_bad_input_gets_documented_response(bad: Bad, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue(bad.server)
    check(bad, bad.send(server))
    healthy(server)
    assert not [line for line in server.log if line.get("problem") == "internal-error"]


def check(bad: Bad, answer: Answer) -> None:
    """Compare an answer with its row."""
    if isinstance(answer, httpx.Response):
        assert_problem(answer, int(bad.status), bad.kind)
    elif isinstance(answer, str):
        assert (bad.kind or bad.status.split()[-1]) in answer
    elif bad.status == CUT_OFF:
        assert answer == b""
    else:
        assert answer.startswith(f"HTTP/1.1 {bad.status} ".encode()), answer
        assert f"urn:vrdir:problem:{bad.kind}".encode() in answer


def healthy(server: Server) -> None:
    """Wait until the server takes connections again, and is alive."""
    until = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < until:
        try:
            if get(f"{server.url}/healthz").status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise AssertionError("the service does not answer any more")


def test_table_in_the_docs_has_these_rows() -> None:
    table = re.findall(r"^\| (.+) \| (.+) \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    rows = {(words, status, kind.strip("`- ")) for words, status, kind in table}
    wanted = {(bad.words, bad.status, bad.kind) for bad in CASES} | set(ELSEWHERE)
    assert wanted - rows == set()
    kinds = {kind for _, _, kind in wanted if kind}
    assert kinds == set(KINDS)
    for _, status, kind in wanted:
        assert not kind or not status.isdigit() or KINDS[kind].status == int(status)
