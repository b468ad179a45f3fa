"""The clients in docs/serving.md, in curl, Python and JavaScript, run unchanged."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tests.serving.servers import ANSWER_SECONDS, Server, assert_same, encoded, post

PAGE = Path(__file__).parents[2] / "docs/serving.md"
ADDRESS = "http://127.0.0.1:8000"


def block(language: str) -> str:
    """Return the first block of a language that asks the service."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return next(str(text) for text in blocks if f"{ADDRESS}/v1" in text)


CLIENTS = {
    "bash": ["bash", "-e", "-c"],
    "python": [sys.executable, "-c"],
    "javascript": ["node", "--input-type=module", "--eval"],
}


@pytest.mark.parametrize("language", CLIENTS)
def test_client_gets_the_restored_image(
    server: Server, cat: Image.Image, language: str, tmp_path: Path
) -> None:
    program = CLIENTS[language][0]
    if shutil.which("curl" if program == "bash" else program) is None:
        pytest.skip(f"needs {program}")
    (tmp_path / "foggy.jpg").write_bytes(encoded(cat, "JPEG"))
    code = block(language).replace(ADDRESS, server.url)
    done = subprocess.run(
        [*CLIENTS[language], code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=ANSWER_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    strength = {"strength": "0.8"} if language == "bash" else {}
    sent = (tmp_path / "foggy.jpg").read_bytes()
    wanted = post(f"{server.url}/v1/restore", content=sent, params=strength).content
    assert_same((tmp_path / "clear.jpg").read_bytes(), wanted, 4)
    assert "diagnosis" in done.stdout if language == "bash" else True


def test_error_response_describes_the_problem(server: Server, tmp_path: Path) -> None:
    """The Python client raises, and curl fails, on a file that is not an image."""
    (tmp_path / "foggy.jpg").write_text("no image")
    for language in ("bash", "python"):
        code = block(language).replace(ADDRESS, server.url)
        failed = subprocess.run(
            [*CLIENTS[language], code], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert failed.returncode != 0
        assert "415" in failed.stderr
