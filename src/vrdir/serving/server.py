"""Run the service: sockets, signals, and JSON log lines."""

from __future__ import annotations

import json
import logging
import math
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import uvicorn

from vrdir.errors import InputError
from vrdir.serving.protocol import HEADER_BYTES, limited_protocols
from vrdir.serving.service import Service
from vrdir.signals import handled

logger = logging.getLogger("vrdir.serving")

SENDING = 3  # seconds after `--stop-timeout` for clients to take the last answers
# What every log record has; all else was given as `extra`.
PLAIN = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message"}


class JsonLines(logging.Formatter):
    """Formats log records as one JSON object a line."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as JSON: time (UTC), level, message, and what was given as `extra`."""
        stamp = self.formatTime(record, "%Y-%m-%dT%H:%M:%S")
        facts: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        facts |= {key: value for key, value in vars(record).items() if key not in PLAIN}
        if record.exc_info:
            facts["trace"] = self.formatException(record.exc_info)
        return json.dumps(facts, default=str)


class _Server(uvicorn.Server):
    """A server that tells when it listens and when it stops."""

    def __init__(
        self, config: uvicorn.Config, on_start: Callable[[int], None], on_stop: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._on_start, self._on_stop = on_start, on_stop

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_stop()
        await super().shutdown(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            self._on_start(sockets[0].getsockname()[1])


def listening_socket(host: str, port: int) -> socket.socket:
    """Open the socket.

    Args:
        host: an address or name.
        port: 0 takes a free one.

    Raises:
        InputError: the address cannot be used, such as a port that is taken.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise InputError(f"cannot listen on {host}: {error.strerror or error}") from None
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(2048)
    except OSError as error:
        opened.close()
        raise InputError(
            f"cannot listen on {host}:{port} ({error.strerror}); choose another --port"
        ) from None
    return opened


def allow_connections(count: int) -> int:
    """Ask the system for enough open files; return how many connections there may be.

    A system that gives fewer lowers the number, since a server without free files hangs.
    """
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return count
    needed = count + 128  # beside connections: weights, logs, decoders' processes
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    return count if soft == resource.RLIM_INFINITY else max(1, min(count, soft - 128))


def run_service(service: Service, on_start: Callable[[int], None] = lambda port: None) -> None:
    """Serve until a signal comes. SIGTERM and SIGINT stop gracefully; SIGHUP reloads.

    Args:
        service: what is served.
        on_start: called with the port as soon as the service listens.

    Raises:
        InputError: the address cannot be used.
    """
    settings = service.settings
    connections = allow_connections(settings.max_connections)
    http, web_socket = limited_protocols(settings, connections, service.note_closed)
    config = uvicorn.Config(
        service.application(),
        http=http,
        ws=web_socket,
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=HEADER_BYTES,
        timeout_keep_alive=math.ceil(settings.keep_alive),
        # The service itself answers what it cannot finish in time; this is for clients that stall.
        timeout_graceful_shutdown=math.ceil(settings.stop_timeout) + SENDING,
        ws_max_size=settings.max_body,
        ws_per_message_deflate=False,  # frames are compressed images already
        backlog=2048,
    )

    def reload(number: int, frame: object) -> None:
        # In its own thread: loading weights must not stop the event loop.
        threading.Thread(target=service.reload, daemon=True).start()

    reloading = [signal.SIGHUP] if hasattr(signal, "SIGHUP") else []
    server = _Server(config, on_start, service.begin_stop)
    service.metrics.watch(
        "vrdir_connections",
        "Open connections.",
        lambda: len(server.server_state.connections),
    )
    if service.live is not None:
        service.live.at_end(lambda: setattr(server, "should_exit", True))
    with handled(reload, *reloading), listening_socket(settings.host, settings.port) as opened:
        server.run(sockets=[opened])
