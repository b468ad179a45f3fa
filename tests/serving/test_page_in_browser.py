"""The page in a real browser (Chromium): by mouse and keyboard, pixels, accessibility, phones.

Skipped where playwright or Chromium is not installed. axe-core is used where its file is given by
the variable AXE_CORE.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.clips import clip
from tests.serving.servers import Server, encoded

from vrdir import Restorer

api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
WAIT_MS = 120_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream",
            ],
        )
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    """The page, ready; the test fails on any error of its scripts."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    opened = context.new_page()
    opened.set_default_timeout(WAIT_MS)
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.goto(server.url)
    opened.wait_for_selector("html[data-ready]")
    yield opened
    context.close()
    assert not errors


def choose(page: Any, *files: tuple[str, str, bytes]) -> None:
    """Choose files and wait for the first to be shown."""
    page.set_input_files(
        "#files",
        [{"name": name, "mimeType": kind, "buffer": content} for name, kind, content in files],
    )


def shown_pixels(page: Any, selector: str) -> np.ndarray[Any, Any]:
    """The pixels of a picture of the page, (H, W, 3)."""
    values = page.evaluate(
        """(selector) => {
          const image = document.querySelector(selector);
          const canvas = document.createElement("canvas");
          [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
          const context = canvas.getContext("2d");
          context.drawImage(image, 0, 0);
          const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
          return { data: [...data], width: canvas.width };
        }""",
        selector,
    )
    return np.array(values["data"]).reshape(-1, values["width"], 4)[..., :3]


def restored(page: Any, name: str) -> None:
    api.expect(page.locator("#status")).to_contain_text(f"{name} is restored", timeout=WAIT_MS)


def test_a_photo_is_shown_before_and_after_with_the_pixels_of_restorer(
    page: Any, cat: Image.Image
) -> None:
    choose(page, ("cat.png", "image/png", encoded(cat)))
    restored(page, "cat.png")
    assert np.array_equal(shown_pixels(page, "#before"), np.asarray(cat))
    wanted = np.asarray(Restorer("small", "cpu")(cat)).astype(int)
    assert abs(shown_pixels(page, "#after") - wanted).max() <= 1
    assert page.locator("#bars dt").count() == 4
    with page.expect_download() as download:
        page.click("#download")
    content = Path(download.value.path()).read_bytes()
    assert download.value.suggested_filename == "cat.png"
    assert abs(np.asarray(Image.open(io.BytesIO(content))).astype(int) - wanted).max() <= 1


def test_the_whole_way_by_keyboard(page: Any) -> None:
    """Choose a sample, move the slider, zoom, change the strength: without a mouse."""
    page.focus("#samples button >> nth=2")
    page.keyboard.press("Enter")
    restored(page, "noise.jpg")
    page.focus("#slider")
    before = page.get_attribute("#slider", "aria-valuenow")
    page.keyboard.down("ArrowRight")
    page.wait_for_timeout(400)
    page.keyboard.up("ArrowRight")
    assert page.get_attribute("#slider", "aria-valuenow") != before
    page.focus("#zoom")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.input_value("#zoom") == "2"
    assert page.locator(".side.pixels").count() == 2
    first = page.get_attribute("#after", "src")
    page.focus("#strength")
    page.keyboard.press("Home")
    api.expect(page.locator("#strength-value")).to_have_text("0 %")
    api.expect(page.locator("#after")).not_to_have_attribute("src", first, timeout=WAIT_MS)
    restored(page, "noise.jpg")
    change = abs(shown_pixels(page, "#before") - shown_pixels(page, "#after"))
    assert change.mean() < 4  # what writing a JPEG again changes


def test_only_noise_is_removed_when_the_rest_is_switched_off(page: Any, cat: Image.Image) -> None:
    for name in ("haze", "rain", "sensor_noise"):
        page.uncheck(f"#only input[value={name}]")
    choose(page, ("cat.png", "image/png", encoded(cat)))
    restored(page, "cat.png")
    wanted = np.asarray(Restorer("small", "cpu", only=["noise"])(cat)).astype(int)
    assert abs(shown_pixels(page, "#after") - wanted).max() <= 1


def test_several_photos_become_a_gallery_and_a_bad_one_says_why(
    page: Any, cat: Image.Image
) -> None:
    choose(
        page,
        ("one.png", "image/png", encoded(cat)),
        ("notes.txt", "text/plain", b"no image"),
        ("two.jpg", "image/jpeg", encoded(cat.rotate(90), "JPEG")),
    )
    api.expect(page.locator("#gallery-count")).to_have_text(
        "3 of 3 restored, 1 failed", timeout=WAIT_MS
    )
    page.click("#gallery button >> nth=1")
    api.expect(page.locator("#error")).to_contain_text("not an image that can be read")
    page.click("#gallery button >> nth=2")
    restored(page, "two.jpg")
    assert page.is_hidden("#error")


def test_a_large_photo_is_shown_reduced_and_then_in_full_size(page: Any, cat: Image.Image) -> None:
    choose(page, ("wide.png", "image/png", encoded(cat.resize((1700, 60)))))
    restored(page, "wide.png")
    assert shown_pixels(page, "#after").shape[1] == 1600
    assert "of 1700 x 60 pixels" in page.inner_text("#size-note")
    with page.expect_download() as download:
        page.click("#download")
    assert Image.open(download.value.path()).size == (1700, 60)
    first = page.get_attribute("#after", "src")
    page.click("#full")
    api.expect(page.locator("#after")).not_to_have_attribute("src", first, timeout=WAIT_MS)
    assert shown_pixels(page, "#after").shape[1] == 1700


@pytest.mark.parametrize(
    ("name", "kind", "file_format"),
    [("cat.tif", "image/tiff", "TIFF"), ("cat.heic", "image/heic", "HEIF")],
)
def test_a_format_that_browsers_do_not_show_is_shown(
    page: Any, cat: Image.Image, name: str, kind: str, file_format: str
) -> None:
    if file_format == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    choose(page, (name, kind, encoded(cat, file_format)))
    restored(page, name)
    assert shown_pixels(page, "#before").shape == (64, 64, 3)
    with page.expect_download() as download:
        page.click("#download")
    assert Image.open(download.value.path()).format == file_format


def test_a_short_clip_is_restored_frame_by_frame(page: Any, tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.webm", frames=50, codec="libvpx", sound=None)
    choose(page, ("clip.webm", "video/webm", path.read_bytes()))
    page.wait_for_selector("#canvas[width='64']", timeout=WAIT_MS)
    page.wait_for_selector("#video-download:not([hidden])", timeout=WAIT_MS)


def test_the_webcam_is_restored(page: Any) -> None:
    page.click("#webcam")
    api.expect(page.locator("#rate")).to_contain_text("frames a second", timeout=WAIT_MS)
    page.wait_for_selector("#canvas[width='640']", timeout=WAIT_MS)
    page.click("#stop")


@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_window_and_axe_finds_nothing_serious(
    browser: Any, server: Server, cat: Image.Image, width: int, scheme: str
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=True
    )
    page = context.new_page()
    page.goto(server.url)
    page.wait_for_selector("html[data-ready]")
    choose(page, ("cat.png", "image/png", encoded(cat)))
    restored(page, "cat.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if axe := os.environ.get("AXE_CORE"):
        page.add_script_tag(path=axe)
        found = page.evaluate("axe.run().then((result) => result.violations)")
        serious = [one for one in found if one["impact"] in ("serious", "critical")]
        assert not serious, [(one["id"], one["nodes"][0]["html"]) for one in serious]
    context.close()
