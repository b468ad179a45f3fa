"""What `restore_before` costs beside the network itself, and what `skip_clean` saves, on one machine in one run.

    python benchmarks/frontend_overhead.py [--threads 2] [--repeats 10] [--batch 32] [--side 256]

The overhead is the time of the whole less that of the network and of the recogniser, each timed alone, in turns, so that a busy
machine hits all alike; beside it the front-end with a network that does nothing, which is the steadier figure.
`skip_clean` is timed with a threshold that every image passes, and with one that none does.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import skimage.data
import torch
from rich.console import Console
from torch import Tensor, nn

import vrdir
from vrdir.model.global_statistics import GlobalStatistics
from vrdir.model.vrdir import VRDIR, Restoration
from vrdir.restoring.bands import CPU_PIXELS

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Idle(VRDIR):
    """A network that takes no time."""

    def restore(
        self,
        image: Tensor,
        skip_clean: bool | float = False,
        statistics: GlobalStatistics | None = None,
    ) -> Restoration:
        return Restoration(image.view_as(image), [], image.new_ones(len(image), 1))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--side", type=int, default=256, help="pixels, 1024 at most")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    photo = (
        torch.from_numpy(skimage.data.astronaut()).movedim(-1, 0) / 255
    )  # which the network calls clean, in part
    repeated = photo.tile(2, 2) if arguments.side > 512 else photo
    corners = torch.randint(
        max(1, min(repeated.shape[1:]) - arguments.side + 1), (arguments.batch, 2)
    ).tolist()
    image = torch.stack(
        [
            repeated[:, top : top + arguments.side, left : left + arguments.side]
            for top, left in corners
        ]
    )
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
    at_once = max(1, CPU_PIXELS // arguments.side**2)  # as the front-end splits a batch on a CPU
    prepared = image.contiguous(memory_format=torch.channels_last)
    idle = vrdir.restore_before(recogniser, Idle(network.config), mean=MEAN, std=STD)
    calls: dict[str, Callable[[], Any]] = {
        "whole": lambda: whole(values),
        "network": lambda: torch.cat([network(piece) for piece in prepared.split(at_once)]),
        "network, whole batch at once": lambda: network(prepared),
        "recogniser": lambda: recogniser(values),
        "idle": lambda: idle.front_end(values),
        "all skipped": lambda: [
            network.restore(piece, skip_clean=1e-9) for piece in prepared.split(at_once)
        ],
        "none skipped": lambda: [
            network.restore(piece, skip_clean=1.0) for piece in prepared.split(at_once)
        ],
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    with torch.no_grad():
        for repeat in range(arguments.repeats + 1):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                if repeat:  # the first warms up
                    times[name].append(time.perf_counter() - start)

    median = {name: statistics.median(values) * 1e3 for name, values in times.items()}
    differences = [
        a - b - c
        for a, b, c in zip(times["whole"], times["network"], times["recogniser"], strict=True)
    ]
    left = statistics.median(differences) * 1e3
    console = Console()
    console.print(
        f"batch {arguments.batch} at {arguments.side} x {arguments.side}, {arguments.threads} threads, torch {torch.__version__}"
    )
    console.print(", ".join(f"{name} {value:.1f} ms" for name, value in median.items()))
    console.print(
        f"front-end: whole - network - recogniser = {left:.1f} ms, {left / median['network']:.1%} of the network"
    )
    console.print(
        f"front-end: with an idle network {median['idle']:.1f} ms, {median['idle'] / median['network']:.1%} of the network"
    )
    skipped, unskipped = (
        median[name] / median["network"] for name in ("all skipped", "none skipped")
    )
    console.print(
        f"skip_clean: {skipped:.2f} of the network's time if all images are clean, {unskipped:.2f} if none is"
    )


if __name__ == "__main__":
    main()
