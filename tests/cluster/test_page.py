"""The commands and the Python of docs/cluster.md, run in their order, on a real S3 server."""

import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.cluster.conftest import free_port, may_not_start, paths_for_workers, photo
from typer.testing import CliRunner

from vrdir.cli.app import app
from vrdir.cluster import file_systems, storage
from vrdir.cluster.account import Account

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "cluster.md"
SMALL = "--recipe smoke --steps 1 --validation-photos 1 --device cpu"  # a training of seconds


class Command(NamedTuple):
    """A command of the page, and the comment behind it."""

    words: list[str]
    comment: str

    @property
    def on_ray(self) -> bool:
        return "ray" in self.words


def commands() -> list[Command]:
    """Return the page's commands in their order."""
    text = re.sub(r"^```.*?^```", "", PAGE.read_text(), flags=re.M | re.S)
    lines = re.findall(r"^    (\S.*)$", text, re.M)
    parts = [line.partition("  #") for line in lines]
    return [Command(shlex.split(text), comment) for text, _, comment in parts]


def block(word: str) -> str:
    """Return the block of Python that has a word in it."""
    code = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    (found,) = [text for text in code if word in text]
    return found


def fill(bucket: str, folder: Path) -> None:
    """Put what the page speaks of into a bucket and a folder."""
    from tests.clips import clip

    for number in range(12):
        content = photo(number, "JPEG", (120, 90))
        storage.write(f"{bucket}/foggy/{number % 2}/{number:02}.jpg", content)
        storage.write(f"{bucket}/photos/{number:02}.png", photo(number, size=(80, 72)))
    storage.write(f"{bucket}/foggy/view.mp4", clip(folder / "view.mp4", frames=3).read_bytes())
    storage.write(f"{bucket}/rain.txt", b"@rain|photos/00.png\n")
    (folder / "clean.png").write_bytes(photo(1))
    (folder / "pairs.txt").write_text("@haze|clean.png\n")


def arguments(command: Command, bucket: str) -> list[str]:
    """Return what is behind `vrdir`, for a bucket of the tests, and quick where it trains."""
    words = command.words[1:] + (SMALL.split() if "train" in command.words else [])
    return [word.replace("s3://bucket", bucket) for word in words]


def empty(address: str) -> None:
    """Remove what is below an address."""
    system, path = file_systems.open_storage(address)
    if system.exists(path):
        system.rm(path, recursive=True)


@pytest.fixture
def here(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of a user, beside a bucket that is filled."""
    pytest.importorskip("av")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fill(bucket, tmp_path)
    return tmp_path


def program(command: Command, bucket: str) -> list[str]:
    return [sys.executable, "-m", "vrdir", *arguments(command, bucket)]


def run_and_kill(command: list[str]) -> None:
    """Start a run and kill it when it has named its first result."""
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    assert running.stdout.readline()
    running.send_signal(signal.SIGKILL)
    running.wait()


def check_restored(bucket: str) -> None:
    """Check that each image and video is in the account once, restored."""
    rows = Account(f"{bucket}/clear").rows()
    assert len(rows) == 13
    assert {row.status for row in rows} == {"restored"}
    assert all(storage.exists(row.target) for row in rows)


def test_every_command_is_known() -> None:
    """A command that the tests below do not run must be one of these."""
    known = {"pip install", "ray start", "pytest", "python", "VRDIR_TEST_RAY=1"}
    for words, _ in commands():
        if words[0] != "vrdir":
            assert known & {words[0], " ".join(words[:2])}, words
        for word in words:
            if word.startswith(("tests/", "benchmarks/")):
                assert (ROOT / word).exists(), word


def test_one_machine(bucket: str, here: Path) -> None:
    ran = []
    for command in commands():
        if command.words[0] != "vrdir" or command.on_ray:
            continue
        kind = command.words[1]
        if kind == "restore" and "--resume" not in command.words:
            empty(f"{bucket}/clear")
        if "killed" in command.comment:
            run_and_kill(program(command, bucket))
        else:
            result = CliRunner().invoke(app, arguments(command, bucket), catch_exceptions=False)
            assert result.exit_code == 0, f"{command}: {result.output}{result.stderr}"
        if kind == "restore" and "killed" not in command.comment:
            check_restored(bucket)
        ran.append(kind)
    assert ran == ["restore", "restore", "restore", "train", "plan"]
    assert (here / "run" / "weights" / "decoder").is_dir()
    given: dict[str, Any] = {}
    exec(block('read_parquet("s3://bucket/clear/').replace("s3://bucket", bucket), given)
    assert set(given["account"]["status"]) == {"restored"}
    assert len(given["rows"]) == 13


@pytest.fixture
def nodes(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two nodes of Ray on this machine, started as on the page; they know the bucket's server."""
    pytest.importorskip("ray")
    paths_for_workers()
    port = free_port()
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus", "2"]
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)  # short: sockets are in it
        started: list[subprocess.Popen[bytes]] = []
        try:
            for more in (
                ["--head", "--port", str(port), "--include-dashboard", "false"],
                ["--address", f"127.0.0.1:{port}"],
            ):
                if "--head" in more:
                    more += ["--node-ip-address", "127.0.0.1"]
                started.append(subprocess.Popen([*ray, *more], stdout=subprocess.DEVNULL))
                wait_for_nodes(len(started), f"127.0.0.1:{port}", started[-1])
            yield
        finally:
            for node in reversed(started):
                node.terminate()
                node.wait()


def wait_for_nodes(count: int, address: str, node: "subprocess.Popen[bytes]") -> None:
    """Wait until a cluster has this number of nodes."""
    script = f"import ray; ray.init({address!r}, logging_level='error'); print(len(ray.nodes()))"
    give_up = time.monotonic() + 180
    while time.monotonic() < give_up and node.poll() is None:
        asked = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        if asked.stdout.strip() == str(count):
            return
        time.sleep(1)
    may_not_start("a node of Ray did not start in 180 s")


@pytest.mark.skipif(
    "VRDIR_TEST_RAY" not in os.environ, reason="minutes; set VRDIR_TEST_RAY=1 to run it"
)
def test_on_ray(bucket: str, here: Path, nodes: None) -> None:
    ran = []
    for command in commands():
        if command.words[0] != "vrdir" or not command.on_ray or "detection" in command.words:
            continue  # a detector is too large for this test
        if "restore" in command.words and "--resume" not in command.words:
            empty(f"{bucket}/clear")
        if "killed" in command.comment:
            run_and_kill(program(command, bucket))
        else:
            ended = subprocess.run(program(command, bucket), capture_output=True, text=True)
            assert ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"
            if "restore" in command.words:
                check_restored(bucket)
        ran.append(command.words[1])
    assert ran == ["restore", "restore", "restore", "evaluate"]
    # Arrow's own client and the tests' server do not understand each other when it writes.
    code = block("read_images").replace("s3://bucket/clear", str(here / "clear"))
    code = code.replace("s3://bucket", bucket)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert list((here / "clear").glob("*.parquet"))
