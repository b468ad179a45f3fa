"""Images a second of our networks and of known ones, on the same inputs in the same run.

    pip install --no-deps spandrel spandrel_extra_arches einops    # in an environment of its own; other networks of theirs need more
    python benchmarks/speed.py [--threads 2] [--device cpu] [--sides 256 1024] [--batches 1 8] [--repeats 5]

Ours (`small`, also in bfloat16 and by each backend that is installed, `base`, the paper's) beside NAFNet of width 32 (the published one
for SIDD: 29.2 million parameters) and Restormer (26.1 million), with random weights where there are none here; speed does not depend
on them. One run of each in turn, so that a busy machine hits all alike. Printed are the median time of a batch, images a second, how
many times as long as by `small` in float32 it takes, and how far the others' pixels in [0, 1] are from its own. A network that would
take longer than `--patience` seconds for its batch, by its time for a smaller one and the pixels, is left out and said so.
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

from vrdir.export.backends import BACKEND_NAMES
from vrdir.model.blocks import placed
from vrdir.model.vrdir import BASE, PAPER, VRDIR
from vrdir.restoring.restorer import Restorer

Network = Callable[[Tensor], Any]


def ours(device: str) -> dict[str, Network]:
    networks: dict[str, Network] = {
        "small": Restorer("small", device),
        "small, bf16": Restorer("small", device, precision="bf16"),
    }
    packages = {"onnx": "onnxruntime", "openvino": "openvino"}
    for backend in BACKEND_NAMES:
        if device == "cpu" and backend in packages and importlib.util.find_spec(packages[backend]):
            networks[f"small by {backend}"] = Restorer("small", device, backend=backend)
    return networks | {
        "base": Restorer(VRDIR(BASE), device),
        "paper's": Restorer(VRDIR(PAPER), device),
    }


def peers(device: str) -> dict[str, Network]:
    """NAFNet and Restormer, where spandrel's packages are installed."""
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
        name: runner(placed(model.eval(), torch.device(device))) for name, model in models.items()
    }


def runner(model: nn.Module) -> Network:
    def run(image: Tensor) -> Tensor:
        with torch.inference_mode():
            result: Tensor = model(image.contiguous(memory_format=torch.channels_last))
        return result

    return run


def pretend_torchvision() -> None:
    """Spandrel imports two functions of torchvision for networks that are not measured here."""
    for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
        module: Any = ModuleType(name)
        module.InterpolationMode = module.rotate = module.normalize = None
        sys.modules[name] = module


def seconds(network: Network, image: Tensor) -> float:
    start = time.perf_counter()
    network(image)
    if image.is_cuda:
        torch.cuda.synchronize(image.device)
    return time.perf_counter() - start


def main() -> None:
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
        help="names of networks that begin so; small is among them in any case",
    )
    parser.add_argument("--patience", type=float, default=30.0, metavar="SECONDS")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    networks = {**ours(arguments.device), **peers(arguments.device)}
    if arguments.only:
        networks = {
            name: network
            for name, network in networks.items()
            if name == "small" or name.startswith(tuple(arguments.only))
        }
    console = Console(width=130)
    table = Table(
        "input",
        "network",
        "median s a batch",
        "images/s",
        "time over small's",
        "largest difference",
    )
    per_pixel: dict[str, float] = {}
    for side in arguments.sides:
        for batch in arguments.batches:
            image = torch.rand(batch, 3, side, side, device=arguments.device)
            times: dict[str, list[float]] = {}
            for name, network in networks.items():
                foreseen = per_pixel.get(name, 0) * batch * side * side
                if foreseen <= arguments.patience:
                    seconds(network, image)  # warms up
                    times[name] = []
            for _ in range(arguments.repeats):
                for name, found in times.items():
                    found.append(seconds(networks[name], image))
            medians = {name: statistics.median(found) for name, found in times.items()}
            expected = networks["small"](image)
            for name, network in networks.items():
                if name in medians:
                    per_pixel[name] = medians[name] / (batch * side * side)
                    same = name.startswith("small")
                    row = [
                        f"{medians[name]:.3f}",
                        f"{batch / medians[name]:.2f}",
                        f"{medians[name] / medians['small']:.2f}",
                    ]
                    row.append(
                        f"{float((network(image) - expected).abs().max()):.0e}" if same else ""
                    )
                else:
                    row = [f"not run: more than {arguments.patience:.0f} s"]
                table.add_row(f"{batch} x {side}^2", name, *row)
            table.add_section()
    console.print(table)
    console.print(
        f"{arguments.device}, {arguments.threads} threads, float32, torch {torch.__version__}"
    )


if __name__ == "__main__":
    main()
