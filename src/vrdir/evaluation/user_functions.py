"""Functions of the user: restorers and recognisers given as `module:function`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from vrdir.errors import ImageError, InputError, first_line

if TYPE_CHECKING:
    from torch import Tensor

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
"""An image as functions of the user get it: (H, W, 3), RGB."""


def load_function(spec: str) -> Callable[..., Any]:
    """Return the function that `module:function` names; the module must be importable.

    Raises:
        InputError: the module cannot be imported, or has no such function.
    """
    module, _, name = spec.partition(":")
    try:
        found = getattr(importlib.import_module(module), name, None)
    # A module of the user may raise anything, or be a script that calls sys.exit.
    except (Exception, SystemExit) as error:
        raise InputError(
            f"{spec}: {module!r} cannot be imported ({first_line(error)}); "
            "is its folder on PYTHONPATH?"
        ) from None
    if not callable(found):
        raise InputError(f"{spec}: {module} has no function {name!r}")
    return found


def to_pixels(image: Tensor) -> Pixels:
    """Return an image (1, 3, H, W) in [0, 1] as (H, W, 3), rounded to 8 bits."""
    return (image[0] * 255).round().byte().movedim(0, -1).cpu().numpy()


def check_restored(restored: Any, image: Pixels, name: str, condition: str = "") -> Pixels:
    """Return what a restorer returned, if it has the type and size of the image.

    Args:
        restored: what the restorer returned.
        image: what it was given.
        name: the restorer's name, for the error.
        condition: how the image was degraded, for the error; "" to leave it out.

    Raises:
        ImageError: it is not an array of uint8 of the same shape.
    """
    is_array = isinstance(restored, np.ndarray)
    if is_array and restored.dtype == np.uint8 and restored.shape == image.shape:
        return restored
    kind = f"{restored.dtype} {restored.shape}" if is_array else type(restored).__name__
    raise ImageError(
        f"{name} returned {kind} for an image of uint8 {image.shape}"
        f"{f' ({condition})' if condition else ''}; return the same type and size"
    )
