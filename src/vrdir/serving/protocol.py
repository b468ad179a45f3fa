"""HTTP/1.1 and WebSockets with limits on connections and on slow clients."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from vrdir.serving.problems import KINDS, MEDIA_TYPE, ProblemError, problem_document
from vrdir.serving.settings import ServeSettings

HEADER_BYTES = 32 * 1024  # request line and headers together

Note = Callable[[str, str], None]  # it gets a kind of problem, and the id of the request


class _ReaderLimit:
    """Aborts the connection of a client that does not read; a mixin for uvicorn's protocols.

    The connection is aborted, not closed, because closing would wait until the client has read the
    rest.

    Attributes:
        send_timeout: seconds for which the send buffer may be full.
        note: called for each aborted connection.
    """

    send_timeout = 60.0
    note: Note
    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop
    _send_timer: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """Start the timer: the buffer is full."""
        super().pause_writing()  # type: ignore[misc]
        self._send_timer = self.loop.call_later(self.send_timeout, self._cut_off)

    def resume_writing(self) -> None:
        """Stop the timer: the client has read something."""
        self._stop_send_timer()
        super().resume_writing()  # type: ignore[misc]

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer of a connection that has ended."""
        self._stop_send_timer()
        super().connection_lost(exc)  # type: ignore[misc]

    def _cut_off(self) -> None:
        self.transport.abort()
        self.note("send-timeout", uuid.uuid4().hex)

    def _stop_send_timer(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None


class LimitedWebSocket(_ReaderLimit, WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol, with the limit for clients that do not read."""


class LimitedProtocol(_ReaderLimit, H11Protocol):
    """uvicorn's HTTP protocol with limits. `limited_protocols` sets their values.

    Attributes:
        header_timeout: seconds for the request line and the headers.
        max_connections: the largest number of open connections; others get 503 and are closed.
    """

    header_timeout = 10.0
    max_connections = 1000

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection, or refuse it if there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            self._refuse(
                ProblemError("too-many-connections", "close some connections, or try again", 5)
            )
            return
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer of a connection that has ended."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Process data. A timer runs from the first byte of a request to the end of its headers."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.transport.is_closing() or self.conn.their_state is not h11.IDLE:
            self._stop_timer()
        elif self._header_timer is None:
            self._start_timer()

    def send_400_response(self, msg: str) -> None:
        """Send a problem document for data that is not HTTP."""
        self._stop_timer()
        self._refuse(ProblemError("bad-request", msg))

    def _refuse(self, problem: ProblemError) -> None:
        request_id = uuid.uuid4().hex
        self.transport.write(raw_problem(problem, request_id))
        self.transport.close()
        self.note(problem.kind, request_id)

    def _start_timer(self) -> None:
        self._header_timer = self.loop.call_later(self.header_timeout, self._too_slow)

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _too_slow(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
            self.note("header-timeout", uuid.uuid4().hex)


def limited_protocols(
    settings: ServeSettings, max_connections: int, note: Note
) -> tuple[type[LimitedProtocol], type[LimitedWebSocket]]:
    """Return the classes of the HTTP and WebSocket protocols, with the limits of a service.

    Args:
        settings: the settings of the service.
        max_connections: the largest number of connections that the system allows.
        note: called for connections that are refused or aborted.
    """
    both: dict[str, Any] = {"send_timeout": settings.send_timeout, "note": staticmethod(note)}
    http = {"header_timeout": settings.header_timeout, "max_connections": max_connections}
    return type("Http", (LimitedProtocol,), both | http), type("Ws", (LimitedWebSocket,), both)


def raw_problem(problem: ProblemError, request_id: str) -> bytes:
    """Return a problem as the bytes of a whole HTTP response that closes the connection."""
    body = json.dumps(problem_document(problem, request_id)).encode()
    status = KINDS[problem.kind].status
    lines = [
        f"HTTP/1.1 {status} {'Bad Request' if status == 400 else 'Service Unavailable'}",
        f"Content-Type: {MEDIA_TYPE}",
        f"Content-Length: {len(body)}",
        f"X-Request-Id: {request_id}",
        "Connection: close",
    ]
    if problem.retry_after is not None:
        lines.append(f"Retry-After: {problem.retry_after}")
    return "\r\n".join([*lines, "", ""]).encode() + body
