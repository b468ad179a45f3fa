"""The runtimes that run a network: one entry and one module each.

The command `vrdir export NAME`, the options `--backend`, the checks, the messages and the table in
docs/export.md are made from `BACKENDS`. docs/extending/backend.md explains how to add a runtime.
Importing this module loads no runtime.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from vrdir.errors import InputError, WeightsError, require

if TYPE_CHECKING:
    from vrdir.export.contract import OpenedNetwork

TORCH = "torch"  # PyTorch itself, which needs no exported file


class Backend(NamedTuple):
    """A runtime for exported networks.

    Attributes:
        name: as in `--backend` and `vrdir export`.
        title: as its developers write it.
        package: the Python package that it needs.
        extra: the extra of vrdir that installs the package.
        suffixes: of the files that it runs.
        written: suffixes of the files that an export for it writes, the main file first; none for
            a runtime that runs the ONNX files of another backend.
        module: with `open_network`, and `convert` for a format of its own.
    """

    name: str
    title: str
    package: str
    extra: str
    suffixes: tuple[str, ...]
    written: tuple[str, ...]
    module: str

    def runtime(self) -> ModuleType:
        """Import the package. Raises MissingPackageError if it is not installed."""
        return require(self.package, self.extra, f"backend {self.name} needs {self.package}")

    def open(self, path: Path) -> OpenedNetwork:
        """Open an exported network.

        Raises:
            WeightsError: the file is damaged, or is for another backend.
            MissingPackageError: the runtime is not installed.
        """
        self.runtime()
        if path.suffix not in self.suffixes and path.suffix in FORMATS:
            owner = FORMATS[path.suffix]
            raise WeightsError(f"{path} has {owner.title}'s format; use backend {owner.name}")
        opened: OpenedNetwork = import_module(self.module).open_network(path)
        return opened

    def export(self, onnx_path: Path, target: Path) -> None:
        """Write the runtime's own format from an ONNX file.

        Raises:
            MissingPackageError: the runtime is not installed.
        """
        self.runtime()
        import_module(self.module).convert(onnx_path, target)


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend(
            "onnx",
            "ONNX Runtime",
            package="onnxruntime",
            extra="export",
            suffixes=(".onnx",),
            written=(".onnx",),
            module="vrdir.export.onnx_runtime",
        ),
        Backend(
            "openvino",
            "OpenVINO",
            package="openvino",
            extra="openvino",
            suffixes=(".onnx", ".xml"),
            written=(".xml", ".bin"),
            module="vrdir.export.openvino_runtime",
        ),
    )
}
BACKEND_NAMES = (TORCH, *BACKENDS)
FORMATS = {
    backend.written[0]: backend for backend in BACKENDS.values() if backend.written
}  # by the main file's suffix


def exported_backend(name: str) -> Backend:
    """Return the backend for exported networks with this name.

    Raises:
        InputError: there is none.
    """
    if name not in BACKENDS:
        raise InputError(
            f"an exported network runs with backend {' or '.join(BACKENDS)}, not {name!r}"
        )
    return BACKENDS[name]
