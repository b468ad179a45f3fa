"""What is done to an exported ONNX graph: names that can be read in a viewer, and convolutions in float16."""

from __future__ import annotations

import ast
from collections import Counter
from typing import Any

SCOPES_KEY = "pkg.torch.onnx.name_scopes"  # where the exporter notes the modules around a node
NETWORK = "network."  # what wraps all modules of the network
# The Fourier part, as a spectrum spans too wide a range for float16, and what the whole image depends on.
FULL_PRECISION = ("modulation", "context")


def name_readably(graph: Any) -> None:
    """Name nodes and what they give out by module and operation, as `decoder.up.0/Conv`; inputs and outputs of the graph stay."""
    kept = {value.name for value in (*graph.input, *graph.output)}
    names = {weights.name: weights.name.removeprefix(NETWORK) for weights in graph.initializer}
    names |= {name: name for name in kept}
    taken = Counter(names.values())
    for node in graph.node:
        noted = next((one.value for one in node.metadata_props if one.key == SCOPES_KEY), "[]")
        # Those without a module have an empty scope, or one of the exporter's own.
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
    """Let convolutions compute in float16, between casts from and to float32, on weights that are kept in float16."""
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
