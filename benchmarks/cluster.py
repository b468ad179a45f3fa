"""Measure runs over addresses: efficiency against the bare network, overhead, and memory of lists.

    python benchmarks/cluster.py --listed 0    # 1 and 2 workers, here and on Ray: three minutes
    python benchmarks/cluster.py --images 0    # a list of 50 000 objects only

The images are in a real S3 server, a process of this machine (moto). The bare network is as many
processes as there are workers, which restore the same images from memory. It is measured before
and after each run, since machines change their speed. Efficiency is the rate of the run / the bare
rate. The rate of a run is that of the middle half of its images, by the times in their rows: the
start of Ray and of its workers is not in it, nor the end, when workers have nothing left to do. The
server's own time on the processors is printed: where all cores restore, it is missing to them. The
memory is the most that a worker on Ray has had, or this program in runs without it.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import re
import subprocess
import sys
import time
import tracemalloc
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from vrdir.cluster import file_systems, listing, storage
from vrdir.cluster.account import Account, Row
from vrdir.cluster.ray_settings import RaySettings
from vrdir.cluster.run import restore_addresses
from vrdir.cluster.work import Options, restore_content
from vrdir.restoring.restorer import Restorer

OPTIONS = Options({"weights": "small", "device": "cpu"})
# A server whose bucket "many" has its objects before it starts: putting them one by one would take
# longer than all else.
SERVER = """
import sys
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import main
port, count = sys.argv[1:]
backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
backend.create_bucket("many", "us-east-1")
for number in range(int(count)):
    backend.put_object("many", f"in/{number:08}.png", b"")
main(["-H", "127.0.0.1", "-p", port])
"""


@contextmanager
def server(port: int, listed: int) -> Iterator[int]:
    """Run an S3 server, point the environment to it, and yield its process number."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(port), str(listed)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    os.environ |= {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        for _ in range(3000):
            try:
                urllib.request.urlopen(f"{address}/moto-api/", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield process.pid
    finally:
        process.kill()
        process.wait()


def cpu_seconds(process: int) -> float:
    """Return the time that a process has had on the processors (Linux; else NaN)."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_megabytes(engine: str) -> float:
    """Return the most memory that this process, or a worker on Ray, has had (Linux; else NaN)."""
    peaks = [float("nan")]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            peak = re.search(r"VmHWM:\s*(\d+)", (process / "status").read_text())
        except OSError:  # it has ended
            continue
        own = process.name == str(os.getpid())
        if peak and (re.match(rb"ray::.*Worker", command) if engine == "ray" else own):
            peaks.append(int(peak[1]) / 1e3)
    return max(peaks[1:], default=peaks[0])


def photo(seed: int, side: int) -> bytes:
    """Encode a smooth random image of side x side pixels as JPEG."""
    generator = np.random.default_rng(seed)
    small = Image.fromarray(generator.integers(0, 255, (12, 12, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def bare_worker(contents: list[bytes], barrier: Any, seconds: Any) -> None:
    """Restore images from memory with one thread and put the time it took into a queue."""
    torch.set_num_threads(1)
    restorer = Restorer(**OPTIONS.restorer)
    restore_content(restorer, contents[0], "0.jpg", OPTIONS)
    barrier.wait()
    start = time.perf_counter()
    for content in contents:
        restore_content(restorer, content, "0.jpg", OPTIONS)
    seconds.put(time.perf_counter() - start)


def bare_rate(contents: list[bytes], workers: int) -> float:
    """Return the images a second of as many bare processes as there are workers."""
    context = multiprocessing.get_context("spawn")
    barrier, seconds = context.Barrier(workers), context.Queue()
    processes = [
        context.Process(target=bare_worker, args=(contents[place::workers], barrier, seconds))
        for place in range(workers)
    ]
    for process in processes:
        process.start()
    longest = max(seconds.get() for _ in processes)
    for process in processes:
        process.join()
    return len(contents) / longest


def run_rate(
    output: str, workers: int, engine: str, batch: int, images: int
) -> tuple[float, float]:
    """Return the images a second of a run, and the most memory of it or of a worker, in MB."""
    torch.set_num_threads(workers)
    rows = restore_addresses(
        ["s3://bench/in"],
        output,
        OPTIONS,
        engine="ray" if engine == "ray" else "local",
        ray=RaySettings(address=None, workers=(workers, workers), batch=batch),
    )
    times, memory = [], 0.0
    for row in rows:
        if row.error:
            raise SystemExit(row.error)
        times.append(row.time)
        if len(times) == images:  # the workers have not ended yet
            memory = peak_megabytes(engine)
    times.sort()
    first, last = images // 4, images - images // 4 - 1
    return (last - first) / (times[last] - times[first]), memory


def measure_runs(
    contents: list[bytes], workers: int, engines: list[str], batch: int, server_process: int
) -> None:
    """Print a line on each engine, with the bare network before and after it."""
    before = bare_rate(contents, workers)
    for engine in engines:
        own = cpu_seconds(server_process)
        output = f"s3://bench/{engine}{workers}"
        rate, memory = run_rate(output, workers, engine, batch, len(contents))
        own = (cpu_seconds(server_process) - own) / len(contents)
        after = bare_rate(contents, workers)
        bare = (before + after) / 2
        overhead = 1000 * workers * (1 / rate - 1 / bare)
        print(
            f"{engine}, {workers} workers: {rate:.2f} images a second, bare {before:.2f} and "
            f"{after:.2f}, efficiency {rate / bare:.2f}, {overhead:+.0f} ms of a worker an image, "
            f"{memory:.0f} MB each; the S3 server took {1000 * own:.0f} ms an image",
            flush=True,
        )
        before = after


def measure_account() -> None:
    """Print how large a row of the account is, in parts of some sizes."""
    generator = np.random.default_rng(0)
    for length in (16, 256):
        names = [f"camera-{number % 7}/2026-11-29/{number:08}.jpg" for number in range(length)]
        rows = [
            Row._make(
                [
                    f"s3://bucket/in/{name}",
                    f"s3://bucket/out/{name}",
                    *generator.integers(50_000, 500_000, 2).tolist(),
                    generator.bytes(32).hex(),
                    generator.bytes(32).hex(),
                    "restored",
                    "",
                    *generator.random(6).tolist(),
                    int(generator.integers(2**62)),
                ]
            )
            for name in names
        ]
        address = f"memory://account{length}"
        Account(address).write_part(rows, "1")
        size = len(storage.read(f"{address}/.vrdir-account/part-1.parquet"))
        print(f"account in parts of {length}: {size / length / 1e3:.2f} kB a row")


def measure_list(count: int) -> None:
    """Print the time and memory of a list of `count` objects."""
    start = time.perf_counter()
    found = sum(1 for _ in listing.sources(["s3://many/in"]))
    seconds = time.perf_counter() - start
    tracemalloc.start()
    early = 0
    for number, _ in enumerate(listing.sources(["s3://many/in"])):
        if number == count // 10:
            early = tracemalloc.get_traced_memory()[1]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(
        f"list of {found}: {found / seconds:.0f} a second, peak {early / 1e6:.2f} MB after a "
        f"tenth, {peak / 1e6:.2f} MB after all"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--images", type=int, default=40, help="0: only the list")
    parser.add_argument("--size", type=int, default=512, help="side in pixels")
    parser.add_argument("--workers", type=int, action="append", help="1 and 2 by default")
    parser.add_argument("--engine", choices=("local", "ray"), action="append")
    parser.add_argument("--batch", type=int, default=8, help="images of a batch on Ray")
    parser.add_argument("--listed", type=int, default=50_000, help="objects in the list, 0: none")
    parser.add_argument("--port", type=int, default=5591)
    given = parser.parse_args()
    measure_account()
    with server(given.port, given.listed) as process:
        file_systems.open_storage("s3://x")[0].mkdir("bench")
        contents = [photo(seed, given.size) for seed in range(given.images)]
        for seed, content in enumerate(contents):
            storage.write(f"s3://bench/in/{seed:05}.jpg", content)
        if given.listed:
            measure_list(given.listed)
        for workers in (given.workers or (1, 2)) if contents else ():
            measure_runs(contents, workers, given.engine or ["local", "ray"], given.batch, process)


if __name__ == "__main__":
    main()
