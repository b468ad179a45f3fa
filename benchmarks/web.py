"""Measure the page's network in a browser: seconds, sizes, and the difference to PyTorch.

    vrdir web build site
    python benchmarks/web.py site [--side 512] [--threads 1 2] [--repeats 3] [--int8] [--webgpu]

Chromium runs the network of a build by onnxruntime-web on a photo of scikit-image (extra `demo`),
and PyTorch runs it, too, each after one run that does not count. `--int8` adds a copy with
quantised convolutions (extra `export`), as benchmarks/int8.py makes it. `--webgpu` adds WebGPU, for
a build with it; without a graphics processor Chromium computes it on the CPU. It needs playwright
and Chromium.
"""

from __future__ import annotations

import argparse
import base64
import functools
import gzip
import json
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch
from int8 import photo, quantise  # type: ignore[import-not-found]
from playwright.sync_api import Page, sync_playwright
from rich.console import Console
from rich.table import Table
from torch import Tensor

from vrdir import VRDIR
from vrdir.export import export

# Runs a network some times; returns milliseconds and the last result's pixels in 8 bits.
MEASURE = """async (given) => {
  const { model, provider, threads, repeats, image, height, width } = given;
  const gpu = provider === "webgpu";
  const name = gpu ? "ort-wasm-simd-threaded.asyncify" : "ort-wasm-simd-threaded";
  const at = (file) => new URL(`runtime/${file}`, location.href).href;
  const ort = await import(at(gpu ? "ort.webgpu.min.mjs" : "ort.wasm.min.mjs"));
  const packed = await fetch(at(`${name}.wasm.gz`));
  ort.env.wasm.wasmPaths = { mjs: at(`${name}.mjs`) };
  const stream = packed.body.pipeThrough(new DecompressionStream("gzip"));
  ort.env.wasm.wasmBinary = await new Response(stream).arrayBuffer();
  ort.env.wasm.numThreads = threads;
  const begin = performance.now();
  const file = new Uint8Array(await (await fetch(model)).arrayBuffer());
  const session = await ort.InferenceSession.create(file, { executionProviders: [provider] });
  const load = performance.now() - begin;
  const bytes = Uint8Array.from(atob(image), (letter) => letter.charCodeAt(0));
  const tensor = (values, shape) => new ort.Tensor("float32", Float32Array.from(values), shape);
  const feeds = { image: tensor(bytes, [1, 3, height, width]) };
  feeds.image.data.forEach((value, place, all) => { all[place] = value / 255; });
  if (session.inputNames.length > 1) Object.assign(feeds, {
    strength: tensor([1], [1]), own: tensor([1], [1]),
    kept: tensor(Array(given.shares).fill(1), [given.shares]),
    moments: tensor(Array(given.moments).fill(0), [given.moments]),
  });
  const times = [];
  let answer;
  for (let run = 0; run <= repeats; run++) {
    const start = performance.now();
    answer = await session.run(feeds);
    times.push(performance.now() - start);
  }
  const pixels = [...answer.restored.data].map((value) => Math.round(255 * value));
  return { load, times: times.slice(1), pixels, isolated: crossOriginIsolated };
}"""


class Host(SimpleHTTPRequestHandler):
    """A web host that lets pages have threads."""

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""

    def end_headers(self) -> None:
        """Add the headers that threads need."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()


@contextmanager
def hosted(folder: Path) -> Iterator[str]:
    """Give the address of a folder on a web host."""
    handler = functools.partial(Host, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as host:
        threading.Thread(target=host.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{host.server_port}/"
        host.shutdown()


def measured(page: Page, address: str, image: Tensor, facts: Any, **how: Any) -> dict[str, Any]:
    """Run one network in a fresh page."""
    page.goto(f"{address}device.json")
    levels = (image * 255).round().to(torch.uint8)
    given = {
        "image": base64.b64encode(levels.numpy().tobytes()).decode(),
        "height": image.shape[-2],
        "width": image.shape[-1],
        "moments": facts["moments"],
        "shares": len(facts["shares"]),
    }
    found: dict[str, Any] = page.evaluate(MEASURE, given | how)
    return found


def in_pytorch(model: VRDIR, image: Tensor, threads: int, repeats: int) -> tuple[float, Any]:
    """Return the seconds in PyTorch and the pixels in 8 bits."""
    torch.set_num_threads(threads)
    times = []
    with torch.no_grad():
        for _ in range(repeats + 1):
            start = time.perf_counter()
            restored = model(image)
            times.append(time.perf_counter() - start)
    return statistics.median(times[1:]), (restored * 255).round().int().flatten().numpy()


def networks(arguments: argparse.Namespace, model: VRDIR, site: Path) -> dict[str, str]:
    """Return the files to run, by their titles."""
    found = {"page (float16 stored, float32 computed)": "model.onnx"}
    if arguments.int8:
        export(model, site / "float32.onnx", "onnx")
        quantise(site / "float32.onnx", site / "int8.onnx", [])
        found |= {"float32, as `vrdir export onnx`": "float32.onnx", "int8": "int8.onnx"}
    return found


def read_arguments() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("site", type=Path)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--webgpu", action="store_true")
    return parser.parse_args()


def sizes(file: Path) -> tuple[str, str]:
    """Return the size of a file and of the same packed, in MiB."""
    content = file.read_bytes()
    return f"{len(content) / 2**20:.1f}", f"{len(gzip.compress(content)) / 2**20:.1f}"


def main() -> None:
    """Measure and print a table."""
    arguments = read_arguments()
    facts = json.loads((arguments.site / "device.json").read_text())
    model = VRDIR.from_pretrained(facts["weights"])
    image = photo("coffee.png", arguments.side)
    image = torch.cat([image, image.flip(-2)], 2)[..., : arguments.side, :]
    table = Table(
        "network",
        "by",
        "MiB",
        "packed",
        "load, s",
        "run, s",
        "over PyTorch's",
        "largest difference",
    )
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        site = Path(name) / "site"
        shutil.copytree(arguments.site, site)
        files = networks(arguments, model, site)
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", *(["--enable-unsafe-webgpu"] if arguments.webgpu else [])],
        )
        page = browser.new_page()
        page.set_default_timeout(600_000)
        ways = [("wasm", threads) for threads in arguments.threads]
        ways += [("webgpu", 1)] if arguments.webgpu else []
        with hosted(site) as address:
            for provider, threads in ways:
                baseline, wanted = in_pytorch(model, image, threads, arguments.repeats)
                for title, file in files.items():
                    found = measured(
                        page,
                        address,
                        image,
                        facts,
                        model=file,
                        provider=provider,
                        threads=threads,
                        repeats=arguments.repeats,
                    )
                    seconds = statistics.median(found["times"]) / 1000
                    difference = abs(np.array(found["pixels"]) - wanted).max()
                    table.add_row(
                        title,
                        f"{provider}, {threads} threads",
                        *sizes(site / file),
                        f"{found['load'] / 1000:.2f}",
                        f"{seconds:.2f}",
                        f"{seconds / baseline:.1f}",
                        f"{difference} of 255",
                    )
        browser.close()
    console = Console(width=150)
    console.print(table)
    console.print(f"{facts['weights']}, {arguments.side} x {arguments.side}; files of the build:")
    for path in sorted(arguments.site.rglob("*")):
        size = path.stat().st_size / 2**20
        if path.is_file() and size > 1:
            console.print(f"  {path.relative_to(arguments.site)}: {size:.1f} MiB")


if __name__ == "__main__":
    main()
