"""Compare the patches per second of the loader with those of training the `small` model.

    python benchmarks/data_throughput.py CLEAN_DIR

Each way of loading is timed alone (read, cut, degrade), with images decoded before, or decoded each
time, as for a set that does not fit into memory. Then training steps of `small` (stage refine, by
its recipe) are timed on ready batches. Each round measures all of them in turn, and medians are
compared, so that a machine that slows down affects all alike. The pair list is written into a
temporary folder.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from lightning_fabric import Fabric
from rich.console import Console
from rich.table import Table

from vrdir.data.batches import Batch
from vrdir.data.items import Item, items_of, split
from vrdir.data.pairs import Pair, write_pairs
from vrdir.data.training_set import StageData, TrainingSet
from vrdir.data.validation_set import ValidationSet
from vrdir.degradations.degrade import degrade
from vrdir.images.reading import read_file
from vrdir.model.vrdir import VRDIR
from vrdir.restoring.loading import choose_device
from vrdir.training.network_stages import RefineStage
from vrdir.training.settings import Recipe
from vrdir.training.trainer import StageRun, Trainer

ROUNDS, STEPS = 5, 12
PAIRS = 60


def now() -> float:
    """Seconds, when all that was started is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def everything(_: Item) -> bool:
    return True


def pair_list(items: list[Item], folder: Path) -> Path:
    """Return a list of photos and hazy copies of them in files."""
    pairs = []
    for number, item in enumerate(items[:PAIRS]):
        hazy = folder / f"{number}.png"
        degrade(read_file(item.clean), "haze", seed=number).save(hazy)
        pairs.append(Pair(item.clean, hazy, "", number + 1))
    write_pairs(pairs, folder / "pairs.txt")
    return folder / "pairs.txt"


def feeding(data: StageData, batch_size: int, workers: int = 0) -> Callable[[int], float]:
    """Return a function of the round that measures seconds per step.

    A loader with workers is restarted in each round; its start does not count.
    """

    def measure(turn: int) -> float:
        first = 1 + turn * (STEPS + 1)
        batches = data.batches(batch_size, range(first, first + STEPS + 1), workers=workers)
        next(batches)
        clock = now()
        for _ in batches:
            pass
        return (now() - clock) / STEPS

    return measure


def ways_of_loading(
    recipe: Recipe, training: list[Item], folder: Path, training_set: Callable[..., TrainingSet]
) -> dict[str, Callable[[int], float]]:
    """Return each way of loading by its name: a function of the round, in seconds per step."""
    stage, branches = RefineStage(recipe), recipe.model.branches
    paired = items_of(None, [f"haze={pair_list(training, folder)}"], branches)
    ways = {}
    for name, items, kept, workers in (
        ("synthesised from clean photos", training, True, 0),
        ("synthesised, 2 workers", training, True, 2),
        ("synthesised, photos decoded each time", training, False, 0),
        ("synthesised, photos decoded each time, 2 workers", training, False, 2),
        ("a pair list", paired, True, 0),
        ("a pair list, decoded each time", paired, False, 0),
    ):
        size_of_cache, on_device = (2**32, None) if kept else (0, False)
        of = training_set(items, cache_bytes=size_of_cache, on_device=on_device)
        for path in of.images.paths if kept else ():
            of.images.image(path)
        data = of.stage(stage.name, stage.shares, everything)
        ways[name] = feeding(data, stage.settings.batch_size, workers)
    return ways


def training(
    recipe: Recipe, held_out: list[Item], folder: Path, small: TrainingSet
) -> Callable[[int], float]:
    """Return a function of the round that trains on ready batches: seconds per step."""
    stage = RefineStage(recipe)
    data = small.stage(stage.name, stage.shares, everything)
    batches = data.batches(stage.settings.batch_size, range(1, STEPS + 1))
    ready: list[Batch] = [part for [part] in batches]
    precision: Literal["bf16-mixed", "32-true"] = (
        "bf16-mixed" if recipe.precision == "bf16" else "32-true"
    )
    fabric = Fabric(accelerator=small.device.type, devices=1, precision=precision)
    validation = ValidationSet(held_out, recipe.model.branches, 256)
    trainer = Trainer(fabric, VRDIR(recipe.model), recipe, small, validation, folder)
    trainer.model.load_pretrained_extractor()
    stage.prepare(small.device)
    run = StageRun(trainer, stage, 10000)

    def train(turn: int) -> float:
        run.step(1, [ready[0]])
        clock = now()
        for step, batch in enumerate(ready):
            run.step(2 + step + turn * STEPS, [batch])
        return (now() - clock) / STEPS

    return train


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clean", type=Path, metavar="CLEAN_DIR")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    recipe, device = Recipe.read("small"), choose_device(arguments.device)
    torch.manual_seed(0)
    photos, held_out = split(items_of(arguments.clean, (), recipe.model.branches), 16)
    training_set = partial(
        TrainingSet,
        branches=recipe.model.branches,
        crop_px=recipe.crop_px,
        device=device,
        ranges=recipe.ranges,
        jpeg_share=recipe.jpeg_share,
        augmentation=recipe.augmentation,
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ways = ways_of_loading(recipe, photos, folder, training_set)
        trained = "training steps of small, on ready batches"
        ways[trained] = training(recipe, held_out, folder, training_set(photos))
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(ROUNDS):
            for name, measure in ways.items():
                seconds[name].append(measure(turn))

    size = RefineStage(recipe).settings.batch_size
    rates = {name: size / statistics.median(values) for name, values in seconds.items()}
    table = Table(
        f"{device.type}, {torch.get_num_threads()} threads, {recipe.crop_px} x {recipe.crop_px}",
        "patches/s",
        "against training",
    )
    for name, rate in rates.items():
        table.add_row(name, f"{rate:.0f}", f"{rate / rates[trained]:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
