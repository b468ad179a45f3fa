"""Compare the speed of our networks with that of known ones, on the same inputs in the same run.

    pip install --no-deps spandrel spandrel_extra_arches einops    # in a separate environment
    python benchmarks/speed.py [--threads 2] [--device cpu] [--sides 256 1024] [--batches 1 8]
        [--repeats 5]

Ours are `small` (also in bfloat16, and in each backend that is installed), `base` and the paper's
network. The others are NAFNet of width 32 (as published for SIDD: 29.2 million parameters) and
Restormer (26.1 million). Networks without weights here have random ones; speed does not depend on
them. The networks run in turn, so that other programs slow down all of them. Printed are the median
time of a batch, images a second, the time over that of `small` in float32, and the largest
difference of the other `small` networks to it, of pixels in [0, 1]. A network that would take
longer than `--patience` seconds for a batch, estimated from a smaller one, is not run.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from vrdir import Restorer
from vrdir.export import BACKENDS
from vrdir.model.blocks import move_to
from vrdir.model.config import BASE, PAPER
from vrdir.model.vrdir import VRDIR

Network = Callable[[Tensor], Any]


def ours(device: str) -> dict[str, Network]:
    """Return our networks by name."""
    networks: dict[str, Network] = {
        "small": Restorer("small", device),
        "small, bf16": Restorer("small", device, precision="bf16"),
    }
    for backend in BACKENDS.values():
        if device == "cpu" and importlib.util.find_spec(backend.package):
            networks[f"small by {backend.name}"] = Restorer("small", device, backend=backend.name)
    return networks | {
        "base": Restorer(VRDIR(BASE), device),
        "paper's": Restorer(VRDIR(PAPER), device),
    }


def peers(device: str) -> dict[str, Network]:
    """Return NAFNet and Restormer if spandrel's packages are installed."""
    if importlib.util.find_spec("spandrel_extra_arches") is None:
        return {}
    if importlib.util.find_spec("torchvision") is None:
        pretend_torchvision()
    from spandrel.architectures.NAFNet import NAFNet
    from spandrel_extra_arches.architectures.Restormer import Restormer

    models: dict[str, nn.Module] = {
        "NAFNet-width32": NAFNet(
            width=32, middle_blk_num=12, enc_blk_nums=[2, 2, 4, 8], dec_blk_nums=[2, 2, 2, 2]
        ),
        "Restormer": Restormer(),
    }
    return {
        name: runner(move_to(model.eval(), torch.device(device))) for name, model in models.items()
    }


def runner(model: nn.Module) -> Network:
    """Return a function that runs a model as fast as it can."""

    def run(image: Tensor) -> Tensor:
        with torch.inference_mode():
            result: Tensor = model(image.contiguous(memory_format=torch.channels_last))
        return result

    return run


def pretend_torchvision() -> None:
    """Provide the functions that spandrel imports for networks that are not measured here."""
    for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
        module: Any = ModuleType(name)
        module.InterpolationMode = module.rotate = module.normalize = None
        sys.modules[name] = module


def seconds(network: Network, image: Tensor) -> float:
    """Return the seconds of one run."""
    start = time.perf_counter()
    network(image)
    if image.is_cuda:
        torch.cuda.synchronize(image.device)
    return time.perf_counter() - start


def parsed() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 1024], metavar="PIXELS")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        help="only networks whose names begin with one of these, and small",
    )
    parser.add_argument("--patience", type=float, default=30.0, metavar="SECONDS")
    return parser.parse_args()


def medians(networks: dict[str, Network], image: Tensor, repeats: int) -> dict[str, float]:
    """Run the networks in turn and return the median seconds of each."""
    times: dict[str, list[float]] = {}
    for name, network in networks.items():
        seconds(network, image)  # warms up
        times[name] = []
    for _ in range(repeats):
        for name, found in times.items():
            found.append(seconds(networks[name], image))
    return {name: statistics.median(found) for name, found in times.items()}


def main() -> None:
    """Measure and print a table."""
    arguments = parsed()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    networks = {**ours(arguments.device), **peers(arguments.device)}
    if arguments.only:
        networks = {
            name: network
            for name, network in networks.items()
            if name == "small" or name.startswith(tuple(arguments.only))
        }
    columns = ("input", "network", "median s a batch", "images/s", "time over small's")
    table = Table(*columns, "largest difference")
    per_pixel: dict[str, float] = {}
    for side in arguments.sides:
        for batch in arguments.batches:
            image = torch.rand(batch, 3, side, side, device=arguments.device)
            fast = {
                name: network
                for name, network in networks.items()
                if per_pixel.get(name, 0) * batch * side * side <= arguments.patience
            }
            found = medians(fast, image, arguments.repeats)
            expected = networks["small"](image)
            for name, network in networks.items():
                row = [f"not run: more than {arguments.patience:.0f} s"]
                if name in found:
                    per_pixel[name] = found[name] / (batch * side * side)
                    row = [f"{found[name]:.3f}", f"{batch / found[name]:.2f}"]
                    row.append(f"{found[name] / found['small']:.2f}")
                    if name.startswith("small"):
                        row.append(f"{float((network(image) - expected).abs().max()):.0e}")
                table.add_row(f"{batch} x {side}^2", name, *row)
            table.add_section()
    console = Console(width=130)
    console.print(table)
    console.print(
        f"{arguments.device}, {arguments.threads} threads, float32, torch {torch.__version__}"
    )


if __name__ == "__main__":
    main()
