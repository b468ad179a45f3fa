"""HTTP/1.1 for an open network: time for the headers and the number of connections are limited."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from vrdir.serving.problems import KINDS, MEDIA_TYPE, ProblemError, problem_document

HEADER_BYTES = 32 * 1024  # request line and headers together


class LimitedProtocol(H11Protocol):
    """uvicorn's protocol with limits, which `limited_protocol` sets.

    Attributes:
        header_timeout: seconds for the request line and the headers.
        max_connections: open connections; a further one gets 503 and is closed.
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
        """Take a connection, or refuse it if there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            problem = ProblemError("too-many-connections", "close some, or try again", 5)
            transport.write(raw_problem(problem))
            transport.close()
            return
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take data; the timer runs from the first byte of a request to the end of its headers."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.transport.is_closing() or self.conn.their_state is not h11.IDLE:
            self._stop_timer()
        elif self._header_timer is None:
            self._start_timer()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP by a problem document."""
        self._stop_timer()
        self.transport.write(raw_problem(ProblemError("bad-request", msg)))
        self.transport.close()

    def _start_timer(self) -> None:
        self._header_timer = self.loop.call_later(self.header_timeout, self._too_slow)

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _too_slow(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


def limited_protocol(header_timeout: float, max_connections: int) -> type[LimitedProtocol]:
    """Return the protocol with these limits."""
    limits = {"header_timeout": header_timeout, "max_connections": max_connections}
    return type("Protocol", (LimitedProtocol,), limits)


def raw_problem(problem: ProblemError) -> bytes:
    """Return a problem as the bytes of a whole HTTP response that closes the connection."""
    body = json.dumps(problem_document(problem, "-")).encode()
    status = KINDS[problem.kind].status
    lines = [
        f"HTTP/1.1 {status} {'Bad Request' if status == 400 else 'Service Unavailable'}",
        f"Content-Type: {MEDIA_TYPE}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    if problem.retry_after is not None:
        lines.append(f"Retry-After: {problem.retry_after}")
    return "\r\n".join([*lines, "", ""]).encode() + body
