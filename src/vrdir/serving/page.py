"""The page's files: read once at the start, so that no address from a request reaches the disk."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route

from vrdir.errors import MissingFileError

# The media types of the page's files, by suffix; files of other suffixes are not served.
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".wasm": "application/wasm",
    ".onnx": "application/octet-stream",
    ".webmanifest": "application/manifest+json",
    ".txt": "text/plain; charset=utf-8",
}
FOLDER = Path(str(files("vrdir.serving"))) / "page"


def page_files(folder: Path) -> dict[str, Path]:
    """Return the files that are served from a folder, by their address below it."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in MEDIA_TYPES
    }


def page_routes(web: Path | None) -> list[BaseRoute]:
    """Return a route for each file of the page.

    Args:
        web: a folder of `vrdir web build`, whose network and runtime are served too; or None.

    Raises:
        MissingFileError: the folder is not one that `vrdir web build` wrote.
    """
    found = page_files(FOLDER)
    if web is not None:
        if not (web / "device.json").is_file():
            raise MissingFileError(f"{web} has no device.json; write it with `vrdir web build`")
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
        # "no-cache" lets the browser keep the file, and ask each time whether it has changed.
        return FileResponse(path, media_type=media_type, headers={"Cache-Control": "no-cache"})

    return send
