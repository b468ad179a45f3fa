"""A recogniser from an ONNX file, as a PyTorch module that returns answers and features.

Existing converters to PyTorch (onnx2torch) need torchvision, which does not fit every build of
PyTorch. Therefore `vrdir.training.onnx_network` implements the operators of convolutional networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vrdir.adaptation.layers import MOST_LAYERS
from vrdir.errors import MissingFileError, RecogniserError, require
from vrdir.regular_files import refuse_pointer
from vrdir.training.onnx_network import OPERATORS, OnnxNetwork

RESHAPING = ("Reshape", "Transpose", "Flatten", "Squeeze")


class OnnxRecogniser(nn.Module):
    """The differentiable part of the network in an ONNX file.

    Args:
        path: the ONNX file.
        features: the names of the tensors to use as features.
        answers: the names of the tensors to use as answers.
        size: height and width of the input in pixels.

    Raises:
        RecogniserError: an operator is not supported.
    """

    def __init__(
        self,
        path: Path,
        features: Sequence[str],
        answers: Sequence[str],
        size: tuple[int, int],
    ) -> None:
        super().__init__()
        self.features, self.size = list(features), size
        self.network = OnnxNetwork(path, (*features, *answers))
        self.one_by_one = False

    def check_batches(self) -> None:
        """Test whether it accepts several images at once; some files reshape to one image."""
        try:
            with torch.no_grad():
                self(torch.zeros(2, 3, *self.size))
        except RuntimeError:
            self.one_by_one = True

    def forward(self, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the answers and the features for a batch of images, (B, 3, H, W)."""
        if self.one_by_one:
            each = [self.network(one) for one in image.split(1)]
            found = [torch.cat(parts) for parts in zip(*each, strict=True)]
        else:
            found = self.network(image)
        return found[len(self.features) :], found[: len(self.features)]


def open_recogniser(path: Path, layers: Sequence[str] = ()) -> OnnxRecogniser:
    """Open an ONNX file for adaptation.

    The answers are the outputs of the file, if all operators before them are supported. For others,
    such as a detector that ends with non-maximum suppression, they are the prediction maps: the
    tensors after the last convolutions, before they are reshaped.

    Args:
        path: the ONNX file, with one input (B, 3, H, W).
        layers: the names of the tensors whose features are compared; empty to choose a few.

    Raises:
        MissingFileError: the file does not exist.
        RecogniserError: it is not an ONNX file, does not have these tensors, or uses operators that
            are not supported.
        MissingPackageError: onnx is not installed.
    """
    onnx = require("onnx", "export", "an ONNX file as recogniser needs onnx")
    if not path.is_file():
        raise MissingFileError(f"recogniser {path} does not exist")
    refuse_pointer(path)
    try:
        graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    except Exception as error:  # protobuf has errors of its own
        raise RecogniserError(
            f"{path} is not a readable ONNX file ({type(error).__name__})"
        ) from None
    constants = {c.name for c in graph.initializer}
    images = [i for i in graph.input if i.name not in constants]
    if len(images) != 1:
        raise RecogniserError(f"{path} has {len(images)} inputs; it must have one, the image")
    shapes = {v.name: _shape(v) for v in (*graph.value_info, *graph.output, *images)}
    sides = shapes[images[0].name][2:]
    if len(sides) != 2:
        raise RecogniserError(f"{path} has no input for images (B, 3, H, W)")
    nodes = _Nodes(graph, constants | {images[0].name})
    answers = nodes.answers([o.name for o in graph.output])
    if not answers:
        raise RecogniserError(
            f"{path} uses operators that vrdir does not support "
            f"({', '.join(sorted(nodes.unknown)[:8])}); use the recogniser as a PyTorch module, "
            "--recogniser module:function"
        )
    features = list(layers) or (
        nodes.before_last_convolutions(answers)
        if nodes.convolutional
        else _last_by_size(graph, shapes, nodes)
    )
    height, width = (side or 224 for side in sides)
    recogniser = OnnxRecogniser(path, features, answers, (height, width))
    if shapes[images[0].name][0] == 1:
        recogniser.check_batches()
    return recogniser


class _Nodes:
    """The nodes of a graph, with the tensors that depend on supported operators only."""

    def __init__(self, graph: Any, given: set[str]) -> None:
        self.makers = {name: node for node in graph.node for name in node.output}
        self.users: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self.users.setdefault(name, []).append(node)
        self.known, self.varies = set(given), _depending(graph)
        self.unknown: set[str] = set()
        self.convolved: set[str] = set()
        self.convolutional = False
        for node in graph.node:
            if node.op_type not in OPERATORS:
                self.unknown.add(node.op_type)
            elif all(name in self.known or not name for name in node.input):
                self.known.update(node.output)
            if node.op_type == "Conv" or self.convolved & set(node.input):
                self.convolved.update(node.output)
        self.before = _before_convolution(graph)

    def answers(self, outputs: Sequence[str]) -> list[str]:
        """Return the names of the answers; empty if none depends on supported operators only."""
        if all(name in self.known for name in outputs):
            return list(outputs)
        self.convolutional = True
        reshaped: set[str] = set()  # after the last convolutions
        for name, node in self.makers.items():
            at_end = node.op_type in RESHAPING and node.output[0] not in self.before
            if at_end or reshaped & set(node.input):
                reshaped.add(name)
        return [
            name
            for name, node in self.makers.items()
            if name in self.known
            and name in self.convolved
            and name not in self.before
            and name not in reshaped
            and any(user.op_type in RESHAPING for user in self.users.get(name, ()))
        ]

    def before_last_convolutions(self, answers: Sequence[str]) -> list[str]:
        """Return the inputs of the last convolutions before the answers."""
        found: dict[str, None] = {}
        waiting = list(answers)
        while waiting:
            node = self.makers.get(waiting.pop(0))
            if node is None:
                continue
            if node.op_type == "Conv":
                found[node.input[0]] = None
            else:
                waiting.extend(name for name in node.input if name in self.varies)
        return list(found)


def _depending(graph: Any) -> set[str]:
    """Return the tensors that depend on the image."""
    constants = {c.name for c in graph.initializer}
    found = {i.name for i in graph.input} - constants
    for node in graph.node:
        if found & set(node.input):
            found.update(node.output)
    return found


def _before_convolution(graph: Any) -> set[str]:
    """Return the tensors from which a convolution is computed."""
    found: set[str] = set()
    for node in reversed(graph.node):
        if node.op_type == "Conv" or found & set(node.output):
            found.update(node.input)
    return found


def _last_by_size(graph: Any, shapes: dict[str, list[int]], nodes: _Nodes) -> list[str]:
    """Return the last map at each resolution, fine to coarse, at most `MOST_LAYERS`."""
    last: dict[tuple[int, ...], str] = {}
    for node in graph.node:
        for name in node.output:
            shape = shapes.get(name, [])
            if name in nodes.known and name in nodes.varies and len(shape) == 4 and shape[2] > 1:
                last[tuple(shape[2:])] = name
    ordered = sorted(last.items(), key=lambda item: -item[0][0] * item[0][1])
    return [name for _, name in ordered[-MOST_LAYERS:]]


def _shape(value: Any) -> list[int]:
    return [side.dim_value for side in value.type.tensor_type.shape.dim]
