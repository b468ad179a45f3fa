"""The memory that there is, also in containers, and images that need more."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.images.test_incomplete_images import encoded, png

from vrdir import ImageError, Restorer
from vrdir.batch.memory_budget import share_of_memory
from vrdir.batch.results import FileJob
from vrdir.images import memory
from vrdir.images.reading import decode, read_file
from vrdir.model.vrdir import VRDIR
from vrdir.restoring import network as restoring

GROUP, V2, V1 = "proc/self/cgroup", "sys/fs/cgroup", "sys/fs/cgroup/memory"
LIMIT = "memory.limit_in_bytes"
# Files of a system, and the limit that they set; None for no limit.
TREES: dict[str, tuple[dict[str, str], int | None]] = {
    "v2": (
        {GROUP: "0::/u/job\n", f"{V2}/u/job/memory.max": "max\n", f"{V2}/u/memory.max": "1000\n"},
        1000,
    ),
    "v2 in a container": ({GROUP: "0::/\n", f"{V2}/memory.max": "2000\n"}, 2000),
    "v2 high": (
        {GROUP: "0::/a\n", f"{V2}/a/memory.max": "3000\n", f"{V2}/a/memory.high": "2500\n"},
        2500,
    ),
    "v1": ({GROUP: "5:cpu,memory:/a\n3:pids:/b\n", f"{V1}/a/{LIMIT}": "4000\n"}, 4000),
    "v1 in a container": ({GROUP: "5:memory:/docker/1f\n", f"{V1}/{LIMIT}": "5000\n"}, 5000),
    "v1 without": ({GROUP: "5:memory:/\n", f"{V1}/{LIMIT}": "9223372036854771712\n"}, None),
    "v2 without": ({GROUP: "0::/\n", f"{V2}/memory.max": "max\n"}, None),
    "both": ({GROUP: "0::/a\n2:memory:/b\n", f"{V1}/b/{LIMIT}": "6000\n"}, 6000),
    "nothing": ({}, None),
    "nonsense": ({GROUP: "what\n::\n0::/a\n", f"{V2}/a/memory.max": "much"}, None),
}


@pytest.mark.parametrize("kind", TREES)
def test_container_limit_is_respected(kind: str, tmp_path: Path) -> None:
    files, limit = TREES[kind]
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    machine = memory.memory_limit(tmp_path / "nowhere")
    assert machine > 100 << 20
    assert memory.memory_limit(tmp_path) == (limit or machine)
    assert share_of_memory() <= machine // 4


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> int:
    """Simulate a machine with little memory; return the bytes for one image."""
    monkeypatch.setattr(memory, "most_for_one", lambda: 40 << 20)
    return 40 << 20


def zeros(width: int, height: int) -> bytes:
    """Return a PNG of this many black pixels, in a few bytes."""
    content = bytearray(png(bytes(height * (-(-width // 8) + 1)), height, 1, 0))
    struct.pack_into(">I", content, 16, width)
    struct.pack_into(">I", content, 29, zlib.crc32(content[12:29]))
    return bytes(content)


def test_too_large_image_is_rejected_before_decoding(
    little: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(self: Image.Image) -> None:
        raise AssertionError("decoded")

    picture = Image.new("L", (2200, 3000))
    contents = [encoded(np.asarray(picture), name) for name in ("JPEG2000", "PNG", "TIFF", "WEBP")]
    monkeypatch.setattr(Image.Image, "load", loaded)
    for content in contents:
        with pytest.raises(
            ImageError,
            match=r"it \(2200 x 3000 pixels\) needs about \d\.\d GiB of memory, but",
        ):
            decode(content, "it")
    with pytest.raises(AssertionError):
        decode(encoded(np.zeros((700, 650), np.uint8), "PNG"), "it")


def test_folder_continues_after_too_large_file(
    little: int, tiny: VRDIR, tmp_path: Path, photo: Image.Image
) -> None:
    (tmp_path / "huge.png").write_bytes(
        zeros(1600, 1600)
    )  # enough memory to open it, not to restore it
    photo.save(tmp_path / "small.png")
    jobs = [FileJob(tmp_path / name, tmp_path / "out" / name) for name in ("huge.png", "small.png")]
    huge, small = Restorer(tiny, "cpu").restore_files(jobs)
    assert "huge.png (1600 x 1600 pixels) needs about" in (huge.error or "")
    assert small.error is None


@pytest.mark.parametrize("size", [(1, 140000), (140000, 1)])
def test_padding_of_thin_images_counts(
    size: tuple[int, int], tiny: VRDIR, monkeypatch: pytest.MonkeyPatch
) -> None:
    restorer, in_bands = Restorer(tiny, "cpu"), []
    assert (
        restorer.network.memory_bytes(1, 2**20) > 16 * 2**20 * 12
    )  # of the million pixels and fifteen as many beside them
    assert restorer.network.memory_bytes(1, 2**20) < 2 << 30
    restore = restoring.restore_in_strips
    monkeypatch.setattr(
        restoring,
        "restore_in_strips",
        lambda *given, **named: in_bands.append(True) or restore(*given, **named),
    )
    restored = restorer(np.zeros((*size[::-1], 3), np.uint8))
    assert restored.shape == (*size[::-1], 3)
    assert in_bands


def test_file_larger_than_the_memory_is_not_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with (tmp_path / "hole.png").open("wb") as file:
        file.truncate(1 << 40)  # takes no space on the disk
    with pytest.raises(
        ImageError,
        match="hole.png has 1024.0 GiB, more than the memory that is available for one image",
    ):
        read_file(tmp_path / "hole.png")


def test_decoders_that_need_more_memory_count_more() -> None:
    sizes = {}
    for name in ("PNG", "JPEG2000"):
        with Image.open(io.BytesIO(encoded(np.zeros((100, 100, 3), np.uint8), name))) as picture:
            sizes[name] = memory.opening_bytes(picture, 0)
    assert sizes["JPEG2000"] > sizes["PNG"] >= 100 * 100 * (4 + 12)


def test_process_limit_is_respected() -> None:
    code = (
        "import resource; from vrdir.images.memory import memory_limit\n"
        "limit = 4 << 30; resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "print(memory_limit())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 1 << 30 < int(done.stdout) < 4 << 30


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_memory_error_names_the_file(tmp_path: Path) -> None:
    """Where other programs took the memory after it was looked at."""
    for name, size in (("small.png", (8, 8)), ("large.png", (6000, 5000))):
        Image.new("RGB", size).save(tmp_path / name)
    code = (
        "import resource\n"
        "from vrdir.errors import ImageError\n"
        "from vrdir.images import memory; from vrdir.images.convert import open_image\n"
        "open_image('small.png')\n"
        "memory.SHARE = 1000.0\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "limit = used + (300 << 20)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "try:\n"
        "    open_image('large.png')\n"
        "except ImageError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.startswith("large.png: it needs more memory than is available")
