"""How long each backend takes for the same images, beside eager PyTorch, and how far its results are from it.

    python benchmarks/backends.py [--weights small] [--threads 2] [--repeats 10] [--sides 256 512 1024]

Prints the median time per image and its ratio to eager PyTorch's, interleaved so that a busy machine hits all alike, and the largest
difference of pixels and shares, on one image of noise. The backends' packages must be installed: pip install 'vrdir[export,openvino]'.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import get_args

import torch
from rich.console import Console
from rich.table import Table

from vrdir.inference.exported_model import Backend
from vrdir.inference.restorer import Restorer, network_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="small")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 512, 1024], metavar="PIXELS")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    network = network_of(arguments.weights)
    restorers = {backend: Restorer(network, "cpu", backend=backend) for backend in get_args(Backend)}
    table = Table("side, pixels", "backend", "median ms", "fastest ms", "time over torch's", "max error")
    for side in arguments.sides:
        image = torch.rand(1, 3, side, side)
        times: dict[str, list[float]] = {name: [] for name in restorers}
        for repeat in range(arguments.repeats + 2):
            for name, restorer in restorers.items():
                start = time.perf_counter()
                restorer(image)
                if repeat >= 2:  # the first two warm up
                    times[name].append(time.perf_counter() - start)
        results = {name: restorer.restore(image) for name, restorer in restorers.items()}
        expected = results["torch"]
        for name, values in times.items():
            median, found = statistics.median(values), results[name]
            shares = max(abs(found.shares[0][key] - share) for key, share in expected.shares[0].items())
            error = max(float((found.image - expected.image).abs().max()), shares)
            ratio = median / statistics.median(times["torch"])
            table.add_row(str(side), name, f"{median * 1e3:.0f}", f"{min(values) * 1e3:.0f}", f"{ratio:.2f}", f"{error:.1e}")
    console = Console()
    console.print(table)
    console.print(f"{arguments.weights}, {arguments.threads} threads, float32, torch {torch.__version__}")


if __name__ == "__main__":
    main()
