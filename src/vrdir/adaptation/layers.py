"""The layers of a recogniser whose features are compared, and how the features are collected."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vrdir.errors import RecogniserError

MOST_LAYERS = 4
"""The largest number of layers that are chosen automatically."""


def find_layers(module: nn.Module, call: Callable[[], Any], height: int) -> list[str]:
    """Choose a few layers: the last one at each resolution, fine to coarse.

    In a vision transformer all features have the same resolution. Then the layers in the middle and
    at the end of the repeated layers are chosen.

    Args:
        module: the recogniser.
        call: calls the recogniser once, on an image.
        height: the height of this image, in pixels.

    Returns:
        The names of the layers, at most `MOST_LAYERS`; empty if no features were found.
    """
    seen: list[tuple[str, tuple[int, ...]]] = []

    def note(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            output = output[0] if isinstance(output, tuple) and output else output
            if isinstance(output, Tensor) and output.ndim in (3, 4) and output.is_floating_point():
                seen.append((name, tuple(output.shape)))

        return hook

    handles = [part.register_forward_hook(note(name)) for name, part in module.named_modules()]
    try:
        with torch.no_grad():
            call()
    finally:
        for handle in handles:
            handle.remove()
    maps = [(name, shape) for name, shape in seen if name and len(shape) == 4 and shape[2] > 1]
    last: dict[int, str] = {}  # by the logarithm of the stride, rounded because of padding
    for name, shape in maps:
        last[round(math.log2(height / shape[2]))] = name
    by_size = sorted(last.items())
    if len(by_size) > 1:
        return [name for _, name in by_size[-MOST_LAYERS:]]
    rows = [(name, shape) for name, shape in seen if name and len(shape) == 3 and shape[1] > 1]
    if not rows:
        return [name for _, name in by_size]
    shapes = [shape for _, shape in rows]
    commonest = max(shapes, key=shapes.count)
    alike = [name for name, shape in rows if shape == commonest]
    by_depth: dict[int, list[str]] = {}
    for name in alike:
        by_depth.setdefault(name.count("."), []).append(name)
    # The outermost layers that repeat.
    names = next((of for _, of in sorted(by_depth.items()) if len(of) > 1), alike)
    return list(dict.fromkeys([names[len(names) // 2], names[-1]]))


def check_layers(module: nn.Module, names: Sequence[str]) -> None:
    """Raise RecogniserError if a module does not have layers of these names."""
    known = [name for name, _ in module.named_modules() if name]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 3)
            hint = f"did you mean {', '.join(near)}?" if near else f"it has {', '.join(known[:8])}"
            raise RecogniserError(f"the recogniser has no layer {name!r}; {hint}")


@contextmanager
def tapped(module: nn.Module, names: Sequence[str]) -> Iterator[list[Tensor]]:
    """Collect the features of layers that are called in a `with` block.

    Yields:
        A list that is filled with features (B, C, h, w) or (B, C, n), in the order of the calls.
    """
    features: list[Tensor] = []

    def hook(_: nn.Module, __: Any, output: Any) -> None:
        output = output[0] if isinstance(output, tuple) else output
        if isinstance(output, Tensor):
            features.append(output if output.ndim == 4 else output.movedim(-1, 1))

    parts = dict(module.named_modules())
    handles = [parts[name].register_forward_hook(hook) for name in names]
    try:
        yield features
    finally:
        for handle in handles:
            handle.remove()
