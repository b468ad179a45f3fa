"""Golden outputs: what each bundled network makes of a fixed image, kept beside its weights."""

from __future__ import annotations

import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import Tensor

from vrdir.atomic import write_whole
from vrdir.export.runtimes import Backend, ExportedModel
from vrdir.model.vrdir import VRDIR
from vrdir.restoring.restorer import Restorer
from vrdir.tensors import pad_to_multiple
from vrdir.weights.bundled import FOLDER, verify

GOLDEN_FILE = "golden.safetensors"
TOLERANCE = 2e-3  # half an 8-bit level: other processors sum in another order


def fixed_image() -> Tensor:
    """A small image of odd size, (1, 3, 45, 70), that every machine computes alike: waves of three frequencies, no random draw."""
    y, x = torch.meshgrid(
        torch.linspace(0, 1, 45, dtype=torch.float64),
        torch.linspace(0, 1, 70, dtype=torch.float64),
        indexing="ij",
    )
    channels = [
        0.5 + 0.3 * torch.sin(f * x + 2 * f * y) + 0.15 * torch.cos(3 * f * x * y)
        for f in (5.0, 11.0, 23.0)
    ]
    return torch.stack(channels)[None].float()


def golden_outputs(model: VRDIR | ExportedModel) -> dict[str, Tensor]:
    """The restored image and the shares; of a network in PyTorch also the features of each tap and the guidance maps."""
    image = fixed_image()
    with torch.inference_mode():
        result = model.restore(image)
        features = (
            model.extractor(pad_to_multiple(image, model.config.multiple))
            if isinstance(model, VRDIR)
            else []
        )
    tensors = {"image": result.image, "shares": result.shares}
    tensors |= {f"features.{i}": f for i, f in enumerate(features)} | {
        f"guidance.{i}": g for i, g in enumerate(result.guidance)
    }
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def write_golden(name: str) -> None:
    """Record the golden outputs of bundled weights (at release)."""
    write_whole(
        serialize(golden_outputs(VRDIR.from_pretrained(FOLDER / name))), FOLDER / name / GOLDEN_FILE
    )


def golden_problems(name: str, backend: Backend = "torch") -> list[str]:
    """Check hashes, then outputs, of bundled weights: one line a problem, none if all is well.

    A backend other than "torch" gives out the image and the shares, and nothing else is compared. Its network is taken from the
    user's cache folder, or exported there.
    """
    problems = verify(name)
    if problems:
        return problems
    expected, actual = (
        load_file(FOLDER / name / GOLDEN_FILE),
        golden_outputs(Restorer(FOLDER / name, "cpu", backend=backend).model),
    )
    for key, tensor in actual.items():
        error = (tensor - expected[key]).abs()
        scale = max(1.0, float(expected[key].abs().max()))
        if not float(error.max()) <= TOLERANCE * scale:  # and NaN is an error
            bins = (
                torch.histc(
                    torch.log10(error.nan_to_num(1, 1).clamp_min(1e-9)), bins=9, min=-9, max=0
                )
                .int()
                .tolist()
            )
            problems.append(
                f"{name}: {key} differs from the golden output by up to {float(error.max()):.2e}; errors by decade from 1e-9: {bins}"
            )
    return problems
