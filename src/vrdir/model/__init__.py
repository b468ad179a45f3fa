"""The network: it reads like the paper."""

from typing import TYPE_CHECKING

from vrdir.lazy import offer

if TYPE_CHECKING:
    from vrdir.model.control import Control
    from vrdir.model.vrdir import CONFIGS, VRDIR, ContextConfig, Restoration, VRDIRConfig

__all__ = ["CONFIGS", "VRDIR", "ContextConfig", "Control", "Restoration", "VRDIRConfig"]

_HOMES = {
    "CONFIGS": "vrdir.model.vrdir",
    "ContextConfig": "vrdir.model.vrdir",
    "Control": "vrdir.model.control",
    "Restoration": "vrdir.model.vrdir",
    "VRDIR": "vrdir.model.vrdir",
    "VRDIRConfig": "vrdir.model.vrdir",
}

__getattr__, _ = offer(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
