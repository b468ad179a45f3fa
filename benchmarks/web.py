"""Measure the page's network in a browser: seconds, sizes, and the difference to PyTorch.

    vrdir web build site
    python benchmarks/web.py site [--sides 512] [--repeats 3] [--int8] [--webgpu]

Chromium opens the page's own files and restores a photo of scikit-image (extra `demo`) by them, on
a host that allows threads, and on one that does not. PyTorch restores it, too, with as many
threads, each after one run that does not count. `--int8` adds the network in one graph, in float32
and with quantised convolutions (extra `export`), as benchmarks/int8.py makes it. `--webgpu` takes a
build with WebGPU, and adds it; without a graphics processor Chromium computes it on the CPU. It
needs playwright and Chromium.

    python benchmarks/web.py site --whole 7680x5208 [--service http://127.0.0.1:8000/]

A hazy photo of this size goes through the page as by a person, who chooses it, looks at the
preview, and downloads all pixels: on this device, or by a service that runs at the address. Printed
are the seconds and the memory of Chromium.
"""

from __future__ import annotations

import argparse
import base64
import functools
import io
import json
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch
from int8 import photo, quantise  # type: ignore[import-not-found]
from PIL import Image
from playwright.sync_api import Browser, sync_playwright
from rich.console import Console
from rich.table import Table
from torch import Tensor

from vrdir import VRDIR
from vrdir.degradations import apply_degradation
from vrdir.export import export

# Both restore a PNG some times, and return milliseconds, the last result and who computed it.
BY_PAGE = """async ({ image, repeats }) => {
  const { Device } = await import(new URL("device.js", location.href));
  const device = new Device();
  await device.find();
  const begin = performance.now();
  const { provider, threads } = await device.open();
  const load = performance.now() - begin;
  const file = await (await fetch(`data:image/png;base64,${image}`)).blob();
  const photo = new File([file], "photo.png", { type: "image/png" });
  const times = [];
  let blob;
  for (let run = 0; run <= repeats; run++) {
    const found = await device.restore(photo);
    times.push(found.milliseconds);
    blob = found.blob;
  }
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let text = "";
  for (let at = 0; at < bytes.length; at += 8192) {
    text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  }
  return { load, times: times.slice(1), result: btoa(text), provider, threads };
}"""
IN_ONE_GRAPH = """async ({ model, image, height, width, repeats }) => {
  const at = (file) => new URL(`runtime/${file}`, location.href).href;
  const ort = await import(at("ort.wasm.min.mjs"));
  const packed = await fetch(at("ort-wasm-simd-threaded.wasm.gz"));
  ort.env.wasm.wasmPaths = { mjs: at("ort-wasm-simd-threaded.mjs") };
  const stream = packed.body.pipeThrough(new DecompressionStream("gzip"));
  ort.env.wasm.wasmBinary = await new Response(stream).arrayBuffer();
  const threads = crossOriginIsolated ? navigator.hardwareConcurrency : 1;
  ort.env.wasm.numThreads = threads;
  const begin = performance.now();
  const file = new Uint8Array(await (await fetch(model)).arrayBuffer());
  const session = await ort.InferenceSession.create(file, { executionProviders: ["wasm"] });
  const load = performance.now() - begin;
  const bytes = Uint8Array.from(atob(image), (letter) => letter.charCodeAt(0));
  const input = Float32Array.from(bytes, (value) => value / 255);
  const feeds = { image: new ort.Tensor("float32", input, [1, 3, height, width]) };
  const times = [];
  let answer;
  for (let run = 0; run <= repeats; run++) {
    const start = performance.now();
    answer = await session.run(feeds);
    times.push(performance.now() - start);
  }
  const pixels = [...answer.restored.data].map((value) => Math.round(255 * value));
  return { load, times: times.slice(1), pixels, provider: "wasm", threads };
}"""


class Host(SimpleHTTPRequestHandler):
    """A web host, with or without the headers that threads need."""

    def __init__(self, *args: Any, isolated: bool, **options: Any) -> None:
        self.isolated = isolated
        super().__init__(*args, **options)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""

    def end_headers(self) -> None:
        """Add the headers that threads need."""
        if self.isolated:
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()


@contextmanager
def hosted(folder: Path, isolated: bool) -> Iterator[str]:
    """Give the address of a folder on a web host."""
    handler = functools.partial(Host, directory=str(folder), isolated=isolated)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as host:
        threading.Thread(target=host.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{host.server_port}/"
        host.shutdown()


def by_page(browser: Browser, address: str, image: Tensor, repeats: int) -> dict[str, Any]:
    """Restore by the page's own files, in a fresh page."""
    buffer = io.BytesIO()
    Image.fromarray(levels(image)).save(buffer, "PNG")
    given = {"image": base64.b64encode(buffer.getvalue()).decode(), "repeats": repeats}
    found = in_page(browser, address, BY_PAGE, given)
    result = Image.open(io.BytesIO(base64.b64decode(found["result"]))).convert("RGB")
    return found | {"pixels": np.asarray(result)}


def in_one_graph(
    browser: Browser, address: str, model: str, image: Tensor, repeats: int
) -> dict[str, Any]:
    """Restore by a whole ONNX file, in a fresh page."""
    height, width = image.shape[-2:]
    planes = levels(image).transpose(2, 0, 1).tobytes()
    given = {"model": model, "image": base64.b64encode(planes).decode(), "repeats": repeats}
    found = in_page(browser, address, IN_ONE_GRAPH, given | {"height": height, "width": width})
    pixels = np.array(found["pixels"]).reshape(3, height, width).transpose(1, 2, 0)
    return found | {"pixels": pixels}


def in_page(browser: Browser, address: str, script: str, given: dict[str, Any]) -> Any:
    """Run a script beside the files of a build."""
    page = browser.new_page()
    page.set_default_timeout(600_000)
    page.goto(f"{address}device.json")
    found = page.evaluate(script, given)
    page.close()
    return found


def levels(image: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return an image (1, 3, H, W) as (H, W, 3) in 8 bits."""
    return (image[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


def in_pytorch(model: VRDIR, image: Tensor, threads: int, repeats: int) -> tuple[float, Any]:
    """Return the seconds in PyTorch and the pixels in 8 bits."""
    torch.set_num_threads(threads)
    image = torch.from_numpy(levels(image)).permute(2, 0, 1)[None] / 255
    times = []
    with torch.no_grad():
        for _ in range(repeats + 1):
            start = time.perf_counter()
            restored = model(image)
            times.append(time.perf_counter() - start)
    return statistics.median(times[1:]), levels(restored).astype(int)


def read_arguments() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("site", type=Path)
    parser.add_argument("--sides", type=int, nargs="+", default=[512])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--webgpu", action="store_true")
    parser.add_argument("--whole", metavar="WIDTHxHEIGHT", help="a photo through the whole page")
    parser.add_argument("--service", metavar="ADDRESS", help="with --whole: not on this device")
    return parser.parse_args()


def square(side: int) -> Tensor:
    """Return a photo of side x side pixels, (1, 3, side, side)."""
    image = photo("coffee.png", side)
    return torch.cat([image, image.flip(-2)], 2)[..., :side, :]


def measure(
    arguments: argparse.Namespace, browser: Browser, site: Path, model: VRDIR, table: Table
) -> None:
    """Fill the table."""
    graphs = {}
    if arguments.int8:
        export(model, site / "float32.onnx", "onnx")
        quantise(site / "float32.onnx", site / "int8.onnx", [])
        graphs = {"one graph, float32": "float32.onnx", "one graph, int8": "int8.onnx"}
    for isolated in (True,) if arguments.webgpu else (False, True):
        with hosted(site, isolated) as address:
            for side in arguments.sides:
                image = square(side)
                rows = {"page": by_page(browser, address, image, arguments.repeats)}
                for title, file in graphs.items():
                    rows[title] = in_one_graph(browser, address, file, image, arguments.repeats)
                threads = rows["page"]["threads"]
                baseline, wanted = in_pytorch(model, image, threads, arguments.repeats)
                for title, found in rows.items():
                    seconds = statistics.median(found["times"]) / 1000
                    table.add_row(
                        title,
                        f"{side} x {side}",
                        f"{found['provider']}, {found['threads']}",
                        f"{found['load'] / 1000:.2f}",
                        f"{seconds:.2f}",
                        f"{seconds / baseline:.1f}",
                        f"{abs(found['pixels'] - wanted).max()} of 255",
                    )


def whole_way(arguments: argparse.Namespace) -> None:
    """Restore one photo by the page as a person does, and print the seconds and the memory."""
    width, height = map(int, arguments.whole.split("x"))
    generator = torch.Generator().manual_seed(0)
    hazy = apply_degradation(photo("coffee.png", 400), "haze", generator, beta=1.2).image
    buffer = io.BytesIO()
    Image.fromarray(levels(hazy)).resize((width, height)).save(buffer, "JPEG", quality=92)
    host = nullcontext(arguments.service) if arguments.service else hosted(arguments.site, True)
    with (
        tempfile.TemporaryDirectory() as folder,
        host as address,
        sync_playwright() as playwright,
    ):
        file = Path(folder) / "photo.jpg"  # playwright hands over large files by their path only
        file.write_bytes(buffer.getvalue())
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page()
        page.set_default_timeout(3_600_000)
        page.goto(address)
        page.wait_for_selector("html[data-ready]")
        begun = time.perf_counter()
        page.set_input_files("#files", file)
        page.get_by_text("photo.jpg is restored", exact=False).wait_for()
        shown = time.perf_counter() - begun
        with page.expect_download() as expected:
            page.click("#download")
            most = memory_of("chromium")
            while not page.get_by_text("All pixels of photo.jpg are restored").is_visible():
                most = max(most, memory_of("chromium"))
                page.wait_for_timeout(500)
                if page.is_visible("#error"):
                    raise SystemExit(page.inner_text("#error"))
        all_pixels = time.perf_counter() - begun - shown
        expected.value.save_as(file)
        with Image.open(file) as result:
            found = result.size
        browser.close()
    print(
        f"{width} x {height}: preview after {shown:.1f} s, then all pixels after {all_pixels:.0f}"
        f" s, a file of {found[0]} x {found[1]} pixels; Chromium: {most / 2**20:.1f} GiB at most"
    )


def memory_of(name: str) -> int:
    """Return the memory in KiB of all processes with a name, shared pages divided."""
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "comm").read_text().startswith(name):
                rollup = (process / "smaps_rollup").read_text()
                total += int(rollup.split("Pss:")[1].split()[0])
        except (OSError, IndexError):  # it ended
            continue
    return total


def main() -> None:
    """Measure and print a table."""
    arguments = read_arguments()
    if arguments.whole:
        whole_way(arguments)
        return
    facts = json.loads((arguments.site / "device.json").read_text())
    model = VRDIR.from_pretrained(facts["weights"])
    columns = ("network", "photo", "by, threads", "load, s", "run, s", "over PyTorch's")
    table = Table(*columns, "largest difference")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        site = Path(name) / "site"
        shutil.copytree(arguments.site, site)
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", *(["--enable-unsafe-webgpu"] if arguments.webgpu else [])],
        )
        measure(arguments, browser, site, model, table)
        browser.close()
    console = Console(width=150)
    console.print(table)
    load = os.getloadavg()[0]
    console.print(f"{facts['weights']}; {os.cpu_count()} cores, load average {load:.1f}; files:")
    for path in sorted(arguments.site.rglob("*")):
        size = path.stat().st_size / 2**20
        if path.is_file() and size > 1:
            console.print(f"  {path.relative_to(arguments.site)}: {size:.1f} MiB")


if __name__ == "__main__":
    main()
