"""Weights files that lie, and what becomes of values that are no numbers."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vrdir.model.vrdir import VRDIR

KEY = "decoder.to_correction.weight"


def change(folder: Path, value: float, key: str = KEY, dtype: torch.dtype = torch.float32) -> None:
    """Put a value into the weights file of a folder."""
    state = load_file(folder / "model.safetensors")
    state[key] = state[key].to(dtype)
    state[key].view(-1)[0] = value
    save_file(state, folder / "model.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("key", [KEY, "extractor.stem.bias", "enhancement.stride4.branches.haze.gamma"])
def test_values_that_are_no_numbers_are_refused_by_name(weights: Path, value: float, key: str) -> None:
    change(weights, value, key)
    with pytest.raises(ValueError, match=rf"model.safetensors has NaN or infinite values in {key}; get or train"):
        VRDIR.from_pretrained(weights)


def test_what_is_finite_only_in_the_file_is_refused(weights: Path) -> None:
    change(weights, 1e300, dtype=torch.float64)
    with pytest.raises(ValueError, match=f"infinite values in {KEY}"):
        VRDIR.from_pretrained(weights)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_point_types_become_float32(weights: Path, dtype: torch.dtype) -> None:
    state = load_file(weights / "model.safetensors")
    save_file({name: tensor.to(dtype) for name, tensor in state.items()}, weights / "model.safetensors")
    assert all(tensor.dtype == torch.float32 for tensor in VRDIR.from_pretrained(weights).state_dict().values())


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_other_types_are_refused_by_name(weights: Path, dtype: torch.dtype) -> None:
    state = load_file(weights / "model.safetensors")
    save_file(state | {KEY: state[KEY].to(dtype)}, weights / "model.safetensors")
    with pytest.raises(ValueError, match=rf"weights are float16, bfloat16, float32 or float64, but {KEY} is \w+"):
        VRDIR.from_pretrained(weights)


def test_what_would_be_refused_is_not_saved(tiny: VRDIR, tmp_path: Path) -> None:
    with torch.no_grad():
        tiny.decoder.to_correction.weight[0, 0, 0, 0] = 1e6
    with pytest.raises(ValueError, match=f"float16 has NaN or infinite values in {KEY}; it is not saved"):
        tiny.save_pretrained(tmp_path / "half", half=True)
    assert not (tmp_path / "half").exists()
    tiny.save_pretrained(tmp_path / "full")
    assert json.loads((tmp_path / "full" / "config.json").read_text())
