"""Soak `vrdir serve`: many clients for minutes, beside `vrdir restore` on the same photos.

    python benchmarks/serving.py PHOTOS [--minutes 10] [--clients 6] [--threads 2]

PHOTOS is a folder of images. A server is started as a process, and clients ask it in rounds of a
minute. Before each round, while the server idles, `vrdir restore` restores the same photos; so both
see the same machine, even one that is busy with other things. Each answer is compared with the file
that `vrdir restore` wrote. Printed are:

- throughput of both, and their ratio (the target is 0.9);
- p50, p95 and p99 of the latency of one client, of all clients, and of the bare network alone;
- lost answers (no answer at all), refused ones (503), wrong ones (pixels), and how many files are
  equal to the byte;
- the server's memory after the first round and after the last (the target is within 5 %).

Both are started with `--threads`. Start-up is not counted. The exit status is 1 if an answer was
lost or wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import torch
from PIL import Image

from vrdir import Restorer
from vrdir.images.convert import open_image

ROUND = 60.0  # seconds of load between two runs of `vrdir restore`
LOSSY_LEVELS, LOSSLESS_LEVELS = 8, 1  # a batch may round another way, and JPEG spreads that
LOSSY = (".jpg", ".jpeg", ".webp", ".avif", ".heic")


class Photo(NamedTuple):
    """A photo, and the file that `vrdir restore` made of it."""

    name: str
    sent: bytes
    wanted: bytes

    def is_answered_by(self, content: bytes) -> bool:
        """Return whether an answer has the wanted pixels."""
        levels = LOSSY_LEVELS if Path(self.name).suffix.lower() in LOSSY else LOSSLESS_LEVELS
        got, wanted = _pixels(content), _pixels(self.wanted)
        return got.shape == wanted.shape and bool(abs(got - wanted).max() <= levels)


def _pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content))).astype(int)


class Server:
    """A running `vrdir serve`."""

    def __init__(self, *options: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "vrdir", "serve", "--port", "0", *options],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        for line in self._process.stderr:
            facts = json.loads(line)
            if facts["message"] == "serving":
                break
        else:
            raise SystemExit("the server did not start")
        self.url = f"http://127.0.0.1:{facts['port']}"
        # The log is read and forgotten: a full pipe would stop the server.
        threading.Thread(target=self._process.stderr.read, daemon=True).start()

    def memory(self) -> float:
        """Return its resident memory in MiB."""
        for line in httpx.get(f"{self.url}/metrics").text.splitlines():
            if line.startswith("process_resident_memory_bytes"):
                return float(line.split(" ")[1]) / 2**20
        raise SystemExit("the server does not tell its memory")

    def stop(self) -> None:
        """Stop it gracefully."""
        self._process.terminate()
        self._process.wait()


class Load:
    """Clients that ask again and again, each over its own connection.

    Attributes:
        latencies: seconds of each answer.
        seconds: how long they asked in all.
    """

    def __init__(self, url: str, photos: Sequence[Photo]) -> None:
        self._url, self._photos = url, photos
        self._right = [{hashlib.sha256(photo.wanted).digest()} for photo in photos]
        self._lock = threading.Lock()
        self._next = 0
        self.latencies: list[float] = []
        self.seconds = 0.0
        self.wrong = self.lost = self.refused = self.equal = 0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    def run(self, clients: int, seconds: float) -> None:
        """Ask for some seconds, and wait for the last answers."""
        start = time.perf_counter()
        asking = [
            threading.Thread(target=self._ask, args=(start + seconds,)) for _ in range(clients)
        ]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        self.seconds += time.perf_counter() - start

    def _ask(self, until: float) -> None:
        with httpx.Client(base_url=self._url, timeout=300) as client:
            while time.perf_counter() < until:
                with self._lock:
                    place = self._next % len(self._photos)
                    self._next += 1
                start = time.perf_counter()
                try:
                    answer = client.post("/v1/restore", content=self._photos[place].sent)
                except httpx.HTTPError:
                    self._count("lost")
                    continue
                seconds = time.perf_counter() - start
                if answer.status_code == 503:
                    self._count("refused")
                    time.sleep(float(answer.headers["retry-after"]))
                    continue
                self._check(place, answer)
                with self._lock:
                    self.latencies.append(seconds)

    def _check(self, place: int, answer: httpx.Response) -> None:
        """Compare an answer; pixels are decoded once for each different file."""
        digest = hashlib.sha256(answer.content).digest()
        photo, right = self._photos[place], self._right[place]
        if answer.status_code == 200 and answer.content == photo.wanted:
            self._count("equal")
        elif answer.status_code == 200 and digest in right:
            pass
        elif answer.status_code == 200 and photo.is_answered_by(answer.content):
            right.add(digest)
        else:
            self._count("wrong")

    def _count(self, name: str) -> None:
        with self._lock:
            setattr(self, name, getattr(self, name) + 1)


class Command:
    """`vrdir restore` on a folder, again and again; its rate does not count the start."""

    def __init__(self, source: Path, target: Path, options: Sequence[str]) -> None:
        self._line = [sys.executable, "-m", "vrdir", "restore", str(source), "-o", str(target)]
        self._line += ["--overwrite", *options]
        self._files, self._seconds = 0, 0.0

    @property
    def rate(self) -> float:
        """Photos a second."""
        return self._files / self._seconds

    def run(self) -> None:
        """Restore the folder once; count from the first finished file to the last."""
        times = []
        with subprocess.Popen(self._line, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if Path(line.strip()).is_file():
                    times.append(time.perf_counter())
        if process.returncode or len(times) < 2:
            raise SystemExit("vrdir restore failed; PHOTOS must have two images or more")
        self._files += len(times) - 1
        self._seconds += times[-1] - times[0]


def bare_latencies(photos: Sequence[Photo], weights: str, threads: int) -> list[float]:
    """Return the seconds of the network alone for each photo, decoded before."""
    torch.set_num_threads(threads)
    restorer = Restorer(weights, "cpu")
    seconds = []
    for photo in photos:
        tensor = open_image(photo.sent).tensor
        start = time.perf_counter()
        restorer.restore(tensor)
        seconds.append(time.perf_counter() - start)
    return seconds


def row(name: str, seconds: Sequence[float]) -> str:
    """Return a line of the table of latencies."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return f"| {name} | {cuts[49]:.3f} | {cuts[94]:.3f} | {cuts[98]:.3f} |"


def report(
    command: Command, alone: Load, load: Load, bare: Sequence[float], memory: Sequence[float]
) -> None:
    """Print the tables."""
    print("| `vrdir restore`, photos/s | `vrdir serve`, photos/s | ratio |")
    print("|---|---|---|")
    print(f"| {command.rate:.2f} | {load.rate:.2f} | {load.rate / command.rate:.2f} |\n")
    print("| latency, s | p50 | p95 | p99 |")
    print("|---|---|---|---|")
    print(row("bare network", bare))
    print(row("one client", alone.latencies))
    print(row("all clients", load.latencies) + "\n")
    print("| answers | equal to the byte | lost | refused | wrong |")
    print("|---|---|---|---|---|")
    print(
        f"| {len(load.latencies)} | {load.equal} | {load.lost} | {load.refused} | {load.wrong} |\n"
    )
    change = memory[-1] / memory[0] - 1
    print(f"memory: {memory[0]:.0f} MiB, then {memory[-1]:.0f} MiB ({change:+.1%}); ", end="")
    print(f"most {max(memory):.0f} MiB in {len(memory)} rounds")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--weights", default="small")
    options = parser.parse_args()
    choice = ["--threads", str(options.threads), "--weights", options.weights]
    rounds = max(2, round(60 * options.minutes / ROUND))
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder)
        command = Command(options.photos, target, choice)
        command.run()
        photos = [
            Photo(path.name, (options.photos / path.relative_to(target)).read_bytes(),
                  path.read_bytes())
            for path in sorted(target.rglob("*.*"))
        ]  # fmt: skip
        bare = bare_latencies(photos, options.weights, options.threads)
        server = Server(*choice)
        try:
            warm, alone, load = (Load(server.url, photos) for _ in range(3))
            warm.run(options.clients, min(20, 15 * options.minutes))
            alone.run(1, min(30, 15 * options.minutes))
            memory = []
            for _ in range(rounds):
                command.run()
                load.run(options.clients, 60 * options.minutes / rounds)
                memory.append(server.memory())
        finally:
            server.stop()
    report(command, alone, load, bare, memory)
    raise SystemExit(1 if load.lost or load.wrong else 0)


if __name__ == "__main__":
    main()
