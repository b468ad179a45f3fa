"""Load a running `vrdir serve`, and compare its speed, pixels and memory with the bare network.

    vrdir serve --port 8000 &
    python benchmarks/serving.py photos/*.jpg --url http://127.0.0.1:8000 --seconds 600

Prints a table: requests a second, p50, p95 and p99 of the latency, the share of the bare network's
throughput, wrong and lost answers, and how much the server's memory grew.
"""

from __future__ import annotations

import argparse
import io
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import torch
from PIL import Image

from vrdir import Restorer


def bare_speed(photos: list[bytes], restorer: Restorer, seconds: float) -> float:
    """Return photos a second without a server: one thread for each core, as `vrdir restore`."""
    threads = torch.get_num_threads()
    until = time.perf_counter() + seconds
    done = 0
    start = time.perf_counter()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    with pool:
        while time.perf_counter() < until:
            done += len(list(pool.map(restorer, photos)))
    return done / (time.perf_counter() - start)


def memory(client: httpx.Client) -> float:
    """Return the server's resident memory in MiB."""
    for line in client.get("/metrics").text.splitlines():
        if line.startswith("process_resident_memory_bytes"):
            return float(line.split(" ")[1]) / 2**20
    return float("nan")


class Load:
    """Clients that ask again and again, each with its own connection.

    Args:
        url: of the service.
        photos: encoded images.
        wanted: their restored pixels.
        clients: how many ask at once.
    """

    def __init__(
        self, url: str, photos: list[bytes], wanted: list[np.ndarray], clients: int
    ) -> None:
        self.url, self.photos, self.wanted, self.clients = url, photos, wanted, clients
        self.latencies: list[float] = []
        self.wrong = self.lost = self.refused = 0
        self._lock = threading.Lock()

    def run(self, seconds: float) -> float:
        """Ask for some seconds; return answers a second."""
        start = time.perf_counter()
        threads = [
            threading.Thread(target=self._ask, args=(number, start + seconds))
            for number in range(self.clients)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(self.latencies) / (time.perf_counter() - start)

    def _ask(self, number: int, until: float) -> None:
        with httpx.Client(base_url=self.url, timeout=300) as client:
            while time.perf_counter() < until:
                number += 1
                place = number % len(self.photos)
                start = time.perf_counter()
                try:
                    answer = client.post("/v1/restore", content=self.photos[place])
                except httpx.HTTPError:
                    self._count("lost")
                    continue
                if answer.status_code == 503:
                    self._count("refused")
                    time.sleep(float(answer.headers["retry-after"]))
                    continue
                seconds = time.perf_counter() - start
                got = np.asarray(Image.open(io.BytesIO(answer.content))).astype(int)
                if answer.status_code != 200 or abs(got - self.wanted[place]).max() > 1:
                    self._count("wrong")
                with self._lock:
                    self.latencies.append(seconds)

    def _count(self, name: str) -> None:
        with self._lock:
            setattr(self, name, getattr(self, name) + 1)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--weights", default="small")
    options = parser.parse_args()
    photos = []
    for path in options.photos:  # as PNG, so that an answer's pixels can be compared
        buffer = io.BytesIO()
        Image.open(path).convert("RGB").save(buffer, "PNG")
        photos.append(buffer.getvalue())
    restorer = Restorer(options.weights)
    wanted = [np.asarray(Image.open(io.BytesIO(restorer(one)))).astype(int) for one in photos]
    with httpx.Client(base_url=options.url) as client:
        warm = Load(options.url, photos, wanted, options.clients)
        warm.run(min(10, options.seconds / 4))
        before = memory(client)
        load = Load(options.url, photos, wanted, options.clients)
        rate = load.run(options.seconds)
        after = memory(client)
    bare = bare_speed(photos, restorer, min(60, options.seconds / 4))
    cuts = statistics.quantiles(load.latencies, n=100)
    print("| requests a second | bare | share | p50 s | p95 s | p99 s | wrong | lost | refused |")
    print("|---|---|---|---|---|---|---|---|---|")
    print(
        f"| {rate:.2f} | {bare:.2f} | {rate / bare:.2f} | {cuts[49]:.2f} | {cuts[94]:.2f} "
        f"| {cuts[98]:.2f} | {load.wrong} | {load.lost} | {load.refused} |"
    )
    print(f"memory: {before:.0f} MiB, then {after:.0f} MiB ({after / before - 1:+.1%})")


if __name__ == "__main__":
    main()
