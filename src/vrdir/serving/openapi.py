"""The OpenAPI document of the service, made from the tables that the service itself uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vrdir import __version__
from vrdir.serving.images import MEDIA_TYPES
from vrdir.serving.intake import JSON, MULTIPART
from vrdir.serving.keys import TOKEN_SECONDS
from vrdir.serving.problems import KINDS
from vrdir.serving.problems import MEDIA_TYPE as PROBLEM

BINARY = {"type": "string", "format": "binary"}
MIXED = {
    "schema": BINARY,
    "example": (
        "--b\r\nContent-Type: application/json\r\n\r\n{...}\r\n"
        "--b\r\nContent-Type: image/jpeg\r\n\r\n...\r\n--b--\r\n"
    ),
}
UPLOAD_KINDS = (
    "bad-request",
    "bad-parameter",
    "no-image",
    "key-missing",
    "key-wrong",
    "foreign-origin",
    "not-acceptable",
    "body-timeout",
    "body-too-large",
    "image-too-large",
    "not-an-image",
    "damaged-image",
    "unusable-result",
    "internal-error",
    "not-offered",
    "queue-full",
    "memory-full",
    "stopping",
    "deadline",
)


def openapi_document(weights: Sequence[str]) -> dict[str, Any]:
    """Return the OpenAPI document of a service with weights of these names."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "vrdir",
            "version": __version__,
            "summary": "Restores images taken in haze, rain or noise.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": _uploads(weights) | _others(),
        "components": {
            "schemas": {
                "Problem": _problem_schema(),
                "Diagnosis": _diagnosis_schema(),
                "Boxes": _boxes_schema(),
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "token": {"type": "apiKey", "in": "query", "name": "token"},
            },
        },
        "security": [{}, {"bearer": []}, {"header": []}],
    }


def _uploads(weights: Sequence[str]) -> dict[str, Any]:
    images = {types[0]: {"schema": BINARY} for types in MEDIA_TYPES.values()}
    facts = {JSON: {"schema": {"$ref": "#/components/schemas/Diagnosis"}, "example": _example()}}
    boxes = {
        JSON: {"schema": {"$ref": "#/components/schemas/Boxes"}, "example": _example_of_boxes()}
    }
    parameters = _parameters(weights)
    return {
        "/v1/restore": _upload(
            "Restore an image", "restore", parameters, images | facts | {MULTIPART: MIXED}
        ),
        "/v1/diagnose": _upload("Diagnose an image", "diagnose", parameters, facts),
        "/v1/detect": _upload("Find objects in an image", "detect", [], boxes),
    }


def _upload(
    summary: str, name: str, parameters: list[dict[str, Any]], content: dict[str, Any]
) -> dict[str, Any]:
    form = {
        "type": "object",
        "properties": {"image": BINARY},
        "required": ["image"],
        "additionalProperties": {"type": "string", "description": "any of the parameters"},
    }
    body: dict[str, Any] = {types[0]: {"schema": BINARY} for types in MEDIA_TYPES.values()}
    body["multipart/form-data"] = {"schema": form}
    kinds: dict[str, list[str]] = {}
    for kind in UPLOAD_KINDS:
        kinds.setdefault(str(KINDS[kind].status), []).append(kind)
    problems = {status: _problem_answer(names) for status, names in kinds.items()}
    headers: dict[str, Any] = {
        f"Vrdir-{figure}": {"schema": {"type": "number"}, "description": text}
        for figure, text in FIGURES.items()
    }
    headers["Vrdir-Shares"] = {
        "schema": {"type": "string"},
        "description": "share of each degradation",
        "example": "clean=0.0800, rain=0.0200, haze=0.8600, noise=0.0400",
    }
    return {
        "post": {
            "summary": summary,
            "operationId": name,
            "parameters": parameters,
            "requestBody": {"required": True, "content": body},
            "responses": {
                "200": {
                    "description": "the result",
                    "headers": headers if parameters else {},
                    "content": content,
                },
                **problems,
            },
        }
    }


FIGURES = {
    "Haze": "mean of 1 - transmission, 0 to 1",
    "Noise": "standard deviation of the noise, in 8-bit levels",
    "Rain": "share of the pixels with a bright streak, 0 to 1",
    "Changed": "mean absolute change, in 8-bit levels",
}


def _parameters(weights: Sequence[str]) -> list[dict[str, Any]]:
    def query(name: str, schema: dict[str, Any], text: str, example: Any) -> dict[str, Any]:
        return {
            "name": name,
            "in": "query",
            "schema": schema,
            "description": text,
            "example": example,
        }

    number = {"type": "number", "minimum": 0, "maximum": 2, "default": 1}
    names = {"type": "array", "items": {"type": "string"}}
    return [
        query("strength", number, "0 changes nothing, 1 restores as trained", 0.8),
        query("only", names, "degradations to remove; default: all", ["haze"]),
        query("weights", {"enum": list(weights)}, "name of the network", weights[0]),
        query(
            "max_side",
            {"type": "integer", "minimum": 1},
            "reduce a larger image to this many pixels on its longer side first",
            1024,
        ),
        query(
            "quality",
            {"type": "integer", "minimum": 1, "maximum": 100, "default": 95},
            "of JPEG, WebP, AVIF and HEIC",
            95,
        ),
    ]


def _others() -> dict[str, Any]:
    texts = {
        "/v1/weights": ("The weights that a request may name", JSON),
        "/v1/limits": ("The limits of this service", JSON),
        "/v1/live.mjpg": ("The restored frames of a camera", "multipart/x-mixed-replace"),
        "/v1/live": ("A WebSocket: the restored frames of a camera, as JPEG", "image/jpeg"),
        "/v1/stream": ("A WebSocket that receives frames and returns restored frames", JSON),
        "/healthz": ("Whether the process is alive", "text/plain"),
        "/readyz": ("Whether the service accepts requests", "text/plain"),
        "/metrics": ("Prometheus metrics", "text/plain"),
        "/openapi.json": ("This document", JSON),
    }
    paths = {
        path: {"get": _answering(summary, media_type, None)}
        for path, (summary, media_type) in texts.items()
    }
    for path in ("/v1/live.mjpg", "/v1/stream"):
        paths[path]["get"]["security"] = [{}, {"bearer": []}, {"header": []}, {"token": []}]
    stream = paths["/v1/stream"]["get"]["responses"]
    stream["101"] = {"description": "the WebSocket is open"}
    del stream["200"]
    example = {"token": "1785000000.6f1c", "seconds": TOKEN_SECONDS}
    paths["/v1/tokens"] = {
        "post": _answering("A token that replaces the key in an address", JSON, example)
    }
    return paths


def _answering(summary: str, media_type: str, example: Any) -> dict[str, Any]:
    content = {} if example is None else {"example": example}
    return {
        "summary": summary,
        "responses": {
            "200": {"description": "the answer", "content": {media_type: content}},
            "default": _problem_answer(["not-offered"]),
        },
    }


def _problem_answer(kinds: Sequence[str]) -> dict[str, Any]:
    """Return the response of one status, with an example for each kind of problem."""
    examples = {
        kind: {
            "value": {
                "type": f"urn:vrdir:problem:{kind}",
                "title": KINDS[kind].title,
                "status": KINDS[kind].status,
                "detail": "what is wrong with this request, and what to do",
                "instance": "urn:vrdir:request:0f1e2d",
            }
        }
        for kind in kinds
    }
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        "description": " / ".join(KINDS[kind].title for kind in kinds),
        "content": {PROBLEM: {"schema": schema, "examples": examples}},
    }


def _problem_schema() -> dict[str, Any]:
    texts: dict[str, Any] = {
        name: {"type": "string"} for name in ("type", "title", "detail", "instance")
    }
    return {
        "type": "object",
        "description": "RFC 9457",
        "properties": texts | {"status": {"type": "integer"}},
        "required": ["type", "title", "status"],
    }


def _boxes_schema() -> dict[str, Any]:
    corner = {"type": "number", "description": "in pixels"}
    box = {
        "type": "object",
        "properties": dict.fromkeys(("x0", "y0", "x1", "y1"), corner)
        | {"score": {"type": "number"}, "label": {"type": "string"}},
    }
    return {
        "type": "object",
        "properties": {
            "detector": {"type": "string"},
            "width": {"type": "integer"},
            "height": {"type": "integer"},
            "boxes": {"type": "array", "items": box},
        },
        "required": ["detector", "width", "height", "boxes"],
    }


def _diagnosis_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "width": {"type": "integer"},
            "height": {"type": "integer"},
            "diagnosis": {
                "type": "object",
                "properties": {
                    name.lower(): {"type": ["number", "null"], "description": text}
                    for name, text in FIGURES.items()
                },
            },
            "shares": {"type": "object", "additionalProperties": {"type": "number"}},
            "milliseconds": {"type": "object", "additionalProperties": {"type": "number"}},
            "image": {
                "type": "object",
                "properties": {
                    "media_type": {"type": "string"},
                    "base64": {"type": "string", "contentEncoding": "base64"},
                },
            },
        },
        "required": ["width", "height", "diagnosis", "shares", "milliseconds"],
    }


def _example() -> dict[str, Any]:
    return {
        "width": 640,
        "height": 480,
        "diagnosis": {"haze": 0.47, "noise": 2.1, "rain": 0.0, "changed": 31.5},
        "shares": {"clean": 0.08, "rain": 0.02, "haze": 0.86, "noise": 0.04},
        "milliseconds": {"decode": 8.1, "network": 310.0, "encode": 12.4},
    }


def _example_of_boxes() -> dict[str, Any]:
    box = {"x0": 31.0, "y0": 40.5, "x1": 220.0, "y1": 180.0, "score": 0.91, "label": "car"}
    return {"detector": "yolox_nano", "width": 640, "height": 480, "boxes": [box]}
