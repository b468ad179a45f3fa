"""`vrdir restore --report`: the page about all files, and the summary after a run."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import text
from typer.testing import CliRunner

from vrdir.batch.folder_report import FolderReport, Summary, preview_px
from vrdir.batch.results import FileJob, FileResult
from vrdir.cli.app import app
from vrdir.images.changes import beside, mean_change, preview


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


def content_of(page: str) -> Any:
    """The data inside the page, as a browser finds it."""

    class Reader(HTMLParser):
        inside, data = False, ""

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.inside = tag == "script" and ("id", "data") in attrs

        def handle_data(self, data: str) -> None:
            if self.inside:
                self.data += data

    reader = Reader()
    reader.feed(page)
    return json.loads(reader.data)


@pytest.fixture
def folder(photo: Image.Image, tmp_path: Path) -> Path:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    photo.save(tmp_path / "in" / "a.png")
    photo.resize((50, 40)).save(tmp_path / "in" / "sub" / "<script>b.jpg")
    (tmp_path / "in" / "empty.png").write_bytes(b"")
    return tmp_path / "in"


def test_page_of_a_folder(folder: Path, weights: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    command = (
        "restore",
        folder,
        "-o",
        tmp_path / "out",
        "--weights",
        weights,
        "--device",
        "cpu",
        "--report",
        page,
    )
    result = run(*command)
    assert result.exit_code == 1
    assert "2 of 3 restored, 1 failed" in text(result)
    assert re.search(
        r"changed by \d+\.\d of 255 levels on average, from \d+\.\d \(.*\) to \d+\.\d \(.*\)",
        text(result),
    )
    html = page.read_text()
    assert not re.search(r"(src|href)=.?(https?:)?//", html)  # it needs no network
    content = content_of(html)
    assert content["title"] == "2 of 3 restored, 1 failed"
    by_name = {Path(file["name"]).name: file for file in content["files"]}
    assert by_name["empty.png"]["state"] == "failed"
    assert "is empty (0 bytes)" in by_name["empty.png"]["note"]
    done = by_name["a.png"]
    before, after = (
        np.asarray(Image.open(folder / "a.png"), int),
        np.asarray(Image.open(tmp_path / "out" / "a.png"), int),
    )
    assert done["change"] == pytest.approx(np.abs(before - after).mean(), abs=0.3)
    assert sum(done["shares"].values()) == pytest.approx(1, abs=0.01)
    for key in ("before", "after"):
        assert Image.open(io.BytesIO(base64.b64decode(done[key]))).size == (97, 75)
    assert "<script>b.jpg" not in html
    assert "<script>b.jpg" in by_name


def test_existing_page_is_kept_unless_the_run_is_resumed(
    folder: Path, weights: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    page.write_text("mine")
    command = (
        "restore",
        folder / "a.png",
        "-o",
        tmp_path / "out",
        "--weights",
        weights,
        "--device",
        "cpu",
        "--report",
        page,
    )
    refused = run(*command)
    assert refused.exit_code == 2
    assert "page.html exists; replace it with --overwrite" in text(refused)
    assert (page.read_text(), (tmp_path / "out").exists()) == ("mine", False)
    for state in ("restored", "earlier"):
        assert run(*command, "--resume").exit_code == 0
        assert [file["state"] for file in content_of(page.read_text())["files"]] == [state]


def test_thousands_of_files_have_small_previews() -> None:
    sizes = [preview_px(count) for count in (1, 100, 101, 1000, 5000, 100_000)]
    assert sizes == [640, 640, 400, 400, 240, 128]
    image = torch.rand(1, 3, 480, 640)
    small = Image.open(io.BytesIO(preview(image, 128)))
    assert (small.format, small.size) == ("WEBP", (128, 96))
    assert 10_000 * 2 * len(preview(image, 128)) * 4 / 3 < 200e6  # noise, which compresses worst


def test_any_name_can_be_on_a_page(tmp_path: Path) -> None:
    report = FolderReport(tmp_path / "page.html", {"input": "<b>"})
    name = "</script><img src=x onerror=alert(1)>\udcff&amp;.png"
    report.add(FileResult(FileJob(Path(name), Path("out.png")), {}, f"{name} is not an image"))
    report.write("0 of 1 restored")
    content = content_of((tmp_path / "page.html").read_text())
    assert content["files"][0]["name"] == name
    assert content["facts"] == {"input": "<b>"}


def test_summary_counts_unchanged_images() -> None:
    summary = Summary()
    assert str(summary) == ""
    for name, change, shares in [
        ("a", 0.1, {"clean": 0.9, "haze": 0.1}),
        ("b", 10.0, {"haze": 0.8, "clean": 0.2}),
    ]:
        summary.add(FileResult(FileJob(Path(name), Path("out")), shares, None, change=change))
    summary.add(FileResult(FileJob(Path("c"), Path("out")), {}, "c is not an image"))
    assert (
        str(summary) == "changed by 5.0 of 255 levels on average, from 0.1 (a) to 10.0 (b); "
        "1 unchanged; mostly clean 1, haze 1"
    )


def test_mean_change_does_not_depend_on_strips() -> None:
    before, after = torch.rand(1, 3, 600, 20), torch.rand(1, 3, 600, 20)
    assert mean_change(before, after) == pytest.approx(
        float((before - after).abs().mean()) * 255, rel=1e-5
    )
    assert mean_change(before, before) == 0
    assert beside(before, after, {}).size == (48, 600)
