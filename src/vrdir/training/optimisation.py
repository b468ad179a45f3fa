"""Learning rates, optimisers and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn
from torch.optim import Adam, Optimizer

from vrdir.training.recipe_parts import StageSettings


def learning_rate(settings: StageSettings, step: int, steps: int) -> float:
    """Return the learning rate at a step, counted from 1, of `steps`."""
    if settings.schedule == "halving":
        return settings.learning_rate * 0.5 ** (4 * (step - 1) // steps)
    if step <= settings.warmup_steps:
        return settings.learning_rate * step / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.learning_rate
    progress = (step - 1 - settings.warmup_steps) / max(steps - settings.warmup_steps, 1)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def optimizer_for(parameters: Sequence[nn.Parameter], name: str, learning_rate: float) -> Optimizer:
    """Return Adam, or Muon for the weights of convolutions with Adam for the others."""
    if name == "adam":
        return Adam(parameters, lr=learning_rate)
    from pytorch_optimizer import Muon  # its import is slow

    # A thin matrix has too few directions to orthogonalise.
    matrices = [p for p in parameters if p.ndim == 4 and min(len(p), p[0].numel()) > 3]
    theirs = set(map(id, matrices))
    others = [p for p in parameters if id(p) not in theirs]
    groups = [
        {"params": matrices, "use_muon": True, "use_adjusted_lr": True},
        {"params": others, "use_muon": False, "betas": (0.9, 0.99), "eps": 1e-8},
    ]
    return cast(
        Optimizer, Muon([{"lr": learning_rate, **group} for group in groups if group["params"]])
    )


def moving_average(decay: float) -> Any:
    """Return an exponential moving average for `AveragedModel`, of at most this decay.

    The decay begins low, so that the first weights are soon forgotten.
    """

    def update(averages: Any, currents: Any, count: Any) -> None:
        now = min(decay, (1 + float(count)) / (10 + float(count)))
        torch._foreach_lerp_(averages, currents, 1 - now)

    return update
