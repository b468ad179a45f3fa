"""The package's own errors: one family, `VrdirError`. Each class is also a built-in error.

`except VrdirError` catches what the user can correct, and nothing else: a bug keeps its own type.
`except ValueError`, `except FileNotFoundError` and the like work too.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

__all__ = [
    "DataError",
    "DiskError",
    "ExistsError",
    "ImageError",
    "InputError",
    "MissingFileError",
    "MissingPackageError",
    "NotCallableError",
    "NotPermittedError",
    "RecogniserError",
    "ResultError",
    "SettingsError",
    "TracingError",
    "VideoError",
    "VrdirError",
    "WeightsError",
    "first_line",
    "require",
]


class VrdirError(Exception):
    """The base of all errors that this package raises on purpose.

    The message is for the user: it names the file or argument, what was expected, and what to do.
    """


class InputError(VrdirError, ValueError):
    """An argument, option or input that cannot be used."""


class ImageError(InputError):
    """An image that cannot be read, written or understood."""


class DiskError(ImageError):
    """A disk that is full or read-only, so that no further result can be written."""


class VideoError(ImageError):
    """A video that cannot be read, written or understood."""


class WeightsError(InputError):
    """Weights, a model's configuration or an exported network that cannot be used."""


class DataError(InputError):
    """A data set, pair list, label file or text file that cannot be used."""


class SettingsError(InputError):
    """A recipe or setting that cannot be used."""


class RecogniserError(InputError):
    """A recogniser that cannot be loaded, or whose output breaks its contract."""


class NotCallableError(RecogniserError, TypeError):
    """An object given as a recogniser that cannot be called with images."""


class TracingError(InputError, RuntimeError):
    """A request that depends on the data, which torch.export and torch.compile cannot trace."""


class ResultError(VrdirError, ArithmeticError):
    """A result with values that are not finite, and so cannot be used."""


class MissingFileError(VrdirError, FileNotFoundError):
    """A file or folder that does not exist."""


class NotPermittedError(VrdirError, PermissionError):
    """A file or folder that may not be read or written."""


class ExistsError(VrdirError, FileExistsError):
    """A file or folder that exists already and is not overwritten."""


class MissingPackageError(InputError, ImportError):
    """An optional package that is not installed."""


def require(module: str, extra: str, reason: str) -> ModuleType:
    """Import an optional package.

    Args:
        module: the name to import, such as "onnxruntime".
        extra: the extra of vrdir that installs it, such as "export".
        reason: the beginning of the message, such as "an ONNX file needs onnxruntime".

    Raises:
        MissingPackageError: it is not installed; the message ends with the command to install it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise  # the package is installed, but one that it needs is not
        raise MissingPackageError(f"{reason}: pip install 'vrdir[{extra}]'") from None


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or its type's name if there is none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
