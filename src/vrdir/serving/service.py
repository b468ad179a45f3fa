"""The service as an ASGI application (Starlette): its routes, and the state that they share."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from vrdir import __version__
from vrdir.serving.answers import answer_of, diagnosis_of
from vrdir.serving.batching import CPU_BATCH_PIXELS, GPU_BATCH_PIXELS, Job, Queue, late
from vrdir.serving.detecting import BoxFinder
from vrdir.serving.gate import Gate, drain
from vrdir.serving.images import (
    ImageResult,
    ImageTask,
    cost_of,
    read_header,
    restore_batch,
    writable_format,
)
from vrdir.serving.intake import Bodies, Parameters, Wanted, parameters_of, split_form, wanted_of
from vrdir.serving.keys import TOKEN_SECONDS, ApiKeys
from vrdir.serving.live import LiveView
from vrdir.serving.metrics import MEDIA_TYPE, Metrics
from vrdir.serving.networks import Networks
from vrdir.serving.openapi import openapi_document
from vrdir.serving.page import page_routes
from vrdir.serving.problems import ProblemError, handle_error, problem_response
from vrdir.serving.settings import ServeSettings
from vrdir.serving.streams import Streams

logger = logging.getLogger("vrdir.serving.access")

LAST_STEP = 2.0  # seconds in which work that was given up should reach its next step, at the end


class Service:
    """The service: its routes, and the state that they share.

    Args:
        networks: the restorers by name.
        settings: the settings.
        live: the view of a camera, whose restored frames are shown at `/v1/live.mjpg`; or None.

    Raises:
        VrdirError: the keys or the detector in the settings cannot be loaded.
    """

    def __init__(
        self, networks: Networks, settings: ServeSettings, live: LiveView | None = None
    ) -> None:
        self.networks, self.settings, self.live = networks, settings, live
        self.metrics = Metrics()
        self.keys = None if settings.keys is None else ApiKeys(settings.keys)
        self.finder = None if settings.detector is None else BoxFinder(settings.detector)
        self.bodies = Bodies(settings)
        on_cpu = networks.default.device.type == "cpu"
        self.queue = Queue(
            settings.threads,
            settings.max_queue,
            int(settings.max_queue_megapixels * 1e6),
            int(settings.work_megapixels * 1e6),
            CPU_BATCH_PIXELS if on_cpu else GPU_BATCH_PIXELS,
            self.metrics,
        )
        self.streams = Streams(networks, settings, self.metrics, self.queue, self.bodies)
        self.stopping = False
        self.metrics.watch("vrdir_queue_images", "Images that wait.", lambda: self.queue.length)
        self.metrics.watch("vrdir_queue_pixels", "Pixels that wait.", lambda: self.queue.pixels)
        self.metrics.watch("vrdir_working_images", "Images at work.", lambda: self.queue.at_work)
        self.metrics.watch(
            "vrdir_bodies_bytes",
            "Bytes of request and response bodies in memory.",
            lambda: self.bodies.taken,
        )
        self.metrics.watch("vrdir_streams", "Open streams.", lambda: self.streams.count)
        if live is not None:
            live.watch(self.metrics)

    def application(self) -> ASGIApp:
        """Return the ASGI application."""
        app: ASGIApp = Starlette(
            routes=self._routes(),
            lifespan=self._lifespan,
            exception_handlers={
                HTTPException: handle_error,
            },
        )
        if self.settings.cors:
            app = CORSMiddleware(
                app,
                allow_origins=self.settings.cors,
                allow_methods=["GET", "POST"],
                allow_headers=["Authorization", "X-API-Key", "Content-Type"],
                expose_headers=["*"],
            )
        return Gate(app, self.settings, self.keys, self.metrics)

    def reload(self) -> None:
        """Load weights and keys again, while requests are processed."""
        if self.keys is not None:
            self.keys.reload()
        self.networks.reload()

    def begin_stop(self) -> None:
        """Begin to stop: the service is no longer ready, and endless responses end.

        Accepted requests are finished within `stop_timeout` seconds; the others get 503 after that.
        Call it in the event loop.
        """
        self.stopping = True
        if self.live is not None:
            self.live.close()
        asyncio.get_running_loop().call_later(self.settings.stop_timeout, self._give_up)

    def _give_up(self) -> None:
        self.bodies.stop()
        self.queue.give_up()

    def note_closed(self, kind: str, request_id: str) -> None:
        """Count and log a connection that was refused, or aborted because its client is slow."""
        self.metrics.errors.labels(kind).inc()
        logger.info("connection closed", extra={"problem": kind, "request_id": request_id})

    def _routes(self) -> list[BaseRoute]:
        posts: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "/v1/restore": self._restore,
            "/v1/diagnose": self._diagnose,
            "/v1/detect": self._detect,
            "/v1/tokens": self._token,
        }
        gets: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "/v1/weights": self._weights,
            "/v1/limits": self._limits,
            "/v1/live.mjpg": self._live,
            "/v1/stream": self._no_stream,
            "/v1/live": self._no_stream,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/metrics": self._metrics,
            "/openapi.json": self._openapi,
        }
        return [
            *(
                Route(path, _answering(path, call), methods=["POST"])
                for path, call in posts.items()
            ),
            *(Route(path, _answering(path, call), methods=["GET"]) for path, call in gets.items()),
            WebSocketRoute("/v1/stream", self.streams.serve),
            WebSocketRoute("/v1/live", self._live_socket),
            *page_routes(self.settings.web),
        ]

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncGenerator[None, None]:
        yield
        await anyio.to_thread.run_sync(self.queue.stop, LAST_STEP)

    async def _restore(self, request: Request) -> Response:
        wanted = wanted_of(request.headers.get("accept", "*/*"))
        result = await self._restored(request, wanted, with_image=True)
        return await _in_thread(answer_of, result, wanted, self.bodies)

    async def _diagnose(self, request: Request) -> Response:
        result = await self._restored(request, Wanted("application/json", None), with_image=False)
        return JSONResponse(diagnosis_of(result))

    async def _detect(self, request: Request) -> Response:
        if self.finder is None:
            raise ProblemError("not-offered", "start the service with --detector FILE.onnx")
        async with self.bodies.read(request) as body:
            image, _ = await _in_thread(split_form, request, body)
            header = await _in_thread(read_header, image, self.settings.max_megapixels)
            job = Job(object(), header.pixels, self._deadline(), self.finder.find_in_batch, image)
            return JSONResponse(await self._finished(request, job))

    async def _restored(self, request: Request, wanted: Wanted, with_image: bool) -> ImageResult:
        async with self.bodies.read(request) as body:
            image, values = await _in_thread(split_form, request, body)
            parameters = parameters_of(values)
            header = await _in_thread(read_header, image, self.settings.max_megapixels)
            file_format = wanted.file_format or writable_format(header.file_format)
            task = self._task(image, parameters, file_format, with_image)
            request.scope["vrdir.facts"] = {"pixels": header.pixels, "input": header.file_format}
            key = (id(task.restorer), header.width, header.height, parameters.max_side)
            # Padding counts, too: an image of 1 x 1000 pixels is padded to 16 x 1008.
            pixels = task.restorer.network.padded_pixels(header.width, header.height)
            cost = await _in_thread(cost_of, image, task.restorer)
            job = Job(key, pixels, self._deadline(), restore_batch, task, cost=cost)
            result: ImageResult = await self._finished(request, job)
            return result

    def _task(
        self, image: bytes, parameters: Parameters, file_format: str, with_image: bool
    ) -> ImageTask:
        restorer = self.networks.find(parameters.weights, parameters.strength, parameters.only)
        return ImageTask(
            image,
            restorer,
            parameters.max_side,
            file_format,
            parameters.quality,
            int(self.settings.max_megapixels * 1e6),
            with_image,
        )

    def _deadline(self) -> float:
        return time.monotonic() + self.settings.deadline

    async def _finished(self, request: Request, job: Job) -> Any:
        """Queue a job and wait for it; give it up if the client disconnects or it is too late."""
        future: Future[Any] = self.queue.submit(job)
        gone = asyncio.create_task(_disconnected(request))
        answer = asyncio.wrap_future(future)
        left = job.deadline - time.monotonic()
        try:
            done, _ = await asyncio.wait(
                {answer, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED
            )
            if answer in done:
                return answer.result()
            if gone in done:
                raise ClientDisconnect
            job.give_up("deadline")
            raise late()
        finally:
            if not future.done():
                job.give_up("client-gone")
            answer.cancel()
            gone.cancel()

    async def _token(self, request: Request) -> Response:
        if self.keys is None:
            raise ProblemError("not-offered", "this service needs no API key and no token")
        token = self.keys.token(request.headers)
        return JSONResponse(
            {"token": token, "seconds": TOKEN_SECONDS}, headers={"Cache-Control": "no-store"}
        )

    async def _weights(self, request: Request) -> Response:
        return JSONResponse(self.networks.describe())

    async def _limits(self, request: Request) -> Response:
        settings = self.settings
        return JSONResponse(
            {
                "version": __version__,
                "max_body_bytes": settings.max_body,
                "max_megapixels": settings.max_megapixels,
                "deadline_seconds": settings.deadline,
                "detector": None if self.finder is None else self.finder.name,
                "live": self.live is not None,
            }
        )

    async def _live(self, request: Request) -> Response:
        if self.live is None:
            raise ProblemError("not-offered", "start a camera with `vrdir live SOURCE`")
        return self.live.response()

    async def _no_stream(self, request: Request) -> Response:
        raise ProblemError("upgrade-required", "open this address as a WebSocket (ws://)")

    async def _live_socket(self, socket: WebSocket) -> None:
        if self.live is None:
            problem = ProblemError("not-offered", "start a camera with `vrdir live SOURCE`")
            await socket.send_denial_response(
                problem_response(problem, socket.scope["vrdir.request_id"])
            )
            return
        await self.live.serve(socket)

    async def _healthz(self, request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _readyz(self, request: Request) -> Response:
        if self.stopping:
            raise ProblemError("stopping", "the service is stopping", 5)
        if self.queue.length >= self.settings.max_queue:
            raise ProblemError("queue-full", "the queue is full", 5)
        return PlainTextResponse("ready\n")

    async def _metrics(self, request: Request) -> Response:
        return Response(self.metrics.text(), media_type=MEDIA_TYPE)

    async def _openapi(self, request: Request) -> Response:
        document = openapi_document(self.networks.names)
        return Response(json.dumps(document, indent=1), media_type="application/json")


def _answering(
    path: str,
    call: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """Return a route that answers its errors with problem documents."""

    async def answer(request: Request) -> Response:
        request.scope["vrdir.route"] = path
        try:
            return await call(request)
        except ClientDisconnect:
            raise
        except Exception as error:
            response = await handle_error(request, error)
            await drain(request.scope, request.receive)
            return response

    return answer


async def _in_thread(call: Callable[..., Any], *args: Any) -> Any:
    return await anyio.to_thread.run_sync(partial(call, *args))


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
