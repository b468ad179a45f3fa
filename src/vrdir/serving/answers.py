"""Restored images as HTTP responses: an image with headers, JSON, or both in two parts."""

from __future__ import annotations

import base64
import json
import secrets
from typing import Any

from starlette.responses import JSONResponse, Response

from vrdir.serving.images import MEDIA_TYPES, ImageResult
from vrdir.serving.intake import JSON, MULTIPART, Wanted

PREFIX = "Vrdir-"  # of the headers with the diagnosis


def answer_of(result: ImageResult, wanted: Wanted) -> Response:
    """Return a restored image as the client wants it."""
    content = result.content or b""
    media_type = MEDIA_TYPES[result.file_format][0]
    headers = diagnosis_headers(result)
    if wanted.kind == JSON:
        image = {"media_type": media_type, "base64": base64.b64encode(content).decode()}
        return JSONResponse(diagnosis_of(result) | {"image": image}, headers=headers)
    if wanted.kind == MULTIPART:
        facts = json.dumps(diagnosis_of(result)).encode()
        boundary = secrets.token_hex(16)
        body = _parts(boundary, ((JSON, facts), (media_type, content)))
        return Response(body, media_type=f"{MULTIPART}; boundary={boundary}", headers=headers)
    return Response(content, media_type=media_type, headers=headers)


def diagnosis_of(result: ImageResult) -> dict[str, Any]:
    """Return the diagnosis as JSON values; the OpenAPI document describes them."""
    found = result.diagnosis
    return {
        "width": result.width,
        "height": result.height,
        "diagnosis": {
            "haze": found.haze,
            "noise": found.noise,
            "rain": found.rain,
            "changed": found.changed,
        },
        "shares": result.shares,
        "milliseconds": {name: round(value, 2) for name, value in result.milliseconds.items()},
    }


def diagnosis_headers(result: ImageResult) -> dict[str, str]:
    """Return the diagnosis as headers."""
    found = result.diagnosis
    figures = {
        "Haze": found.haze,
        "Noise": found.noise,
        "Rain": found.rain,
        "Changed": found.changed,
    }
    headers = {
        PREFIX + name: f"{value:.4f}" for name, value in figures.items() if value is not None
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
