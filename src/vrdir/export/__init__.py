"""Networks for other runtimes: export a network to a file, and run the file."""

from typing import TYPE_CHECKING

from vrdir.lazy import offer

if TYPE_CHECKING:
    from vrdir.export.backends import BACKENDS, Backend
    from vrdir.export.exported_model import ExportedModel, ExportFacts
    from vrdir.export.exporting import cached_export, compare, export, state_sha256

__all__ = [
    "BACKENDS",
    "Backend",
    "ExportFacts",
    "ExportedModel",
    "cached_export",
    "compare",
    "export",
    "state_sha256",
]

_HOMES = {
    "BACKENDS": "vrdir.export.backends",
    "Backend": "vrdir.export.backends",
    "ExportFacts": "vrdir.export.exported_model",
    "ExportedModel": "vrdir.export.exported_model",
    "cached_export": "vrdir.export.exporting",
    "compare": "vrdir.export.exporting",
    "export": "vrdir.export.exporting",
    "state_sha256": "vrdir.export.exporting",
}

__getattr__, __dir__ = offer(__name__, _HOMES)
