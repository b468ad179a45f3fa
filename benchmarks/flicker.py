"""Measure the flicker of a restored video, with temporal smoothing and without.

    python benchmarks/flicker.py PHOTO_OR_VIDEO [--with haze:beta=1.0 --with noise:sigma=25]
        [--frames 60]

A photo becomes a clip by panning over it, a pixel or two a frame; of a video the first frames are
used. Each frame gets fresh noise (and rain, if given). Haze drifts slowly, by a third of its
strength. Printed for every degradation, for the degraded clip and the restored ones, compared with
the clean clip:

- flicker: mean |(r_t - r_t-1) - (c_t - c_t-1)|, in levels of 255: the change from frame to frame
  that the clean clip c does not have. Noise that is left counts, too.
- level: the same of the frames' mean colour, one number a channel: the whole picture gets brighter
  and darker. This is what smoothing reduces.
- PSNR in dB, the mean over frames: smoothing must not reduce it.

The ratios are those of smoothed to not smoothed. All degradations are synthetic.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from vrdir import Restorer
from vrdir.degradations.degrade import apply_degradation
from vrdir.degradations.steps import Step, at_severity, parse_degradations
from vrdir.images.convert import open_image
from vrdir.images.reading import read_file
from vrdir.images.sixteen_bits import DeepPicture
from vrdir.restoring.stream import SMOOTHING
from vrdir.video.formats import FramePixels, is_video
from vrdir.video.reading import VideoReader

DRIFT = 1 / 3  # of the strength of haze
PERIOD = 250  # frames of one cycle of the haze: ten seconds


class Flicker(NamedTuple):
    """The figures of one clip, compared with the clean one; see above."""

    flicker: float
    level: float
    psnr: float


def pan(photo: FramePixels, frames: int, width: int, height: int) -> Iterator[FramePixels]:
    """Yield views that move over a photo and back, at most two pixels a frame."""
    free_y, free_x = (
        max(side - part, 0) for side, part in zip(photo.shape[:2], (height, width), strict=True)
    )
    for number in range(frames):
        x, y = (
            round(free / 2 * (1 - math.cos(min(number * 2 / max(free, 1), 2 * math.pi))))
            for free in (free_x, free_y)
        )
        yield photo[y : y + height, x : x + width]


def clean_clip(source: Path, frames: int, side: int) -> list[FramePixels]:
    """Return the clean frames, at most `side` pixels wide and high, from the middle of a video."""
    if not is_video(source):
        picture = read_file(source)
        if isinstance(picture, DeepPicture):
            picture = picture.reduced()
        photo = np.asarray(picture.convert("RGB"))
        height, width = (min(side, max(part * 3 // 4, 1)) for part in photo.shape[:2])
        return list(pan(photo, frames, width, height))
    clip: list[FramePixels] = []
    with VideoReader(source) as reader:
        for frame in reader.frames():
            if frame.pixels is not None:
                top, left = (max(part - side, 0) // 2 for part in frame.pixels.shape[:2])
                clip.append(frame.pixels[top : top + side, left : left + side])
            if len(clip) == frames:
                break
    return clip


def degraded(frame: FramePixels, number: int, steps: Iterable[Step], seed: int) -> FramePixels:
    """Return a degraded frame: the haze drifts, everything else is drawn again for each frame."""
    opened = open_image(frame)
    image = opened.tensor
    for step in steps:
        ranges: dict[str, Any] = {**at_severity(step.name, step.severity), **step.ranges}
        haze = step.name == "haze"
        generator = torch.Generator().manual_seed(seed if haze else seed * 100_003 + number)
        if haze:
            beta = ranges.get("beta", 1.0)
            middle = float(np.mean(beta))
            ranges |= {"beta": middle * (1 + DRIFT * math.sin(2 * math.pi * number / PERIOD))}
        image = apply_degradation(image, step.name, generator, **ranges).image
    result: FramePixels = opened.close(image)
    return result


def measure(clip: Iterable[FramePixels], clean: list[FramePixels]) -> Flicker:
    """Return the figures of a clip with as many frames as the clean one."""
    flicker, level, errors = [], [], []
    last: np.ndarray[Any, Any] | None = None
    for frame, target in zip(clip, clean, strict=True):
        # (r_t - r_t-1) - (c_t - c_t-1) is the change of r - c.
        error = frame.astype(np.float64) - target
        errors.append(10 * math.log10(255**2 / max(float(np.square(error).mean()), 1e-9)))
        if last is not None:
            flicker.append(float(np.abs(error - last).mean()))
            level.append(float(np.abs((error - last).mean((0, 1))).mean()))
        last = error
    return Flicker(float(np.mean(flicker)), float(np.mean(level)), float(np.mean(errors)))


DEGRADATIONS = ("noise:sigma=25", "haze:beta=1.0", "haze:beta=1.0+noise:sigma=15")
COLUMNS = (
    "degradation (synthetic)",
    "clip",
    "flicker",
    "ratio",
    "level",
    "ratio",
    "PSNR, dB",
    "difference, dB",
    "ms a frame",
)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, metavar="PHOTO_OR_VIDEO")
    parser.add_argument(
        "--with", dest="degradations", action="append", metavar="NAME:PARAMETER=VALUE+..."
    )
    parser.add_argument("--weights", default="small")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--side", type=int, default=320, help="pixels, at most")
    parser.add_argument("--smoothing", type=float, nargs="+", default=[SMOOTHING])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    return parser


def rows(
    text: str,
    clip: list[FramePixels],
    clean: list[FramePixels],
    restorer: Restorer,
    smoothings: list[float],
) -> Iterator[list[str]]:
    """Yield the rows of one degradation: the degraded clip, then the restored ones."""
    before = measure(clip, clean)
    figures = [f"{before.flicker:.2f}", "", f"{before.level:.3f}", "", f"{before.psnr:.2f}"]
    yield [text, "degraded", *figures, "", ""]
    alone = None
    for smoothing in (0.0, *smoothings):
        stream = restorer.stream(clip, smoothing=smoothing)
        found = measure(stream, clean)
        alone = alone or found
        yield [
            "",
            f"restored, smoothing {smoothing:g}" if smoothing else "restored, each frame alone",
            f"{found.flicker:.2f}",
            f"{found.flicker / alone.flicker:.3f}",
            f"{found.level:.3f}",
            f"{found.level / alone.level:.3f}",
            f"{found.psnr:.2f}",
            f"{found.psnr - alone.psnr:+.2f}",
            f"{stream.report.median_ms:.0f}",
        ]


def main() -> None:
    """Measure and print a table."""
    command = parser()
    arguments = command.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    clean = clean_clip(arguments.source, arguments.frames, arguments.side)
    if len(clean) < 2:
        command.error(f"{arguments.source} gives {len(clean)} frames; flicker needs two and more")
    restorer = Restorer(arguments.weights, arguments.device)
    table = Table(*COLUMNS)
    for text in arguments.degradations or DEGRADATIONS:
        steps = parse_degradations(text)
        clip = [
            degraded(frame, number, steps, arguments.seed) for number, frame in enumerate(clean)
        ]
        for row in rows(text, clip, clean, restorer, arguments.smoothing):
            table.add_row(*row)
    console = Console(width=150)
    console.print(table)
    height, width = clean[0].shape[:2]
    console.print(
        f"{len(clean)} frames of {width} x {height} from {arguments.source.name}, "
        f"seed {arguments.seed}, {restorer.device}"
    )


if __name__ == "__main__":
    main()
