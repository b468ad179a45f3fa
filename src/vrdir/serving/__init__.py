"""The HTTP service: it restores images for other programs and for a page in the browser."""

from typing import TYPE_CHECKING

from vrdir.lazy import offer

if TYPE_CHECKING:
    from vrdir.serving.networks import Networks
    from vrdir.serving.server import run_service
    from vrdir.serving.service import Service
    from vrdir.serving.settings import ServeSettings

__all__ = ["Networks", "ServeSettings", "Service", "run_service"]

_HOMES = {
    "Networks": "vrdir.serving.networks",
    "ServeSettings": "vrdir.serving.settings",
    "Service": "vrdir.serving.service",
    "run_service": "vrdir.serving.server",
}

__getattr__, __dir__ = offer(__name__, _HOMES)
