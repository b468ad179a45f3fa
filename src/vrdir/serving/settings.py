"""The settings of the service: where it listens, what it accepts, how long it waits."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from vrdir.errors import SettingsError
from vrdir.images.memory import memory_limit

BYTES_A_PIXEL = 700  # what a pixel of an image takes that is restored as a whole; see Network


def default_work_megapixels() -> float:
    """Return how much may be at work at once: what fits into half the memory."""
    return max(1.0, memory_limit() / 2 / BYTES_A_PIXEL / 1e6)


@dataclass(frozen=True)
class ServeSettings:
    """All limits of the service. Each has an option of `vrdir serve`.

    Attributes:
        host: the address to listen on; loopback unless the user gives another.
        port: the port to listen on; 0 takes a free one.
        max_body_mebibytes: the largest request body.
        max_bodies_mebibytes: the largest sum of all request bodies and answers in memory.
        max_megapixels: the largest image, checked before it is decoded.
        work_megapixels: the memory of all images at work, in megapixels of 700 bytes each.
        max_queue: how many images may wait.
        max_queue_megapixels: the largest sum of all images that wait.
        deadline: seconds from the end of the body to the answer.
        body_timeout: seconds for the whole request body.
        header_timeout: seconds for the request line and the headers.
        keep_alive: seconds that an idle connection is kept.
        send_timeout: seconds for a client to take a piece of its answer (256 KiB).
        stop_timeout: seconds to finish accepted requests after a stop signal.
        max_connections: open connections; further ones get 503.
        max_streams: open WebSocket streams; further ones are refused.
        threads: threads that compute; each restores one batch.
        keys: a file with one API key a line; None admits everyone.
        hosts: names by which a proxy calls a service on loopback, beside those of this machine.
        cors: the origins whose pages may call the service.
        web: a folder of `vrdir web build`, for restoring in the browser.
        detector: an ONNX detector, whose boxes the page shows.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    max_body_mebibytes: float = 64.0
    max_bodies_mebibytes: float = 512.0
    max_megapixels: float = 50.0
    work_megapixels: float = field(default_factory=default_work_megapixels)
    max_queue: int = 64
    max_queue_megapixels: float = 400.0
    deadline: float = 120.0
    body_timeout: float = 30.0
    header_timeout: float = 10.0
    keep_alive: float = 15.0
    send_timeout: float = 60.0
    stop_timeout: float = 30.0
    max_connections: int = 1000
    max_streams: int = 8
    threads: int = 1
    keys: Path | None = None
    hosts: tuple[str, ...] = ()
    cors: tuple[str, ...] = ()
    web: Path | None = None
    detector: Path | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            SettingsError: a limit is not positive, or the port is out of range.
        """
        limits = {
            name: value
            for name, value in vars(self).items()
            if isinstance(value, (int, float)) and name != "port"
        }
        for name, value in limits.items():
            if not value > 0:
                option = name.replace("_", "-")
                raise SettingsError(f"--{option} must be more than 0, not {value}")
        if not 0 <= self.port <= 65535:
            raise SettingsError(f"--port must be from 0 to 65535, not {self.port}")

    @property
    def max_body(self) -> int:
        """The largest request body, in bytes."""
        return int(self.max_body_mebibytes * 2**20)

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine can reach the service."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
