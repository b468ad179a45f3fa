"""How the service runs: a full queue, deadlines, keys, reload, a graceful stop, streams."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from tests.serving.raw import POST, connected, said
from tests.serving.servers import (
    ANSWER_SECONDS,
    Server,
    assert_problem,
    assert_same,
    encoded,
    get,
    pixels,
    post,
)
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from vrdir import Restorer

KEY = "a-long-key-for-tests-1234"


@pytest.fixture(scope="module")
def very_large(large_photo: Image.Image) -> bytes:
    """A photo that keeps any machine at work for a while: nobody waits for its end."""
    return encoded(large_photo.resize((3000, 2000)), "JPEG")


def test_full_queue_returns_503_and_retry_after(very_large: bytes, cat: Image.Image) -> None:
    options = ("--threads", "1", "--max-queue", "2", "--stop-timeout", "0.1")
    with ThreadPoolExecutor(3) as pool, Server(*options) as full:
        for number in range(3):
            pool.submit(post, f"{full.url}/v1/restore", content=very_large)
            full.wait_for_metric("vrdir_working_images", 1)
            full.wait_for_metric("vrdir_queue_images", number)
        answer = post(f"{full.url}/v1/restore", content=encoded(cat))
        assert_problem(answer, 503, "queue-full")
        assert 1 <= int(answer.headers["retry-after"]) <= 120
        assert full.metric('vrdir_errors_total{kind="queue-full"}') == 1


def test_late_image_is_cancelled(very_large: bytes) -> None:
    with Server("--threads", "1", "--deadline", "0.3") as short:
        answer = post(f"{short.url}/v1/restore", content=very_large)
        assert_problem(answer, 504, "deadline")
        short.wait_for_metric('vrdir_dropped_total{reason="deadline"}', 1)


def test_disconnected_clients_are_removed_from_queue_and_work(very_large: bytes) -> None:
    name = 'vrdir_dropped_total{reason="client-gone"}'
    request = POST + b"Content-Length: %d\r\n\r\n" % len(very_large) + very_large
    with Server("--threads", "1") as running:
        with connected(running) as at_work:
            at_work.sendall(request)
            running.wait_for_metric("vrdir_working_images", 1)
            with connected(running) as waiting:
                waiting.sendall(request)
                running.wait_for_metric("vrdir_queue_images", 1)
        running.wait_for_metric(name, 2)  # the one that waits is dropped when a thread is free
        running.wait_for_metric("vrdir_working_images", most=0)


def test_accepted_requests_are_finished_when_the_service_stops(large_photo: Image.Image) -> None:
    options = ("--threads", "1", "--stop-timeout", "600", "--deadline", "600")
    with Server(*options) as running, ThreadPoolExecutor(3) as pool:
        # Each of another size, so that they form no batch.
        photos = [encoded(large_photo.resize((1200, 800 + number)), "JPEG") for number in range(3)]
        answers = [
            pool.submit(post, f"{running.url}/v1/restore", content=photo, timeout=900)
            for photo in photos
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


def test_stop_answers_unfinished_requests(very_large: bytes) -> None:
    """Images at work, images that wait, bodies that are still sent: each gets 503, not silence."""
    with (
        Server("--threads", "1", "--stop-timeout", "0.5") as running,
        ThreadPoolExecutor(3) as pool,
    ):
        address = f"{running.url}/v1/restore"
        answers = [pool.submit(post, address, content=very_large) for _ in range(3)]
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


def test_killed_server_leaves_no_truncated_response_and_clients_continue(
    very_large: bytes, cat: Image.Image
) -> None:
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
    with ThreadPoolExecutor(7) as pool:
        # So that the others still wait when the server is killed.
        pool.submit(post, f"{first.url}/v1/restore", content=very_large)
        first.wait_for_metric("vrdir_working_images", 1)
        answers = [pool.submit(ask, first.url, number) for number in range(6)]
        first.wait_for_metric("vrdir_queue_images", 1)
        first.kill()
        with Server(port=first.port):
            for answer, one in zip(answers, wanted, strict=True):
                assert_same(answer.result(), one)
    assert failed.is_set()


def test_idle_threads_do_not_spin(server: Server, cat: Image.Image) -> None:
    post(f"{server.url}/v1/restore", content=encoded(cat))
    for name in ("vrdir_working_images", "vrdir_queue_images"):
        server.wait_for_metric(name, most=0)  # also those of other tests
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
        assert "problem" not in str(socket.recv(timeout=ANSWER_SECONDS))
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
            with httpx.Client(base_url=running.url, timeout=ANSWER_SECONDS) as client:
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
        enough = len(statuses) + 6
        while len(statuses) < enough:
            time.sleep(0.01)
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
            facts = socket.recv(timeout=ANSWER_SECONDS)
            assert isinstance(facts, str)
            assert f'"frame":{number},"dropped":0' in facts
            content = socket.recv(timeout=ANSWER_SECONDS)
            assert isinstance(content, bytes)
            assert abs(pixels(content) - np.asarray(restored).astype(int)).max() <= 1


def test_stream_drops_late_frames_and_reports_bad_ones(server: Server, cat: Image.Image) -> None:
    frame = encoded(cat.resize((256, 256)))
    with connect(f"ws://127.0.0.1:{server.port}/v1/stream") as socket:
        for _ in range(30):
            socket.send(frame)
        socket.send(b"no image")
        told = []
        while not told or "problem" not in told[-1]:
            answer = socket.recv(timeout=ANSWER_SECONDS)
            if isinstance(answer, str):
                told.append(answer)
        assert "not-an-image" in told[-1]
        assert any('"dropped":0' not in facts for facts in told)
        socket.send(frame)
        answer = socket.recv(timeout=ANSWER_SECONDS)
        while isinstance(answer, str):
            answer = socket.recv(timeout=ANSWER_SECONDS)
        assert pixels(answer).shape == (256, 256, 3)


def test_stream_with_wrong_parameters_is_rejected(server: Server) -> None:
    for query in ("smoothing=1", "weights=none", "strength=9"):
        with pytest.raises(InvalidStatus, match="400"):
            connect(f"ws://127.0.0.1:{server.port}/v1/stream?{query}")


def test_stream_from_another_site_is_rejected(server: Server) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        connect(f"ws://127.0.0.1:{server.port}/v1/stream", origin=Origin("https://evil.example"))
