"""Servers that several tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import skimage.data
from PIL import Image
from tests.serving.servers import Server

pytest.importorskip("uvicorn", reason="needs the extra `serve`")


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A server with its usual limits."""
    with Server("--weights", "small", "--weights", "second=field") as running:
        yield running


@pytest.fixture(scope="session")
def cat() -> Image.Image:
    """A real photo of 64 x 64 pixels."""
    whole = Image.open(Path(skimage.data.__file__).parent / "chelsea.png").convert("RGB")
    return whole.crop((120, 60, 184, 124))


@pytest.fixture(scope="session")
def large_photo() -> Image.Image:
    """A photo that takes a second or more."""
    whole = Image.open(Path(skimage.data.__file__).parent / "chelsea.png").convert("RGB")
    return whole.resize((1400, 930))
