"""restore_before: put a restoration network in front of any recogniser, without training it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from vrdir.errors import RecogniserError
from vrdir.frontend.connectors.table import connector_for, is_connected
from vrdir.frontend.input_restorer import InputRestorer
from vrdir.frontend.network import load_network
from vrdir.frontend.preprocessing import find_normalisation, is_declared
from vrdir.model.control import ALL, checked_control
from vrdir.model.vrdir import VRDIR, Restoration
from vrdir.restoring.loading import choose_device
from vrdir.restoring.restorer import Restorer


def restore_before(
    recogniser: Any,
    weights: str | Path | VRDIR | Restorer = "small",
    *,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    range: float | Sequence[float] | None = None,
    channels: str | None = None,
    preprocessing: Any = None,
    argument: str | int | None = None,
    skip_clean: bool | float | None = None,
    train_restorer: bool = False,
    hook: Callable[[Restoration], None] | None = None,
    device: str | None = None,
    strength: float | None = None,
    only: Iterable[str] | str | None = None,
    borders: bool = True,
) -> Any:
    """Put a restoration network in front of a recogniser, which is called as before.

    >>> model = vrdir.restore_before(model, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    >>> logits = model(images)

    The input is converted to RGB in [0, 1], restored, and converted back. How it is normalised is
    declared here, or read from the recogniser (timm's `pretrained_cfg`, a Hugging Face
    `image_processor`); otherwise RGB in [0, 1] is assumed, with a warning. Values outside [0, 1] by
    up to 0.1 are clipped (0.5 for a few pixels, as resizing leaves them); values further outside
    are an error. On a GPU this is checked until one batch passes, since checking waits for the
    device; under `torch.export` it is not checked.

    Args:
        recogniser: a `torch.nn.Module`, a callable, an ONNX Runtime session, a Hugging Face
            pipeline or an Ultralytics model.
        weights: as for `Restorer`. A network is moved and frozen in place (with `train_restorer`
            unfrozen). A `Restorer` also gives its `skip_clean`, `strength` and `only`.
        mean: the mean that the recogniser's preprocessing subtracts: one number or three, in the
            order of `channels`.
        std: the standard deviation that it divides by, likewise.
        range: the value of white (such as 1 or 255) before the mean is subtracted; or the values of
            black and white.
        channels: "rgb" or "bgr", the channel order of tensors and arrays.
        preprocessing: an object to read all that from: a torchvision `weights` or its
            `transforms()`, a Hugging Face image processor, or a timm configuration.
        argument: the name or position of the argument (of a session: the input) that contains the
            images, if it cannot be guessed.
        skip_clean: leave images unchanged that the network considers clean, which saves time; True,
            or the share from which on an image counts as clean (see `VRDIR.restore`). None: as in a
            `Restorer` given as `weights`, else False.
        train_restorer: let gradients reach the restorer's parameters too (except its extractor's).
        hook: called with each `Restoration`: the image (B, 3, H, W) in [0, 1], the guidance maps,
            the shares.
        device: where the restorer runs; None: the recogniser's device for a module, else a GPU if
            there is one.
        strength: as for `Restorer`.
        only: as for `Restorer`.
        borders: set borders of one colour aside, such as a letterbox's grey, and put them back.

    Returns:
        For a module a `RestoredModule`, which is a module, too; for others an object with the same
        calling convention.

    Raises:
        InputError: a declaration is invalid.
        RecogniserError: the recogniser takes no images, or already has a restorer.
        NotCallableError: it cannot be called.
        WeightsError: the weights cannot be used.
        MissingFileError: they do not exist.
    """
    if is_connected(recogniser):
        raise RecogniserError("this recogniser already has a restorer")
    connector = connector_for(recogniser)
    if device is None and connector.shares_device:
        network = load_network(weights, _device_of(recogniser))
    else:
        network = load_network(weights, choose_device(device or "auto"))
    control = getattr(weights, "control", ALL)
    if strength is not None or only is not None:
        strength = 1.0 if strength is None else strength
        control = checked_control(strength, only, network.config.branches)
    if skip_clean is None:
        skip_clean = getattr(weights, "skip_clean", False)
    front_end = InputRestorer(
        network,
        find_normalisation(
            recogniser, preprocessing, mean=mean, std=std, range=range, channels=channels
        ),
        declared=connector.input_is_known
        or is_declared(recogniser, preprocessing, mean, std, range),
        skip_clean=skip_clean,
        trains=train_restorer,
        hook=hook,
        control=control,
        borders=borders,
    )
    return connector(recogniser, front_end, argument)


def _device_of(module: torch.nn.Module) -> torch.device:
    tensor = next(module.parameters(), next(module.buffers(), None))
    return torch.device("cpu") if tensor is None else tensor.device
