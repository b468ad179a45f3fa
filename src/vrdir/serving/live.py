"""The newest restored frame of a camera, shown to all clients as MJPEG."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

from starlette.responses import Response, StreamingResponse

from vrdir.serving.camera import Camera
from vrdir.serving.metrics import Metrics

BOUNDARY = "vrdir-frame"
# The metrics of a camera, by the names in its report.
CAMERA_GAUGES = {
    "received": "Frames decoded.",
    "dropped": "Frames replaced by newer ones before they were restored.",
    "restored": "Frames restored.",
    "repeated": "Times that the last frame was given again.",
    "reconnects": "Times that the source was lost and found again.",
    "connected": "Whether frames arrive now.",
    "p50_ms": "Median delay of a frame, in milliseconds.",
    "p95_ms": "95th percentile of the delay, in milliseconds.",
}
SILENT = 5.0  # seconds after which the last frame is sent again, so that a dead client is noticed


class LiveView:
    """Holds the newest frame, as JPEG. The camera's thread shows it; event loops send it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._frame, self._number = b"", 0
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._closed = False
        self._camera: Camera | None = None

    def attach(self, camera: Camera) -> None:
        """Show a camera's counts in the metrics."""
        self._camera = camera

    def close(self) -> None:
        """End the answers to all clients."""
        with self._lock:
            self._closed = True
            waiting = list(self._waiting)
        for loop, event in waiting:
            loop.call_soon_threadsafe(event.set)

    def show(self, jpeg: bytes) -> None:
        """Show a new frame to all clients."""
        with self._lock:
            self._frame, self._number = jpeg, self._number + 1
            waiting = list(self._waiting)
        for loop, event in waiting:
            loop.call_soon_threadsafe(event.set)

    def watch(self, metrics: Metrics) -> None:
        """Add the number of clients to the metrics."""
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
        """Return the frames as an endless MJPEG answer."""
        return StreamingResponse(
            self._parts(),
            media_type=f"multipart/x-mixed-replace; boundary={BOUNDARY}",
            headers={"Cache-Control": "no-store"},
        )

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield the newest frame each time there is one; frames in between are left out."""
        event, last = asyncio.Event(), 0
        place = (asyncio.get_running_loop(), event)
        with self._lock:
            self._waiting.add(place)
        try:
            while not self._closed:
                with self._lock:
                    frame, number = self._frame, self._number
                    event.clear()
                if number > last:
                    last = number
                    yield frame
                    continue
                try:
                    await asyncio.wait_for(event.wait(), SILENT)
                except asyncio.TimeoutError:
                    last = min(last, max(number - 1, 0))
        finally:
            with self._lock:
                self._waiting.discard(place)

    async def _parts(self) -> AsyncIterator[bytes]:
        async for frame in self.frames():
            head = (
                f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(frame)}\r\n\r\n"
            )
            yield head.encode() + frame + b"\r\n"
