"""How `benchmarks/fuzz.py` reads a file of each kind: as vrdir's own commands do."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.fuzz_files import MANIFEST

HOST = (b"host", b"127.0.0.1")


def read_image(file: Path) -> None:
    """Open an image and encode it again in its own format."""
    from vrdir.images.convert import open_image

    opened = open_image(file.read_bytes())
    opened.close(opened.tensor)


def read_video(file: Path) -> None:
    """Read all frames of a video and write those that decode, with the sound."""
    from vrdir.video.reading import VideoReader
    from vrdir.video.writing import VideoWriter

    target = file.with_name("written.mkv")
    with VideoReader(file) as reader, VideoWriter(target, reader) as writer:
        for frame in reader.frames(writer.copy):
            if frame.pixels is not None:
                writer.write(frame.pixels, frame)


def read_weights(file: Path) -> None:
    """Load a weights folder."""
    from vrdir.model.vrdir import VRDIR

    VRDIR.from_pretrained(file.parent)


def read_labels(file: Path) -> None:
    """Read labels as `vrdir evaluate` does."""
    from vrdir.evaluation.recognition.labels.classification import read_classification
    from vrdir.evaluation.recognition.labels.detection import read_detection

    if file.suffix == ".csv":
        read_classification(file)
    elif file.suffix == ".json":
        read_detection(file)
    else:
        for other in file.parent.glob("*.txt" if file.suffix == ".xml" else "*.xml"):
            other.unlink()
        read_detection(file.parent)


def read_pairs(file: Path) -> None:
    """Read a pair list, and look at its images."""
    from vrdir.data.pairs import checked_pairs

    checked_pairs(file)


def read_yaml(file: Path) -> None:
    """Read a recipe."""
    from vrdir.training.settings import Recipe

    Recipe.read(file)


def read_manifest(file: Path) -> None:
    """Resume a run, and check that no file but its own temporary ones is removed."""
    from vrdir.batch.manifest import Manifest

    before = {other.name for other in file.parent.iterdir()}
    with Manifest(file.parent, "restore", MANIFEST) as manifest:
        for target in sorted(file.parent.glob("*.[pj]*")):
            source = file.parent / f"source-{target.name}"
            if manifest.is_done(source, target):
                manifest.shares(target)
            manifest.is_own(source, target)
        manifest.sweep([file.parent])
    lost = before - {other.name for other in file.parent.iterdir()}
    if lost:
        raise AssertionError(f"resuming removed {lost}")


def read_export(file: Path) -> None:
    """Open an exported network and run it once."""
    import torch

    from vrdir.export.exported_model import ExportedModel

    main = file.with_suffix(".xml") if file.suffix == ".bin" else file
    network = ExportedModel(main, "openvino" if main.suffix == ".xml" else "onnx")
    network.restore(torch.full((1, 3, 16, 16), 0.5))


def read_cluster(file: Path) -> None:
    """Read a list of addresses, the account of a run, or a shard."""
    from vrdir.cluster.account import FOLDER, Account
    from vrdir.cluster.listing import Source, sources
    from vrdir.cluster.shards import restore_shard
    from vrdir.cluster.work import Options

    if file.suffix == ".txt":
        list(sources([str(file)]))
    elif file.name.startswith("shard"):
        source = Source(str(file), file.name, file.stat().st_size)
        rows = restore_shard(_gate(), source, str(file.parent / "out"), Options({}))
        for row in rows:  # a failure that is not the family's is noted with its type
            if re.match(r"[A-Z]\w*: ", row.error):
                raise AssertionError(row.error)
    else:
        folder = file.parent / FOLDER
        folder.mkdir()
        for part in [*file.parent.glob("*.json"), *file.parent.glob("part-*")]:
            part.rename(folder / part.name)
        account = Account(str(file.parent))
        account.begin({"weights": "small", "max_side": None}, resume=True)
        account.finished()
        account.rows()


@cache
def _gate() -> Any:
    from vrdir.cluster.work import Gate
    from vrdir.restoring.restorer import Restorer

    return Gate(Restorer(device="cpu"), 1)


def read_request(file: Path) -> None:
    """Send a request or a frame to the service, and raise if it fails by a bug."""
    content = file.read_bytes()
    if file.suffix == ".frame":
        asyncio.run(_stream(content))
        return
    line, _, body = content.partition(b"\n")
    try:
        head = json.loads(line)
        headers = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in head["headers"].items()]
        path, query = str(head["path"]), str(head["query"]).encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        headers, path, query, body = [], "/v1/restore", b"", content  # all of it is the body
    scope = _scope("http") | {"path": path, "query_string": query, "headers": [HOST, *headers]}
    status, answer = asyncio.run(_answer(scope | {"method": "POST"}, body))
    if not status or b"internal-error" in answer:
        raise AssertionError(f"status {status}: {answer[:200]!r}")
    if status >= 400:
        _refuse(answer)


@cache
def _application() -> Any:
    from vrdir.serving.networks import Networks
    from vrdir.serving.service import Service
    from vrdir.serving.settings import ServeSettings

    settings = ServeSettings(max_megapixels=0.5, deadline=30)
    return Service(Networks(device="cpu"), settings).application()


def _scope(kind: str) -> dict[str, Any]:
    return {
        "type": kind,
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 50000),
        "root_path": "",
        "path": "/v1/stream",
        "query_string": b"",
        "headers": [HOST],
    }


async def _answer(scope: dict[str, Any], body: bytes) -> tuple[int, bytes]:
    """Return the status and the body of the service's answer to a request."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if waiting:
            return waiting.pop()
        await asyncio.Event().wait()  # the client stays
        return {}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await _application()(scope, receive, send)
    status = next((message["status"] for message in sent if "status" in message), 0)
    return status, b"".join(message.get("body", b"") for message in sent)


async def _stream(frame: bytes) -> None:
    """Send a frame to the stream and wait for the answer."""
    answered = asyncio.Event()
    waiting: list[dict[str, Any]] = [
        {"type": "websocket.receive", "bytes": frame},
        {"type": "websocket.connect"},
    ]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if not waiting:
            await answered.wait()
            return {"type": "websocket.disconnect", "code": 1000}
        return waiting.pop()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)
        if message["type"] != "websocket.accept":
            answered.set()

    await _application()(_scope("websocket"), receive, send)
    texts = [json.loads(message["text"]) for message in sent if message.get("text")]
    if not texts or "internal-error" in str(texts):
        raise AssertionError(f"no answer to a frame: {sent}")
    if "problem" in texts[0]:
        _refuse(b"frame")


def _refuse(answer: bytes) -> None:
    from vrdir.errors import InputError

    raise InputError(answer[:100].decode("latin-1"))


READERS: dict[str, Callable[[Path], None]] = {
    "images": read_image,
    "videos": read_video,
    "weights": read_weights,
    "labels": read_labels,
    "pairs": read_pairs,
    "yaml": read_yaml,
    "manifests": read_manifest,
    "exports": read_export,
    "cluster": read_cluster,
    "requests": read_request,
}
