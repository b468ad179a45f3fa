"""Write the page's network into one file, after a comparison of its results with PyTorch's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from vrdir.errors import ResultError
from vrdir.export.exporting import TOLERANCE
from vrdir.model.control import ALL, CLEAN, Control
from vrdir.model.vrdir import VRDIR
from vrdir.serving.page_network import PageNetwork, steps_of
from vrdir.serving.page_restoring import restored_by_steps, runner

CHECK_SIZES = ((1, 1), (45, 70), (255, 161))  # height and width of the images that are compared


def export_for_page(model: VRDIR, path: Path) -> dict[str, Any]:
    """Check the steps of a network, and write them into one file.

    The file contains the ONNX files of all steps, one after the other. Values that float16 can hold
    exactly, such as all values of bundled weights, take two bytes each.

    Args:
        model: the network; it is not changed.
        path: the file to write.

    Returns:
        What the page needs to know, as JSON values. "steps" has the position of each step in the
        file: its first byte, and the byte after its last one.

    Raises:
        MissingPackageError: a package of the extra `export` is not installed.
        ResultError: the results differ from PyTorch's by more than `TOLERANCE`; nothing is written.
    """
    network = steps_of(model)
    _compare(model, network)
    places, start = {}, 0
    for name, content in network.steps.items():
        places[name] = [start, start + len(content)]
        start += len(content)
    path.write_bytes(b"".join(network.steps.values()))
    return network.facts | {"steps": places}


def _compare(model: VRDIR, network: PageNetwork) -> None:
    """Compare the steps' results with PyTorch's, for images of several sizes and two controls.

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
