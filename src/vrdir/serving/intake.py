"""What comes in with a request: the body within limits, the parameters, the result's format."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

import anyio
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, QueryParams, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from vrdir.images.writing import QUALITY
from vrdir.serving.images import FORMATS
from vrdir.serving.problems import ProblemError
from vrdir.serving.settings import ServeSettings

PARAMETERS = ("strength", "only", "weights", "max_side", "quality")
JSON, MULTIPART = "application/json", "multipart/mixed"
LARGEST_FIELD = 1024  # bytes


class Bodies:
    """The memory of all request bodies, budgeted in bytes. It is used on one event loop only.

    Args:
        settings: the service's limits.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._left = int(settings.max_bodies_mebibytes * 2**20)

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncGenerator[bytes, None]:
        """Read a request's body and hold its memory until the block ends.

        Raises:
            ProblemError: the body is too large or too slow, or the memory of bodies is full.
        """
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            if taken + size > self._settings.max_body:
                limit = self._settings.max_body_mebibytes
                raise ProblemError("body-too-large", f"at most {limit:g} MiB are accepted")
            if size > self._left:
                raise ProblemError("memory-full", "other requests fill the memory", 5)
            taken += size
            self._left -= size

        try:
            declared = declared_length(request.headers)
            if declared is not None and declared > self._settings.max_body:
                take(declared)
            try:
                with anyio.fail_after(self._settings.body_timeout):
                    parts = []
                    async for part in request.stream():
                        take(len(part))
                        parts.append(part)
            except TimeoutError:
                seconds = self._settings.body_timeout
                raise ProblemError(
                    "body-timeout", f"the body was not complete after {seconds:g} seconds"
                ) from None
            request.scope["vrdir.body_read"] = True
            yield b"".join(parts)
        finally:
            self._left += taken


def declared_length(headers: Headers) -> int | None:
    """Return the length of the body that the headers declare, or None."""
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None


class Parameters(NamedTuple):
    """The parameters of a request; see the OpenAPI document."""

    strength: float
    only: tuple[str, ...]
    weights: str | None
    max_side: int | None
    quality: int


def parameters_of(values: Mapping[str, list[str]]) -> Parameters:
    """Return the parameters of a request.

    Args:
        values: each name with all its values, from the query and the form.

    Raises:
        ProblemError: a parameter is not known, is given twice, or has a wrong value.
    """
    for name, given in values.items():
        if name not in PARAMETERS:
            known = ", ".join(PARAMETERS)
            raise ProblemError("bad-parameter", f"{name!r:.80} is not known; there are {known}")
        if len(given) > 1 and name != "only":
            raise ProblemError("bad-parameter", f"{name} is given {len(given)} times")
    only = [part.strip() for text in values.get("only", []) for part in text.split(",")]
    single = {name: given[0] for name, given in values.items() if name != "only"}
    max_side = single.get("max_side")
    return Parameters(
        strength=_number("strength", single.get("strength", "1"), 0, 2),
        only=tuple(dict.fromkeys(part for part in only if part)),
        weights=single.get("weights"),
        max_side=None if max_side is None else _whole_number("max_side", max_side, 1, 100_000),
        quality=_whole_number("quality", single.get("quality", str(QUALITY)), 1, 100),
    )


def _number(name: str, text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise ProblemError(
            "bad-parameter", f"{name} must be a number from {low:g} to {high:g}, not {text!r:.80}"
        )
    return value


def _whole_number(name: str, text: str, low: int, high: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and low <= int(text) <= high):
        raise ProblemError(
            "bad-parameter", f"{name} must be a whole number from {low} to {high}, not {text!r:.80}"
        )
    return int(text)


def query_values(query: QueryParams) -> dict[str, list[str]]:
    """Return all values of each name of a query."""
    return {name: query.getlist(name) for name in query}


class _InMemoryParser(MultiPartParser):
    """A parser that never writes a file: the whole body is in memory anyway."""

    spool_max_size = 1 << 40


async def split_form(request: Request, body: bytes) -> tuple[bytes, dict[str, list[str]]]:
    """Return the image and the parameters of a body: the body itself, or a multipart form.

    Raises:
        ProblemError: the form is malformed, or does not hold exactly one image.
    """
    values = query_values(request.query_params)
    media_type, _ = parse_options_header(request.headers.get("content-type", ""))
    if media_type.lower() != b"multipart/form-data":
        return _checked_image(body), values

    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    parser = _InMemoryParser(
        request.headers, whole(), max_files=1, max_fields=20, max_part_size=LARGEST_FIELD
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, UnicodeDecodeError) as error:
        reason = getattr(error, "message", "no boundary or wrong encoding")
        raise ProblemError("bad-request", f"the form cannot be read: {reason}") from None
    image: bytes | None = None
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            image = await value.read()
        else:
            values.setdefault(name, []).append(value)
    await form.close()
    if image is None:
        raise ProblemError("no-image", "the form has no file; name it `image`")
    return _checked_image(image), values


def _checked_image(content: bytes) -> bytes:
    if not content:
        raise ProblemError("no-image", "send the image as the body, or as a file of a form")
    return content


class Wanted(NamedTuple):
    """How a client wants the result.

    Attributes:
        kind: "image", or the media type "application/json" or "multipart/mixed".
        file_format: Pillow's name of the image's format; None keeps the image's own.
    """

    kind: str
    file_format: str | None


def wanted_of(accept: str) -> Wanted:
    """Return how the result is written, by an `Accept` header.

    The first media type of the greatest weight (`q`) that can be served counts.

    Raises:
        ProblemError: none of them can be served.
    """
    for media_type in _by_weight(accept):
        if media_type in ("*/*", "image/*"):
            return Wanted("image", None)
        if media_type in (JSON, MULTIPART):
            return Wanted(media_type, None)
        if media_type in FORMATS:
            return Wanted("image", FORMATS[media_type])
    known = ", ".join([*FORMATS, JSON, MULTIPART])
    raise ProblemError("not-acceptable", f"Accept may name {known}, image/* or */*")


def _by_weight(accept: str) -> list[str]:
    weighted = []
    for part in (accept.strip() or "*/*").split(","):
        media_type, _, rest = part.strip().partition(";")
        weight = 1.0
        for parameter in rest.split(";"):
            name, _, value = parameter.strip().partition("=")
            if name.strip() == "q":
                try:
                    weight = float(value)
                except ValueError:
                    weight = 0.0
        if weight > 0:
            weighted.append((weight, media_type.strip().lower()))
    return [media_type for _, media_type in sorted(weighted, key=lambda pair: -pair[0])]
