"""Feed damaged files to everything that reads files, and count what goes wrong.

    python benchmarks/fuzz.py [--files 10000] [--seed 0] [--kinds images,videos,...] [--keep FOLDER]
    python benchmarks/fuzz.py --minutes 8 --state FOLDER    # again and again, until it is finished

Sound files of every kind are made first (`fuzz_files.py`): images in all formats that can be
written here, videos, weights folders, exported networks, labels, pair lists, YAML, manifests,
address lists, accounts and shards of runs over storage, requests to `vrdir serve`. Each case is one
of them, changed: bytes flipped, numbers replaced, cut short, parts removed, repeated, or taken from
another file. A child process reads the cases (`fuzz_readers.py`); it is replaced when it dies or
does not answer.

A case may succeed or raise a `VrdirError`. Counted as failures are:

- crash: the child process died;
- hang: a case took more than 10 seconds of processor time (or 60 seconds in all);
- memory: a case needed more than 1 GiB above the idle process, or ran out of that;
- bare: another exception than a `VrdirError`.

The same seed gives the same cases. Ctrl-C prints the counts so far. The exit status is 1 if there
was a failure; `--keep` saves the failing files. With `--state` the sound files and the counts are
kept in a folder, and a run continues where the last one stopped, by `--minutes` or by Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import random
import select
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))  # for a child, and `python benchmarks/...`

from benchmarks.fuzz_files import make_seeds
from benchmarks.fuzz_readers import READERS

SHARES = {  # of a run's files, for each kind
    "images": 0.42,
    "videos": 0.10,
    "weights": 0.08,
    "labels": 0.11,
    "pairs": 0.05,
    "yaml": 0.05,
    "manifests": 0.04,
    "exports": 0.04,
    "cluster": 0.06,
    "requests": 0.05,
}
# Kinds whose cases are whole folders, of files that belong together.
SETS = ("weights", "labels", "pairs", "manifests", "exports", "cluster")
HANG_SECONDS, HANG_WALL_SECONDS, START_SECONDS = 10.0, 60.0, 300.0
MEMORY_BYTES = 1 << 30
FAILURES = ("crash", "hang", "memory", "bare")
NUMBERS = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF]
WORDS = [
    b"-1", b"0", b"1e999", b"nan", b"9" * 400, b"null", b"true", b"{}", b"[]", b"[" * 2000, b'"',
    b"\\", b"|", b"\n", b"../../..", b"/dev/zero", b"\0", b"\xff\xfe", b"\xed\xa0\x80",
    b"&a [*a, *a]", b"<!DOCTYPE",
]  # fmt: skip


class Outcome(NamedTuple):
    """The outcome of a case: "read", "refused" or one of `FAILURES`, with a line about it."""

    kind: str
    result: str
    line: str = ""


# --- Changes


def mutate(content: bytes, others: Sequence[bytes], draws: random.Random) -> bytes:
    """Return a file's content with one to four random changes.

    Args:
        content: the sound file.
        others: files to take parts from.
        draws: the source of randomness.
    """
    result = bytearray(content)
    for _ in range(draws.choice((1, 1, 1, 2, 3, 4))):
        draws.choice(CHANGES)(result, others, draws)
    return bytes(result)


def _place(content: bytearray, draws: random.Random) -> int:
    """Return a position; headers, which decide most, are drawn as often as all the rest."""
    length = max(len(content), 1)
    return draws.randrange(min(length, 128) if draws.random() < 0.5 else length)


def _flip(content: bytearray, others: Sequence[bytes], draws: random.Random) -> None:
    for _ in range(draws.choice((1, 1, 4, 32))):
        place = _place(content, draws)
        content[place : place + 1] = bytes([draws.randrange(256)])


def _number(content: bytearray, others: Sequence[bytes], draws: random.Random) -> None:
    size = draws.choice((1, 2, 4, 8))
    value = draws.choice(NUMBERS) % (1 << 8 * size)
    place = _place(content, draws)
    content[place : place + size] = value.to_bytes(size, draws.choice(("little", "big")))


def _word(content: bytearray, others: Sequence[bytes], draws: random.Random) -> None:
    place = _place(content, draws)
    length = draws.choice((0, 1, 4))
    content[place : place + length] = draws.choice(WORDS)


def _truncate(content: bytearray, others: Sequence[bytes], draws: random.Random) -> None:
    del content[_place(content, draws) :]


def _remove(content: bytearray, others: Sequence[bytes], draws: random.Random) -> None:
    place = _place(content, draws)
    del content[place : place + draws.choice((1, 2, 16, 256))]


def _repeat(content: bytearray, others: Sequence[bytes], draws: random.Random) -> None:
    place, length = _place(content, draws), draws.choice((1, 8, 64, 512))
    part = bytes(content[place : place + length]) * draws.choice((1, 2, 50))
    content[place:place] = part[: 1 << 16]


def _splice(content: bytearray, others: Sequence[bytes], draws: random.Random) -> None:
    other = draws.choice(others)
    start = draws.randrange(max(len(other), 1))
    place = _place(content, draws)
    content[place:] = other[start:] if draws.random() < 0.5 else other[place:]


def _zeros(content: bytearray, others: Sequence[bytes], draws: random.Random) -> None:
    place, length = _place(content, draws), draws.choice((4, 64, 1024))
    content[place : place + length] = bytes(min(length, max(len(content) - place, 0)))


CHANGES = (_flip, _flip, _number, _number, _word, _truncate, _remove, _repeat, _splice, _zeros)


def make_case(seeds: Path, kind: str, number: int, seed: int, target: Path) -> Path:
    """Write case `number` into the empty folder `target` and return the file that was changed."""
    draws = random.Random(f"{seed} {kind} {number}")
    files = sorted(file for file in (seeds / kind).iterdir() if _is_changed(kind, file))
    changed = draws.choice(files)
    other = draws.choice(files)
    content = mutate(changed.read_bytes(), [other.read_bytes()], draws)
    if kind in SETS:
        shutil.copytree(seeds / kind, target, dirs_exist_ok=True)
    (target / changed.name).write_bytes(content)
    return target / changed.name


def _is_changed(kind: str, file: Path) -> bool:
    return kind not in ("labels", "pairs", "manifests") or file.suffix not in (".png", ".jpg")


def read_case(kind: str, file: Path) -> Outcome:
    """Read a case in this process."""
    from vrdir.errors import VrdirError, first_line

    try:
        READERS[kind](file)
    except VrdirError:
        return Outcome(kind, "refused")
    except MemoryError:
        return Outcome(kind, "memory", "MemoryError")
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        return Outcome(
            kind, "bare", f"{type(error).__name__} in {where}: {first_line(error)[:200]}"
        )
    return Outcome(kind, "read")


def work(seeds: Path, seed: int) -> None:
    """Read cases as the child process.

    Each line of standard input is "KIND NUMBER"; the answer is a line of JSON.
    """
    import torch

    import vrdir.images.convert
    import vrdir.model.vrdir  # noqa: F401

    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    answers = os.fdopen(os.dup(1), "w")
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - libraries print what they like
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    warm = seeds.parent / f"warm-{os.getpid()}"
    for kind in (
        part.name for part in sorted(seeds.iterdir())
    ):  # so that imports count for no measurement
        warm.mkdir()
        make_case(seeds, kind, -1, seed, warm)
        file = next(file for file in sorted((seeds / kind).iterdir()) if _is_changed(kind, file))
        shutil.copy(file, warm / file.name)
        read_case(kind, warm / file.name)
        shutil.rmtree(warm)
    _limit_memory()
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        kind, number = line.split()
        target = seeds.parent / f"case-{os.getpid()}"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        file = make_case(seeds, kind, int(number), seed, target)
        _forget_peak()
        idle = _memory("VmRSS")
        outcome = read_case(kind, file)
        peak = _memory("VmHWM") - idle
        if peak > MEMORY_BYTES:
            outcome = Outcome(kind, "memory", f"{peak / 2**30:.1f} GiB")
        print(json.dumps(outcome), file=answers, flush=True)


def _limit_memory() -> None:
    """Allow this process 1 GiB more than it has, if the system can do so.

    A case that asks for more gets a MemoryError.
    """
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        limit = _memory("VmData") + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _memory(what: str) -> int:
    """Return a figure of /proc/self/status in bytes, 0 where there is none."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{what}:"):
                return int(line.split()[1]) * 1024
    return 0


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


# --- The run
# ---------------------------------------------------------------------------------------


class Child:
    """A process that reads cases."""

    def __init__(self, seeds: Path, seed: int) -> None:
        command = [sys.executable, __file__, "--work", str(seeds), "--seed", str(seed)]
        self._process: Any = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        if self._answer(START_SECONDS) is None:
            raise SystemExit("the child process does not start")

    def read(self, kind: str, number: int) -> Outcome:
        """Return the outcome of a case; a crash or a hang ends the child (`alive`)."""
        start, busy = time.monotonic(), self._seconds()
        self._process.stdin.write(f"{kind} {number}\n")
        self._process.stdin.flush()
        while True:
            answer = self._answer(1.0)
            if answer:
                return Outcome(*json.loads(answer))
            if answer == "" or self._process.poll() is not None:
                return Outcome(kind, "crash", f"exit status {self._process.wait()}")
            worked, waited = self._seconds() - busy, time.monotonic() - start
            if worked > HANG_SECONDS or waited > HANG_WALL_SECONDS:
                self.end()
                return Outcome(kind, "hang", f"{worked:.0f} s of work, {waited:.0f} s in all")

    @property
    def alive(self) -> bool:
        """Whether it can read further cases."""
        return self._process.poll() is None

    @property
    def folder(self) -> str:
        """The name of the folder that holds its case."""
        return f"case-{self._process.pid}"

    def end(self) -> None:
        """Stop the process."""
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

    def _answer(self, seconds: float) -> str | None:
        """Return a line; "" at the end of the process; None after this time."""
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        return str(self._process.stdout.readline()) if ready else None

    def _seconds(self) -> float:
        """Return the processor time of the child."""
        with contextlib.suppress(OSError, IndexError, ValueError):
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return time.monotonic()


def cases(files: int, kinds: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Yield the kind and number of each of `files` cases, the kinds mixed by their shares."""
    whole = sum(SHARES[kind] for kind in kinds)
    counts = {kind: round(files * SHARES[kind] / whole) for kind in kinds}
    mixed = [
        (number / counts[kind], kind, number) for kind in kinds for number in range(counts[kind])
    ]
    yield from ((kind, number) for _, kind, number in sorted(mixed))


def run(
    given: Sequence[tuple[str, int]],
    seed: int,
    keep: Path | None = None,
    seconds: float = float("inf"),
    state: Path | None = None,
) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Read cases in child processes.

    Args:
        given: the kind and number of each case (see `cases`).
        seed: of the changes.
        keep: a folder for the files that fail, or None.
        seconds: after this time no further case is read.
        state: a folder in which the sound files are kept, so that they are made once.

    Returns:
        The number of cases by kind and outcome, and a line for each failure.
    """
    counts: Counter[tuple[str, str]] = Counter()
    failures: list[str] = []
    child: Child | None = None
    with tempfile.TemporaryDirectory(prefix="vrdir-fuzz-", dir=state) as folder:
        seeds = (state or Path(folder)) / "seeds"
        if not seeds.exists():
            make_seeds(Path(folder) / "made", list(dict.fromkeys(kind for kind, _ in given)))
            (Path(folder) / "made").rename(seeds)
        end = time.monotonic() + seconds
        try:
            for kind, number in given:
                if time.monotonic() > end:
                    break
                child = child if child is not None and child.alive else Child(seeds, seed)
                outcome = child.read(kind, number)
                counts[kind, outcome.result] += 1
                if outcome.result in FAILURES:
                    failures.append(f"{kind} {number}: {outcome.result}: {outcome.line}")
                    print(failures[-1], file=sys.stderr, flush=True)
                    if keep is not None:
                        case = keep / f"{kind}-{number}"
                        shutil.rmtree(case, ignore_errors=True)
                        shutil.copytree(seeds.parent / child.folder, case)
        except KeyboardInterrupt:  # the counts so far are returned
            print("interrupted", file=sys.stderr)
        finally:
            if child is not None and child.alive:
                child.end()
    return counts, failures


class State:
    """The counts and failures of a run in parts, kept in a JSON file.

    Args:
        folder: holds the file; None keeps them in memory only.
        run: what makes the cases, such as the seed: the file must be of the same run.
    """

    def __init__(self, folder: Path | None, run: dict[str, Any]) -> None:
        self._run = run
        self._path = path = None if folder is None else folder / "counts.json"
        self.counts: Counter[tuple[str, str]] = Counter()
        self.failures: list[str] = []
        self.seconds = 0.0
        if path is not None and path.exists():
            kept = json.loads(path.read_text())
            if kept["run"] != run:
                raise SystemExit(f"{path} is of another run: {kept['run']}")
            self.failures, self.seconds = kept["failures"], kept["seconds"]
            self.counts.update({(kind, outcome): n for kind, outcome, n in kept["counts"]})

    def add(self, counts: Counter[tuple[str, str]], failures: list[str], seconds: float) -> None:
        """Add a part, and write the file."""
        self.counts.update(counts)
        self.failures += failures
        self.seconds += seconds
        if self._path is not None:
            rows = [[*key, n] for key, n in sorted(self.counts.items())]
            facts = {"run": self._run, "counts": rows, "failures": self.failures}
            self._path.write_text(json.dumps(facts | {"seconds": self.seconds}, indent=1))

    def table(self, kinds: Sequence[str]) -> str:
        """Return the counts of each kind and of all, as text."""
        outcomes = ("read", "refused", *FAILURES)
        rows: list[Sequence[Any]] = [("kind", "files", *outcomes)]
        for kind in [*kinds, "all"]:
            row = [sum(self.counts[k, o] for k in kinds if kind in (k, "all")) for o in outcomes]
            rows.append((kind, sum(row), *row))
        return "\n".join(" ".join(f"{word:>9}" for word in row) for row in rows)


def main() -> int:
    """Parse the arguments, run, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(SHARES))
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--state", type=Path)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(given.work, given.seed)
        return 0
    kinds = given.kinds.split(",")
    if given.state:
        given.state.mkdir(parents=True, exist_ok=True)
    state = State(given.state, {"seed": given.seed, "files": given.files, "kinds": kinds})
    todo = list(cases(given.files, kinds))[state.counts.total() :]
    start = time.monotonic()
    counts, failures = run(todo, given.seed, given.keep, 60 * given.minutes, given.state)
    state.add(counts, failures, time.monotonic() - start)
    print(state.table(kinds))
    left = len(todo) - counts.total()
    print(f"{state.seconds:.0f} s, seed {given.seed}" + (f", {left} files left" if left else ""))
    return 1 if state.failures else 0


if __name__ == "__main__":
    sys.exit(main())
