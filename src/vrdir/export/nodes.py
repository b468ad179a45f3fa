"""Changes to an exported ONNX graph: readable names, and convolutions in float16."""

from __future__ import annotations

import ast
from collections import Counter
from typing import Any

SCOPES_KEY = "pkg.torch.onnx.name_scopes"  # the exporter's note of the modules around a node
NETWORK = "network."  # the prefix of all modules of the network
# A spectrum spans too wide a range for float16; the global context decides about the whole image.
FULL_PRECISION = ("modulation", "context")


def name_readably(graph: Any) -> None:
    """Name nodes and their outputs by module and operation, such as `decoder.up.0/Conv`.

    The names of the graph's inputs and outputs stay.
    """
    kept = {value.name for value in (*graph.input, *graph.output)}
    names = {weights.name: weights.name.removeprefix(NETWORK) for weights in graph.initializer}
    names |= {name: name for name in kept}
    taken = Counter(names.values())
    for node in graph.node:
        noted = next((one.value for one in node.metadata_props if one.key == SCOPES_KEY), "[]")
        # A node without a module has an empty scope, or one of the exporter's own.
        modules = [scope for scope in ast.literal_eval(noted)[:-1] if scope.startswith(NETWORK)]
        name = f"{modules[-1].removeprefix(NETWORK)}/{node.op_type}" if modules else node.op_type
        taken[name] += 1
        node.name = name if taken[name] == 1 else f"{name}_{taken[name]}"
        for number, output in enumerate(node.output):
            if output and output not in kept:
                names[output] = node.name if len(node.output) == 1 else f"{node.name}:{number}"
    for weights in graph.initializer:
        weights.name = names[weights.name]
    for node in graph.node:
        node.input[:] = [names.get(value, value) for value in node.input]
        node.output[:] = [names.get(value, value) for value in node.output]


def halve_convolutions(graph: Any) -> None:
    """Make convolutions compute in float16, with weights in float16, between casts to float32."""
    from onnx import TensorProto, helper, numpy_helper

    weights = {one.name: one for one in graph.initializer}
    nodes, cast = [], set()
    for node in graph.node:
        if node.op_type != "Conv" or any(part in node.name for part in FULL_PRECISION):
            nodes.append(node)
            continue
        for name in node.input[1:]:
            if weights[name].data_type == TensorProto.FLOAT:
                halved = numpy_helper.to_array(weights[name]).astype("float16")
                weights[name].CopyFrom(numpy_helper.from_array(halved, name))
        source, target = node.input[0], node.output[0]
        if source not in cast:
            cast.add(source)
            nodes.append(
                helper.make_node(
                    "Cast", [source], [f"{source}/half"], f"{source}/half", to=TensorProto.FLOAT16
                )
            )
        node.input[0], node.output[0] = f"{source}/half", f"{target}/halved"
        nodes += [
            node,
            helper.make_node(
                "Cast", [f"{target}/halved"], [target], f"{target}/full", to=TensorProto.FLOAT
            ),
        ]
    del graph.node[:]
    graph.node.extend(nodes)
