"""Errors as problem documents (RFC 9457): a table of all kinds with their status codes."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vrdir.errors import ImageError, MissingPackageError, ResultError, VrdirError, first_line

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


class Kind(NamedTuple):
    """A kind of problem: its HTTP status, and its title, which is the same for all of this kind."""

    status: int
    title: str


KINDS = {
    "bad-request": Kind(400, "The request is malformed"),
    "bad-parameter": Kind(400, "A parameter has a wrong value"),
    "no-image": Kind(400, "The request has no image"),
    "key-missing": Kind(401, "An API key is required"),
    "key-wrong": Kind(403, "The API key is unknown"),
    "foreign-origin": Kind(403, "Pages of other sites may not call this service"),
    "not-found": Kind(404, "The address does not exist"),
    "method-not-allowed": Kind(405, "The address does not support this method"),
    "not-acceptable": Kind(406, "The result cannot be written in the requested format"),
    "body-timeout": Kind(408, "The request body arrived too slowly"),
    "body-too-large": Kind(413, "The request body is too large"),
    "image-too-large": Kind(413, "The image has too many pixels"),
    "not-an-image": Kind(415, "The request body is not an image that can be read"),
    "damaged-image": Kind(422, "The image is damaged or cannot be restored"),
    "unusable-result": Kind(422, "The result is not finite"),
    "upgrade-required": Kind(426, "The address needs a WebSocket"),
    "internal-error": Kind(500, "The service failed"),
    "not-offered": Kind(501, "The service was started without this feature"),
    "too-many-connections": Kind(503, "Too many connections are open"),
    "queue-full": Kind(503, "Too many images are waiting"),
    "memory-full": Kind(503, "Too many request bodies are in memory"),
    "stopping": Kind(503, "The service is stopping"),
    "deadline": Kind(504, "The image was not restored in time"),
}

# The kinds of the package's own errors; the first class that matches is used.
FAMILY: tuple[tuple[type[Exception], str], ...] = (
    (ResultError, "unusable-result"),
    (MissingPackageError, "not-an-image"),
    (ImageError, "damaged-image"),
    (VrdirError, "bad-parameter"),
)
# Headers that HTTP requires in a response of this kind.
EXPLAINED_BY = {
    "key-missing": {"WWW-Authenticate": "Bearer"},
    "upgrade-required": {"Upgrade": "websocket"},
}
BY_STATUS = {400: "bad-request", 404: "not-found", 405: "method-not-allowed"}


class ProblemError(VrdirError):
    """An error that the client gets as a problem document.

    Args:
        kind: a key of `KINDS`.
        detail: what is wrong with this request, and what to do.
        retry_after: seconds after which the client may try again (`Retry-After`), or None.
    """

    def __init__(self, kind: str, detail: str, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.kind, self.detail, self.retry_after = kind, detail, retry_after


def problem_of(error: Exception) -> ProblemError:
    """Return the problem for an exception; that for a bug does not contain the exception's text."""
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, HTTPException):
        kind = BY_STATUS.get(error.status_code, "bad-request")
        return ProblemError(kind, KINDS[kind].title)
    for family, kind in FAMILY:
        if isinstance(error, family):
            return ProblemError(kind, first_line(error))
    if isinstance(error, MemoryError):
        return ProblemError("memory-full", "there is not enough memory for this image", 10)
    return ProblemError("internal-error", "the request failed; the log has the reason")


def problem_document(problem: ProblemError, request_id: str) -> dict[str, Any]:
    """Return the members of the problem document (RFC 9457), as JSON values."""
    kind = KINDS[problem.kind]
    return {
        "type": f"urn:vrdir:problem:{problem.kind}",
        "title": kind.title,
        "status": kind.status,
        "detail": problem.detail,
        "instance": f"urn:vrdir:request:{request_id}",
    }


def problem_response(problem: ProblemError, request_id: str) -> Response:
    """Return the HTTP response with a problem document."""
    headers = {}
    if problem.retry_after is not None:
        headers["Retry-After"] = str(problem.retry_after)
    headers |= EXPLAINED_BY.get(problem.kind, {})
    return JSONResponse(
        problem_document(problem, request_id),
        status_code=KINDS[problem.kind].status,
        headers=headers,
        media_type=MEDIA_TYPE,
    )


async def handle_error(request: Request, error: Exception) -> Response:
    """Return the response for an exception of a route; write the traceback of a bug to the log."""
    problem = problem_of(error)
    if problem.kind == "internal-error":
        logger.error("request failed", exc_info=error, extra={"request_id": request_id(request)})
    request.scope["vrdir.problem"] = problem.kind
    response = problem_response(problem, request_id(request))
    if isinstance(error, HTTPException) and error.headers:
        response.headers.update(error.headers)
    return response


def request_id(request: Request) -> str:
    """Return the id of a request, which `Gate` has set; "-" if there is none."""
    return str(request.scope.get("vrdir.request_id", "-"))
