"""Bytes over a connection, for requests that no client library would send."""

from __future__ import annotations

import re
import socket
import struct
import time
import zlib
from contextlib import suppress

from tests.serving.servers import ANSWER_SECONDS, Server

POST = b"POST /v1/restore HTTP/1.1\r\nHost: localhost\r\n"


def connected(server: Server, receive_buffer: int | None = None) -> socket.socket:
    """Return a connection; close it after use."""
    connection = socket.socket()
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(ANSWER_SECONDS)
    connection.connect(("127.0.0.1", server.port))
    return connection


def said(connection: socket.socket) -> bytes:
    """Return one answer, or what comes up to the end of the connection. Silence is an error."""
    connection.settimeout(ANSWER_SECONDS)
    answer = b""
    with suppress(ConnectionResetError):
        while not _is_whole(answer) and (piece := connection.recv(65536)):
            answer += piece
    return answer


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: (\d+)", head.lower())
    return bool(end and length) and len(body) >= int(length[1])


def raw(server: Server, *parts: bytes, pause: float = 0.0) -> bytes:
    """Send bytes over a connection; return the answer."""
    with connected(server) as connection:
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return said(connection)


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that claims a size and holds almost nothing."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0" * 100)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
