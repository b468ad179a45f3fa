"""vrdir: restores images taken in haze, rain or noise, so that recognisers trained on clean photos work again.

>>> import vrdir
>>> clear = vrdir.Restorer()(foggy)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from vrdir.degradations.degrade import degrade
    from vrdir.image_files.whole_files import ImageError
    from vrdir.inference.recognition_frontend import restore_before
    from vrdir.inference.restorer import Restored, Restorer
    from vrdir.inference.transform import Restore
    from vrdir.model.vrdir import VRDIR, Restoration, VRDIRConfig

__all__ = [
    "VRDIR",
    "ImageError",
    "Restoration",
    "Restore",
    "Restored",
    "Restorer",
    "VRDIRConfig",
    "__version__",
    "degrade",
    "restore_before",
]

# Loaded when first asked for: `import vrdir` stays fast and does not pull torch in.
_HOMES = {
    "degrade": "vrdir.degradations.degrade",
    "ImageError": "vrdir.image_files.whole_files",
    "Restore": "vrdir.inference.transform",
    "restore_before": "vrdir.inference.recognition_frontend",
    "Restored": "vrdir.inference.restorer",
    "Restorer": "vrdir.inference.restorer",
    "Restoration": "vrdir.model.vrdir",
    "VRDIR": "vrdir.model.vrdir",
    "VRDIRConfig": "vrdir.model.vrdir",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'vrdir' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
