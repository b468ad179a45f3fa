"""How much memory there is, in containers too, and images that need more of it."""

import io
import struct
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

TREES = {
    "v2": ({"proc/self/cgroup": "0::/u/job\n", "sys/fs/cgroup/u/job/memory.max": "max\n", "sys/fs/cgroup/u/memory.max": "1000\n"}, 1000),
    "v2 in a container": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "2000\n"}, 2000),
    "v2 high": ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "3000\n", "sys/fs/cgroup/a/memory.high": "2500\n"}, 2500),
    "v1": ({"proc/self/cgroup": "5:cpu,memory:/a\n3:pids:/b\n", "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "4000\n"}, 4000),
    "v1 in a container": ({"proc/self/cgroup": "5:memory:/docker/1f\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "5000\n"}, 5000),
    "v1 without": ({"proc/self/cgroup": "5:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
    "v2 without": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, None),
    "both": ({"proc/self/cgroup": "0::/a\n2:memory:/b\n", "sys/fs/cgroup/memory/b/memory.limit_in_bytes": "6000\n"}, 6000),
    "nothing": ({}, None),
    "nonsense": ({"proc/self/cgroup": "what\n::\n0::/a\n", "sys/fs/cgroup/a/memory.max": "much"}, None),
}  # fmt: skip


@pytest.mark.parametrize("kind", TREES)
def test_the_limit_of_a_container_counts(kind: str, tmp_path: Path) -> None:
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
    """A machine with little memory."""
    monkeypatch.setattr(memory, "most_for_one", lambda: 40 << 20)
    return 40 << 20


def zeros(width: int, height: int) -> bytes:
    """A PNG of so many black pixels, in a few bytes."""
    content = bytearray(png(bytes(height * (-(-width // 8) + 1)), height, 1, 0))
    struct.pack_into(">I", content, 16, width)
    struct.pack_into(">I", content, 29, zlib.crc32(content[12:29]))
    return bytes(content)


def test_what_does_not_fit_is_refused_before_it_is_decoded(
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
            match=r"it \(2200 x 3000 pixels\) needs about \d\.\d GiB of memory, and there are",
        ):
            decode(content, "it")
    with pytest.raises(AssertionError):
        decode(encoded(np.zeros((700, 650), np.uint8), "PNG"), "it")


def test_a_file_that_does_not_fit_stops_no_folder(
    little: int, tiny: VRDIR, tmp_path: Path, photo: Image.Image
) -> None:
    (tmp_path / "huge.png").write_bytes(
        zeros(1600, 1600)
    )  # there is room to open it, none to restore it
    photo.save(tmp_path / "small.png")
    jobs = [FileJob(tmp_path / name, tmp_path / "out" / name) for name in ("huge.png", "small.png")]
    huge, small = Restorer(tiny, "cpu").restore_files(jobs)
    assert "huge.png (1600 x 1600 pixels) needs about" in (huge.error or "")
    assert small.error is None


@pytest.mark.parametrize("size", [(1, 140000), (140000, 1)])
def test_a_thin_image_is_as_large_as_the_network_sees_it(
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


def test_a_file_larger_than_the_memory_is_not_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with (tmp_path / "hole.png").open("wb") as file:
        file.truncate(1 << 40)  # takes no room on the disk
    with pytest.raises(
        ImageError,
        match="hole.png has 1024.0 GiB, which is more than there is memory for one image",
    ):
        read_file(tmp_path / "hole.png")


def test_heavier_formats_count_more() -> None:
    sizes = {}
    for name in ("PNG", "JPEG2000"):
        with Image.open(io.BytesIO(encoded(np.zeros((100, 100, 3), np.uint8), name))) as picture:
            sizes[name] = memory.opening_bytes(picture, 0)
    assert sizes["JPEG2000"] > sizes["PNG"] >= 100 * 100 * (4 + 12)
