"""Suggestions for mistyped names of degradations, weights, devices and recipes."""

from pathlib import Path

import pytest

from vrdir.degradations.registry import DEGRADATIONS, SYNONYMS
from vrdir.degradations.steps import parse_degradations
from vrdir.model.vrdir import VRDIR
from vrdir.restoring.loading import choose_device
from vrdir.spelling import did_you_mean
from vrdir.training.settings import Recipe
from vrdir.weights.bundled import resolve_weights


def test_closest_names_are_suggested() -> None:
    assert did_you_mean("haz", ["haze", "noise"]) == "; did you mean haze?"
    assert did_you_mean("NOISE", ["haze", "noise"]) == "; did you mean noise?"
    assert (
        did_you_mean("Low Light", ["low_light"], {"low_light": "low_light"})
        == "; did you mean low_light?"
    )
    assert did_you_mean("zebra", ["haze", "noise"]) == ""
    assert did_you_mean("", ["haze"]) == ""


def test_synonyms_suggest_known_names() -> None:
    assert set(SYNONYMS.values()) <= DEGRADATIONS.keys()
    assert not SYNONYMS.keys() & DEGRADATIONS.keys()


@pytest.mark.parametrize(
    ("given", "meant"),
    [("fog", "haze"), ("haz", "haze"), ("Rain", "rain"), ("dark:severity=2", "low_light")],
)
def test_mistyped_degradation(given: str, meant: str) -> None:
    with pytest.raises(ValueError, match=rf"unknown degradation .*; did you mean {meant}\?$"):
        parse_degradations(given)


def test_mistyped_share_in_a_recipe() -> None:
    with pytest.raises(ValueError, match=r"did you mean haze\?"):
        Recipe.read("smoke", shares={"fog": 1})


def test_mistyped_recipe() -> None:
    with pytest.raises(
        FileNotFoundError, match=r"recipe smal does not exist; .*; did you mean small\?$"
    ):
        Recipe.read("smal")


@pytest.mark.parametrize(("given", "meant"), [("gpu", "cuda"), ("CPU", "cpu"), ("cud", "cuda")])
def test_mistyped_device(given: str, meant: str) -> None:
    with pytest.raises(
        ValueError, match=rf"device '{given}' is not available .*; did you mean .*{meant}.*\?$"
    ):
        choose_device(given)


def test_weights(tiny: VRDIR, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"unknown weights 'smal': .*; did you mean small\?$"
    ):
        resolve_weights("smal")
    tiny.save_pretrained(tmp_path / "runs" / "fusion")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        FileNotFoundError,
        match=r"unknown weights '\./runs/fuison': .*; did you mean runs/fusion\?$",
    ):
        resolve_weights("./runs/fuison")
