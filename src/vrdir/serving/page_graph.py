"""Build ONNX graphs of network layers, for the steps that the page runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from vrdir.errors import require

OPSET = 18
HALF_LEAST = 16  # values: a constant of fewer is not worth a cast


class Graph:
    """An ONNX graph to which operators are added one by one. Each value has a name, a string.

    Args:
        inputs: the names of the inputs that are maps, (1, C, H, W) float32.
        rows: the name of an input (2,) int32, if the graph cuts out rows; None for no such input.

    Raises:
        MissingPackageError: onnx is not installed.
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
        """Add an operator with one result; return the name of the result.

        Args:
            kind: the type of the operator, such as "Conv".
            inputs: the names of its inputs.
            attributes: its attributes, as ONNX defines them.
        """
        name = f"v{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(self, values: Any) -> str:
        """Add a constant, a tensor or an array; return its name."""
        name = f"c{len(self.constants)}"
        array = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
        array = np.ascontiguousarray(array)
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def convolved(self, layer: nn.Conv2d | nn.ConvTranspose2d, x: str) -> str:
        """Add a convolution with the weights of a layer; return the name of the result."""
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
        """Cut a map to the rows from `rows[0]` up to, not including, `rows[1]`; return its name."""
        first, last = (
            self.add("Gather", rows, self.constant(np.array([i], np.int32))) for i in (0, 1)
        )
        return self.add("Slice", x, first, last, self.constant(np.array([2], np.int32)))

    def sums(self, x: str) -> str:
        """Sum each channel of a map over its positions; return its name; it is (1, C, 1, 1)."""
        return self.add("ReduceSum", x, self.constant(np.array([2, 3])), keepdims=1)

    def content(self, **outputs: str) -> bytes:
        """Return the graph as the content of an ONNX file.

        Args:
            outputs: for each output its name, and the name of the value that it returns.
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
    """Check an ONNX model and return its bytes, with constants in float16 where that is exact.

    The runtime converts these constants to float32 once, when it opens the graph. So the results
    are the same.

    Args:
        proto: an `onnx.ModelProto`; it is changed.
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
    """Trace a module with PyTorch and return it as the content of an ONNX file.

    Args:
        module: the module; it takes the inputs in their order.
        inputs: an example of each input, by name.
        outputs: the names of its results.
        free: for each input that may have other sizes, its axes with a name or `Dim` each.

    Raises:
        MissingPackageError: onnxscript is not installed.
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
