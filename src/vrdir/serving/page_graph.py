"""Build ONNX graphs from a network's layers, without tracing: for the steps that the page runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from vrdir.errors import require

OPSET = 18
HALF_LEAST = 16  # values: a constant of fewer is not worth a cast


class Graph:
    """A graph that grows by one operator at a time. Values are named by strings.

    Args:
        inputs: names of inputs that are maps (1, C, H, W).
        rows: name of an input of two integers, if the graph cuts rows out.
    """

    def __init__(self, *inputs: str, rows: str | None = None) -> None:
        self.onnx: Any = require("onnx", "export", "exporting needs onnx")
        floats, whole = self.onnx.TensorProto.FLOAT, self.onnx.TensorProto.INT32
        value = self.onnx.helper.make_tensor_value_info
        self.inputs = [value(name, floats, [None] * 4) for name in inputs]
        if rows is not None:
            self.inputs.append(value(rows, whole, [2]))
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator with one result; return the result's name."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(self, values: Any) -> str:
        """Add a constant; return its name."""
        name = f"c{len(self.constants)}"
        array = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
        array = np.ascontiguousarray(array)
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def convolved(self, layer: nn.Conv2d | nn.ConvTranspose2d, x: str) -> str:
        """Add a convolution with a layer's values."""
        kind = "ConvTranspose" if isinstance(layer, nn.ConvTranspose2d) else "Conv"
        assert isinstance(layer.padding, tuple)
        weights = [layer.weight, *([] if layer.bias is None else [layer.bias])]
        return self.add(
            kind,
            x,
            *map(self.constant, weights),
            group=layer.groups,
            kernel_shape=list(layer.kernel_size),
            strides=list(layer.stride),
            pads=[*layer.padding, *layer.padding],
        )

    def cut(self, x: str, rows: str) -> str:
        """Add the cut of a map to the rows from `rows[0]` up to `rows[1]`."""
        first, last = (
            self.add("Gather", rows, self.constant(np.array([i], np.int32))) for i in (0, 1)
        )
        return self.add("Slice", x, first, last, self.constant(np.array([2], np.int32)))

    def sums(self, x: str) -> str:
        """Add the sums of a map's channels over its positions, (1, C, 1, 1)."""
        return self.add("ReduceSum", x, self.constant(np.array([2, 3])), keepdims=1)

    def content(self, **outputs: str) -> bytes:
        """Return the graph as the content of an ONNX file.

        Args:
            outputs: the values that it gives, by their names.
        """
        helper, floats = self.onnx.helper, self.onnx.TensorProto.FLOAT
        nodes = self.nodes + [
            helper.make_node("Identity", [value], [name]) for name, value in outputs.items()
        ]
        given = [helper.make_tensor_value_info(name, floats, [None] * 4) for name in outputs]
        graph = helper.make_graph(nodes, "step", self.inputs, given, self.constants)
        opset = helper.make_opsetid("", OPSET)
        return packed(helper.make_model(graph, opset_imports=[opset], ir_version=10))


def packed(proto: Any) -> bytes:
    """Return a checked model, with constants in float16 where nothing is lost by it.

    The runtime casts them once, when it opens the graph, so that it computes as before.
    """
    import onnx

    graph = proto.graph
    casts = []
    for constant in graph.initializer:
        if constant.data_type != onnx.TensorProto.FLOAT:
            continue
        values = onnx.numpy_helper.to_array(constant)
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        if values.size < HALF_LEAST or not np.array_equal(values, halves.astype(np.float32)):
            continue
        name = constant.name
        constant.CopyFrom(onnx.numpy_helper.from_array(halves, f"{name}/half"))
        casts.append(
            onnx.helper.make_node("Cast", [f"{name}/half"], [name], to=onnx.TensorProto.FLOAT)
        )
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(proto)
    content: bytes = proto.SerializeToString()
    return content


def traced(
    module: nn.Module,
    inputs: dict[str, Tensor],
    outputs: Sequence[str],
    free: dict[str, dict[int, Any]],
) -> bytes:
    """Return a module as the content of an ONNX file, traced by PyTorch.

    Args:
        module: takes the inputs in their order.
        inputs: examples, by name.
        outputs: names of what it gives.
        free: the sides that may have other lengths: names or `Dim`s by axis, by input.
    """
    import torch

    from vrdir.export.exporting import quiet, tidy

    require("onnxscript", "export", "exporting needs onnxscript")
    with torch.no_grad(), quiet():
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=[free.get(name) for name in inputs],
        )
    assert program is not None  # with dynamo
    proto: Any = program.model_proto
    tidy(proto, free=False)
    return packed(proto)
