"""The network: it reads like the paper."""

from typing import TYPE_CHECKING

from vrdir.lazy import offer

if TYPE_CHECKING:
    from vrdir.model.config import CONFIGS, ContextConfig, VRDIRConfig
    from vrdir.model.control import Control
    from vrdir.model.vrdir import VRDIR, Restoration

__all__ = ["CONFIGS", "VRDIR", "ContextConfig", "Control", "Restoration", "VRDIRConfig"]

_HOMES = {
    "CONFIGS": "vrdir.model.config",
    "ContextConfig": "vrdir.model.config",
    "Control": "vrdir.model.control",
    "Restoration": "vrdir.model.vrdir",
    "VRDIR": "vrdir.model.vrdir",
    "VRDIRConfig": "vrdir.model.config",
}

__getattr__, _ = offer(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
