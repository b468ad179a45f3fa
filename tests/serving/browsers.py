"""A real browser for the tests of the page: Debian's Chromium, driven by playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
AXE = os.environ.get("AXE_CORE")  # axe.min.js of the package axe-core
ORT_WEB = os.environ.get("ORT_WEB")  # a tarball of onnxruntime-web, as `npm pack` writes it
WAIT_MS = 240_000  # a bound for a busy machine

needs_browser = [
    pytest.mark.skipif(find_spec("playwright") is None, reason="needs the extra `browser`"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, such as Debian's `chromium`"),
]
needs_runtime = pytest.mark.skipif(
    not ORT_WEB, reason="needs ORT_WEB=FILE, written by `npm pack onnxruntime-web@1.30.0`"
)
needs_axe = pytest.mark.skipif(
    not AXE, reason="needs AXE_CORE=FILE, the axe.min.js of npm's package axe-core"
)


@contextmanager
def chromium() -> Iterator[Any]:
    """Start playwright, which runs once at a time, and Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, launched(playwright.chromium) as browser:
        yield browser


@contextmanager
def launched(browser_type: Any, *options: str) -> Iterator[Any]:
    """Start a browser with a webcam that shows a test picture, and further options."""
    browser = browser_type.launch(
        executable_path=CHROMIUM,
        args=[
            "--no-sandbox",
            "--use-fake-device-for-media-stream",
            "--use-fake-ui-for-media-stream",
            *options,
        ],
    )
    yield browser
    browser.close()


@contextmanager
def opened(browser: Any, address: str, **context: Any) -> Iterator[Any]:
    """Open the page, ready. An error of its scripts fails the test."""
    made = browser.new_context(**({"viewport": {"width": 1400, "height": 900}} | context))
    page = made.new_page()
    page.set_default_timeout(WAIT_MS)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.wait_for_selector("html[data-ready]")
    yield page
    made.close()
    assert not errors


def choose(page: Any, *files: tuple[str, str, bytes]) -> None:
    """Choose files, each a name, a media type and the content."""
    page.set_input_files(
        "#files",
        [{"name": name, "mimeType": kind, "buffer": content} for name, kind, content in files],
    )


def restored(page: Any, name: str) -> None:
    """Wait until a photo is restored."""
    _expect(page, "#status", f"{name} is restored")


def failed(page: Any, reason: str) -> None:
    """Wait until the page says why something does not work."""
    _expect(page, "#error", reason)


def _expect(page: Any, selector: str, text: str) -> None:
    from playwright.sync_api import expect

    expect(page.locator(selector)).to_contain_text(text, timeout=WAIT_MS)


def shown_pixels(page: Any, selector: str, reduced: int = 1) -> np.ndarray[Any, Any]:
    """Return the pixels of a picture of the page, (H, W, 3), each side reduced by a factor."""
    values = page.evaluate(
        """([selector, reduced]) => {
          const image = document.querySelector(selector);
          const canvas = document.createElement("canvas");
          canvas.width = Math.floor(image.naturalWidth / reduced);
          canvas.height = Math.floor(image.naturalHeight / reduced);
          const context = canvas.getContext("2d");
          context.drawImage(image, 0, 0, canvas.width, canvas.height);
          const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
          return { data: [...data], width: canvas.width };
        }""",
        [selector, reduced],
    )
    return np.array(values["data"]).reshape(-1, values["width"], 4)[..., :3]


def downloaded(page: Any) -> tuple[str, bytes]:
    """Press Download; return the file's name and content."""
    with page.expect_download() as download:
        page.click("#download")
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def check_accessible(page: Any) -> None:
    """Check that axe-core finds nothing serious, and that nothing is wider than the window."""
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if not page.evaluate("typeof axe === 'object'"):
        page.add_script_tag(path=AXE)
    found = page.evaluate("axe.run().then((result) => result.violations)")
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    assert not serious, [(one["id"], one["nodes"][0]["html"]) for one in serious]
