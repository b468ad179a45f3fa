"""Loading with torch.hub, and upload to and download from a Hugging Face hub that runs here."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from vrdir import Restorer
from vrdir.model.vrdir import VRDIR

ROOT = Path(__file__).parents[1]


def test_torch_hub_loads_from_a_checkout(weights: Path, photo: Image.Image) -> None:
    restorer = torch.hub.load(str(ROOT), "restorer", str(weights), device="cpu", source="local")
    assert np.array_equal(np.asarray(restorer(photo)), np.asarray(Restorer(weights, "cpu")(photo)))
    network = torch.hub.load(str(ROOT), "network", str(weights), source="local")
    assert torch.equal(
        network(torch.full((1, 3, 9, 9), 0.5)),
        VRDIR.from_pretrained(weights)(torch.full((1, 3, 9, 9), 0.5)),
    )
    fresh = torch.hub.load(str(ROOT), "network", str(weights), pretrained=False, source="local")
    assert fresh.config == network.config
    fronted = torch.hub.load(
        str(ROOT),
        "restore_before",
        torch.nn.Identity(),
        str(weights),
        source="local",
        device="cpu",
        range=1,
    )
    assert fronted(torch.rand(1, 3, 9, 9)).shape == (1, 3, 9, 9)


class Hub(BaseHTTPRequestHandler):
    """A server that accepts a repository and a commit as huggingface.co does."""

    files: dict[str, bytes]
    created: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != "Bearer right":
            return self.answer({"error": "Invalid username or password."}, 401)
        if self.path.endswith("/create"):
            self.created.append(json.loads(body))
            return self.answer({"url": self.address(), "name": "me/net"})
        if "/preupload/" in self.path:
            regular = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            return self.answer(
                {"files": [{"path": one["path"], **regular} for one in json.loads(body)["files"]]}
            )
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        return self.answer(
            {
                "success": True,
                "commitOid": "abc",
                "commitUrl": f"{self.address()}/commit/abc",
                "hookOutput": "",
            }
        )

    def address(self) -> str:
        return f"http://localhost:{cast(ThreadingHTTPServer, self.server).server_port}/me/net"

    def answer(self, content: dict[str, Any], status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    constants = pytest.importorskip("huggingface_hub.constants")
    kind = type("Hub", (Hub,), {"files": {}, "created": []})
    server = ThreadingHTTPServer(("localhost", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://localhost:{server.server_port}")
    yield kind
    server.shutdown()
    server.server_close()


def test_weights_are_uploaded_to_a_hub(tiny: VRDIR, hub: type[Hub], tmp_path: Path) -> None:
    assert tiny.push_to_hub("me/net", private=True, token="right").endswith("/me/net/commit/abc")
    assert hub.created[0]["name"] == "net"
    assert (
        hub.created[0].get("private") or hub.created[0]["visibility"] == "private"
    )  # by the package's version
    for name, content in hub.files.items():
        (tmp_path / name).write_bytes(content)
    again = VRDIR.from_pretrained(tmp_path)
    image = torch.rand(1, 3, 20, 30)
    assert torch.equal(again(image), tiny(image))
    with pytest.raises(
        ValueError,
        match=r"'me/net' could not be uploaded to the Hugging Face hub: .*; log in with hf auth",
    ):
        tiny.push_to_hub("me/net", token="wrong")
