"""The one trainer: it runs a stage, whichever it is."""

from __future__ import annotations

import json
import logging
import math
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam

from vrdir.data.loaders import CleanPhotos
from vrdir.degradations.mixture import MIXED, degrade_mixture
from vrdir.evaluation.restoration_metrics import psnr_rgb, ssim_rgb
from vrdir.model.blocks import placed
from vrdir.model.vrdir import VRDIR, check_state
from vrdir.pictures import contact_sheet, save_picture
from vrdir.training.checkpoints import checkpoints_in, load_checkpoint, save_checkpoint
from vrdir.training.settings import Recipe, StageSettings
from vrdir.training.stages import Batch, Stage

logger = logging.getLogger(__name__)

LOG_EVERY = 50
Report = Callable[[Mapping[str, Any]], None]


class Trainer:
    """Runs stages on one model. Everything a stage leaves behind is in `work_dir`.

        checkpoints/<stage>/step-N.pt    to resume from, the last two
        weights/<stage>/                 the model at the end of the stage: config.json, model.safetensors
        pictures/<stage>/step-N.png      clean | degraded | restored, at every validation
        metrics.jsonl                    losses and validation figures, a line each

    A batch depends on the recipe's seed, the stage and the step alone, so a resumed run sees what an unbroken one sees.

    Args:
        model: the network; it is trained in place.
        recipe: all settings.
        photos: clean photos to train on.
        held_out: clean photos to validate on.
        work_dir: created if need be.
        device: "cpu", "cuda", ...
        report: called with every line of metrics.jsonl, for a progress bar.
    """

    def __init__(
        self,
        model: VRDIR,
        recipe: Recipe,
        photos: CleanPhotos,
        held_out: CleanPhotos,
        work_dir: Path,
        device: torch.device | str = "cpu",
        report: Report | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.model = placed(model, self.device)
        self.recipe, self.photos, self.work_dir, self.report = recipe, photos, work_dir, report
        self.validation_photos = held_out.centre_crops(recipe.validation.crop_px)
        work_dir.mkdir(parents=True, exist_ok=True)

    def run(self, stage: Stage, resume: bool = False) -> None:
        """Train a stage to its end and save the model's weights.

        Args:
            stage: what trains.
            resume: go on from the stage's last checkpoint; a stage that has none starts at its beginning.

        Raises:
            FloatingPointError: the loss is not finite.
            ValueError: a checkpoint is damaged or of another network.
        """
        stage.prepare(self.device)
        parameters = self._freeze_all_but(stage)
        optimizer = Adam(parameters, lr=stage.settings.learning_rate)
        start = self._resume(stage, optimizer) if resume else 0
        if start == 0:
            self._validate(stage, 0)  # also a rehearsal: what would fail at the first validation fails now
        self.model.train()
        clock, logged = time.perf_counter(), start
        for step in range(start + 1, stage.settings.steps + 1):
            losses = self._step(stage, step, parameters, optimizer)
            if step % LOG_EVERY == 0 or step == stage.settings.steps:
                images = (step - logged) * stage.settings.batch_size
                self._log(stage, step, images_per_second=round(images / (time.perf_counter() - clock), 1), **losses)
            last = step == stage.settings.steps
            if step % self.recipe.validation.every == 0 or last:
                self._validate(stage, step)
            if step % self.recipe.checkpoint_every == 0 or last:
                state = {"step": step, "model": self.model.state_dict(), "optimizer": optimizer.state_dict()}
                save_checkpoint(self.work_dir / "checkpoints" / stage.name, step, state)
            if step % LOG_EVERY == 0:  # after validating, which is no part of the training rate
                clock, logged = time.perf_counter(), step
        self.model.requires_grad_(False).eval()
        self.model.save_pretrained(self.work_dir / "weights" / stage.name)

    def batch(self, stage: Stage, step: int) -> Batch:
        """The batch of a step, always the same one."""
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.recipe.seed}|{stage.name}|{step}".encode()))
        clean = self.photos.random_crops(stage.settings.batch_size, self.recipe.crop_px, generator).to(self.device)
        mixture = degrade_mixture(clean, stage.shares, self.recipe.model.branches, generator)
        layout = torch.channels_last
        return Batch(clean.contiguous(memory_format=layout), mixture.image.contiguous(memory_format=layout), mixture.present)

    def _freeze_all_but(self, stage: Stage) -> list[torch.nn.Parameter]:
        self.model.requires_grad_(False)
        parameters = stage.trained(self.model)
        for parameter in parameters:
            parameter.requires_grad_(True)
        return parameters

    def _step(self, stage: Stage, step: int, parameters: list[torch.nn.Parameter], optimizer: Adam) -> dict[str, float]:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(stage.settings, step)
        batch = self.batch(stage, step)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            losses = stage.losses(self.model, batch)
        total = torch.stack([stage.weights.get(name, 1.0) * loss for name, loss in losses.items()]).sum()
        if not torch.isfinite(total):
            shown = ", ".join(f"{name} {loss.item():.3g}" for name, loss in losses.items())
            raise FloatingPointError(
                f"stage {stage.name}, step {step}: the loss is not finite ({shown}); lower learning_rate or use precision: float32"
            )
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        if stage.settings.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters, stage.settings.clip_norm)
        optimizer.step()
        return {name: loss.item() for name, loss in losses.items()}

    def _resume(self, stage: Stage, optimizer: Adam) -> int:
        found = checkpoints_in(self.work_dir / "checkpoints" / stage.name)
        if not found:
            return 0
        state = load_checkpoint(found[-1])
        check_state(self.model, state["model"], f"{found[-1]} is of another network than the recipe's", "train in another folder")
        self.model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        logger.info("stage %s goes on after step %d of %d", stage.name, state["step"], stage.settings.steps)
        return int(state["step"])

    @torch.no_grad()
    def _validate(self, stage: Stage, step: int) -> None:
        """PSNR and SSIM in RGB, in float32, on fixed crops with fixed degradations, for each kind of image of the stage."""
        self.model.eval()
        figures, rows = {}, []
        for kind in [k for k, share in stage.shares.items() if share > 0]:
            clean = self.validation_photos
            generator = torch.Generator().manual_seed(zlib.crc32(f"validation|{kind}".encode()))
            degraded = degrade_mixture(clean, {kind: 1.0}, self.recipe.model.branches, generator).image
            size = self.recipe.validation.batch_size
            restored = torch.cat([self._restored(stage, part) for part in degraded.split(size)])
            psnr, ssim = psnr_rgb(restored, clean), ssim_rgb(restored, clean)
            figures[f"psnr_{kind}"], figures[f"ssim_{kind}"] = sum(psnr) / len(psnr), sum(ssim) / len(ssim)
            rows += [(clean[i], degraded[i], restored[i]) for i in range(min(3 if kind == MIXED else 2, len(clean)))]
        self._log(stage, step, **figures)
        sheet = contact_sheet(rows, ("clean", "degraded", "restored"))
        save_picture(sheet, self.work_dir / "pictures" / stage.name / f"step-{step:08d}.png")
        self.model.train()

    def _restored(self, stage: Stage, degraded: Tensor) -> Tensor:
        return stage.restored(self.model, degraded.to(self.device)).float().cpu()

    def _log(self, stage: Stage, step: int, **figures: float) -> None:
        line = {"stage": stage.name, "step": step, "steps": stage.settings.steps}
        line |= {name: round(value, 5) for name, value in figures.items()}
        with (self.work_dir / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        if self.report is not None:
            self.report(line)


def learning_rate(settings: StageSettings, step: int) -> float:
    """The rate at a step, counted from 1."""
    if settings.schedule == "halving":
        return settings.learning_rate * 0.5 ** (4 * (step - 1) // settings.steps)
    if step <= settings.warmup_steps:
        return settings.learning_rate * step / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(settings.steps - settings.warmup_steps, 1)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
