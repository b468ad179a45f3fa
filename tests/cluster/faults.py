"""A proxy before an S3 server that fails as busy, slow and broken storage does."""

from __future__ import annotations

import http.client
import http.server
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

Fault = Callable[[str, str, int], str]
"""Method, path with query, and how often it was asked before -> a fault, or "" for none."""

ERRORS = {
    "busy": (503, "SlowDown", "Please reduce your request rate."),
    "failing": (500, "InternalError", "We encountered an internal error."),
    "denied": (403, "AccessDenied", "Access Denied"),
    "expired": (400, "ExpiredToken", "The provided token has expired."),
    "wrong key": (403, "InvalidAccessKeyId", "The AWS Access Key Id does not exist."),
    "wrong secret": (403, "SignatureDoesNotMatch", "The signature we calculated does not match."),
}


class Proxy(http.server.ThreadingHTTPServer):
    """Passes requests on, unless `fault` names a fault.

    Besides those of `ERRORS` there are "slow" (no answer for `wait` seconds), "broken" (the
    connection ends without an answer), "short" (it ends in the middle of the body), and "lost"
    (the request is done, but its answer is lost).
    """

    daemon_threads = True

    def __init__(self, upstream: str, fault: Fault, wait: float = 4.0) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream, self.fault, self.wait = urlsplit(upstream).netloc, fault, wait
        self.asked: Counter[tuple[str, str]] = Counter()
        self.faults: Counter[str] = Counter()
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = "HTTP/1.1"
    server: Proxy

    def answer(self) -> None:
        body = self.body()
        with self.server.lock:
            asked = self.server.asked[self.command, self.path]
            self.server.asked[self.command, self.path] += 1
        fault = self.server.fault(self.command, self.path, asked)
        with self.server.lock:
            self.server.faults[fault] += 1
        if fault == "slow":
            time.sleep(self.server.wait)
        if fault in ("slow", "broken"):
            self.close_connection = True
            return
        if fault in ERRORS:
            status, code, message = ERRORS[fault]
            content = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
            self.reply(status, {"Content-Type": "application/xml"}, content)
            return
        status, headers, content = self.forward(body)
        if fault == "lost":
            self.close_connection = True
            return
        self.reply(status, headers, content, len(content) // 2 if fault == "short" else None)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while length := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(length))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.server.upstream, timeout=60)
        dropped = ("transfer-encoding", "content-length", "expect", "connection")
        headers = {name: text for name, text in self.headers.items() if name.lower() not in dropped}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        kept = {
            name: text
            for name, text in answer.getheaders()
            if name.lower() not in ("transfer-encoding", "connection", "date", "server")
        }
        connection.close()
        return answer.status, kept, content

    def reply(
        self, status: int, headers: dict[str, str], content: bytes, cut: int | None = None
    ) -> None:
        self.send_response(status)
        for name, text in headers.items():
            if self.command == "HEAD" or name.lower() != "content-length":
                self.send_header(name, text)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:cut])
        if cut is not None:
            self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def proxy(upstream: str, fault: Fault, wait: float = 4.0) -> Iterator[Proxy]:
    """Run a proxy in a thread."""
    server = Proxy(upstream, fault, wait)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
