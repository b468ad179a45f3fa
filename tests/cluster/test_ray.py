"""The Ray engine on a real cluster of two nodes: the same results, and none lost."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.conftest import paths_for_workers, photo, started

from vrdir.cluster import storage
from vrdir.cluster.account import Account
from vrdir.cluster.ray_settings import RaySettings
from vrdir.cluster.run import restore_addresses
from vrdir.cluster.work import Options
from vrdir.restoring.restorer import Restorer

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.skipif(
    "VRDIR_TEST_RAY" not in os.environ, reason="minutes; set VRDIR_TEST_RAY=1 to run it"
)
SETTINGS = RaySettings(workers=(2, 2), batch=4)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of two nodes with two cores each."""
    from ray.cluster_utils import Cluster

    paths_for_workers()

    def begin() -> Any:
        head = {"num_cpus": 2, "include_dashboard": False}
        made = Cluster(initialize_head=True, head_node_args=head)
        made.add_node(num_cpus=2)
        return made

    made = started(begin)
    yield made
    ray.shutdown()
    made.shutdown()


def crash_at_some_images() -> None:
    """Let a worker end at an image named crash.png, as at one that a decoder fails on."""
    from vrdir.cluster import storage

    read = storage.read

    def reading(address: str, size: int | None = None) -> bytes:
        if address.endswith("crash.png"):
            os.kill(os.getpid(), signal.SIGKILL)
        return read(address, size)

    storage.read = reading


@pytest.fixture
def connected(cluster: Any, bucket: str) -> Iterator[str]:
    """The cluster, whose workers know the bucket's server; its address."""
    names = [name for name in os.environ if name.startswith("AWS_")]
    ray.init(
        cluster.address,
        log_to_driver=False,
        runtime_env={
            "env_vars": {name: os.environ[name] for name in names},
            "worker_process_setup_hook": crash_at_some_images,
        },
    )
    yield cluster.address
    ray.shutdown()


def fill(bucket: str, count: int, size: tuple[int, int] = (40, 32)) -> list[str]:
    """Put images into a bucket and return their names."""
    names = [
        f"{number % 3}/{number:03}.{'png' if number % 2 else 'jpg'}" for number in range(count)
    ]
    for number, name in enumerate(names):
        content = photo(number, "PNG" if number % 2 else "JPEG", size)
        storage.write(f"{bucket}/in/{name}", content)
    return names


def test_results_match_one_machine(bucket: str, connected: str, tiny: Path) -> None:
    names = fill(bucket, 10)
    options = Options({"weights": str(tiny), "device": "cpu"})
    there = list(
        restore_addresses([f"{bucket}/in"], f"{bucket}/ray", options, engine="ray", ray=SETTINGS)
    )
    list(restore_addresses([f"{bucket}/in"], f"{bucket}/here", options))
    assert len(there) == len(names)
    for name in names:
        assert storage.read(f"{bucket}/ray/{name}") == storage.read(f"{bucket}/here/{name}"), name
    assert [row.status for row in Account(f"{bucket}/ray").rows()] == ["restored"] * len(names)


def test_data_sets(bucket: str, connected: str, tiny: Path) -> None:
    from vrdir.cluster import restore

    dataset = ray.data.from_items([{"id": number, "image": photo(number)} for number in range(6)])
    rows = restore(dataset, settings=SETTINGS, weights=str(tiny), device="cpu").take_all()
    restorer = Restorer(tiny, "cpu")
    for row in rows:
        assert row["image"] == restorer(photo(row["id"]))
        assert row["vrdir_error"] == ""


def workers() -> list[int]:
    """Return the process numbers of this program's workers that restore."""
    listed = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    )
    lines = [line.split(None, 2) for line in listed.stdout.splitlines()]
    parents = {int(line[0]): int(line[1]) for line in lines}

    def is_ours(number: int) -> bool:
        while number > 1 and number != os.getpid():
            number = parents.get(number, 0)
        return number == os.getpid()

    names = {int(line[0]): line[2] for line in lines if len(line) > 2}
    found = [number for number, name in names.items() if re.match("ray::.*Worker", name)]
    return [number for number in found if is_ours(number)]


def test_killed_workers_lose_nothing(bucket: str, connected: str, tiny: Path) -> None:
    names = fill(bucket, 24, (96, 80))
    options = Options({"weights": str(tiny), "device": "cpu"})
    rows = restore_addresses([f"{bucket}/in"], f"{bucket}/out", options, engine="ray", ray=SETTINGS)
    finished = [next(rows)]
    os.kill(workers()[0], signal.SIGKILL)
    finished += rows
    assert {row.status for row in finished} == {"restored"}
    check_account(bucket, names)


def test_an_image_that_ends_its_workers_is_set_aside(
    bucket: str, connected: str, tiny: Path
) -> None:
    names = fill(bucket, 10)
    storage.write(f"{bucket}/in/crash.png", photo(1))
    options = Options({"weights": str(tiny), "device": "cpu"})
    inputs, output = [f"{bucket}/in"], f"{bucket}/out"
    rows = list(restore_addresses(inputs, output, options, engine="ray", ray=SETTINGS))
    (lost,) = [row for row in rows if row.status != "restored"]
    assert (lost.source, lost.status) == (f"{bucket}/in/crash.png", "failed")
    assert "2 workers were lost while each restored this image alone" in lost.error
    assert {row.target for row in rows} - {lost.target} == {f"{output}/{name}" for name in names}
    again = restore_addresses(inputs, output, options, resume=True, engine="ray", ray=SETTINGS)
    assert list(again) == []


DRIVER = """
import sys
import ray
from vrdir.cluster.ray_settings import RaySettings
from vrdir.cluster.run import restore_addresses
from vrdir.cluster.work import Options
address, bucket, weights, names = sys.argv[1:]
import os
variables = {name: os.environ[name] for name in names.split(",")}
ray.init(address, log_to_driver=False, runtime_env={"env_vars": variables})
options = Options({"weights": weights, "device": "cpu"})
rows = restore_addresses([f"{bucket}/in"], f"{bucket}/out", options, resume=True, engine="ray",
    ray=RaySettings(workers=(2, 2), batch=4))
for row in rows:
    print(row.target, flush=True)
"""


def test_killed_driver_resumes(bucket: str, cluster: Any, tiny: Path) -> None:
    names = fill(bucket, 24, (96, 80))
    variables = ",".join(name for name in os.environ if name.startswith("AWS_"))
    command = [sys.executable, "-c", DRIVER, cluster.address, bucket, str(tiny), variables]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    assert running.stdout.readline()
    running.kill()
    running.wait()
    time.sleep(1)
    before = len(Account(f"{bucket}/out").rows())
    again = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    assert len(again.stdout.splitlines()) <= len(names) - before
    check_account(bucket, names)


def test_lost_node_loses_no_results(bucket: str, cluster: Any, connected: str, tiny: Path) -> None:
    names = fill(bucket, 24, (96, 80))
    third = started(lambda: cluster.add_node(num_cpus=2), after=lambda: None)
    cluster.wait_for_nodes()
    options = Options({"weights": str(tiny), "device": "cpu"})
    rows = restore_addresses(
        [f"{bucket}/in"],
        f"{bucket}/out",
        options,
        engine="ray",
        ray=RaySettings(workers=(5, 5), batch=4),
    )
    next(rows)
    cluster.remove_node(third, allow_graceful=False)
    list(rows)
    check_account(bucket, names)


def check_account(bucket: str, names: list[str]) -> None:
    """Check that each image is in the account once, restored, and is what it says."""
    rows = Account(f"{bucket}/out").rows()
    assert [row.target for row in rows] == sorted(f"{bucket}/out/{name}" for name in names)
    for row in rows:
        assert row.status == "restored", row.error
        assert sha256(storage.read(row.target)).hexdigest() == row.target_sha256
