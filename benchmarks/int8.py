"""What int8 would cost and save: the exported network, its convolutions quantised statically, in ONNX Runtime and OpenVINO.

    python benchmarks/int8.py [--weights small] [--threads 2] [--side 512]

Calibrated on photos of scikit-image (extra `demo`), clean and behind synthetic degradations; measured on another one: PSNR of float32 and
of int8 against the clean photo, PSNR between the two, and the time of int8 over float32's. Once with all convolutions, once without the
last one and those of the Fourier guidance. Needs the extras `export` and `openvino`. Nothing is kept: vrdir ships no int8.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

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
from vrdir.export.export import export
from vrdir.export.runtimes import INPUT, Backend, ExportedModel
from vrdir.restoring.restorer import network_of

CALIBRATION = ("astronaut.png", "chelsea.png", "motorcycle_left.png")
KINDS: dict[str, dict[str, float]] = {
    "clean": {},
    "noise": {"sigma": 25.0},
    "haze": {"beta": 1.2},
    "rain": {"coverage": 0.15},
}


def photo(name: str, side: int) -> Tensor:
    picture = (
        Image.open(Path(skimage.data.__file__).parent / name)
        .convert("RGB")
        .resize((side, side * 3 // 4))
    )
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255


def degraded(image: Tensor, kind: str, seed: int) -> Tensor:
    if kind == "clean":
        return image
    return apply_degradation(
        image, kind, torch.Generator().manual_seed(seed), **KINDS[kind]
    ).image.clamp(0, 1)


class Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        self.images = self.each()

    def each(self) -> Iterator[Tensor]:
        for name in CALIBRATION:
            for kind in KINDS:
                yield degraded(photo(name, 256), kind, 1)

    def get_next(self) -> dict[str, Any] | None:
        image = next(self.images, None)
        return None if image is None else {INPUT: image.numpy()}


def delicate(path: Path) -> list[str]:
    """Convolutions that int8 is worst for: the last, whose output is the correction, and those of the Fourier guidance."""
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
    times = []
    for _ in range(6):
        start = time.perf_counter()
        model.restore(image)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default="small")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", type=int, default=512)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    table = Table(
        "backend",
        "quantised",
        "input (synthetic)",
        "float32, dB",
        "int8, dB",
        "between, dB",
        "time over float32's",
    )
    with tempfile.TemporaryDirectory() as name:
        exact = Path(name) / "float32.onnx"
        export(network_of(arguments.weights), exact, "onnx")
        kept = delicate(exact)
        for says, left_out in (("all convolutions", []), (f"all but {len(kept)}", kept)):
            coarse = Path(name) / f"int8-{len(left_out)}.onnx"
            quantize_static(
                exact,
                coarse,
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                nodes_to_exclude=left_out,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
            for backend in [b for b in get_args(Backend) if b != "torch"]:
                models = ExportedModel(exact, backend), ExportedModel(coarse, backend)
                image = photo("coffee.png", arguments.side)
                for kind in KINDS:
                    given = degraded(image, kind, 7)
                    float32, int8 = (model.restore(given).image for model in models)
                    ratio = milliseconds(models[1], given) / milliseconds(models[0], given)
                    figures = [
                        float(psnr_rgb(a, b)[0])
                        for a, b in ((float32, image), (int8, image), (int8, float32))
                    ]
                    table.add_row(
                        backend,
                        says,
                        kind,
                        *(f"{figure:.2f}" for figure in figures),
                        f"{ratio:.2f}",
                    )
    console = Console(width=130)
    console.print(table)
    console.print(
        f"{arguments.weights}, {arguments.threads} threads, {arguments.side} x {arguments.side * 3 // 4}"
    )


if __name__ == "__main__":
    main()
