"""Padding and cropping of image tensors, and the defaults that computing with them needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor
from torch.nn import functional


@contextmanager
def usual_defaults() -> Iterator[None]:
    """Compute in this block with torch's own defaults: new tensors are float32, on the CPU.

    Other packages set `torch.set_default_dtype` or `torch.set_default_device` for their own models.
    The type is of the whole process; it is changed only if it is different.
    """
    dtype = torch.get_default_dtype()
    with ExitStack() as stack:
        if dtype != torch.float32:
            torch.set_default_dtype(torch.float32)
            stack.callback(torch.set_default_dtype, dtype)
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Pad a (B, C, H, W) tensor at the bottom and right until H and W are multiples of `multiple`.

    It is padded by reflection if it is large enough for it, else by repeating its edge. `crop_to`
    removes the padding.
    """
    if torch.compiler.is_compiling():
        return pad_by_gather(image, multiple)
    height, width = image.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if bottom or right:
        reflects = bottom < height and right < width
        image = functional.pad(
            image, (0, right, 0, bottom), mode="reflect" if reflects else "replicate"
        )
    return image


def pad_by_gather(image: Tensor, multiple: int) -> Tensor:
    """Pad as `pad_to_multiple` does, in a graph for any size.

    The choice between reflecting and repeating is a part of the graph.
    """
    height, width = image.shape[-2:]
    reflected_y, repeated_y, reflects_y = _padded_positions(height, multiple, image.device)
    reflected_x, repeated_x, reflects_x = _padded_positions(width, multiple, image.device)
    reflects = reflects_y & reflects_x
    y = torch.where(reflects, reflected_y, repeated_y)
    x = torch.where(reflects, reflected_x, repeated_x)
    return image.index_select(2, y).index_select(3, x)


def _padded_positions(
    size: int, multiple: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the source of each padded position, and whether this side can be reflected.

    Returns:
        The source positions when reflecting, those when repeating, and a boolean scalar.
    """
    padded = (size + multiple - 1) // multiple * multiple
    last = torch.full((), size, device=device) - 1
    position = torch.arange(padded, device=device)
    return last - (last - position).abs(), torch.minimum(position, last), padded - last <= last + 1


def crop_to(image: Tensor, size: Sequence[int]) -> Tensor:
    """Return the top left part of `size` = (H, W) of a (B, C, H', W') tensor."""
    if torch.compiler.is_compiling():  # a slice would make a graph compare sizes it does not know
        height, width = (torch.arange(length, device=image.device) for length in size)
        return image.index_select(-2, height).index_select(-1, width)
    return image[..., : size[0], : size[1]]
