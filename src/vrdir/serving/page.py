"""The routes of the page: one for each file, so that a request can name no other file."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route

from vrdir.errors import MissingFileError
from vrdir.serving.page_files import FOLDER, MEDIA_TYPES, page_files


def page_routes(web: Path | None) -> list[BaseRoute]:
    """Return a route for each file of the page.

    Args:
        web: a folder that `vrdir web build` wrote, to serve its network and runtime, too; or None.

    Raises:
        MissingFileError: the folder was not written by `vrdir web build`.
    """
    found = page_files(FOLDER)
    if web is not None:
        if not (web / "device.json").is_file():
            raise MissingFileError(
                f"{web} contains no device.json; create the folder with `vrdir web build`"
            )
        found |= page_files(web)
    routes: list[BaseRoute] = []
    for name, path in found.items():
        address = "/" if name == "index.html" else f"/{name}"
        routes.append(Route(address, _sending(address, path), methods=["GET"]))
    return routes


def _sending(address: str, path: Path) -> Callable[[Request], Awaitable[Response]]:
    media_type = MEDIA_TYPES[path.suffix]

    async def send(request: Request) -> Response:
        request.scope["vrdir.route"] = address
        # With "no-cache" the browser keeps the file, but asks each time whether it has changed.
        return FileResponse(path, media_type=media_type, headers={"Cache-Control": "no-cache"})

    return send
