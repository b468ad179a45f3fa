"""What the tests of this room share: a real S3 server, small photos, a Ray cluster of two nodes."""

import io
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import TINY

from vrdir.cluster.work import Options
from vrdir.model.vrdir import VRDIR

pytest.importorskip("s3fs")
pytest.importorskip("pyarrow")


def photo(seed: int, file_format: str = "PNG", size: tuple[int, int] = (40, 32)) -> bytes:
    """Encode a smooth random image, with a comment of its seed in it."""
    generator = np.random.default_rng(seed)
    small = Image.fromarray(generator.integers(0, 255, (5, 5, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize(size, Image.Resampling.BICUBIC).save(buffer, file_format)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a tiny network."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny") / "weights"
    VRDIR(TINY).eval().save_pretrained(folder)
    return folder


@pytest.fixture
def options(tiny: Path) -> Options:
    """The options of a run with a tiny network."""
    return Options({"weights": str(tiny), "device": "cpu"})


def through(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use another S3 server, and wait little for its answers."""
    from vrdir.cluster import file_systems

    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setattr(file_systems, "TIMEOUT_S", 2)
    forget()


def started(begin: Callable[[], Any], after: Callable[[], None] | None = None) -> Any:
    """Start Ray by a function and return what that returns.

    Ray ends the start of a node that takes longer than some seconds, which happens on a busy
    machine: so it is tried three times. `after` tidies up after a failed try.
    """
    import ray

    reason: BaseException | None = None
    for _ in range(3):
        try:
            return begin()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # Ray exits the program where it cannot start
            reason = error
            (after or ray.shutdown)()
    return may_not_start(f"this machine is too busy for Ray to start ({reason})")


def may_not_start(reason: str) -> NoReturn:
    """Skip a test if a cluster does not start; with VRDIR_TEST_RAY, as in its CI job, fail it."""
    if "VRDIR_TEST_RAY" in os.environ:
        pytest.fail(reason)
    pytest.skip(reason)


def paths_for_workers() -> None:
    """Let Ray's workers, which start in their own folders, import what the tests import."""
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "120")  # on a busy machine
    os.environ["PYTHONPATH"] = os.pathsep.join(str(Path(path).absolute()) for path in sys.path)


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """A real S3 server process; its address."""
    pytest.importorskip("moto.server")
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    give_up = time.monotonic() + 300  # a busy machine takes minutes
    while time.monotonic() < give_up:
        try:
            urllib.request.urlopen(f"{address}/moto-api/", timeout=5).close()
            break
        except OSError:
            time.sleep(0.1)
    yield address
    server.kill()
    server.wait()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty bucket's address."""
    from vrdir.cluster import file_systems

    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    forget()
    name = f"bucket-{os.urandom(6).hex()}"
    system, _ = file_systems.open_storage("s3://x")
    system.mkdir(name)
    return f"s3://{name}"


def forget() -> None:
    """Forget file systems, which keep the credentials that they were made with."""
    import s3fs

    from vrdir.cluster import file_systems

    s3fs.S3FileSystem.clear_instance_cache()
    file_systems._file_system.cache_clear()
