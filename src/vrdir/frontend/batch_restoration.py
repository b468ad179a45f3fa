"""Restore a batch of image tensors with bounded memory, in float32, whatever its size."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vrdir.model.control import Control
from vrdir.model.vrdir import VRDIR, Restoration
from vrdir.restoring.borders import joined, restore_inside
from vrdir.restoring.large_images import follow_copy
from vrdir.restoring.strips import CPU_PIXELS, WHOLE_PIXELS, restore_in_strips
from vrdir.tensors import usual_defaults


def restore_batch(
    network: VRDIR,
    image: Tensor,
    *,
    skip_clean: bool | float,
    control: Control,
    borders: bool,
    differentiable: bool,
) -> Restoration:
    """Restore images of one size.

    On a CPU a batch is split into parts that fit its caches. Large images are processed in strips,
    which needs little memory, unless gradients are wanted. They are changed as a reduced copy is
    (`vrdir.restoring.large_images`), but not while a graph is captured or traced.

    Args:
        network: the restoration network, in float32.
        image: (B, 3, H, W), RGB in [0, 1], float32, on the network's device.
        skip_clean: as in `VRDIR.restore`.
        control: how strongly to restore, and which degradations.
        borders: set borders of one colour aside and put them back.
        differentiable: whether gradients pass through.

    Returns:
        The restoration of the whole batch. Its `image` is the argument itself if nothing was
        changed.
    """
    height, width = image.shape[-2:]
    batch_size = max(1, CPU_PIXELS // (height * width)) if image.is_cpu else len(image)
    parts = image.split(batch_size)
    in_strips = (
        not differentiable and height * width > WHOLE_PIXELS and (image.is_cpu or len(image) == 1)
    )
    run = partial(restore_in_strips, network) if in_strips else network.restore
    restore_copy = partial(network.restore, control=control)
    captured = image.is_cuda and torch.cuda.is_current_stream_capturing()
    follows = not captured and not torch._C._is_tracing()

    def restore(part: Tensor) -> Restoration:
        restoration = run(part, skip_clean=skip_clean, control=control)
        return follow_copy(part, restoration, restore_copy) if follows else restoration

    with usual_defaults(), autocast_disabled(image.device):
        restorations = [
            restore_inside(part, restore, network.config.multiple) if borders else restore(part)
            for part in parts
        ]
    restoration = restorations[0] if len(parts) == 1 else joined(restorations)
    if all(one.image is part for one, part in zip(restorations, parts, strict=True)):
        restoration = restoration._replace(image=image)
    return restoration


def autocast_disabled(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context without autocast, which is meant for the recogniser only."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
