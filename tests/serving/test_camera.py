"""`vrdir.Camera` with files in real time: frames, order of colours, sizes, delay, ends."""

from __future__ import annotations

import gc
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.clips import clip, view
from tests.serving.cameras import slow_clip

from vrdir import Camera, Restorer
from vrdir.errors import InputError, VideoError
from vrdir.serving import camera_reader
from vrdir.serving.camera_guided import apply_to
from vrdir.serving.camera_reader import _Clock
from vrdir.serving.camera_size import SETTLE_FRAMES, SizeChoice


def test_file_is_played_in_real_time_and_ends(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4", frames=25)
    start = time.perf_counter()
    with Camera(path, restore=False) as camera:
        frames = list(camera)
    assert time.perf_counter() - start > 0.9  # 25 frames at 25 a second
    assert frames[0].shape == (48, 64, 3)
    report = camera.report
    assert report.received == 25
    assert report.restored + report.dropped == 25
    assert len(frames) == report.restored
    assert report.repeated == 0
    assert 0 < report.fps < 200


def test_late_frames_are_dropped_and_the_delay_stays_bounded(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4", frames=40)
    with Camera(path, restore=False) as camera:
        for _ in camera:
            time.sleep(0.15)  # slower than the camera
    report = camera.report
    assert report.dropped > 10
    assert report.restored < 30
    assert report.p50_ms < 1000  # with a queue it would be half of 4 s


def test_frames_are_restored_like_by_restorer(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mkv", frames=1, codec="ffv1", pix_fmt="bgr0", sound=None)
    restorer = Restorer("small", "cpu")
    (frame,) = Camera(path, restore=restorer)
    (reversed_frame,) = Camera(path, restore=restorer, channels="bgr")
    wanted = next(restorer.stream([view(0)])).astype(int)
    assert abs(frame.astype(int) - wanted).max() <= 1
    assert np.array_equal(reversed_frame[..., ::-1], frame)
    assert reversed_frame.flags.c_contiguous  # as OpenCV asks for
    assert reversed_frame.flags.writeable


def test_max_side_reduces_frames_and_network_side_does_not(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4", frames=3)
    assert next(Camera(path, restore=False, max_side=32)).shape == (24, 32, 3)
    camera = Camera(path, restore=Restorer("small", "cpu"), network_side=32)
    assert next(camera).shape == (48, 64, 3)
    assert camera.report.network_side == 32


def test_frames_are_turned_upright(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4", frames=2, rotation=90)
    assert next(Camera(path, restore=False)).shape == (64, 48, 3)


def test_fps_is_not_exceeded(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4", frames=50)  # two seconds
    with Camera(path, restore=False, fps=5) as camera:
        count = len(list(camera))
    assert 2 <= count <= 12
    assert camera.report.dropped >= 50 - 12


def test_closing_ends_the_iteration(tmp_path: Path) -> None:
    camera = Camera(clip(tmp_path / "clip.mp4", frames=250), restore=False)
    next(camera)
    threading.Timer(0.2, camera.close).start()
    assert len(list(camera)) < 200
    with pytest.raises(StopIteration):
        next(camera)


def test_unused_camera_is_closed(tmp_path: Path) -> None:
    path = slow_clip(tmp_path / "clip.mp4")
    before = threading.active_count()
    for _ in Camera(path, restore=False):
        break
    gc.collect()
    until = time.monotonic() + 300
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.05)
    assert threading.active_count() == before


def test_camera_has_no_len(tmp_path: Path) -> None:
    with (
        Camera(clip(tmp_path / "clip.mp4", frames=2), restore=False) as camera,
        pytest.raises(TypeError, match="no len"),
    ):
        len(camera)  # type: ignore[arg-type]


def test_error_names_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"missing\.mp4 cannot be opened: it does not exist"):
        next(Camera(tmp_path / "missing.mp4", restore=False))
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(VideoError, match=r"text\.mp4 cannot be opened: it does not send a video"):
        next(Camera(tmp_path / "text.mp4", restore=False))
    with pytest.raises(VideoError, match="is a folder"):
        Camera(tmp_path, restore=False)


def test_sound_without_a_picture_is_rejected(tmp_path: Path) -> None:
    import av

    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(VideoError, match="it has no picture"):
        next(Camera(path, restore=False))


@pytest.mark.parametrize(
    "wrong",
    [{"fps": 0}, {"max_side": 0}, {"network_side": -1}, {"timeout": 0}, {"max_side": 1.5}],
)
def test_wrong_arguments_are_rejected(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Camera(tmp_path / "clip.mp4", restore=False, **wrong)


def test_wrong_order_of_colours_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="channels"):
        Camera(tmp_path / "clip.mp4", restore=False, channels="rbg")  # type: ignore[arg-type]


# --- The size that holds a frame rate ---------------------------------------------------------


def sizes_under_load(
    choice: SizeChoice, frames: int, seconds_at_1280: float, fixed: float = 0.0, most: int = 1280
) -> list[int]:
    """Let a choice hold its rate on a machine that takes this long; return the sizes chosen."""
    noise = np.random.default_rng(0)
    sizes = []
    for _ in range(frames):
        side = min(choice.side or most, most)
        time_taken = fixed + seconds_at_1280 * (side / 1280) ** 2
        choice.took(time_taken * noise.uniform(0.9, 1.2), most)
        if not sizes or sizes[-1] != min(choice.side or most, most):
            sizes.append(min(choice.side or most, most))
    return sizes


def test_size_is_reduced_until_the_rate_is_reached(caplog: pytest.LogCaptureFixture) -> None:
    choice = SizeChoice(None, fps=10)
    sizes = sizes_under_load(choice, 200, seconds_at_1280=0.4)
    assert sizes[-1] <= 640
    assert 0.4 * (sizes[-1] / 1280) ** 2 < 0.1
    assert len(sizes) <= 3
    assert "lowered from 1280 to" in caplog.text
    assert "to keep 10 frames per second" in caplog.text


def test_size_is_increased_when_there_is_time() -> None:
    choice = SizeChoice(None, fps=10)
    sizes_under_load(choice, 100, seconds_at_1280=0.4)
    sizes = sizes_under_load(choice, 1000, seconds_at_1280=0.03)  # the machine has become idle
    assert sizes[-1] == 1280
    assert sizes == sorted(sizes)


def test_size_does_not_oscillate() -> None:
    # The work besides the network does not shrink with the size, so that a larger size looks fast
    # enough and is not: each of its tries comes later than the one before.
    choice = SizeChoice(None, fps=10)
    sizes = sizes_under_load(choice, 4000, seconds_at_1280=0.5, fixed=0.035)
    assert len(sizes) <= 16  # in 500 decisions


def test_unreachable_frame_rate_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    choice = SizeChoice(None, fps=10)
    sizes_under_load(choice, 20 * SETTLE_FRAMES, seconds_at_1280=0.1, fixed=0.2)
    assert choice.side == 240
    assert caplog.text.count("10 frames per second cannot be reached, even at 240 pixels") == 1


def test_without_a_rate_the_size_stays() -> None:
    choice = SizeChoice(640, fps=None)
    assert sizes_under_load(choice, 50, seconds_at_1280=9.0) == [640]


def test_frame_rate_is_kept_with_the_network(tmp_path: Path) -> None:
    path = slow_clip(tmp_path / "clip.mp4", width=320, height=240)
    small = Restorer("small", "cpu")
    with Camera(path, restore=small, fps=500) as camera:  # more than any machine can
        while camera.report.network_side in (0, 320):
            frame = next(camera)
    assert frame.shape == (240, 320, 3)
    assert camera.report.network_side == 240


# --- A smaller copy for the network -----------------------------------------------------------


def reduced(pixels: np.ndarray[Any, Any], by: int) -> np.ndarray[Any, Any]:
    height, width = pixels.shape[0] // by, pixels.shape[1] // by
    mean = pixels.reshape(height, by, width, by, 3).mean((1, 3))
    return mean.round().astype(np.uint8)


def psnr(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    return float(10 * np.log10(255**2 / ((one.astype(float) - other) ** 2).mean()))


def test_unchanged_copy_leaves_the_frame_unchanged() -> None:
    frame = view(0, 128, 96)
    copy = reduced(frame, 2)
    assert np.array_equal(apply_to(frame, copy, copy), frame)


def test_haze_is_removed_from_details_missing_in_the_copy() -> None:
    clear = view(0, 256, 192)
    hazy = (0.4 * clear + 0.6 * 220).round().astype(np.uint8)
    copy, restored = reduced(hazy, 2), reduced(clear, 2)
    result = apply_to(hazy, copy, restored)
    large = Image.fromarray(restored).resize((256, 192), Image.Resampling.BICUBIC)
    assert psnr(result, clear) > psnr(np.asarray(large), clear) + 3
    assert psnr(result, clear) > 33


def test_noise_does_not_return_with_the_details() -> None:
    clear = view(0, 256, 192)
    noise = np.random.default_rng(0).normal(0, 25, clear.shape)
    noisy = (clear + noise).clip(0, 255).round().astype(np.uint8)
    result = apply_to(noisy, reduced(noisy, 2), reduced(clear, 2))
    added = noisy + (
        np.asarray(
            Image.fromarray(reduced(clear, 2)).resize((256, 192), Image.Resampling.BILINEAR)
        ).astype(float)
        - np.asarray(
            Image.fromarray(reduced(noisy, 2)).resize((256, 192), Image.Resampling.BILINEAR)
        )
    )  # the difference alone, without a factor
    assert psnr(result, clear) > psnr(added, clear) + 4


# --- The delay --------------------------------------------------------------------------------


def test_frames_that_wait_in_buffers_count_as_late() -> None:
    clock = _Clock(is_live=True)
    start = clock.due(100.0)
    time.sleep(0.25)
    # It should have come 0.04 s after the first; it comes 0.25 s after it.
    assert clock.due(100.04) - start == pytest.approx(0.04, abs=0.01)
    assert abs(clock.due(7.0) - time.perf_counter()) < 30  # of 93: the clock was set again


def delays(monkeypatch: pytest.MonkeyPatch, late: list[float], is_live: bool) -> list[bool]:
    """Give a clock frames of 0.1 s, each so late; return when it wants key frames only."""
    clock, behind, now = _Clock(is_live), [], 0.0
    monkeypatch.setattr(camera_reader.time, "perf_counter", lambda: now)
    for number, delay in enumerate(late):
        now = 1000 + 0.1 * number + delay
        clock.due(0.1 * number)
        behind.append(clock.is_behind)
    return behind


def test_only_key_frames_are_decoded_while_decoding_is_too_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slower_and_slower = [0.1 * number for number in range(40)]
    behind = delays(monkeypatch, [*slower_and_slower, 1.0, 0.1, 0.1], is_live=True)
    assert not any(behind[:20])  # a short hold-up is caught up with all frames
    assert behind[39]
    assert behind[40]  # still late
    assert not behind[41]
    assert not any(delays(monkeypatch, slower_and_slower, is_live=False))  # a file waits


def test_growing_delay_does_not_skip_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    behind = delays(monkeypatch, [0.0] * 5 + [1.5] * 200, is_live=True)
    assert any(behind)
    assert not any(behind[80:])
