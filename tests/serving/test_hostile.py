"""Floods and hostile files: whatever comes, others are served, and memory stays bounded."""

from __future__ import annotations

import io
import random
import resource
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from tests.serving.raw import POST, connected, raw, said
from tests.serving.servers import ANSWER_SECONDS, Server, assert_same, encoded, get, post
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from vrdir.images.convert import open_image
from vrdir.serving.problems import KINDS

MANY = 10_000  # connections
A_CONNECTION = 64 * 1024  # bytes of memory at most
FUZZED = 200  # damaged files


@pytest.fixture(scope="module")
def open_house() -> Iterator[Server]:
    """A server that lets many connections in, and keeps them idle for a while."""
    options = ("--max-connections", str(MANY + 500), "--header-timeout", "600")
    with Server(*options, "--max-streams", "4", "--max-body", "4") as running:
        yield running


def test_ten_thousand_idle_connections_do_not_block_others(
    open_house: Server, cat: Image.Image
) -> None:
    """They take a bounded memory, which is free again when they leave."""
    _allow_files(MANY + 500)
    sent = encoded(cat)
    wanted = post(f"{open_house.url}/v1/restore", content=sent).content
    before = open_house.metric("process_resident_memory_bytes")
    with ExitStack() as held:
        for _ in range(MANY):
            connection = held.enter_context(connected(open_house))
            connection.sendall(b"POST /v1/restore HTTP/1.1\r\n")  # a request that never continues
        open_house.wait_for_metric("vrdir_connections", MANY)
        full = open_house.metric("process_resident_memory_bytes")
        assert full - before < MANY * A_CONNECTION
        with httpx.Client(base_url=open_house.url, timeout=ANSWER_SECONDS) as client:
            for _ in range(3):
                assert_same(client.post("/v1/restore", content=sent).content, wanted)
    open_house.wait_for_metric("vrdir_connections", most=10)
    assert post(f"{open_house.url}/v1/restore", content=sent).status_code == 200


def _allow_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + 200
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"this system allows {hard} open files, and the test needs {needed}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))


def test_pipelined_requests_are_answered_in_their_order(server: Server) -> None:
    """Ten images in one write: ten answers over one connection, each with its own pixels."""
    pictures = [Image.effect_noise((24 + number, 24), 30).convert("RGB") for number in range(10)]
    bodies = [encoded(picture) for picture in pictures]
    head = POST + b"Content-Length: %d\r\n\r\n"
    with connected(server) as connection:
        connection.sendall(b"".join(head % len(body) + body for body in bodies))
        stream = connection.makefile("rb")
        for body in bodies:
            response = httpx.Response(200, content=_next_answer(stream))
            wanted = post(f"{server.url}/v1/restore", content=body).content
            assert_same(response.content, wanted)


def _next_answer(stream: io.BufferedReader) -> bytes:
    assert stream.readline().startswith(b"HTTP/1.1 200")
    length = 0
    while line := stream.readline().strip():
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return stream.read(length)


def test_request_smuggling_is_prevented(server: Server) -> None:
    """Bytes after a rejected body are not treated as the next request."""
    hidden = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = b"POST /v2/none HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    with connected(server) as connection:
        connection.sendall(head % len(hidden) + hidden)
        answer = said(connection)
        with suppress(OSError):
            answer += said(connection)
    assert answer.startswith(b"HTTP/1.1 404")
    assert b"200 OK" not in answer


def test_disconnecting_clients_do_not_affect_others(server: Server, cat: Image.Image) -> None:
    """Half of the clients close their connection while they wait."""
    body = encoded(cat.resize((256, 256)))
    wanted = post(f"{server.url}/v1/restore", content=body).content

    def leave() -> None:
        with connected(server) as connection:
            connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    leavers = [threading.Thread(target=leave) for _ in range(10)]
    for leaver in leavers:
        leaver.start()
    for _ in range(3):
        answer = post(f"{server.url}/v1/restore", content=body)
        assert_same(answer.content, wanted)
    for leaver in leavers:
        leaver.join()


def test_flood_of_streams_does_not_block_others(open_house: Server, cat: Image.Image) -> None:
    """Four streams send frames without reading; forty more are refused; an image is restored."""
    address = f"ws://127.0.0.1:{open_house.port}/v1/stream?max_side=32"
    frame = encoded(cat)
    stop = threading.Event()

    def flood() -> None:
        with suppress(ConnectionClosed), connect(address, open_timeout=ANSWER_SECONDS) as opened:
            while not stop.is_set():
                opened.send(frame)

    floods = [threading.Thread(target=flood) for _ in range(4)]
    for thread in floods:
        thread.start()
    try:
        open_house.wait_for_metric("vrdir_streams", 4)
        for _ in range(40):
            with pytest.raises(InvalidStatus, match="503"):
                connect(address, open_timeout=ANSWER_SECONDS)
        assert post(f"{open_house.url}/v1/restore", content=frame).status_code == 200
        assert open_house.metric("vrdir_bodies_bytes") <= 8 * len(frame)
    finally:
        stop.set()
        for thread in floods:
            thread.join()


def _bomb_in_a_chunk(name: bytes, head: bytes) -> bytes:
    """Return a PNG with a compressed chunk that unpacks to 200 MB."""
    packed = zlib.compress(b"\0" * 200_000_000)
    data = head + packed
    checksum = struct.pack(">I", zlib.crc32(name + data))
    chunk = struct.pack(">I", len(data)) + name + data + checksum
    sound = encoded(Image.new("RGB", (16, 16), "grey"))
    return sound[:33] + chunk + sound[33:]


BOMBS = {
    "text": lambda: _bomb_in_a_chunk(b"zTXt", b"Comment\0\0"),
    "profile": lambda: _bomb_in_a_chunk(b"iCCP", b"icc\0\0"),
    "pixels": lambda: encoded(Image.new("L", (20_000, 20_000)), "PNG"),
    "tiff": lambda: encoded(Image.new("1", (30_000, 30_000)), "TIFF", compression="group4"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_decompression_bomb_takes_no_memory(server: Server, name: str) -> None:
    before = server.metric("process_resident_memory_bytes")
    answer = post(f"{server.url}/v1/restore", content=BOMBS[name]())
    assert answer.status_code in (200, 413, 415, 422), answer.text
    assert server.metric("process_resident_memory_bytes") - before < 150e6


def test_damaged_files_get_a_response_and_service_continues(server: Server, tmp_path: Path) -> None:
    """The files of benchmarks/fuzz.py: an image or a problem, never a failure or silence."""
    fuzz = pytest.importorskip("benchmarks.fuzz")
    fuzz.make_seeds(tmp_path / "seeds", ["images"])
    statuses = []
    with httpx.Client(base_url=server.url, timeout=ANSWER_SECONDS) as client:
        for number in range(FUZZED):
            target = tmp_path / str(number)
            target.mkdir()
            file = fuzz.make_case(tmp_path / "seeds", "images", number, 24, target)
            answer = client.post("/v1/restore?max_side=64", content=file.read_bytes())
            statuses.append(answer.status_code)
            if answer.status_code == 200:
                assert open_image(answer.content).tensor.numel()
            else:
                assert answer.headers["content-type"] == "application/problem+json"
                kind = answer.json()["type"].removeprefix("urn:vrdir:problem:")
                assert KINDS[kind].status == answer.status_code
        assert client.get("/healthz").status_code == 200
    assert [line["trace"] for line in server.log if "trace" in line] == []
    assert set(statuses) <= {200, 400, 413, 415, 422}
    assert len(set(statuses)) >= 3


@pytest.mark.parametrize("part", ["boundary", "names", "headers"])
def test_hostile_forms_do_not_stop_others(server: Server, part: str) -> None:
    """Forms of megabytes that are slow to read: the health check is answered meanwhile."""
    forms = {
        "boundary": b"--x\r\n" + b"\r\n--" * 2_000_000,
        "names": b'--x\r\nContent-Disposition: form-data; name="' + b"n" * 4_000_000,
        "headers": b"--x\r\n" + b"X-Header: y\r\n" * 500_000,
    }
    media_type = {"Content-Type": "multipart/form-data; boundary=x"}
    answers: list[int] = []

    def send() -> None:
        answer = post(f"{server.url}/v1/restore", content=forms[part], headers=media_type)
        answers.append(answer.status_code)

    sending = threading.Thread(target=send)
    sending.start()
    slowest = 0.0
    while sending.is_alive():
        start = time.monotonic()
        assert get(f"{server.url}/healthz").status_code == 200
        slowest = max(slowest, time.monotonic() - start)
    sending.join()
    assert answers == [400]
    assert slowest < 30


def test_client_names_do_not_appear_in_headers(server: Server, cat: Image.Image) -> None:
    """File names, parameters and metadata with line breaks cannot add a header to the answer."""
    evil = "a\r\nX-Evil: 1\r\n\r\n<script>"
    files = {"image": (evil, encoded(cat, "JPEG", comment=evil.encode()), "image/jpeg")}
    answer = post(f"{server.url}/v1/restore", files=files)
    assert answer.status_code == 200
    assert "x-evil" not in answer.headers
    for name in ("weights", "only", "x"):
        answer = post(f"{server.url}/v1/restore", content=encoded(cat), params={name: evil})
        assert answer.status_code == 400
        assert "x-evil" not in answer.headers
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["x-content-type-options"] == "nosniff"
    answer_raw = raw(
        server, b"GET /%0d%0aX-Evil:%201 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    assert b"x-evil" not in answer_raw.lower().split(b"\r\n\r\n")[0]


def test_camera_cannot_be_shown_by_other_sites(server: Server) -> None:
    """An `<img>` of another site sends no Origin: browsers obey this header instead."""
    answer = get(f"{server.url}/v1/live.mjpg")
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_random_bytes_do_not_stop_the_service(server: Server) -> None:
    """Connections that speak no protocol, in pieces, some closed at once."""
    chance = random.Random(3)
    for number in range(60):
        content = chance.randbytes(chance.randrange(1, 3000))
        if number % 2:
            content = POST + b"Transfer-Encoding: chunked\r\n\r\n" + content
        with suppress(OSError), connected(server) as connection:
            connection.sendall(content)
            if number % 3:
                connection.shutdown(socket.SHUT_WR)
                said(connection)
    assert get(f"{server.url}/healthz").status_code == 200
    assert not [line for line in server.log if "trace" in line]


def test_pixels_at_work_are_budgeted_across_requests(cat: Image.Image) -> None:
    """Many clients, each within its limits: never more pixels at work than the budget."""
    sent = encoded(Image.fromarray(np.tile(np.asarray(cat), (8, 8, 1))))
    with Server("--threads", "2", "--work-megapixels", "0.3") as running:
        most = 0.0
        asking = [
            threading.Thread(
                target=post, args=(f"{running.url}/v1/restore",), kwargs={"content": sent}
            )
            for _ in range(6)
        ]
        for thread in asking:
            thread.start()
        while any(thread.is_alive() for thread in asking):
            most = max(most, running.metric("vrdir_working_images"))
        assert most == 1  # of 262144 pixels each
