"""`vrdir serve`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vrdir.cli.console import err, escape
from vrdir.cli.errors import one_line_errors
from vrdir.cli.options import Backend, Device, Precision
from vrdir.cli.threads import use_threads

if TYPE_CHECKING:
    from vrdir.serving.live import LiveView
    from vrdir.serving.networks import Networks
    from vrdir.serving.settings import ServeSettings

ServedWeights = Annotated[
    list[str] | None,
    typer.Option(
        "--weights",
        metavar="[NAME=]WEIGHTS",
        help="Weights that requests may name; the first is the default. Repeat it for several.",
        show_default="small",
    ),
]
Host = Annotated[
    str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines connect.")
]
Port = Annotated[
    int, typer.Option(min=0, max=65535, help="Port to listen on; 0 chooses a free one.")
]
ServingThreads = Annotated[
    int | None,
    typer.Option(min=1, help="Threads that compute; default: one for each processor core."),
]
Keys = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Require an API key; the file contains one key per line."),
]
Cors = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ORIGIN",
        help="Allow requests from pages of this origin (CORS); repeat it for several.",
    ),
]
AllowHost = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Allow this host name in requests, as a proxy sends it; repeat it for several.",
    ),
]
Web = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Let the page restore in the browser, with the files of a folder that vrdir web "
        "build wrote.",
    ),
]
Detector = Annotated[
    Path | None,
    typer.Option(metavar="FILE.onnx", help="Show the detections of this detector on the page."),
]
WorkMegapixels = Annotated[
    float | None,
    typer.Option(
        help="Memory limit for all images in work, in megapixels of 700 bytes per pixel.",
        show_default="from the machine's memory",
    ),
]


def _limit(text: str) -> Any:
    return typer.Option(help=text)


def serve(
    weights: ServedWeights = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    device: Device = "auto",
    backend: Backend = "torch",
    precision: Precision = "float32",
    threads: ServingThreads = None,
    keys: Keys = None,
    cors: Cors = None,
    allow_host: AllowHost = None,
    web: Web = None,
    detector: Detector = None,
    max_body: Annotated[float, _limit("Largest request body, in MiB.")] = 64.0,
    max_bodies: Annotated[float, _limit("Largest total of bodies in memory, in MiB.")] = 512.0,
    max_megapixels: Annotated[float, _limit("Largest image, in megapixels.")] = 50.0,
    work_megapixels: WorkMegapixels = None,
    max_queue: Annotated[int, _limit("Largest number of waiting images.")] = 64,
    max_queue_megapixels: Annotated[float, _limit("Largest total of waiting megapixels.")] = 400.0,
    deadline: Annotated[float, _limit("Seconds from the request body to the response.")] = 120.0,
    body_timeout: Annotated[float, _limit("Seconds for a whole request body.")] = 30.0,
    header_timeout: Annotated[float, _limit("Seconds for the headers.")] = 10.0,
    keep_alive: Annotated[float, _limit("Seconds before an idle connection is closed.")] = 15.0,
    send_timeout: Annotated[float, _limit("Seconds to send 256 KiB of a response.")] = 60.0,
    stop_timeout: Annotated[float, _limit("Seconds to finish requests after a signal.")] = 30.0,
    max_connections: Annotated[int, _limit("Largest number of open connections.")] = 1000,
    max_streams: Annotated[int, _limit("Largest number of open WebSocket streams.")] = 8,
) -> None:
    """Serve restoration over HTTP, with a page for the browser at http://127.0.0.1:8000/."""
    limits = {
        "max_body_mebibytes": max_body,
        "max_bodies_mebibytes": max_bodies,
        "max_megapixels": max_megapixels,
        "max_queue": max_queue,
        "max_queue_megapixels": max_queue_megapixels,
        "deadline": deadline,
        "body_timeout": body_timeout,
        "header_timeout": header_timeout,
        "keep_alive": keep_alive,
        "send_timeout": send_timeout,
        "stop_timeout": stop_timeout,
        "max_connections": max_connections,
        "max_streams": max_streams,
    }
    if work_megapixels is not None:
        limits["work_megapixels"] = work_megapixels
    files = {"keys": keys, "web": web, "detector": detector}
    names = {"cors": tuple(cors or ()), "hosts": tuple(allow_host or ())}
    with one_line_errors():
        require_serving("vrdir serve")
        use_threads(threads)
        from vrdir.serving.networks import Networks

        settings = settings_of(host=host, port=port, **limits, **files, **names)
        log_as_json()
        run(Networks(weights or ["small"], device, backend, precision), settings)


def settings_of(**values: Any) -> ServeSettings:
    """Return the settings, with as many threads as torch has."""
    import torch

    from vrdir.serving.settings import ServeSettings

    return ServeSettings(threads=torch.get_num_threads(), **values)


def run(networks: Networks, settings: ServeSettings, view: LiveView | None = None) -> None:
    """Serve until a signal comes."""
    from vrdir.images.reading import allow_megapixels
    from vrdir.serving.server import run_service
    from vrdir.serving.service import Service

    # The service has its own limit; Pillow's is a second one behind it.
    allow_megapixels(2 * settings.max_megapixels)
    service = Service(networks, settings, view)
    run_service(service, lambda port: announce(settings.host, port))


def require_serving(command: str) -> None:
    """Raise MissingPackageError, naming the command, if the extra `serve` is not installed."""
    from vrdir.errors import require

    for module in ("starlette", "uvicorn", "prometheus_client", "python_multipart", "websockets"):
        require(module, "serve", f"{command} needs {module}")


def log_as_json() -> None:
    """Send the log to standard error, one JSON object a line."""
    from vrdir.serving.server import JsonLines

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)
    logging.getLogger("vrdir").setLevel(logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # the service logs what it refuses


def announce(host: str, port: int) -> None:
    """Print the page's address, for a person at a terminal."""
    shown = f"[{host}]" if ":" in host else host
    if sys.stderr.isatty():
        err.print(escape(f"vrdir serves at http://{shown}:{port}/ (stop with Ctrl-C)"))
    logging.getLogger("vrdir.serving").info("serving", extra={"host": host, "port": port})
