"""Show the newest restored frame of a camera to all clients, as MJPEG or over a WebSocket."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import AsyncIterator, Callable

import anyio
from PIL import Image
from starlette.responses import Response, StreamingResponse
from starlette.websockets import WebSocket

from vrdir.serving.camera import Camera, Picture
from vrdir.serving.metrics import Metrics

BOUNDARY = "vrdir-frame"
QUALITY = 85  # of the JPEG
# The metrics of a camera, by the names in its report.
CAMERA_GAUGES = {
    "received": "Frames decoded.",
    "dropped": "Frames replaced by newer ones before they were restored.",
    "restored": "Frames restored.",
    "repeated": "Number of times that the last frame was repeated.",
    "reconnects": "Number of times that the source was lost and reopened.",
    "connected": "Whether frames arrive now.",
    "p50_ms": "Median delay of a frame, in milliseconds.",
    "p95_ms": "95th percentile of the delay, in milliseconds.",
    "fps": "Frames restored per second.",
    "network_side": "Longer side of the frames for the network, in pixels.",
}
SILENT = 5.0  # seconds after which the last frame is sent again, to detect clients that are gone
ENDED = 1001  # WebSocket's code for "going away"


class _Shown:
    """A frame, and its JPEG as soon as a client needs it."""

    def __init__(self, number: int, frame: Picture) -> None:
        self.number = number
        self._frame = frame
        self._lock = threading.Lock()
        self._jpeg = b""

    def jpeg(self) -> bytes:
        with self._lock:
            if not self._jpeg:
                buffer = io.BytesIO()
                Image.fromarray(self._frame).save(buffer, "JPEG", quality=QUALITY)
                self._jpeg = buffer.getvalue()
            return self._jpeg


class LiveView:
    """Holds the newest frame. The camera's thread sets it with `show`; event loops send it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shown: _Shown | None = None
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._closed = self._ended = False
        self._at_end: Callable[[], None] | None = None
        self._camera: Camera | None = None

    def attach(self, camera: Camera) -> None:
        """Set the camera whose counts `watch` adds to the metrics."""
        self._camera = camera

    def at_end(self, call: Callable[[], None]) -> None:
        """Set a function that is called once when the camera has ended, or now if it has."""
        with self._lock:
            self._at_end, ended = call, self._ended
        if ended:
            call()

    def end(self) -> None:
        """Note that the camera has ended, and no more frames will come."""
        with self._lock:
            self._ended, call = True, self._at_end
        if call is not None:
            call()

    def close(self) -> None:
        """End the responses to all clients."""
        with self._lock:
            self._closed = True
        self._wake()

    def show(self, frame: Picture) -> None:
        """Show a new frame, RGB (H, W, 3) uint8, to all clients; encode it if there are any."""
        with self._lock:
            number = 1 if self._shown is None else self._shown.number + 1
            self._shown = _Shown(number, frame)
        self._wake()

    def watch(self, metrics: Metrics) -> None:
        """Add the number of clients, and the counts of the attached camera, to the metrics."""
        metrics.watch(
            "vrdir_live_clients", "Clients of the camera's view.", lambda: len(self._waiting)
        )
        if (camera := self._camera) is None:
            return
        for name, text in CAMERA_GAUGES.items():
            metrics.watch(
                f"vrdir_camera_{name}",
                text,
                lambda name=name: float(getattr(camera.report, name)),  # type: ignore[misc]
            )

    def response(self) -> Response:
        """Return an endless MJPEG response with the frames."""
        return StreamingResponse(
            self._parts(),
            media_type=f"multipart/x-mixed-replace; boundary={BOUNDARY}",
            headers={"Cache-Control": "no-store"},
        )

    async def serve(self, socket: WebSocket) -> None:
        """Send each frame as a binary message, a JPEG, until the client or the camera ends."""
        socket.scope["vrdir.route"] = "/v1/live"
        await socket.accept()
        sending = asyncio.create_task(self._send(socket))
        gone = asyncio.create_task(_gone(socket))
        await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
        for task in (sending, gone):
            task.cancel()
        await asyncio.gather(sending, gone, return_exceptions=True)

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield the newest frame as a JPEG whenever there is one; frames in between are skipped."""
        event, last = asyncio.Event(), 0
        place = (asyncio.get_running_loop(), event)
        with self._lock:
            self._waiting.add(place)
        try:
            while not self._closed:
                with self._lock:
                    shown = self._shown
                    event.clear()
                if shown is not None and shown.number > last:
                    last = shown.number
                    yield await anyio.to_thread.run_sync(shown.jpeg)
                    continue
                try:
                    await asyncio.wait_for(event.wait(), SILENT)
                except asyncio.TimeoutError:
                    last = max(last - 1, 0)
        finally:
            with self._lock:
                self._waiting.discard(place)

    async def _parts(self) -> AsyncIterator[bytes]:
        async for frame in self.frames():
            head = (
                f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(frame)}\r\n\r\n"
            )
            yield head.encode() + frame + b"\r\n"

    async def _send(self, socket: WebSocket) -> None:
        async for frame in self.frames():
            await socket.send_bytes(frame)
        await socket.close(ENDED, "the camera has ended")

    def _wake(self) -> None:
        with self._lock:
            waiting = list(self._waiting)
        for loop, event in waiting:
            loop.call_soon_threadsafe(event.set)


async def _gone(socket: WebSocket) -> None:
    """Wait until a client disconnects."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass
