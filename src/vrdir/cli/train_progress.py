"""The progress of a training run on the terminal."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from vrdir.cli.console import err, escape, out

FIRST = os.environ.get("RANK", "0") == "0"  # of the processes of torchrun, only this one prints


class RunProgress:
    """Shows a run: a progress bar on a terminal, and lines of metrics with the time left.

    Args:
        stages: the names of all stages of the run, in order.
        lines: whether to print the lines of metrics.
    """

    def __init__(self, stages: Sequence[str], lines: bool = True) -> None:
        self.lines = lines
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}  {task.fields[rate]}  left"),
            TimeRemainingColumn(),
        )
        self.progress = Progress(*columns, console=err, disable=not (err.is_terminal and FIRST))
        self.stages = stages
        self.tasks: dict[str, Any] = {}
        # By stage: its first step in this run, and the time of that step.
        self.begun: dict[str, tuple[int, float]] = {}
        self.explained = False

    def __enter__(self) -> RunProgress:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def step(self, stage: str, step: int, steps: int, batch_size: int) -> None:
        """Advance the progress bar."""
        if stage not in self.tasks:
            place = (
                f" ({self.stages.index(stage) + 1} of {len(self.stages)})"
                if len(self.stages) > 1
                else ""
            )
            self.tasks[stage] = self.progress.add_task(
                stage + place, total=steps, completed=step - 1, rate=""
            )
            self.begun[stage] = step, time.monotonic()
        speed = self.progress.tasks[self.tasks[stage]].speed
        rate = f"{speed * batch_size:.0f} patches/s" if speed else ""
        self.progress.update(self.tasks[stage], completed=step, rate=rate)

    def metrics(self, line: Mapping[str, Any]) -> None:
        """Print a line of metrics."""
        if not self.lines:
            return
        figures = "  ".join(
            f"{name} {value:.4g}"
            for name, value in line.items()
            if name not in ("stage", "step", "steps")
        )
        done = f"{line['stage']:<14} {line['step']:>6}/{line['steps']}"
        out.print(escape(f"{done}  {figures}{self._left(line)}"))
        if not self.explained and line.get("loss_pixel", 0) < 0:
            self.explained = True
            out.print(
                "loss_pixel is below 0 as it should be: pixel_loss balanced_l1 is a mean of "
                "logarithms; lower is better"
            )

    def _left(self, line: Mapping[str, Any]) -> str:
        """Return the time left of a stage, with validations; "" if unknown, or at the end."""
        first, start = self.begun.get(line["stage"], (line["step"], 0.0))
        done, left = line["step"] - first, line["steps"] - line["step"]
        return (
            f"  left {timedelta(seconds=round((time.monotonic() - start) * left / done))}"
            if done > 0 and left > 0
            else ""
        )
