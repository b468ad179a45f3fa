"""Real servers for the tests: `vrdir serve` as a process, talked to over the loopback."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from math import inf
from typing import Any

import httpx
import numpy as np
from PIL import Image

# Bounds for a busy machine; what is tested takes seconds.
START_SECONDS, ANSWER_SECONDS = 600.0, 300.0

get = partial(httpx.get, timeout=ANSWER_SECONDS)
post = partial(httpx.post, timeout=ANSWER_SECONDS)


class Server:
    """A running `vrdir serve`, or another command that serves.

    Attributes:
        url: its address.
        log: the JSON lines that it has logged so far.
    """

    def __init__(self, *options: str, command: tuple[str, ...] = ("serve",), port: int = 0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "vrdir", *command, "--port", str(port), *options],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "2"},
        )
        self.log: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port = int(self.wait_for("serving")["port"])
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            try:
                self.log.append(json.loads(line))
            except ValueError:
                self.log.append({"message": "(not JSON)", "text": line})

    def wait_for(self, message: str, **facts: Any) -> dict[str, Any]:
        """Wait for a line of the log with this message and these facts."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            for line in list(self.log):
                if line["message"].startswith(message) and facts.items() <= line.items():
                    return line
            assert self._process.poll() is None or self._reader.is_alive(), self.log
            time.sleep(0.02)
        raise AssertionError(f"no {message!r} in {self.log}")

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def wait(self, seconds: float = ANSWER_SECONDS) -> int:
        """Wait for the end; return the exit status."""
        status = self._process.wait(seconds)
        self._reader.join(seconds)
        return status

    def stop(self) -> None:
        """Stop it, gracefully if it can."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self.wait()
            except subprocess.TimeoutExpired:
                self._process.kill()
                self.wait()

    def kill(self) -> None:
        """Kill it, so that it can finish nothing."""
        self._process.kill()
        self.wait()

    def wait_for_metric(self, name: str, least: float = 0.0, most: float = inf) -> None:
        """Wait until a metric is in a range."""
        until = time.monotonic() + ANSWER_SECONDS
        while not least <= self.metric(name) <= most:
            assert time.monotonic() < until, f"{name} is still {self.metric(name)}"
            time.sleep(0.02)

    def metric(self, name: str) -> float:
        """Return the value of a metric, with its labels as Prometheus writes them."""
        for line in get(f"{self.url}/metrics").text.splitlines():
            if line.startswith(name + " "):
                return float(line.split(" ")[-1])
        return 0.0


def encoded(picture: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    """Return a picture as a file."""
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def pixels(content: bytes) -> np.ndarray[Any, Any]:
    """Return a file's pixels as (H, W, C) integers."""
    return np.asarray(Image.open(io.BytesIO(content))).astype(int)


def assert_same(first: bytes, second: bytes, levels: int = 1) -> None:
    """Compare the pixels of two files: a batch may round another way than one image."""
    one, other = pixels(first), pixels(second)
    assert one.shape == other.shape
    assert abs(one - other).max() <= levels


def assert_problem(response: httpx.Response, status: int, kind: str) -> None:
    """Check that an answer is a problem document (RFC 9457) of a kind, without a trace."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["type"] == f"urn:vrdir:problem:{kind}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert "Traceback" not in response.text
    assert ".py" not in response.text
