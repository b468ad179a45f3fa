"""The Ray engine on one node, quick enough for every run of the tests."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.conftest import paths_for_workers, photo, started
from typer.testing import CliRunner

from vrdir.cli.app import app
from vrdir.cluster import storage
from vrdir.cluster.account import Account
from vrdir.cluster.ray_pool import divide, map_in_actors, own_errors
from vrdir.cluster.ray_settings import RaySettings
from vrdir.cluster.run import restore_addresses
from vrdir.cluster.work import Options
from vrdir.errors import DataError, MissingFileError

ray = pytest.importorskip("ray")
pandas = pytest.importorskip("pandas")
ROOT = Path(__file__).parents[2]
NETS = """
import numpy as np

def by_brightness(images):
    return np.array([[0.0, 2.0] if image.mean() > 120 else [2.0, 0.0] for image in images])

by_brightness.classes = ["dark", "bright"]

def fails(images):
    return "no scores"

fails.classes = ["dark", "bright"]

def same(image):
    return image
"""


@pytest.fixture(scope="module")
def node() -> Iterator[None]:
    """Ray on this machine, in whose workers this program's paths are known."""
    paths_for_workers()
    started(
        lambda: ray.init(
            "local",  # not a cluster of another program
            num_cpus=2,
            num_gpus=1,  # Ray does not look whether it is there
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            object_store_memory=100 * 2**20,
        )
    )
    yield
    ray.shutdown()


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: photos and dimmer ones, lists of them, and a recogniser."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    (tmp_path / "nets.py").write_text(NETS)
    for label, seeds in (("dark", range(3)), ("bright", range(3, 7))):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for seed in seeds:
            (tmp_path / "photos" / label / f"{seed}.png").write_bytes(photo(seed))
    lines = [f"@noise:sigma={10 + n}|photos/dark/{n % 3}.png\n" for n in range(7)]
    (tmp_path / "one.txt").write_text("".join(lines))
    (tmp_path / "two.txt").write_text("nowhere.png|photos/dark/1.png\n" + "".join(lines[:2]))
    return tmp_path


def test_results_match_one_machine(node: None, files: Path, tiny: Path) -> None:
    # Paths are relative to this program's folder, not to those of Ray's workers.
    shutil.copytree(tiny, files / "mine")
    options = Options({"weights": "mine", "device": "cpu"})
    rows = list(restore_addresses(["photos"], "there", options, engine="ray"))
    list(restore_addresses(["photos"], "here", options))
    assert {row.status for row in rows} == {"restored"}
    for name in [f"dark/{n}.png" for n in range(3)] + [f"bright/{n}.png" for n in range(3, 7)]:
        assert storage.read(str(files / "there" / name)) == storage.read(str(files / "here" / name))
    assert len(Account(str(files / "there")).rows()) == 7


def evaluate(*arguments: object) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments), "--json"])
    assert result.stdout, result.stderr
    return {"exit": result.exit_code, **json.loads(result.stdout)}


ON_RAY = ("--engine", "ray", "--workers", "2", "--batch", "2")


def test_restoration_has_the_same_figures(node: None, files: Path, tiny: Path) -> None:
    given = ("restoration", "--pairs", "one.txt", "--pairs", "two.txt", "--weights", tiny)
    here = evaluate(*given, "--device", "cpu")
    assert evaluate(*given, *ON_RAY) == here
    assert here["exit"] == 1  # a pair is excluded
    assert [len(found["images"]) for found in here["sets"]] == [7, 2]


def test_recognition_has_the_same_figures(node: None, files: Path, tiny: Path) -> None:
    given = ("classification", "--data", "photos", "--recogniser", "nets:by_brightness")
    given += ("--with", "noise:sigma=40", "--weights", str(tiny), "--bootstrap", "50")
    here = evaluate(*given, "--device", "cpu")
    assert evaluate(*given, *ON_RAY) == here


def test_workers_share_a_gpu(node: None) -> None:
    def gpus() -> Any:
        return lambda item: (item, os.environ.get("CUDA_VISIBLE_DEVICES"))

    halves = RaySettings(workers=(2, 2), gpus=0.5, batch=1)
    assert list(divide(gpus, [1, 2, 3], halves)) == [(1, "0"), (2, "0"), (3, "0")]


def test_errors_of_workers_have_no_traceback(node: None) -> None:
    class Failing:
        def __call__(self, batch: Any) -> Any:
            raise DataError("it is wrong")

    one = RaySettings(workers=(1, 1))
    mapped = map_in_actors(ray.data.range(1), Failing, {}, one, None)
    with pytest.raises(DataError) as raised, own_errors():
        mapped.take_all()
    assert str(raised.value) == "it is wrong"


def test_worker_errors_are_one_line(node: None, files: Path) -> None:
    with pytest.raises(MissingFileError, match="no folder /nowhere; the files must have the same"):
        list(divide(lambda: abs, [1], RaySettings(workers=(1, 1)), "/nowhere"))
    given = ["classification", "--data", "photos", "--recogniser", "nets:fails", *ON_RAY]
    result = CliRunner().invoke(
        app, ["evaluate", *given, "--no-vrdir", "--restorer", "a=nets:same"]
    )
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr
