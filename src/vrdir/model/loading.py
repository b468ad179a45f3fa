"""Weights files: looked at before a network is built for them, and taken only where every value is a number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic_core import from_json
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from vrdir.errors import first_line
from vrdir.regular_files import refuse_pointer

CONFIG_BYTES = 2**16
HUB_KEYS = {
    "architectures",
    "auto_map",
    "dtype",
    "library_name",
    "model_type",
    "torch_dtype",
    "transformers_version",
}
DTYPES = {"F16", "BF16", "F32", "F64"}  # as a safetensors header calls them
REMEDY = "get or train the weights again"


def read_settings(path: Path) -> dict[str, Any]:
    """The object in a `config.json`, without what the Hugging Face hub and its libraries note in it for themselves.

    Raises:
        ValueError: it is not JSON object of a sensible size, or a Git LFS pointer.
    """
    refuse_pointer(path)
    if path.stat().st_size > CONFIG_BYTES:
        raise ValueError(f"{path} is no VRDIR config: it has more than {CONFIG_BYTES} bytes")
    try:
        content = from_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(
            f"{path} is no VRDIR config: it is not JSON ({first_line(error)})"
        ) from None
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} is no VRDIR config: expected a JSON object, found {type(content).__name__}"
        )
    return {
        key: value
        for key, value in content.items()
        if not key.startswith("_") and key not in HUB_KEYS
    }


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in a safetensors file, from its header alone.

    Raises:
        ValueError: it is damaged, a Git LFS pointer, or holds anything but float16, bfloat16, float32 and float64.
    """
    refuse_pointer(path)
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            found = {
                name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()
            }
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from None
    others = [f"{name} is {dtype}" for name, (dtype, _) in found.items() if dtype not in DTYPES]
    if others:
        raise ValueError(
            f"{path}: weights are float16, bfloat16, float32 or float64, but {_shown(others)}; {REMEDY}"
        )
    return {name: shape for name, (_, shape) in found.items()}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, as float32. Raises ValueError if it is damaged or a value is not finite."""
    try:
        state = {name: tensor.float() for name, tensor in load_file(path).items()}
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from None
    check_finite(state, str(path))
    return state


def check_finite(state: Mapping[str, Tensor], what: str, remedy: str = REMEDY) -> None:
    """Raise ValueError, naming the tensors, if one holds a value that is no finite number: every image would come out black."""
    bad = [
        name
        for name, tensor in state.items()
        if tensor.is_floating_point() and not bool(tensor.isfinite().all())
    ]
    if bad:
        raise ValueError(f"{what} has NaN or infinite values in {_shown(bad)}; {remedy}")


def _damaged(path: Path, error: Any) -> ValueError:
    return ValueError(f"{path} is damaged or no safetensors file ({error}); {REMEDY}")


def _shown(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
