"""The trainer: it runs any stage, in one process or in many."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from vrdir.data.batches import Batch
from vrdir.data.training_set import StageData, TrainingSet
from vrdir.data.validation_set import ValidationSet
from vrdir.errors import SettingsError
from vrdir.evaluation.restoration.metrics import not_black, psnr_rgb, ssim_rgb
from vrdir.model.blocks import move_to
from vrdir.model.loading import check_state
from vrdir.model.vrdir import VRDIR
from vrdir.signals import handled
from vrdir.tensors import crop_to, pad_to_multiple
from vrdir.training.checkpoints import checkpoints_in, load_checkpoint, save_checkpoint
from vrdir.training.fields import steps_in
from vrdir.training.logs import RunLog, Watcher
from vrdir.training.optimisation import learning_rate, moving_average, optimizer_for
from vrdir.training.settings import Recipe
from vrdir.training.stage import Stage

logger = logging.getLogger(__name__)

# PSNR in dB above which a kind of image no longer counts for "best"; clean images reach 100.
ENOUGH = 50.0
PICTURED = 2  # images of each kind in the picture of a validation


class Interrupted(Exception):  # noqa: N818 - not an error
    """A signal stopped the run; its state is in a checkpoint."""

    def __init__(self, signal_number: int, checkpoint: Path) -> None:
        super().__init__(
            f"stopped by {signal.Signals(signal_number).name}; saved as {checkpoint}; continue "
            "with --resume"
        )
        self.signal_number = signal_number


class StageNetwork(nn.Module):
    """The network as a stage trains it: it returns the losses of a batch.

    Processes synchronise in its backward pass.
    """

    def __init__(self, model: VRDIR, stage: Stage) -> None:
        super().__init__()
        self.model, self.stage = model, stage

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of a batch, by name."""
        return self.stage.losses(self.model, batch)


class Trainer:
    """Runs stages on one model. The first process writes all results, into `work_dir`.

        checkpoints/<stage>/step-N.pt    the last few, to resume from
        weights/<stage>/                 the model at the end of the stage: config.json,
        model.safetensors weights/<stage>-best/            the model with the best mean validation
                                         PSNR; each kind of image counts up to 50 dB
        pictures/<stage>/step-N.png      clean | degraded | restored, at every validation
        metrics.jsonl, tensorboard/, curves.png

    Args:
        fabric: devices, processes and precision.
        model: the network; it is trained in place.
        recipe: all settings.
        data: the items to train on.
        validation: the items to validate on.
        work_dir: a folder.
        watcher: gets every step and every line of metrics.jsonl.
    """

    def __init__(
        self,
        fabric: Fabric,
        model: VRDIR,
        recipe: Recipe,
        data: TrainingSet,
        validation: ValidationSet,
        work_dir: Path,
        watcher: Watcher | None = None,
    ) -> None:
        self.fabric, self.recipe, self.data, self.validation, self.work_dir = (
            fabric,
            recipe,
            data,
            validation,
            work_dir,
        )
        self.model = move_to(model, fabric.device)
        self.watcher = watcher if fabric.is_global_zero else None

    def run(self, stage: Stage, resume: bool = False) -> None:
        """Train a stage to its end and save the model's weights.

        Args:
            stage: what trains.
            resume: continue from the stage's last checkpoint; a stage without one starts at its
                beginning.

        Raises:
            FloatingPointError: a loss or a gradient is not finite.
            Interrupted: SIGTERM or SIGINT was received; there is a checkpoint of the last step.
            WeightsError: a checkpoint is damaged or of another network.
            DataError: a batch cannot be divided among the processes.
        """
        stage.prepare(self.fabric.device)
        data = self.data.stage(
            stage.name, stage.shares, stage.accepts, stage.whole, stage.settings.fog_share
        )
        steps = steps_in(stage.settings.steps, data.epoch_length, stage.settings.batch_size)
        with stop_signals() as received, ExitStack() as closing:
            run = StageRun(self, stage, steps)
            start = run.resume() if resume else 0
            log = None
            if self.fabric.is_global_zero:
                log = RunLog(self.work_dir, stage.name, steps, start, self.watcher)
                closing.callback(log.close)
            if start == 0:  # errors of the first validation are raised now
                run.validate(0, log)
            self._steps(run, data, start, log, received)
            self.model.load_state_dict(run.averaged.state_dict())
            self.model.requires_grad_(False).eval()
            weights = self.work_dir / "weights" / stage.name
            if log is not None:
                self.model.save_pretrained(weights)
            self.fabric.barrier()
            if stop := self._agreed(received):
                raise Interrupted(stop, weights)

    def _steps(
        self, run: StageRun, data: StageData, start: int, log: RunLog | None, received: list[int]
    ) -> None:
        """Train from the step after `start` to the last one: log, validate and save on the way."""
        settings, recipe, steps = run.stage.settings, self.recipe, run.steps
        validate_every, save_every = (
            steps_in(duration, data.epoch_length, settings.batch_size)
            for duration in (recipe.validation.every, recipe.checkpoint_every)
        )
        batches = data.batches(
            settings.batch_size,
            range(start + 1, steps + 1),
            parts=settings.accumulate,
            rank=self.fabric.global_rank,
            processes=self.fabric.world_size,
            workers=recipe.data.workers,
        )
        # Logging, validating and saving do not count in the training rate.
        seconds, logged, clock = 0.0, start, time.perf_counter()
        for step, parts in enumerate(batches, start + 1):
            figures = run.step(step, parts)
            seconds += time.perf_counter() - clock
            if log is not None and log.watcher is not None:
                log.watcher.step(run.stage.name, step, steps, settings.batch_size)
            last = step == steps
            if log is not None and (step % recipe.log_every == 0 or last):
                rate = (step - logged) * settings.batch_size / seconds
                log.write(step, figures | {"patches_per_second": rate})
                seconds, logged = 0.0, step
            if step % validate_every == 0 or last:
                run.validate(step, log)
            stop = self._agreed(received)
            if step % save_every == 0 or last or stop:
                checkpoint = run.save(step)
            if stop:
                raise Interrupted(stop, checkpoint)
            clock = time.perf_counter()

    def _agreed(self, received: list[int]) -> int:
        """Return the signal that any process received, or 0, so that all stop at the same step."""
        number = received[0] if received else 0
        value = torch.tensor(float(number), device=self.fabric.device)
        return int(reduced(self.fabric, value, "max"))


class StageRun:
    """The state of a stage in training: optimiser, averages, checkpoints."""

    def __init__(self, trainer: Trainer, stage: Stage, steps: int) -> None:
        self.stage, self.steps, self.model, self.recipe = (
            stage,
            steps,
            trainer.model,
            trainer.recipe,
        )
        self.fabric, self.validation = trainer.fabric, trainer.validation
        self.work_dir, self.folder = trainer.work_dir, trainer.work_dir / "checkpoints" / stage.name
        self.model.requires_grad_(False)
        self.parameters = stage.trained(self.model)
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        optimizer = optimizer_for(
            self.parameters, self.recipe.optimizer, stage.settings.learning_rate
        )
        decay = self.recipe.ema_decay
        self.average = (
            AveragedModel(self.model, multi_avg_fn=moving_average(decay))
            if decay is not None
            else None
        )
        network: Any = StageNetwork(self.model, stage)
        if self.recipe.compile is not None:
            network = torch.compile(network, backend=self.recipe.compile)
        self.network: Any = self.fabric.setup_module(network, move_to_device=False)
        self.optimizer: Any = self.fabric.setup_optimizers(optimizer)
        self.best = -math.inf

    @property
    def averaged(self) -> VRDIR:
        """The network that is validated and saved: the moving average, if there is one."""
        return cast(VRDIR, self.average.module) if self.average is not None else self.model

    def step(self, step: int, parts: Sequence[Batch]) -> dict[str, float]:
        """Take one step of the optimiser.

        Returns:
            The losses (means over all processes), the norm of the gradient and the learning rate.
        """
        self.model.train()
        settings, weights = self.stage.settings, self.stage.weights
        rate = learning_rate(settings, step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for number, batch in enumerate(parts, 1):
            with self.fabric.no_backward_sync(self.network, enabled=number < len(parts)):
                losses = self.network(batch)
                self.fabric.backward(
                    torch.stack(
                        [weights.get(name, 1.0) * loss for name, loss in losses.items()]
                    ).sum()
                    / len(parts)
                )
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0) + loss.detach() / len(parts)
        limit = settings.clip_norm if settings.clip_norm is not None else math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, limit)
        means = reduced(self.fabric, torch.stack([*sums.values(), norm]), "mean")
        figures = dict(
            zip([*(f"loss_{name}" for name in sums), "gradient_norm"], means.tolist(), strict=True)
        )
        if not all(map(math.isfinite, figures.values())):
            raise FloatingPointError(
                not_finite(
                    self.stage.name,
                    step,
                    figures,
                    [name for batch in parts for name in batch.names],
                )
            )
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        return figures | {"learning_rate": rate}

    @torch.no_grad()
    def validate(self, step: int, log: RunLog | None) -> None:
        """Measure PSNR, SSIM and pixels not driven into black, on fixed images of each kind.

        All are measured in RGB, in float32. The first process does it, the others wait.
        """
        if log is not None:
            model = self.averaged.eval()
            psnr: dict[str, list[float]] = {}
            others: dict[str, list[float]] = {}
            rows = []
            for kind, degraded, clean in self.validation.pairs(
                self.stage.shares, self.stage.accepts
            ):
                padded = pad_to_multiple(degraded, model.config.multiple).to(self.fabric.device)
                with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                    restored = crop_to(
                        self.stage.restored(model, padded).float().cpu(), clean.shape[-2:]
                    )
                psnr.setdefault(kind, []).extend(psnr_rgb(restored, clean))
                others.setdefault(f"ssim_{kind}", []).extend(ssim_rgb(restored, clean))
                others.setdefault(f"not_black_{kind}", []).extend(not_black(restored, clean))
                if len(psnr[kind]) <= PICTURED:
                    rows.append((clean[0], degraded[0], restored[0]))
            figures = {f"psnr_{kind}": sum(values) / len(values) for kind, values in psnr.items()}
            mean = sum(min(value, ENOUGH) for value in figures.values()) / len(figures)
            log.write(
                step,
                figures | {name: sum(values) / len(values) for name, values in others.items()},
            )
            log.picture(step, rows)
            if step and mean > self.best:
                self.best = mean
                self.averaged.save_pretrained(self.work_dir / "weights" / f"{self.stage.name}-best")
        self.fabric.barrier()

    def save(self, step: int) -> Path:
        """Write a checkpoint."""
        path = self.folder / f"step-{step:08d}.pt"
        if self.fabric.is_global_zero:
            average = self.average.state_dict() if self.average is not None else None
            state = {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": average,
            }
            save_checkpoint(
                self.folder,
                step,
                {"step": step, "best": self.best, **state},
                self.recipe.keep_checkpoints,
            )
        self.fabric.barrier()
        return path

    def resume(self) -> int:
        """Load the last checkpoint and return its step, or 0 without a checkpoint."""
        found = checkpoints_in(self.folder)
        state: dict[str, Any] = load_checkpoint(found[-1]) if found else {"step": 0}
        seen = torch.tensor([1.0, -1.0], device=self.fabric.device) * state["step"]
        if reduced(self.fabric, seen, "max").tolist() != seen.tolist():  # all processes raise it
            raise SettingsError(
                f"{self.folder} does not contain the same checkpoints for all processes; use one "
                "shared work directory"
            )
        if not found:
            return 0
        check_state(
            self.model,
            state["model"],
            f"{found[-1]} is of another network than the recipe's",
            "train in another folder",
        )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.best = state["best"]
        logger.info(
            "stage %s continues after step %d of %d", self.stage.name, state["step"], self.steps
        )
        return int(state["step"])


def reduced(fabric: Fabric, value: Tensor, how: str) -> Tensor:
    """Return the "mean" or "max" of a tensor over all processes."""
    if fabric.world_size == 1:
        return value
    # It writes into its argument.
    return cast(Tensor, fabric.all_reduce(value.clone(), reduce_op=how))


def not_finite(stage: str, step: int, figures: Mapping[str, float], names: Sequence[str]) -> str:
    """Return the message for a loss or gradient that is not finite."""
    shown = ", ".join(f"{name} {value:.3g}" for name, value in figures.items())
    files = ", ".join(names[:16]) + (f" and {len(names) - 16} more" if len(names) > 16 else "")
    return (
        f"stage {stage}, step {step}: the loss or its gradient is not finite ({shown}); the batch "
        f"was {files}. Check these images; lower learning_rate, set clip_norm, or use precision: "
        "float32 (these may change), and continue with --resume"
    )


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT instead of ending the process; only in the main thread."""
    received: list[int] = []
    with handled(lambda number, _: received.append(number), signal.SIGTERM, signal.SIGINT):
        yield received
