"""Find the images in a recogniser's call: the names they have, and how to replace them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vrdir.errors import InputError

# Hugging Face's names of the image batch, and of the mask that is not 0 where an image is.
PIXELS_KEY = "pixel_values"
MASK_KEY = "pixel_mask"

# Names of the images in recognisers and data sets; the first that is found is used.
IMAGE_KEYS = (PIXELS_KEY, "image", "images", "img", "source", "input", "inputs", "x")


def image_key(batch: Mapping[Any, Any]) -> Any:
    """Return the name under which a mapping contains its images.

    Raises:
        InputError: it has none of the known names.
    """
    for key in IMAGE_KEYS:
        if key in batch:
            return key
    raise InputError(
        f"no images under any of {', '.join(IMAGE_KEYS)}; "
        f"the mapping has {', '.join(map(str, batch)) or 'no entries'}"
    )


def positional_names(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of the arguments that a function takes by position.

    The result is empty for a function without a readable signature, such as a compiled one.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return ()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(parameter.name for parameter in parameters if parameter.kind in kinds)


def restore_arguments(
    restore: Callable[[Any, Any], Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    argument: str | int | None,
    names: Sequence[str] = (),
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call with the images among them restored.

    Args:
        restore: called with the images and their mask, or None for the mask.
        args: the arguments by position.
        kwargs: the arguments by name.
        argument: the name or position of the images. None: `pixel_values` if it is given, else the
            first argument by position, else the first with a known name.
        names: the names of the arguments by position, as far as they are known.

    Raises:
        InputError: the call has no such argument.
    """
    by_position = names[: len(args)]
    if argument is None:
        argument = _guess(by_position, args, kwargs)
    if isinstance(argument, str) and argument in by_position:
        argument = by_position.index(argument)
    mask = {**dict(zip(names, args, strict=False)), **kwargs}.get(MASK_KEY)
    if isinstance(argument, int) and 0 <= argument < len(args):
        return (*args[:argument], restore(args[argument], mask), *args[argument + 1 :]), kwargs
    if isinstance(argument, str) and argument in kwargs:
        return args, {**kwargs, argument: restore(kwargs[argument], mask)}
    given = [f"{len(args)} by position", *kwargs]
    raise InputError(
        f"no images in this call (arguments: {', '.join(given)}); name the argument: "
        "restore_before(..., argument=NAME or position)"
    )


def _guess(
    by_position: Sequence[str], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> str | int:
    """Return the argument that most likely contains the images."""
    if PIXELS_KEY in by_position or PIXELS_KEY in kwargs:
        return PIXELS_KEY
    if args:  # other known names, such as `source`, may mean something else beside an image
        return 0
    return next((key for key in IMAGE_KEYS if key in kwargs), 0)
