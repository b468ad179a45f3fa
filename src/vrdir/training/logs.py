"""The logs of a run: metrics.jsonl, TensorBoard, curves.png, pictures, and watchers."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from vrdir.atomic import write_whole
from vrdir.images.contact_sheet import draw_contact_sheet, save_picture

logger = logging.getLogger(__name__)

METRICS, CURVES = "metrics.jsonl", "curves.png"
DRAWN_UP_TO = 55.0  # dB; clean images start at 100 and would flatten all other curves


class Watcher(Protocol):
    """An observer of a run, such as a progress bar."""

    def step(self, stage: str, step: int, steps: int, batch_size: int) -> None:
        """Receive the number of a finished step."""

    def metrics(self, line: Mapping[str, Any]) -> None:
        """Receive a line of metrics.jsonl."""


class RunLog:
    """Writes the logs of a stage into the work directory of its run.

    Args:
        work_dir: the work directory.
        stage: the stage's name.
        steps: its length.
        start: the step after which it continues; lines of later steps, from before an interruption,
            are deleted.
        watcher: gets each line too.
    """

    def __init__(
        self, work_dir: Path, stage: str, steps: int, start: int = 0, watcher: Watcher | None = None
    ) -> None:
        self.work_dir, self.stage, self.steps, self.watcher = work_dir, stage, steps, watcher
        kept = [
            line
            for line in read_metrics(work_dir)
            if line["stage"] != stage or (start and line["step"] <= start)
        ]
        write_whole("".join(json.dumps(line) + "\n" for line in kept).encode(), work_dir / METRICS)
        try:
            from torch.utils.tensorboard import SummaryWriter

            self.board: Any = SummaryWriter(
                str(work_dir / "tensorboard" / stage), purge_step=start + 1 if start else 0
            )
        except ImportError:
            logger.info("no TensorBoard log: tensorboard is not installed")
            self.board = None
        except UnicodeEncodeError:
            logger.warning("no TensorBoard log: it needs a folder whose name is UTF-8")
            self.board = None

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Write a line of figures, with six digits."""
        line = {"stage": self.stage, "step": step, "steps": self.steps} | {
            name: float(f"{value:.6g}") for name, value in figures.items()
        }
        with (self.work_dir / METRICS).open("a") as file:
            file.write(json.dumps(line) + "\n")
        if self.board is not None:
            for name, value in figures.items():
                self.board.add_scalar(name, value, step)
            self.board.flush()
        if self.watcher is not None:
            self.watcher.metrics(line)

    def picture(self, step: int, rows: Sequence[Sequence[Tensor]]) -> None:
        """Write a picture with rows of clean, degraded and restored, and the curves so far."""
        sheet = draw_contact_sheet(rows, ("clean", "degraded", "restored"))
        save_picture(sheet, self.work_dir / "pictures" / self.stage / f"step-{step:08d}.png")
        draw_curves(self.work_dir)

    def close(self) -> None:
        """Close the TensorBoard log."""
        if self.board is not None:
            self.board.close()


def read_metrics(work_dir: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics, without a truncated line."""
    lines = []
    path = work_dir / METRICS
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            logger.warning("%s: a truncated line is ignored", path)
    return lines


def draw_curves(work_dir: Path) -> None:
    """Draw losses and validation PSNR of every stage so far, as `curves.png`, with matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        logger.info("no %s: matplotlib is not installed", CURVES)
        return
    lines = read_metrics(work_dir)
    stages = list(dict.fromkeys(line["stage"] for line in lines))
    figure = Figure(figsize=(4.2 * max(len(stages), 1), 6), layout="constrained")
    axes = figure.subplots(2, max(len(stages), 1), squeeze=False)
    for column, stage in enumerate(stages):
        for row, prefix in enumerate(("loss_", "psnr_")):
            plot = axes[row][column]
            of_stage = [line for line in lines if line["stage"] == stage]
            for name in sorted(
                {name for line in of_stage for name in line if name.startswith(prefix)}
            ):
                points = [
                    (line["step"], min(line[name], DRAWN_UP_TO))
                    for line in of_stage
                    if name in line
                ]
                plot.plot(
                    *zip(*points, strict=True),
                    label=name.removeprefix(prefix),
                    marker="." if len(points) < 30 else "",
                )
            plot.set(
                xlabel="step", ylabel=("loss", "validation PSNR, dB")[row] if column == 0 else ""
            )
            plot.set_title(stage if row == 0 else "")
            plot.grid(alpha=0.3)
            plot.xaxis.get_major_locator().set_params(integer=True)
            if plot.lines:
                plot.legend(fontsize="small")
    partial = work_dir / f".{CURVES}.partial"
    figure.savefig(partial, format="png", dpi=90)
    partial.replace(work_dir / CURVES)
