"""How long `small` takes, beside the paper's network and beside a plain copy, on the same images in the same run.

    python benchmarks/restore_speed.py [--threads 2] [--repeats 10]

Prints the median time per image and the ratio to the paper's network, interleaved so that a busy machine hits both alike.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time

import torch
from rich.console import Console
from rich.table import Table

from vrdir.inference.restorer import Restorer
from vrdir.model.vrdir import PAPER, VRDIR


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 512, 1024], metavar="PIXELS")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    restorers = {"small": Restorer("small", "cpu"), "paper (random weights)": Restorer(VRDIR(PAPER), "cpu")}
    table = Table("side, pixels", "network", "median ms", "fastest ms", "images/s", "time over paper's")
    for side in arguments.sides:
        image = torch.rand(1, 3, side, side)
        times: dict[str, list[float]] = {name: [] for name in restorers}
        for repeat in range(arguments.repeats + 2):
            for name, restorer in restorers.items():
                start = time.perf_counter()
                restorer(image)
                if repeat >= 2:  # the first two warm up
                    times[name].append(time.perf_counter() - start)
        medians = {name: statistics.median(values) for name, values in times.items()}
        base = medians["paper (random weights)"]
        for name, values in times.items():
            median = medians[name]
            table.add_row(str(side), name, f"{median * 1e3:.0f}", f"{min(values) * 1e3:.0f}", f"{1 / median:.1f}", f"{median / base:.2f}")
    console = Console()
    console.print(table)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    console.print(f"{arguments.threads} threads, float32, torch {torch.__version__}; peak memory of the whole run {peak:.0f} MiB")


if __name__ == "__main__":
    main()
