"""Golden outputs: the result of each bundled network for a fixed image, kept beside its weights."""

from __future__ import annotations

import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import Tensor

from vrdir.atomic import write_whole
from vrdir.export.exported_model import ExportedModel
from vrdir.model.vrdir import VRDIR
from vrdir.restoring.restorer import Restorer
from vrdir.tensors import pad_to_multiple
from vrdir.weights.bundled import FOLDER, verify

GOLDEN_FILE = "golden.safetensors"
TOLERANCE = 2e-3  # half an 8-bit level: other processors sum in another order


def fixed_image() -> Tensor:
    """Return a small image of odd size that is the same on every machine, (1, 3, 45, 70) in [0, 1].

    It consists of waves of three frequencies, without random numbers.
    """
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
    """Return the restored image and the shares, by name.

    A network in PyTorch also gives the features of each tap and the guidance maps.
    """
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
    """Write the golden outputs of bundled weights (for a release)."""
    outputs = golden_outputs(VRDIR.from_pretrained(FOLDER / name))
    write_whole(serialize(outputs), FOLDER / name / GOLDEN_FILE)


def golden_problems(name: str, backend: str = "torch") -> list[str]:
    """Check the hashes, then the outputs, of bundled weights; return one line for each problem.

    With a backend other than "torch" only the image and the shares are compared. Its network is
    read from the user's cache folder, or exported there.
    """
    problems = verify(name)
    if problems:
        return problems
    expected = load_file(FOLDER / name / GOLDEN_FILE)
    actual = golden_outputs(Restorer(FOLDER / name, "cpu", backend=backend).model)
    for key, tensor in actual.items():
        error = (tensor - expected[key]).abs()
        scale = max(1.0, float(expected[key].abs().max()))
        if not float(error.max()) <= TOLERANCE * scale:  # NaN is a problem, too
            decades = torch.log10(error.nan_to_num(1, 1).clamp_min(1e-9))
            bins = torch.histc(decades, bins=9, min=-9, max=0).int().tolist()
            problems.append(
                f"{name}: {key} differs from the golden output by up to {float(error.max()):.2e}; "
                f"errors by decade from 1e-9: {bins}"
            )
    return problems
