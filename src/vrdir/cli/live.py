"""`vrdir live`."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vrdir.cli.console import err, escape
from vrdir.cli.errors import one_line_errors
from vrdir.cli.options import Backend, Device, Weights
from vrdir.cli.serve import (
    Host,
    Port,
    Precision,
    ServingThreads,
    log_as_json,
    require_serving,
    run,
    settings_of,
)
from vrdir.cli.signals import stoppable
from vrdir.cli.threads import use_threads

if TYPE_CHECKING:
    from vrdir.serving.camera import Camera
    from vrdir.serving.live import LiveView
    from vrdir.serving.networks import Networks


Source = Annotated[
    str,
    typer.Argument(
        help="A webcam's number, an address (rtsp, rtmp, http, udp, srt), or a video file.",
        show_default=False,
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="TARGET",
        help="- for standard output, a file, or an address (udp, tcp, srt, rtsp, rtmp); "
        "default: show the frames at http://127.0.0.1:8000/v1/live.mjpg.",
        show_default=False,
    ),
]
PipeFormat = Annotated[
    Literal["mpegts", "raw"],
    typer.Option("--format", help="Of standard output: H.264 in MPEG-TS, or raw RGB frames."),
]
MaxSide = Annotated[
    int | None,
    typer.Option(min=1, help="Reduce larger frames to this many pixels on the longer side."),
]
FrameRate = Annotated[
    float | None,
    typer.Option(help="Hold this frame rate, by restoring at a smaller size where needed."),
]
Smoothing = Annotated[
    float, typer.Option(min=0, max=0.99, help="Share of the past, against flicker; 0 for none.")
]


def live(
    source: Source,
    output: Target = None,
    file_format: PipeFormat = "mpegts",
    weights: Weights = "small",
    device: Device = "auto",
    backend: Backend = "torch",
    precision: Precision = "float32",
    max_side: MaxSide = None,
    fps: FrameRate = None,
    smoothing: Smoothing = 0.8,
    threads: ServingThreads = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
) -> None:
    """Restore a camera's picture as it comes; frames that are late are dropped, never queued."""
    with one_line_errors():
        require_serving()
        use_threads(threads)
        from vrdir.serving.camera import Camera
        from vrdir.serving.networks import Networks

        networks = Networks([weights], device, backend, precision)
        camera = Camera(source, networks.default, max_side, fps, smoothing)
        if output is None:
            log_as_json()
            _serve(camera, networks, host, port)
            return
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

    view = LiveView()
    view.attach(camera)
    thread = threading.Thread(target=_show, args=(camera, view), daemon=True)
    thread.start()
    try:
        run(networks, settings_of(host=host, port=port), view)
    finally:
        camera.close()
        logging.getLogger("vrdir.serving").info("camera closed", extra=camera.report._asdict())


def _show(camera: Camera, view: LiveView) -> None:
    """Show each frame as JPEG."""
    import io

    from PIL import Image

    try:
        for frame in camera:
            buffer = io.BytesIO()
            Image.fromarray(frame).save(buffer, "JPEG", quality=85)
            view.show(buffer.getvalue())
    except Exception:  # in a thread of its own, where nobody else would see it
        logging.getLogger("vrdir.serving").exception("the camera has stopped")
