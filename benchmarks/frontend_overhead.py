"""The cost of `restore_before` in addition to the network, and what `skip_clean` saves.

    python benchmarks/frontend_overhead.py [--threads 2] [--repeats 10] [--batch 32] [--side 256]

Everything is measured in turns in one run, so that other load on the machine affects all alike.
The overhead is the time of the whole minus that of the network and of the recogniser alone.
Beside it is the time of the front-end with a network that does nothing, which varies less.
`skip_clean` is measured with a threshold that every image reaches, and with one that none reaches.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import skimage.data
import torch
from rich.console import Console
from torch import Tensor, nn

import vrdir
from vrdir.model.control import ALL, Control
from vrdir.model.global_statistics import GlobalStatistics
from vrdir.model.vrdir import VRDIR, Restoration
from vrdir.restoring.strips import CPU_PIXELS

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class IdleNetwork(VRDIR):
    """A network that returns its input and takes no time."""

    def restore(
        self,
        image: Tensor,
        skip_clean: bool | float = False,
        statistics: GlobalStatistics | None = None,
        control: Control = ALL,
    ) -> Restoration:
        """Return the image."""
        return Restoration(image.view_as(image), [], image.new_ones(len(image), 1))


def crops(count: int, side: int) -> Tensor:
    """Return random crops (count, 3, side, side) of a photo that the network calls partly clean."""
    photo = torch.from_numpy(skimage.data.astronaut()).movedim(-1, 0) / 255
    photo = photo.tile(2, 2) if side > 512 else photo
    highest = max(1, min(photo.shape[1:]) - side + 1)
    corners = torch.randint(highest, (count, 2)).tolist()
    return torch.stack([photo[:, top : top + side, left : left + side] for top, left in corners])


def prepare(image: Tensor) -> dict[str, Callable[[], Any]]:
    """Return what is measured, by name."""
    values = (image - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    recogniser = nn.Sequential(
        nn.Conv2d(3, 32, 7, stride=4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 1000),
    ).eval()
    whole = vrdir.restore_before(recogniser, mean=MEAN, std=STD)
    network: VRDIR = whole.front_end.restorer
    idle = vrdir.restore_before(recogniser, IdleNetwork(network.config), mean=MEAN, std=STD)
    prepared = image.contiguous(memory_format=torch.channels_last)
    # As the front-end splits a batch on a CPU
    parts = prepared.split(max(1, CPU_PIXELS // image.shape[-1] ** 2))
    return {
        "whole": lambda: whole(values),
        "network": lambda: torch.cat([network(part) for part in parts]),
        "network, whole batch at once": lambda: network(prepared),
        "recogniser": lambda: recogniser(values),
        "idle": lambda: idle.front_end(values),
        "all skipped": lambda: [network.restore(part, skip_clean=1e-9) for part in parts],
        "none skipped": lambda: [network.restore(part, skip_clean=1.0) for part in parts],
    }


def measure(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each call, measured in turns after one warm-up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    with torch.no_grad():
        for repeat in range(repeats + 1):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                if repeat:
                    times[name].append(time.perf_counter() - start)
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--side", type=int, default=256, help="pixels, at most 1024")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    times = measure(prepare(crops(arguments.batch, arguments.side)), arguments.repeats)
    median = {name: statistics.median(values) * 1e3 for name, values in times.items()}
    triples = zip(times["whole"], times["network"], times["recogniser"], strict=True)
    overhead = statistics.median(a - b - c for a, b, c in triples) * 1e3
    network = median["network"]
    console = Console()
    console.print(
        f"batch {arguments.batch} at {arguments.side} x {arguments.side}, "
        f"{arguments.threads} threads, torch {torch.__version__}"
    )
    console.print(", ".join(f"{name} {value:.1f} ms" for name, value in median.items()))
    console.print(
        f"front-end: whole - network - recogniser = {overhead:.1f} ms, "
        f"{overhead / network:.1%} of the network"
    )
    console.print(
        f"front-end: with an idle network {median['idle']:.1f} ms, "
        f"{median['idle'] / network:.1%} of the network"
    )
    console.print(
        f"skip_clean: {median['all skipped'] / network:.2f} of the network's time if all images "
        f"are clean, {median['none skipped'] / network:.2f} if none is"
    )


if __name__ == "__main__":
    main()
