"""Runs that are started from a shell: killed, asked to stop, and in two processes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tests.conftest import TINY

from vrdir.training.run import leaving_together
from vrdir.training.trainer import Interrupted

if sys.platform == "win32":
    pytest.skip("signals and gloo as on Unix", allow_module_level=True)

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
STEPS = 30


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stage = {"steps": STEPS, "batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 1}
    content = {
        "model": TINY.model_dump(mode="json"),
        "crop_px": 32,
        "ema_decay": 0.9,
        "validation": {"photos": 2, "crop_px": 48, "every": STEPS},
        "log_every": 1,
        "checkpoint_every": 5,
        "decoder": stage,
        "branch": stage,
        "fusion": stage,
    }
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def command(recipe: Path, photos: Path, work_dir: Path, *more: str) -> list[str]:
    return [
        "-m",
        "vrdir",
        "train",
        "decoder",
        "--recipe",
        str(recipe),
        "--clean",
        str(photos),
        "--work-dir",
        str(work_dir),
        "--device",
        "cpu",
        *more,
    ]


def finish(
    *arguments: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env=environment or ENVIRONMENT,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result


def metrics(work_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (work_dir / "metrics.jsonl").read_text().splitlines()]


def stopped(
    arguments: list[str], work_dir: Path, after: int, number: signal.Signals
) -> subprocess.CompletedProcess[str]:
    """Start a run and send it a signal once it has logged a step."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        path = work_dir / "metrics.jsonl"
        if path.exists() and f'"step": {after},' in path.read_text():
            process.send_signal(number)
            break
        time.sleep(0.01)
    out, err = process.communicate(timeout=200)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def weights(work_dir: Path) -> bytes:
    return (work_dir / "weights" / "decoder" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def unbroken(recipe: Path, photo_folder: Path) -> Path:
    finish(*command(recipe, photo_folder, recipe.parent / "unbroken"))
    return recipe.parent / "unbroken"


def test_killed_run_resumes_bit_for_bit(
    recipe: Path, unbroken: Path, photo_folder: Path, tmp_path: Path
) -> None:
    work_dir = tmp_path / "killed"
    for after, more in ((8, ()), (17, ("--resume",))):
        result = stopped(
            command(recipe, photo_folder, work_dir, *more), work_dir, after, signal.SIGKILL
        )
        assert result.returncode == -signal.SIGKILL
        assert not (work_dir / "weights" / "decoder").exists()
    finish(*command(recipe, photo_folder, work_dir, "--resume"))
    assert weights(work_dir) == weights(unbroken)
    without_time = [
        [{k: v for k, v in line.items() if k != "patches_per_second"} for line in metrics(d)]
        for d in (work_dir, unbroken)
    ]
    assert without_time[0] == without_time[1]  # every step once
    assert len(json.loads((work_dir / "run.json").read_text())["sessions"]) == 3


def test_stopped_run_saves_and_exits(
    recipe: Path, unbroken: Path, photo_folder: Path, tmp_path: Path
) -> None:
    work_dir = tmp_path / "stopped"
    result = stopped(command(recipe, photo_folder, work_dir), work_dir, 7, signal.SIGTERM)
    assert result.returncode == 128 + signal.SIGTERM, result.stdout + result.stderr
    said = " ".join(result.stderr.split())
    assert "stopped by SIGTERM; saved as" in said
    last = metrics(work_dir)[-1]["step"]
    assert (work_dir / "checkpoints" / "decoder" / f"step-{last:08d}.pt").is_file()
    assert f"step-{last:08d}.pt" in said
    finish(*command(recipe, photo_folder, work_dir, "--resume"))
    assert weights(work_dir) == weights(unbroken)


def test_signal_in_the_last_step_stops_the_run(
    recipe: Path, unbroken: Path, photo_folder: Path, tmp_path: Path
) -> None:
    work_dir = tmp_path / "late"
    line = command(recipe, photo_folder, work_dir)
    line[line.index("decoder")] = "all"
    result = stopped(
        line, work_dir, STEPS, signal.SIGTERM
    )  # during the last validation of the first stage
    assert result.returncode == 128 + signal.SIGTERM, result.stdout + result.stderr
    assert not (work_dir / "weights" / "branch-haze").exists()
    finish(*line, "--resume")
    assert weights(work_dir) == weights(unbroken)


def test_processes_without_a_shared_work_directory_stop(
    recipe: Path, photo_folder: Path, tmp_path: Path
) -> None:
    line = command(recipe, photo_folder, tmp_path / "0")
    assert stopped(line, tmp_path / "0", 7, signal.SIGTERM).returncode == 128 + signal.SIGTERM
    of_its_own = [sys.executable, *command(recipe, photo_folder, tmp_path / "$RANK", "--resume")]
    launcher = [
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "--no-python",
        "sh",
        "-c",
        " ".join(of_its_own),
    ]
    result = subprocess.run(
        [sys.executable, "-m", *launcher],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=120,
    )
    assert result.returncode != 0
    assert "does not contain the same checkpoints for all processes" in " ".join(
        result.stderr.split()
    )


def test_two_processes_train_like_one(
    recipe: Path, unbroken: Path, photo_folder: Path, tmp_path: Path
) -> None:
    work_dir = tmp_path / "two"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    finish(*launcher, *command(recipe, photo_folder, work_dir))
    one, two = metrics(unbroken), metrics(work_dir)
    assert [line["step"] for line in one] == [
        line["step"] for line in two
    ]  # the first process alone writes
    for alone, together in zip(one, two, strict=True):
        for name in alone:
            if name.startswith("loss_"):
                assert together[name] == pytest.approx(alone[name], abs=2e-3), (alone["step"], name)
    assert json.loads((work_dir / "run.json").read_text())["sessions"][0]["processes"] == 2
    assert len(list((work_dir / "tensorboard").rglob("events*"))) == 1
    states = [
        load_file(folder / "weights" / "decoder" / "model.safetensors")
        for folder in (unbroken, work_dir)
    ]
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=0.02, atol=2e-3)
    moved = sum(float((states[0][name] - states[1][name]).abs().sum()) for name in states[0])
    total = sum(float(tensor.abs().sum()) for tensor in states[0].values())
    assert moved / total < 1e-3


@pytest.mark.parametrize(
    ("error", "left"),
    [(None, True), (Interrupted(15, Path("here")), True), (ValueError("alone with it"), False)],
)
def test_processes_leave_the_group_together(
    error: Exception | None, left: bool, tmp_path: Path
) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1
    )
    try:
        with (
            contextlib.nullcontext() if error is None else pytest.raises(type(error)),
            leaving_together(),
        ):
            if error is not None:
                raise error
        assert torch.distributed.is_initialized() is not left
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
