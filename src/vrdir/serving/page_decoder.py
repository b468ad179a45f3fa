"""The steps of the page's network that make the restored image: its decoder, as ONNX graphs."""

from __future__ import annotations

from typing import cast

import numpy as np
from torch import nn

from vrdir.model.blocks import ResidualBlock, ResidualBlocks
from vrdir.model.semantics_decoder import PixelSkipDecoder
from vrdir.model.vrdir import VRDIR
from vrdir.serving.page_graph import Graph


def decoder_steps(model: VRDIR) -> dict[str, bytes]:
    """Return the steps of a network's decoder, as ONNX files by name."""
    decoder = model.decoder
    if isinstance(decoder, PixelSkipDecoder):
        return _pixel_path(decoder)
    graph = Graph("features", "clear", "strength")
    hidden = graph.add("Relu", graph.convolved(decoder.up, "features"))
    restored = graph.add("Sigmoid", graph.convolved(decoder.to_image, hidden))
    return {"end": _ended(graph, restored)}


def _pixel_path(decoder: PixelSkipDecoder) -> dict[str, bytes]:
    """Return the steps of a decoder with a pixel path, as ONNX files by name."""
    steps: dict[str, bytes] = {}
    for path in ("encoder", "decoder"):
        for scale, blocks in enumerate(getattr(decoder, path)):
            for number, block in enumerate(cast(ResidualBlocks, blocks)):
                name = f"{path}{scale}.{number}"
                steps |= _block(cast(ResidualBlock, block), name)
    for scale, (down, up) in enumerate(zip(decoder.down, decoder.up, strict=True)):
        graph = Graph("finer")
        steps[f"down{scale}"] = graph.content(
            coarser=graph.convolved(cast(nn.Conv2d, down), "finer")
        )
        graph = Graph("coarser", "skip")
        larger = graph.convolved(cast(nn.ConvTranspose2d, up), "coarser")
        steps[f"up{scale}"] = graph.content(x=graph.add("Add", larger, "skip"))
    graph = Graph("x", "clear", "strength", rows="rows")
    inside = graph.cut(graph.convolved(decoder.to_correction, "x"), "rows")
    correction = graph.add("DepthToSpace", inside, blocksize=2, mode="CRD")
    axis = graph.constant(np.array([1]))
    gain, residual = (
        graph.add("Slice", correction, *(graph.constant(np.array([i])) for i in ends), axis)
        for ends in ((0, 3), (3, 6))
    )
    added = graph.add("Add", graph.add("Mul", gain, "clear"), residual)
    steps["end"] = _ended(graph, graph.add("Add", "clear", added))
    return steps


def _block(block: ResidualBlock, name: str) -> dict[str, bytes]:
    """Return a residual block as two steps; between them the page computes the mean of `hidden`."""
    graph = Graph("x", rows="rows")
    hidden = graph.add("Relu", graph.convolved(block.expand, "x"))
    sums = graph.sums(graph.cut(hidden, "rows"))
    steps = {f"{name}.expand": graph.content(hidden=hidden, sums=sums)}
    graph = Graph("x", "hidden", "mean")
    hidden = "hidden"
    if block.attend is not None:
        weight = graph.add("Sigmoid", graph.convolved(block.attend, "mean"))
        twice = graph.add("Mul", weight, graph.constant(np.float32(2)))
        hidden = graph.add("Mul", hidden, twice)
    y = graph.add("Add", "x", graph.convolved(block.project, hidden))
    return steps | {f"{name}.project": graph.content(y=y)}


def _ended(graph: Graph, restored: str) -> bytes:
    """Return the last step: the correction times `strength` (1, 1, 1, 1), limited to [0, 1]."""
    correction = graph.add("Mul", graph.add("Sub", restored, "clear"), "strength")
    zero, one = (graph.constant(np.float32(value)) for value in (0, 1))
    return graph.content(
        restored=graph.add("Clip", graph.add("Add", "clear", correction), zero, one)
    )
