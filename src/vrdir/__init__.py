"""Restore images taken in haze, rain or noise, so that recognisers trained on clean photos work.

Examples:
    >>> import vrdir
    >>> clear = vrdir.Restorer()(foggy)
"""

from typing import TYPE_CHECKING

from vrdir.lazy import offer

__version__ = "0.2.0.dev0"

if TYPE_CHECKING:
    from vrdir.adaptation.adapting import adapt
    from vrdir.degradations.degrade import degrade
    from vrdir.errors import ImageError, VrdirError
    from vrdir.frontend.attach import restore_before
    from vrdir.frontend.transform import Restore
    from vrdir.model.config import VRDIRConfig
    from vrdir.model.vrdir import VRDIR, Restoration
    from vrdir.restoring.restored import Restored
    from vrdir.restoring.restorer import Restorer
    from vrdir.serving.camera import Camera

__all__ = [
    "VRDIR",
    "Camera",
    "ImageError",
    "Restoration",
    "Restore",
    "Restored",
    "Restorer",
    "VRDIRConfig",
    "VrdirError",
    "__version__",
    "adapt",
    "degrade",
    "restore_before",
]

_HOMES = {
    "Camera": "vrdir.serving.camera",
    "ImageError": "vrdir.errors",
    "Restoration": "vrdir.model.vrdir",
    "Restore": "vrdir.frontend.transform",
    "Restored": "vrdir.restoring.restored",
    "Restorer": "vrdir.restoring.restorer",
    "VRDIR": "vrdir.model.vrdir",
    "VRDIRConfig": "vrdir.model.config",
    "VrdirError": "vrdir.errors",
    "adapt": "vrdir.adaptation.adapting",
    "degrade": "vrdir.degradations.degrade",
    "restore_before": "vrdir.frontend.attach",
}

__getattr__, _ = offer(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
