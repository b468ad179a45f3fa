"""Read weights files: the config, the shapes before a network is built, and the finite values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic_core import from_json
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from vrdir.errors import WeightsError, first_line
from vrdir.regular_files import refuse_pointer

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
# A config is refused above this size.
CONFIG_BYTES = 2**16
# Keys that the Hugging Face hub and its libraries add to a config.
HUB_KEYS = {
    "architectures",
    "auto_map",
    "dtype",
    "library_name",
    "model_type",
    "torch_dtype",
    "transformers_version",
}
# Names in a safetensors header.
DTYPES = {"F16", "BF16", "F32", "F64"}
REMEDY = "download or train the weights again"


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings in a `config.json`, without the keys that the Hugging Face hub adds.

    Raises:
        WeightsError: it is not a JSON object, too large, or a Git LFS pointer.
    """
    refuse_pointer(path, WeightsError)
    if path.stat().st_size > CONFIG_BYTES:
        raise WeightsError(f"{path} is not a VRDIR config: it has more than {CONFIG_BYTES} bytes")
    try:
        content = from_json(path.read_bytes())
    except ValueError as error:
        raise WeightsError(
            f"{path} is not a VRDIR config: it is not JSON ({first_line(error)})"
        ) from None
    if not isinstance(content, dict):
        raise WeightsError(
            f"{path} is not a VRDIR config: expected a JSON object, found {type(content).__name__}"
        )
    return {
        key: value
        for key, value in content.items()
        if not key.startswith("_") and key not in HUB_KEYS
    }


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors in a safetensors file by name, reading only its header.

    Raises:
        WeightsError: it is damaged, a Git LFS pointer, or has other dtypes than float16, bfloat16,
            float32 and float64.
    """
    refuse_pointer(path, WeightsError)
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            slices = {name: file.get_slice(name) for name in names}
            found = {
                name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()
            }
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from None
    others = [f"{name} is {dtype}" for name, (dtype, _) in found.items() if dtype not in DTYPES]
    if others:
        raise WeightsError(
            f"{path}: weights must be float16, bfloat16, float32 or float64, but {_shown(others)}; "
            f"{REMEDY}"
        )
    return {name: shape for name, (_, shape) in found.items()}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name, as float32.

    Raises:
        WeightsError: it is damaged, or a value is not finite.
    """
    try:
        state = {name: tensor.float() for name, tensor in load_file(path).items()}
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from None
    check_finite(state, str(path))
    return state


def check_finite(state: Mapping[str, Tensor], what: str, remedy: str = REMEDY) -> None:
    """Check that all values are finite; with others every restored image would be black.

    Args:
        state: tensors by name.
        what: what they are, for the error message.
        remedy: what to do, for the error message.

    Raises:
        WeightsError: a value is NaN or infinite; the message names the tensors.
    """
    bad = [
        name
        for name, tensor in state.items()
        if tensor.is_floating_point() and not bool(tensor.isfinite().all())
    ]
    if bad:
        raise WeightsError(f"{what} has NaN or infinite values in {_shown(bad)}; {remedy}")


def check_state(model: nn.Module, state: Mapping[str, Any], problem: str, remedy: str) -> None:
    """Raise WeightsError unless a state has exactly a model's names and shapes.

    Args:
        model: the network.
        state: tensors, or their shapes, by name.
        problem: the start of the message; the differences follow in brackets.
        remedy: the end of the message.
    """
    expected = model.state_dict()
    shapes = {name: tuple(getattr(value, "shape", value)) for name, value in state.items()}
    problems = [f"lacks {name}" for name in expected if name not in state]
    problems += [f"has {name}, unknown here" for name in state if name not in expected]
    problems += [
        f"{name} has shape {shapes[name]} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in shapes and shapes[name] != tensor.shape
    ]
    if problems:
        shown = "; ".join(problems[:4]) + (
            f"; and {len(problems) - 4} more" if len(problems) > 4 else ""
        )
        raise WeightsError(f"{problem} ({shown}); {remedy}")


def _damaged(path: Path, error: Any) -> WeightsError:
    return WeightsError(f"{path} is damaged, or not a safetensors file ({error}); {REMEDY}")


def _shown(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
