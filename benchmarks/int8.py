"""Measure what int8 costs and saves: the exported network with quantised convolutions.

    python benchmarks/int8.py [--weights small] [--threads 2] [--side 512]

The convolutions are quantised statically, and run in each backend. Calibration uses photos of
scikit-image (extra `demo`), clean and with synthetic degradations; another photo is measured: PSNR
of float32 and of int8 against the clean photo, PSNR between the two, and the time of int8 over that
of float32. This is done with all convolutions, and without the last one and those of the Fourier
guidance. It needs the extras `export` and `openvino`. No file is kept: vrdir ships no int8.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import skimage.data
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from vrdir.degradations.degrade import apply_degradation
from vrdir.evaluation.restoration.metrics import psnr_rgb
from vrdir.export import BACKENDS, ExportedModel, export
from vrdir.export.contract import INPUT
from vrdir.restoring import network_of

CALIBRATION = ("astronaut.png", "chelsea.png", "motorcycle_left.png")
KINDS: dict[str, dict[str, Any]] = {
    "clean": {},
    "noise": {"sigma": 25.0},
    "haze": {"beta": 1.2},
    "rain": {"coverage": 0.15},
}


def photo(name: str, side: int) -> Tensor:
    """Return a photo of this width, (1, 3, H, W) in [0, 1]."""
    picture = (
        Image.open(Path(skimage.data.__file__).parent / name)
        .convert("RGB")
        .resize((side, side * 3 // 4))
    )
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255


def degraded(image: Tensor, kind: str, seed: int) -> Tensor:
    """Return an image with a degradation of `KINDS`."""
    if kind == "clean":
        return image
    return apply_degradation(
        image, kind, torch.Generator().manual_seed(seed), **KINDS[kind]
    ).image.clamp(0, 1)


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """The images for calibration."""

    def __init__(self) -> None:
        self.images = self.each()

    def each(self) -> Iterator[Tensor]:
        """Yield the images."""
        for name in CALIBRATION:
            for kind in KINDS:
                yield degraded(photo(name, 256), kind, 1)

    def get_next(self) -> dict[str, Any] | None:
        """Return the next input; None at the end."""
        image = next(self.images, None)
        return None if image is None else {INPUT: image.numpy()}


def sensitive(path: Path) -> list[str]:
    """Return the convolutions that lose most with int8: the last, and the Fourier guidance's."""
    graph = onnx.load(path).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    last = [
        node.name
        for node in convolutions
        if shapes.get(node.input[1], (0,))[0] == 24 and shapes[node.input[1]][2:] == (3, 3)
    ][-1:]
    return last + [
        node.name
        for node in convolutions
        if "amplitude" in node.input[1] or "guidance" in node.input[1]
    ]


def milliseconds(model: ExportedModel, image: Tensor) -> float:
    """Return the median time of a run."""
    times = []
    for _ in range(6):
        start = time.perf_counter()
        model.restore(image)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[1:])


def quantise(exact: Path, target: Path, left_out: list[str]) -> None:
    """Write a copy of a network whose convolutions compute in int8, except those left out."""
    quantize_static(
        exact,
        target,
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv"],
        nodes_to_exclude=left_out,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
    )


def compared(exact: Path, coarse: Path, backend: str, side: int) -> Iterator[list[str]]:
    """Yield the kind of image, three PSNR in dB and the ratio of times, for each kind."""
    models = ExportedModel(exact, backend), ExportedModel(coarse, backend)
    image = photo("coffee.png", side)
    for kind in KINDS:
        given = degraded(image, kind, 7)
        float32, int8 = (model.restore(given).image for model in models)
        ratio = milliseconds(models[1], given) / milliseconds(models[0], given)
        pairs = ((float32, image), (int8, image), (int8, float32))
        yield [kind, *(f"{float(psnr_rgb(a, b)[0]):.2f}" for a, b in pairs), f"{ratio:.2f}"]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default="small")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", type=int, default=512)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    columns = ("backend", "quantised", "input (synthetic)", "float32, dB", "int8, dB")
    table = Table(*columns, "between, dB", "time over float32's")
    with tempfile.TemporaryDirectory() as name:
        exact = Path(name) / "float32.onnx"
        export(network_of(arguments.weights), exact, "onnx")
        kept = sensitive(exact)
        for title, left_out in (("all convolutions", []), (f"all but {len(kept)}", kept)):
            coarse = Path(name) / f"int8-{len(left_out)}.onnx"
            quantise(exact, coarse, left_out)
            for backend in BACKENDS:
                for row in compared(exact, coarse, backend, arguments.side):
                    table.add_row(backend, title, *row)
    console = Console(width=130)
    console.print(table)
    size = f"{arguments.side} x {arguments.side * 3 // 4}"
    console.print(f"{arguments.weights}, {arguments.threads} threads, {size}")


if __name__ == "__main__":
    main()
