"""The settings of the service: its address, its limits and its time-outs."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from vrdir.errors import SettingsError
from vrdir.images.memory import memory_limit

BYTES_A_PIXEL = 700  # memory for each pixel of an image that is restored as a whole; see Network


def default_work_megapixels() -> float:
    """Return the default of `work_megapixels`: the megapixels that fit into half of the memory."""
    return max(1.0, memory_limit() / 2 / BYTES_A_PIXEL / 1e6)


@dataclass(frozen=True)
class ServeSettings:
    """The settings of the service. Each has an option of `vrdir serve`.

    Attributes:
        host: the address to listen on; by default only this machine can connect.
        port: the port to listen on; 0 chooses a free one.
        max_body_mebibytes: the largest request body, in MiB.
        max_bodies_mebibytes: the largest total of request and response bodies in memory, in MiB.
        max_megapixels: the largest image in megapixels, checked before it is decoded.
        work_megapixels: the memory for all images in work, in megapixels of 700 bytes per pixel.
        max_queue: the largest number of waiting images.
        max_queue_megapixels: the largest total of the megapixels of waiting images.
        deadline: seconds from the end of the request body to the response.
        body_timeout: seconds for the whole request body.
        header_timeout: seconds for the request line and the headers.
        keep_alive: seconds after which an idle connection is closed.
        send_timeout: seconds for a client to receive a piece of its response (256 KiB).
        stop_timeout: seconds to finish accepted requests after a stop signal.
        max_connections: the largest number of open connections; further ones get 503.
        max_streams: the largest number of open WebSocket streams; further ones are refused.
        threads: the number of threads that compute; each restores one batch.
        keys: a file with one API key per line; None if no key is needed.
        hosts: host names that are accepted in requests on the loopback address, in addition to
            those of this machine: the names by which a proxy is reached.
        cors: the origins whose pages may use the service; "*" for all.
        web: a folder that `vrdir web build` wrote, for restoring in the browser; or None.
        detector: an ONNX detector, whose boxes the page shows; or None.
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
        """Whether only programs on this machine can connect to the service."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
