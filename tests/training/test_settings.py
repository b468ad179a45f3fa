"""Settings describe themselves: help and docs are made from their descriptions."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from vrdir.cli.recipe_flags import flags_of
from vrdir.cli.train_progress import RunProgress
from vrdir.errors import SettingsError
from vrdir.training.fields import described
from vrdir.training.settings import Recipe

ROOT = Path(__file__).parents[2]


def test_every_setting_has_a_description() -> None:
    settings = list(described(Recipe))
    assert len(settings) > 60
    for setting in settings:
        assert setting.description.endswith("."), setting.key


def test_nested_settings_are_found_by_their_keys() -> None:
    class Inner(BaseModel):
        size: int = Field(default=3, description="A size.")

    class Outer(BaseModel):
        name: str = Field(description="A name.")
        inner: Inner = Field(default=Inner(), description="An inner.")
        maybe: Inner | None = Field(default=None, description="Perhaps one.")

    expected = [
        ("name", "A name.", ""),
        ("inner.size", "A size.", "3"),
        ("maybe.size", "A size.", "3"),
    ]
    assert [tuple(setting) for setting in described(Outer)] == expected


def test_ranges_are_a_mapping_or_text() -> None:
    mapping = {"haze": {"warmth": [-0.3, 0.3], "depth": "mixed"}, "noise": {"sigma": 25}}
    text = "haze:warmth=-0.3..0.3,depth=mixed+noise:sigma=25"
    recipe = Recipe.read("small", ranges=mapping)
    assert recipe == Recipe.read("small", ranges=text)
    assert recipe.ranges["haze"] == {"warmth": (-0.3, 0.3), "depth": "mixed"}


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"haze": {"fog": 1}}, "haze has no parameter fog; it has beta, airlight"),
        ({"fog": {"beta": 1}}, "unknown degradation 'fog'.*did you mean haze"),
        ({"haze": {"beta": [3, 1]}}, "haze:beta must go from low to high, not from 3 to 1"),
        ({"haze": {"beta": [1, 2, 3]}}, "haze:beta must be a number or"),
        ({"noise": {"sigma": 300}}, "noise:sigma must be between 0 and 255, not 300"),
        ("haze:fog=1", "haze accepts beta="),
    ],
)
def test_error_names_wrong_ranges(ranges: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=f"ranges: .*{message}"):
        Recipe.read("small", ranges=ranges)


@pytest.mark.parametrize(
    "command", ["decoder", "branch", "fusion", "refine", "whole", "haze", "all"]
)
def test_command_has_a_flag_for_each_of_its_settings(command: str) -> None:
    flags = flags_of(command)
    own = "--decoder-steps" if command == "all" else "--steps"
    assert {"--model", "--model-branches", "--seed", "--data-workers", own} <= flags.keys()
    assert all(description for _, description in flags.values())


@pytest.mark.parametrize("options", [[], ["-OO"]])
def test_help_without_docstrings(options: list[str]) -> None:
    """Python 3.13 dedents docstrings, and -OO drops them: help must not depend on them."""
    command = [sys.executable, *options, "-m", "vrdir", "train", "decoder", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    shown = " ".join(result.stdout.split())
    for line in (
        "--model-widths Channels of",
        "--validation-crop-px Side of",
        "--data-cache-gib Memory",
        "--steps Optimiser steps",
    ):
        assert line in shown


def test_settings_are_read_without_docstrings(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-OO",
        "-m",
        "vrdir",
        "train",
        "decoder",
        "--stepps",
        "3",
        "--work-dir",
        str(tmp_path / "run"),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 2
    assert "unknown option --stepps; did you mean --steps" in result.stderr


def test_run_shows_the_time_left_and_explains_a_negative_loss(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with RunProgress(["decoder", "fusion"]) as progress:
        progress.step("decoder", 1, 100, 2)
        progress.begun["decoder"] = (
            1,
            time.monotonic() - 60,
        )  # a minute for the next 24 steps: three for the 75 left
        lines = [
            {"stage": "decoder", "step": step, "steps": 100, "loss_pixel": -1.5}
            for step in (25, 100)
        ]
        for line in lines:
            progress.metrics(line)
    shown = capsys.readouterr().out
    assert "decoder            25/100  loss_pixel -1.5  left 0:03:0" in shown
    assert "100/100  loss_pixel -1.5\n" in shown
    assert shown.count("loss_pixel is below 0 as it should be") == 1
