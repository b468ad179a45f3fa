"""HTTP responses with restored images: the image with headers, JSON, or both in two parts."""

from __future__ import annotations

import base64
import json
import secrets
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from vrdir.serving.images import MEDIA_TYPES, ImageResult
from vrdir.serving.intake import JSON, MULTIPART, Bodies, Wanted

PREFIX = "Vrdir-"  # of the headers with the diagnosis
PIECE = 2**18  # bytes that a client must accept within `--send-timeout`


class HeldResponse(Response):
    """A response that is sent in pieces, and counts to the memory budget until it is sent.

    Args:
        content: the body.
        media_type: the media type of the body.
        headers: headers in addition to those that every response has.
        bodies: the memory budget.

    Raises:
        ProblemError: the budget has no memory left.
    """

    def __init__(
        self, content: bytes, media_type: str, headers: dict[str, str], bodies: Bodies
    ) -> None:
        super().__init__(content, headers=headers, media_type=media_type)
        self._bodies = bodies
        bodies.take(len(content))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response; each piece waits until the client has accepted the one before."""
        body = memoryview(self.body)
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            for start in range(0, len(body), PIECE):
                piece = bytes(body[start : start + PIECE])
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._bodies.give_back(len(body))


def answer_of(result: ImageResult, wanted: Wanted, bodies: Bodies) -> Response:
    """Return the response with a restored image, in the form that the client asked for.

    Args:
        result: the restored image.
        wanted: the form of the response.
        bodies: the memory budget, to which the response counts until it is sent.

    Raises:
        ProblemError: the budget has no memory left.
    """
    content = result.content or b""
    media_type = MEDIA_TYPES[result.file_format][0]
    if wanted.kind == JSON:
        image = {"media_type": media_type, "base64": base64.b64encode(content).decode()}
        content = json.dumps(diagnosis_of(result) | {"image": image}).encode()
        media_type = JSON
    elif wanted.kind == MULTIPART:
        facts = json.dumps(diagnosis_of(result)).encode()
        boundary = secrets.token_hex(16)
        content = _parts(boundary, ((JSON, facts), (media_type, content)))
        media_type = f"{MULTIPART}; boundary={boundary}"
    return HeldResponse(content, media_type, diagnosis_headers(result), bodies)


def diagnosis_of(result: ImageResult) -> dict[str, Any]:
    """Return size, diagnosis, shares and times as JSON values; see the OpenAPI document."""
    return {
        "width": result.width,
        "height": result.height,
        "diagnosis": result.diagnosis._asdict(),
        "shares": result.shares,
        "milliseconds": {name: round(value, 2) for name, value in result.milliseconds.items()},
    }


def diagnosis_headers(result: ImageResult) -> dict[str, str]:
    """Return the diagnosis, the shares and the times as HTTP headers."""
    headers = {
        PREFIX + name.capitalize(): f"{value:.4f}"
        for name, value in result.diagnosis._asdict().items()
        if value is not None
    }
    headers[PREFIX + "Shares"] = ", ".join(
        f"{name}={share:.4f}" for name, share in result.shares.items()
    )
    headers["Server-Timing"] = ", ".join(
        f"{name};dur={value:.1f}" for name, value in result.milliseconds.items()
    )
    return headers


def _parts(boundary: str, parts: tuple[tuple[str, bytes], ...]) -> bytes:
    body = b""
    for media_type, content in parts:
        body += f"--{boundary}\r\nContent-Type: {media_type}\r\n".encode()
        body += f"Content-Length: {len(content)}\r\n\r\n".encode() + content + b"\r\n"
    return body + f"--{boundary}--\r\n".encode()
