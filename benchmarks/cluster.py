"""Measure runs over addresses: efficiency against the bare network, overhead, and memory of lists.

    python benchmarks/cluster.py --images 64 --size 256 --workers 1 --workers 2

The images lie in a real S3 server, a process of this machine (moto), which takes part of its time.
Ratios are of one run; seconds depend on the machine.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import time
import tracemalloc
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image

from vrdir.cluster import listing, storage
from vrdir.cluster.ray_settings import RaySettings
from vrdir.cluster.run import restore_addresses
from vrdir.cluster.work import Options, restore_content
from vrdir.restoring.restorer import Restorer


@contextmanager
def server(port: int) -> Iterator[None]:
    """Run an S3 server and point the environment to it."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    os.environ |= {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{address}/moto-api/", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield
    finally:
        process.kill()


def photo(seed: int, side: int) -> bytes:
    """Encode a smooth random image of side x side pixels as JPEG."""
    generator = np.random.default_rng(seed)
    small = Image.fromarray(generator.integers(0, 255, (12, 12, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def bare_seconds(contents: list[bytes], options: Options) -> float:
    """Return the seconds that the images take one after the other, with one thread, from memory."""
    torch.set_num_threads(1)
    restorer = Restorer(**options.restorer)
    restore_content(restorer, contents[0], "0.jpg", options)
    start = time.perf_counter()
    for content in contents:
        restore_content(restorer, content, "0.jpg", options)
    return time.perf_counter() - start


def run_seconds(output: str, options: Options, workers: int, engine: str) -> float:
    """Return the seconds of a run from its first finished image to its last, scaled to all images.

    The start of Ray and of the workers, a fixed time, is not in it.
    """
    torch.set_num_threads(workers)
    rows = restore_addresses(
        ["s3://bench/in"],
        output,
        options,
        engine="ray" if engine == "ray" else "local",
        ray=RaySettings(address=None, workers=(workers, workers), batch=4),
    )
    times = [time.perf_counter() for _ in rows]
    return (times[-1] - times[0]) * len(times) / max(1, len(times) - 1)


def list_memory(count: int) -> tuple[int, int]:
    """Return the peak of traced bytes after a tenth of a list of `count` objects, and after all."""
    for number in range(count):
        storage.write(f"s3://bench/many/{number:08}.png", b"")
    list(zip(range(10), listing.sources(["s3://bench/many"]), strict=False))
    tracemalloc.start()
    early = 0
    for number, _ in enumerate(listing.sources(["s3://bench/many"])):
        if number == count // 10:
            early = tracemalloc.get_traced_memory()[1]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return early, peak


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--size", type=int, default=256, help="side in pixels")
    parser.add_argument("--workers", type=int, action="append", help="1 and 2 by default")
    parser.add_argument("--engine", choices=("local", "ray"), action="append")
    parser.add_argument("--listed", type=int, default=10_000, help="objects in the list")
    parser.add_argument("--port", type=int, default=5591)
    given = parser.parse_args()
    options = Options({"weights": "small", "device": "cpu"})
    with server(given.port):
        storage.open_storage("s3://x")[0].mkdir("bench")
        contents = [photo(seed, given.size) for seed in range(given.images)]
        for seed, content in enumerate(contents):
            storage.write(f"s3://bench/in/{seed:05}.jpg", content)
        bare = bare_seconds(contents, options)
        print(f"bare network, one thread: {given.images / bare:.2f} images a second")
        for engine in given.engine or ("local", "ray"):
            for workers in given.workers or (1, 2):
                seconds = run_seconds(f"s3://bench/{engine}{workers}", options, workers, engine)
                efficiency = bare / workers / seconds
                overhead = 1000 * (seconds * workers - bare) / given.images
                print(
                    f"{engine}, {workers} workers: {given.images / seconds:.2f} images a second, "
                    f"efficiency {efficiency:.2f}, {overhead:+.0f} ms an image"
                )
        if given.listed:
            early, peak = list_memory(given.listed)
            print(
                f"list of {given.listed}: peak {early / 1e6:.1f} MB after a tenth, "
                f"{peak / 1e6:.1f} MB after all"
            )


if __name__ == "__main__":
    main()
