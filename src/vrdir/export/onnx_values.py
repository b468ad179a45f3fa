"""Read the values in an ONNX file, to find those that are not finite.

Runtimes accept NaN, and may hide it: OpenVINO's ReLU turns it into 0, and the picture is wrong. The
onnx package is not used here, because running a file does not need it otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vrdir.errors import WeightsError

# Numbers of fields in onnx.proto3, and of types in TensorProto.DataType
GRAPH, INITIALIZER = 7, 5
DATA_TYPE, FLOAT_DATA, NAME, RAW_DATA, DOUBLE_DATA = 2, 4, 8, 9, 10
RAW_TYPES = {1: "<f4", 10: "<f2", 11: "<f8"}
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def initializers(path: Path) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Yield the name and the values of each floating-point tensor in the file, flat.

    Raises:
        WeightsError: the file is damaged.
    """
    try:
        for number, graph in _fields(memoryview(path.read_bytes())):
            for inner, tensor in _fields(graph) if number == GRAPH else ():
                if inner == INITIALIZER:
                    yield _tensor(tensor)
    except (IndexError, TypeError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path} is not an ONNX file, or is damaged ({error})") from None


def _tensor(message: Any) -> tuple[str, np.ndarray[Any, Any]]:
    fields = list(_fields(message))
    named = dict(fields)
    kind = RAW_TYPES.get(named.get(DATA_TYPE, 0))
    typed = {RAW_DATA: kind, FLOAT_DATA: "<f4", DOUBLE_DATA: "<f8"}
    parts = [
        np.frombuffer(value, typed[number])
        for number, value in fields
        if typed.get(number) and not isinstance(value, int)
    ]
    return bytes(named.get(NAME, b"")).decode(), np.concatenate(parts) if parts else np.empty(
        0, np.float32
    )


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Yield the fields of a protobuf message: their number, and an integer or the bytes."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        number, wire = divmod(varint(), 8)
        if wire == VARINT:
            yield number, varint()
            continue
        size = varint() if wire == BYTES else {FIXED64: 8, FIXED32: 4}.get(wire, 0)
        if not 0 < size <= len(message) - at and not (wire == BYTES and size == 0):
            raise IndexError(f"a field of {size} bytes at {at} of {len(message)}")
        yield number, message[at : at + size]
        at += size
