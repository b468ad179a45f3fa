"""Soak `vrdir serve`: many clients for minutes, compared with `vrdir restore` on the same photos.

    python benchmarks/serving.py PHOTOS [--minutes 10] [--clients 6] [--threads 2] [--servers 1]

PHOTOS is a folder of images, of 20 or more, since the first and last of each run of `vrdir restore`
have the machine for themselves. A server is started as a process, and clients ask it in rounds of a
minute. Before each round, while the server idles, `vrdir restore` restores the same photos; so both
see the same machine, even one that is busy with other things. Each answer is compared with the file
that `vrdir restore` wrote. Printed are:

- photos a second of both, and their ratio (the target is 0.9); processor seconds a photo of both,
  which other programs on the machine change less;
- p50, p95 and p99 of the latency of one client, of all clients, and of the bare network alone;
- lost answers (no answer at all), refused ones (503), wrong ones (pixels), and how many files are
  equal to the byte;
- the server's memory after the first round and after the last (the target is within 5 %).

Both are started with `--threads`. Start-up is not counted. `--servers 2` divides the threads and
the clients among two server processes instead of one. The exit status is 1 if an answer was lost or
wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import os
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


def processor_seconds(pid: int) -> float:
    """Return the processor time of a process; NaN where there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return math.nan
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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

    def processor_seconds(self) -> float:
        """Return the processor time that it has used."""
        return processor_seconds(self._process.pid)

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
        processor: the processor time of the servers meanwhile, in seconds.
    """

    def __init__(self, servers: Sequence[Server], photos: Sequence[Photo]) -> None:
        self._servers, self._photos = servers, photos
        self._right = [{hashlib.sha256(photo.wanted).digest()} for photo in photos]
        self._lock = threading.Lock()
        self._next = 0
        self.latencies: list[float] = []
        self.seconds = self.processor = 0.0
        self.wrong = self.lost = self.refused = self.equal = 0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    def run(self, clients: int, seconds: float) -> None:
        """Ask for some seconds, and wait for the last answers."""
        start = time.perf_counter()
        self.processor -= sum(server.processor_seconds() for server in self._servers)
        asking = [
            threading.Thread(
                target=self._ask,
                args=(self._servers[number % len(self._servers)].url, start + seconds),
            )
            for number in range(clients)
        ]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        self.seconds += time.perf_counter() - start
        self.processor += sum(server.processor_seconds() for server in self._servers)

    def _ask(self, url: str, until: float) -> None:
        with httpx.Client(base_url=url, timeout=300) as client:
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
        self._files, self._seconds, self._processor = 0, 0.0, 0.0

    @property
    def rate(self) -> float:
        """Photos a second."""
        return self._files / self._seconds

    @property
    def processor(self) -> float:
        """Processor seconds a photo."""
        return self._processor / self._files

    def run(self) -> None:
        """Restore the folder once; count from the first finished file to the last."""
        times, processor = [], []
        with subprocess.Popen(self._line, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if Path(line.strip()).is_file():
                    times.append(time.perf_counter())
                    processor.append(processor_seconds(process.pid))
        if process.returncode or len(times) < 2:
            raise SystemExit("vrdir restore failed; PHOTOS must have two images or more")
        self._files += len(times) - 1
        self._seconds += times[-1] - times[0]
        self._processor += processor[-1] - processor[0]


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
    p50, p95, p99 = np.percentile(seconds, [50, 95, 99])
    return f"| {name} | {p50:.3f} | {p95:.3f} | {p99:.3f} |"


def report(
    command: Command, alone: Load, load: Load, bare: Sequence[float], memory: Sequence[float]
) -> None:
    """Print the tables."""
    processor = load.processor / len(load.latencies)
    print("| | `vrdir restore` | `vrdir serve` | ratio |")
    print("|---|---|---|---|")
    ratio = load.rate / command.rate
    print(f"| photos a second | {command.rate:.2f} | {load.rate:.2f} | {ratio:.2f} |")
    ratio = processor / command.processor
    print(f"| processor s a photo | {command.processor:.3f} | {processor:.3f} | {ratio:.2f} |\n")
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
    parser.add_argument("--servers", type=int, default=1)
    parser.add_argument("--weights", default="small")
    options = parser.parse_args()
    weights = ["--weights", options.weights]
    rounds = max(2, round(60 * options.minutes / ROUND))
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder)
        command = Command(options.photos, target, ["--threads", str(options.threads), *weights])
        command.run()
        photos = photos_of(options.photos, target)
        bare = bare_latencies(photos, options.weights, options.threads)
        share = max(1, options.threads // options.servers)
        servers = [Server("--threads", str(share), *weights) for _ in range(options.servers)]
        try:
            warm, alone, load = (Load(servers, photos) for _ in range(3))
            warm.run(options.clients, min(20, 15 * options.minutes))
            alone.run(1, min(30, 15 * options.minutes))
            memory = []
            for _ in range(rounds):
                command.run()
                load.run(options.clients, 60 * options.minutes / rounds)
                memory.append(sum(server.memory() for server in servers))
        finally:
            for server in servers:
                server.stop()
    report(command, alone, load, bare, memory)
    raise SystemExit(1 if load.lost or load.wrong else 0)


def photos_of(source: Path, target: Path) -> list[Photo]:
    """Return the photos of a folder, with the files that `vrdir restore` made of them."""
    return [
        Photo(path.name, (source / path.relative_to(target)).read_bytes(), path.read_bytes())
        for path in sorted(target.rglob("*.*"))
    ]


if __name__ == "__main__":
    main()
