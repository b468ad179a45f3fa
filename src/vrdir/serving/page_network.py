"""The network that the page runs on the visitor's device: the steps of restoring, as ONNX graphs.

The network uses means over the whole image, and its Fourier transform. So it is divided into steps
at the places where these are needed. As `vrdir.restoring.strips` does here, the page runs one step
for the whole image in strips of rows before it begins the next step. In this way photos of any size
get the same pixels as from the whole network, without seams. Between the steps, `strips.js` and
`fourier.js` compute the means and the Fourier transforms; `vrdir.serving.page_restoring` does the
same in Python for a whole image, to check the steps.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from vrdir.model.blocks import ResidualBlocks
from vrdir.model.control import CLEAN, HAZE
from vrdir.model.global_statistics import Moments, SuppliedStatistics
from vrdir.model.semantics_decoder import PixelSkipDecoder
from vrdir.model.semantics_enhancement import SemanticsEnhancement
from vrdir.model.vrdir import VRDIR
from vrdir.serving.page_context import TONE, VEIL, context_steps
from vrdir.serving.page_decoder import decoder_steps
from vrdir.serving.page_graph import Graph, traced


class PageNetwork(NamedTuple):
    """The steps of a network, and what the page needs to know to run them.

    Attributes:
        steps: the content of an ONNX file for each step, by its name.
        facts: JSON values for device.json, such as the channels of each tap.
    """

    steps: dict[str, bytes]
    facts: dict[str, Any]


def steps_of(model: VRDIR) -> PageNetwork:
    """Return the steps of a network, as ONNX files.

    Args:
        model: the network; it is copied.

    Raises:
        MissingPackageError: a package of the extra `export` is not installed.
    """
    model = copy.deepcopy(model).to("cpu")
    model = model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    model = model.requires_grad_(False).eval()
    steps = {"begin": _begin(model)}
    for tap, scale in enumerate(model.scales):
        steps[f"spectrum{tap}"] = _spectrum(scale)
        steps[f"guide{tap}"] = _guide(scale)
        steps[f"mix{tap}"] = _mix(model, tap)
    if model.context is not None:
        steps |= context_steps(model)
    steps |= decoder_steps(model)
    return PageNetwork(steps, _facts(model))


def _facts(model: VRDIR) -> dict[str, Any]:
    config, decoder = model.config, model.decoder
    margin = -(-model.extractor.reach[model.taps[-1].stride] // config.multiple) * config.multiple
    names = config.guidance_names
    facts: dict[str, Any] = {
        "multiple": config.multiple,
        "margin": margin,
        "taps": [{"stride": tap.stride, "channels": tap.channels} for tap in model.taps],
        "branch_rows": 2 * config.branch_blocks,
        "haze": names.index(HAZE) if HAZE in names else None,
        "clean": names.index(CLEAN) if CLEAN in names else None,
        "unveils": model.unveils,
        "context": None,
        "scales": [],
    }
    if config.context is not None:
        facts["context"] = {
            "side": config.context.side,
            "names": list(TONE if config.context.tone else VEIL),
            "scaled": TONE[2] if config.context.tone else VEIL[2],  # by the strength
            "raised": None if config.context.tone else VEIL[1],  # to the power of it
        }
    if isinstance(decoder, PixelSkipDecoder):
        facts["scales"] = [
            {
                "channels": width,
                "encoder": len(cast(ResidualBlocks, decoder.encoder[scale])),
                "decoder": len(cast(ResidualBlocks, decoder.decoder[scale])),
                "tap": decoder.scale_of_tap.index(scale) if scale in decoder.scale_of_tap else None,
            }
            for scale, width in enumerate(decoder.widths)
        ]
    return facts


class _Begin(nn.Module):
    """Take padded rows of the image, after and before lifting, and return the features.

    With a pixel path, the decoder's first map is the last result.
    """

    def __init__(self, model: VRDIR) -> None:
        super().__init__()
        self.model = model

    def forward(self, clear: Tensor, original: Tensor) -> tuple[Tensor, ...]:
        features = self.model.extract(clear)
        decoder = self.model.decoder
        if isinstance(decoder, PixelSkipDecoder):
            features.append(decoder.begin(clear, original))
        return tuple(features)


def _begin(model: VRDIR) -> bytes:
    outputs = [f"features{tap}" for tap in range(len(model.taps))]
    if isinstance(model.decoder, PixelSkipDecoder):
        outputs.append("pixels")
    multiple = model.config.multiple
    # Two different tensors: the exporter would make one input of the same tensor.
    inputs = {n: torch.rand(1, 3, 3 * multiple, 5 * multiple) for n in ("clear", "original")}
    height, width = (torch.export.Dim(name) for name in ("height", "width"))
    sides = {2: multiple * height, 3: multiple * width}
    return traced(_Begin(model), inputs, outputs, dict.fromkeys(inputs, sides))


def _spectrum(scale: SemanticsEnhancement) -> bytes:
    """Return the step that changes the amplitude of a spectrum, as FGM does (section 3.3)."""
    graph = Graph("real", "imaginary")
    square = graph.add("Add", *(graph.add("Mul", part, part) for part in ("real", "imaginary")))
    amplitude = graph.add("Sqrt", square)
    least = graph.constant(np.float32(1e-8))
    changed = graph.convolved(scale.modulation.amplitude, amplitude)
    ratio = graph.add("Div", changed, graph.add("Max", amplitude, least))
    real, imaginary = (graph.add("Mul", part, ratio) for part in ("real", "imaginary"))
    return graph.content(changed_real=real, changed_imaginary=imaginary)


def _guide(scale: SemanticsEnhancement) -> bytes:
    """Return the step from rows of FGM's map to the guidance maps of the rows inside.

    Its input `kept`, (1, K, 1, 1), is 1 for the branches to use and 0 for the others.
    """
    graph = Graph("semantics", "kept", rows="rows")
    guidance = graph.convolved(scale.modulation.guidance, "semantics")
    maps = graph.cut(graph.add("Softmax", guidance, axis=1), "rows")
    left = graph.add("Mul", maps, "kept")
    total = graph.add("ReduceSum", left, graph.constant(np.array([1])), keepdims=1)
    if scale.clean_branch:
        count = len(scale.branches)
        clean = graph.constant(np.eye(count + 1, dtype=np.float32)[count].reshape(1, -1, 1, 1))
        missing = graph.add("Sub", graph.constant(np.float32(1)), total)
        steered = graph.add("Add", left, graph.add("Mul", missing, clean))
    else:
        steered = graph.add("Div", left, graph.add("Max", total, graph.constant(np.float32(1e-6))))
    return graph.content(guidance=steered, sums=graph.sums(maps))


class _Mix(nn.Module):
    """Take rows of features and guidance, and return the branches mixed by the guidance.

    The mean and variance are those of the features of the whole image. With a pixel path, the
    result is added to the decoder's map `x`.
    """

    def __init__(self, scale: SemanticsEnhancement, project: nn.Module | None) -> None:
        super().__init__()
        self.scale, self.project = scale, project

    def forward(
        self,
        features: Tensor,
        guidance: Tensor,
        mean: Tensor,
        variance: Tensor,
        x: Tensor | None = None,
    ) -> Tensor:
        moments = Moments(mean, variance)
        statistics = SuppliedStatistics(dict.fromkeys(self.scale.branches.values(), moments))
        mixed = self.scale.mix(features, guidance, statistics)
        return mixed if x is None or self.project is None else x + self.project(mixed)


def _mix(model: VRDIR, tap: int) -> bytes:
    scale, channels, decoder = model.scales[tap], model.taps[tap].channels, model.decoder
    branches = len(model.config.guidance_names)
    inputs = {
        "features": torch.rand(1, channels, 8, 12),
        "guidance": torch.rand(1, branches, 8, 12),
        "mean": torch.rand(1, channels, 1, 1),
        "variance": torch.rand(1, channels, 1, 1),
    }
    maps = ["features", "guidance"]
    project = None
    if isinstance(decoder, PixelSkipDecoder):
        project = decoder.semantics[tap]
        inputs["x"] = torch.rand(1, decoder.widths[decoder.scale_of_tap[tap]], 8, 12)
        maps.append("x")
    free = {name: {2: "height", 3: "width"} for name in maps}
    return traced(_Mix(scale, project), inputs, ["mixed"], free)
