"""`vrdir web build`: the folder, and restoring in the browser without any service.

The tests in the browser need Chromium, playwright and the variable ORT_WEB: a tarball of
onnxruntime-web, as `npm pack` writes it.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import tarfile
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vrdir import VRDIR, Restorer
from vrdir.errors import ExistsError, InputError, MissingFileError
from vrdir.serving.web_build import RUNTIME, WASM_FILES, build_page

pytest.importorskip("onnxscript", reason="needs the extra `export`")


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """A folder with the names of the runtime's files."""
    folder = tmp_path / "runtime"
    folder.mkdir()
    for name in WASM_FILES:
        (folder / name).write_text("runtime")
    return folder


def test_the_folder_has_the_page_the_network_and_the_runtime(
    tiny: VRDIR, runtime: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    sizes = build_page(tiny, "tiny", site, runtime)
    facts = json.loads((site / "device.json").read_text())
    assert facts["offered"]
    assert facts["shares"] == list(tiny.config.guidance_names)
    assert facts["bytes"] == (site / "model.onnx").stat().st_size
    for name in facts["files"]:
        assert (site / name).exists(), name
    assert sizes["index.html"] > 0
    assert (site / "runtime" / WASM_FILES[0]).read_text() == "runtime"
    build_page(tiny, "again", site, runtime)  # an earlier build is replaced
    assert json.loads((site / "device.json").read_text())["weights"] == "again"


def test_a_folder_with_other_files_is_left_alone(
    tiny: VRDIR, runtime: Path, tmp_path: Path
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/thesis.txt").write_text("mine")
    with pytest.raises(ExistsError, match="other files"):
        build_page(tiny, "tiny", tmp_path / "site", runtime)


def test_a_runtime_that_is_not_the_right_one_is_refused(tiny: VRDIR, tmp_path: Path) -> None:
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


@pytest.fixture(scope="module")
def static_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real build behind a plain web host, which knows nothing of vrdir."""
    if not os.environ.get("ORT_WEB"):
        pytest.skip("needs ORT_WEB, a tarball of onnxruntime-web")
    folder = tmp_path_factory.mktemp("site")
    build_page(VRDIR.from_pretrained("small"), "small", folder, Path(os.environ["ORT_WEB"]))
    handler = functools.partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as host:
        threading.Thread(target=host.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{host.server_port}/"
        host.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files and logs nothing."""

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_photo_is_restored_on_the_device_as_by_the_service(
    static_site: str, cat: Image.Image
) -> None:
    """Within 1/255 of the network's pixels; a second time without the network, offline."""
    from tests.serving.servers import encoded
    from tests.serving.test_page_in_browser import WAIT_MS, choose, restored, shown_pixels

    api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs Chromium")
    wanted = np.asarray(Restorer("small", "cpu")(cat)).astype(int)
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context()
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.goto(static_site)
        page.wait_for_selector("html[data-ready]")
        assert page.is_checked("#device")
        choose(page, ("cat.png", "image/png", encoded(cat)))
        restored(page, "cat.png")
        assert abs(shown_pixels(page, "#after") - wanted).max() <= 1
        page.evaluate("navigator.serviceWorker.ready.then(() => true)")
        context.set_offline(True)
        page.reload()
        page.wait_for_selector("html[data-ready]")
        choose(page, ("cat.png", "image/png", encoded(cat)))
        restored(page, "cat.png")
        assert abs(shown_pixels(page, "#after") - wanted).max() <= 1
        browser.close()
