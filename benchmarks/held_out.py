"""Measure sets of weights on held-out training photos, by the questions of research/experiments.md.

    python benchmarks/held_out.py DIR [--weights small --weights RUN/weights/refine ...]
        [--photos 16] [--json FILE]

DIR is the folder of clean photos. The photos that `vrdir train` holds out of it are used whole,
each unchanged or in one of the views below, and degraded. For every question, the table has the
mean PSNR in dB (RGB) of the degraded and of the restored photos, and the number of photos that
restoring makes worse. All degradations are synthetic; their draws depend only on the question and
the photo's name.

- near: the middle 180 pixels, magnified to 512, as soft as the full size of a camera's photos;
  2x, 4x: the same, magnified to 360 and 720;
- close: the palest 90 pixels, those whose darkest pixels are brightest, magnified to 270;
- pale: half the contrast, in a little warmer light;
- dim: 0.4 v^1.2;
- vivid: 2.2 times the saturation.

The last lines are the mean over all questions that change the photo, then haze and rain at other
magnifications, heavy rain, and the everyday degradations, which are not in the mean.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from vrdir.data.augmentation import Tone, View
from vrdir.data.image_cache import decode
from vrdir.data.items import distinct_stems, items_of, split
from vrdir.data.pairs import Pair
from vrdir.degradations.registry import CLEAN
from vrdir.evaluation.restoration.protocol import SetResult, measure_pairs
from vrdir.evaluation.restoration.restorers import network_for_pairs
from vrdir.restoring.restorer import Restorer

LIGHT = Tone(1.0, 1.0, 1.0, torch.ones(3))
VIEWS: dict[str, Callable[[Tensor], Tensor]] = {  # of a (3, H, W) uint8 photo
    "": lambda photo: photo,
    "near": lambda photo: View(512, 180, 180, False, False, None).apply(middle(photo, 180)),
    "2x": lambda photo: View(360, 180, 180, False, False, None).apply(middle(photo, 180)),
    "4x": lambda photo: View(720, 180, 180, False, False, None).apply(middle(photo, 180)),
    "close": lambda photo: View(270, 90, 90, False, False, None).apply(palest(photo, 90)),
    "pale": LIGHT._replace(contrast=0.5, gains=torch.tensor([1.04, 1.0, 0.94])).apply,
    "dim": LIGHT._replace(gamma=1.2, exposure=0.4).apply,
    "vivid": LIGHT._replace(saturation=2.2).apply,
}
QUESTIONS = (  # view, what is done to it
    ("", "haze:beta=0.8"),
    ("", "haze:beta=2"),
    ("", "haze:beta=1.2+jpeg:quality=90"),
    ("", "haze:beta=0.8+rain:coverage=0.1+noise:sigma=15"),
    ("", "noise:sigma=15"),
    ("", "noise:sigma=25+jpeg:quality=90"),
    ("", "noise:sigma=50"),
    ("", "sensor_noise"),
    ("", "rain:coverage=0.2"),
    ("", "rain:coverage=0.1,veil=0,mist=0,width_px=0.4,opacity=0.35"),
    ("", "rain:coverage=0.2,veil=0.1,mist=0.5"),
    ("vivid", "rain:coverage=0.2,veil=0,mist=0"),
    ("vivid", "haze:beta=0.8"),
    ("near", "sensor_noise"),
    ("near", "haze:beta=1.2"),
    ("near", "rain:coverage=0.2"),
    ("close", "sensor_noise"),
    ("pale", "sensor_noise"),
    ("dim", "sensor_noise"),
    ("", CLEAN),
    ("close", CLEAN),
    ("pale", CLEAN),
    ("vivid", CLEAN),
)
# Listed separately: weights that take soft images for clean get worse along them (experiment 46).
SOFT = (
    ("2x", "haze:beta=1.2"),
    ("4x", "haze:beta=1.2"),
    ("2x", "rain:coverage=0.2"),
    ("4x", "rain:coverage=0.2"),
)
HEAVY = (  # rain as in photos of downpours
    ("", "rain:coverage=0.2,length_px=30,mist=0.3,curtain=0.3"),
    ("", "rain:coverage=0.3,length_px=45,mist=0.8,curtain=0.5"),
    ("near", "rain:coverage=0.2,length_px=30,mist=0.3,curtain=0.4"),
)
EVERYDAY = (  # asked apart: what the bundled weights are not trained for
    ("", "low_light:severity=2"),
    ("", "snow:severity=2"),
    ("", "defocus_blur:severity=2"),
    ("", "motion_blur:severity=2"),
    ("", "jpeg:quality=20"),
    ("", "low_light:severity=1+noise:sigma=15"),
)


def middle(photo: Tensor, side: int) -> Tensor:
    """Return the middle (3, side, side) of a photo, or as much of it as there is."""
    side = min(side, *photo.shape[1:])
    top, left = ((extent - side) // 2 for extent in photo.shape[1:])
    return photo[:, top : top + side, left : left + side]


def palest(photo: Tensor, side: int, step: int = 15) -> Tensor:
    """Return the part (3, side, side) of a photo with the brightest dark channel.

    The darkest fiftieth of the dark channel counts; a smaller photo is returned whole.
    """
    side = min(side, *photo.shape[1:])
    parts = photo.amin(0).unfold(0, side, step).unfold(1, side, step)  # (rows, columns, side, side)
    dark = parts.flatten(2).float().quantile(0.02, dim=2)
    row, column = divmod(int(dark.argmax()), dark.shape[1])
    return photo[:, row * step : row * step + side, column * step : column * step + side]


def read_arguments() -> tuple[argparse.Namespace, dict[str, Tensor]]:
    """Return the arguments, and the photos that are held out by name, (3, H, W) uint8."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "clean", type=Path, metavar="DIR", help="folder of clean photos, the one trained on"
    )
    parser.add_argument(
        "--weights", action="append", help="a name or a folder; default small; may be repeated"
    )
    parser.add_argument(
        "--photos",
        type=int,
        default=16,
        help="how many are held out of training (validation.photos of the recipe)",
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    arguments = parser.parse_args()
    try:
        items = split(items_of(arguments.clean, (), ()), arguments.photos)[1]
        held_out = [item.clean for item in items]
        names = distinct_stems(held_out)
        return arguments, dict(zip(names, map(decode, held_out), strict=True))
    except (ValueError, FileNotFoundError) as error:  # ImageError, too
        parser.error(str(error))


def ask(
    pairs: list[Pair], synthesis: str, source: Path, restorers: dict[str, Restorer]
) -> dict[str, Any]:
    """Return the figures of one question: PSNR of the input, and of each restorer's result."""
    answers: dict[str, Any] = {}
    for name, restorer in restorers.items():
        measured = list(measure_pairs(pairs, network_for_pairs(restorer)))
        result = SetResult(synthesis, source, measured)
        if result.excluded:
            raise SystemExit(f"{result.excluded[0].pair.clean}: {result.excluded[0].reason}")
        assert result.degraded is not None
        assert result.restored is not None
        answers["in"] = round(result.degraded["psnr_rgb"], 2)
        answers[name] = {
            "psnr": round(result.restored["psnr_rgb"], 2),
            "worse": len(result.worse),
        }
    return answers


def show(figures: dict[str, dict[str, Any]], names: list[str], photos: int) -> None:
    """Print the table."""
    table = Table(
        "question (synthetic)",
        "in",
        *names,
        title=f"PSNR in dB, {photos} held-out photos (photos made worse)",
    )
    asked = [f"{view} {synthesis}".strip() for view, synthesis in QUESTIONS if synthesis != CLEAN]
    means = {
        name: sum(figures[question][name]["psnr"] for question in asked) / len(asked)
        for name in names
    }
    for number, (question, answers) in enumerate(figures.items()):
        if number == len(QUESTIONS):
            table.add_section()
            table.add_row("mean of the degraded", "", *(f"{means[n]:.3f}" for n in names))
            table.add_section()
        elif number in (len(QUESTIONS + SOFT), len(QUESTIONS + SOFT + HEAVY)):
            table.add_section()
        table.add_row(
            question,
            f"{answers['in']:.2f}",
            *(f"{answers[n]['psnr']:.2f} ({answers[n]['worse']})" for n in names),
        )
    Console(width=max(100, 64 + 14 * len(names))).print(table)


def main() -> None:
    """Ask, restore, measure, print."""
    arguments, photos = read_arguments()
    names = arguments.weights or ["small"]
    restorers = {name: Restorer(name, arguments.device) for name in names}
    figures: dict[str, dict[str, Any]] = {}
    questions = QUESTIONS + SOFT + HEAVY + EVERYDAY
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for view, of in VIEWS.items():
            (folder / view).mkdir(exist_ok=True)
            for name, photo in photos.items():
                image = Image.fromarray(of(photo).movedim(0, 2).numpy())
                image.save(folder / view / f"{name}.png")
        for view, synthesis in track(questions, "Questions", console=Console(stderr=True)):
            pairs = [
                Pair(folder / view / f"{name}.png", None, synthesis, line)
                for line, name in enumerate(photos, 1)
            ]
            question = f"{view} {synthesis}".strip()
            figures[question] = ask(pairs, synthesis, arguments.clean, restorers)
    show(figures, names, len(photos))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
