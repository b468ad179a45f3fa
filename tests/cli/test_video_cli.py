"""`vrdir restore` on videos."""

import json
import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from vrdir.batch.results import FileJob
from vrdir.cli.app import app
from vrdir.cli.progress import FrameProgress, progress_bars
from vrdir.video.formats import VIDEO_SUFFIXES

pytest.importorskip("av")

from tests.clips import clip, damage, packets, pictures, times
from tests.conftest import text

SUFFIXES = ", ".join(sorted(VIDEO_SUFFIXES))


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


def test_clip_is_restored(weights: Path, tmp_path: Path) -> None:
    source, target = clip(tmp_path / "a.mp4"), tmp_path / "b.mkv"
    result = run("restore", source, "-o", target, "--weights", weights, "--explain")
    assert result.exit_code == 0
    assert re.search(
        r"b\.mkv: haze \d+%, noise \d+%, rain \d+%, clean \d+%: 12 frames in .* latency",
        text(result),
    )
    assert "1 of 1 restored" in text(result)
    assert len(times(target)) == 12
    assert [content for _, content in packets(target, "audio")] == [
        content for _, content in packets(source, "audio")
    ]


def test_damaged_frames_are_a_warning(weights: Path, tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", options={"g": "1"})
    damage(source, 3)
    damage(source, 8)
    command = ("restore", source, "-o", tmp_path / "out", "--weights", weights, "--overwrite")
    result = run(*command)
    assert result.exit_code == 0
    assert (
        "2 of 12 frames are damaged (from 0: 3, 8); each is replaced by the last good one"
        in text(result)
    )
    result = run(*command, "--json")
    assert result.exit_code == 0
    (entry,) = json.loads(result.stdout)["files"]
    facts = entry["video"]
    assert (facts["frames"], facts["damaged"], facts["damaged_frames"]) == (12, 2, [3, 8])
    assert facts["seconds"] > 0
    assert set(facts["latency_ms"]) == {"mean", "median", "p95"}
    assert sum(entry["shares"].values()) == pytest.approx(1, abs=1e-3)


def test_folder_with_images_and_videos(weights: Path, photo: Image.Image, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    photo.save(folder / "a.png")
    clip(folder / "sub" / "b.webm", codec="libvpx-vp9", sound="libopus")
    (folder / "c.mp4").write_text("no video")
    result = run("restore", folder, "-o", tmp_path / "out", "--weights", weights, "--format", "jpg")
    assert result.exit_code == 1
    assert "c.mp4 is not a video, or is damaged" in text(result)
    assert "2 of 3 restored, 1 failed" in text(result)
    found = sorted(
        p.relative_to(tmp_path / "out").as_posix()
        for p in (tmp_path / "out").rglob("*")
        if p.is_file()
    )
    assert found == ["a.jpg", "sub/b.webm"]  # --format is for images
    assert len(pictures(tmp_path / "out" / "sub" / "b.webm")) == 12
    # Degrading is for images alone.
    result = run("degrade", folder, "-o", tmp_path / "hazy", "--with", "haze")
    assert result.exit_code == 0
    assert "1 of 1 degraded" in text(result)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (
            "a.mp4",
            "b.png",
            f"a.mp4 is a video; use one of {SUFFIXES} for the output, not .png",
        ),
        ("a.png", "b.mp4", "a.png is an image"),
        ("a.mp4", "a.mp4", "the output would overwrite its input"),
        (".", "b.mp4", "is one file, but there are several inputs"),
    ],
)
def test_impossible_requests_are_reported(
    source: str,
    target: str,
    message: str,
    weights: Path,
    photo: Image.Image,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    clip(tmp_path / "a.mp4")
    photo.save(tmp_path / "a.png")
    result = run("restore", source, "-o", target, "--weights", weights)
    assert result.exit_code == 2
    assert message in text(result)
    assert not (tmp_path / "b.png").exists()


def test_without_pyav_images_are_still_restored(
    weights: Path, photo: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    photo.save(tmp_path / "in" / "a.png")
    clip(tmp_path / "in" / "b.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    result = run("restore", tmp_path / "in", "-o", tmp_path / "out", "--weights", weights)
    assert result.exit_code == 1
    assert "videos need PyAV: pip install 'vrdir[video]'" in text(result)
    assert "1 of 2 restored, 1 failed" in text(result)


def test_without_a_terminal_lines_show_the_progress(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = FrameProgress(progress_bars(as_json=False), as_json=False)
    monkeypatch.setattr(progress, "LINES_APART", 0)
    job = FileJob(Path("a [1].mp4"), Path("b.mp4"))
    progress(job, 5, 10)
    progress(job._replace(source=Path("c.mkv")), 1, None)
    errors = capsys.readouterr().err
    assert re.search(r"a \[1\]\.mp4: 5 frames of 10, \d+ s left", errors)
    assert "c.mkv: 1 frames\n" in errors
    assert FrameProgress(progress_bars(as_json=True), as_json=True).lines is False


def test_commands_in_the_docs(
    weights: Path, tmp_path: Path, photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = (Path(__file__).parents[2] / "docs" / "video.md").read_text()
    commands = [
        line
        for block in re.findall(r"^```bash\n(.*?)^```", document, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]
    assert len(commands) >= 3
    monkeypatch.chdir(tmp_path)
    clip(tmp_path / "clip.mp4")
    (tmp_path / "holiday").mkdir()
    photo.save(tmp_path / "holiday" / "a.png")
    clip(tmp_path / "holiday" / "b.mkv")
    for line in commands:
        arguments = shlex.split(line, comments=True)
        assert arguments[0] == "vrdir"
        result = run(*arguments[1:], "--weights", weights)
        assert result.exit_code == 0, f"{line}: {text(result)}"


def test_python_lines_in_the_docs(tiny: Any, tmp_path: Path, photo: Image.Image) -> None:
    from vrdir import Restorer

    document = (Path(__file__).parents[2] / "docs" / "video.md").read_text()
    shown: list[Any] = []
    # Any iterable is a camera.
    cv2 = SimpleNamespace(VideoCapture=lambda number: [photo, None, photo])
    names = {"restorer": Restorer(tiny, "cpu"), "cv2": cv2, "show": shown.append}
    for code in re.findall(r"^```python\n(.*?)^```", document, re.MULTILINE | re.DOTALL):
        exec(compile(code, "video.md", "exec"), names)
    assert len(shown) == 3
