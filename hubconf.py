"""What `torch.hub.load("OWNER/REPOSITORY", ENTRY)` offers; see `torch.hub.help`."""

import sys as _sys
from pathlib import Path as _Path
from typing import Any as _Any

_sys.path.insert(0, str(_Path(__file__).parent / "src"))

dependencies = ["torch", "numpy", "PIL", "pydantic", "safetensors"]


def restorer(weights: str = "small", **options: _Any) -> _Any:
    """A `vrdir.Restorer`: call it on an image (path, PIL image, RGB array or tensor), and it gives back the same kind, restored.

    Args:
        weights: bundled weights by name, a model folder, or a Hugging Face repository id.
        options: as for `vrdir.Restorer`: device, skip_clean, backend, precision, channels.
    """
    import vrdir

    return vrdir.Restorer(weights, **options)


def network(weights: str = "small", pretrained: bool = True, **options: _Any) -> _Any:
    """The network itself, a `vrdir.VRDIR` in evaluation mode: RGB (B, 3, H, W) in [0, 1] -> the same, restored.

    Args:
        weights: as for `restorer`.
        pretrained: False for the same shape with random weights.
        options: device.
    """
    import vrdir

    trained = vrdir.VRDIR.from_pretrained(weights, **options)
    return (
        trained
        if pretrained
        else vrdir.VRDIR(trained.config).to(next(trained.parameters()).device).eval()
    )


def restore_before(recogniser: _Any, weights: str = "small", **options: _Any) -> _Any:
    """A recogniser with a restorer in front of it; arguments as for `vrdir.restore_before`."""
    import vrdir

    return vrdir.restore_before(recogniser, weights, **options)
