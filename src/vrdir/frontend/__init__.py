"""Restoration in front of a recogniser: as a wrapper of the model, or as a preprocessing step."""

from typing import TYPE_CHECKING

from vrdir.lazy import offer

if TYPE_CHECKING:
    from vrdir.frontend.albumentations import AlbumentationsRestore
    from vrdir.frontend.attach import restore_before
    from vrdir.frontend.connectors.callables import RestoredCallable
    from vrdir.frontend.connectors.module import RestoredModule
    from vrdir.frontend.input_restorer import InputRestorer
    from vrdir.frontend.normalisation import Normalisation
    from vrdir.frontend.preprocessing import find_normalisation
    from vrdir.frontend.spandrel import VRDIRArchitecture, save_one_file
    from vrdir.frontend.transform import Restore

__all__ = [
    "AlbumentationsRestore",
    "InputRestorer",
    "Normalisation",
    "Restore",
    "RestoredCallable",
    "RestoredModule",
    "VRDIRArchitecture",
    "find_normalisation",
    "restore_before",
    "save_one_file",
]

_HOMES = {
    "AlbumentationsRestore": "vrdir.frontend.albumentations",
    "InputRestorer": "vrdir.frontend.input_restorer",
    "Normalisation": "vrdir.frontend.normalisation",
    "Restore": "vrdir.frontend.transform",
    "RestoredCallable": "vrdir.frontend.connectors.callables",
    "RestoredModule": "vrdir.frontend.connectors.module",
    "VRDIRArchitecture": "vrdir.frontend.spandrel",
    "find_normalisation": "vrdir.frontend.preprocessing",
    "restore_before": "vrdir.frontend.attach",
    "save_one_file": "vrdir.frontend.spandrel",
}

__getattr__, _ = offer(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
