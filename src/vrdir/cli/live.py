"""`vrdir live`."""

from __future__ import annotations

import logging
import threading
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vrdir.cli.console import err, escape
from vrdir.cli.errors import one_line_errors
from vrdir.cli.options import Backend, Device, Precision, Smoothing, Weights
from vrdir.cli.serve import (
    AllowHost,
    Host,
    Keys,
    Port,
    ServingThreads,
    log_as_json,
    require_serving,
    run,
    settings_of,
)
from vrdir.cli.signals import stoppable
from vrdir.cli.threads import use_threads
from vrdir.errors import VrdirError

if TYPE_CHECKING:
    from vrdir.serving.camera import Camera
    from vrdir.serving.networks import Networks
    from vrdir.serving.output import Sender
    from vrdir.serving.settings import ServeSettings

logger = logging.getLogger("vrdir.serving")

Source = Annotated[
    str,
    typer.Argument(
        envvar="VRDIR_SOURCE",
        help="A webcam's number, an address (rtsp, rtmp, http, udp, tcp, srt, rtp), or a video "
        "file.",
        show_default=False,
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        envvar="VRDIR_OUTPUT",
        metavar="TARGET",
        help="- for standard output, a new file, or an address (udp, tcp, srt, rtsp, rtmp); "
        "default: show the frames at http://127.0.0.1:8000/.",
        show_default=False,
    ),
]
PipeFormat = Annotated[
    Literal["mpegts", "raw"],
    typer.Option(
        "--format", help="Format of standard output: H.264 in MPEG-TS, or raw RGB frames."
    ),
]
MaxSide = Annotated[
    int | None,
    typer.Option(min=1, help="Reduce larger frames to this many pixels on the longer side."),
]
NetworkSide = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Reduce larger frames to this many pixels on the longer side for the network; the "
        "output keeps the size of the input.",
    ),
]
FrameRate = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        help="Keep this frame rate: --network-side is chosen automatically so that each frame is "
        "done in time.",
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        min=0.1, help="Stop after this many seconds without a frame; default: keep trying."
    ),
]
Listen = Annotated[
    bool,
    typer.Option("--listen", help="Wait at the address for a sender (rtsp, rtmp, http, tcp)."),
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
    network_side: NetworkSide = None,
    fps: FrameRate = None,
    smoothing: Smoothing = 0.8,
    timeout: Timeout = None,
    listen: Listen = False,
    threads: ServingThreads = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    keys: Keys = None,
    allow_host: AllowHost = None,
) -> None:
    """Restore a camera's frames in real time; late frames are dropped, never queued."""
    with one_line_errors():
        use_threads(threads)
        from vrdir.restoring.restorer import Restorer
        from vrdir.serving.camera import Camera

        open_camera = partial(
            Camera,
            source,
            max_side=max_side,
            network_side=network_side,
            fps=fps,
            smoothing=smoothing if backend == "torch" else 0.0,
            timeout=timeout,
            listen=listen,
        )
        if output is not None:
            from vrdir.serving.output import sender_for

            sender = sender_for(output, file_format == "raw")
            restorer = Restorer(weights, device, backend=backend, precision=precision)
            with open_camera(restore=restorer) as camera:
                _write(camera, sender)
            return
        require_serving("vrdir live without --output")
        from vrdir.serving.networks import Networks

        settings = settings_of(host=host, port=port, keys=keys, hosts=tuple(allow_host or ()))
        networks = Networks([weights], device, backend, precision)
        with open_camera(restore=networks.default) as camera:
            _serve(camera, networks, settings)


def _write(camera: Camera, sender: Sender) -> None:
    """Write a camera's frames to an output, until either ends."""
    try:
        with stoppable(), closing(sender):
            for frame in camera:
                sender.write(frame)
    finally:
        sent = f"; {sender.written} written, {sender.dropped} dropped before the output"
        err.print(escape(f"{camera.report}{sent}"))


def _serve(camera: Camera, networks: Networks, settings: ServeSettings) -> None:
    """Show a camera's frames over HTTP, until a signal comes or the camera ends."""
    from vrdir.serving.live import LiveView

    log_as_json()
    view, failed = LiveView(), []
    view.attach(camera)

    def show() -> None:
        try:
            for frame in camera:
                view.show(frame)
        except VrdirError as error:
            failed.append(error)
        except Exception:  # in its own thread, where nobody else would see it
            logger.exception("the camera has stopped")
        finally:
            view.end()

    threading.Thread(target=show, name="restoring", daemon=True).start()
    try:
        run(networks, settings, view)
    finally:
        camera.close()
        logger.info("camera closed", extra=camera.report._asdict())
    if failed:
        raise failed[0]
