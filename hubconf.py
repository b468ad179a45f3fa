"""The entry points of `torch.hub.load("OWNER/REPOSITORY", ENTRY)`; see `torch.hub.help`."""

import sys as _sys
from pathlib import Path as _Path
from typing import Any as _Any

_sys.path.insert(0, str(_Path(__file__).parent / "src"))

dependencies = ["torch", "numpy", "PIL", "pydantic", "safetensors"]


def restorer(weights: str = "small", **options: _Any) -> _Any:
    """Return a `vrdir.Restorer`.

    Call it on an image (path, PIL image, RGB array or tensor); it returns a restored one of the
    same kind.

    Args:
        weights: bundled weights by name, a model folder, or a Hugging Face repository id.
        options: as for `vrdir.Restorer`: device, skip_clean, backend, precision, channels.
    """
    import vrdir

    return vrdir.Restorer(weights, **options)


def network(weights: str = "small", pretrained: bool = True, **options: _Any) -> _Any:
    """Return the network itself, a `vrdir.VRDIR` in evaluation mode.

    It takes RGB images (B, 3, H, W) in [0, 1] and returns restored ones of the same shape.

    Args:
        weights: as for `restorer`.
        pretrained: False for a network of the same shape with random weights.
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
    """Return a recogniser with a restorer in front of it; see `vrdir.restore_before`."""
    import vrdir

    return vrdir.restore_before(recogniser, weights, **options)
