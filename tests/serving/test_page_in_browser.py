"""The page in a real browser (Chromium): by mouse and keyboard, pixels, accessibility, phones.

Needs the extra `browser` and Chromium; accessibility is checked with axe-core, where the variable
AXE_CORE names its file, and boxes where PERSON_DETECTOR names an ONNX file with its card.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.clips import clip
from tests.serving.browsers import (
    WAIT_MS,
    check_accessible,
    choose,
    chromium,
    downloaded,
    failed,
    needs_axe,
    needs_browser,
    opened,
    restored,
    shown_pixels,
)
from tests.serving.cameras import slow_clip
from tests.serving.servers import Server, encoded

from vrdir import Restorer
from vrdir.model.vrdir import Restoration
from vrdir.restoring.diagnosis import diagnose

pytestmark = needs_browser
DETECTOR = os.environ.get("PERSON_DETECTOR")  # an ONNX file with its card, of COCO's classes


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    with opened(browser, server.url) as ready:
        yield ready


def expect(locator: Any) -> Any:
    from playwright.sync_api import expect as made

    return made(locator)


def test_photo_is_shown_before_and_after_with_the_pixels_of_restorer(
    page: Any, cat: Image.Image
) -> None:
    choose(page, ("cat.png", "image/png", encoded(cat)))
    restored(page, "cat.png")
    assert np.array_equal(shown_pixels(page, "#before"), np.asarray(cat))
    wanted = np.asarray(Restorer("small", "cpu")(cat)).astype(int)
    assert abs(shown_pixels(page, "#after") - wanted).max() <= 1
    words = page.inner_text("#bars")
    assert all(name in words for name in ("Haze", "Noise", "Rain", "Change"))
    change = abs(wanted - np.asarray(cat)).mean()
    assert abs(float(words.split("Change")[1].split()[0]) - change) < 0.3
    assert "the network" in page.inner_text("#summary").lower()
    name, content = downloaded(page)
    assert name == "cat.png"
    assert abs(np.asarray(Image.open(io.BytesIO(content))).astype(int) - wanted).max() <= 1


def test_download_keeps_metadata(page: Any, cat: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a cat"
    choose(page, ("cat.jpg", "image/jpeg", encoded(cat, "JPEG", exif=exif, quality=95)))
    restored(page, "cat.jpg")
    name, content = downloaded(page)
    assert name == "cat.jpg"
    assert Image.open(io.BytesIO(content)).getexif()[0x010E] == "a cat"


def test_device_measures_noise_and_rain_like_the_service(page: Any) -> None:
    """The page's own code against `vrdir.restoring.diagnosis`."""
    generator = torch.Generator().manual_seed(0)
    removed = 0.02 * torch.randn(1, 3, 100, 90, generator=generator)
    removed[..., 20:40, ::9] += 0.2  # streaks
    image = torch.full_like(removed, 0.5) + removed
    clean = Restoration(torch.full_like(removed, 0.5), [], torch.zeros(1, 4))
    wanted = diagnose(image, clean)[0]
    found = page.evaluate(
        """async (values) => {
          const { noiseAndRain } = await import("/diagnose.js");
          return noiseAndRain(Float32Array.from(values), 90, 100);
        }""",
        removed[0, 1].flatten().tolist(),
    )
    assert found["noise"] == pytest.approx(wanted.noise, abs=0.01)
    assert found["rain"] == pytest.approx(wanted.rain, abs=0.001)
    assert wanted.rain > 0.02


def test_slider_by_mouse(page: Any, cat: Image.Image) -> None:
    choose(page, ("cat.png", "image/png", encoded(cat)))
    restored(page, "cat.png")
    box = page.locator("#slider").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    assert 70 <= int(page.get_attribute("#slider", "aria-valuenow")) <= 90


def test_whole_way_by_keyboard(page: Any) -> None:
    """Choose a sample, move the slider, zoom, change the strength, download: without a mouse."""
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
    expect(page.locator("#strength-value")).to_have_text("0 %")
    expect(page.locator("#after")).not_to_have_attribute("src", first, timeout=WAIT_MS)
    restored(page, "noise.jpg")
    change = abs(shown_pixels(page, "#before") - shown_pixels(page, "#after"))
    assert change.mean() < 4  # what writing a JPEG again changes
    page.focus("#download")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename == "noise.jpg"


def test_only_noise_is_removed_when_the_rest_is_switched_off(page: Any, cat: Image.Image) -> None:
    choose(page, ("cat.png", "image/png", encoded(cat)))
    restored(page, "cat.png")
    first = page.get_attribute("#after", "src")
    for name in ("haze", "rain", "sensor_noise"):
        page.uncheck(f"#only input[value={name}]")
    expect(page.locator("#after")).not_to_have_attribute("src", first, timeout=WAIT_MS)
    restored(page, "cat.png")
    wanted = np.asarray(Restorer("small", "cpu", only=["noise"])(cat)).astype(int)
    assert abs(shown_pixels(page, "#after") - wanted).max() <= 1


def test_several_photos_become_a_gallery_and_a_bad_one_is_explained(
    page: Any, cat: Image.Image
) -> None:
    choose(
        page,
        ("one.png", "image/png", encoded(cat)),
        ("notes.txt", "text/plain", b"no image"),
        ("two.jpg", "image/jpeg", encoded(cat.rotate(90), "JPEG")),
    )
    expect(page.locator("#gallery-count")).to_have_text(
        "2 of 3 restored, 1 failed", timeout=WAIT_MS
    )
    assert page.locator("#gallery-progress").evaluate("bar => bar.value / bar.max") == 1
    page.click("#gallery button >> nth=1")
    failed(page, "not an image that can be read")
    assert page.is_hidden("#result")
    page.click("#gallery button >> nth=2")
    restored(page, "two.jpg")
    assert page.is_hidden("#error")
    assert page.inner_text("#result-title") == "two.jpg"


def test_photos_are_dropped_and_pasted(page: Any, cat: Image.Image) -> None:
    given = base64.b64encode(encoded(cat)).decode()
    script = """([kind, name, text]) => {
      const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
      const data = new DataTransfer();
      data.items.add(new File([bytes], name, { type: "image/png" }));
      document.dispatchEvent(kind === "drop"
        ? new DragEvent("drop", { dataTransfer: data, cancelable: true })
        : new ClipboardEvent("paste", { clipboardData: data }));
    }"""
    for kind in ("drop", "paste"):
        page.evaluate(script, [kind, f"{kind}.png", given])
        restored(page, f"{kind}.png")


def test_large_photo_is_shown_reduced_and_then_with_all_pixels(page: Any, cat: Image.Image) -> None:
    choose(page, ("wide.png", "image/png", encoded(cat.resize((1700, 60)))))
    restored(page, "wide.png")
    assert shown_pixels(page, "#after").shape[1] == 1600
    assert "of 1700 x 60 pixels" in page.inner_text("#size-note")
    page.click("#full")
    expect(page.locator("#size-note")).to_have_text("1700 x 60 pixels", timeout=WAIT_MS)
    assert shown_pixels(page, "#after").shape[1] == 1700
    assert page.is_hidden("#full")
    assert Image.open(io.BytesIO(downloaded(page)[1])).size == (1700, 60)


def test_photo_of_forty_megapixels_is_shown(page: Any, cat: Image.Image) -> None:
    choose(page, ("forty.jpg", "image/jpeg", encoded(cat.resize((7728, 5176)), "JPEG")))
    restored(page, "forty.jpg")
    assert "of 7728 x 5176 pixels" in page.inner_text("#size-note")
    assert shown_pixels(page, "#after", 16).shape[1] == 1600 // 16


def test_restoring_all_pixels_can_be_stopped(page: Any, cat: Image.Image) -> None:
    choose(page, ("wide.png", "image/png", encoded(cat.resize((1700, 60)))))
    restored(page, "wide.png")
    # From now on the service takes its time.
    page.route(lambda address: "/v1/restore" in address, lambda route: None)
    page.click("#full")
    expect(page.locator("#work-text")).to_contain_text("all pixels")
    page.click("#stop-work")
    expect(page.locator("#status")).to_have_text("Stopped.", timeout=WAIT_MS)
    assert page.is_hidden("#work")
    assert page.is_visible("#full")


@pytest.mark.parametrize(
    ("name", "kind", "file_format"),
    [("cat.tif", "image/tiff", "TIFF"), ("cat.heic", "image/heic", "HEIF")],
)
def test_format_unknown_to_browsers_is_shown(
    page: Any, cat: Image.Image, name: str, kind: str, file_format: str
) -> None:
    if file_format == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    choose(page, (name, kind, encoded(cat, file_format)))
    restored(page, name)
    assert shown_pixels(page, "#before").shape == (64, 64, 3)
    downloaded_name, content = downloaded(page)
    assert downloaded_name == name
    assert Image.open(io.BytesIO(content)).format == file_format


def test_short_clip_is_restored_frame_by_frame(page: Any, tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.webm", frames=50, codec="libvpx", sound=None)
    choose(page, ("clip.webm", "video/webm", path.read_bytes()))
    page.wait_for_selector("#canvas[width='64']", timeout=WAIT_MS)
    page.wait_for_selector("#video-download:not([hidden])", timeout=WAIT_MS)
    with page.expect_download() as download:
        page.click("#video-download")
    assert Path(download.value.path()).stat().st_size > 300


def test_error_says_why_a_file_is_not_a_video(page: Any) -> None:
    choose(page, ("broken.mp4", "video/mp4", b"no video"))
    failed(page, "not a video that this browser plays")


def test_webcam_is_restored_and_can_take_a_photo(page: Any) -> None:
    page.click("#webcam")
    expect(page.locator("#rate")).to_contain_text("frames a second", timeout=WAIT_MS)
    page.wait_for_selector("#canvas[width='640']", timeout=WAIT_MS)
    page.click("#snap")
    restored(page, "webcam.png")
    assert page.is_hidden("#moving")


def test_missing_webcam_is_explained(browser: Any, server: Server) -> None:
    with opened(browser, server.url) as page:
        page.evaluate(
            "() => { navigator.mediaDevices.getUserMedia = async () => { "
            "throw new DOMException('refused', 'NotAllowedError'); }; }"
        )
        page.click("#webcam")
        failed(page, "The webcam was not allowed")


def test_page_explains_missing_detector_and_build(page: Any, cat: Image.Image) -> None:
    choose(page, ("cat.png", "image/png", encoded(cat)))
    restored(page, "cat.png")
    assert page.is_disabled("#boxes")
    assert "--detector FILE.onnx" in page.inner_text("#options")
    assert "vrdir web build" in page.inner_text("#options")


@pytest.mark.skipif(not DETECTOR, reason="needs PERSON_DETECTOR=FILE.onnx")
def test_page_shows_detections_before_and_after(browser: Any) -> None:
    import skimage.data

    photo = (Path(skimage.data.__file__).parent / "astronaut.png").read_bytes()
    with (
        Server("--detector", str(DETECTOR)) as server,
        opened(browser, server.url) as page,
    ):
        choose(page, ("astronaut.png", "image/png", photo))
        restored(page, "astronaut.png")
        page.check("#boxes")
        expect(page.locator("#boxes-note")).to_contain_text("After:", timeout=WAIT_MS)
        assert "person" in page.inner_text("#boxes-note")
        assert page.locator("#before-boxes rect").count() >= 1
        assert page.locator("#after-boxes rect").count() >= 1


def test_service_with_keys_requires_one(browser: Any, cat: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("0123456789abcdef\n")
    with Server("--keys", str(tmp_path / "keys")) as server, opened(browser, server.url) as page:
        failed(page, "Enter the API key below")
        page.fill("#key", "0123456789abcdef")
        page.press("#key", "Tab")
        expect(page.locator("#weights option")).to_have_count(1)
        choose(page, ("cat.png", "image/png", encoded(cat)))
        restored(page, "cat.png")
        path = clip(tmp_path / "clip.webm", frames=50, codec="libvpx", sound=None)
        choose(page, ("clip.webm", "video/webm", path.read_bytes()))
        page.wait_for_selector("#canvas[width='64']", timeout=WAIT_MS)


def test_camera_is_shown_once_a_key_is_entered(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("0123456789abcdef\n")
    options = (str(slow_clip(tmp_path / "clip.mp4")), "--keys", str(tmp_path / "keys"))
    with Server(*options, command=("live",)) as server, opened(browser, server.url) as page:
        expect(page.locator("#live")).to_be_hidden()
        page.fill("#key", "0123456789abcdef")
        page.press("#key", "Tab")
        expect(page.locator("#live-view")).to_have_js_property("naturalWidth", 64, timeout=WAIT_MS)


@needs_axe
@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_state_fits_the_window_and_axe_finds_nothing_serious(
    browser: Any, server: Server, cat: Image.Image, width: int, scheme: str
) -> None:
    look = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme, "bypass_csp": True}
    with opened(browser, server.url, **look) as page:
        check_accessible(page)  # empty
        page.evaluate("document.querySelector('#work').hidden = false")
        check_accessible(page)  # busy
        choose(page, ("notes.txt", "text/plain", b"no image"))
        failed(page, "not an image")
        check_accessible(page)  # error
        choose(
            page,
            ("one.png", "image/png", encoded(cat)),
            ("two.png", "image/png", encoded(cat.rotate(90))),
        )
        expect(page.locator("#gallery-count")).to_contain_text(
            "2 of 3 restored, 1 failed", timeout=WAIT_MS
        )
        check_accessible(page)  # done, with a gallery
        page.select_option("#zoom", "8")
        check_accessible(page)
        page.click("#webcam")
        expect(page.locator("#rate")).to_contain_text("frames a second", timeout=WAIT_MS)
        check_accessible(page)
        page.click("#stop")
