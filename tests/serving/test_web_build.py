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
import tarfile
import threading
from collections.abc import Iterator
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
from vrdir.model.config import FIELD
from vrdir.serving import web_build
from vrdir.serving.page_network import PageNetwork
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
    assert facts["moments"] == PageNetwork(halved).count_moments()
    for name in (*facts["files"], *facts["runtime"]):
        assert (built / name).exists(), name
    assert gzip.decompress((built / f"runtime/{WASM_FILES[2]}.gz").read_bytes()) == b"runtime"
    assert not set(facts["files"]) & {*facts["runtime"], "model.onnx", "sw.js"}


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
    assert {"device.json", "model.onnx", "tiles.js", "samples/haze.jpg"} <= inside
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
    assert values * 2 < (built / "model.onnx").stat().st_size < values * 2 + 400_000
    onnxruntime = pytest.importorskip("onnxruntime")
    network = PageNetwork(halved)
    inputs = network.example(network.count_moments())
    session = onnxruntime.InferenceSession(built / "model.onnx")
    found = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    with torch.no_grad():
        wanted = network(**inputs)
    for one, other in zip(found, wanted, strict=True):
        assert np.abs(one - other.numpy()).max() < 1e-4


def test_tile_is_lifted_by_its_place_with_means_of_the_photo() -> None:
    """A network with a context, in two tiles: the lift is that of the whole photo."""
    torch.manual_seed(0)
    model = VRDIR(FIELD).eval()
    assert model.context is not None
    torch.nn.init.normal_(model.context.to_strength.weight, std=0.1)
    network = PageNetwork(model)
    inputs = network.example(network.count_moments(), 64, 96)
    with torch.no_grad():
        wanted = model.restore(inputs["image"]).image  # the decoder starts as the identity
        left = network(**inputs | {"image": inputs["image"][..., :48]})[0]
        place = torch.tensor([0.0, 48.0, 64.0, 96.0])
        right = network(**inputs | {"image": inputs["image"][..., 48:], "place": place})[0]
    assert (wanted - inputs["image"]).abs().max() > 0.01
    assert (torch.cat([left, right], 3) - wanted).abs().max() < 1e-5


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


@pytest.fixture(scope="module")
def static_site(site: Path) -> Iterator[str]:
    """A real build behind a plain web host."""
    handler = functools.partial(PlainHost, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as host:
        threading.Thread(target=host.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{host.server_port}/"
        host.shutdown()


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
def test_large_photo_is_restored_in_tiles_with_its_metadata(browser: Any, static_site: str) -> None:
    """Close to the whole photo's result, without seams; with progress; and it can be stopped."""
    import skimage.data
    from playwright.sync_api import expect

    whole = Image.open(Path(skimage.data.__file__).parent / "coffee.png").convert("RGB")
    photo = whole.resize((1200, 900))
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "coffee", 1
    with opened(browser, static_site) as page:
        choose(page, ("coffee.jpg", "image/jpeg", encoded(photo, "JPEG", exif=exif, quality=95)))
        restored(page, "coffee.jpg")
        page.click("#full")
        page.click("#stop-work")
        expect(page.locator("#status")).to_have_text("Stopped.", timeout=WAIT_MS)
        name, content = downloaded(page)
    result = Image.open(io.BytesIO(content))
    assert (name, result.size, result.format) == ("coffee.jpg", (1200, 900), "JPEG")
    assert result.getexif()[0x010E] == "coffee"
    wanted = np.asarray(Restorer("small", "cpu")(photo)).astype(float)
    error = np.square(np.asarray(result) - wanted).mean()
    assert 10 * np.log10(255**2 / error) > 34  # of which JPEG alone takes most


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
