"""Wrong, hostile and slow requests: each gets an answer in words, and the service goes on."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest
from PIL import Image
from tests.serving.servers import Server, assert_problem, assert_same, encoded, get, post


@pytest.fixture(scope="module")
def strict() -> Iterator[Server]:
    """A server with tight limits."""
    with Server(
        *("--max-body", "0.25", "--max-megapixels", "0.5", "--body-timeout", "1"),
        *("--header-timeout", "1", "--max-connections", "20"),
    ) as running:
        yield running


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that claims a size and holds almost nothing."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0" * 100)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


BAD_PARAMETERS = {
    "strength=2.5": "from 0 to 2",
    "strength=nan": "from 0 to 2",
    "strength=much": "from 0 to 2",
    "strength=1&strength=2": "2 times",
    "only=fog": "fog",
    "weights=large": "small",
    "weights=../../../etc/passwd": "small",
    "weights=/etc": "small",
    "max_side=0": "from 1",
    "max_side=1e3": "whole number",
    "quality=101": "from 1 to 100",
    "path=/etc/passwd": "not known",
}


@pytest.mark.parametrize("query", BAD_PARAMETERS)
def test_wrong_parameters_are_named(server: Server, cat: Image.Image, query: str) -> None:
    answer = post(f"{server.url}/v1/restore?{query}", content=encoded(cat))
    assert_problem(answer, 400, "bad-parameter")
    assert BAD_PARAMETERS[query] in answer.json()["detail"]


BAD_BODIES = {
    "empty": (b"", 400, "no-image"),
    "text": (b"hello", 415, "not-an-image"),
    "web page": (b"<!doctype html><html>", 415, "not-an-image"),
    "PDF": (b"%PDF-1.7 ....", 415, "not-an-image"),
    "bomb of 10 gigapixels": (png_header(100_000, 100_000), 413, "image-too-large"),
    "headers only": (png_header(64, 64), 422, "damaged-image"),
    "no width": (png_header(0, 64), 415, "not-an-image"),
    "random": (random.Random(1).randbytes(5000), 415, "not-an-image"),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_bodies_that_are_no_image(server: Server, name: str) -> None:
    body, status, kind = BAD_BODIES[name]
    assert_problem(post(f"{server.url}/v1/restore", content=body), status, kind)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"])
def test_damaged_images_get_an_answer_and_the_service_goes_on(
    server: Server, cat: Image.Image, file_format: str
) -> None:
    """Cut short, and with bytes changed: always an image or a problem, never a failure."""
    sound, chance = encoded(cat, file_format), random.Random(file_format)
    bodies = [sound[: len(sound) * part // 8] for part in range(1, 8)]
    for _ in range(12):
        changed = bytearray(sound)
        for _ in range(chance.randrange(1, 20)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        bodies.append(bytes(changed))
    with httpx.Client(base_url=server.url, timeout=120) as client:
        for body in bodies:
            answer = client.post("/v1/restore", content=body)
            assert answer.status_code in (200, 413, 415, 422), answer.text
        assert client.get("/healthz").status_code == 200
    assert not [line for line in server.log if line.get("problem") == "internal-error"]


def test_an_animation_is_refused_in_words(server: Server, cat: Image.Image) -> None:
    sent = encoded(cat, "GIF", save_all=True, append_images=[cat.rotate(90)])
    answer = post(f"{server.url}/v1/restore", content=sent)
    assert_problem(answer, 422, "damaged-image")
    assert "2 frames" in answer.json()["detail"]


FORMS = {
    "no boundary": ("multipart/form-data", b"--x\r\n", 400, "bad-request"),
    "no file": (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="strength"\r\n\r\n1\r\n--x--\r\n',
        400,
        "no-image",
    ),
    "garbage": ("multipart/form-data; boundary=x", b"garbage", 400, "bad-request"),
    "large field": (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + b"1" * 9000 + b"\r\n--x--\r\n",
        400,
        "bad-request",
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_broken_forms(server: Server, name: str) -> None:
    media_type, body, status, kind = FORMS[name]
    headers = {"Content-Type": media_type}
    answer = post(f"{server.url}/v1/restore", content=body, headers=headers)
    assert_problem(answer, status, kind)


def test_two_files_in_a_form_are_refused(server: Server, cat: Image.Image) -> None:
    files = [("image", ("a.png", encoded(cat))), ("image", ("b.png", encoded(cat)))]
    assert_problem(post(f"{server.url}/v1/restore", files=files), 400, "bad-request")


def test_a_format_that_cannot_be_written(server: Server, cat: Image.Image) -> None:
    answer = post(
        f"{server.url}/v1/restore", content=encoded(cat), headers={"Accept": "image/x-icon"}
    )
    assert_problem(answer, 406, "not-acceptable")
    assert "image/png" in answer.json()["detail"]


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/samples/../../service.py", "//etc"]
)
def test_no_address_reaches_the_file_system(server: Server, path: str) -> None:
    answer = raw(server, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404")
    assert b"root:" not in answer


def raw(server: Server, *parts: bytes, pause: float = 0.0, timeout: float = 5.0) -> bytes:
    """Send bytes over a connection; return the answer up to its end or three seconds of silence."""
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout)) as connection:
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
        except (BrokenPipeError, ConnectionResetError):
            pass
        connection.settimeout(3.0)
        answer = b""
        try:
            while piece := connection.recv(65536):
                answer += piece
        except (TimeoutError, ConnectionResetError):
            pass
        return answer


POST = b"POST /v1/restore HTTP/1.1\r\nHost: localhost\r\n"


def test_a_declared_length_over_the_limit_is_refused_at_once(strict: Server) -> None:
    answer = raw(strict, POST + b"Expect: 100-continue\r\nContent-Length: 999999999999\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"0.25 MiB" in answer


def test_an_endless_upload_is_cut_off(strict: Server) -> None:
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    answer = raw(strict, head, *([chunk] * 40))
    assert b" 413 " in answer.split(b"\r\n")[0]


def test_a_slow_upload_times_out(strict: Server) -> None:
    answer = raw(strict, POST + b"Content-Length: 1000\r\n\r\n", *([b"x"] * 5), pause=0.3)
    assert answer.startswith(b"HTTP/1.1 408")


def test_slow_headers_are_cut_off(strict: Server) -> None:
    start = time.monotonic()
    assert raw(strict, POST, *([b"X-A: b\r\n"] * 12), pause=0.2) == b""
    assert time.monotonic() - start < 5


def test_a_flood_of_headers_is_refused(strict: Server) -> None:
    flood = b"".join(b"X-%d: %s\r\n" % (number, b"y" * 100) for number in range(1000))
    assert raw(strict, POST, flood).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01\x02\x00\x01", b"HELO there\r\n\r\n", b"\0" * 99]
)
def test_what_is_not_http_is_refused(strict: Server, garbage: bytes) -> None:
    answer = raw(strict, garbage + b"\r\n\r\n")
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400")


def test_a_body_that_ends_too_early_is_forgotten(strict: Server) -> None:
    raw(strict, POST + b"Content-Length: 1000\r\n\r\nabc", timeout=2)
    assert get(f"{strict.url}/healthz").status_code == 200


def test_an_image_over_the_limit_is_refused_before_it_is_decoded(
    strict: Server, cat: Image.Image
) -> None:
    answer = post(f"{strict.url}/v1/restore", content=encoded(cat.resize((1000, 600)), "JPEG"))
    assert_problem(answer, 413, "image-too-large")
    assert "0.60 megapixels" in answer.json()["detail"]


def test_more_connections_than_allowed_get_503(strict: Server, cat: Image.Image) -> None:
    """Five hundred idle connections: later ones are refused, and afterwards the service answers."""
    held = []
    answers = []
    try:
        for _ in range(500):
            connection = socket.create_connection(("127.0.0.1", strict.port), 5)
            connection.settimeout(1)
            held.append(connection)
        answers = [held[-1].recv(4096)]
    finally:
        for connection in held:
            connection.close()
    assert answers[0].startswith(b"HTTP/1.1 503")
    assert b"too-many-connections" in answers[0]
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            if get(f"{strict.url}/healthz").status_code == 200:
                break
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    assert post(f"{strict.url}/v1/restore", content=encoded(cat)).status_code == 200


def test_pages_of_other_sites_may_not_call(server: Server, cat: Image.Image) -> None:
    headers = {"Origin": "https://evil.example"}
    answer = post(f"{server.url}/v1/restore", content=encoded(cat), headers=headers)
    assert_problem(answer, 403, "foreign-origin")
    own = {"Origin": server.url}
    answer = post(f"{server.url}/v1/restore", content=encoded(cat), headers=own)
    assert answer.status_code == 200


@pytest.mark.parametrize("header", ["Host: [bad", "Host: localhost\r\nOrigin: http://[bad"])
def test_malformed_names_are_refused(server: Server, header: str) -> None:
    answer = raw(server, f"GET /v1/weights HTTP/1.1\r\n{header}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 400")


def test_a_foreign_name_for_this_machine_is_refused(server: Server) -> None:
    answer = get(f"{server.url}/v1/weights", headers={"Host": "evil.example"})
    assert_problem(answer, 403, "foreign-origin")


def test_clients_that_leave_do_not_disturb_others(server: Server, cat: Image.Image) -> None:
    """Half of the clients close their connection while they wait."""
    body = encoded(cat.resize((256, 256)))
    wanted = post(f"{server.url}/v1/restore", content=body).content

    def leave() -> None:
        with closing(socket.create_connection(("127.0.0.1", server.port))) as connection:
            connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    leavers = [threading.Thread(target=leave) for _ in range(10)]
    for leaver in leavers:
        leaver.start()
    for _ in range(3):
        answer = post(f"{server.url}/v1/restore", content=body)
        assert_same(answer.content, wanted)
    for leaver in leavers:
        leaver.join()
