"""A `torch.nn.Module`: the composite is a module, too."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

from torch import nn

from vrdir.frontend.connectors.callables import safe_attribute
from vrdir.frontend.image_arguments import positional_names, restore_arguments
from vrdir.frontend.input_restorer import InputRestorer


class RestoredModule(nn.Module):
    """`recogniser(front_end(images))`, called as the recogniser is.

    It behaves like other modules: `to`, `eval`, `state_dict` and `torch.export` work, and gradients
    pass through to the input. Its `forward` has the recogniser's signature. The recogniser's plain
    attributes (`config`, `names`) can be read here; its methods cannot, since they would receive
    images without restoration.

    Args:
        recogniser: takes images as its first argument or by a name such as `pixel_values`.
        front_end: restores them.
        argument: the name or position of the argument that contains the images, if it is another.

    Attributes:
        input_is_known: see `RestoredCallable`.
        shares_device: likewise.
        unrestored_methods: likewise; Hugging Face's Trainer calls these.
    """

    input_is_known: ClassVar[bool] = False
    shares_device: ClassVar[bool] = True
    unrestored_methods: ClassVar[tuple[str, ...]] = ("gradient_checkpointing_",)

    def __new__(
        cls, recogniser: nn.Module | None = None, *rest: Any, **named: Any
    ) -> RestoredModule:
        """Make an object whose class has the recogniser's signature."""
        # Replicas of torch.nn.DataParallel are made without arguments.
        return super().__new__(cls if recogniser is None else _with_signature(cls, recogniser))

    def __init__(
        self, recogniser: nn.Module, front_end: InputRestorer, argument: str | int | None = None
    ) -> None:
        super().__init__()
        self.recogniser, self.front_end, self.argument = recogniser, front_end, argument
        self._names = positional_names(recogniser.forward)
        self.training = recogniser.training

    @classmethod
    def accepts(cls, recogniser: Any) -> bool:
        """Return whether this connector matches a recogniser."""
        return isinstance(recogniser, nn.Module)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the recogniser with the images among the arguments restored.

        Raises:
            InputError: the call has no images, or they cannot be restored.
        """
        args, kwargs = restore_arguments(self.front_end, args, kwargs, self.argument, self._names)
        return self.recogniser(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return _empty, (self.recogniser,), self.__dict__

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("__") or "recogniser" not in self.__dict__.get("_modules", ()):
                raise
        return safe_attribute(self.recogniser, name, self.unrestored_methods)


def _with_signature(kind: type[RestoredModule], recogniser: nn.Module) -> type[RestoredModule]:
    """Return the class with a recogniser's signature.

    Hugging Face's Trainer reads the signature from a model's class.
    """

    def forward(self: RestoredModule, *args: Any, **kwargs: Any) -> Any:
        return kind.forward(self, *args, **kwargs)

    try:
        signature = inspect.signature(recogniser.forward)
    except (TypeError, ValueError):  # compiled modules may have none
        return kind
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    parameters = [own, *signature.parameters.values()]
    forward.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    attributes = {"forward": forward, "__module__": kind.__module__, "__doc__": kind.__doc__}
    return type(kind.__name__, (kind,), attributes)


def _empty(recogniser: nn.Module) -> RestoredModule:
    """Return an object without state, which copying and unpickling fill."""
    return RestoredModule.__new__(RestoredModule, recogniser)
