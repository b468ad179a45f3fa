"""Tiny ONNX files, written byte by byte: the tests need no package that writes ONNX."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Shape = Sequence[int | str]
FLOAT, INT64 = 1, 7


def write_onnx(
    path: Path,
    nodes: Sequence[tuple[str, Sequence[str], Sequence[str]]],
    inputs: Mapping[str, Shape],
    outputs: Mapping[str, tuple[int, Shape]],
    constants: Mapping[str, np.ndarray],
    card: Mapping[str, Any] | None,
) -> Path:
    """Write a file of opset 17, and its card unless it is None.

    Args:
        path: the file.
        nodes: operator, inputs, outputs.
        inputs: name -> shape, of float32.
        outputs: name -> element type and shape.
        constants: name -> values, float32 or int64.
        card: the card's content, without name and hash.
    """
    graph = b"".join(_field(1, _node(*node)) for node in nodes)
    graph += _text(2, "graph")
    for name, values in constants.items():
        kind = FLOAT if values.dtype == np.float32 else INT64
        dims = b"".join(_number(1, size) for size in values.shape)
        graph += _field(5, dims + _number(2, kind) + _text(8, name) + _field(9, values.tobytes()))
    graph += b"".join(_field(11, _value(name, FLOAT, shape)) for name, shape in inputs.items())
    graph += b"".join(
        _field(12, _value(name, kind, shape)) for name, (kind, shape) in outputs.items()
    )
    path.write_bytes(_number(1, 8) + _field(7, graph) + _field(8, _number(2, 17)))
    if card is not None:
        content = {
            "name": path.stem,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            **card,
        }
        path.with_suffix(".json").write_text(json.dumps(content))
    return path


def _node(operator: str, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    named = [*(_text(1, name) for name in inputs), *(_text(2, name) for name in outputs)]
    return b"".join(named) + _text(4, operator)


def _value(name: str, kind: int, shape: Shape) -> bytes:
    dims = b"".join(
        _field(1, _number(1, size) if isinstance(size, int) else _text(2, size)) for size in shape
    )
    return _text(1, name) + _field(2, _field(1, _number(1, kind) + _field(2, dims)))


def _varint(value: int) -> bytes:
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _field(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _text(field: int, text: str) -> bytes:
    return _field(field, text.encode())
