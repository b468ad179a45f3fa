"""The WebSocket at `/v1/stream`, which receives frames and returns restored frames.

A client sends each frame as one binary message, an encoded image. For each frame that is restored
it gets a text message (JSON) and then a binary one. A frame that arrives while an older one waits
replaces it: the older one is dropped and counted. So the delay stays that of one frame.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, NamedTuple

import anyio
from starlette.websockets import WebSocket, WebSocketDisconnect

from vrdir.images.reading import Picture, decode
from vrdir.images.reducing import reduced
from vrdir.images.writing import encode
from vrdir.restoring.restorer import Restorer
from vrdir.restoring.stream import SMOOTHING
from vrdir.serving.batching import Job, Queue, check_wanted, late
from vrdir.serving.images import NAME, read_header, writable_format
from vrdir.serving.intake import Bodies, Parameters, parameters_of, query_values
from vrdir.serving.metrics import Metrics
from vrdir.serving.networks import Networks
from vrdir.serving.problems import ProblemError, problem_document, problem_of, problem_response
from vrdir.serving.settings import ServeSettings

logger = logging.getLogger(__name__)

IDLE = 60.0  # seconds without a frame, after which a stream is closed
GOING_AWAY, FAILED = 1001, 1011  # close codes (RFC 6455)


class _Frame(NamedTuple):
    """A received frame: its number from 0, its content, and its arrival (`time.perf_counter`)."""

    number: int
    content: bytes
    arrival: float


class _Slot:
    """Holds the newest frame, and reserves memory for it.

    Args:
        bodies: the memory budget.

    Attributes:
        dropped: the number of frames that newer ones replaced, or for which no memory was left.
    """

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._frame: _Frame | None = None
        self._filled = asyncio.Event()
        self.dropped = 0

    def put(self, frame: _Frame) -> None:
        """Replace the frame by a newer one."""
        self.dropped += self._frame is not None
        self.clear()
        try:
            self._bodies.take(len(frame.content))
        except ProblemError:
            self.dropped += 1
            return
        self._frame = frame
        self._filled.set()

    @asynccontextmanager
    async def take(self) -> AsyncGenerator[_Frame, None]:
        """Wait for a frame, and keep its memory reserved until the `async with` block ends."""
        await self._filled.wait()
        frame, self._frame = self._frame, None
        self._filled.clear()
        assert frame is not None
        try:
            yield frame
        finally:
            self._bodies.give_back(len(frame.content))

    def clear(self) -> None:
        """Drop the frame and release its memory."""
        if self._frame is not None:
            self._bodies.give_back(len(self._frame.content))
        self._frame = None
        self._filled.clear()


class FrameRestorer:
    """Restores the frames of one stream, one at each call.

    Args:
        restorer: the restorer to use.
        smoothing: temporal smoothing, 0 (off) to 0.99, as for `Restorer.stream`.
        max_side: reduce larger frames to this many pixels on the longer side; None keeps their
            size.
        quality: the quality of lossy formats, 1 to 100.
    """

    def __init__(
        self, restorer: Restorer, smoothing: float, max_side: int | None, quality: int
    ) -> None:
        self._next: Picture | None = None
        self._max_side, self._quality = max_side, quality
        self._stream = restorer.stream(self._feed(), smoothing)

    def __call__(self, content: bytes) -> bytes:
        """Restore an encoded frame, and return it in the same format."""
        picture = decode(content, NAME)
        file_format = writable_format(picture.format or "JPEG")
        self._next = reduced(picture, self._max_side) if self._max_side else picture
        return encode(next(self._stream), file_format, NAME, self._quality)

    def _feed(self) -> Iterator[Picture]:
        while self._next is not None:
            yield self._next


class Streams:
    """Serves all WebSocket streams.

    Args:
        networks: the restorers by name.
        settings: the settings of the service.
        metrics: counts frames.
        queue: the queue in which frames and images wait.
        bodies: the memory budget, to which frames count.

    Attributes:
        count: the number of open streams.
    """

    def __init__(
        self,
        networks: Networks,
        settings: ServeSettings,
        metrics: Metrics,
        queue: Queue,
        bodies: Bodies,
    ) -> None:
        self._networks, self._settings = networks, settings
        self._metrics, self._queue, self._bodies = metrics, queue, bodies
        self.count = 0

    async def serve(self, socket: WebSocket) -> None:
        """Serve one stream until the client closes it."""
        socket.scope["vrdir.route"] = "/v1/stream"
        try:
            restore = self._restorer_for(socket)
        except ProblemError as problem:
            socket.scope["vrdir.problem"] = problem.kind
            await socket.send_denial_response(
                problem_response(problem, socket.scope["vrdir.request_id"])
            )
            return
        self.count += 1
        try:
            await socket.accept()
            await self._run(socket, restore)
        finally:
            self.count -= 1

    def _restorer_for(self, socket: WebSocket) -> FrameRestorer:
        if self.count >= self._settings.max_streams:
            raise ProblemError("queue-full", f"{self.count} streams are open already", 10)
        values = query_values(socket.query_params)
        values.pop("token", None)  # the gate has checked it
        smoothing = _smoothing(values.pop("smoothing", [str(SMOOTHING)])[0])
        parameters: Parameters = parameters_of(values)
        restorer = self._networks.find(parameters.weights, parameters.strength, parameters.only)
        return FrameRestorer(restorer, smoothing, parameters.max_side, parameters.quality)

    async def _run(self, socket: WebSocket, restore: FrameRestorer) -> None:
        slot = _Slot(self._bodies)
        tasks = [
            asyncio.create_task(self._receive(socket, slot)),
            asyncio.create_task(self._answer(socket, slot, restore)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except TimeoutError:
            await socket.close(GOING_AWAY, "no frame for a minute")
        except WebSocketDisconnect:
            pass
        except Exception:  # a bug: the client gets a message, the log the traceback
            logger.exception("stream failed")
            socket.scope["vrdir.problem"] = "internal-error"
            await socket.close(FAILED, "the service failed")
        finally:
            self._metrics.frames.labels("dropped").inc(slot.dropped)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            slot.clear()

    async def _receive(self, socket: WebSocket, slot: _Slot) -> None:
        """Put each frame into the slot, until the client closes."""
        for number in count():
            with anyio.fail_after(IDLE):
                message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            content = message.get("bytes") or (message.get("text") or "").encode()
            slot.put(_Frame(number, content, time.perf_counter()))
            self._metrics.frames.labels("received").inc()

    async def _answer(self, socket: WebSocket, slot: _Slot, restore: FrameRestorer) -> None:
        """Restore the newest frame and send it, in a loop without end."""
        while True:
            async with slot.take() as frame:
                facts, content = await self._answered(socket, frame, restore)
            facts["dropped"] = slot.dropped
            await socket.send_json(facts)
            if content:
                await socket.send_bytes(content)

    async def _answered(
        self, socket: WebSocket, frame: _Frame, restore: FrameRestorer
    ) -> tuple[dict[str, Any], bytes]:
        """Return the message about a frame, and the restored frame, b"" for one that is damaged."""
        facts: dict[str, Any] = {"frame": frame.number, "dropped": 0}
        content = b""
        try:
            content = await self._restored(frame, restore)
            self._metrics.frames.labels("restored").inc()
        except Exception as error:  # the client gets a message about any error
            problem = problem_of(error)
            if problem.kind == "internal-error":
                logger.error("a frame failed", exc_info=error)
            self._metrics.errors.labels(problem.kind).inc()
            self._metrics.frames.labels("failed").inc()
            facts["problem"] = problem_document(problem, socket.scope["vrdir.request_id"])
        seconds = time.perf_counter() - frame.arrival
        self._metrics.frame_seconds.observe(seconds)
        facts["milliseconds"] = round(1000 * seconds, 1)
        return facts, content

    async def _restored(self, frame: _Frame, restore: FrameRestorer) -> bytes:
        header = await anyio.to_thread.run_sync(
            read_header, frame.content, self._settings.max_megapixels
        )

        def work(jobs: Sequence[Job]) -> list[Any]:
            check_wanted(jobs)
            return [restore(frame.content)]

        seconds = self._settings.deadline
        job = Job(object(), header.pixels, time.monotonic() + seconds, work)
        future = asyncio.wrap_future(self._queue.submit(job))
        try:
            content: bytes = await asyncio.wait_for(future, seconds)
        except asyncio.TimeoutError:
            job.give_up("deadline")
            raise late() from None
        finally:
            if not job.future.done():
                job.give_up("client-gone")
        return content


def _smoothing(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise ProblemError(
            "bad-parameter", f"smoothing must be a number from 0 to 0.99, not {text!r:.80}"
        )
    return value
