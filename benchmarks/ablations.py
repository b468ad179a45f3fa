"""Ablations: a small network is trained without each part of the method, all else the same.

    # DIR has clean photos; a variant takes some minutes on one core.
    python benchmarks/ablations.py DIR --work-dir RUNS
    python benchmarks/ablations.py DIR --work-dir RUNS --only whole no_fgm --seeds 1 2 3
    # The table again, from finished runs.
    python benchmarks/ablations.py --work-dir RUNS --table
    # Restore a folder with every variant: OUT/VARIANT-SEED/...
    python benchmarks/ablations.py --work-dir RUNS --restore IN OUT

Every variant has the same photos, crops and degradations (by the seed), and the same number of
them: without a stage, refinement is longer. PSNR is in dB, on held-out photos of DIR, at the end
of training.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from vrdir.batch.plan import plan_files
from vrdir.model import semantics_enhancement, vrdir
from vrdir.model.degradation_normalization import DegradationNormalization
from vrdir.model.global_statistics import GlobalStatistics, Moments
from vrdir.model.semantics_enhancement import SemanticsEnhancement
from vrdir.model.vrdir import VRDIR
from vrdir.restoring.restorer import Restorer
from vrdir.training.run import train
from vrdir.training.settings import Recipe
from vrdir.training.sources import Sources
from vrdir.training.stages import all_stages

BATCH = 16
STEPS = {"decoder": 200, "branch": 75, "fusion": 75, "refine": 800}


class SpatialModulation(nn.Module):
    """Guidance from the features themselves: FGM without its Fourier transform."""

    def __init__(self, channels: int, branches: int) -> None:
        super().__init__()
        self.guidance = nn.Conv2d(channels, branches, 3, padding=1)

    def forward(self, features: Tensor, statistics: GlobalStatistics | None = None) -> Tensor:
        return torch.softmax(self.guidance(features.float()), dim=1)


class Unnormalized(DegradationNormalization):
    """A branch of residual blocks alone: no instance normalization, no compensation."""

    def forward(
        self,
        features: Tensor,
        statistics: GlobalStatistics | None = None,
        found: Moments | None = None,
    ) -> Tensor:
        return self.blocks(features, statistics)


class OneBranch(SemanticsEnhancement):
    """Use one branch for all degradations; the guidance still names them and clean images."""

    def __init__(
        self, channels: int, branches: Sequence[str], branch_blocks: int, clean_branch: bool
    ) -> None:
        super().__init__(channels, branches, branch_blocks, clean_branch)
        self.branches = Shared({"any": DegradationNormalization(channels, branch_blocks)})

    def mix(
        self, features: Tensor, guidance: Tensor, statistics: GlobalStatistics | None = None
    ) -> Tensor:
        clean = guidance[:, -1:].to(features.dtype) if self.clean_branch else 0
        return (1 - clean) * self.branches["any"](features, statistics) + clean * features


class Shared(nn.ModuleDict):
    """The same module under every name."""

    def __getitem__(self, key: str) -> nn.Module:
        return super().__getitem__("any")


class Variant:
    """One ablation.

    Args:
        says: what is different, for the table.
        settings: of the recipe that change.
        parts: classes to put in the place of others: a module, the other's name in it, the class.
        without: names of stages that are left out; refinement takes their images over.
    """

    def __init__(
        self,
        says: str,
        settings: Mapping[str, Any] = {},
        parts: Sequence[tuple[Any, str, type[nn.Module]]] = (),
        without: str = "",
    ) -> None:
        self.says, self.settings, self.parts, self.without = says, settings, parts, without

    @contextmanager
    def built(self) -> Iterator[None]:
        """Within, networks are built with the variant's parts."""
        with ExitStack() as stack:
            for module, name, part in self.parts:
                stack.enter_context(mock.patch.object(module, name, part))
            yield


FGM = (semantics_enhancement, "FourierGuidedModulation", SpatialModulation)
DNC = (semantics_enhancement, "DegradationNormalization", Unnormalized)
ISE = (vrdir, "SemanticsEnhancement", OneBranch)
VARIANTS = {
    "whole": Variant("the whole method"),
    "no_fgm": Variant("guidance without Fourier transform (no FGM)", parts=[FGM]),
    "no_dnc": Variant("branches without normalisation (no DNC)", parts=[DNC]),
    "one_branch": Variant("one branch for all degradations", parts=[ISE]),
    "no_stage_1": Variant("no stage 1", without="decoder"),
    "no_stages": Variant("no stages 1 to 3: refinement alone", without="decoder branch fusion"),
    "no_consistency": Variant(
        "no semantic consistency loss",
        {f"{stage}.loss_weights.consistency": 0.0 for stage in ("branch", "fusion", "refine")},
    ),
    "no_recognition": Variant("no recognition loss", {"refine.loss_weights.recognition": 0.0}),
    "no_guidance": Variant(
        "guidance not supervised",
        {f"{stage}.loss_weights.guidance": 0.0 for stage in ("fusion", "refine")},
    ),
    "no_attention": Variant(
        "no channel attention in the decoder", {"model.channel_attention": False}
    ),
    "l1": Variant("plain L1 for the balanced one", {"pixel_loss": "l1"}),
    "adam": Variant(
        "Adam, 1e-3, for Muon",
        {"optimizer": "adam", **{f"{stage}.learning_rate": 1e-3 for stage in STEPS}},
    ),
}


def recipe_of(variant: Variant, seed: int) -> Recipe:
    """Every variant's recipe: that of `small`, for a small network and crops of a quarter."""
    network = {
        "widths": [16, 32, 48],
        "encoder_blocks": [1, 1, 1],
        "decoder_blocks": [1, 1, 1],
        "branches": ["haze", "noise", "rain"],
    }
    steps = dict(STEPS)
    for stage in variant.without.split():
        images = {"decoder": 2, "branch": 3, "fusion": 1}[
            stage
        ]  # the decoder's stage decodes twice; there are three branches
        steps["refine"] += images * steps[stage]
    settings = {f"model.{key}": value for key, value in network.items()}
    settings |= {f"{stage}.steps": count for stage, count in steps.items()} | {
        f"{stage}.batch_size": BATCH for stage in steps
    }
    settings |= {
        "seed": seed,
        "crop_px": 64,
        "ranges": {},
        "jpeg_share": 0.0,
        "ema_decay": 0.99,
        # The value of the recipe when the figures in research/experiments.md were measured.
        "pixel_loss_floor": 0.02,
        "log_every": 250,
        "validation.every": 10**6,
    }
    return Recipe.read("small", **settings | dict(variant.settings))


def run(name: str, seed: int, clean: Path, folder: Path) -> None:
    """Train one variant."""
    variant = VARIANTS[name]
    recipe = recipe_of(variant, seed)
    left_out = variant.without.split()
    stages = [stage for stage in all_stages(recipe) if stage.name.split("-")[0] not in left_out]
    begun = time.perf_counter()
    with variant.built():
        train(recipe, stages, Sources(clean=clean), folder, resume=folder.exists())
    print(f"{folder.name}: {time.perf_counter() - begun:.0f} s", flush=True)


def figures(folder: Path) -> dict[str, float]:
    """Return the last validation of a run."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if "psnr_clean" in line][-1]
    return {
        key.removeprefix("psnr_"): value for key, value in last.items() if key.startswith("psnr_")
    }


def table(folder: Path) -> str:
    """Means over the seeds, as Markdown; and how far the same variant's seeds differ."""
    runs: dict[str, list[dict[str, float]]] = {}
    for name in VARIANTS:
        for path in sorted(folder.glob(f"{name}-*")):
            if (
                path / "weights" / "refine" / "model.safetensors"
            ).is_file() and path.name.rpartition("-")[0] == name:
                runs.setdefault(name, []).append(figures(path))
    if not runs:
        raise SystemExit(f"{folder} holds no finished run")
    kinds = list(next(iter(runs.values()))[0])
    lines = ["| | " + " | ".join(kinds) + " | seeds |", "|---" * (len(kinds) + 2) + "|"]
    for name, results in runs.items():
        means = {kind: sum(r[kind] for r in results) / len(results) for kind in kinds}
        lines.append(
            f"| {VARIANTS[name].says} | "
            + " | ".join(f"{means[kind]:.2f}" for kind in kinds)
            + f" | {len(results)} |"
        )
    if all(len(results) == 1 for results in runs.values()):
        return "\n".join(lines)
    apart = {
        kind: max(max(r[kind] for r in rs) - min(r[kind] for r in rs) for rs in runs.values())
        for kind in kinds
    }
    lines.append(
        "| (largest difference of two seeds of a variant) | "
        + " | ".join(f"{apart[kind]:.2f}" for kind in kinds)
        + " | |"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clean", type=Path, nargs="?", help="folder of clean photos")
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--table", action="store_true", help="train nothing")
    parser.add_argument(
        "--restore",
        nargs=2,
        type=Path,
        metavar=("IN", "OUT"),
        help="train nothing; restore a folder by every variant",
    )
    arguments = parser.parse_args()
    runs = [
        (name, seed, arguments.work_dir / f"{name}-{seed}")
        for seed in arguments.seeds
        for name in arguments.only
    ]
    if arguments.restore:
        source, out = arguments.restore
        for name, _, folder in runs:
            with VARIANTS[name].built():
                restorer = Restorer(VRDIR.from_pretrained(folder / "weights" / "refine"))
            for result in restorer.restore_files(plan_files([source], out / folder.name)):
                if result.error:
                    raise SystemExit(f"{result.job.source}: {result.error}")
        return
    if not arguments.table:
        if arguments.clean is None:
            parser.error("name a folder of clean photos")
        for name, seed, folder in runs:
            if not (folder / "weights" / "refine" / "model.safetensors").is_file():
                run(name, seed, arguments.clean, folder)
    print(table(arguments.work_dir))


if __name__ == "__main__":
    main()
