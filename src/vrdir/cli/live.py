"""`vrdir live`."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vrdir.cli.console import err, escape
from vrdir.cli.errors import one_line_errors
from vrdir.cli.options import Backend, Device, Weights
from vrdir.cli.serve import Host, Port, announce, log_as_json, require_serving
from vrdir.cli.signals import stoppable

if TYPE_CHECKING:
    from vrdir.serving.camera import Camera
    from vrdir.serving.live import LiveView
    from vrdir.serving.networks import Networks


def live(
    source: Annotated[
        str,
        typer.Argument(
            help="A webcam's number, an address (rtsp, rtmp, http, udp, srt), or a video file.",
            show_default=False,
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="TARGET",
            help="- for standard output, a file, or an address (udp, tcp, srt, rtsp, rtmp); "
            "default: show the frames at http://127.0.0.1:8000/v1/live.mjpg.",
            show_default=False,
        ),
    ] = None,
    file_format: Annotated[
        Literal["mpegts", "raw"],
        typer.Option("--format", help="Of standard output: H.264 in MPEG-TS, or raw RGB frames."),
    ] = "mpegts",
    weights: Weights = "small",
    device: Device = "auto",
    backend: Backend = "torch",
    precision: Annotated[
        Literal["float32", "bf16"],
        typer.Option(help="bf16 is faster where the processor computes in it."),
    ] = "float32",
    max_side: Annotated[
        int | None,
        typer.Option(min=1, help="Reduce larger frames to this many pixels on the longer side."),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(help="Hold this frame rate, by restoring at a smaller size where needed."),
    ] = None,
    smoothing: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share of the past, against flicker; 0 for none.")
    ] = 0.8,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Threads that compute; default: one for each processor core."),
    ] = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
) -> None:
    """Restore a camera's picture as it comes; frames that are late are dropped, never queued."""
    with one_line_errors():
        require_serving()
        from vrdir.cli.threads import use_threads
        from vrdir.serving.camera import Camera
        from vrdir.serving.networks import Networks

        use_threads(threads)
        networks = Networks([weights], device, backend, precision)
        camera = Camera(source, networks.default, max_side, fps, smoothing)
        if output is None:
            log_as_json()
            _serve(camera, networks, host, port)
        else:
            try:
                with stoppable():
                    _write(camera, output, file_format == "raw")
            finally:
                camera.close()
                err.print(escape(str(camera.report)))


def _write(camera: Camera, target: str, raw: bool) -> None:
    """Write a camera's frames to an output, until either ends."""
    from vrdir.serving.output import open_output

    output = open_output(target, raw)
    try:
        for frame in camera:
            output.write(frame)
    finally:
        output.close()


def _serve(camera: Camera, networks: Networks, host: str, port: int) -> None:
    """Show a camera's frames over HTTP, until a signal comes or its file ends."""
    from vrdir.serving.live import LiveView
    from vrdir.serving.server import run_service
    from vrdir.serving.service import Service
    from vrdir.serving.settings import ServeSettings

    view = LiveView()
    view.attach(camera)
    service = Service(networks, ServeSettings(host=host, port=port), view)
    thread = threading.Thread(target=_show, args=(camera, view), daemon=True)
    thread.start()
    try:
        run_service(service, lambda real_port: announce(host, real_port))
    finally:
        camera.close()
        logging.getLogger("vrdir.serving").info("camera closed", extra=camera.report._asdict())


def _show(camera: Camera, view: LiveView) -> None:
    """Show each frame as JPEG."""
    import io

    from PIL import Image

    for frame in camera:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "JPEG", quality=85)
        view.show(buffer.getvalue())
