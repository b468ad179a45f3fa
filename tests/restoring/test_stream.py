"""Streams: one result for each frame, without flicker; and videos."""

import errno
import subprocess
import threading
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vrdir
from vrdir import Restorer
from vrdir.batch.results import FileJob
from vrdir.errors import ImageError
from vrdir.model.vrdir import VRDIR
from vrdir.restoring.stream import SceneCuts


@pytest.fixture
def restorer(tiny: VRDIR) -> Restorer:
    return Restorer(tiny, device="cpu")


@pytest.fixture
def noisy(photo: Image.Image) -> list[np.ndarray[Any, Any]]:
    """A still scene, 64 x 48, with fresh noise in every frame."""
    clean = np.asarray(photo.crop((0, 0, 64, 48))).astype(float)
    generator = np.random.default_rng(0)
    return [
        np.clip(clean + generator.normal(0, 25, clean.shape), 0, 255).astype(np.uint8)
        for _ in range(12)
    ]


def test_result_has_the_type_of_the_frame(restorer: Restorer, photo: Image.Image) -> None:
    array = np.asarray(photo)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1) / 255
    for frame, kind in ((array, np.ndarray), (tensor, torch.Tensor), (photo, Image.Image)):
        (out,) = restorer.stream([frame])
        assert isinstance(out, kind)
        expected = restorer(frame)
        assert np.array_equal(np.asarray(out), np.asarray(expected))  # the first frame has no past


def test_smoothing_steadies_a_still_foggy_scene(photo: Image.Image) -> None:
    restorer = Restorer("small", "cpu")
    fog = vrdir.degrade(photo, "haze:beta=1.2", seed=1)
    frames = [np.asarray(vrdir.degrade(fog, "noise:sigma=15", seed=seed)) for seed in range(14)]
    alone = [frame.astype(float) for frame in restorer.stream(frames, smoothing=0)]
    assert all(np.array_equal(a, restorer(frame)) for a, frame in zip(alone, frames, strict=True))
    smooth = [frame.astype(float) for frame in restorer.stream(frames)]

    def jumps(frames: list[np.ndarray[Any, Any]]) -> float:
        """Return the flicker of the mean colour, without the noise of single pixels."""
        return float(np.mean([np.abs((b - a).mean((0, 1))) for a, b in pairwise(frames[4:])]))

    assert jumps(smooth) < 0.6 * jumps(alone)


def test_cut_restarts_smoothing(restorer: Restorer, noisy: list[np.ndarray[Any, Any]]) -> None:
    other = (255 - noisy[0]) // 2
    stream = restorer.stream([*noisy[:6], other, *noisy[:2]])
    frames = list(stream)
    assert np.array_equal(frames[6], restorer(other))
    assert not np.array_equal(frames[5], restorer(noisy[5]))
    assert stream.report.cuts == 2


def test_only_cuts_are_found(photo: Image.Image) -> None:
    image = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None] / 255
    scene = SceneCuts()
    torch.manual_seed(0)
    steady = [
        image,
        image + 0.1 * torch.randn_like(image),
        image.roll(9, 3),
        image * 0.93,
        image * 0.87,
        image * 0.8,
    ]
    assert [scene.changed(frame.clamp(0, 1)) for frame in steady] == [False] * 6
    assert scene.changed(1 - image)
    assert scene.changed(1 - image[..., :40])  # another size
    assert scene.cuts == 2


def test_damaged_frame_is_repeated_or_passed_on(
    restorer: Restorer, noisy: list[np.ndarray[Any, Any]]
) -> None:
    nan = np.full((48, 64, 3), np.nan, np.float32)
    bad: list[Any] = [
        None,
        np.zeros((48, 64, 2), np.uint8),
        nan,
        torch.zeros(2, 3, 8, 8),
        "no such file.png",
    ]
    frames = [bad[0], *noisy[:2], *bad, noisy[2]]
    stream = restorer.stream(frames)
    out = []
    for frame in stream:
        out.append(None if frame is None else frame.copy())
        if frame is not None:
            frame[:] = 0  # a caller who draws on what it is given does not draw on what comes next
    assert out[0] is None
    assert all(np.array_equal(frame, out[2]) for frame in out[3:8])
    assert out[2].any()
    report = stream.report
    assert (report.frames, report.damaged, report.damaged_frames) == (9, 6, (0, 3, 4, 5, 6, 7))
    passed = list(restorer.stream(frames, damaged="pass"))
    assert [a is b for a, b in zip(passed, frames, strict=True)] == [
        True,
        False,
        False,
        True,
        True,
        True,
        True,
        True,
        False,
    ]
    # The last result is the same as without the damaged frames.
    assert np.array_equal(passed[-1], list(restorer.stream(noisy[:3]))[-1])


def test_report(restorer: Restorer, noisy: list[np.ndarray[Any, Any]]) -> None:
    stream = restorer.stream(noisy)
    assert stream.report.frames == 0
    assert stream.report.frames_per_second == 0
    list(stream)
    report = stream.report
    assert report.frames == 12
    assert 0 < report.median_ms <= report.p95_ms <= 1000 * report.seconds
    assert 0 < report.mean_ms <= 1000 * report.seconds / 12 + 1e-6
    assert report.frames_per_second == pytest.approx(12 / report.seconds)
    assert sum(report.shares.values()) == pytest.approx(1, abs=1e-4)
    assert str(report).startswith("12 frames in")


def test_invalid_arguments_raise(restorer: Restorer) -> None:
    with pytest.raises(ValueError, match="damaged must be 'repeat' or 'pass', not 'drop'"):
        restorer.stream([], damaged="drop")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="smoothing must be at least 0"):
        restorer.stream([], smoothing=1)


def test_frames_are_read_one_at_a_time_and_freed(
    restorer: Restorer, noisy: list[np.ndarray[Any, Any]]
) -> None:
    asked = 0

    def camera() -> Iterator[np.ndarray[Any, Any]]:
        nonlocal asked
        while True:
            asked += 1
            yield noisy[asked % len(noisy)].copy()

    stream = restorer.stream(camera())
    for number in range(1, 4):
        next(stream)
        assert asked == number
    tracemalloc.start()
    for _ in range(20):
        next(stream)
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(100):
        next(stream)
    # Small objects in free lists, and the latencies; not the 100 frames.
    assert tracemalloc.get_traced_memory()[0] - before < 10 * noisy[0].nbytes
    tracemalloc.stop()


def test_streams_of_one_restorer_are_independent(
    restorer: Restorer, noisy: list[np.ndarray[Any, Any]]
) -> None:
    expected = list(restorer.stream(noisy[:4]))
    first, second = (
        restorer.stream(noisy[:4]),
        restorer.stream([frame[::-1] for frame in noisy[:4]]),
    )
    together = [(next(first), next(second)) for _ in range(4)]
    assert all(np.array_equal(a, b) for (a, _), b in zip(together, expected, strict=True))


def apart(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> float:
    """Return the mean difference of 8 x 8 blocks' means, which 4:2:0 keeps, in levels."""
    return float(np.abs((first.astype(float) - second).reshape(6, 8, 8, 8, 3).mean((1, 3))).mean())


class TestVideos:
    """`Restorer.restore_video` on real files."""

    @pytest.fixture(autouse=True)
    def _pyav(self) -> None:
        pytest.importorskip("av")

    def test_frames_are_restored_and_the_rest_stays(
        self, restorer: Restorer, tmp_path: Path
    ) -> None:
        from tests.clips import clip, packets, pictures, times

        source, target = clip(tmp_path / "a.mp4"), tmp_path / "b.mp4"
        seen: list[tuple[int, int | None]] = []
        report = restorer.restore_video(
            source, target, on_frame=lambda done, total: seen.append((done, total))
        )
        assert (report.frames, report.damaged) == (12, 0)
        assert seen == [(number, 12) for number in range(1, 13)]
        assert times(target) == times(source)
        assert packets(target, "audio") == packets(source, "audio")
        expected = list(restorer.stream(pictures(source)))
        for found, wanted, before in zip(pictures(target), expected, pictures(source), strict=True):
            assert apart(found, wanted) < 2  # the encoder's loss
            assert apart(found, before) > 3

    @pytest.mark.parametrize("bad", [[5], [0, 1, 6, 7], [11]])
    def test_nearest_good_frame_replaces_a_damaged_one(
        self, restorer: Restorer, tmp_path: Path, bad: list[int]
    ) -> None:
        from tests.clips import clip, damage, packets, pictures, times, view

        source, target = (
            clip(tmp_path / "a.mp4", picture=lambda number: view(10 * number), options={"g": "1"}),
            tmp_path / "b.mp4",
        )
        whole = list(
            restorer.stream(
                [picture for number, picture in enumerate(pictures(source)) if number not in bad]
            )
        )
        for number in bad:
            damage(source, number)
        report = restorer.restore_video(source, target)
        assert (report.frames, report.damaged_frames) == (12, tuple(bad))
        assert [float(time) for time in times(target)] == pytest.approx(
            [number / 25 for number in range(12)]
        )
        assert packets(target, "audio") == packets(source, "audio")
        good = [number for number in range(12) if number not in bad]
        for number, found in enumerate(pictures(target)):
            nearest = max((g for g in good if g <= number), default=good[0])
            distances = [apart(found, frame) for frame in whole]
            assert distances.index(min(distances)) == good.index(nearest), number
            assert min(distances) < 2

    @pytest.mark.parametrize("sound", ["aac", None])
    def test_clip_without_a_good_frame_raises(
        self, restorer: Restorer, tmp_path: Path, sound: str | None
    ) -> None:
        from tests.clips import clip, damage

        source, target = (
            clip(tmp_path / "a.mp4", 1, sound=sound, options={"crf": "10"}),
            tmp_path / "out" / "b.mp4",
        )
        # The beginning can be decoded: FFmpeg gives a frame and marks it as corrupt.
        damage(source, 0, slice(-500, None))
        with pytest.raises(
            ImageError,
            match=r"none of the frames of .*a\.mp4 can be decoded without damage; download",
        ):
            restorer.restore_video(source, target)
        (result,) = restorer.restore_files([FileJob(source, target)])
        assert result.error is not None
        assert "a.mp4 can be decoded without damage" in result.error
        assert list(target.parent.iterdir()) == []

    def test_frames_without_times_are_an_error(self, restorer: Restorer, tmp_path: Path) -> None:
        from tests.clips import clip

        source, target = clip(tmp_path / "a.h264", sound=None), tmp_path / "out" / "b.mp4"
        with pytest.raises(
            ImageError,
            match=r"the frames of .*a\.h264 have no times; put it into a container first",
        ):
            restorer.restore_video(source, target)
        assert list(target.parent.iterdir()) == []

    def test_full_disk_ends_the_run(self, restorer: Restorer, tmp_path: Path) -> None:
        from tests.clips import clip

        source, disk = clip(tmp_path / "a.mp4"), tmp_path / "disk"
        disk.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", disk],
            capture_output=True,
            check=False,
        )
        if mounted.returncode:
            pytest.skip("mounting a disk needs root")
        try:
            results = list(
                restorer.restore_files(
                    [FileJob(source, disk / f"{index}.mp4") for index in range(3)]
                )
            )
            assert [result.error for result in results] == [
                f"{disk / '0.mp4'} cannot be written (No space left on device); "
                "free some space on the disk"
            ]
            assert list(disk.iterdir()) == []
        finally:
            subprocess.run(["umount", disk], check=True)

    def test_closing_the_results_waits_for_no_video(
        self, restorer: Restorer, tmp_path: Path
    ) -> None:
        """The running video stops at its next frame; those that wait do not start."""
        from tests.clips import clip

        (tmp_path / "broken.png").write_bytes(b"no image")
        source = clip(tmp_path / "a.mp4", 200)
        jobs = [FileJob(tmp_path / "broken.png", tmp_path / "out" / "broken.png")]
        jobs += [FileJob(source, tmp_path / "out" / f"{index}.mp4") for index in range(3)]
        going = threading.Event()
        frames: list[tuple[FileJob, int]] = []

        def count(job: FileJob, number: int, expected: int | None) -> None:
            frames.append((job, number))
            going.set()

        before = torch.get_num_threads()
        torch.set_num_threads(4)
        try:
            results = restorer.restore_files(jobs, on_frame=count)
            assert next(results).error is not None
            assert going.wait(60)
            results.close()
        finally:
            torch.set_num_threads(before)
        assert len({job for job, _ in frames}) == 1
        assert frames[-1][1] < 200
        assert list((tmp_path / "out").iterdir()) == []

    def test_encoder_on_a_full_disk_ends_the_run(
        self, restorer: Restorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from tests.clips import clip

        from vrdir.video.writing import VideoWriter

        source = clip(tmp_path / "a.mp4")

        def mux(self: VideoWriter, frame: Any) -> None:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")

        monkeypatch.setattr(VideoWriter, "_mux", mux)
        results = list(
            restorer.restore_files(
                [FileJob(source, tmp_path / f"b{index}.mkv") for index in range(3)]
            )
        )
        assert [result.error for result in results] == [
            f"{tmp_path / 'b0.mkv'} cannot be written (Disk quota exceeded); "
            "free some space within the quota"
        ]


class VideoCapture:
    """A camera by OpenCV's convention: BGR frames, then none."""

    def __init__(self, frames: list[Any], opened: bool = True) -> None:
        self.frames, self.opened = frames, opened

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return self.opened

    def read(self) -> tuple[bool, Any]:
        return (True, self.frames.pop(0)) if self.frames else (False, None)


def test_camera_of_opencv_is_a_stream_of_bgr_frames(
    restorer: Restorer, noisy: list[np.ndarray[Any, Any]]
) -> None:
    expected = list(restorer.stream(noisy))
    bgr = [np.ascontiguousarray(frame[..., ::-1]) for frame in noisy]
    camera = VideoCapture(bgr.copy())
    stream = restorer.stream(camera)
    assert len(camera.frames) == 12  # nothing is read ahead
    found = list(stream)
    assert len(found) == stream.report.frames == 12
    assert all(np.array_equal(a[..., ::-1], b) for a, b in zip(found, expected, strict=True))
    for again in (
        restorer.stream(bgr, channels="bgr"),
        Restorer(restorer.model, "cpu", channels="bgr").stream(iter(bgr)),
    ):
        assert all(map(np.array_equal, again, found))
    declared = list(restorer.stream(VideoCapture(noisy.copy()), channels="rgb"))
    assert all(map(np.array_equal, declared, expected))


def test_other_sources_are_rejected(restorer: Restorer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="the camera is not open: .*; check its number or path"):
        restorer.stream(VideoCapture([], opened=False))
    for wrong in (0, "clip.mp4", Path("clip.mp4")):
        with pytest.raises(
            ValueError, match=r"an iterable of images, or a camera .*; for a video file"
        ):
            restorer.stream(wrong)  # type: ignore[arg-type]
    bare = VideoCapture([])
    monkeypatch.setattr(bare, "read", lambda: np.zeros((2, 4, 3), np.uint8))
    with pytest.raises(
        ValueError, match=r"must return \(ok, frame\), as in OpenCV; this one returned ndarray"
    ):
        next(restorer.stream(bare))
    with pytest.raises(ValueError, match='channels must be "rgb" or "bgr", not \'gbr\''):
        restorer.stream([], channels="gbr")  # type: ignore[arg-type]
