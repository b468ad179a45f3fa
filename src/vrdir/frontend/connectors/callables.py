"""Any callable that takes images; the base of the connectors that are not `torch.nn.Module`."""

from __future__ import annotations

from typing import Any, ClassVar

from vrdir.frontend.image_arguments import positional_names, restore_arguments
from vrdir.frontend.input_restorer import InputRestorer


class RestoredCallable:
    """Any callable that takes images, called as before; its plain attributes can be read here.

    A connector for another kind of recogniser is a subclass: it overrides `accepts`, and the
    methods through which the recogniser receives images.

    Args:
        recogniser: what is called.
        front_end: restores its images.
        argument: the name or position of the argument that contains the images, if it is neither
            the first nor has a known name.

    Attributes:
        input_is_known: whether the recogniser's package fixes how its input is normalised, so that
            nothing needs to be declared.
        shares_device: whether the restorer runs on the recogniser's device by default.
        unrestored_methods: prefixes of the recogniser's methods that receive no images, and so can
            be called here directly.
    """

    input_is_known: ClassVar[bool] = False
    shares_device: ClassVar[bool] = False
    unrestored_methods: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, recogniser: Any, front_end: InputRestorer, argument: str | int | None = None
    ) -> None:
        self.recogniser, self.front_end, self.argument = recogniser, front_end, argument
        self._names = positional_names(recogniser)

    @classmethod
    def accepts(cls, recogniser: Any) -> bool:
        """Return whether this connector matches a recogniser.

        Raises:
            RecogniserError: it is, but the recogniser takes no images.
        """
        return callable(recogniser) and not isinstance(recogniser, type)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the recogniser with the images among the arguments restored."""
        args, kwargs = restore_arguments(self.front_end, args, kwargs, self.argument, self._names)
        return self.recogniser(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        # Copying and unpickling look up attributes before there is a recogniser.
        if name.startswith("__") or "recogniser" not in self.__dict__:
            raise AttributeError(name)
        return safe_attribute(self.recogniser, name, self.unrestored_methods)


def safe_attribute(recogniser: Any, name: str, unrestored_methods: tuple[str, ...]) -> Any:
    """Return an attribute of the recogniser that cannot bypass the restoration.

    Args:
        recogniser: the object that has it.
        name: its name.
        unrestored_methods: prefixes of the methods that receive no images.

    Raises:
        AttributeError: it is another method, which would receive images without restoration.
    """
    value = getattr(recogniser, name)
    if callable(value) and not name.startswith(unrestored_methods):
        raise AttributeError(
            f"{type(recogniser).__name__}.{name} would bypass the restoration; "
            f"if that is intended, call .recogniser.{name}"
        )
    return value
