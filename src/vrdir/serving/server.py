"""Run the service: open the socket, handle signals, and format the log as JSON lines."""

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

SENDING = 3  # seconds after `--stop-timeout` for clients to receive the last responses
# The attributes that every log record has; the others were passed as `extra`.
PLAIN = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message"}


class JsonLines(logging.Formatter):
    """Formats each log record as a JSON object on one line."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as JSON: time (UTC), level, logger, message, and its `extra` values."""
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
    """A uvicorn server that calls functions when it listens and when it stops."""

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
    """Open a TCP socket that listens.

    Args:
        host: an IP address or host name.
        port: the port; 0 chooses a free one.

    Raises:
        InputError: the address cannot be used, such as a port that is in use.
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
    """Raise the limit of open files for a number of connections, as far as the system allows.

    Returns:
        The number of connections that the limit allows, at most `count`. A server would hang
        without free files.
    """
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return count
    needed = count + 128  # other files: weights, logs, pipes
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    return count if soft == resource.RLIM_INFINITY else max(1, min(count, soft - 128))


def run_service(service: Service, on_start: Callable[[int], None] = lambda port: None) -> None:
    """Serve until SIGTERM or SIGINT, which stop the service gracefully; SIGHUP reloads it.

    Args:
        service: the service.
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
        # The service itself answers requests that it cannot finish; this is for slow clients.
        timeout_graceful_shutdown=math.ceil(settings.stop_timeout) + SENDING,
        ws_max_size=settings.max_body,
        ws_per_message_deflate=False,  # frames are compressed images already
        backlog=2048,
    )

    def reload(number: int, frame: object) -> None:
        # In its own thread, because loading weights must not block the event loop.
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
