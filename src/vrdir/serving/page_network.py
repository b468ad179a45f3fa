"""The network that the page runs on the visitor's device, as one ONNX file.

It does what `vrdir export onnx` does, and takes more: how strongly to restore and what to remove,
and the means over the whole image. A large photo is restored in tiles there. The first pass
measures the means in some of the tiles; the second restores every tile with the same means, so
that colours do not jump where tiles meet.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vrdir.errors import ResultError, require
from vrdir.export.exporting import TOLERANCE, quiet, tidy
from vrdir.export.graph import ExportableVRDIR
from vrdir.model.checks import in_range
from vrdir.model.clean_images import shares_of
from vrdir.model.control import ALL, CLEAN, HAZE, Control
from vrdir.model.global_context import lift, reduced
from vrdir.model.global_statistics import GlobalStatistics, Moments
from vrdir.model.vrdir import VRDIR
from vrdir.tensors import crop_to, pad_by_gather

OPSET = 18
OUTPUTS = ("restored", "shares", "found")
CHECK_SIZES = ((1, 1), (45, 70), (255, 161))
HALF_LEAST = 16  # values: a constant of fewer is not worth a cast


class FlatMoments(GlobalStatistics):
    """The moments of all modules in one vector, in the order in which the modules ask.

    Args:
        given: (M,), the moments to use; None where they are only counted.
        own: a scalar, 1 to use what each module measured, 0 to use what was given.

    Attributes:
        found: what the modules measured, in parts of the vector.
    """

    def __init__(self, given: Tensor | None = None, own: Tensor | None = None) -> None:
        self.found: list[Tensor] = []
        self._given, self._own, self._length = given, own, 0
        self._known: list[tuple[Moments, Moments]] = []  # branches share what was measured once

    def moments(self, module: nn.Module, found: Moments) -> Moments:
        """Return the moments for a module, as `own` says."""
        for measured, used in self._known:
            if measured is found:
                return used
        mean = self._part(found.mean)
        used = Moments(mean, None if found.variance is None else self._part(found.variance))
        self._known.append((found, used))
        return used

    def _part(self, values: Tensor) -> Tensor:
        self.found.append(values.flatten())
        start, self._length = self._length, self._length + values.shape[1]
        if self._given is None or self._own is None:
            return values
        given = self._given[start : self._length].view(1, -1, 1, 1)
        return torch.where(self._own > 0.5, values, given)


class PageNetwork(nn.Module):
    """A copy of a network that the page's tiles and controls go into.

    Args:
        model: the network; it is copied.

    Shape: see `forward`. K are the branches with the clean one, M the values of `moments`, S the
    side of the context's copy.
    """

    clean: Tensor
    local: Tensor

    def __init__(self, model: VRDIR) -> None:
        super().__init__()
        self.network = ExportableVRDIR(model).network
        config = self.network.config
        names = config.guidance_names
        self.register_buffer("clean", torch.tensor([float(name == CLEAN) for name in names]))
        self.register_buffer("local", torch.tensor([float(n not in (CLEAN, HAZE)) for n in names]))
        self.haze = names.index(HAZE) if HAZE in names else None
        self.eval()

    def forward(
        self,
        image: Tensor,
        strength: Tensor,
        kept: Tensor,
        moments: Tensor,
        own: Tensor,
        copy: Tensor | None = None,
        place: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Restore a tile.

        Args:
            image: (1, 3, H, W) in [0, 1], the tile.
            strength: (1,), as of `Control`.
            kept: (K,), 1 for what is to be removed and for the clean branch, else 0.
            moments: (M,), the means over the whole image.
            own: (1,), 1 to measure them in this tile instead.
            copy: (1, 3, S, S), the reduced copy of the whole image, for a network with a context.
            place: (4,), top and left of the tile, height and width of the image; likewise.

        Returns:
            The restored tile, the shares (1, K), and the moments that were measured (M,).
        """
        network = self.network
        clear, locally = image, strength
        if copy is not None and place is not None:
            clear = self._lifted(image, strength, kept, copy, place)
            if network.unveils:  # there, haze alone is no work for the local network
                locally = strength * (kept * self.local).amax()
        original, padded = (pad_by_gather(part, network.config.multiple) for part in (image, clear))
        statistics = FlatMoments(moments, own)
        features = network.extract(padded)
        guidance = network.guide(features)
        steering = [self._steered(maps, kept) for maps in guidance]
        mixed = network.mix(features, steering, statistics)
        restored = network.decoder(mixed, padded, original, statistics)
        restored = padded + locally * (restored - padded)
        found = torch.cat(statistics.found)
        return in_range(crop_to(restored, image.shape[-2:])), shares_of(guidance), found

    def count_moments(self) -> int:
        """Return M, how many means over the whole image the network uses."""
        network, statistics = self.network, FlatMoments()
        image = torch.zeros(1, 3, network.config.multiple, network.config.multiple)
        with torch.no_grad():
            features = network.extract(image)
            mixed = network.mix(features, network.guide(features), statistics)
            network.decoder(mixed, image, image, statistics)
        return sum(len(part) for part in statistics.found)

    def example(self, count: int, height: int = 45, width: int = 70) -> dict[str, Tensor]:
        """Return inputs by name, for a whole image of this size and `count` moments."""
        context = self.network.config.context
        image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
        inputs = {
            "image": image,
            "strength": torch.ones(1),
            "kept": torch.ones(len(self.clean)),
            "moments": torch.zeros(count),
            "own": torch.ones(1),
        }
        if context is not None:
            inputs["copy"] = reduced(image, context.side)
            inputs["place"] = torch.tensor([0.0, 0.0, height, width])
        return inputs

    def _lifted(
        self, image: Tensor, strength: Tensor, kept: Tensor, copy: Tensor, place: Tensor
    ) -> Tensor:
        veil = self.network.veil(copy)
        assert veil is not None
        veil = veil.times(strength if self.haze is None else strength * kept[self.haze])
        rows, columns = (
            _window(veil.grid[axis], place[axis + 2], place[axis], image.shape[axis + 2])
            for axis in (0, 1)
        )
        return lift(image, veil, rows, columns)

    def _steered(self, maps: Tensor, kept: Tensor) -> Tensor:
        """Do what `Control.of_guidance` does, in a graph."""
        left = maps * kept.view(1, -1, 1, 1)
        missing = 1 - left.sum(1, keepdim=True)
        if self.network.config.clean_branch:
            return left + missing * self.clean.view(1, -1, 1, 1)
        return left / (1 - missing).clamp_min(1e-6)


def _window(before: int, after: Tensor, start: Tensor, length: int) -> Tensor:
    """Return rows of `resampling(before, after)`, from `start` on: (length, before)."""
    scale = before / after
    middle = (torch.arange(length) + start + 0.5) * scale
    at = torch.arange(before) + 0.5
    weights = (1 - (middle[:, None] - at[None]).abs() / scale.clamp_min(1.0)).clamp_min(0)
    return weights / weights.sum(1, keepdim=True)


def export_for_page(model: VRDIR, path: Path) -> int:
    """Write the network that the page runs, after checking its results against PyTorch's.

    Values that float16 holds exactly, as all values of bundled weights are, take two bytes.

    Args:
        model: the network; it is copied.
        path: of the ONNX file.

    Returns:
        M, the number of moments.

    Raises:
        MissingPackageError: a package of the extra `export` is not installed.
        ResultError: ONNX Runtime's results are not PyTorch's. There is no file then.
    """
    onnx = require("onnx", "export", "exporting needs onnx")
    require("onnxscript", "export", "exporting needs onnxscript")
    network = PageNetwork(model)
    count = network.count_moments()
    inputs = network.example(count)
    with torch.no_grad(), quiet():
        program = torch.onnx.export(
            network,
            tuple(inputs.values()),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(OUTPUTS),
            dynamic_shapes={
                name: {2: "height", 3: "width"} if name == "image" else None for name in inputs
            },
        )
    assert program is not None  # with dynamo
    proto: Any = program.model_proto
    tidy(proto, free=True)
    store_halves(proto.graph)
    onnx.checker.check_model(proto)
    content = proto.SerializeToString()
    _compare(model, network, content, count)
    path.write_bytes(content)
    return count


def store_halves(graph: Any) -> None:
    """Store the constants of a graph in float16 that lose nothing by it, and cast them back.

    The runtime casts them once, when it opens the file, so that it computes as before.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for constant in graph.initializer:
        if constant.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(constant)
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        if values.size < HALF_LEAST or not np.array_equal(values, halves.astype(np.float32)):
            continue
        name = constant.name
        constant.CopyFrom(numpy_helper.from_array(halves, f"{name}/half"))
        casts.append(helper.make_node("Cast", [f"{name}/half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _compare(model: VRDIR, network: PageNetwork, content: bytes, count: int) -> None:
    """Compare a file's results with PyTorch's, for whole images and for controls.

    Raises:
        ResultError: they differ by more than `TOLERANCE`.
    """
    runtime = require("onnxruntime", "export", "checking the network needs onnxruntime")
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    branch = model.config.branches[0]
    first = Control(0.5, frozenset([branch]))
    kept = torch.tensor([float(name in (branch, CLEAN)) for name in model.config.guidance_names])
    for height, width in CHECK_SIZES:
        for control, steering in ((ALL, torch.ones_like(kept)), (first, kept)):
            inputs = network.example(count, height, width)
            inputs |= {"strength": torch.tensor([control.strength]), "kept": steering}
            restored, shares, _ = session.run(
                list(OUTPUTS), {name: value.numpy() for name, value in inputs.items()}
            )
            with torch.no_grad():
                wanted = model.restore(inputs["image"], control=control)
            difference = max(
                float((torch.from_numpy(restored) - wanted.image).abs().max()),
                float((torch.from_numpy(shares) - wanted.shares).abs().max()),
            )
            if not difference <= TOLERANCE:  # NaN, too
                raise ResultError(
                    f"the page's network was discarded: at {height} x {width} it differs from "
                    f"PyTorch by {difference:.1e}; at most {TOLERANCE:.0e} is allowed"
                )
