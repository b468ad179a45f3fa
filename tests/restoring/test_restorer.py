"""Restorer: one image of any kind, and files."""

import io
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vrdir import ImageError, Restorer
from vrdir.batch.plan import plan_files
from vrdir.batch.process import process_files
from vrdir.batch.results import FileJob, ResultWriter, content_writer
from vrdir.errors import DiskError
from vrdir.model.vrdir import VRDIR


@pytest.fixture
def restorer(tiny: VRDIR) -> Restorer:
    return Restorer(tiny, device="cpu")


def test_every_kind_of_image_is_restored_to_the_same_pixels(
    restorer: Restorer, photo: Image.Image, tmp_path: Path
) -> None:
    array = np.asarray(photo)
    expected = restorer(array)
    assert not np.array_equal(expected, array)
    photo.save(tmp_path / "photo.png")
    assert np.array_equal(np.asarray(restorer(photo)), expected)
    assert np.array_equal(np.asarray(restorer(tmp_path / "photo.png")), expected)
    assert np.array_equal(
        np.asarray(Image.open(io.BytesIO(restorer((tmp_path / "photo.png").read_bytes())))),
        expected,
    )
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    assert np.array_equal(restorer(tensor).permute(1, 2, 0).numpy(), expected)
    assert np.array_equal(
        (restorer(tensor / 255) * 255).round().byte().permute(1, 2, 0).numpy(), expected
    )


def test_shares_are_named_and_sum_to_one(restorer: Restorer, photo_batch: torch.Tensor) -> None:
    restored = restorer.restore(photo_batch)
    assert [set(shares) for shares in restored.shares] == [{"haze", "noise", "rain", "clean"}] * 2
    for shares in restored.shares:
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5)


def test_threads_may_share_a_restorer(restorer: Restorer, photo_batch: torch.Tensor) -> None:
    images = [photo_batch[:1, :, : 40 + 5 * i] for i in range(6)]
    expected = [restorer(image) for image in images]
    found: list[torch.Tensor | None] = [None] * len(images)

    def work(i: int) -> None:
        found[i] = restorer(images[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for mine, theirs in zip(found, expected, strict=True):
        assert mine is not None
        torch.testing.assert_close(mine, theirs)


def test_missing_device_raises(tiny: VRDIR) -> None:
    with pytest.raises(ValueError, match="device 'cuda:99' is not available"):
        Restorer(tiny, device="cuda:99")


def test_bad_files_in_a_folder_stop_no_other(
    restorer: Restorer, photo: Image.Image, tmp_path: Path
) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    (source / "deep er").mkdir(parents=True)
    photo.save(source / "ä photo.jpg", quality=95)
    photo.convert("L").save(source / "deep er" / "grey.png")
    (source / "broken.png").write_bytes(b"no image")
    (source / "notes.txt").write_text("not an image, not an input")
    results = list(restorer.restore_files(plan_files([source], target)))
    assert [r.job.target.relative_to(target).as_posix() for r in results] == [
        "broken.png",
        "deep er/grey.png",
        "ä photo.jpg",
    ]
    assert [r.error is None for r in results] == [False, True, True]
    assert "broken.png is not an image" in (results[0].error or "")
    written = sorted(p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file())
    assert written == ["deep er/grey.png", "ä photo.jpg"]
    assert Image.open(target / "deep er" / "grey.png").mode == "L"
    assert Image.open(target / "ä photo.jpg").format == "JPEG"


def test_metadata_of_a_photo_is_kept(
    restorer: Restorer, photo: Image.Image, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif[0x0112] = 8
    photo.save(tmp_path / "a.jpg", exif=exif, icc_profile=b"profile", quality=95)
    restorer.restore_file(tmp_path / "a.jpg", tmp_path / "b.jpg")
    with Image.open(tmp_path / "b.jpg") as restored:
        assert restored.size == (photo.height, photo.width)
        assert restored.getexif().get(0x010F) == "Maker"
        assert restored.getexif().get(0x0112, 1) == 1
        assert restored.info["icc_profile"] == b"profile"
    with_alpha = photo.copy()
    with_alpha.putalpha(Image.linear_gradient("L").resize(photo.size))
    with_alpha.save(tmp_path / "a.png")
    restorer.restore_file(tmp_path / "a.png", tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as restored:
        assert np.array_equal(np.asarray(restored)[..., 3], np.asarray(with_alpha)[..., 3])
    deep = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)
    deep.save(tmp_path / "deep.png")
    restorer.restore_file(tmp_path / "deep.png", tmp_path / "deep restored.png")
    with Image.open(tmp_path / "deep restored.png") as restored:
        assert len(np.unique(np.asarray(restored) % 257)) > 50  # really 16 bit


def test_restored_tensor_can_be_used_in_training(
    restorer: Restorer, photo_batch: torch.Tensor
) -> None:
    recogniser = torch.nn.Conv2d(3, 2, 3)
    recogniser(restorer(photo_batch)).sum().backward()
    assert recogniser.weight.grad is not None


def test_names_of_maximum_length(restorer: Restorer, photo: Image.Image, tmp_path: Path) -> None:
    name = "雨" * 83 + ".png"  # 253 bytes
    photo.save(tmp_path / name)
    restorer.restore_file(tmp_path / name, tmp_path / "out" / name)
    assert (tmp_path / "out" / name).is_file()


def test_any_error_in_a_file_stops_no_other(tmp_path: Path) -> None:
    jobs = [
        FileJob(tmp_path / name, tmp_path / "out" / name) for name in ("a.png", "b.png", "c.png")
    ]

    def process(job: FileJob) -> ResultWriter:
        if job.source.name == "a.png":
            raise MemoryError
        if job.source.name == "b.png":
            raise RuntimeError("no memory on the device\nand a long story")
        return content_writer(b"content", {})

    assert [result.error for result in process_files(jobs, process)] == [
        f"{tmp_path / 'a.png'}: MemoryError",
        f"{tmp_path / 'b.png'}: no memory on the device",
        None,
    ]


def test_existing_files_are_kept_without_overwrite(
    restorer: Restorer, photo: Image.Image, tmp_path: Path
) -> None:
    photo.save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"precious")
    job = FileJob(tmp_path / "a.png", tmp_path / "b.png")
    (result,) = restorer.restore_files([job])
    assert "exists" in (result.error or "")
    assert (tmp_path / "b.png").read_bytes() == b"precious"
    (result,) = restorer.restore_files([job], overwrite=True)
    assert result.error is None
    assert Image.open(tmp_path / "b.png").size == photo.size


def test_failed_write_leaves_no_file(
    restorer: Restorer, photo: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo.save(tmp_path / "a.png")

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ImageError, match=r"b.png cannot be written \(No space left"):
        restorer.restore_file(tmp_path / "a.png", tmp_path / "out" / "b.png")
    assert list((tmp_path / "out").iterdir()) == []


def test_impossible_target_raises(restorer: Restorer, photo: Image.Image, tmp_path: Path) -> None:
    photo.save(tmp_path / "a.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(ImageError, match="cannot be written"):
        restorer.restore_file(tmp_path / "a.png", tmp_path / "file" / "b.png")
    with pytest.raises(ImageError, match="no image format for the suffix '.doc'"):
        restorer.restore_file(tmp_path / "a.png", tmp_path / "b.doc")


def test_plan_command(tmp_path: Path, photo: Image.Image) -> None:
    for name in ("in/a.png", "in/sub/a.png", "in/b.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        photo.save(tmp_path / name)
    source, out = tmp_path / "in", tmp_path / "out"

    def targets(*arguments: object) -> list[str]:
        return [job.target.relative_to(tmp_path).as_posix() for job in plan_files(*arguments)]

    assert targets([source], out) == ["out/a.png", "out/b.jpg", "out/sub/a.png"]
    assert targets([source / "a.png"], out) == ["out/a.png"]
    assert targets([source / "a.png"], tmp_path / "new.webp") == ["new.webp"]
    assert targets([str(source / "*.*")], out) == ["out/a.png", "out/b.jpg"]
    assert targets([source], tmp_path) == [
        "a.png",
        "b.jpg",
        "sub/a.png",
    ]  # the input is inside the output
    assert targets([source], out, ".webp") == ["out/a.webp", "out/b.webp", "out/sub/a.webp"]
    # Results inside the input are not restored again.
    photo.save(source / "sub" / "b.png")
    assert targets([source], source / "sub") == ["in/sub/a.png", "in/sub/b.jpg"]
    assert targets([str(tmp_path / "**" / "b.*")], source / "sub") == ["in/sub/b.jpg"]
    with pytest.raises(ValueError, match="is one file, but there are several"):
        plan_files([source], tmp_path / "out.png")
    with pytest.raises(ImageError, match="no image format for the suffix '.pgn'"):
        plan_files([source / "a.png"], tmp_path / "clear.pgn")
    with pytest.raises(ValueError, match="two different formats"):
        plan_files([source / "a.png"], tmp_path / "b.png", ".webp")
    for name, suffix in (
        ("b.jpeg", ".jpg"),
        ("b.JPG", ".jpeg"),
        ("b.tif", ".tiff"),
    ):  # two names of one format
        assert plan_files([source / "a.png"], tmp_path / name, suffix) == [
            FileJob(source / "a.png", tmp_path / name)
        ]
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        plan_files([tmp_path / "nowhere"], out)
    (tmp_path / "none").mkdir()
    with pytest.raises(FileNotFoundError, match="no images in"):
        plan_files([tmp_path / "none"], out)
    with pytest.raises(ValueError, match="would overwrite its input"):
        plan_files([source], source)
    with pytest.raises(ValueError, match="would both be written"):
        plan_files([source / "a.png", source / "sub" / "a.png"], out)


def test_files_are_processed_at_the_same_time(tmp_path: Path) -> None:
    jobs = [
        FileJob(tmp_path / f"{index}.png", tmp_path / "out" / f"{index}.png") for index in range(12)
    ]
    both = threading.Barrier(2, timeout=20)
    threads = set()

    def process(job: FileJob) -> ResultWriter:
        number = int(job.source.stem)
        if number < 2:
            both.wait()  # two run at the same time
        threads.add((threading.get_ident(), torch.get_num_threads()))
        time.sleep(0.02 * (number % 3))  # the first need not be the first that is done
        if number == 5:
            raise ValueError("five")
        return content_writer(str(number).encode(), {})

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        results = list(process_files(jobs, process, workers=2))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert [result.job for result in results] == jobs  # in order
    assert [result.error is None for result in results] == [number != 5 for number in range(12)]
    assert sorted(int(path.read_bytes()) for path in (tmp_path / "out").iterdir()) == [
        n for n in range(12) if n != 5
    ]
    assert len(threads) == 2
    assert all(number == 1 for _, number in threads)  # each its share of the two


def test_full_disk_ends_all_workers(tmp_path: Path) -> None:
    jobs = [
        FileJob(tmp_path / f"{index}.png", tmp_path / "out" / f"{index}.png") for index in range(40)
    ]
    begun = []

    def process(job: FileJob) -> ResultWriter:
        begun.append(job)
        if len(begun) == 3:
            raise DiskError("the disk is full")
        return content_writer(b"", {})

    results = list(process_files(jobs, process, workers=2))
    assert "the disk is full" in (results[-1].error or "")
    assert len(results) <= 4
    assert len(begun) < 12


def test_precision_option(tiny: VRDIR, photo: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = np.asarray(Restorer(tiny, "cpu")(photo), np.float32) / 255
    nearly = np.asarray(Restorer(tiny, "cpu", precision="bf16")(photo), np.float32) / 255
    assert 0 < np.abs(nearly - exact).mean() < 0.01
    monkeypatch.setattr("vrdir.restoring.network.WHOLE_PIXELS", 1)  # in strips
    assert (
        np.abs(
            np.asarray(Restorer(tiny, "cpu", precision="bf16")(photo), np.float32) / 255 - exact
        ).mean()
        < 0.01
    )
    with pytest.raises(ValueError, match="precision must be float32 or bf16, not 'half'"):
        Restorer(tiny, "cpu", precision="half")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="backend onnx computes in float32"):
        Restorer(tiny, "cpu", backend="onnx", precision="bf16")
