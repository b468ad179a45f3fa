"""Measure how many frames a second a camera gives, and at which delay and quality.

    OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=10000 python benchmarks/live.py rates [--seconds 6]
        [--sizes 640x360 1280x720 1920x1080] [--backends float32 bf16 onnx openvino]
        [--sides 0 960 640]
    python benchmarks/live.py stages [--sizes 1280x720]
    python benchmarks/live.py quality FOLDER [--sides 960 640 480]
    python benchmarks/live.py detector DETECTOR.onnx [--seconds 8]
    python benchmarks/live.py clip FOLDER TARGET.mp4

`rates` plays a clip of 30 frames a second in real time and restores it by `vrdir.Camera`, in each
backend, with the whole frame and with a smaller copy for the network (`network_side`). Printed are
frames restored a second, the delay, processor milliseconds a frame, and the time over that of the
bare network in the same backend, measured in turn. `stages` prints what each step of a frame takes.

`quality` restores photos of a folder, cut to 1280 x 720 and with synthetic degradations, with the
whole frame and by smaller copies: PSNR against the clean photo, and against the whole frame's.

`detector` runs a detector (an ONNX file with its card) behind the camera in the same
process, each combination in its own process: with threads that spin while they wait, as by
default, and with ones that sleep.

`clip` makes a video of a folder's pictures, each of which glides by for a second.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import skimage.data
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from vrdir import Camera, Restorer
from vrdir.degradations.degrade import apply_degradation
from vrdir.evaluation.restoration.metrics import psnr_rgb
from vrdir.restoring.stream import SMOOTHING
from vrdir.serving.camera_guided import apply_to

RATE = 30
WARM_UP = 4  # frames that are not counted
KINDS: dict[str, dict[str, Any]] = {
    "haze": {"beta": 1.2},
    "noise": {"sigma": 15.0},
    "rain": {"coverage": 0.1},
}
QUIET = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "0"}
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def restorer(backend: str) -> Restorer:
    """Return a restorer: "float32" and "bf16" are PyTorch's."""
    if backend in ("float32", "bf16"):
        return Restorer("small", "cpu", precision=backend)  # type: ignore[arg-type]
    return Restorer("small", "cpu", backend=backend)


def size_of(text: str) -> tuple[int, int]:
    """Return a size such as 640x360."""
    width, height = text.split("x")
    return int(width), int(height)


def picture(width: int, height: int, shift: int = 0) -> Pixels:
    """Return a window of a photo with synthetic haze and some noise, (H, W, 3)."""
    path = Path(skimage.data.__file__).parent / "coffee.png"
    photo = Image.open(path).convert("RGB").resize((width + 64, height + 64))
    window = np.asarray(photo.crop((shift % 64, 0, shift % 64 + width, height))).astype(float)
    noise = np.random.default_rng(shift).normal(0, 4, window.shape)
    hazy: Pixels = (0.5 * window + 110 + noise).clip(0, 255).astype(np.uint8)
    return hazy


def write_clip(path: Path, frames: Iterator[Pixels], rate: int = RATE) -> None:
    """Write frames as H.264."""
    with av.open(str(path), "w") as container:
        stream: Any = None
        for pixels in frames:
            if stream is None:
                options = {"preset": "veryfast", "crf": "20", "tune": "zerolatency"}
                stream = container.add_stream("libx264", rate=rate, options=options)
                stream.height, stream.width = pixels.shape[:2]
                stream.pix_fmt = "yuv420p"
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def median_ms(work: Callable[[], Any], repeats: int = 5) -> float:
    """Return the median time of some work."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def network_ms(restore: Restorer, pixels: Pixels, repeats: int = 5) -> float:
    """Return the time of the bare network for a picture."""
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    image = image.contiguous(memory_format=torch.channels_last)
    half = torch.autocast("cpu", torch.bfloat16, enabled=restore.precision == "bf16")

    def run() -> None:
        with torch.no_grad(), half:
            restore.network.restore(image)

    return median_ms(run, repeats)


def rates(arguments: argparse.Namespace) -> None:
    """Print the table of frame rates."""
    table = Table("frame", "backend", "network sees", "frames/s", "p50, p95 ms")
    for heading in ("dropped", "CPU ms a frame", "over the bare network"):
        table.add_column(heading)
    with tempfile.TemporaryDirectory() as folder:
        clips = {}
        for size in arguments.sizes:
            clips[size] = Path(folder) / f"{size}.mp4"
            count = int(RATE * (arguments.seconds + 30))  # a large frame takes seconds
            pictures = [picture(*size_of(size), shift=number) for number in range(8)]
            write_clip(clips[size], itertools.islice(itertools.cycle(pictures), count))
        for backend in arguments.backends:
            restore = restorer(backend)
            for size, side in itertools.product(arguments.sizes, arguments.sides):
                if 0 < side < max(size_of(size)) or side == 0:
                    table.add_row(
                        *row(restore, backend, size, side, clips[size], arguments.seconds)
                    )
    Console(width=120).print(table)


def row(
    restore: Restorer, backend: str, size: str, side: int, clip: Path, seconds: float
) -> list[str]:
    """Play a clip; return a row of the table."""
    width, height = size_of(size)
    seen = width if side == 0 else side
    bare = network_ms(restore, picture(seen, round(seen * height / width)), repeats=3)
    smoothing = SMOOTHING if backend in ("float32", "bf16") else 0.0  # the others have none
    with Camera(clip, restore=restore, network_side=side or None, smoothing=smoothing) as camera:
        for _ in range(WARM_UP):
            next(camera)
        before = camera.report
        start, busy = time.perf_counter(), time.process_time()
        for _ in camera:
            if time.perf_counter() - start >= seconds:
                break
        took, busy = time.perf_counter() - start, time.process_time() - busy
        after = camera.report
    count = max(after.restored - before.restored, 1)
    return [
        size,
        backend,
        f"{seen} x {round(seen * height / width)}",
        f"{count / took:.1f}",
        f"{after.p50_ms:.0f}, {after.p95_ms:.0f}",
        str(after.dropped - before.dropped),
        f"{1000 * busy / count:.0f}",
        f"{1000 * took / count / bare:.2f}",
    ]


def stages(arguments: argparse.Namespace) -> None:
    """Print what each step of a frame takes."""
    table = Table("step", *arguments.sizes, title="milliseconds")
    columns = [steps(*size_of(size)) for size in arguments.sizes]
    for step in columns[0]:
        table.add_row(step, *(f"{column[step]:.1f}" for column in columns))
    Console().print(table)


def steps(width: int, height: int) -> dict[str, float]:
    """Return what each step of a frame takes, in milliseconds."""
    pixels = picture(width, height)
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
    seen = min(640, width), round(min(640, width) * height / width)
    copy = frame.reformat(*seen, "rgb24").to_ndarray()
    half = restorer("bf16")
    stream = half.stream(itertools.repeat(pixels))

    def jpeg() -> None:
        Image.fromarray(pixels).save(io.BytesIO(), "JPEG", quality=85)

    return {
        "YUV to RGB": median_ms(lambda: frame.reformat(format="rgb24").to_ndarray()),
        "copy of 640 pixels": median_ms(lambda: frame.reformat(*seen, "rgb24")),
        "network, float32": network_ms(restorer("float32"), pixels),
        "network, bf16": network_ms(half, pixels),
        "the same as a stream": median_ms(lambda: next(stream)),
        "network, bf16, on the copy": network_ms(half, copy),
        "applied to the frame": median_ms(lambda: apply_to(pixels, copy, copy)),
        "JPEG": median_ms(jpeg),
    }


def quality(arguments: argparse.Namespace) -> None:
    """Print what a smaller copy costs in PSNR."""
    table = Table("degradation (synthetic)", "degraded", "whole frame")
    for side in arguments.sides:
        table.add_column(f"{side}: to clean, to whole frame")
    photos = sorted(p for p in arguments.folder.iterdir() if p.suffix in (".jpg", ".png"))
    restore = restorer("float32")
    for kind, values in KINDS.items():
        scores: dict[str, list[float]] = {}
        for number, path in enumerate(photos[: arguments.photos]):
            clean = torch.from_numpy(cut(path)).permute(2, 0, 1)[None] / 255
            generator = torch.Generator().manual_seed(number)
            frame = to_pixels(apply_degradation(clean, kind, generator, **values).image[0])
            whole = restore(frame)
            score(scores, "degraded", frame, clean)
            score(scores, "whole", whole, clean)
            for side in arguments.sides:
                size = side, side * 720 // 1280
                small = Image.fromarray(frame).resize(size, Image.Resampling.BOX)
                copy = np.asarray(small).copy()
                result = apply_to(frame, copy, restore(copy))
                score(scores, f"{side}", result, clean)
                score(scores, f"{side} to whole", result, to_tensor(whole))
        means = {name: f"{statistics.mean(values):.2f}" for name, values in scores.items()}
        sides = (f"{means[f'{side}']}, {means[f'{side} to whole']}" for side in arguments.sides)
        table.add_row(kind, means["degraded"], means["whole"], *sides)
    Console(width=120).print(table)


def cut(path: Path) -> Pixels:
    """Return a photo as 1280 x 720, (H, W, 3)."""
    photo = Image.open(path).convert("RGB")
    scale = max(1280 / photo.width, 720 / photo.height)
    photo = photo.resize((round(photo.width * scale), round(photo.height * scale)))
    left, top = (photo.width - 1280) // 2, (photo.height - 720) // 2
    return np.asarray(photo.crop((left, top, left + 1280, top + 720))).copy()


def to_pixels(image: torch.Tensor) -> Pixels:
    """Return (3, H, W) in [0, 1] as (H, W, 3) of 8 bits."""
    values = (255 * image).round().clamp(0, 255).to(torch.uint8)
    pixels: Pixels = values.permute(1, 2, 0).contiguous().numpy()
    return pixels


def to_tensor(pixels: Pixels) -> torch.Tensor:
    """Return (H, W, 3) of 8 bits as (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255


def score(scores: dict[str, list[float]], name: str, pixels: Pixels, clean: torch.Tensor) -> None:
    """Note the PSNR of a result."""
    scores.setdefault(name, []).append(psnr_rgb(to_tensor(pixels), clean)[0])


def detector(arguments: argparse.Namespace) -> None:
    """Print the table of a detector behind the camera."""
    if arguments.run:
        print(json.dumps(run_both(arguments)))
        return
    table = Table("restoring by", "detector", "waiting threads", "frames/s", "CPU ms a frame")
    for backend, runs in itertools.product(arguments.backends, ("none", "alone", "behind")):
        for quiet in (False, True):
            command = [sys.executable, __file__, "detector", str(arguments.detector)]
            command += ["--run", runs, "--backends", backend, "--seconds", str(arguments.seconds)]
            surroundings = {k: v for k, v in os.environ.items() if k not in QUIET}
            surroundings |= QUIET if quiet else {}
            done = subprocess.run(
                command, env=surroundings, check=True, stdout=subprocess.PIPE, text=True
            )
            figures = json.loads(done.stdout)
            table.add_row(
                "-" if runs == "alone" else backend,
                runs,
                "sleep" if quiet else "spin",
                f"{figures['rate']:.1f}",
                f"{figures['cpu_ms']:.0f}",
            )
    Console().print(table)


def run_both(arguments: argparse.Namespace) -> dict[str, float]:
    """Restore frames, detect in them, or both, for some seconds; return the rate and CPU time."""
    from vrdir.evaluation.recognition.registry import find_task

    finds = arguments.run != "none"
    restores = arguments.run != "alone"
    find = find_task("detection").load(str(arguments.detector)) if finds else None
    pixels = picture(640, 360)
    stream = restorer(arguments.backends[0]).stream(itertools.repeat(pixels), smoothing=0)
    start = busy = 0.0
    for count in itertools.count(-WARM_UP):
        if count == 0:
            start, busy = time.perf_counter(), time.process_time()
        elif count > 0 and time.perf_counter() - start >= arguments.seconds:
            break
        frame = next(stream) if restores else pixels
        if find is not None:
            find(frame)
    took, busy = time.perf_counter() - start, time.process_time() - busy
    return {"rate": count / took, "cpu_ms": 1000 * busy / count}


def clip(arguments: argparse.Namespace) -> None:
    """Make a video of a folder's pictures."""

    def frames() -> Iterator[Pixels]:
        for path in sorted(arguments.folder.glob("*.jpg"))[: arguments.photos]:
            photo = Image.open(path).convert("RGB")
            scale = max(1344 / photo.width, 720 / photo.height)
            photo = photo.resize((round(photo.width * scale), round(photo.height * scale)))
            for step in range(RATE):
                yield np.asarray(photo.crop((2 * step, 0, 2 * step + 1280, 720)))

    write_clip(arguments.target, frames())


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument("--photos", type=int, default=8)
    parser.add_argument("--sizes", nargs="+", default=["640x360", "1280x720", "1920x1080"])
    parser.add_argument("--backends", nargs="+", default=["float32", "bf16", "onnx", "openvino"])
    parser.add_argument("--sides", nargs="+", type=int, default=[0, 960, 640], help="0: the frame")
    parser.add_argument("measurement", choices=("rates", "stages", "quality", "detector", "clip"))
    parser.add_argument("paths", nargs="*", type=Path)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    paths = [*arguments.paths, None, None]
    arguments.folder = arguments.detector = paths[0]
    arguments.target = paths[1]
    if arguments.measurement == "quality":
        arguments.sides = [side for side in arguments.sides if side]
    globals()[arguments.measurement](arguments)


if __name__ == "__main__":
    main()
