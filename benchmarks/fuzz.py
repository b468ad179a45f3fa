"""Feed damaged files to everything that reads files, and count what goes wrong.

    python benchmarks/fuzz.py [--files 10000] [--seed 0] [--kinds images,videos,...] [--keep FOLDER]

Sound files of every kind are made first: images in all formats that can be written here, videos,
weights folders, label files, pair lists, and YAML. Each case is one of them, changed: bytes
flipped, numbers replaced, cut short, parts removed, repeated, or taken from another file. A child
process reads the cases; it is replaced when it dies or does not answer.

A case may succeed or raise a `VrdirError`. Counted as failures are:

- crash: the child process died;
- hang: a case took more than 10 seconds of processor time (or 60 seconds in all);
- memory: a case needed more than 1 GiB above the idle process, or ran out of that;
- bare: another exception than a `VrdirError`.

The same seed gives the same cases. Ctrl-C prints the counts so far. The exit status is 1 if there
was a failure; `--keep` saves the failing files.
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
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

SHARES = {  # of a run's files, for each kind
    "images": 0.55,
    "videos": 0.12,
    "weights": 0.09,
    "labels": 0.12,
    "pairs": 0.06,
    "yaml": 0.06,
}
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


# --- Sound files
# -----------------------------------------------------------------------------------


def make_seeds(folder: Path, kinds: Sequence[str]) -> None:
    """Write sound files of these kinds, each into the sub-folder of its kind."""
    makers: dict[str, Callable[[Path], None]] = {
        "images": _make_images,
        "videos": _make_videos,
        "weights": _make_weights,
        "labels": _make_labels,
        "pairs": _make_pairs,
        "yaml": _make_yaml,
    }
    for kind in kinds:
        (folder / kind).mkdir(parents=True)
        makers[kind](folder / kind)


def _photo(width: int = 48, height: int = 40) -> Any:
    """Return an RGB uint8 array (H, W, 3) with gradients and some texture."""
    import numpy as np

    y, x = np.mgrid[:height, :width]
    texture = np.random.default_rng(0).integers(0, 24, (height, width, 3))
    ramps = np.stack([x * 4, y * 5, (x + y) * 2], -1)
    return ((ramps + texture) % 256).astype(np.uint8)


def _make_images(folder: Path) -> None:
    """Write images in every format and mode that Pillow can write here, some with metadata."""
    import numpy as np
    from PIL import Image

    from vrdir.images.sixteen_bits import DeepPicture

    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    modes = _pictures()
    unwanted = {"BUFR", "EPS", "GRIB", "HDF5", "PDF", "WMF", "PALM"}  # not readable as images
    for file_format in sorted(set(Image.SAVE) - unwanted):
        for mode, picture in modes.items():
            with (
                contextlib.suppress(OSError, ValueError, KeyError, TypeError),
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("ignore")  # of deprecated formats
                picture.save(folder / f"{mode}.{file_format.lower()}", file_format)
    _make_variants(folder, modes["RGB"])
    modes["P"].save(folder / "transparent.png", transparency=bytes(range(32)))
    modes["1"].save(folder / "group4.tiff", compression="group4")
    deep = np.asarray(modes["RGBA"]).astype(np.uint16) * 257
    for name, pixels in (("deep", deep[..., :3]), ("deep_alpha", deep)):
        for suffix in (".png", ".tiff"):
            DeepPicture(np.ascontiguousarray(pixels), {}).save(folder / f"{name}{suffix}")
    for file in folder.iterdir():
        if not file.stat().st_size:
            file.unlink()


def _pictures() -> dict[str, Any]:
    """Return the same picture in several modes."""
    import numpy as np
    from PIL import Image

    colour = Image.fromarray(_photo())
    rgba = colour.convert("RGBA")
    rgba.putalpha(colour.getchannel(0))
    return {
        "1": colour.convert("1"),
        "L": colour.convert("L"),
        "LA": rgba.convert("LA"),
        "P": colour.quantize(32),
        "RGB": colour,
        "RGBA": rgba,
        "CMYK": colour.convert("CMYK"),
        "I16": Image.fromarray(np.asarray(colour.convert("L")).astype(np.uint16) * 257),
        "F": Image.fromarray(np.asarray(colour.convert("L"), np.float32) / 255),
    }


def _make_variants(folder: Path, colour: Any) -> None:
    """Write a picture with metadata, and with options of the encoders."""
    from PIL import Image, ImageCms

    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    metadata: dict[str, Any] = {
        "exif": exif.tobytes(),
        "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        "xmp": b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a/></x:xmpmeta>',
    }
    for file_format in ("PNG", "JPEG", "TIFF", "WEBP", "AVIF", "HEIF"):
        if file_format in Image.SAVE:
            colour.save(folder / f"metadata.{file_format.lower()}", file_format, **metadata)
    colour.save(folder / "progressive.jpeg", progressive=True)
    colour.save(folder / "restart.jpeg", restart_marker_rows=1)
    colour.save(folder / "tiled.jp2", tile_size=(16, 16))
    for compression in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg", "zstd"):
        with contextlib.suppress(OSError):
            colour.save(folder / f"{compression}.tiff", compression=compression)


def _make_videos(folder: Path) -> None:
    """Write short clips with sound in several containers and codecs."""
    import av
    import numpy as np

    for name, codec, pix_fmt in (
        ("a.mp4", "libx264", "yuv420p"),
        ("b.mkv", "libx264", "yuv420p"),
        ("c.webm", "libvpx-vp9", "yuv420p"),
        ("d.avi", "mpeg4", "yuv420p"),
        ("e.mov", "libx264", "yuv444p"),
        ("f.ts", "libx264", "yuv420p"),
        ("g.avi", "mjpeg", "yuvj420p"),
        ("h.mkv", "ffv1", "yuv420p"),
    ):
        with av.open(str(folder / name), "w") as container:
            stream: Any = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 48, 40, pix_fmt
            tone: Any = None
            if codec == "libx264":
                tone = container.add_stream("aac", rate=48000, layout="mono")
            for number in range(6):
                pixels = np.roll(_photo(), number, 1)
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
            if tone is not None:
                for start in range(0, 9600, 1024):
                    silence = np.zeros((1, 1024), np.float32)
                    piece = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
                    piece.sample_rate, piece.pts = 48000, start
                    container.mux(tone.encode(piece))
                container.mux(tone.encode())


def _make_weights(folder: Path) -> None:
    """Write the folder of a small network."""
    import torch

    from vrdir.model.config import VRDIRConfig
    from vrdir.model.vrdir import VRDIR

    torch.manual_seed(0)
    config = VRDIRConfig(
        extractor="vgg16_conv2_2",
        strides=(2,),
        branches=("haze", "noise"),
        decoder="pixel_skip",
        widths=(4, 4),
        encoder_blocks=(0, 1),
        decoder_blocks=(1, 0),
    )
    VRDIR(config).save_pretrained(folder)


def _make_labels(folder: Path) -> None:
    """Write detection labels (COCO, YOLO, VOC), a classification CSV, and their images."""
    from PIL import Image

    names = ["a.png", "b.png"]
    for name in names:
        Image.fromarray(_photo()).save(folder / name)
    (folder / "coco.json").write_text(
        json.dumps(
            {
                "images": [
                    {"id": i, "file_name": name, "width": 48, "height": 40}
                    for i, name in enumerate(names)
                ],
                "annotations": [
                    {
                        "id": i,
                        "image_id": i % 2,
                        "category_id": 1 + i % 2,
                        "bbox": [1, 2, 10 + i, 9],
                        "iscrowd": 0,
                        "area": 90,
                    }
                    for i in range(4)
                ],
                "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
            }
        )
    )
    for name in names:
        stem = name.removesuffix(".png")
        (folder / f"{stem}.txt").write_text("0 0.5 0.5 0.25 0.25\n1 0.25 0.25 0.1 0.2\n")
        (folder / f"{stem}.xml").write_text(
            f"<annotation><filename>{name}</filename>"
            "<size><width>48</width><height>40</height></size><object><name>cat</name>"
            "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>20</xmax><ymax>22</ymax></bndbox>"
            "<difficult>0</difficult></object></annotation>"
        )
    (folder / "classes.txt").write_text("cat\ndog\n")
    (folder / "data.yaml").write_text("path: .\nval: .\nnames:\n  0: cat\n  1: dog\n")
    (folder / "classes.csv").write_text("file,label\na.png,cat\nb.png,dog\n")


def _make_pairs(folder: Path) -> None:
    """Write a pair list and its images."""
    from PIL import Image

    for name in ("a.png", "b.png", "c.jpg"):
        Image.fromarray(_photo()).save(folder / name)
    (folder / "pairs.txt").write_text(
        "# degraded|clean\na.png|b.png\n@noise:sigma=25|a.png\n@haze:beta=1.0+rain|c.jpg\n\n"
        "b.png|c.jpg\n"
    )


def _make_yaml(folder: Path) -> None:
    """Write the recipes that come with vrdir, and a file of anchors and merge keys."""
    from vrdir.training.settings import RECIPES

    for name, path in RECIPES.items():
        shutil.copy(path, folder / f"{name}.yaml")
    (folder / "anchors.yaml").write_text(
        "a: &a [1, 2.5, x]\nb: {<<: &m {k: v}, c: *a}\nd: !!set {e, f}\ng: 2001-12-14\nh: 0x1F\n"
    )


# --- Changes
# ---------------------------------------------------------------------------------------


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
    if kind in ("weights", "labels", "pairs"):  # sets of files that belong together
        shutil.copytree(seeds / kind, target, dirs_exist_ok=True)
    (target / changed.name).write_bytes(content)
    return target / changed.name


def _is_changed(kind: str, file: Path) -> bool:
    return kind not in ("labels", "pairs") or file.suffix not in (".png", ".jpg")


# --- Reading
# ---------------------------------------------------------------------------------------


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


READERS: dict[str, Callable[[Path], None]] = {
    "images": read_image,
    "videos": read_video,
    "weights": read_weights,
    "labels": read_labels,
    "pairs": read_pairs,
    "yaml": read_yaml,
}


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
    for kind in (part.name for part in sorted(seeds.iterdir())):  # so that imports count for nobody
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
    given: Sequence[tuple[str, int]], seed: int, keep: Path | None = None
) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Read cases in child processes.

    Args:
        given: the kind and number of each case (see `cases`).
        seed: of the changes.
        keep: a folder for the files that fail, or None.

    Returns:
        The number of cases by kind and outcome, and a line for each failure.
    """
    counts: Counter[tuple[str, str]] = Counter()
    failures: list[str] = []
    child: Child | None = None
    with tempfile.TemporaryDirectory(prefix="vrdir-fuzz-") as folder:
        seeds = Path(folder) / "seeds"
        make_seeds(seeds, list(dict.fromkeys(kind for kind, _ in given)))
        try:
            for kind, number in given:
                child = child if child is not None and child.alive else Child(seeds, seed)
                outcome = child.read(kind, number)
                counts[kind, outcome.result] += 1
                if outcome.result in FAILURES:
                    failures.append(f"{kind} {number}: {outcome.result}: {outcome.line}")
                    print(failures[-1], file=sys.stderr, flush=True)
                    if keep is not None:
                        case = keep / f"{kind}-{number}"
                        shutil.rmtree(case, ignore_errors=True)
                        shutil.copytree(Path(folder) / child.folder, case)
        except KeyboardInterrupt:  # the counts so far are returned
            print("interrupted", file=sys.stderr)
        finally:
            if child is not None and child.alive:
                child.end()
    return counts, failures


def main() -> int:
    """Parse the arguments, run, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(SHARES))
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(given.work, given.seed)
        return 0
    kinds = given.kinds.split(",")
    start = time.monotonic()
    counts, failures = run(list(cases(given.files, kinds)), given.seed, given.keep)
    outcomes = ("read", "refused", *FAILURES)
    print(" ".join(f"{word:>9}" for word in ("kind", "files", *outcomes)))
    for kind in [*kinds, "all"]:
        row = [sum(counts[k, o] for k in kinds if kind in (k, "all")) for o in outcomes]
        print(" ".join(f"{word:>9}" for word in (kind, sum(row), *row)))
    print(f"{time.monotonic() - start:.0f} s, seed {given.seed}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
