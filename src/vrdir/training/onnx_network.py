"""A recogniser from an ONNX file as a PyTorch module that gradients pass through."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vrdir.errors import RecogniserError


class OnnxNetwork(nn.Module):
    """The part of an ONNX graph that leads from its image to some of its tensors, frozen.

    It knows the operators of convolutional networks (`OPERATORS`). Nodes after the requested
    tensors, such as the suppression of double boxes, are not run.

    Args:
        path: the ONNX file, with one input, (B, 3, H, W) in [0, 1].
        tensors: names of the tensors that `forward` returns.

    Raises:
        RecogniserError: the file is not an ONNX file, has no such tensor, or needs an unknown
            operator.
    """

    def __init__(self, path: Path, tensors: Sequence[str]) -> None:
        super().__init__()
        import onnx
        from onnx import numpy_helper

        try:
            graph = onnx.load(path).graph
        except Exception as error:  # protobuf has its own error classes
            raise RecogniserError(
                f"{path} is not a readable ONNX file ({type(error).__name__})"
            ) from None
        self.tensors = tuple(tensors)
        constants = {
            c.name: torch.from_numpy(numpy_helper.to_array(c).copy()) for c in graph.initializer
        }
        (self.image,) = (i.name for i in graph.input if i.name not in constants)
        makers = {name: node for node in graph.node for name in node.output}
        missing = [name for name in tensors if name not in makers]
        if missing:
            raise RecogniserError(f"{path} has no tensor {', '.join(missing)}")
        wanted: set[str] = set()
        waiting = list(tensors)
        while waiting:
            node = makers.get(waiting.pop())
            if node is not None and node.output[0] not in wanted:
                wanted.add(node.output[0])
                waiting.extend(node.input)
        self.steps: list[tuple[Callable[..., Tensor], list[str], str, dict[str, Any]]] = []
        for node in (node for node in graph.node if node.output[0] in wanted):
            if node.op_type not in OPERATORS:
                raise RecogniserError(
                    f"{path} uses the operator {node.op_type}, which vrdir does not support"
                )
            given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            step = (OPERATORS[node.op_type], list(node.input), node.output[0], given)
            if all(name in constants for name in node.input):
                constants[node.output[0]] = step[0](*(constants[n] for n in node.input), **given)
            else:
                self.steps.append(step)
        used = {name for _, names, _, _ in self.steps for name in names} & constants.keys()
        self.places = {name: f"constant{number}" for number, name in enumerate(sorted(used))}
        for name, place in self.places.items():
            self.register_buffer(place, constants[name])

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the requested tensors of a batch (B, 3, H, W) in [0, 1]."""
        values: dict[str, Tensor | None] = {
            name: getattr(self, place) for name, place in self.places.items()
        }
        values |= {self.image: image, "": None}
        for operator, names, output, given in self.steps:
            values[output] = operator(*(values[name] for name in names), **given)
        found = [values[name] for name in self.tensors]
        return [value for value in found if value is not None]


def _pads(pads: Sequence[int] | None) -> list[int]:
    """ONNX's pads (all beginnings, then all ends) in the order of `functional.pad`."""
    half = len(pads) // 2 if pads else 0
    return [p for i in reversed(range(half)) for p in (pads[i], pads[i + half])] if pads else []


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None = None, **given: Any) -> Tensor:
    x = functional.pad(x, pads) if any(pads := _pads(given.get("pads"))) else x
    stride, dilation = given.get("strides", 1), given.get("dilations", 1)
    groups = given.get("group", 1)
    return functional.conv2d(x, weight, bias, stride, dilation=dilation, groups=groups)


def _max_pool(x: Tensor, **given: Any) -> Tensor:
    pads = _pads(given.get("pads"))
    x = functional.pad(x, pads, value=-torch.inf) if any(pads) else x
    return functional.max_pool2d(x, given["kernel_shape"], given.get("strides", 1))


def _slice(x: Tensor, *positions: Tensor, **_: Any) -> Tensor:
    starts, ends = (p.tolist() for p in positions[:2])
    axes = positions[2].tolist() if len(positions) > 2 else list(range(len(starts)))
    steps = positions[3].tolist() if len(positions) > 3 else [1] * len(starts)
    where = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        where[axis] = slice(start, min(end, x.shape[axis]), step)
    return x[tuple(where)]


def _resize(x: Tensor, *inputs: Tensor | None, **given: Any) -> Tensor:
    scales = next(i for i in inputs if i is not None and i.is_floating_point() and len(i) == 4)
    mode = given.get("mode", b"nearest").decode()
    factor = tuple(scales[2:].tolist())
    return functional.interpolate(
        x, scale_factor=factor, mode={"linear": "bilinear"}.get(mode, mode)
    )


def _array(value: Any) -> Any:
    from onnx import numpy_helper

    return numpy_helper.to_array(value)


def _numbers(axes: Any) -> list[int]:
    """Axes: an input of newer files, an attribute of older ones."""
    return axes.tolist() if isinstance(axes, Tensor) else list(axes)


def _average_pool(x: Tensor, **given: Any) -> Tensor:
    pads = _pads(given.get("pads"))
    counted = bool(given.get("count_include_pad", 0)) or not any(pads)
    size, stride = given["kernel_shape"], given.get("strides", 1)
    if not any(pads):
        return functional.avg_pool2d(x, size, stride)
    sums = functional.avg_pool2d(functional.pad(x, pads), size, stride)
    if counted:
        return sums
    return sums / functional.avg_pool2d(
        functional.pad(torch.ones_like(x[:1, :1]), pads), size, stride
    )


def _batch_norm(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, **given: Any
) -> Tensor:
    return functional.batch_norm(x, mean, variance, weight, bias, eps=given.get("epsilon", 1e-5))


def _gather(x: Tensor, index: Tensor, axis: int = 0, **_: Any) -> Tensor:
    shape = (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])
    return x.index_select(axis, index.flatten().long()).reshape(shape)


def _gemm(a: Tensor, b: Tensor, c: Tensor | None = None, **given: Any) -> Tensor:
    product = (a.T if given.get("transA") else a) @ (b.T if given.get("transB") else b)
    product = product * given.get("alpha", 1.0)
    return product if c is None else product + c * given.get("beta", 1.0)


def _pad(x: Tensor, pads: Tensor, value: Tensor | None = None, **given: Any) -> Tensor:
    mode = given.get("mode", b"constant").decode()
    sizes = _pads(pads.tolist())
    if mode != "constant":
        return functional.pad(x, sizes[:4], {"edge": "replicate"}.get(mode, mode))
    return functional.pad(x, sizes, value=0.0 if value is None else float(value))


def _reshape(x: Tensor, shape: Tensor, **_: Any) -> Tensor:
    return x.reshape([x.shape[i] if side == 0 else side for i, side in enumerate(shape.tolist())])


def _unsqueeze(x: Tensor, axes: Sequence[int]) -> Tensor:
    for axis in sorted(axes):
        x = x.unsqueeze(axis)
    return x


FLOATS = (1, 10, 11, 16)
"""ONNX's numbers of floating-point types, all of which are computed as float32 here."""

OPERATORS: dict[str, Callable[..., Tensor]] = {
    "Add": lambda a, b, **_: a + b,
    "Cast": lambda x, to, **_: x.float() if to in FLOATS else x.long(),
    "Clip": lambda x, low=None, high=None, **_: x.clamp(low, high),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Concat": lambda *parts, axis, **_: torch.cat(parts, axis),
    "Constant": lambda value, **_: torch.from_numpy(_array(value).copy()),
    "Conv": _conv,
    "Div": lambda a, b, **_: a / b,
    "Flatten": lambda x, axis=1, **_: x.flatten(0, axis - 1).flatten(1) if axis else x[None],
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda x, **_: x.mean((2, 3), keepdim=True),
    "HardSigmoid": lambda x, alpha=0.2, beta=0.5, **_: (alpha * x + beta).clamp(0, 1),
    "Identity": lambda x, **_: x,
    "LeakyRelu": lambda x, alpha=0.01, **_: functional.leaky_relu(x, alpha),
    "LpNormalization": lambda x, axis=-1, p=2, **_: functional.normalize(x, p, axis),
    "MatMul": lambda a, b, **_: a @ b,
    "MaxPool": _max_pool,
    "Mul": lambda a, b, **_: a * b,
    "Pad": _pad,
    "Pow": lambda a, b, **_: a**b,
    "ReduceMean": lambda x, axes, keepdims=1, **_: x.mean(_numbers(axes), bool(keepdims)),
    "Relu": lambda x, **_: torch.relu(x),
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": lambda x, **_: torch.tensor(x.shape),
    "Sigmoid": lambda x, **_: torch.sigmoid(x),
    "Slice": _slice,
    "Softmax": lambda x, axis=-1, **_: x.softmax(axis),
    "Squeeze": lambda x, axes, **_: x.squeeze(tuple(_numbers(axes))),
    "Sub": lambda a, b, **_: a - b,
    "Tanh": lambda x, **_: torch.tanh(x),
    "Transpose": lambda x, perm, **_: x.permute(*perm),
    "Unsqueeze": lambda x, axes, **_: _unsqueeze(x, _numbers(axes)),
}
"""For each ONNX operator, a function of a node's inputs and attributes."""
