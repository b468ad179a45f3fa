"""Restore a whole image by the steps of the page's network, as `strips.js` does in the browser.

`vrdir web build` compares the results with PyTorch's before it writes the steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vrdir.errors import require
from vrdir.model.global_context import reduced
from vrdir.serving.page_network import PageNetwork
from vrdir.tensors import crop_to, pad_to_multiple

Run = Callable[[str, dict[str, Any]], list[np.ndarray[Any, Any]]]
"""Runs a step: takes its name and its inputs by name, returns its results."""


def runner(network: PageNetwork) -> Run:
    """Return a function that runs the steps of a network by ONNX Runtime.

    Inputs that a step does not have are ignored.

    Raises:
        MissingPackageError: onnxruntime is not installed.
    """
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
        run: the function that `runner` returned for this network.
        image: RGB, (1, 3, H, W) in [0, 1].
        kept: (K,), 1 for each degradation to remove and for the clean branch, else 0.
        strength: 0 changes nothing, 1 restores as trained (`vrdir.model.control.Control`).

    Returns:
        The restored image, (1, 3, H, W) in [0, 1], and the share of each branch, (1, K).
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
    """Return the padded image without its haze; unchanged by a network without global context."""
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
    """Return the decoder's finest map. It begins with `x`, the first map of the pixel path."""

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
