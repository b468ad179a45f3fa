"""Checks before every request (origin, key), and its log line and metrics after it."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

import anyio
from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vrdir.serving.keys import ApiKeys
from vrdir.serving.metrics import Metrics
from vrdir.serving.problems import MEDIA_TYPE, ProblemError, problem_response
from vrdir.serving.settings import ServeSettings

logger = logging.getLogger("vrdir.serving.access")

LINGER = 1.0  # seconds for which a refused body is still read, so that the client gets the reason
KEYED = "/v1/"  # the addresses that need a key, if the service has keys
WITH_TOKEN = ("/v1/stream", "/v1/live", "/v1/live.mjpg")  # where a browser can send no key
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; "
        "img-src 'self' blob: data:; media-src 'self' blob:; connect-src 'self' blob:; "
        "worker-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    ),
    # A browser requires both before a page may use threads (SharedArrayBuffer).
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    # Pages of other sites cannot embed responses of this service, such as the camera.
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Gate:
    """ASGI middleware around the whole service.

    It gives each request an id, refuses requests of foreign pages and without a valid key, adds the
    security headers, and then writes a log line and updates the metrics.

    Args:
        app: the routes of the service.
        settings: the settings of the service.
        keys: the API keys; None if no key is needed.
        metrics: counts requests and problems.
    """

    def __init__(
        self, app: ASGIApp, settings: ServeSettings, keys: ApiKeys | None, metrics: Metrics
    ) -> None:
        self._app, self._settings, self._keys, self._metrics = app, settings, keys, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or WebSocket."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        scope["vrdir.request_id"] = uuid.uuid4().hex
        answer = {"status": 0, "bytes": 0}

        async def answered(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                answer["status"] = message["status"]
                _add_headers(scope, message)
            elif message["type"] == "websocket.accept":
                answer["status"] = 101
            elif message["type"] == "http.response.body":
                answer["bytes"] += len(message.get("body", b""))
            await send(message)

        try:
            problem = self._refusal(scope)
            if problem is None:
                await self._app(scope, receive, answered)
            else:
                scope["vrdir.problem"] = problem.kind
                await self._refuse(scope, receive, answered, problem)
        except ClientDisconnect:  # or the client does not read the response
            scope["vrdir.problem"] = "client-gone"
        finally:
            self._note(scope, answer, time.perf_counter() - start)

    def _refusal(self, scope: Scope) -> ProblemError | None:
        headers = Headers(scope=scope)
        try:
            _check_framing(scope, headers)
            self._check_origin(headers)
            # A browser sends OPTIONS without a key, to learn whether it may send the request.
            if scope["path"].startswith(KEYED) and scope.get("method") != "OPTIONS":
                self._check_key(scope, headers)
        except ProblemError as problem:
            return problem
        return None

    def _check_key(self, scope: Scope, headers: Headers) -> None:
        if self._keys is None:
            return
        token = QueryParams(scope["query_string"]).get("token")
        if token is not None and scope["path"] in WITH_TOKEN:
            self._keys.check_token(token)
        else:
            self._keys.check(headers)

    def _check_origin(self, headers: Headers) -> None:
        """Refuse requests from pages of other sites, which the user may not know of."""
        origin, host = headers.get("origin"), headers.get("host", "")
        name = _split(f"//{host}").hostname or ""
        if self._settings.is_loopback and not _is_local(name) and name not in self._settings.hosts:
            # A foreign name may resolve to this machine (DNS rebinding).
            raise ProblemError("foreign-origin", f"allow the name {host!r:.80} with --allow-host")
        if origin is None or origin in self._settings.cors or "*" in self._settings.cors:
            return
        if _split(origin).netloc != host:
            raise ProblemError("foreign-origin", "allow the origin with --cors, if it is yours")

    async def _refuse(
        self, scope: Scope, receive: Receive, send: Send, problem: ProblemError
    ) -> None:
        response = problem_response(problem, scope["vrdir.request_id"])
        if scope["type"] == "http":
            await drain(scope, receive)
        await response(scope, receive, send)

    def _note(self, scope: Scope, answer: dict[str, int], seconds: float) -> None:
        route = scope.get("vrdir.route", "(none)")
        problem = scope.get("vrdir.problem")
        self._metrics.requests.labels(route, str(answer["status"])).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        if problem is not None:
            self._metrics.errors.labels(problem).inc()
        facts: dict[str, Any] = {
            "request_id": scope["vrdir.request_id"],
            "client": (scope.get("client") or ("-",))[0],
            "method": scope.get("method", "WEBSOCKET"),
            "route": route,
            "status": answer["status"],
            "ms": round(1000 * seconds, 1),
            "bytes": answer["bytes"],
        }
        facts |= scope.get("vrdir.facts", {})
        if problem is not None:
            facts["problem"] = problem
        logger.info("request", extra=facts)


def _check_framing(scope: Scope, headers: Headers) -> None:
    """Refuse requests that a proxy may interpret differently. Raises ProblemError."""
    if scope["http_version"] not in ("1.0", "1.1"):
        raise ProblemError("bad-request", "this service supports only HTTP/1.1")
    if "transfer-encoding" in headers and "content-length" in headers:
        raise ProblemError("bad-request", "use Content-Length or Transfer-Encoding, not both")


async def drain(scope: Scope, receive: Receive) -> None:
    """Read the rest of a request body for a second.

    A client that is still sending would not read the response otherwise.
    """
    headers = Headers(scope=scope)
    has_body = "content-length" in headers or "transfer-encoding" in headers
    if scope.get("vrdir.body_read") or not has_body or "expect" in headers:
        return
    with anyio.move_on_after(LINGER):
        while True:
            message = await receive()
            if message["type"] != "http.request" or not message.get("more_body", False):
                return


def _split(address: str) -> SplitResult:
    """Return the parts of an address; raise ProblemError for one that is malformed."""
    try:
        return urlsplit(address)
    except ValueError:
        raise ProblemError("bad-request", "the header Host or Origin is malformed") from None


def _is_local(name: str) -> bool:
    return name == "localhost" or name == "::1" or name.startswith("127.")


def _add_headers(scope: Scope, message: MutableMapping[str, Any]) -> None:
    headers = MutableHeaders(scope=message)
    headers["X-Request-Id"] = scope["vrdir.request_id"]
    for name, value in SECURITY_HEADERS.items():
        headers.setdefault(name, value)
    # The rest of a body that was not read would be parsed as the next request.
    if headers.get("content-type") == MEDIA_TYPE and not scope.get("vrdir.body_read"):
        headers["Connection"] = "close"
