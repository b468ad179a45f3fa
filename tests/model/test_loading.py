"""Wrong weights files and configs raise errors that name the file and the problem."""

import json
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.conftest import LFS_POINTER

from vrdir.model.loading import CONFIG_BYTES
from vrdir.model.vrdir import VRDIR


def configure(folder: Path, **changes: object) -> None:
    """Change settings in the config of a folder."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


KEY = "decoder.to_correction.weight"


def change(folder: Path, value: float, key: str = KEY, dtype: torch.dtype = torch.float32) -> None:
    """Set the first value of a tensor in the weights file of a folder."""
    state = load_file(folder / "model.safetensors")
    state[key] = state[key].to(dtype)
    state[key].view(-1)[0] = value
    save_file(state, folder / "model.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "key", [KEY, "extractor.stem.bias", "enhancement.stride4.branches.haze.gamma"]
)
def test_values_that_are_not_finite_raise(weights: Path, value: float, key: str) -> None:
    change(weights, value, key)
    with pytest.raises(
        ValueError,
        match=rf"model.safetensors has NaN or infinite values in {key}; download or train",
    ):
        VRDIR.from_pretrained(weights)


def test_values_beyond_float32_raise(weights: Path) -> None:
    change(weights, 1e300, dtype=torch.float64)
    with pytest.raises(ValueError, match=f"infinite values in {KEY}"):
        VRDIR.from_pretrained(weights)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_point_types_become_float32(weights: Path, dtype: torch.dtype) -> None:
    state = load_file(weights / "model.safetensors")
    save_file(
        {name: tensor.to(dtype) for name, tensor in state.items()}, weights / "model.safetensors"
    )
    assert all(
        tensor.dtype == torch.float32
        for tensor in VRDIR.from_pretrained(weights).state_dict().values()
    )


@pytest.mark.parametrize(
    "dtype",
    [torch.int8, torch.uint8, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn],
)
def test_other_dtypes_raise(weights: Path, dtype: torch.dtype) -> None:
    state = load_file(weights / "model.safetensors")
    save_file(state | {KEY: state[KEY].to(dtype)}, weights / "model.safetensors")
    with pytest.raises(
        ValueError,
        match=rf"weights must be float16, bfloat16, float32 or float64, but {KEY} is \w+",
    ):
        VRDIR.from_pretrained(weights)


def test_values_beyond_float16_are_not_saved(tiny: VRDIR, tmp_path: Path) -> None:
    with torch.no_grad():
        tiny.get_parameter(KEY)[0, 0, 0, 0] = 1e6
    with pytest.raises(
        ValueError, match=f"float16 has NaN or infinite values in {KEY}; it is not saved"
    ):
        tiny.save_pretrained(tmp_path / "half", half=True)
    assert not (tmp_path / "half").exists()
    tiny.save_pretrained(tmp_path / "full")
    assert json.loads((tmp_path / "full" / "config.json").read_text())


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"branch_blocks": 10**9}, "branch_blocks"),
        ({"branch_blocks": 10**400}, "branch_blocks"),
        ({"encoder_blocks": [10**9, 0, 1]}, "encoder_blocks.0"),
        ({"decoder_blocks": [1, 10**9, 1]}, "decoder_blocks.1"),
        ({"widths": [30_000, 12, 16]}, "widths.0"),
        ({"widths": [8] * 40, "encoder_blocks": [0] * 40, "decoder_blocks": [0] * 40}, "widths"),
        ({"branches": [f"b{number}" for number in range(1000)]}, "branches"),
        ({"branches": ["b" * 5000]}, "branches.0"),
        ({"strides": [4, 8] * 1000}, "strides"),
    ],
)
def test_config_out_of_bounds_raises_at_once(
    weights: Path, changes: dict[str, object], field: str
) -> None:
    configure(weights, **changes)
    start = time.process_time()
    with pytest.raises(
        ValueError, match=rf"config.json is (no|not a) VRDIR config: {field}: "
    ) as caught:
        VRDIR.from_pretrained(weights)
    assert time.process_time() - start < 1
    assert len(str(caught.value)) < 700


def test_config_is_compared_with_the_weights_before_a_network_is_built(
    weights: Path,
) -> None:
    """The network of this config would need terabytes."""
    scales = {"widths": [4096] * 8, "encoder_blocks": [64] * 8, "decoder_blocks": [64] * 8}
    configure(weights, **scales, branches=[f"b{number}" for number in range(8)])
    with pytest.raises(ValueError, match=r"does not match its config \(lacks "):
        VRDIR.from_pretrained(weights)


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        "[]",
        "3",
        '"small"',
        "",
        "{",
        "\x00",
        " " * (CONFIG_BYTES + 1),
        '{"a": ' + "9" * 10_000 + "}",
    ],
)
def test_invalid_configs_raise(weights: Path, content: str) -> None:
    (weights / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config.json is not a VRDIR config: ") as caught:
        VRDIR.from_pretrained(weights)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    "name",
    [
        "training",
        "forward",
        "_modules",
        "_parameters",
        "keys",
        "T_destination",
        "__init__",
        "call_super_init",
    ],
)
def test_branch_named_like_a_module_attribute_raises(weights: Path, name: str) -> None:
    configure(weights, branches=["haze", name, "rain"])
    with pytest.raises(ValueError, match="not be a Python keyword"):
        VRDIR.from_pretrained(weights)


def test_keys_added_by_the_hub_are_ignored(weights: Path, tiny: VRDIR) -> None:
    configure(
        weights,
        _name_or_path="somebody/vrdir",
        _commit_hash=64 * "0",
        architectures=["VRDIR"],
        model_type="vrdir",
        torch_dtype="float32",
        transformers_version="4.57.0",
    )
    assert VRDIR.from_pretrained(weights).config == tiny.config
    configure(weights, depth=3)
    with pytest.raises(ValueError, match="depth"):
        VRDIR.from_pretrained(weights)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_git_lfs_pointer_raises(weights: Path, name: str) -> None:
    (weights / name).write_text(LFS_POINTER)
    with pytest.raises(
        ValueError, match=rf"{name} is a Git LFS pointer, not the file itself; run: git lfs pull"
    ):
        VRDIR.from_pretrained(weights)
