"""Recognisers that are no `torch.nn.Module`, each by its own calling convention. Nothing of theirs is imported."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from vrdir.frontend.front_end import IMAGE_KEYS, MASK_KEY, PIXELS_KEY, FrontEnd
from vrdir.images.sixteen_bits import DeepPicture


def restore_arguments(
    restore: Callable[[Any, Any], Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    argument: str | int | None,
    names: Sequence[str] = (),
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call, with its images restored, those of a padded batch where its `pixel_mask` is.

    Args:
        restore: a front-end, or what is called as one is.
        argument: which one holds them, by name or position; None for `pixel_values`, else the first by position, else one of a
            known name.
        names: of the arguments by position, as far as they are known.

    Raises:
        ValueError: there is no such argument.
    """
    by_position = names[: len(args)]
    if argument is None:
        # The others may be something else beside an image given by position.
        unmistakable = PIXELS_KEY in by_position or PIXELS_KEY in kwargs
        known = (key for key in IMAGE_KEYS if key in kwargs)
        argument = PIXELS_KEY if unmistakable else 0 if args else next(known, 0)
    if isinstance(argument, str) and argument in by_position:
        argument = by_position.index(argument)
    mask = {**dict(zip(names, args, strict=False)), **kwargs}.get(MASK_KEY)
    if isinstance(argument, int) and 0 <= argument < len(args):
        return (*args[:argument], restore(args[argument], mask), *args[argument + 1 :]), kwargs
    if isinstance(argument, str) and argument in kwargs:
        return args, {**kwargs, argument: restore(kwargs[argument], mask)}
    given = [f"{len(args)} by position", *kwargs]
    raise ValueError(
        f"no images in this call (arguments: {', '.join(given)}); name theirs: restore_before(..., argument=NAME or position)"
    )


def argument_names(function: Callable[..., Any]) -> tuple[str, ...]:
    """Of the arguments that a function takes by position; none where it does not say."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return ()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(parameter.name for parameter in parameters if parameter.kind in kinds)


def plain_attribute(recogniser: Any, name: str) -> Any:
    """An attribute of the recogniser that is no method. Raises AttributeError for one that is: it would go past the restoration."""
    value = getattr(recogniser, name)
    if callable(value):
        raise AttributeError(
            f"{type(recogniser).__name__}.{name} would go past the restoration; if that is meant, call .recogniser.{name}"
        )
    return value


class RestoredCallable:
    """Any callable that takes images, called as it is; its plain attributes can be read here.

    Args:
        recogniser: what is called.
        front_end: restores its images.
        argument: the argument that holds them, by name or position, where it is neither the first nor has a known name.
    """

    passed_on: ClassVar[
        tuple[str, ...]
    ] = ()  # how the names of methods begin that have nothing to do with images

    def __init__(
        self, recogniser: Any, front_end: FrontEnd, argument: str | int | None = None
    ) -> None:
        self.recogniser, self.front_end, self.argument = recogniser, front_end, argument
        self._names = argument_names(recogniser)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = restore_arguments(self.front_end, args, kwargs, self.argument, self._names)
        return self.recogniser(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if (
            name.startswith("__") or "recogniser" not in self.__dict__
        ):  # copying and unpickling look before it is there
            raise AttributeError(name)
        return (
            getattr(self.recogniser, name)
            if name.startswith(self.passed_on)
            else plain_attribute(self.recogniser, name)
        )


class RestoredSession(RestoredCallable):
    """An ONNX Runtime session: `run(outputs, feeds)` restores the image among the feeds, and so do `OrtValue`s and io-bindings.

    The image is the one input of four dimensions, one of them three channels; of several the one that is called `image` or the like;
    else `argument` names it.
    """

    passed_on = ("get_", "set_", "enable_", "disable_", "end_")

    def __init__(
        self, recogniser: Any, front_end: FrontEnd, argument: str | int | None = None
    ) -> None:
        inputs = {i.name: i for i in recogniser.get_inputs()}
        described = ", ".join(f"{i.name} {i.type} {list(i.shape)}" for i in inputs.values())
        if argument is None:
            possible = [i.name for i in inputs.values() if _is_image(i)]
            colour = [name for name in possible if 3 in inputs[name].shape[1::2]]
            images = colour or possible
            images = [name for name in images if name in IMAGE_KEYS] if len(images) > 1 else images
            if len(images) != 1:
                images = possible
                problem = (
                    "several inputs could be the image"
                    if images
                    else "no input looks like an image (B, 3, H, W)"
                )
                raise ValueError(
                    f"{problem}: {described}; name it: restore_before(session, argument=NAME)"
                )
            argument = images[0]
        if argument not in inputs:
            raise ValueError(f"the session has no input {argument!r}, only {described}")
        super().__init__(recogniser, front_end, argument)
        self.input_name = str(argument)

    def run(self, output_names: Any, input_feed: Mapping[str, Any], run_options: Any = None) -> Any:
        """As the session's own `run`. Raises ValueError if the image is not among the feeds."""
        return self.recogniser.run(output_names, self._restored(input_feed), run_options)

    def run_with_ort_values(
        self, output_names: Any, input_dict_ort_values: Mapping[str, Any], run_options: Any = None
    ) -> Any:
        """As the session's own. Raises ValueError if the image is not among the feeds."""
        return self.recogniser.run_with_ort_values(
            output_names, self._restored(input_dict_ort_values), run_options
        )

    def io_binding(self) -> RestoredBinding:
        """A binding for `run_with_iobinding`, of which each run restores what is bound as the image then."""
        return RestoredBinding(self.recogniser.io_binding(), self.input_name, self.front_end)

    def run_with_iobinding(self, iobinding: Any, run_options: Any = None) -> None:
        """As the session's own, with a binding that comes from `io_binding` here. Raises ValueError for others."""
        if not isinstance(iobinding, RestoredBinding):
            raise ValueError(
                "a binding of the session's own would go past the restoration; take it from io_binding() of this object"
            )
        iobinding.restore()
        self.recogniser.run_with_iobinding(iobinding.binding, run_options)

    def _restored(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        if self.input_name not in feeds:
            raise ValueError(
                f"the image {self.input_name!r} is not among the inputs given: {', '.join(feeds) or 'none'}"
            )
        return {
            **feeds,
            self.input_name: restored_value(
                self.front_end, feeds[self.input_name], feeds.get(MASK_KEY)
            ),
        }

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("a session is not called; use run(outputs, feeds)")


class RestoredBinding:
    """An io-binding whose image is restored at each run; all else is that of the session.

    Args:
        binding: the session's own.
        input_name: of the image.
        front_end: restores it.
    """

    def __init__(self, binding: Any, input_name: str, front_end: FrontEnd) -> None:
        self.binding, self.input_name, self.front_end = binding, input_name, front_end
        self._bound: dict[str, Any] = {}
        self._kept: Any = None  # the runtime only points to it

    def bind_cpu_input(self, name: str, arr_on_cpu: Any) -> None:
        self._bound[name] = arr_on_cpu
        if name != self.input_name:
            self.binding.bind_cpu_input(name, arr_on_cpu)

    def bind_ortvalue_input(self, name: str, ortvalue: Any) -> None:
        self._bound[name] = ortvalue
        if name != self.input_name:
            self.binding.bind_ortvalue_input(name, ortvalue)

    def bind_input(self, name: str, *arguments: Any, **named: Any) -> None:
        """Bind memory by its address. Raises ValueError for the image, which cannot be read there."""
        if name == self.input_name:
            raise ValueError(
                f"the image {name!r} cannot be restored at an address; bind it by bind_cpu_input or bind_ortvalue_input"
            )
        self.binding.bind_input(name, *arguments, **named)

    def clear_binding_inputs(self) -> None:
        self._bound.clear()
        self.binding.clear_binding_inputs()

    def restore(self) -> None:
        """Bind the image, restored. Raises ValueError if none was bound."""
        if self.input_name not in self._bound:
            raise ValueError(
                f"the image {self.input_name!r} is not bound; use bind_cpu_input or bind_ortvalue_input"
            )
        image = self._bound[self.input_name]
        self._kept = restored_value(self.front_end, image, self._bound.get(MASK_KEY))
        bind = (
            self.binding.bind_ortvalue_input if is_ort_value(image) else self.binding.bind_cpu_input
        )
        bind(self.input_name, self._kept)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or "binding" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.binding, name)


def is_ort_value(value: Any) -> bool:
    """Whether it is ONNX Runtime's `OrtValue`."""
    return hasattr(value, "device_name") and hasattr(type(value), "ortvalue_from_numpy")


def restored_value(front_end: FrontEnd, image: Any, mask: Any) -> Any:
    """A session's input, restored: an array, or an `OrtValue`, on the device where it was."""
    mask = mask.numpy() if is_ort_value(mask) else mask
    if not is_ort_value(image):
        return front_end(image, mask)
    return type(image).ortvalue_from_numpy(front_end(image.numpy(), mask), image.device_name())


def _is_image(node: Any) -> bool:
    """Whether a session's input is float or uint8, of four dimensions, and may have three channels (names stand for any number)."""
    if len(node.shape) != 4 or node.type not in (
        "tensor(float)",
        "tensor(float16)",
        "tensor(double)",
        "tensor(uint8)",
    ):
        return False
    return any(node.shape[axis] == 3 or not isinstance(node.shape[axis], int) for axis in (1, 3))


class RestoredPipeline(RestoredCallable):
    """A Hugging Face pipeline of any task whose input holds images: PIL images, paths, or an iterable of them.

    Images are restored as they come, before any resizing, and keep their size: boxes and masks are those of the original.
    Generators and data sets are restored one by one as the pipeline asks for them, and stay what they are: a data set keeps
    its length.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = restore_arguments(self._restored, args, kwargs, self.argument, self._names)
        return self.recogniser(*args, **kwargs)

    def _restored(self, images: Any, mask: Any) -> Any:
        if isinstance(images, (str, list, tuple, Mapping, Tensor, np.ndarray)):
            return self.front_end(images, mask)
        by_number = hasattr(images, "__getitem__") and hasattr(images, "__len__")
        if by_number and not isinstance(images, IterableDataset):
            return RestoredDataset(images, self.front_end)
        if isinstance(images, Iterable) or hasattr(images, "__getitem__"):
            return (
                self.front_end(image) for image in images
            )  # pipelines know a generator, but no other iterator
        return self.front_end(images, mask)


class RestoredDataset(Dataset[Any]):
    """A data set whose images are restored when they are asked for, in the process that asks."""

    def __init__(self, images: Any, front_end: FrontEnd) -> None:
        self.images, self.front_end = images, front_end

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Any:
        return self.front_end(self.images[index])


class RestoredUltralytics(RestoredCallable):
    """An Ultralytics model: `model(source)`, `predict`, `track` and `embed` on images, whose boxes are those of the original.

    A source is a PIL image, the path of one image file, a BGR array (H, W, 3) as OpenCV reads it, an RGB tensor
    (B, 3, H, W) in [0, 1], or a list of these. Videos, cameras, folders and addresses are not: read their frames and pass those.
    """

    passed_on = ("info", "add_callback", "clear_callback")

    def __init__(
        self, recogniser: Any, front_end: FrontEnd, argument: str | int | None = None
    ) -> None:
        if front_end.normalisation.channels == "bgr":
            raise ValueError(
                "an Ultralytics model's arrays are known to be BGR, and its tensors RGB; leave channels= out"
            )
        super().__init__(recogniser, front_end, argument)

    def __call__(self, source: Any = None, *args: Any, **kwargs: Any) -> Any:
        return self.recogniser(self._restored(source), *args, **kwargs)

    def predict(self, source: Any = None, *args: Any, **kwargs: Any) -> Any:
        return self.recogniser.predict(self._restored(source), *args, **kwargs)

    def track(self, source: Any = None, *args: Any, **kwargs: Any) -> Any:
        return self.recogniser.track(self._restored(source), *args, **kwargs)

    def embed(self, source: Any = None, *args: Any, **kwargs: Any) -> Any:
        return self.recogniser.embed(self._restored(source), *args, **kwargs)

    def _restored(self, source: Any) -> Any:
        if isinstance(source, (list, tuple)) and not isinstance(source, DeepPicture):
            return [self._restored(image) for image in source]
        if isinstance(source, np.ndarray) and source.ndim == 3 and source.shape[-1] == 3:
            return np.ascontiguousarray(self.front_end(source[..., ::-1])[..., ::-1])
        return self.front_end(source)
