"""Calculate how many training steps fit into a number of minutes on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch

from vrdir.data.items import Item
from vrdir.model.vrdir import VRDIR
from vrdir.training.run import training_set
from vrdir.training.settings import Recipe
from vrdir.training.stage import Stage

PROBED = 10
"""The number of steps that are timed."""
SLOWER = 4
"""The number of first steps that do not count, because they allocate memory, for example."""
SHARE = 0.8
"""The share of the minutes for training; the rest is for the choice of a share and the proof."""
LEAST_STEPS = 10


def steps_in_minutes(
    minutes: float,
    stage: Stage,
    network: VRDIR,
    recipe: Recipe,
    items: Sequence[Item],
    device: torch.device,
) -> int:
    """Return how many steps of a stage fit into a number of minutes.

    A few steps are timed without an optimiser, so the network does not change.

    Args:
        minutes: the time for training and all that follows.
        stage: the stage of training.
        network: the network.
        recipe: the recipe of the stage.
        items: the training photos; the first few are used.
        device: where to compute.
    """
    size = stage.settings.batch_size
    photos = training_set(recipe, items[: size * PROBED], device)
    data = photos.stage(stage.name, stage.shares, stage.accepts)
    parameters = stage.trained(network)
    for parameter in parameters:
        parameter.requires_grad_(True)
    seconds = []
    batches = data.batches(size, range(1, PROBED + 1))
    for _ in range(PROBED):
        start = time.perf_counter()
        (batch,) = next(batches)
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            total = torch.stack(list(stage.losses(network, batch).values())).sum()
        torch.autograd.backward(total)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    for parameter in parameters:
        parameter.grad = None
        parameter.requires_grad_(False)
    usual = statistics.median(seconds[SLOWER:])
    return max(int(60 * minutes * SHARE / (1.1 * usual)), LEAST_STEPS)
