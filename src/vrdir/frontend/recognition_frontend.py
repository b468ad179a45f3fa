"""restore_before: any recogniser, unchanged and untrained, with a restoration network in front."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vrdir.frontend.connectors import (
    RestoredCallable,
    RestoredPipeline,
    RestoredSession,
    RestoredUltralytics,
    argument_names,
    plain_attribute,
    restore_arguments,
)
from vrdir.frontend.front_end import FrontEnd, load_network
from vrdir.frontend.normalisation import find_normalisation, is_declared
from vrdir.model.control import ALL, checked_control
from vrdir.model.vrdir import VRDIR, Restoration
from vrdir.restoring.loading import choose_device
from vrdir.restoring.restorer import Restorer


class RestoreBefore(nn.Module):
    """`recogniser(front_end(images))`, called as the recogniser is.

    A module like any other: `to`, `eval`, `state_dict`, `torch.export` work, gradients pass through to the input. Its
    `forward` has the signature of the recogniser's. The recogniser's plain attributes (`config`, `names`) can be read here;
    its methods cannot, since they would see the images unrestored.

    Args:
        recogniser: takes images as its first argument or by a name such as `pixel_values`.
        front_end: restores them.
        argument: the argument that holds the images, by name or position, where that is not so.
    """

    def __new__(
        cls, recogniser: nn.Module | None = None, *rest: Any, **named: Any
    ) -> RestoreBefore:
        return super().__new__(
            cls if recogniser is None else _with_signature(cls, recogniser)
        )  # torch's replicas give none

    def __init__(
        self, recogniser: nn.Module, front_end: FrontEnd, argument: str | int | None = None
    ) -> None:
        super().__init__()
        self.recogniser, self.front_end, self.argument = recogniser, front_end, argument
        self._names = argument_names(recogniser.forward)
        self.training = recogniser.training

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = restore_arguments(self.front_end, args, kwargs, self.argument, self._names)
        return self.recogniser(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unfilled, (self.recogniser,), self.__dict__

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("__") or "recogniser" not in self.__dict__.get("_modules", ()):
                raise
        return plain_attribute(self.recogniser, name)


def _with_signature(kind: type[RestoreBefore], recogniser: nn.Module) -> type[RestoreBefore]:
    """The class, with a recogniser's signature: Hugging Face's Trainer reads it off a model's class."""

    def forward(self: RestoreBefore, *args: Any, **kwargs: Any) -> Any:
        return kind.forward(self, *args, **kwargs)

    try:
        signature = inspect.signature(recogniser.forward)
    except (TypeError, ValueError):  # what is compiled may have none
        return kind
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    parameters = [own, *signature.parameters.values()]
    forward.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    attributes = {"forward": forward, "__module__": kind.__module__, "__doc__": kind.__doc__}
    return type(kind.__name__, (kind,), attributes)


def _unfilled(recogniser: nn.Module) -> RestoreBefore:
    """What copying and unpickling fill."""
    return RestoreBefore.__new__(RestoreBefore, recogniser)


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
    """Put a restoration network in front of a recogniser, which stays as it is and is called as before.

    >>> model = vrdir.restore_before(model, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    >>> logits = model(images)

    What a tensor holds is declared, or read from what the recogniser carries (timm's `pretrained_cfg`, a Hugging Face
    `image_processor`), or taken for RGB in [0, 1] with a warning; that is undone, the image restored, and all of it redone. Values that
    then lie outside [0, 1] are clipped up to 0.1 (where they are few, as resizing leaves them, 0.5) and an error beyond; on a
    GPU tensors are checked until one passes, since looking waits for the device, and under torch.export none.

    Args:
        recogniser: a `torch.nn.Module`, a callable, an ONNX Runtime session, a Hugging Face pipeline or an Ultralytics model.
        weights: as for `Restorer`; a network given is frozen (or, with `train_restorer`, unfrozen) in place and moved.
        mean, std: as the recogniser's own preprocessing has them: one number or three, in the order of `channels`.
        range: what that preprocessing makes of white (1 or 255) before it takes the mean off, or of black and white.
        channels: "rgb" or "bgr".
        preprocessing: read all that from a torchvision `weights` or its `transforms()`, a Hugging Face image processor, a timm
            configuration.
        argument: which argument (name or position; of a session, which input) holds the images, where it cannot be guessed.
        skip_clean: leave alone what the network calls clean, in less time; True, or from which share on (see `VRDIR.restore`); None
            does as a `Restorer` given for weights does, and does not where there is none.
        train_restorer: let gradients reach the restorer's parameters too (all but its extractor's).
        hook: called with each `Restoration`: the image (B, 3, H, W) in [0, 1], the guidance maps, the shares.
        device: of the restorer; by default a module's own, for others a GPU where there is one.
        strength, only: as for `Restorer`; without them, those of a `Restorer` given for weights.
        borders: set borders of one colour aside, such as a letterbox's grey, and put them back.

    Returns:
        For a module a `RestoreBefore`, itself a module; for others an object with the same calling convention.

    Raises:
        ValueError: a declaration makes no sense, or the recogniser takes no images that are known here.
        TypeError: it cannot be called.
    """
    if isinstance(recogniser, (RestoreBefore, RestoredCallable)):
        raise ValueError("this recogniser has a restorer in front already")
    connector = connector_of(recogniser)
    chosen = (
        _device_of(recogniser)
        if device is None and connector is RestoreBefore
        else choose_device(device or "auto")
    )
    network = load_network(weights, chosen)
    control = getattr(weights, "control", ALL)
    if strength is not None or only is not None:
        control = checked_control(
            1.0 if strength is None else strength, only, network.config.branches
        )
    front_end = FrontEnd(
        network,
        find_normalisation(
            recogniser, preprocessing, mean=mean, std=std, range=range, channels=channels
        ),
        declared=connector is RestoredUltralytics
        or is_declared(recogniser, preprocessing, mean, std, range),
        skip_clean=getattr(weights, "skip_clean", False) if skip_clean is None else skip_clean,
        trains=train_restorer,
        hook=hook,
        control=control,
        borders=borders,
    )
    return connector(recogniser, front_end, argument)


def connector_of(recogniser: Any) -> Callable[[Any, FrontEnd, str | int | None], Any]:
    """What connects to a recogniser, by its calling convention. Raises TypeError or ValueError if nothing does."""
    if hasattr(recogniser, "get_inputs") and hasattr(recogniser, "run"):
        return RestoredSession
    if type(recogniser).__module__.partition(".")[0] == "ultralytics" and hasattr(
        recogniser, "track"
    ):
        return RestoredUltralytics
    if isinstance(recogniser, nn.Module):
        return RestoreBefore
    if not callable(recogniser) or isinstance(recogniser, type):
        hint = "; of an exported program take .module()" if hasattr(recogniser, "module") else ""
        raise TypeError(f"a recogniser is called with images; {recogniser!r:.80} cannot be{hint}")
    if hasattr(recogniser, "task") and hasattr(recogniser, "preprocess"):
        processors = (
            getattr(p, "image_processor", None)
            for p in (recogniser, getattr(recogniser, "processor", None))
        )
        if all(processor is None for processor in processors):
            raise ValueError(
                f"the pipeline for {recogniser.task} has no image processor, so no images to restore"
            )
        return RestoredPipeline
    return RestoredCallable


def _device_of(module: nn.Module) -> torch.device:
    tensor = next(module.parameters(), next(module.buffers(), None))
    return torch.device("cpu") if tensor is None else tensor.device
