"""`vrdir web build`: the folder and the file, and restoring in the browser without any service.

The tests in the browser need the extra `browser`, Chromium, and the variable ORT_WEB: a tarball of
onnxruntime-web, as `npm pack` writes it.
"""

from __future__ import annotations

import functools
import gzip
import io
import json
import re
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.clips import clip
from tests.conftest import TINY
from tests.serving.browsers import (
    AXE,
    ORT_WEB,
    WAIT_MS,
    check_accessible,
    choose,
    chromium,
    downloaded,
    failed,
    launched,
    needs_browser,
    needs_runtime,
    opened,
    restored,
    shown_pixels,
)
from tests.serving.servers import encoded
from typer.testing import CliRunner

from vrdir import VRDIR, Restorer
from vrdir.cli.app import app
from vrdir.errors import ExistsError, InputError, MissingFileError
from vrdir.model.config import PAPER, ContextConfig, VRDIRConfig
from vrdir.model.control import Control
from vrdir.serving import web_build
from vrdir.serving.page_files import FOLDER
from vrdir.serving.page_network import steps_of
from vrdir.serving.page_restoring import restored_by_steps, runner
from vrdir.serving.web_build import RUNTIME, WASM_FILES, build_page

pytest.importorskip("onnxscript", reason="needs the extra `export`")


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """A folder with the names of the runtime's files."""
    return names_of_runtime(tmp_path / "runtime")


def names_of_runtime(folder: Path) -> Path:
    folder.mkdir()
    for name in WASM_FILES:
        (folder / name).write_text("runtime")
    return folder


@pytest.fixture(scope="module")
def halved() -> VRDIR:
    """A small network whose values float16 holds, as those of bundled weights."""
    torch.manual_seed(0)
    network = VRDIR(TINY).eval()
    torch.nn.init.normal_(network.decoder.to_correction.weight, std=0.02)  # else it changes nothing
    network.load_state_dict({name: v.half().float() for name, v in network.state_dict().items()})
    return network


@pytest.fixture(scope="module")
def built(halved: VRDIR, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build without a real runtime."""
    folder = tmp_path_factory.mktemp("built")
    build_page(halved, "tiny", folder / "site", names_of_runtime(folder / "runtime"))
    return folder / "site"


def test_folder_has_the_page_the_network_and_the_runtime(built: Path, halved: VRDIR) -> None:
    facts = json.loads((built / "device.json").read_text())
    assert facts["offered"]
    assert facts["shares"] == list(halved.config.guidance_names)
    ends = [end for _, end in facts["steps"].values()]
    assert ends[-1] == (built / "network.bin").stat().st_size
    assert [start for start, _ in facts["steps"].values()] == [0, *ends[:-1]]
    for name in (*facts["files"], *facts["runtime"]):
        assert (built / name).exists(), name
    assert gzip.decompress((built / f"runtime/{WASM_FILES[2]}.gz").read_bytes()) == b"runtime"
    assert not set(facts["files"]) & {*facts["runtime"], "network.bin", "sw.js"}


def test_earlier_build_is_replaced_with_its_service_worker(
    built: Path, halved: VRDIR, runtime: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    shutil.copytree(built, site)
    sizes = build_page(halved, "again", site, runtime)
    assert sizes["index.html"] > 0
    assert json.loads((site / "device.json").read_text())["weights"] == "again"
    first, second = (
        re.search(r"vrdir-[0-9a-f]{16}", (folder / "sw.js").read_text()) for folder in (built, site)
    )
    assert first is not None
    assert second is not None
    assert first[0] != second[0]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_one_file_has_all_others_inside(built: Path) -> None:
    page = web_build.in_one_file(built)
    inside = set(re.findall(r'data-file="([^"]+)"', page))
    assert {"device.json", "network.bin", "strips.js", "samples/haze.jpg"} <= inside
    assert not re.search(r'(?:src|href)="(?!data:)[^"#]', page)  # nothing is loaded
    assert "Microsoft" in page  # the licences


def test_folder_with_other_files_is_not_changed(tiny: VRDIR, runtime: Path, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/thesis.txt").write_text("mine")
    with pytest.raises(ExistsError, match="other files"):
        build_page(tiny, "tiny", tmp_path / "site", runtime)


def test_wrong_runtime_package_is_rejected(tiny: VRDIR, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(MissingFileError, match=r"ort\.wasm"):
        build_page(tiny, "tiny", tmp_path / "site", tmp_path / "other")
    with tarfile.open(tmp_path / "other.tgz", "w:gz") as archive:
        archive.add(tmp_path / "other", "package/dist")
    with pytest.raises(InputError, match="SHA-512"):
        build_page(tiny, "tiny", tmp_path / "site", tmp_path / "other.tgz")
    with pytest.raises(MissingFileError, match=r"missing\.tgz"):
        build_page(tiny, "tiny", tmp_path / "site", tmp_path / "missing.tgz")
    assert "onnxruntime-web@" in RUNTIME
    assert not (tmp_path / "site").exists()  # nothing half written


def test_float16_values_take_two_bytes_without_loss(built: Path, halved: VRDIR) -> None:
    values = sum(value.numel() for value in halved.state_dict().values())
    assert values * 2 < (built / "network.bin").stat().st_size < values * 2 + 200_000


LIFTING, UNVEILING = (
    TINY.model_copy(update={"context": ContextConfig(tone=tone)}) for tone in (True, False)
)


def of_random_values(config: VRDIRConfig) -> VRDIR:
    """A network that changes images in all of its parts."""
    torch.manual_seed(0)
    network = VRDIR(config).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if not name.startswith("extractor"):
                parameter.add_(0.03 * torch.randn_like(parameter))
        if network.context is not None and not network.context.tone:
            network.context.to_gain.bias.add_(4.5)  # so that there is a veil to remove
    return network


@pytest.mark.parametrize("config", [PAPER, LIFTING, UNVEILING], ids=["paper", "tone", "veil"])
def test_all_kinds_of_networks_run_by_steps(config: VRDIRConfig) -> None:
    """A decoder without pixels; a context that raises contrast, and one that removes haze."""
    model = of_random_values(config)
    network = steps_of(model)
    image = torch.rand(1, 3, 37, 50, generator=torch.Generator().manual_seed(1))
    names = config.guidance_names
    for only in (None, ["haze"], ["noise"]):
        control = Control(0.7, None if only is None else frozenset(only))
        kept = torch.tensor([float(only is None or n in (*only, "clean")) for n in names])
        restored, shares = restored_by_steps(network, runner(network), image, kept, 0.7)
        with torch.no_grad():
            wanted = model.restore(image, control=control)
        assert (restored - wanted.image).abs().max() < 1e-4
        assert (shares - wanted.shares).abs().max() < 1e-4
        assert (wanted.image - image).abs().max() > 0.02


NODE = shutil.which("node")
TRANSFORM = """
import { mapOf, spectrumOf } from "./fourier.mjs";
import { readFileSync, writeFileSync } from "node:fs";
const [width, height] = process.argv.slice(2).map(Number);
const file = readFileSync("map"); // small files lie somewhere in a shared buffer
const values = new Float32Array(file.buffer.slice(file.byteOffset, file.byteOffset + file.length));
const { re, im } = spectrumOf(values, width, height);
writeFileSync("re", re);
writeFileSync("im", im);
writeFileSync("back", mapOf({ re, im }, width, height));
"""


@pytest.mark.skipif(NODE is None, reason="needs node")
@pytest.mark.parametrize("size", [(1, 1), (6, 5), (64, 30), (34, 17), (23, 46), (51, 1)])
def test_fourier_transform_of_the_page_is_correct(size: tuple[int, int], tmp_path: Path) -> None:
    """Lengths of small factors, and of large prime ones."""
    width, height = size
    shutil.copy(FOLDER / "fourier.js", tmp_path / "fourier.mjs")
    (tmp_path / "run.mjs").write_text(TRANSFORM)
    values = np.random.default_rng(0).normal(size=(height, width)).astype(np.float32)
    values.tofile(tmp_path / "map")
    assert NODE is not None
    subprocess.run([NODE, "run.mjs", str(width), str(height)], cwd=tmp_path, check=True)
    re, im, back = (np.fromfile(tmp_path / name, np.float32) for name in ("re", "im", "back"))
    wanted = np.fft.rfft2(values, norm="ortho").ravel()
    assert abs(re + 1j * im - wanted).max() < 1e-5
    assert abs(back - values.ravel()).max() < 1e-5


def test_command_refuses_webgpu_for_one_file(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["web", "build", str(tmp_path / "page.html"), "--webgpu"])
    assert result.exit_code != 0
    assert "--webgpu needs a folder" in result.output
    assert not (tmp_path / "page.html").exists()


# --- In the browser -------------------------------------------------------------------------------

in_browser = [*needs_browser, needs_runtime]


class PlainHost(SimpleHTTPRequestHandler):
    """A web host that knows nothing of vrdir, and logs nothing."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build") / "site"
    assert ORT_WEB
    build_page(VRDIR.from_pretrained("small"), "small", folder, Path(ORT_WEB), webgpu=True)
    return folder


@contextmanager
def hosted(site: Path) -> Iterator[str]:
    """Give the address of a folder on a plain web host."""
    handler = functools.partial(PlainHost, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as host:
        threading.Thread(target=host.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{host.server_port}/"
        host.shutdown()


@pytest.fixture(scope="module")
def static_site(site: Path) -> Iterator[str]:
    """A real build behind a plain web host."""
    with hosted(site) as address:
        yield address


@pytest.fixture(scope="module")
def lifting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A real build of a network whose global context changes every photo; and its weights."""
    folder = tmp_path_factory.mktemp("lifting")
    network = of_random_values(LIFTING)
    network.save_pretrained(folder / "weights")
    assert ORT_WEB
    build_page(network, "lifting", folder / "site", Path(ORT_WEB))
    with hosted(folder / "site") as address:
        yield address, folder / "weights"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


def mark(test: Any) -> Any:
    """Mark a test that needs the browser and the runtime."""
    for one in in_browser:
        test = one(test)
    return test


@mark
def test_device_restores_like_the_service_and_offline(
    browser: Any, static_site: str, cat: Image.Image
) -> None:
    """Within 1/255 of the network's pixels; a second time without the network, offline."""
    restorer = Restorer("small", "cpu")
    wanted = np.asarray(restorer(cat)).astype(int)
    with opened(browser, static_site) as page:
        assert page.is_checked("#device")
        assert page.evaluate("crossOriginIsolated")  # by the service worker: threads
        choose(page, ("cat.png", "image/png", encoded(cat)))
        restored(page, "cat.png")
        assert abs(shown_pixels(page, "#after") - wanted).max() <= 1
        page.context.set_offline(True)
        page.reload()
        page.wait_for_selector("html[data-ready]")
        choose(page, ("cat.png", "image/png", encoded(cat)))
        restored(page, "cat.png")
        assert abs(shown_pixels(page, "#after") - wanted).max() <= 1
        found = restorer.restore(torch.from_numpy(np.array(cat)).permute(2, 0, 1)[None] / 255)
        words = page.inner_text("#bars").split("Change")[1]
        assert abs(float(words.split()[0]) - found.diagnosis[0].changed) < 0.11
        if AXE:
            page.context.set_offline(False)
            check_accessible(page)


@mark
def test_borders_are_unchanged_on_the_device(
    browser: Any, static_site: str, cat: Image.Image
) -> None:
    """Black bars, one of them written on, and a white frame around them."""
    barred = Image.new("RGB", (64, 130), "black")
    barred.paste(cat, (0, 40))
    barred.paste("grey", (10, 113, 40, 119))
    framed = Image.new("RGB", (80, 150), "white")
    framed.paste(barred, (8, 10))
    wanted = np.asarray(Restorer("small", "cpu")(framed)).astype(int)
    with opened(browser, static_site) as page:
        choose(page, ("framed.png", "image/png", encoded(framed)))
        restored(page, "framed.png")
        found = shown_pixels(page, "#after")
    assert abs(found - wanted).max() <= 1
    assert (found == np.asarray(framed)).all(2)[:, :8].all()


@mark
def test_webgpu_gives_the_same_pixels(browser: Any, static_site: str, cat: Image.Image) -> None:
    """By Chromium's own graphics processor, which computes on the CPU."""
    from playwright.sync_api import expect

    with (
        launched(browser.browser_type, "--enable-unsafe-webgpu") as with_webgpu,
        opened(with_webgpu, static_site) as page,
    ):
        note = page.locator("#device-note")
        expect(note).to_contain_text("the graphics processor", timeout=WAIT_MS)
        choose(page, ("cat.png", "image/png", encoded(cat)))
        restored(page, "cat.png")
        wanted = np.asarray(Restorer("small", "cpu")(cat)).astype(int)
        assert abs(shown_pixels(page, "#after") - wanted).max() <= 1


@mark
def test_strength_and_only_work_on_the_device(
    browser: Any, static_site: str, cat: Image.Image
) -> None:
    from playwright.sync_api import expect

    with opened(browser, static_site) as page:
        choose(page, ("cat.png", "image/png", encoded(cat)))
        restored(page, "cat.png")
        for change, options in (
            (lambda: page.fill("#strength", "0.5"), {"strength": 0.5}),
            (lambda: page.uncheck("#only input[value=noise]"), {"strength": 0.5, "only": OTHERS}),
        ):
            first = page.get_attribute("#after", "src")
            change()
            expect(page.locator("#after")).not_to_have_attribute("src", first, timeout=WAIT_MS)
            restored(page, "cat.png")
            wanted = np.asarray(Restorer("small", "cpu", **options)(cat)).astype(int)
            assert abs(shown_pixels(page, "#after") - wanted).max() <= 1


OTHERS = ["haze", "rain", "sensor_noise"]


@mark
def test_large_photo_has_the_pixels_of_the_service(browser: Any, static_site: str) -> None:
    """Within 1/255 of the service's pixels, with progress; and it can be stopped."""
    from playwright.sync_api import expect

    photo = hazy_photo().resize((1500, 1003))
    with opened(browser, static_site) as page:
        choose(page, ("coffee.png", "image/png", encoded(photo)))
        restored(page, "coffee.png")
        page.click("#full")
        page.click("#stop-work")
        expect(page.locator("#status")).to_have_text("Stopped.", timeout=WAIT_MS)
        name, content = downloaded(page)
    assert name == "coffee.png"
    result = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    wanted = np.asarray(Restorer("small", "cpu")(photo)).astype(int)
    assert abs(wanted - np.asarray(photo)).mean() > 4
    assert abs(result - wanted).max() <= 1


@mark
def test_global_context_sees_the_whole_of_a_large_photo(
    browser: Any, lifting: tuple[str, Path]
) -> None:
    """In strips, each pixel is lifted by its place in the photo."""
    address, weights = lifting
    photo = hazy_photo().resize((1201, 905))
    with opened(browser, address) as page:
        choose(page, ("coffee.png", "image/png", encoded(photo)))
        restored(page, "coffee.png")
        content = downloaded(page)[1]
    result = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    wanted = np.asarray(Restorer(weights, "cpu")(photo)).astype(int)
    assert abs(wanted - np.asarray(photo)).mean() > 4
    assert abs(result - wanted).max() <= 1


def hazy_photo() -> Image.Image:
    """A photo with synthetic haze and noise."""
    import skimage.data

    whole = Image.open(Path(skimage.data.__file__).parent / "coffee.png").convert("RGB")
    noise = np.random.default_rng(0).normal(0, 12, (whole.height, whole.width, 3))
    hazy = 0.5 * np.asarray(whole) + 0.5 * 220 + noise
    return Image.fromarray(hazy.clip(0, 255).round().astype(np.uint8))


@mark
def test_download_on_the_device_keeps_metadata(browser: Any, static_site: str) -> None:
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "coffee", 1
    sent = encoded(hazy_photo(), "JPEG", exif=exif, quality=95)
    with opened(browser, static_site) as page:
        choose(page, ("coffee.jpg", "image/jpeg", sent))
        restored(page, "coffee.jpg")
        name, content = downloaded(page)
    result = Image.open(io.BytesIO(content))
    assert (name, result.size, result.format) == ("coffee.jpg", (600, 400), "JPEG")
    assert result.getexif()[0x010E] == "coffee"


@mark
def test_forty_megapixel_photo_starts_and_can_be_stopped(
    browser: Any, static_site: str, cat: Image.Image
) -> None:
    from playwright.sync_api import expect

    with opened(browser, static_site) as page:
        large = encoded(cat.resize((7728, 5176)), "JPEG")
        choose(page, ("forty.jpg", "image/jpeg", large))
        restored(page, "forty.jpg")
        assert "of 7728 x 5176 pixels" in page.inner_text("#size-note")
        page.click("#full")
        expect(page.locator("#progress")).to_have_attribute(
            "value", re.compile(r"0\.0"), timeout=WAIT_MS
        )
        page.click("#stop-work")
        expect(page.locator("#status")).to_have_text("Stopped.", timeout=WAIT_MS)


@mark
def test_files_that_a_browser_cannot_read_say_why(browser: Any, static_site: str) -> None:
    with opened(browser, static_site) as page:
        choose(page, ("cat.heic", "image/heic", b"\0\0\0\x18ftypheic"))
        failed(page, "cannot show HEIC or TIFF")
        choose(page, ("notes.txt", "text/plain", b"no image"))
        failed(page, "not an image that this browser can read")


@mark
def test_clips_and_the_webcam_on_the_device(browser: Any, static_site: str, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    path = clip(tmp_path / "clip.webm", frames=50, codec="libvpx", sound=None)
    with opened(browser, static_site) as page:
        choose(page, ("clip.webm", "video/webm", path.read_bytes()))
        page.wait_for_selector("#canvas[width='64']", timeout=WAIT_MS)
        page.wait_for_selector("#video-download:not([hidden])", timeout=WAIT_MS)
        page.click("#webcam")
        expect(page.locator("#rate")).to_contain_text("frames a second", timeout=WAIT_MS)
        page.wait_for_selector("#canvas[width='256']", timeout=WAIT_MS)
        page.click("#stop")


@mark
def test_one_file_page_works_from_disk_and_folder_explains_why_not(
    browser: Any, site: Path, cat: Image.Image, tmp_path: Path
) -> None:
    one = tmp_path / "page.html"
    one.write_text(web_build.in_one_file(site))
    with opened(browser, one.as_uri()) as page:
        choose(page, ("cat.png", "image/png", encoded(cat)))
        restored(page, "cat.png")
        wanted = np.asarray(Restorer("small", "cpu")(cat)).astype(int)
        assert abs(shown_pixels(page, "#after") - wanted).max() <= 1
        page.click("#samples button >> nth=0")
        restored(page, "haze.jpg")
    context = browser.new_context()
    page = context.new_page()
    page.goto((site / "index.html").as_uri())
    assert "vrdir web build page.html" in page.inner_text("#from-disk")
    context.close()
