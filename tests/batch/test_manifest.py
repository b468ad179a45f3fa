"""The manifest: which files are processed again, and what is left after a kill at any moment."""

import errno
import json
import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import vrdir
from vrdir.batch.manifest import Manifest, Stamp
from vrdir.batch.plan import plan_files
from vrdir.batch.process import process_files
from vrdir.batch.results import FileJob, FileResult, ResultWriter, content_writer
from vrdir.errors import DiskError

SETTINGS = {"inputs": ["in"], "weights": "0123", "format": None}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("in/a.png", "in/b.png", "in/sub/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"source " + name.encode())
    return tmp_path


def process(job: FileJob) -> ResultWriter:
    return content_writer(b"result of " + job.source.read_bytes(), {"haze": 0.5})


def run(
    root: Path, overwrite: bool = False, process: Callable[[FileJob], ResultWriter] = process
) -> list[FileResult]:
    jobs = plan_files([root / "in"], root / "out")
    with Manifest(root / "out", "restore", SETTINGS) as manifest:
        return list(process_files(jobs, process, overwrite, manifest))


def done_now(results: list[FileResult]) -> list[str]:
    assert all(result.error is None for result in results), results
    assert [result.job.source.name for result in results] == ["a.png", "b.png", "c.png"]
    return [result.job.source.name for result in results if not result.earlier]


def test_finished_and_unchanged_files_are_not_processed_again(root: Path) -> None:
    assert done_now(run(root)) == ["a.png", "b.png", "c.png"]
    again = run(root)
    assert done_now(again) == []
    assert [result.shares for result in again] == [{"haze": 0.5}] * 3
    (root / "in" / "b.png").write_bytes(b"a new source")
    assert done_now(run(root)) == ["b.png"]
    assert (root / "out" / "b.png").read_bytes() == b"result of a new source"
    os.utime(root / "in" / "a.png", ns=(1, 1))  # same size, another time
    assert done_now(run(root)) == ["a.png"]
    (root / "out" / "sub" / "c.png").unlink()
    assert done_now(run(root)) == ["c.png"]
    assert done_now(run(root)) == []


def test_file_records_the_run_and_each_finished_file(root: Path) -> None:
    run(root)
    first, *lines = map(
        json.loads, (root / "out" / ".vrdir-restore.jsonl").read_text().splitlines()
    )
    assert {**SETTINGS, "command": "restore", "vrdir": vrdir.__version__}.items() <= first.items()
    assert [line["target"] for line in lines] == ["a.png", "b.png", "sub/c.png"]
    facts = (root / "out" / "sub" / "c.png").stat()
    assert lines[2]["target_stamp"] == [facts.st_size, facts.st_mtime_ns]
    assert lines[2]["source_stamp"][0] == len(b"source in/sub/c.png")
    assert lines[2]["shares"] == {"haze": 0.5}


def test_foreign_files_are_replaced_only_with_overwrite(root: Path) -> None:
    (root / "out").mkdir()
    (root / "out" / "a.png").write_bytes(b"precious")
    first = run(root)
    assert "a.png exists; replace it with --overwrite" in (first[0].error or "")
    assert (root / "out" / "a.png").read_bytes() == b"precious"
    (root / "out" / "b.png").write_bytes(b"retouched by hand")  # a result, changed since
    again = run(root)
    assert [bool(result.error) for result in again] == [True, True, False]
    assert (root / "out" / "b.png").read_bytes() == b"retouched by hand"
    assert done_now(run(root, overwrite=True)) == ["a.png", "b.png"]
    assert done_now(run(root, overwrite=True)) == []  # with --overwrite too, what is done is done


def test_result_of_another_source_is_kept_and_not_counted_as_finished(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(root)
    other = root / "other" / "a.png"
    other.parent.mkdir()
    for content in (b"another source", (root / "in" / "a.png").read_bytes()):
        other.write_bytes(content)
        facts = (root / "in" / "a.png").stat()
        # Size and time may be the same by chance.
        os.utime(other, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        with Manifest(root / "out", "restore", SETTINGS) as manifest:
            (result,) = process_files(
                [FileJob(other, root / "out" / "a.png")], process, manifest=manifest
            )
        assert "a.png exists; replace it with --overwrite" in (result.error or "")
        assert (root / "out" / "a.png").read_bytes() == b"result of source in/a.png"
    # The same file by another name is the same file.
    (root / "link").symlink_to(root / "in")
    monkeypatch.chdir(root / "in")
    for name in (Path("a.png"), root / "link" / "a.png"):
        with Manifest(Path("../out"), "restore", SETTINGS) as manifest:
            (result,) = process_files(
                [FileJob(name, Path("../out/a.png"))], process, manifest=manifest
            )
        assert result.earlier


def test_incomplete_last_line_is_removed(root: Path) -> None:
    run(root)
    manifest = root / "out" / ".vrdir-restore.jsonl"
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:-7])
    (root / "out" / "sub" / "c.png").unlink()
    assert done_now(run(root)) == ["c.png"]
    assert all(json.loads(line) for line in manifest.read_text().splitlines())
    manifest.write_bytes(whole[:20])  # not even the first line
    assert ["exists" in (result.error or "") for result in run(root)] == [True] * 3
    assert done_now(run(root, overwrite=True)) == ["a.png", "b.png", "c.png"]


def test_damaged_line_and_another_run_are_rejected_with_a_reason(root: Path) -> None:
    run(root)
    with pytest.raises(
        ValueError,
        match=r"out contains the results of a different run "
        r"\(weights was '0123' and is '4567'\).*choose another",
    ):
        Manifest(root / "out", "restore", {**SETTINGS, "weights": "4567"})
    with pytest.raises(ValueError, match=r"format was None and is 'webp'"):
        Manifest(root / "out", "restore", {**SETTINGS, "format": "webp"})
    Manifest(root / "out", "degrade", {"seed": 3}).file.close()  # beside it
    manifest = root / "out" / ".vrdir-restore.jsonl"
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join([lines[0], lines[1], "{nonsense", *lines[2:]]) + "\n")
    with pytest.raises(
        ValueError,
        match=r"\.vrdir-restore\.jsonl, line 3, is damaged; delete the file to start over",
    ):
        run(root)


def test_two_runs_at_the_same_time_are_rejected(root: Path) -> None:
    with (
        Manifest(root / "out", "restore", SETTINGS),
        pytest.raises(ValueError, match=r"another run is writing to .*out; wait for it"),
    ):
        Manifest(root / "out", "restore", SETTINGS)
    run(root)


def test_names_that_are_not_unicode(root: Path) -> None:
    (root / "in" / "b.png").rename(root / "in" / os.fsdecode(b"b\xff.png"))
    assert len(run(root)) == 3
    assert all(result.earlier for result in run(root))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_at(moment: str, root: Path, replacing: bool) -> None:
    """Run in a separate process, which is killed at a moment of its second file."""
    patch = pytest.MonkeyPatch()
    write_bytes, replace, add, write = Path.write_bytes, Path.replace, Manifest.add, Manifest._write

    def at_second(path: Path) -> bool:
        second = (path.parent / "b.png").exists() == replacing
        return second and (root / "out" / "a.png").exists()

    if moment == "before the file":
        patch.setattr(
            Path,
            "write_bytes",
            lambda path, content: die() if at_second(path) else write_bytes(path, content),
        )
    elif moment == "half the file written":

        def half(path: Path, content: bytes) -> None:
            write_bytes(path, content[:5] if at_second(path) else content)
            if at_second(path):
                die()

        patch.setattr(Path, "write_bytes", half)
    elif moment == "before the line":
        patch.setattr(
            Manifest,
            "add",
            lambda self, source, *rest: (
                die() if source.name == "b.png" else add(self, source, *rest)
            ),
        )
    elif moment == "half the line":

        def half_line(self: Manifest, line: dict[str, object]) -> None:
            if line.get("target") == "b.png":
                self.file.write(json.dumps(line).encode()[:30])
                die()
            write(self, line)

        patch.setattr(Manifest, "_write", half_line)
    elif moment == "before the name":
        patch.setattr(
            Path, "replace", lambda path, to: die() if to.name == "b.png" else replace(path, to)
        )
    else:
        patch.setattr(
            Path,
            "replace",
            lambda path, to: (replace(path, to), die() if to.name == "b.png" else None),
        )
    run(root)


@pytest.mark.parametrize(
    "moment",
    [
        "before the file",
        "half the file written",
        "before the line",
        "half the line",
        "before the name",
        "after it",
    ],
)
@pytest.mark.parametrize("replacing", [False, True])
def test_killed_run_leaves_whole_files_and_can_be_resumed(
    moment: str, replacing: bool, root: Path
) -> None:
    """A child process is killed while it writes the second file, then the run is resumed."""
    if replacing:  # the second file is there already, from an earlier state of its source
        run(root)
        (root / "in" / "b.png").write_bytes(b"a new source, of another length")
    # Not forked: libraries with threads, such as OpenVINO, do not survive that.
    child = multiprocessing.get_context("spawn").Process(
        target=killed_at, args=(moment, root, replacing)
    )
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    foreign = root / "out" / ".0123456789ab.partial"
    foreign.write_bytes(b"another run's")
    whole = {
        b"result of " + (root / "in" / name).read_bytes()
        for name in ("a.png", "b.png", "sub/c.png")
    } | {b"result of source in/b.png"}
    for path in (root / "out").rglob("*.png"):
        assert path.read_bytes() in whole
    expected = [] if moment == "after it" else ["b.png"]
    assert done_now(run(root)) == expected + ([] if replacing else ["c.png"])
    for name in ("a.png", "b.png", "sub/c.png"):
        assert (root / "out" / name).read_bytes() == b"result of " + (
            root / "in" / name
        ).read_bytes()
    # Only the file of another run is left.
    assert [path.name for path in (root / "out").rglob("*.partial")] == [foreign.name]
    assert done_now(run(root)) == []


def limit_files(size: int) -> None:
    """Limit the size of files, in bytes; a longer write is cut short, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.mark.parametrize("stuck", [False, True])
def test_incomplete_line_is_removed_before_the_next_write(
    root: Path, stuck: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full at the line of a.png. Then b.png finds space, or a line that stays torn."""
    both, made = threading.Barrier(2, timeout=60), threading.Event()

    def wait_for_space(job: FileJob) -> ResultWriter:
        both.wait()  # b.png has started when the disk fails, so it is not cancelled
        if job.source.name == "b.png":
            made.wait(60)
        return process(job)

    def refuse(length: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    jobs = plan_files([root / "in"], root / "out")[:2]
    with Manifest(root / "out", "restore", SETTINGS) as manifest:
        if stuck:
            monkeypatch.setattr(manifest.file, "truncate", refuse)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        results = process_files(jobs, wait_for_space, manifest=manifest, workers=2)
        limit_files(manifest.path.stat().st_size + 30)
        try:
            first = next(results)
        finally:
            limit_files(before)
        made.set()
        assert list(results) == []
        assert "cannot be written (No space left on device)" in (first.error or "")
        if stuck:
            with pytest.raises(DiskError, match="ends with an incomplete line"):
                manifest.add(jobs[0].source, Stamp(1, 1), jobs[0].target, Stamp(1, 1), {})
    assert [path.name for path in (root / "out").glob("*.png")] == ([] if stuck else ["b.png"])
    assert done_now(run(root)) == (["a.png", "b.png", "c.png"] if stuck else ["a.png", "c.png"])


@pytest.mark.parametrize(
    ("line", "old", "new"),
    [
        (1, '"run": "', '"run": "*'),
        (1, '"run": "', '"run": "../'),
        (1, '"run": "', '"run": 7, "also": "'),
        (2, "0.5", '"half"'),
        (2, "0.5", "NaN"),
        (2, "0.5", "1" + "0" * 400),
        (2, '{"haze": 0.5}', "[0.5]"),
        (2, '{"haze": 0.5}', "[" * 100_000),
        (2, '"target": "', '"target": ["'),
    ],
)
def test_edited_line_is_rejected_and_no_file_is_removed(
    root: Path, line: int, old: str, new: str
) -> None:
    run(root)
    path = root / "out" / ".vrdir-restore.jsonl"
    lines = path.read_text().splitlines()
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new)
    path.write_text("\n".join(lines) + "\n")
    others = [root / "out" / ".vrdir-0123456789ab-01234567.partial", root / ".vrdir-x-1.partial"]
    for other in others:
        other.write_bytes(b"of another run")
    with pytest.raises(
        ValueError,
        match=rf"\.vrdir-restore\.jsonl, line {line}, is damaged; delete the file to start over",
    ):
        run(root)
    assert all(other.exists() for other in others)
