"""Training data at addresses: copied once, again where it changed, in a folder with a limit."""

import logging
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.conftest import photo
from typer.testing import CliRunner

from vrdir.cli.app import app
from vrdir.cli.copies import list_here
from vrdir.cluster import file_systems, storage
from vrdir.cluster.copies import Copies
from vrdir.data.items import items_of
from vrdir.data.pairs import checked_pairs
from vrdir.errors import DataError, MissingFileError


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that were fetched, as the real function does."""
    asked: list[str] = []
    fetch = storage.fetch

    def noting(address: str, path: Path, size: int | None = None) -> None:
        asked.append(address)
        fetch(address, path, size)

    monkeypatch.setattr(storage, "fetch", noting)
    return asked


def fill(bucket: str, count: int = 3) -> dict[str, bytes]:
    files = {f"a/{number}.png": photo(number) for number in range(count)}
    for name, content in files.items():
        storage.write(f"{bucket}/in/{name}", content)
    storage.write(f"{bucket}/in/notes.txt", b"notes")
    return files


def read_all(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_images_are_copied_once(bucket: str, tmp_path: Path, fetched: list[str]) -> None:
    files = fill(bucket)
    folder = Copies(10**9, tmp_path).images(f"{bucket}/in")
    assert read_all(folder) == files
    assert Copies(10**9, tmp_path).images(f"{bucket}/in") == folder
    assert len(fetched) == len(files)


def test_changed_files_are_copied_again(bucket: str, tmp_path: Path, fetched: list[str]) -> None:
    files = fill(bucket)
    folder = Copies(10**9, tmp_path).images(f"{bucket}/in")
    other = bytearray(files["a/1.png"])
    other[-20] ^= 1  # the same size
    storage.write(f"{bucket}/in/a/1.png", bytes(other))
    file_systems.open_storage(bucket)[0].rm_file(f"{bucket}/in/a/2.png")
    (folder / "a" / "0.png").write_bytes(b"damaged")
    fetched.clear()
    Copies(10**9, tmp_path).images(f"{bucket}/in")
    assert read_all(folder) == {"a/0.png": files["a/0.png"], "a/1.png": bytes(other)}
    assert sorted(fetched) == [f"{bucket}/in/a/0.png", f"{bucket}/in/a/1.png"]


def test_interrupted_copy_continues(
    bucket: str, tmp_path: Path, fetched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = fill(bucket, 6)
    fetch = storage.fetch

    def failing(address: str, path: Path, size: int | None = None) -> None:
        if address.endswith("/4.png"):
            path.write_bytes(b"half")
            raise KeyboardInterrupt
        fetch(address, path, size)

    with monkeypatch.context() as patched:
        patched.setattr(storage, "fetch", failing)
        patched.setattr("vrdir.cluster.copies.THREADS", 1)
        with pytest.raises(KeyboardInterrupt):
            Copies(10**9, tmp_path).images(f"{bucket}/in")
    done = len(fetched)
    assert 0 < done < len(files)
    assert not list(tmp_path.rglob("*.partial"))
    folder = Copies(10**9, tmp_path).images(f"{bucket}/in")
    assert read_all(folder) == files
    assert len(fetched) == len(files)  # none twice


def test_folder_keeps_its_limit(bucket: str, tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("two", 2), ("three", 3)):
        storage.write(f"{bucket}/{name}/1.png", photo(seed))
    size = max(len(photo(seed)) for seed in (1, 2, 3))
    copies = Copies(int(2.5 * size), tmp_path)
    one, two = (copies.images(f"{bucket}/{name}") for name in ("one", "two"))
    copies.images(f"{bucket}/one")  # used later than two
    three = copies.images(f"{bucket}/three")
    assert (one.exists(), two.exists(), three.exists()) == (True, False, True)
    with pytest.raises(DataError, match=r"has 0\.00 GB of images, .* raise --copies-gb"):
        Copies(size // 2, tmp_path).images(f"{bucket}/one")


@pytest.mark.parametrize("where", ["at an address", "here"])
def test_pair_lists(bucket: str, tmp_path: Path, where: str) -> None:
    fill(bucket)
    (tmp_path / "local.png").write_bytes(photo(9))
    distant = "a/1.png" if where == "at an address" else f"{bucket}/in/a/1.png"
    lines = f"# list\n\n{bucket}/in/a/0.png | {distant}\n@noise:sigma=5|{bucket}/in/a/2.png\n"
    if where == "here":
        lines += f"local.png|{bucket}/in/a/1.png\n"
        path = str(tmp_path / "list.txt")
        Path(path).write_text(lines)
    else:
        path = f"{bucket}/in/list.txt"
        storage.write(path, lines.encode())
    pairs = checked_pairs(Copies(10**9, tmp_path / "copies").pairs(path))
    assert [pair.line for pair in pairs] == [3, 4, 5][: len(pairs)]
    assert [pair.synthesis for pair in pairs][:2] == ["", "noise:sigma=5"]
    assert pairs[0].degraded is not None
    assert pairs[0].degraded.read_bytes() == photo(0)
    assert pairs[0].clean.read_bytes() == photo(1)
    assert pairs[1].clean.read_bytes() == photo(2)
    if where == "here":
        assert pairs[2].degraded == tmp_path / "local.png"


def test_names_and_lists_of_this_machine(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fill(bucket)
    storage.write(f"{bucket}/in/x=1/list.txt", f"@clean|{bucket}/in/a/0.png\n".encode())
    item = items_of(None, [list_here(f"noise={bucket}/in/x=1/list.txt", 1)], ["noise"])[0]
    assert item.clean.read_bytes() == photo(0)
    (tmp_path / "own.txt").write_text("@clean|a.png\n")
    assert list_here(f"rain={tmp_path}/own.txt", 1) == f"rain={tmp_path}/own.txt"
    storage.write(f"{bucket}/in/bad.txt", f"{bucket}/in/none.png|{bucket}/in/a/0.png".encode())
    with pytest.raises(MissingFileError, match=r"s3://.*/in/none\.png does not exist"):
        list_here(f"{bucket}/in/bad.txt", 1)


def test_training_reads_a_bucket(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    pytest.importorskip("lightning_fabric")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for number in range(4):
        storage.write(f"{bucket}/in/{number}.png", photo(number, size=(80, 72)))
    command = ["train", "decoder", "--recipe", "smoke", "--clean", f"{bucket}/in", "--steps", "1"]
    command += ["--validation-photos", "1", "--device", "cpu", "--work-dir", str(tmp_path / "run")]
    caplog.set_level(logging.INFO)
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "copying 4 files" in caplog.text
    assert (tmp_path / "run" / "data.txt").read_text().count("vrdir/data") == 4
