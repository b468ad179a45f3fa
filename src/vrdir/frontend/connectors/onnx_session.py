"""An ONNX Runtime session: `run`, `run_with_ort_values` and `run_with_iobinding`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from vrdir.errors import InputError, NotCallableError, RecogniserError
from vrdir.frontend.connectors.callables import RestoredCallable
from vrdir.frontend.image_arguments import IMAGE_KEYS, MASK_KEY
from vrdir.frontend.input_restorer import InputRestorer

IMAGE_TYPES = ("tensor(float)", "tensor(float16)", "tensor(double)", "tensor(uint8)")


class RestoredSession(RestoredCallable):
    """An ONNX Runtime session that restores the image among its inputs.

    The image is the only input of four dimensions, one of them with three channels. Of several
    such inputs it is the one that is named `image` or the like; else `argument` gives its name.

    Args:
        recogniser: the session.
        front_end: restores the image.
        argument: the name of the image input, if it cannot be guessed.

    Attributes:
        input_name: the name of the image input.

    Raises:
        RecogniserError: the session has no such input, or several could be the image.
    """

    unrestored_methods: ClassVar[tuple[str, ...]] = ("get_", "set_", "enable_", "disable_", "end_")

    def __init__(
        self, recogniser: Any, front_end: InputRestorer, argument: str | int | None = None
    ) -> None:
        inputs = recogniser.get_inputs()
        described = ", ".join(f"{one.name} {one.type} {list(one.shape)}" for one in inputs)
        name = _image_input(inputs, described) if argument is None else argument
        if name not in {one.name for one in inputs}:
            raise RecogniserError(f"the session has no input {name!r}, only {described}")
        super().__init__(recogniser, front_end, name)
        self.input_name = str(name)

    @classmethod
    def accepts(cls, recogniser: Any) -> bool:
        """Return whether this connector matches a recogniser."""
        return hasattr(recogniser, "get_inputs") and hasattr(recogniser, "run")

    def run(self, output_names: Any, input_feed: Mapping[str, Any], run_options: Any = None) -> Any:
        """Run the session, as its own `run` does.

        Raises:
            InputError: the image is not among the inputs.
        """
        return self.recogniser.run(output_names, self._restored(input_feed), run_options)

    def run_with_ort_values(
        self, output_names: Any, input_dict_ort_values: Mapping[str, Any], run_options: Any = None
    ) -> Any:
        """Run the session, as its own method does.

        Raises:
            InputError: the image is not among the inputs.
        """
        return self.recogniser.run_with_ort_values(
            output_names, self._restored(input_dict_ort_values), run_options
        )

    def io_binding(self) -> RestoredBinding:
        """Return a binding for `run_with_iobinding`, which restores the bound image at each run."""
        return RestoredBinding(self.recogniser.io_binding(), self.input_name, self.front_end)

    def run_with_iobinding(self, iobinding: Any, run_options: Any = None) -> None:
        """Run the session with a binding from this object's `io_binding`.

        Raises:
            InputError: the binding comes from elsewhere, or no image is bound.
        """
        if not isinstance(iobinding, RestoredBinding):
            raise InputError(
                "a binding made by the session itself would bypass the restoration; "
                "use one from io_binding() of this object"
            )
        iobinding.restore()
        self.recogniser.run_with_iobinding(iobinding.binding, run_options)

    def _restored(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        if self.input_name not in feeds:
            raise InputError(
                f"the image {self.input_name!r} is not among the inputs given: "
                f"{', '.join(feeds) or 'none'}"
            )
        image = restore_value(self.front_end, feeds[self.input_name], feeds.get(MASK_KEY))
        return {**feeds, self.input_name: image}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Raise NotCallableError: a session is run, not called."""
        raise NotCallableError("a session cannot be called; use run(outputs, feeds)")


class RestoredBinding:
    """An io-binding whose image is restored at each run; everything else is the session's.

    Args:
        binding: the session's own binding.
        input_name: the name of the image input.
        front_end: restores the image.
    """

    def __init__(self, binding: Any, input_name: str, front_end: InputRestorer) -> None:
        self.binding, self.input_name, self.front_end = binding, input_name, front_end
        self._bound: dict[str, Any] = {}
        self._restored: Any = None  # the runtime keeps only a pointer to it

    def bind_cpu_input(self, name: str, arr_on_cpu: Any) -> None:
        """Bind an array; the image is restored at each run."""
        self._bound[name] = arr_on_cpu
        if name != self.input_name:
            self.binding.bind_cpu_input(name, arr_on_cpu)

    def bind_ortvalue_input(self, name: str, ortvalue: Any) -> None:
        """Bind an `OrtValue`; the image is restored at each run."""
        self._bound[name] = ortvalue
        if name != self.input_name:
            self.binding.bind_ortvalue_input(name, ortvalue)

    def bind_input(self, name: str, *arguments: Any, **named: Any) -> None:
        """Bind memory by its address.

        Raises:
            InputError: for the image, which cannot be read there.
        """
        if name == self.input_name:
            raise InputError(
                f"the image {name!r} cannot be restored when it is bound by its memory address; "
                "bind it with bind_cpu_input or bind_ortvalue_input"
            )
        self.binding.bind_input(name, *arguments, **named)

    def clear_binding_inputs(self) -> None:
        """Remove all bound inputs."""
        self._bound.clear()
        self.binding.clear_binding_inputs()

    def restore(self) -> None:
        """Restore the bound image and bind the result.

        Raises:
            InputError: no image is bound.
        """
        if self.input_name not in self._bound:
            raise InputError(
                f"the image {self.input_name!r} is not bound; "
                "use bind_cpu_input or bind_ortvalue_input"
            )
        image = self._bound[self.input_name]
        self._restored = restore_value(self.front_end, image, self._bound.get(MASK_KEY))
        binding = self.binding
        bind = binding.bind_ortvalue_input if is_ort_value(image) else binding.bind_cpu_input
        bind(self.input_name, self._restored)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or "binding" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.binding, name)


def is_ort_value(value: Any) -> bool:
    """Return whether this is ONNX Runtime's `OrtValue`."""
    return hasattr(value, "device_name") and hasattr(type(value), "ortvalue_from_numpy")


def restore_value(front_end: InputRestorer, image: Any, mask: Any) -> Any:
    """Restore a session's input: an array, or an `OrtValue`, which stays on its device."""
    mask = mask.numpy() if is_ort_value(mask) else mask
    if not is_ort_value(image):
        return front_end(image, mask)
    return type(image).ortvalue_from_numpy(front_end(image.numpy(), mask), image.device_name())


def _image_input(inputs: list[Any], described: str) -> str:
    """Return the name of the image input, or raise RecogniserError."""
    possible = [one for one in inputs if _may_be_image(one)]
    images = [one.name for one in possible if 3 in one.shape[1::2]]
    images = images or [one.name for one in possible]
    if len(images) > 1:
        images = [name for name in images if name in IMAGE_KEYS]
    if len(images) == 1:
        return images[0]
    problem = (
        "several inputs could be the image"
        if possible
        else "no input looks like an image (B, 3, H, W)"
    )
    raise RecogniserError(
        f"{problem}: {described}; pass its name: restore_before(session, argument=NAME)"
    )


def _may_be_image(node: Any) -> bool:
    """Return whether an input has an image's type, and four dimensions with three channels.

    A dimension that has a name instead of a number may be of any size.
    """
    if len(node.shape) != 4 or node.type not in IMAGE_TYPES:
        return False
    return any(node.shape[axis] == 3 or not isinstance(node.shape[axis], int) for axis in (1, 3))
