"""How the service runs: a full queue, deadlines, keys, reload, a graceful stop, streams."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from tests.serving.raw import POST, connected, said
from tests.serving.servers import Server, assert_problem, assert_same, encoded, get, pixels, post
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from vrdir import Restorer

KEY = "a-long-key-for-tests-1234"


@pytest.fixture(scope="module")
def busy() -> Iterator[Server]:
    """A server with a short queue, short deadlines and one thread."""
    with Server("--threads", "1", "--max-queue", "2", "--deadline", "0.5") as running:
        yield running


def test_full_queue_returns_503_and_retry_after(busy: Server, large_photo: Image.Image) -> None:
    sent = encoded(large_photo.resize((300, 200)), "JPEG")
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda _: post(f"{busy.url}/v1/restore", content=sent, timeout=300), range(8))
        )
    refused = [answer for answer in answers if answer.status_code == 503]
    assert refused
    for answer in refused:
        assert_problem(answer, 503, "queue-full")
        assert 1 <= int(answer.headers["retry-after"]) <= 120
    assert all(answer.status_code in (200, 503, 504) for answer in answers)
    assert busy.metric('vrdir_errors_total{kind="queue-full"}') >= len(refused)


def test_late_image_is_cancelled(busy: Server, large_photo: Image.Image) -> None:
    sent = encoded(large_photo, "JPEG")
    name = 'vrdir_dropped_total{reason="deadline"}'
    before = busy.metric(name)
    answer = post(f"{busy.url}/v1/restore", content=sent, timeout=300)
    assert_problem(answer, 504, "deadline")
    busy.wait_for_metric(name, before + 1)


def test_disconnected_client_is_removed_from_the_queue(
    server: Server, large_photo: Image.Image
) -> None:
    large = encoded(large_photo.resize((1500, 1000)), "JPEG")
    small = encoded(large_photo.resize((450, 300)), "JPEG")
    name = 'vrdir_dropped_total{reason="client-gone"}'
    before = server.metric(name)
    with ThreadPoolExecutor(1) as pool:
        # A patient client's large image keeps the network at work, so the other one must wait.
        patient = pool.submit(post, f"{server.url}/v1/restore", content=large, timeout=300)
        server.wait_for_metric("vrdir_working_images", 1)
        with suppress(httpx.TimeoutException):
            post(f"{server.url}/v1/restore", content=small, timeout=0.3)
        server.wait_for_metric(name, before + 1)
        assert patient.result().status_code == 200


def test_accepted_requests_are_finished_when_the_service_stops(large_photo: Image.Image) -> None:
    options = ("--threads", "1", "--stop-timeout", "600", "--deadline", "600")
    with Server(*options) as running, ThreadPoolExecutor(3) as pool:
        # Each of another size, so that they form no batch.
        answers = [
            pool.submit(post, f"{running.url}/v1/restore", content=sent, timeout=900)
            for sent in (encoded(large_photo.resize((500, 330 + number))) for number in range(3))
        ]
        running.wait_for_metric("vrdir_working_images", 1)
        running.wait_for_metric("vrdir_queue_images", 2)
        running.send(signal.SIGTERM)
        until_refused(running)
        assert [answer.result().status_code for answer in answers] == [200, 200, 200]
        assert running.wait() in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
        requests = [line for line in running.log if line.get("route") == "/v1/restore"]
        assert len(requests) == 3


def until_refused(running: Server) -> None:
    """Wait until the service takes no new connection."""
    try:
        while True:
            get(f"{running.url}/healthz")
    except httpx.TransportError:
        pass


def test_stop_answers_unfinished_requests(large_photo: Image.Image) -> None:
    """Images at work, images that wait, bodies that are still sent: each gets 503, not silence."""
    sent = encoded(large_photo.resize((3000, 2000)), "JPEG")
    with (
        Server("--threads", "1", "--stop-timeout", "0.5") as running,
        ThreadPoolExecutor(3) as pool,
    ):
        answers = [pool.submit(post, f"{running.url}/v1/restore", content=sent) for _ in range(3)]
        with connected(running) as slow:
            slow.sendall(POST + b"Content-Length: 1000\r\n\r\nabc")
            running.wait_for_metric("vrdir_working_images", 1)
            running.wait_for_metric("vrdir_queue_images", 2)
            running.send(signal.SIGTERM)
            assert b"urn:vrdir:problem:stopping" in said(slow)
        for answer in answers:
            assert_problem(answer.result(), 503, "stopping")
            assert "retry-after" in answer.result().headers
        running.wait()


def test_killed_server_leaves_no_truncated_response_and_clients_continue(cat: Image.Image) -> None:
    """SIGKILL among requests, then a start on the same port: all clients get all their pixels."""
    frames = [cat.rotate(7 * number).resize((200, 200)) for number in range(6)]
    sent = [encoded(frame) for frame in frames]
    wanted = [Restorer("small", "cpu")(one) for one in sent]
    failed = threading.Event()

    def ask(url: str, number: int) -> bytes:
        while True:
            try:
                answer = post(f"{url}/v1/restore", content=sent[number])
            except httpx.HTTPError:  # no answer, or one that was cut off
                failed.set()
                time.sleep(0.1)
                continue
            assert answer.status_code == 200
            return answer.content

    first = Server("--threads", "1")
    with ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(ask, first.url, number) for number in range(6)]
        first.wait_for_metric("vrdir_working_images", 1)
        first.kill()
        with Server(port=first.port):
            for answer, one in zip(answers, wanted, strict=True):
                assert_same(answer.result(), one)
    assert failed.is_set()


def test_idle_threads_do_not_spin(server: Server, cat: Image.Image) -> None:
    post(f"{server.url}/v1/restore", content=encoded(cat))
    before = server.metric("process_cpu_seconds_total")
    time.sleep(2)
    assert server.metric("process_cpu_seconds_total") - before < 0.3


def test_keys_are_required_and_reloaded(tmp_path: Path, cat: Image.Image) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text(f"# who may call\n{KEY}\n")
    with Server("--keys", str(keys)) as running:
        address = f"{running.url}/v1/restore"
        answer = post(address, content=encoded(cat))
        assert_problem(answer, 401, "key-missing")
        assert answer.headers["www-authenticate"] == "Bearer"
        for headers in ({"X-API-Key": KEY}, {"Authorization": f"Bearer {KEY}"}):
            assert post(address, content=encoded(cat), headers=headers).status_code == 200
        assert get(f"{running.url}/healthz").status_code == 200
        assert get(f"{running.url}/").status_code == 200
        token = open_stream_by_token(running, cat)
        keys.write_text("another-key-for-tests-5678\n")
        os.utime(keys, (1, 1))
        answer = post(address, content=encoded(cat), headers={"X-API-Key": KEY})
        assert_problem(answer, 403, "key-wrong")
        assert_problem(get(f"{running.url}/v1/live.mjpg?token={token}"), 403, "key-wrong")
        keys.unlink()  # a file that cannot be read changes nothing
        headers = {"X-API-Key": "another-key-for-tests-5678"}
        assert get(f"{running.url}/v1/weights", headers=headers).status_code == 200
        assert KEY not in str(running.log)
        assert token not in str(running.log)


def open_stream_by_token(running: Server, cat: Image.Image) -> str:
    """Open streams as a browser does, which sends no key; return the token."""
    address = f"ws://127.0.0.1:{running.port}/v1/stream"
    with pytest.raises(InvalidStatus, match="401"):
        connect(address)
    assert_problem(post(f"{running.url}/v1/tokens"), 401, "key-missing")
    answer = post(f"{running.url}/v1/tokens", headers={"X-API-Key": KEY})
    assert answer.headers["cache-control"] == "no-store"
    token = str(answer.json()["token"])
    with connect(f"{address}?token={token}&max_side=32") as socket:
        socket.send(encoded(cat))
        assert "problem" not in str(socket.recv(timeout=120))
    # The gate lets the token through; there is no camera behind it.
    assert_problem(get(f"{running.url}/v1/live.mjpg?token={token}"), 501, "not-offered")
    # Elsewhere a token is worth nothing.
    assert_problem(get(f"{running.url}/v1/weights?token={token}"), 401, "key-missing")
    return token


def test_tokens_are_offered_only_with_keys(server: Server) -> None:
    assert_problem(post(f"{server.url}/v1/tokens"), 501, "not-offered")


def test_reload_changes_weights_and_loses_no_request(tmp_path: Path, cat: Image.Image) -> None:
    folder = tmp_path / "weights"
    Restorer("small", "cpu").model.save_pretrained(folder)
    field = Restorer("field", "cpu")
    sent = encoded(cat)
    with Server("--weights", f"mine={folder}") as running:
        statuses: list[int] = []
        going = threading.Event()

        def ask() -> None:
            with httpx.Client(base_url=running.url, timeout=120) as client:
                while not going.is_set():
                    statuses.append(client.post("/v1/restore", content=sent).status_code)

        asking = [threading.Thread(target=ask) for _ in range(3)]
        for thread in asking:
            thread.start()
        for file in ("config.json", "model.safetensors"):
            (folder / file).unlink()
        field.model.save_pretrained(folder)
        running.send(signal.SIGHUP)
        running.wait_for("weights reloaded")
        time.sleep(0.3)
        going.set()
        for thread in asking:
            thread.join()
        assert set(statuses) == {200}
        assert_same(post(f"{running.url}/v1/restore", content=sent).content, field(sent))
        (folder / "model.safetensors").write_bytes(b"broken")
        running.send(signal.SIGHUP)
        running.wait_for("weights could not be reloaded")
        assert_same(post(f"{running.url}/v1/restore", content=sent).content, field(sent))


def test_allowed_origin_gets_cors_headers(cat: Image.Image) -> None:
    origin = "https://photos.example"
    with Server("--cors", origin) as running:
        asked = httpx.options(
            f"{running.url}/v1/restore",
            headers={"Origin": origin, "Access-Control-Request-Method": "POST"},
        )
        assert asked.headers["access-control-allow-origin"] == origin
        answer = post(f"{running.url}/v1/restore", content=encoded(cat), headers={"Origin": origin})
        assert answer.headers["access-control-allow-origin"] == origin


def test_stream_gives_the_frames_of_restorer_stream(server: Server, cat: Image.Image) -> None:
    frames = [cat.crop((shift, 0, 48 + shift, 48)) for shift in range(5)]
    wanted = list(Restorer("small", "cpu").stream(frames))
    with connect(f"ws://127.0.0.1:{server.port}/v1/stream") as socket:
        for number, (frame, restored) in enumerate(zip(frames, wanted, strict=True)):
            socket.send(encoded(frame))
            facts = socket.recv(timeout=120)
            assert isinstance(facts, str)
            assert f'"frame":{number},"dropped":0' in facts
            content = socket.recv(timeout=120)
            assert isinstance(content, bytes)
            assert abs(pixels(content) - np.asarray(restored).astype(int)).max() <= 1


def test_stream_drops_late_frames_and_reports_bad_ones(server: Server, cat: Image.Image) -> None:
    with connect(f"ws://127.0.0.1:{server.port}/v1/stream?max_side=32") as socket:
        for _ in range(30):
            socket.send(encoded(cat))
        socket.send(b"no image")
        facts = ""
        while "problem" not in facts:
            answer = socket.recv(timeout=120)
            facts = answer if isinstance(answer, str) else ""
        assert "not-an-image" in facts
        assert '"dropped":0' not in facts
        socket.send(encoded(cat))
        answer = socket.recv(timeout=120)
        while isinstance(answer, str):
            answer = socket.recv(timeout=120)
        assert pixels(answer).shape == (32, 32, 3)


def test_stream_with_wrong_parameters_is_rejected(server: Server) -> None:
    for query in ("smoothing=1", "weights=none", "strength=9"):
        with pytest.raises(InvalidStatus, match="400"):
            connect(f"ws://127.0.0.1:{server.port}/v1/stream?{query}")


def test_stream_from_another_site_is_rejected(server: Server) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        connect(f"ws://127.0.0.1:{server.port}/v1/stream", origin=Origin("https://evil.example"))
