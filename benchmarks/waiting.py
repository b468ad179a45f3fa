"""Measure what waiting threads cost: processor seconds a photo, alone or with other programs.

    python benchmarks/waiting.py [--threads 2] [--others 2] [--photos 20] [--side 256]

Each line is a separate process, which restores the same photo repeatedly (weights `small`,
PyTorch); the first time is not measured. "Others" are programs that compute without end. With two
threads or more, OpenMP's waiting threads spin (its default), or sleep (OMP_WAIT_POLICY=PASSIVE,
which the command line sets).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from rich.console import Console
from rich.table import Table

PHOTO = """
import sys, time, numpy, torch, vrdir
threads, photos, side = map(int, sys.argv[1:])
torch.set_num_threads(threads)
restorer = vrdir.Restorer("small", "cpu")
photo = numpy.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=numpy.uint8)
restorer(photo)
wall, processor = time.perf_counter(), time.process_time()
for _ in range(photos):
    restorer(photo)
print((time.perf_counter() - wall) / photos, (time.process_time() - processor) / photos)
"""


def seconds(policy: str | None, threads: int, photos: int, side: int) -> tuple[float, float]:
    """Return the seconds and the processor seconds a photo."""
    others = {
        name: value
        for name, value in os.environ.items()
        if name not in ("OMP_WAIT_POLICY", "OMP_NUM_THREADS")
    }
    environment = (
        others if policy is None else {**others, "OMP_WAIT_POLICY": policy, "KMP_BLOCKTIME": "0"}
    )
    command = [sys.executable, "-c", PHOTO, str(threads), str(photos), str(side)]
    wall, processor = subprocess.run(
        command, check=True, env=environment, capture_output=True, text=True
    ).stdout.split()
    return float(wall), float(processor)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--others",
        type=int,
        default=os.cpu_count() or 1,
        help="other programs, in the second half of the table",
    )
    parser.add_argument("--photos", type=int, default=20)
    parser.add_argument("--side", type=int, default=256, metavar="PIXELS")
    arguments = parser.parse_args()
    table = Table(
        "other programs",
        "threads",
        "waiting threads",
        "seconds a photo",
        "processor seconds a photo",
    )
    for count in (0, arguments.others):
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
        try:
            for threads, policy in (
                (1, "PASSIVE"),
                (arguments.threads, None),
                (arguments.threads, "PASSIVE"),
            ):
                wall, processor = seconds(policy, threads, arguments.photos, arguments.side)
                waiting = "-" if threads == 1 else "sleep" if policy else "spin"
                table.add_row(
                    str(count or "none"),
                    str(threads),
                    waiting,
                    f"{wall:.3f}",
                    f"{processor:.3f}",
                )
        finally:
            for process in busy:
                process.kill()
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
