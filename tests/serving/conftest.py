"""Servers that several tests share."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

if any(find_spec(name) is None for name in ("httpx", "starlette", "uvicorn", "websockets")):
    collect_ignore_glob = ["test_*.py"]  # without the extra `serve`
else:
    from tests.serving.servers import Server


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
