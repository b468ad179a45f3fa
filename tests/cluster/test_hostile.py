"""Buckets and machines as they should not be: odd names, full disks, two programs at once.

Each image is restored once or has a row that says why not; nothing is half written.
"""

import http.server
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from tests.cluster.conftest import photo, through
from tests.cluster.faults import proxy
from typer.testing import CliRunner

from vrdir.cli.app import app
from vrdir.cluster import attempts, claim, file_systems, listing, storage
from vrdir.cluster.account import Account, Keys, Row
from vrdir.cluster.claim import Claim
from vrdir.cluster.run import restore_addresses
from vrdir.cluster.work import Options
from vrdir.errors import ExistsError, InputError, NotPermittedError
from vrdir.restoring.restorer import Restorer

ODD = (
    "a b.png",
    "tuман é.png",
    "100%.png",
    "a%2Fb.png",
    "a+b&c=d.png",
    "what?.png",
    "what?too.png",
    "no#1.png",
    "[1].png",
    "*.png",
    "~.png",
    "back\\slash.png",
    "quote'\".png",
    "bell\a\x1b[31m.png",
    "UPPER.PNG",
)


@pytest.mark.parametrize("engine", ["bucket", "folder"])
def test_odd_names(bucket: str, options: Options, tiny: Path, tmp_path: Path, engine: str) -> None:
    root = bucket if engine == "bucket" else f"file://{tmp_path}"
    for number, name in enumerate(ODD):
        storage.write(f"{root}/in/{name}", photo(number))
    rows = list(restore_addresses([f"{root}/in"], f"{root}/out", options))
    assert {row.source: row.error for row in rows} == {f"{root}/in/{name}": "" for name in ODD}
    restorer = Restorer(tiny, "cpu")
    for number, name in enumerate(ODD):
        assert storage.read(f"{root}/out/{name}") == restorer(photo(number)), name
    assert list(restore_addresses([f"{root}/in"], f"{root}/out", options, resume=True)) == []
    single = restore_addresses([f"{root}/in/[1].png"], f"{root}/single", options)
    assert [row.error for row in single] == [""]  # its name is no pattern


def test_odd_names_are_one_line_each(bucket: str, tiny: Path) -> None:
    storage.write(f"{bucket}/in/bell\a\x1b[2J.png", b"no image")
    given = ["restore", f"{bucket}/in", "-o", f"{bucket}/out", "--weights", str(tiny)]
    result = CliRunner().invoke(app, [*given, "--device", "cpu"])
    assert result.exit_code == 1, result.output
    assert "\x1b" not in result.stderr
    said = "".join(result.stderr.split("\n"))
    assert "bell\\x07\\x1b[2J.png" in said
    (row,) = Account(f"{bucket}/out").rows()
    assert (row.source, row.status) == (f"{bucket}/in/bell\a\x1b[2J.png", "failed")


def test_names_that_lead_elsewhere_stay_below_the_output(
    bucket: str, options: Options, tmp_path: Path
) -> None:
    system = file_systems.open_storage(bucket)[0]
    keys = ["in/../../up.png", "in//double.png", "in//etc/root.png", "in/./dot.png"]
    for number, key in enumerate(keys):
        system.call_s3("put_object", Bucket=bucket[5:], Key=key, Body=photo(number))
    output = tmp_path / "a" / "b" / "out"
    rows = list(restore_addresses([f"{bucket}/in"], str(output), options))
    assert len(rows) == len(keys)
    written = {path.relative_to(output).as_posix() for path in output.rglob("*.png")}
    restored = {row.target for row in rows if row.status == "restored"}
    assert written == {target.removeprefix(f"{output}/") for target in restored}
    assert {"double.png", "etc/root.png"} <= written <= {
        "double.png", "etc/root.png", "up.png", "dot.png",
    }  # fmt: skip
    assert not [path for path in tmp_path.rglob("*.png") if not path.is_relative_to(output)]


def test_what_is_no_image_is_quarantined(bucket: str, options: Options) -> None:
    for name, content in {
        "empty.png": b"",
        "text.jpg": b"<html>not found</html>",
        "cut.png": photo(1)[:200],
        "good.png": photo(2),
    }.items():
        storage.write(f"{bucket}/in/{name}", content)
    rows = list(restore_addresses([f"{bucket}/in"], f"{bucket}/out", options))
    status = {row.source.rpartition("/")[2]: row.status for row in rows}
    bad = {"empty.png": "failed", "text.jpg": "failed", "cut.png": "failed"}
    assert status == {**bad, "good.png": "restored"}
    assert all(row.error for row in rows if row.status == "failed")
    names = [info["name"] for info in images_in(f"{bucket}/out")]
    assert names == [f"{bucket[5:]}/out/good.png"]
    assert list(restore_addresses([f"{bucket}/in"], f"{bucket}/out", options, resume=True)) == []


def images_in(address: str) -> list[dict[str, Any]]:
    """Return what is below an address, without the account."""
    system, path = file_systems.open_storage(address)
    return [info for info in listing.below(system, path, address) if "/.vrdir" not in info["name"]]


def test_a_target_that_exists_is_tried_again_by_a_later_run(bucket: str, options: Options) -> None:
    storage.write(f"{bucket}/in/1.png", photo(1))
    storage.write(f"{bucket}/out/1.png", b"mine")
    inputs, output = [f"{bucket}/in"], f"{bucket}/out"
    (row,) = restore_addresses(inputs, output, options)
    assert (row.status, storage.read(f"{output}/1.png")) == ("exists", b"mine")
    replacing = options._replace(overwrite=True)
    (row,) = restore_addresses(inputs, output, replacing, resume=True)
    assert row.status == "restored"
    assert [row.status for row in Account(output).rows()] == ["restored"]


def test_a_target_that_is_a_folder(options: Options, tmp_path: Path) -> None:
    storage.write(str(tmp_path / "in" / "1.png"), photo(1))
    (tmp_path / "out" / "1.png").mkdir(parents=True)
    (row,) = restore_addresses([str(tmp_path / "in")], str(tmp_path / "out"), options)
    assert (row.status, "directory" in row.error) == ("failed", True), row.error
    assert not list((tmp_path / "out" / "1.png").iterdir())
    assert not list((tmp_path / "out").glob("*.partial"))


def test_the_longest_names(options: Options, tmp_path: Path) -> None:
    name = "n" * 251 + ".png"
    storage.write(str(tmp_path / "in" / name), photo(1))
    (row,) = restore_addresses([str(tmp_path / "in")], str(tmp_path / "out"), options)
    assert row.status == "restored", row.error


@pytest.mark.parametrize("place", ["bucket", "folder"])
def test_results_are_no_inputs(bucket: str, options: Options, tmp_path: Path, place: str) -> None:
    root = bucket if place == "bucket" else str(tmp_path)
    for number in range(3):
        storage.write(f"{root}/in/{number}.png", photo(number))
    inputs, output = [f"{root}/in"], f"{root}/in/out"
    assert len(list(restore_addresses(inputs, output, options))) == 3
    storage.write(f"{root}/in/3.png", photo(3))
    again = restore_addresses(inputs, output, options, resume=True)
    assert [row.source for row in again] == [f"{root}/in/3.png"]
    assert len(images_in(output)) == 4


def test_a_name_that_is_a_file_and_a_folder(bucket: str, options: Options) -> None:
    for key in ("in", "in/1.png", "a.png", "a.png/b.png"):
        storage.write(f"{bucket}/{key}", b"" if key == "in" else photo(1))
    rows = list(restore_addresses([f"{bucket}/in", f"{bucket}/a.png"], f"{bucket}/out", options))
    found = [row.target.removeprefix(f"{bucket}/out/") for row in rows if row.error == ""]
    assert found == ["1.png", "a.png", "b.png"]


def test_an_output_that_is_no_folder_is_refused(bucket: str, options: Options) -> None:
    storage.write(f"{bucket}/1.png", photo(1))
    for output in (f"{bucket}/clear.png", "clear.JPG", f"{bucket}/clear.tar"):
        with pytest.raises(InputError, match="has the name of a file; give a folder"):
            next(restore_addresses([f"{bucket}/1.png"], output, options))


def test_options_of_the_command(bucket: str, tiny: Path) -> None:
    storage.write(f"{bucket}/in/1.png", photo(1))
    given = ["restore", f"{bucket}/in", "-o", f"{bucket}/out", "--weights", str(tiny)]
    for more, problem in {
        ("--workers", "2"): "--workers has no effect without --engine ray",
        ("--engine", "ray", "--threads", "2"): "--threads has no effect with --engine ray",
        ("--side-by-side",): "--side-by-side has no effect for addresses",
    }.items():
        result = CliRunner().invoke(app, [*given, *more])
        assert result.exit_code == 2
        assert problem in " ".join(result.stderr.split())
    threads, limit = torch.get_num_threads(), Image.MAX_IMAGE_PIXELS
    try:
        result = CliRunner().invoke(
            app, [*given, "--device", "cpu", "--threads", "1", "--max-megapixels", "0.001"]
        )
        assert result.exit_code == 1, result.output
        (row,) = Account(f"{bucket}/out").rows()
        assert (row.status, "megapixels" in row.error) == ("failed", True), row.error
    finally:
        torch.set_num_threads(threads)
        Image.MAX_IMAGE_PIXELS = limit


class Redirecting(http.server.BaseHTTPRequestHandler):
    """A server of photos that have moved, and of some that are gone."""

    places: ClassVar = {
        "/moved.png": "/real/1.png",
        "/circle.png": "/circle.png",
        "/file.png": "file:///etc/hostname",
    }

    def do_GET(self) -> None:
        place = self.places.get(self.path)
        status = 302 if place else {"/gone.png": 404, "/removed.png": 410}.get(self.path, 200)
        content = photo(1) if status == 200 else b""
        if self.path == "/list.txt":
            names = (*self.places, "/gone.png", "/removed.png", "/1.png?key=secret")
            content = "".join(f"http://{self.headers['Host']}{name}\n" for name in names).encode()
        self.send_response(status)
        if place:
            self.send_header("Location", place)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


def test_lists_of_the_web(options: Options, tmp_path: Path) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Redirecting)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    root = f"http://127.0.0.1:{server.server_port}"
    try:
        rows = list(restore_addresses([f"{root}/list.txt"], str(tmp_path / "out"), options))
    finally:
        server.shutdown()
        server.server_close()
    found = {row.source.removeprefix(root): (row.status, row.error) for row in rows}
    no_place = "the server redirects in a circle, or to no valid address"
    assert found == {
        "/moved.png": ("restored", ""),
        "/circle.png": ("failed", f"{root}/circle.png: {no_place}"),
        "/file.png": ("failed", f"{root}/file.png: {no_place}"),
        "/gone.png": ("unreachable", f"{root}/gone.png does not exist"),
        "/removed.png": ("failed", f"{root}/removed.png: the server returns status 410"),
        "/1.png": ("restored", ""),
    }


@pytest.mark.parametrize("same", ["in", "in/", "S3A"])
def test_an_output_that_is_the_input_is_refused(bucket: str, options: Options, same: str) -> None:
    storage.write(f"{bucket}/in/1.png", photo(1))
    output = f"{bucket}/{same}" if same != "S3A" else f"{bucket.replace('s3', 's3a')}/in"
    replacing = options._replace(overwrite=True)
    with pytest.raises(InputError, match="would be written over itself; choose another output"):
        next(restore_addresses([f"{bucket}/in"], output, replacing))
    assert [info["name"] for info in images_in(f"{bucket}/in")] == [f"{bucket[5:]}/in/1.png"]


def test_two_images_with_one_target(bucket: str, options: Options, tiny: Path) -> None:
    for number, name in enumerate(("one/a.png", "two/a.png", "three/b.jpg", "three/b.webp")):
        storage.write(f"{bucket}/{name}", photo(number))
    inputs = [f"{bucket}/{name}" for name in ("one", "two", "three", "one")]
    as_png = options._replace(suffix=".png")
    rows = list(restore_addresses(inputs, f"{bucket}/out", as_png))
    assert [row.source.removeprefix(bucket) for row in rows] == [
        "/one/a.png", "/two/a.png", "/three/b.jpg", "/three/b.webp",
    ]  # fmt: skip
    assert [row.status for row in rows] == ["restored", "failed", "restored", "failed"]
    assert "as that of an image listed before it" in rows[1].error
    assert storage.read(f"{bucket}/out/a.png") == Restorer(tiny, "cpu")(photo(0))
    assert len(Account(f"{bucket}/out").rows()) == 4


def test_links_that_lead_around(options: Options, tmp_path: Path) -> None:
    storage.write(str(tmp_path / "in" / "a" / "1.png"), photo(1))
    (tmp_path / "in" / "a" / "up").symlink_to(tmp_path / "in")
    (row,) = restore_addresses([str(tmp_path / "in")], str(tmp_path / "out"), options)
    assert row.status == "restored"


def test_a_bucket_that_changes_while_it_is_listed(
    bucket: str, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "PAGE", 2)
    monkeypatch.setattr(attempts, "LONGEST_WAIT_S", 0.05)
    for number in range(8):
        storage.write(f"{bucket}/in/{number}.png", photo(number))
    pages = listing.sources([f"{bucket}/in"])
    listed = [next(pages), next(pages)]
    system = file_systems.open_storage(bucket)[0]
    system.rm_file(f"{bucket}/in/1.png")  # listed already
    system.rm_file(f"{bucket}/in/5.png")  # not listed yet
    storage.write(f"{bucket}/in/0.png", b"short")
    storage.write(f"{bucket}/in/9.png", photo(9))
    listed += pages
    monkeypatch.setattr(listing, "sources", lambda *_, **__: iter(listed))
    rows = {row.source[-5]: row for row in restore_addresses([bucket], f"{bucket}/out", options)}
    lost = {"0": "unreachable", "1": "unreachable"}
    assert {number: row.status for number, row in rows.items()} == {
        **dict.fromkeys("234679", "restored"), **lost,
    }  # fmt: skip
    assert "only 5 of" in rows["0"].error
    assert "does not exist" in rows["1"].error


def test_patterns_are_listed_by_pages(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PAGE", 2)
    for name in ("a/1.png", "a/2.jpg", "a/3.png", "a/b/4.png", "a/b/5.jpg", "b/6.png"):
        storage.write(f"{bucket}/{name}", b"content")
    for pattern, names in {
        "a/*.png": ["a/1.png", "a/3.png"],
        "a/**/*.png": ["a/1.png", "a/3.png", "a/b/4.png"],
        "*/[13-6].*": ["a/1.png", "a/3.png", "b/6.png"],
        "a/*/*.jpg": ["a/b/5.jpg"],
    }.items():
        found = [source.name for source in listing.sources([f"{bucket}/{pattern}"])]
        assert found == names, pattern
    with pytest.raises(InputError, match="is no pattern"):
        list(listing.sources([f"{bucket}/a/**.png"]))


# A program that restores, in a process of its own.
RUN = """
import sys
from vrdir.cluster.run import restore_addresses
from vrdir.cluster.work import Options
from vrdir.errors import VrdirError
inputs, output, weights, resume = sys.argv[1:]
options = Options({"weights": weights, "device": "cpu"})
try:
    for row in restore_addresses([inputs], output, options, resume=resume == "resume"):
        print(row.status, row.target, flush=True)
except VrdirError as error:
    print(f"{type(error).__name__}: {error}", flush=True)
"""


@pytest.mark.parametrize("resume", ["resume", "anew"])
def test_of_two_programs_one_restores(bucket: str, tiny: Path, resume: str) -> None:
    count = 40
    for number in range(count):
        storage.write(f"{bucket}/in/{number:02}.png", photo(number, size=(160, 120)))
    command = [sys.executable, "-c", RUN, f"{bucket}/in", f"{bucket}/out", str(tiny), resume]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted((program.communicate(timeout=240)[0].splitlines() for program in both), key=len)
    if resume == "anew" or len(said[0]) == 1:  # else the first was done before the second began
        (problem,) = said[0]
        assert "ExistsError" in problem
    done = [line for lines in said for line in lines if line.startswith("restored")]
    assert len(done) == len(set(done)) == count
    rows = Account(f"{bucket}/out").table(["source", "status"]).to_pylist()
    assert len(rows) == count
    assert not storage.exists(f"{bucket}/out/.vrdir-account/_driver.json")


def test_a_claim_of_a_dead_program_is_taken(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"{bucket}/out/_driver.json"
    with Claim(f"{bucket}/out"):
        first = json.loads(storage.read(address))
    assert not storage.exists(address)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead = {**first, "process": ended.pid}
    storage.write(address, json.dumps(dead).encode())
    start = time.monotonic()
    with Claim(f"{bucket}/out"):
        assert time.monotonic() - start < claim.SILENCE_S / 2  # it ran on this machine
    monkeypatch.setattr(claim, "SILENCE_S", 1.0)
    monkeypatch.setattr(claim, "RENEWED_EVERY_S", 0.5)
    for silent in (json.dumps({**first, "host": "another"}), "half a f"):
        storage.write(address, silent.encode())
        start = time.monotonic()
        with Claim(f"{bucket}/out"):
            assert time.monotonic() - start >= 1.0


def test_a_claim_that_is_renewed_is_kept(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "RENEWED_EVERY_S", 0.2)
    with (
        Claim(f"{bucket}/out"),
        pytest.raises(ExistsError, match=r"another program writes into s3://.* \(process"),
        Claim(f"{bucket}/out"),
    ):
        pass


def test_a_program_that_lost_its_claim_stops(
    bucket: str, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim, "RENEWED_EVERY_S", 0.1)
    for number in range(12):
        storage.write(f"{bucket}/in/{number}.png", photo(number))
    rows = restore_addresses([f"{bucket}/in"], f"{bucket}/out", options)
    next(rows)
    address = f"{bucket}/out/.vrdir-account/_driver.json"
    taken = json.dumps({"id": "other", "host": "elsewhere", "process": 7}).encode()
    for _ in range(60):  # the claim may be renewed just after it was taken
        storage.write(address, taken)
        time.sleep(0.05)
    with pytest.raises(ExistsError, match="process 7 on elsewhere"):
        list(rows)
    assert storage.read(address) == taken


@pytest.mark.parametrize("what", ["all", "reading"])
def test_credentials_that_expire(
    bucket: str,
    s3_server: str,
    options: Options,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    names = [f"{number:02}.png" for number in range(30)]
    for number, name in enumerate(names):
        storage.write(f"{bucket}/in/{name}", photo(number))
    read: list[str] = []

    def fault(method: str, path: str, asked: int) -> str:
        if method == "GET" and "/in/" in path:
            read.append(path)
        reading = method == "GET" and "/in/" in path
        return "expired" if len(read) > 15 and (reading or what == "all") else ""

    inputs, output, ended = [f"{bucket}/in"], f"{bucket}/out", ""
    rows: list[Row] = []
    with proxy(s3_server, fault) as faulty:
        through(faulty.address, monkeypatch)
        try:
            rows += restore_addresses(inputs, output, options)
        except NotPermittedError as error:
            ended = str(error)
    through(s3_server, monkeypatch)
    assert {row.status for row in rows} == {"restored", "unreachable"}
    said = ended if what == "all" else rows[-1].error
    assert "access denied; check the credentials" in said
    assert "expired" in said
    monkeypatch.setattr(claim, "SILENCE_S", 1.0)
    again = list(restore_addresses(inputs, output, options, resume=True))
    assert {row.status for row in again} == {"restored"}
    check_all(bucket, names)


def check_all(bucket: str, names: list[str]) -> None:
    """Check that each image is in the account once, restored, and is what it says."""
    rows = Account(f"{bucket}/out").rows()
    assert [row.target for row in rows] == [f"{bucket}/out/{name}" for name in sorted(names)]
    for row in rows:
        assert row.status == "restored", row.error
        assert sha256(storage.read(row.target)).hexdigest() == row.target_sha256


def test_a_target_that_may_not_be_written(
    bucket: str, s3_server: str, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write(f"{bucket}/in/1.png", photo(1))
    with proxy(s3_server, lambda method, *_: "denied" if method == "PUT" else "") as faulty:
        through(faulty.address, monkeypatch)
        with pytest.raises(NotPermittedError, match="access denied; check the credentials"):
            next(restore_addresses([f"{bucket}/in"], f"{bucket}/out", options))
    through(s3_server, monkeypatch)
    assert images_in(f"{bucket}/out") == []


SMALL_DISK = """
set -e
mount -t tmpfs -o size={size}k tmpfs {folder}
{before}
exec {python} -c "$PROGRAM" {arguments}
"""


def on_a_small_disk(
    folder: Path, program: str, *arguments: str, size: int = 64, before: str = ""
) -> str:
    """Run a Python program that sees a small disk in place of a folder; return what it prints."""
    if (
        shutil.which("unshare") is None
        or subprocess.run(
            ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", str(folder)], capture_output=True
        ).returncode
    ):
        pytest.skip("this machine lets no program mount a disk of its own")
    script = SMALL_DISK.format(
        size=size,
        folder=folder,
        before=before,
        python=sys.executable,
        arguments=shlex.join(arguments),
    )
    ended = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PROGRAM": program},
    )
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended.stdout


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A folder that `on_a_small_disk` replaces."""
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


def test_a_full_disk_stops_the_run(bucket: str, tiny: Path, disk: Path) -> None:
    for number in range(12):
        storage.write(f"{bucket}/in/{number}.png", photo(number, size=(160, 120)))
    program = RUN + "import pathlib\nprint(list(pathlib.Path(output).rglob('*.partial')))\n"
    said = on_a_small_disk(disk, program, f"{bucket}/in", f"{disk}/out", str(tiny), "anew")
    assert "DiskError" in said, said
    assert "No space left on device" in said
    assert said.endswith("[]\n")


def test_a_disk_that_is_read_only(bucket: str, tiny: Path, disk: Path) -> None:
    storage.write(f"{bucket}/in/1.png", photo(1))
    locked = f"mount -o remount,ro {disk}"
    said = on_a_small_disk(
        disk, RUN, f"{bucket}/in", f"{disk}/out", str(tiny), "anew", before=locked
    )
    assert "DiskError" in said
    assert "choose an output on a disk that can be written to" in said


@pytest.mark.parametrize(
    ("kind", "room"), [("tar", 0.5), ("tar", 1.5), ("parquet", 1.5), ("mp4", 1.5)]
)
def test_a_full_disk_for_shards_and_videos(
    bucket: str, tiny: Path, disk: Path, tmp_path: Path, kind: str, room: float
) -> None:
    content = large_file(tmp_path / f"large.{kind}")
    storage.write(f"{bucket}/in/1.{kind}", content)
    said = on_a_small_disk(
        disk,
        SAYS_WHY,
        f"{bucket}/in",
        f"{bucket}/out",
        str(tiny),
        "anew",
        size=int(room * len(content) / 1024),
        before=f"export TMPDIR={disk}",
    )
    assert said.startswith("unreachable"), said
    assert "No space left on device" in said
    assert images_in(f"{bucket}/out") == []
    inputs, options = [f"{bucket}/in"], Options({"weights": str(tiny), "device": "cpu"})
    again = restore_addresses(inputs, f"{bucket}/out", options, resume=True)
    assert {row.status for row in again} == {"restored"}


SAYS_WHY = RUN.replace("print(row.status, row.target", "print(row.status, row.error")


def large_file(path: Path) -> bytes:
    """Return a shard of noisy images, or a video, of some 200 kB."""
    if path.suffix == ".mp4":
        pytest.importorskip("av")
        from tests.clips import clip

        return clip(path, frames=10, picture=lambda seed: np.asarray(noise(seed))).read_bytes()
    contents = []
    for seed in range(8):
        buffer = io.BytesIO()
        noise(seed).save(buffer, "PNG")
        contents.append(buffer.getvalue())
    if path.suffix == ".parquet":
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.table({"image": contents}), path)
        return path.read_bytes()
    with tarfile.open(path, "w") as tar:
        for seed, content in enumerate(contents):
            member = tarfile.TarInfo(f"{seed}.png")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path.read_bytes()


def noise(seed: int) -> Image.Image:
    """Return an image of 96 x 96 random pixels, which no format makes much smaller."""
    pixels = np.random.default_rng(seed).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


COPY = """
import sys
from pathlib import Path
from vrdir.cluster import copies
from vrdir.errors import VrdirError
address, folder, free = sys.argv[1:]
if free == "lies":  # the disk fills up while the copies are made
    copies.shutil.disk_usage = lambda path: type("Usage", (), {"free": 10**9})
try:
    copies.Copies(10**9, Path(folder)).images(address)
except VrdirError as error:
    print(f"{type(error).__name__}: {error}", flush=True)
print(len(list(Path(folder).rglob("*.partial"))), "partial files")
"""


@pytest.mark.parametrize("free", ["is known", "lies"])
def test_a_full_disk_for_copies(bucket: str, disk: Path, free: str) -> None:
    for number in range(12):
        storage.write(f"{bucket}/in/{number}.png", photo(number, size=(160, 120)))
    said = on_a_small_disk(disk, COPY, f"{bucket}/in", str(disk), free)
    expected = "No space left on device" if free == "lies" else "set XDG_CACHE_HOME to a folder"
    assert expected in said, said
    assert said.endswith("0 partial files\n")


def test_keys_are_a_set() -> None:
    keys = Keys()
    numbers = [number * 7919 % 100_003 for number in range(60_000)]
    assert all(keys.add(number) for number in numbers)
    assert not any(keys.add(number) for number in numbers)
    assert len(keys) == len(numbers)
    assert len(keys.keys) > 50_000  # most are in the array, which takes 8 bytes each
    assert -1 not in keys


def test_the_last_row_of_an_image_counts(bucket: str) -> None:
    account = Account(f"{bucket}/out")
    rows = [Row("a.png", "b.png", status="unreachable", time=1.0), Row("a.png", "b.png", time=2.0)]
    for place, name in enumerate(("z", "a")):  # parts have random names
        account.write_part([rows[place]], name)
    assert account.rows() == [rows[1]]
    shard = [Row("a.tar", "b.tar", status="unreachable", key=7)]
    account.write_part([*shard, Row("a.tar#1", "b.tar#1", key=7, time=3.0)])
    assert [row.source for row in account.rows()] == ["a.png", "a.tar#1"]
