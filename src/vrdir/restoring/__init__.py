"""Restore images, files, videos and streams, and measure what was wrong with them."""

from typing import TYPE_CHECKING

from vrdir.lazy import offer

if TYPE_CHECKING:
    from vrdir.restoring.diagnosis import diagnose
    from vrdir.restoring.loading import choose_device, network_of
    from vrdir.restoring.network import Network
    from vrdir.restoring.restored import Restored
    from vrdir.restoring.restorer import Restorer
    from vrdir.restoring.stream import FrameStream
    from vrdir.restoring.strips import restore_in_strips

__all__ = [
    "FrameStream",
    "Network",
    "Restored",
    "Restorer",
    "choose_device",
    "diagnose",
    "network_of",
    "restore_in_strips",
]

_HOMES = {
    "FrameStream": "vrdir.restoring.stream",
    "Network": "vrdir.restoring.network",
    "Restored": "vrdir.restoring.restored",
    "Restorer": "vrdir.restoring.restorer",
    "choose_device": "vrdir.restoring.loading",
    "diagnose": "vrdir.restoring.diagnosis",
    "network_of": "vrdir.restoring.loading",
    "restore_in_strips": "vrdir.restoring.strips",
}

__getattr__, __dir__ = offer(__name__, _HOMES)
