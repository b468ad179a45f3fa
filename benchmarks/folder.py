"""The command line over a folder of photos, beside the bare network on the same pixels in memory; and where the time goes.

    python benchmarks/folder.py [--photos 200] [--side 512] [--format jpg] [--threads 2]

The photos are cut from scikit-image's (extra `demo`) and get synthetic noise. "Bare network" is one image after the other on all
threads, without reading and writing; the command line's time is that of the whole process, its start included.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import skimage.data
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

import vrdir
from vrdir.images.convert import open_image
from vrdir.images.reading import read_file
from vrdir.images.writing import encode, format_of


def write_photos(folder: Path, count: int, side: int, suffix: str) -> list[Path]:
    sources = [
        Image.open(Path(skimage.data.__file__).parent / name).convert("RGB")
        for name in ("astronaut.png", "coffee.png", "chelsea.png")
    ]
    generator = np.random.default_rng(0)
    paths = []
    for number in range(count):
        source = sources[number % len(sources)]
        left, top = (int(generator.integers(0, room // 3)) for room in source.size)
        part = source.crop(
            (left, top, left + source.width * 2 // 3, top + source.height * 2 // 3)
        ).resize((side, side), Image.Resampling.BICUBIC)
        noisy = np.asarray(part) + 15 * generator.standard_normal((side, side, 3))
        paths.append(folder / f"{number:04d}.{suffix}")
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=92)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--side", type=int, default=512, metavar="PIXELS")
    parser.add_argument("--format", default="jpg")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    restorer = vrdir.Restorer("small", "cpu", precision=arguments.precision)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "photos"
        folder.mkdir()
        paths = write_photos(folder, arguments.photos, arguments.side, arguments.format)
        seconds = dict.fromkeys(
            (
                "read and decode",
                "into the network's form",
                "network",
                "out of it",
                "encode and write",
            ),
            0.0,
        )
        for number, path in enumerate(paths):
            clock = [time.perf_counter()]
            picture = read_file(path)
            clock.append(time.perf_counter())
            opened = open_image(picture)
            clock.append(time.perf_counter())
            with torch.no_grad():
                restored = restorer.restore(opened.tensor).image
            clock.append(time.perf_counter())
            closed = opened.close(restored)
            clock.append(time.perf_counter())
            path.with_suffix(".out").write_bytes(encode(closed, format_of(path)))
            clock.append(time.perf_counter())
            if number >= 5:  # the first warm up
                for key, start, stop in zip(seconds, clock, clock[1:], strict=False):
                    seconds[key] += (stop - start) / (len(paths) - 5)
        bare = seconds["network"] * len(paths)

        command = [
            sys.executable,
            "-m",
            "vrdir",
            "restore",
            str(folder),
            "-o",
            str(Path(name) / "out"),
            "--device",
            "cpu",
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
        start = time.perf_counter()
        subprocess.run(
            [*command, "--precision", arguments.precision],
            check=True,
            env=environment,
            capture_output=True,
        )
        whole = time.perf_counter() - start
        start = time.perf_counter()
        subprocess.run(
            [*command[:4], str(paths[0]), "-o", str(Path(name) / "one.png"), "--device", "cpu"],
            check=True,
            capture_output=True,
        )
        one = time.perf_counter() - start

    table = Table("one after the other", "ms a photo", "share")
    for key, value in seconds.items():
        table.add_row(key, f"{1000 * value:.1f}", f"{value / sum(seconds.values()):.0%}")
    console = Console()
    console.print(table)
    console.print(
        f"bare network: {bare:.1f} s for {len(paths)} photos; command line: {whole:.1f} s, {whole / bare:.2f} of it"
    )
    console.print(f"of which the process with one photo takes {one:.1f} s")
    console.print(
        f"{arguments.side} x {arguments.side} {arguments.format}, {arguments.threads} threads, {arguments.precision}"
    )


if __name__ == "__main__":
    main()
