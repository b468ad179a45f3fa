"""Runs over many files, interrupted by signals and full disks, and resumed: real processes."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from tests.conftest import TINY, text
from typer.testing import CliRunner

from vrdir.batch.manifest import Manifest
from vrdir.batch.plan import plan_files
from vrdir.batch.process import process_files
from vrdir.batch.results import FileJob, ResultWriter, content_writer
from vrdir.cli import runs, signals
from vrdir.cli.app import app
from vrdir.errors import DiskError
from vrdir.model.vrdir import VRDIR
from vrdir.restoring import loading
from vrdir.restoring.restorer import Restorer
from vrdir.training.checkpoints import save_checkpoint
from vrdir.training.earlier_stages import EarlierStages
from vrdir.training.paper_stages import DecoderStage
from vrdir.training.run import Sources, train
from vrdir.training.settings import Recipe

FILES = 40


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture
def folder(photo: Image.Image, tmp_path: Path) -> Path:
    for i in range(FILES):
        path = tmp_path / "in" / f"{i // 10}" / f"photo {i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo.rotate(i).save(path)
    return tmp_path / "in"


def interrupted(
    command: list[object], output: Path, number: int, after: int
) -> subprocess.CompletedProcess[str]:
    """Run a command and send it a signal when it has made a number of new files."""
    made_before = len(list(output.rglob("*.png")))
    process = subprocess.Popen(
        [sys.executable, "-m", "vrdir", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    while process.poll() is None and len(list(output.rglob("*.png"))) < made_before + after:
        time.sleep(0.01)
    process.send_signal(number)
    output, errors = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


@pytest.mark.parametrize("kind", ["restore", "degrade"])
def test_run_is_killed_stopped_and_resumed(
    kind: str, folder: Path, weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    how = (
        ["--weights", weights, "--device", "cpu"]
        if kind == "restore"
        else ["--with", "noise:sigma=20", "--with", "haze"]
    )
    command: list[object] = [kind, folder, *how, "-o", out, "--resume"]
    killed = interrupted(command, out, signal.SIGKILL, after=2)
    assert killed.returncode == -signal.SIGKILL
    for path in out.rglob("*.png"):
        Image.open(path).load()  # whole
    terminated = interrupted(command, out, signal.SIGTERM, after=2)
    assert terminated.returncode == 143
    assert "stopped: the same command continues from here" in terminated.stderr
    assert f" of {FILES} {kind}d" in terminated.stdout
    assert "left" in terminated.stdout
    assert not list(out.rglob("*.partial"))  # the second run has removed those of the killed one
    result = run(*command)
    assert result.exit_code == 0, text(result)
    assert f"{FILES} of {FILES} {kind}d, " in text(result)
    assert run(kind, folder, *how, "-o", tmp_path / "whole").exit_code == 0
    for path in (tmp_path / "whole").rglob("*.png"):
        assert (out / path.relative_to(tmp_path / "whole")).read_bytes() == path.read_bytes()
    assert sorted(p.name for p in out.rglob("*") if p.is_file() and p.suffix != ".png") == [
        f".vrdir-{kind}.jsonl"
    ]


@pytest.mark.parametrize("kind", ["restore", "degrade"])
def test_interrupted_run_without_resume_can_be_resumed(
    kind: str, folder: Path, weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    how = (
        ["--weights", weights, "--device", "cpu"]
        if kind == "restore"
        else ["--with", "noise:sigma=20"]
    )
    command: list[object] = [kind, folder, *how, "-o", out]
    stopped = interrupted(command, out, signal.SIGINT, after=2)
    assert stopped.returncode == 130
    assert "stopped: the same command with --resume continues from here" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert not list(out.rglob("*.partial"))
    made = len(list(out.rglob("*.png")))
    result = run(*command, "--resume")
    assert result.exit_code == 0, text(result)
    assert f"{FILES} of {FILES} {kind}d, {made} of them earlier" in text(result)


def test_finished_run_leaves_no_manifest_without_resume(folder: Path, tmp_path: Path) -> None:
    command = ("degrade", folder / "0", "--with", "noise:sigma=20", "-o", tmp_path / "out")
    assert run(*command).exit_code == 0
    assert not list((tmp_path / "out").glob(".vrdir*"))
    again = run(*command)
    assert again.exit_code == 1
    assert "photo 0.png exists; replace it with --overwrite" in text(again)
    assert not list((tmp_path / "out").glob(".vrdir*"))
    assert run(*command, "--overwrite", "--resume").exit_code == 0
    kept = (tmp_path / "out" / ".vrdir-degrade.jsonl").read_bytes()
    # Into the same folder: the manifest of another run is kept.
    other = ("degrade", folder / "1", *command[2:])
    assert run(*other).exit_code == 0
    assert (tmp_path / "out" / ".vrdir-degrade.jsonl").read_bytes() == kept
    assert "10 of them earlier" in text(run(*command, "--resume"))


def test_run_in_which_every_file_fails_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"no image")
    assert run("degrade", tmp_path / "in", "--with", "noise", "-o", tmp_path / "out").exit_code == 1
    assert not (tmp_path / "out").exists()


def test_signal_while_a_line_is_printed_waits_for_running_files(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, begun, printed = tmp_path / "out", [], []

    def process(job: FileJob) -> ResultWriter:
        begun.append(job.target)
        time.sleep(0.3 if len(begun) > 1 else 0)
        return content_writer(job.source.read_bytes(), {})

    def stopped_in(line: object) -> None:
        printed.append(line)
        if len(printed) == 1:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(runs.out, "print", stopped_in)
    monkeypatch.setattr(signals, "GRACE", 60)
    jobs = plan_files([folder], out)
    with Manifest(out, "restore", {}) as manifest, pytest.raises(typer.Exit) as ended:
        runs.run_files(
            process_files(jobs, process, manifest=manifest, workers=2),
            len(jobs),
            "restored",
            as_json=False,
        )
    at_end = list(begun)
    assert ended.value.exit_code == 130
    time.sleep(0.5)
    assert begun == at_end  # none is begun after the stop
    assert len(begun) < 6
    assert sorted(out.rglob("*.png")) == sorted(begun)  # running files are finished
    with Manifest(out, "restore", {}) as manifest:
        assert all(manifest.is_done(*job) for job in jobs if job.target in begun)


def test_ctrl_c_before_the_first_file(
    folder: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop the command while it loads weights, which takes a second or two."""
    # A shell's background job ignores the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(
        loading, "network_of", lambda weights: (signal.raise_signal(signal.SIGINT), time.sleep(10))
    )
    try:
        result = run("restore", folder, "-o", tmp_path / "out", "--weights", weights, "--resume")
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.exit_code == 130
    assert "Traceback" not in text(result)
    assert not (tmp_path / "out").exists()


def test_resuming_another_run_is_rejected(folder: Path, weights: Path, tmp_path: Path) -> None:
    command = ("degrade", folder / "0", "-o", tmp_path / "out", "--resume", "--with")
    assert run(*command, "noise:sigma=20").exit_code == 0
    other = run(*command, "noise:sigma=30")
    assert other.exit_code == 2
    assert (
        "contains the results of a different run (with was ['noise:sigma=20'] and is "
        "['noise:sigma=30'])" in text(other)
    )
    again = run(*command, "noise:sigma=20", "--json")
    assert again.exit_code == 0
    assert json.loads(again.stdout)["left"] == 0
    one = run(
        "restore",
        folder / "0" / "photo 1.png",
        "-o",
        tmp_path / "one.png",
        "--weights",
        weights,
        "--resume",
    )
    assert one.exit_code == 2
    assert "one.png is one file; --resume needs a folder of results" in text(one)
    assert not (tmp_path / "one.png").exists()


@pytest.mark.parametrize("kind", ["restore", "degrade"])
def test_different_folder_of_same_name_is_a_different_run(
    kind: str, folder: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = (
        ["--weights", weights, "--device", "cpu"]
        if kind == "restore"
        else ["--with", "noise:sigma=20"]
    )
    out = tmp_path / "out"
    command = (kind, ".", *how, "--resume", "-o")
    monkeypatch.chdir(folder / "0")
    assert run(*command, out).exit_code == 0
    made = {path.name: path.read_bytes() for path in out.glob("*.png")}
    monkeypatch.chdir(folder / "1")
    for path in (folder / "1").iterdir():
        # To photo 0.png, as in the other folder.
        path.rename(path.with_name(path.name.replace(" 1", " ")))
    refused = run(*command, out)
    assert refused.exit_code == 2
    assert f"inputs was ['{folder / '0'}'] and is ['{folder / '1'}']" in text(refused)
    assert {path.name: path.read_bytes() for path in out.glob("*.png")} == made
    # The same folder from elsewhere is the same run, and the output may have been moved.
    out.rename(tmp_path / "moved")
    monkeypatch.chdir(folder)
    again = run(kind, "0", *how, "-o", Path("..") / "moved", "--resume")
    assert again.exit_code == 0, text(again)
    assert "10 of 10" in text(again)
    assert "10 of them earlier" in text(again)


def test_different_depth_map_of_same_name_is_a_different_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        np.save(tmp_path / place / "far.npy", np.ones((75, 97), np.float32))
    command = (
        "degrade",
        folder / "0" / "photo 0.png",
        "--with",
        "haze",
        "--depth",
        "far.npy",
        "-o",
        tmp_path / "out",
        "--resume",
    )
    monkeypatch.chdir(tmp_path / "here")
    assert run(*command).exit_code == 0
    assert run(*command).exit_code == 0
    monkeypatch.chdir(tmp_path / "there")
    other = run(*command)
    assert other.exit_code == 2
    assert (
        f"depth was '{tmp_path / 'here' / 'far.npy'}' and is '{tmp_path / 'there' / 'far.npy'}'"
        in text(other)
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A mounted disk of a megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a disk needs root")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.fixture
def noise_folder(tmp_path: Path) -> Path:
    (tmp_path / "noise").mkdir()
    draws = np.random.default_rng(0)
    for i in range(8):
        Image.fromarray(draws.integers(0, 256, (256, 256, 3), dtype=np.uint8)).save(
            tmp_path / "noise" / f"{i}.png"
        )
    return tmp_path / "noise"


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)


def test_full_disk_stops_the_run_at_once_and_it_can_be_resumed(
    noise_folder: Path, weights: Path, small_disk: Path
) -> None:
    command = (
        "restore",
        noise_folder,
        "-o",
        small_disk / "out",
        "--weights",
        weights,
        "--device",
        "cpu",
        "--resume",
    )
    result = run(*command)
    assert result.exit_code == 1
    written = len(list((small_disk / "out").glob("*.png")))
    assert 2 <= written <= 6
    # Of two running files the second may still fit after the first did not.
    failed = min(i for i in range(8) if not (small_disk / "out" / f"{i}.png").exists())
    path = small_disk / "out" / f"{failed}.png"
    reason = "cannot be written (No space left on device); free some space on the disk"
    assert f"failed: {path} {reason}" in text(result)
    assert f"{failed} of 8 restored, 1 failed (named above), {7 - failed} left" in text(result)
    assert "given up: the same command continues from here" in text(result)
    assert not list((small_disk / "out").glob("*.partial"))
    for path in (small_disk / "out").glob("*.png"):
        Image.open(path).load()
    remount(small_disk, "size=8m")
    result = run(*command)
    assert result.exit_code == 0
    assert f"8 of 8 restored, {written} of them earlier" in text(result)


def test_full_disk_at_the_manifest(noise_folder: Path, small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(bytes(2**20 - 4096 * 2))
    with pytest.raises(OSError, match="No space"):
        (small_disk / "rest").write_bytes(bytes(2**20))
    result = run("degrade", noise_folder, "-o", small_disk, "--with", "haze", "--resume")
    assert result.exit_code in (1, 2)
    assert (
        ".vrdir-degrade.jsonl cannot be written (No space left on device); "
        "free some space on the disk" in text(result)
    )
    assert not list(small_disk.glob("*.png"))


def test_read_only_disk(noise_folder: Path, weights: Path, small_disk: Path) -> None:
    remount(small_disk, "ro")
    for options in ((), ("--resume",)):  # known before anything is restored
        result = run(
            "restore",
            noise_folder,
            "-o",
            small_disk / "out",
            "--weights",
            weights,
            "--device",
            "cpu",
            *options,
        )
        assert result.exit_code == 2
        reason = "its permissions forbid it, or its disk is read-only"
        assert (
            f"out cannot be written: {small_disk} cannot be written to ({reason}); "
            "choose another output" in text(result)
        )
    front = Restorer(weights, "cpu")  # a run that finds it later ends there
    jobs = [
        FileJob(source, small_disk / "out" / source.name)
        for source in sorted(noise_folder.iterdir())
    ]
    results = list(front.restore_files(jobs))
    advice = "choose an output on a disk that can be written to"
    reason = f"cannot be written (Read-only file system); {advice}"
    assert [result.error for result in results] == [f"{small_disk / 'out' / '0.png'} {reason}"]


def test_name_that_is_not_unicode_can_be_printed(photo: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / os.fsdecode(b"latin\xe9.png")).write_bytes(b"no image")
    photo.save(tmp_path / "in" / os.fsdecode(b"fine\xe9.png"))
    command = [
        sys.executable,
        "-m",
        "vrdir",
        "degrade",
        tmp_path / "in",
        "-o",
        tmp_path / "out",
        "--with",
        "noise",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "latin\\udce9.png is not an image" in result.stderr
    assert "fine\\udce9.png" in result.stdout
    assert "1 of 2 degraded, 1 failed" in result.stdout


def test_stopped_evaluation_leaves_no_temporary_files(
    folder: Path, weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "nets.py").write_text(
        "import numpy as np\n\n\ndef dark(images):\n    return np.zeros((len(images), 4))\n\n\n"
        "def light(images):\n    return np.ones((len(images), 4))\n\n\n"
        "dark.classes = light.classes = list('0123')\n"
    )
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    recogniser = ["--recogniser", "nets:dark", "--recogniser", "nets:light"]
    command = [
        "evaluate",
        "classification",
        "--data",
        folder,
        "--with",
        "noise",
        "--weights",
        weights,
        "--device",
        "cpu",
        *recogniser,
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "vrdir", *map(str, command)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(temporary)},
    )
    while process.poll() is None and not list(temporary.rglob("*.npz")):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 143, errors
    assert "Traceback" not in errors
    assert not list(temporary.glob("vrdir-*"))


def test_ctrl_c_in_another_program_waits_for_no_image(folder: Path, tmp_path: Path) -> None:
    jobs, may_end = plan_files([folder], tmp_path / "out")[:1], threading.Event()

    def process(job: FileJob) -> ResultWriter:
        os.kill(os.getpid(), signal.SIGINT)
        may_end.wait(60)
        return content_writer(b"", {})

    before, start = signal.signal(signal.SIGINT, signal.default_int_handler), time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            list(process_files(jobs, process))
        assert time.monotonic() - start < 60
    finally:
        may_end.set()
        signal.signal(signal.SIGINT, before)


LARGE = """
import signal, sys
from pathlib import Path

import numpy as np
from PIL import Image

import vrdir
from vrdir.batch import FileJob

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
restorer = vrdir.Restorer("small", "cpu")
rows = np.linspace(0, 255, 4000, dtype=np.uint8)[:, None, None]
image = np.broadcast_to(rows, (4000, 4000, 3)).copy()
source = Path(sys.argv[2], "large.ppm")
Image.fromarray(image).save(source)
print("begun", flush=True)
if sys.argv[1] == "image":
    restorer(image)
else:
    for result in restorer.restore_files([FileJob(source, source.with_name("restored.png"))]):
        print(result)
print("finished", flush=True)
"""


def processor_seconds(pid: int) -> float:
    """Return the processor time of a running process, which other programs do not change."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("way", ["image", "files"])
def test_ctrl_c_in_another_program_ends_a_large_image_within_two_seconds(
    way: str, tmp_path: Path
) -> None:
    """The image takes 20 seconds or more. Measured is processor time, of one thread."""
    process = subprocess.Popen(
        [sys.executable, "-c", LARGE, way, tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "begun\n"
    begun = processor_seconds(process.pid)
    while processor_seconds(process.pid) < begun + 3:  # the network runs
        assert process.poll() is None
        time.sleep(0.05)
    before = processor_seconds(process.pid)
    process.send_signal(signal.SIGINT)
    output, errors = process.stdout.read(), process.stderr.read()
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0  # it has been waited for
    assert "KeyboardInterrupt" in errors
    assert "finished" not in output
    assert usage.ru_utime + usage.ru_stime - before < 2
    assert not list(tmp_path.glob("*.partial"))
    assert not (tmp_path / "restored.png").exists()


SLOW = """
import sys, time
from pathlib import Path
from vrdir.batch import FileJob, Outcome, process_files
from vrdir.cli.runs import run_files

def process(job):
    def finish(path):
        path.write_bytes(b"half")
        sys.stdout.write("begun\\n")  # in one piece, from any thread
        sys.stdout.flush()
        time.sleep(600)  # like a decoder: no signal reaches it
        return Outcome({})
    return finish

jobs = [FileJob(Path(sys.argv[1]), Path(sys.argv[2], name)) for name in ("a.png", "b.png")]
results = process_files(jobs, process, workers=int(sys.argv[3]))
run_files(results, len(jobs), "restored", as_json=len(sys.argv) > 4)
"""


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_uninterruptible_work_is_abandoned(
    workers: int, number: int, photo: Image.Image, tmp_path: Path
) -> None:
    photo.save(tmp_path / "in.png")
    command = [
        sys.executable,
        "-c",
        SLOW,
        tmp_path / "in.png",
        tmp_path / "out",
        str(workers),
        *(["json"] if workers == 2 else []),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(workers):
        assert process.stdout.readline() == "begun\n"
    start = time.monotonic()
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    # Not 600; it takes two seconds on an idle machine.
    assert time.monotonic() - start < 60
    assert process.returncode == 128 + number
    assert "stopped: --overwrite starts over" in errors
    assert json.loads(output)["left"] == 2 if workers == 2 else "0 of 2 restored, 2 left" in output
    assert not list((tmp_path / "out").iterdir())


def test_full_disk_in_training_is_reported_and_training_can_be_resumed(
    photo_folder: Path, tiny: VRDIR, small_disk: Path, tmp_path: Path
) -> None:
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(small_disk / "checkpoints", 1, {"model": torch.zeros(2**19)}, keep=2)
    assert not list((small_disk / "checkpoints").iterdir())
    settings = Recipe.read(
        "smoke",
        model=TINY.model_dump(mode="json"),
        crop_px=32,
        **{"decoder.steps": 1, "validation.crop_px": 32},
    )
    tiny.save_pretrained(tmp_path / "tiny")

    def trained(resume: bool) -> Path:
        earlier = EarlierStages(whole=tmp_path / "tiny")
        return train(
            settings,
            [DecoderStage(settings)],
            Sources(photo_folder),
            small_disk / "run",
            resume=resume,
            earlier=earlier,
        )

    with pytest.raises(
        DiskError,
        match=r"run cannot be written \(No space left on device\); free some space on the disk, "
        "then continue with --resume",
    ):
        trained(resume=False)  # its weights fit in, its checkpoint does not
    assert not list(small_disk.rglob("*.partial"))
    remount(small_disk, "size=16m")
    assert (trained(resume=True) / "model.safetensors").is_file()


def test_read_only_work_directory_is_rejected_first(small_disk: Path) -> None:
    remount(small_disk, "ro")
    result = run(
        "train",
        "decoder",
        "--recipe",
        "smoke",
        "--clean",
        "nowhere",
        "--work-dir",
        small_disk / "run",
    )
    assert result.exit_code == 2
    assert f"run cannot be written: {small_disk} cannot be written to" in text(result)
