"""The network that the page runs on the visitor's device: the steps of restoring, as ONNX graphs.

Means over the whole image, and its Fourier transform, lie between the steps. So the page can do
what `vrdir.restoring.strips` does here: each step for the whole image in strips of rows, before the
next one. Photos of all sizes get the pixels of the whole network, and no seams. `strips.js` and
`fourier.js` do what lies between; `restored_by_steps` below does it for a whole image, to check the
steps.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from vrdir.errors import ResultError, require
from vrdir.export.exporting import TOLERANCE
from vrdir.model.blocks import ResidualBlock, ResidualBlocks
from vrdir.model.control import ALL, CLEAN, HAZE, Control
from vrdir.model.global_context import LocalTone, Veil, lift, reduced
from vrdir.model.global_statistics import Moments, SuppliedStatistics
from vrdir.model.semantics_decoder import PixelSkipDecoder
from vrdir.model.semantics_enhancement import SemanticsEnhancement
from vrdir.model.vrdir import VRDIR
from vrdir.serving.page_graph import Graph, traced
from vrdir.tensors import crop_to, pad_to_multiple

CHECK_SIZES = ((1, 1), (45, 70), (255, 161))
TONE = ("low", "span", "offsets")
VEIL = ("airlight", "exposure", "log_gain")


class PageNetwork(NamedTuple):
    """The steps of a network, and what the page needs to know to run them.

    Attributes:
        steps: ONNX files by name.
        facts: for device.json.
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
    model = copy.deepcopy(model).to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    model = model.requires_grad_(False).eval()
    steps = {"begin": _begin(model)}
    for tap, scale in enumerate(model.scales):
        steps[f"spectrum{tap}"] = _spectrum(scale)
        steps[f"guide{tap}"] = _guide(scale)
        steps[f"mix{tap}"] = _mix(model, tap)
    if model.context is not None:
        steps |= _context(model)
    decoder = model.decoder
    if isinstance(decoder, PixelSkipDecoder):
        steps |= _pixel_path(decoder)
    else:
        graph = Graph("features", "clear", "strength")
        hidden = graph.add("Relu", graph.convolved(decoder.up, "features"))
        restored = graph.add("Sigmoid", graph.convolved(decoder.to_image, hidden))
        steps["end"] = _ended(graph, restored)
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
    """Padded rows of the image, after and before lifting -> features, and the decoder's first."""

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
    # Two tensors: of one, the exporter makes one input.
    inputs = {n: torch.rand(1, 3, 3 * multiple, 5 * multiple) for n in ("clear", "original")}
    height, width = (torch.export.Dim(name) for name in ("height", "width"))
    sides = {2: multiple * height, 3: multiple * width}
    return traced(_Begin(model), inputs, outputs, dict.fromkeys(inputs, sides))


def _spectrum(scale: SemanticsEnhancement) -> bytes:
    """Return the step from a spectrum to the same with the amplitude changed (FGM)."""
    graph = Graph("real", "imaginary")
    square = graph.add("Add", *(graph.add("Mul", part, part) for part in ("real", "imaginary")))
    amplitude = graph.add("Sqrt", square)
    least = graph.constant(np.float32(1e-8))
    changed = graph.convolved(scale.modulation.amplitude, amplitude)
    ratio = graph.add("Div", changed, graph.add("Max", amplitude, least))
    real, imaginary = (graph.add("Mul", part, ratio) for part in ("real", "imaginary"))
    return graph.content(changed_real=real, changed_imaginary=imaginary)


def _guide(scale: SemanticsEnhancement) -> bytes:
    """Return the step from rows of FGM's map to guidance maps of the rows inside, by `kept`."""
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
    """Rows of features and guidance, moments of the whole -> the branches mixed, for the decoder.

    With a pixel path they are added to its map `x`.
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


class _Context(nn.Module):
    """The reduced copy of the whole image -> the global context's answer."""

    def __init__(self, model: VRDIR) -> None:
        super().__init__()
        self.model = model

    def forward(self, copy: Tensor) -> tuple[Tensor, ...]:
        found = self.model.veil(copy)
        assert found is not None
        return tuple(found[:3])


class _Lift(nn.Module):
    """Rows of the image, and the context's answer -> the rows without haze."""

    def __init__(self, tone: bool) -> None:
        super().__init__()
        self.tone = tone

    def forward(
        self,
        image: Tensor,
        first: Tensor,
        second: Tensor,
        third: Tensor,
        down: Tensor,
        across: Tensor,
        size: Tensor,
    ) -> Tensor:
        """Lift.

        Args:
            image: (1, 3, H, W).
            first: the first part of what the context found, by the strength.
            second: the second part.
            third: the third part.
            down: (H,), for each row, its number in the photo.
            across: (W,), likewise.
            size: (2,), height and width of the photo.
        """
        found = LocalTone(first, second, third, third, third) if self.tone else None
        veil = found or Veil(first, second, third)
        rows, columns = (
            _read(veil.grid[axis], size[axis], at) for axis, at in ((0, down), (1, across))
        )
        return lift(image, veil, rows, columns)


def _read(before: int, after: Tensor, at: Tensor) -> Tensor:
    """Return the rows of `resampling(before, after)` with these numbers, (len(at), before)."""
    scale = before / after
    middle = (at + 0.5) * scale
    grid = torch.arange(before) + 0.5
    weights = (1 - (middle[:, None] - grid[None]).abs() / scale.clamp_min(1.0)).clamp_min(0)
    return weights / weights.sum(1, keepdim=True)


def _context(model: VRDIR) -> dict[str, bytes]:
    context = model.config.context
    assert context is not None
    names = TONE if context.tone else VEIL
    small = torch.rand(1, 3, context.side, context.side)
    with torch.no_grad():
        found = _Context(model)(small)
    image = torch.rand(1, 3, 32, 48)
    inputs = {"image": image, **dict(zip(names, found, strict=True))}
    inputs |= {"down": torch.arange(32.0), "across": torch.arange(48.0)}
    inputs["size"] = torch.tensor([32.0, 48.0])
    height, width = (torch.export.Dim(name) for name in ("height", "width"))
    free = {"image": {2: height, 3: width}, "down": {0: height}, "across": {0: width}}
    return {
        "context": traced(_Context(model), {"copy": small}, names, {}),
        "lift": traced(_Lift(context.tone), inputs, ["clear"], free),
    }


def _pixel_path(decoder: PixelSkipDecoder) -> dict[str, bytes]:
    """Return the steps of the decoder with a pixel path."""
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
    """Return a residual block as two steps, between which the mean of `hidden` is taken."""
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
    """Return the step with the correction times `strength` (1, 1, 1, 1), limited to [0, 1]."""
    correction = graph.add("Mul", graph.add("Sub", restored, "clear"), "strength")
    zero, one = (graph.constant(np.float32(value)) for value in (0, 1))
    return graph.content(
        restored=graph.add("Clip", graph.add("Add", "clear", correction), zero, one)
    )


def export_for_page(model: VRDIR, path: Path) -> dict[str, Any]:
    """Write the steps of a network into one file, after checking their results.

    Values that float16 holds exactly, as all values of bundled weights are, take two bytes.

    Args:
        model: the network; it is copied.
        path: of the file: the ONNX files of the steps, one after the other.

    Returns:
        What the page needs to know, with the first byte and the one after the last of each step.

    Raises:
        MissingPackageError: a package of the extra `export` is not installed.
        ResultError: the steps' results are not PyTorch's. There is no file then.
    """
    network = steps_of(model)
    _compare(model, network)
    places, start = {}, 0
    for name, content in network.steps.items():
        places[name] = [start, start + len(content)]
        start += len(content)
    path.write_bytes(b"".join(network.steps.values()))
    return network.facts | {"steps": places}


Run = Callable[[str, dict[str, Any]], list[np.ndarray[Any, Any]]]


def runner(network: PageNetwork) -> Run:
    """Return a function that runs a step by ONNX Runtime: its name and inputs -> its results."""
    runtime = require("onnxruntime", "export", "checking the network needs onnxruntime")
    sessions = {
        name: runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
        for name, content in network.steps.items()
    }

    def run(name: str, given: dict[str, Any]) -> list[np.ndarray[Any, Any]]:
        session = sessions[name]
        wanted = {one.name for one in session.get_inputs()}
        found: list[np.ndarray[Any, Any]] = session.run(
            None, {name: np.asarray(value) for name, value in given.items() if name in wanted}
        )
        return found

    return run


def restored_by_steps(
    network: PageNetwork, run: Run, image: Tensor, kept: Tensor, strength: float
) -> tuple[Tensor, Tensor]:
    """Restore a whole image by the steps, as `strips.js` does.

    Args:
        network: the steps.
        run: of `runner`.
        image: (1, 3, H, W) in [0, 1].
        kept: (K,), 1 for what is to be removed and for the clean branch, else 0.
        strength: as of `Control`.

    Returns:
        The restored image and the shares (1, K).
    """
    facts = network.facts
    original = pad_to_multiple(image, facts["multiple"])
    clear = _lifted(facts, run, image, kept, strength)
    features = run("begin", {"clear": clear, "original": original})
    steering, mean_guidance = [], []
    for tap in range(len(facts["taps"])):
        spectrum = torch.fft.rfft2(torch.from_numpy(features[tap]), norm="ortho")
        parts = run(f"spectrum{tap}", {"real": spectrum.real, "imaginary": spectrum.imag})
        changed = torch.complex(*map(torch.from_numpy, parts))
        size = features[tap].shape[-2:]
        semantics = torch.fft.irfft2(changed, s=size, norm="ortho")
        given = {"semantics": semantics, "kept": kept.view(1, -1, 1, 1), "rows": _all(semantics)}
        guidance, sums = run(f"guide{tap}", given)
        steering.append(guidance)
        mean_guidance.append(sums.reshape(1, -1) / (size[0] * size[1]))

    def mixed(tap: int, x: Any = None) -> Any:
        values = torch.from_numpy(features[tap])
        mean = values.mean((2, 3), keepdim=True)
        variance = values.var((2, 3), correction=0, keepdim=True)
        given = {"features": values, "guidance": steering[tap], "mean": mean}
        return run(f"mix{tap}", given | {"variance": variance, "x": x})[0]

    local = 1.0
    if facts["unveils"]:  # there, haze alone is no work for the local network
        others = [i for i in range(len(kept)) if i not in (facts["haze"], facts["clean"])]
        local = float(kept[others].amax())
    ended = {"clear": clear, "strength": np.full((1, 1, 1, 1), strength * local, np.float32)}
    if facts["scales"]:
        x = _decoded(facts, run, features[-1], mixed)
        ended |= {"x": x, "rows": _all(x)}
    else:
        ended["features"] = mixed(0)
    restored = torch.from_numpy(run("end", ended)[0])
    shares = torch.from_numpy(np.stack(mean_guidance).mean(0))
    return crop_to(restored, image.shape[-2:]), shares


def _lifted(facts: dict[str, Any], run: Run, image: Tensor, kept: Tensor, strength: float) -> Any:
    """Return the padded image without its veil."""
    context = facts["context"]
    padded = pad_to_multiple(image, facts["multiple"])
    if context is None:
        return padded
    found = run("context", {"copy": reduced(image, context["side"])})
    lifting = strength * (1.0 if facts["haze"] is None else float(kept[facts["haze"]]))
    answer = dict(zip(context["names"], found, strict=True))
    answer[context["scaled"]] *= np.float32(lifting)
    if context["raised"] is not None:
        answer[context["raised"]] **= np.float32(lifting)
    height, width = image.shape[-2:]
    rows = torch.arange(height, dtype=torch.float32).view(1, 1, -1, 1).expand(1, 1, -1, width)
    columns = torch.arange(width, dtype=torch.float32).view(1, 1, 1, -1).expand(1, 1, height, -1)
    places = pad_to_multiple(torch.cat([rows, columns], 1), facts["multiple"])
    size = np.array([height, width], np.float32)
    down, across = places[0, 0, :, 0], places[0, 1, 0]
    given = {"image": padded, **answer, "down": down, "across": across, "size": size}
    return run("lift", given)[0]


def _decoded(facts: dict[str, Any], run: Run, x: Any, mixed: Callable[..., Any]) -> Any:
    """Return the decoder's finest map, from the first one of the pixel path."""

    def blocks(path: str, scale: int, x: Any) -> Any:
        for number in range(facts["scales"][scale][path]):
            name = f"{path}{scale}.{number}"
            hidden, sums = run(f"{name}.expand", {"x": x, "rows": _all(x)})
            mean = sums / (x.shape[-2] * x.shape[-1])
            x = run(f"{name}.project", {"x": x, "hidden": hidden, "mean": mean})[0]
        return x

    skips = []
    last = len(facts["scales"]) - 1
    for scale in range(last + 1):
        x = blocks("encoder", scale, x)
        skips.append(x)
        if scale < last:
            x = run(f"down{scale}", {"finer": x})[0]
    for scale in reversed(range(last + 1)):
        if scale < last:
            x = run(f"up{scale}", {"coarser": x, "skip": skips[scale]})[0]
        tap = facts["scales"][scale]["tap"]
        x = blocks("decoder", scale, x if tap is None else mixed(tap, x))
    return x


def _all(values: Any) -> np.ndarray[Any, Any]:
    return np.array([0, values.shape[-2]], np.int32)


def _compare(model: VRDIR, network: PageNetwork) -> None:
    """Compare the steps' results with PyTorch's, for whole images and for controls.

    Raises:
        ResultError: they differ by more than `TOLERANCE`.
    """
    run = runner(network)
    branch = model.config.branches[0]
    first = Control(0.5, frozenset([branch]))
    kept = torch.tensor([float(name in (branch, CLEAN)) for name in model.config.guidance_names])
    generator = torch.Generator().manual_seed(0)
    for height, width in CHECK_SIZES:
        image = torch.rand(1, 3, height, width, generator=generator)
        for control, steering in ((ALL, torch.ones_like(kept)), (first, kept)):
            restored, shares = restored_by_steps(network, run, image, steering, control.strength)
            with torch.no_grad():
                wanted = model.restore(image, control=control)
            difference = max(
                float((restored - wanted.image).abs().max()),
                float((shares - wanted.shares).abs().max()),
            )
            if not difference <= TOLERANCE:  # NaN, too
                raise ResultError(
                    f"the page's network was discarded: at {height} x {width} it differs from "
                    f"PyTorch by {difference:.1e}; at most {TOLERANCE:.0e} is allowed"
                )
