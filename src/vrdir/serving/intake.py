"""Read requests: the body within its limits, the parameters, and the format of the response."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

import anyio
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, QueryParams, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from vrdir.images.writing import QUALITY
from vrdir.serving.images import FORMATS
from vrdir.serving.problems import ProblemError
from vrdir.serving.settings import ServeSettings

PARAMETERS = ("strength", "only", "weights", "max_side", "quality")
JSON, MULTIPART = "application/json", "multipart/mixed"
LARGEST_FIELD = 1024  # of a form, in bytes


class Bodies:
    """The memory budget, in bytes, of all request and response bodies. Several threads may use it.

    Args:
        settings: the settings of the service, with the budget and the limits of one body.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._taken, self._most = 0, int(settings.max_bodies_mebibytes * 2**20)
        self._reading: set[anyio.CancelScope] = set()
        self._stopped = False

    @property
    def taken(self) -> int:
        """The number of bytes in memory."""
        return self._taken

    def take(self, size: int) -> None:
        """Reserve memory for a request or response body, in bytes.

        Raises:
            ProblemError: not enough memory is left.
        """
        with self._lock:
            if self._taken + size > self._most:
                raise ProblemError("memory-full", "other requests fill the memory", 5)
            self._taken += size

    def give_back(self, size: int) -> None:
        """Release reserved memory, in bytes."""
        with self._lock:
            self._taken -= size

    def stop(self) -> None:
        """Read no more bodies. Requests that are still sending one get the problem "stopping"."""
        self._stopped = True
        for scope in self._reading:
            scope.cancel()

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncGenerator[bytes, None]:
        """Read the body of a request, and reserve its memory until the `async with` block ends.

        Raises:
            ProblemError: the body is too large or too slow, or the memory of bodies is full.
        """
        taken = 0

        def take(part: bytes) -> bytes:
            nonlocal taken
            if taken + len(part) > self._settings.max_body:
                raise _too_large(self._settings)
            self.take(len(part))
            taken += len(part)
            return part

        try:
            if (declared_length(request.headers) or 0) > self._settings.max_body:
                raise _too_large(self._settings)
            with anyio.move_on_after(self._settings.body_timeout) as scope:
                self._reading.add(scope)
                try:
                    parts = [take(part) async for part in request.stream()]
                finally:
                    self._reading.discard(scope)
            if scope.cancelled_caught:
                raise self._too_slow()
            request.scope["vrdir.body_read"] = True
            yield b"".join(parts)
        finally:
            self.give_back(taken)

    def _too_slow(self) -> ProblemError:
        if self._stopped:
            return ProblemError("stopping", "the service is stopping; try again soon", 5)
        seconds = self._settings.body_timeout
        return ProblemError("body-timeout", f"the body was not complete after {seconds:g} seconds")


def _too_large(settings: ServeSettings) -> ProblemError:
    return ProblemError(
        "body-too-large", f"at most {settings.max_body_mebibytes:g} MiB are accepted"
    )


def declared_length(headers: Headers) -> int | None:
    """Return the length of the body that the headers declare, or None."""
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None


class Parameters(NamedTuple):
    """The parameters of a request.

    Attributes:
        strength: 0 changes nothing, 1 restores as trained; at most 2.
        only: the degradations to remove; empty for all.
        weights: the name of the network; None for the default.
        max_side: reduce a larger image to this many pixels on its longer side; None keeps its size.
        quality: the quality of lossy formats, 1 to 100.
    """

    strength: float
    only: tuple[str, ...]
    weights: str | None
    max_side: int | None
    quality: int


def parameters_of(values: Mapping[str, list[str]]) -> Parameters:
    """Check the parameters of a request and return them.

    Args:
        values: for each name all its values, from the query and the form.

    Raises:
        ProblemError: a parameter is unknown, is repeated, or has a wrong value.
    """
    for name, given in values.items():
        if name not in PARAMETERS:
            known = ", ".join(PARAMETERS)
            raise ProblemError(
                "bad-parameter", f"unknown parameter {name!r:.80}; choose from {known}"
            )
        if len(given) > 1 and name != "only":
            raise ProblemError("bad-parameter", f"{name} is used {len(given)} times; use it once")
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
    """Return all values of each name in a query."""
    return {name: query.getlist(name) for name in query}


class _InMemoryParser(MultiPartParser):
    """A parser that writes no temporary files, because the whole body is in memory already."""

    spool_max_size = 1 << 40


def split_form(request: Request, body: bytes) -> tuple[bytes, dict[str, list[str]]]:
    """Return the image and the parameters of a request.

    The image is the body itself, or the file in a multipart form. Call this function in a thread,
    because parsing a large form takes time.

    Args:
        request: the request, with its headers and query.
        body: its body.

    Returns:
        The encoded image, and for each parameter all its values.

    Raises:
        ProblemError: the form is malformed, or does not contain exactly one image.
    """
    values = query_values(request.query_params)
    media_type, _ = parse_options_header(request.headers.get("content-type", ""))
    if media_type.lower() != b"multipart/form-data":
        return _checked_image(body), values

    try:
        form = asyncio.run(_parsed(request.headers, body))
    except (MultiPartException, KeyError, UnicodeDecodeError) as error:
        reason = getattr(error, "message", "no boundary or wrong encoding")
        raise ProblemError("bad-request", f"the form cannot be read: {reason}") from None
    image: bytes | None = None
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            image = value.file.read()
        else:
            values.setdefault(name, []).append(value)
    if image is None:
        raise ProblemError("no-image", "the form has no file; send one in the field `image`")
    return _checked_image(image), values


async def _parsed(headers: Headers, body: bytes) -> FormData:
    async def pieces() -> AsyncGenerator[bytes, None]:
        yield body

    parser = _InMemoryParser(
        headers, pieces(), max_files=1, max_fields=20, max_part_size=LARGEST_FIELD
    )
    return await parser.parse()


def _checked_image(content: bytes) -> bytes:
    if not content:
        raise ProblemError("no-image", "send the image as the body, or as a file of a form")
    return content


class Wanted(NamedTuple):
    """The form of the response that a client asked for.

    Attributes:
        kind: "image", or the media type "application/json" or "multipart/mixed".
        file_format: Pillow's name of the format of the result; None for that of the image.
    """

    kind: str
    file_format: str | None


def wanted_of(accept: str) -> Wanted:
    """Return the form of the response for an `Accept` header.

    Of the media types that the service can send, the one with the greatest weight (`q`) is used,
    and the first one of equal weight.

    Raises:
        ProblemError: the service can send none of them.
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
