"""Runs over addresses on one machine: the results, the account, resuming."""

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageCms
from tests.cluster.conftest import photo

from vrdir.cluster import file_systems, storage
from vrdir.cluster.account import Account, Row, key_of
from vrdir.cluster.estimate import estimate
from vrdir.cluster.run import restore_addresses
from vrdir.cluster.tries import MOST, Counts, Tries
from vrdir.cluster.work import Options
from vrdir.errors import DataError, ExistsError, MissingFileError
from vrdir.restoring.restorer import Restorer

NAMES = {"a/1.png": "PNG", "a/2.jpg": "JPEG", "3.webp": "WEBP", "4.png": "PNG", "5.jpg": "JPEG"}


def fill(bucket: str) -> None:
    """Put images, a bad one and another file into a bucket."""
    for seed, (name, file_format) in enumerate(NAMES.items()):
        storage.write(f"{bucket}/in/{name}", photo(seed, file_format))
    storage.write(f"{bucket}/in/bad.png", b"no image")
    storage.write(f"{bucket}/in/notes.txt", b"notes")


def test_results_match_local_folder_byte_for_byte(
    bucket: str, options: Options, tiny: Path, tmp_path: Path
) -> None:
    fill(bucket)
    rows = list(restore_addresses([f"{bucket}/in"], f"{bucket}/out", options))
    restorer = Restorer(tiny, "cpu")
    for name in NAMES:
        here, restored = tmp_path / "in" / name, tmp_path / "out" / name
        here.parent.mkdir(parents=True, exist_ok=True)
        here.write_bytes(storage.read(f"{bucket}/in/{name}"))
        restorer.restore_file(here, restored)
        assert storage.read(f"{bucket}/out/{name}") == restored.read_bytes(), name
    assert {row.status for row in rows if not row.error} == {"restored"}
    (bad,) = [row for row in rows if row.error]
    assert (bad.source, bad.status) == (f"{bucket}/in/bad.png", "failed")
    assert not storage.exists(f"{bucket}/out/bad.png")


def test_metadata_is_kept(bucket: str, options: Options) -> None:
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    buffer = io.BytesIO()
    picture = Image.open(io.BytesIO(photo(1)))
    picture.save(buffer, "JPEG", exif=exif, icc_profile=profile, dpi=(300, 300))
    storage.write(f"{bucket}/in/1.jpg", buffer.getvalue())
    list(restore_addresses([f"{bucket}/in"], f"{bucket}/out", options))
    with Image.open(io.BytesIO(storage.read(f"{bucket}/out/1.jpg"))) as restored:
        assert restored.getexif()[0x010F] == "a camera"
        assert restored.info["icc_profile"] == profile
        assert restored.info["dpi"] == (300, 300)


def test_account_has_a_row_for_each_image(bucket: str, options: Options) -> None:
    fill(bucket)
    list(restore_addresses([f"{bucket}/in"], f"{bucket}/out", options))
    rows = {row.target: row for row in Account(f"{bucket}/out").rows()}
    assert len(rows) == len(NAMES) + 1
    for name in NAMES:
        row = rows[f"{bucket}/out/{name}"]
        before, after = (storage.read(f"{bucket}/{side}/{name}") for side in ("in", "out"))
        assert row.source_sha256 == sha256(before).hexdigest()
        assert row.target_sha256 == sha256(after).hexdigest()
        assert (row.source_bytes, row.target_bytes) == (len(before), len(after))
        assert row.changed is not None
        assert row.seconds > 0


def test_resumed_run_processes_the_rest(bucket: str, options: Options) -> None:
    fill(bucket)
    rows = restore_addresses([f"{bucket}/in"], f"{bucket}/out", options)
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    done = len(Account(f"{bucket}/out").rows())
    with pytest.raises(ExistsError, match="continue it with --resume"):
        next(restore_addresses([f"{bucket}/in"], f"{bucket}/out", options))
    again = list(
        restore_addresses(
            [f"{bucket}/in"], f"{bucket}/out", options._replace(overwrite=True), resume=True
        )
    )
    assert 1 <= done < len(NAMES) + 1
    assert len(again) == len(NAMES) + 1 - done
    assert len(Account(f"{bucket}/out").rows()) == len(NAMES) + 1
    with pytest.raises(DataError, match="other settings .*quality"):
        next(
            restore_addresses(
                [f"{bucket}/in"], f"{bucket}/out", options._replace(quality=50), resume=True
            )
        )


RUN = """
import sys
from vrdir.cluster.run import restore_addresses
from vrdir.cluster.work import Options
inputs, output, weights = sys.argv[1:]
options = Options({"weights": weights, "device": "cpu"}, overwrite=True)
for row in restore_addresses([inputs], output, options, resume=True):
    print(row.target, flush=True)
"""


def test_killed_run_loses_nothing(bucket: str, tiny: Path) -> None:
    count = 24
    for seed in range(count):
        storage.write(f"{bucket}/in/{seed:03}.png", photo(seed, size=(96, 80)))
    command = [sys.executable, "-c", RUN, f"{bucket}/in", f"{bucket}/out", str(tiny)]
    Account(f"{bucket}/out").begin({}, resume=False)  # made anew by the run's own settings below
    file_systems.open_storage(bucket)[0].rm(f"{bucket}/out/.vrdir-account/_run.json")
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ.copy())
    assert running.stdout is not None
    running.stdout.readline()
    running.send_signal(signal.SIGKILL)
    running.wait()
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    rows = Account(f"{bucket}/out").rows()
    assert [row.status for row in rows] == ["restored"] * count
    for row in rows:
        assert sha256(storage.read(row.target)).hexdigest() == row.target_sha256


def test_inputs_that_cannot_be_listed_leave_nothing(bucket: str, options: Options) -> None:
    with pytest.raises(MissingFileError):
        next(restore_addresses([f"{bucket}/none"], f"{bucket}/out", options))
    assert not storage.exists(f"{bucket}/out/.vrdir-account/_run.json")


def test_existing_results_are_not_replaced(bucket: str, options: Options) -> None:
    storage.write(f"{bucket}/in/1.png", photo(1))
    storage.write(f"{bucket}/out/1.png", b"mine")
    (row,) = restore_addresses([f"{bucket}/in"], f"{bucket}/out", options)
    assert "exists; replace it with --overwrite" in row.error
    assert storage.read(f"{bucket}/out/1.png") == b"mine"


def test_results_of_a_lost_worker_are_replaced(bucket: str, options: Options) -> None:
    # They are newer than the run, and no row says that they are there.
    storage.write(f"{bucket}/in/1.png", photo(1))
    list(restore_addresses([f"{bucket}/in"], f"{bucket}/out", options))
    (part,) = Account(f"{bucket}/out").parts()
    file_systems.open_storage(part)[0].rm_file(part)
    storage.write(f"{bucket}/out/1.png", b"older half")
    (row,) = restore_addresses([f"{bucket}/in"], f"{bucket}/out", options, resume=True)
    assert row.status == "restored"
    assert sha256(storage.read(row.target)).hexdigest() == row.target_sha256


def test_videos_are_restored_whole(
    bucket: str, options: Options, tiny: Path, tmp_path: Path
) -> None:
    pytest.importorskip("av")
    from tests.clips import clip

    source, expected = clip(tmp_path / "view.mp4", frames=5), tmp_path / "restored.mp4"
    storage.write(f"{bucket}/in/a/view.mp4", source.read_bytes())
    storage.write(f"{bucket}/in/bad.mkv", b"no video")
    options = options._replace(smoothing=0.5)
    rows = list(restore_addresses([f"{bucket}/in"], f"{bucket}/out", options))
    Restorer(tiny, "cpu").restore_video(source, expected, 0.5)
    assert storage.read(f"{bucket}/out/a/view.mp4") == expected.read_bytes()
    good, bad = sorted(rows, key=lambda row: row.source)
    assert (good.status, good.source_bytes) == ("restored", source.stat().st_size)
    assert good.target_sha256 == sha256(expected.read_bytes()).hexdigest()
    assert bad.status == "failed"
    assert f"{bucket}/in/bad.mkv" in bad.error
    assert "/before" not in bad.error
    assert not storage.exists(f"{bucket}/out/bad.mkv")


@pytest.mark.parametrize("scheme", ["memory", "file"])
def test_other_storages(scheme: str, options: Options, tiny: Path, tmp_path: Path) -> None:
    root = f"{scheme}://{tmp_path}"
    for seed, name in enumerate(("1.png", "a/2.jpg")):
        storage.write(f"{root}/in/{name}", photo(seed, "JPEG" if "jpg" in name else "PNG"))
    inputs, output = [f"{root}/in"], f"{root}/out"
    rows = list(restore_addresses(inputs, output, options))
    assert [row.status for row in rows] == ["restored"] * 2
    assert storage.read(f"{root}/out/1.png") == Restorer(tiny, "cpu")(photo(0))
    assert list(restore_addresses(inputs, output, options, resume=True)) == []
    assert storage.modified(f"{root}/out/1.png")


def test_tar_shards_keep_members_and_labels(bucket: str, options: Options, tiny: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in {
            "1.png": photo(1),
            "1.cls": b"3",
            "2.jpg": b"no image",
            "2.cls": b"4",
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    storage.write(f"{bucket}/in/0.tar", buffer.getvalue())
    rows = list(restore_addresses([f"{bucket}/in"], f"{bucket}/out", options))
    assert [(row.source.split("#")[1], row.status) for row in rows] == [
        ("1.png", "restored"),
        ("2.jpg", "failed"),
    ]
    with tarfile.open(fileobj=io.BytesIO(storage.read(f"{bucket}/out/0.tar"))) as tar:
        found = {member.name: tar.extractfile(member).read() for member in tar}
    assert list(found) == ["1.png", "1.cls", "2.jpg", "2.cls"]
    assert found["1.png"] == Restorer(tiny, "cpu")(photo(1))
    assert (found["1.cls"], found["2.jpg"], found["2.cls"]) == (b"3", b"no image", b"4")


@pytest.mark.parametrize("nested", [True, False])
def test_parquet_tables_keep_their_columns(
    bucket: str, options: Options, tiny: Path, nested: bool
) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    contents: list[Any] = [photo(1), None, photo(2, "JPEG")]
    images = [
        None if content is None else {"bytes": content, "path": "x"} if nested else content
        for content in contents
    ]
    sink = arrow.BufferOutputStream()
    parquet.write_table(arrow.table({"label": [7, 8, 9], "image": images}), sink)
    storage.write(f"{bucket}/in/0.parquet", sink.getvalue().to_pybytes())
    rows = list(restore_addresses([f"{bucket}/in"], f"{bucket}/out", options))
    assert [row.status for row in rows] == ["restored"] * 2
    table = parquet.read_table(arrow.BufferReader(storage.read(f"{bucket}/out/0.parquet")))
    assert table.column("label").to_pylist() == [7, 8, 9]
    values = table.column("image").to_pylist()
    restored = [value["bytes"] if nested and value else value for value in values]
    restorer = Restorer(tiny, "cpu")
    assert restored == [None if content is None else restorer(content) for content in contents]


def test_estimate_counts_images_and_measures_time(bucket: str, options: Options) -> None:
    fill(bucket)
    found = estimate([f"{bucket}/in"], options, workers=4, price=0.5, sample=4)
    assert (found.images, found.skipped) == (len(NAMES) + 1, {".txt": 1})
    assert found.types == {".png": 3, ".jpg": 2, ".webp": 1}
    assert found.hours == pytest.approx(
        found.megapixels * found.seconds_per_megapixel / 3600 / 4 / 0.9
    )
    assert found.price == pytest.approx(found.hours * 4 * 0.5)
    assert not storage.exists(f"{bucket}/out/a/1.png")
    start = time.perf_counter()
    with pytest.raises(DataError, match="no image of the sample"):
        estimate([f"{bucket}/in/bad.png"], options)
    assert time.perf_counter() - start < 60


def test_worker_finishes_the_rest_of_a_block(bucket: str, options: Options) -> None:
    """An actor of Ray by itself: its batches, and those that a lost one had finished."""
    pytest.importorskip("ray")
    from vrdir.cluster.listing import Source
    from vrdir.cluster.ray_engine import Worker, batch_name, blocks_of

    for seed in range(5):
        storage.write(f"{bucket}/in/{seed}.png", photo(seed))
    sources = [Source(f"{bucket}/in/{seed}.png", f"{seed}.png", 9) for seed in (4, 2, 0, 1, 3)]
    sources = [source._replace(size=len(storage.read(source.address))) for source in sources]
    (block,) = blocks_of(sources, 5)
    worker = Worker(f"{bucket}/out", options, threads=1, batch=2)
    given = {name: block.column(name).to_numpy(zero_copy_only=False) for name in block.column_names}
    first = [batch.to_pylist() for batch in worker(given)]
    assert [len(batch) for batch in first] == [2, 2, 1]
    assert {row["status"] for batch in first for row in batch} == {"restored"}
    names = sorted(Path(part).name for part in worker.account.parts())
    ordered = [Source(row["address"], row["name"], row["size"]) for row in block.to_pylist()]
    assert sorted(f"part-{batch_name(ordered[n : n + 2])}.parquet" for n in (0, 2, 4)) == names
    # The second batch could not be reached, and the third was not noted.
    again = [Row(**row) for row in first[1]]
    worker.account.write_part(
        [again[0]._replace(status="unreachable"), again[1]], batch_name(ordered[2:4])
    )
    file_systems.open_storage(bucket)[0].rm_file(
        f"{bucket}/out/.vrdir-account/part-{batch_name(ordered[4:])}.parquet"
    )
    worker.options = worker.options._replace(overwrite=True)
    second = [batch.to_pylist() for batch in worker(given)]
    assert second[0] == first[0]  # not done again: the same seconds
    assert second[1][0]["status"] == "restored"
    assert second[1][0]["seconds"] != first[1][0]["seconds"]
    assert second[2][0]["target_sha256"] == first[2][0]["target_sha256"]


class OfThisProgram(Tries):
    """Asks counts that are no actor."""

    def __init__(self) -> None:
        self.counts = Counts()

    def begin(self, names: Sequence[str]) -> bool:
        return self.counts.begin(names) >= MOST

    def end(self, names: Sequence[str]) -> None:
        self.counts.end(names)


def test_an_image_that_ends_its_workers_is_set_aside(bucket: str, options: Options) -> None:
    """The last worker of a block of which four were lost; test_ray.py really loses them."""
    pytest.importorskip("ray")
    from vrdir.cluster.listing import Source
    from vrdir.cluster.ray_engine import Worker, batch_name, blocks_of

    for seed in range(3):
        storage.write(f"{bucket}/in/{seed}.png", photo(seed))
    sources = [Source(f"{bucket}/in/{seed}.png", f"{seed}.png", 9) for seed in range(3)]
    (block,) = blocks_of(sources, 3)
    given = {name: block.column(name).to_numpy(zero_copy_only=False) for name in block.column_names}
    worker = Worker(f"{bucket}/out", options, threads=1, batch=3)
    worker.tries = tries = OfThisProgram()
    begun = [tries.begin([batch_name(sources)]) for _ in range(4)]
    assert begun == [False, False, True, True]  # the third and fourth restored one at a time
    for _ in range(2):
        tries.begin([f"alone {key_of(sources[1])}"])  # and were lost at the second image
    (rows,) = [batch.to_pylist() for batch in worker(given)]
    assert [row["status"] for row in rows] == ["restored", "failed", "restored"]
    assert "2 workers were lost while each restored this image alone" in rows[1]["error"]
    assert not storage.exists(f"{bucket}/out/1.png")
    assert not tries.begin([batch_name(sources)])  # it has ended
    assert key_of(sources[1]) in Account(f"{bucket}/out").finished()


def test_worker_checks_its_network(bucket: str, options: Options) -> None:
    from vrdir.cluster.ray_engine import Worker

    block: dict[str, Any] = {"address": [], "name": [], "size": [], "clash": []}
    fingerprint = Restorer(**options.restorer).fingerprint()
    assert list(Worker(f"{bucket}/out", options, 1, 4, fingerprint)(block)) == []
    with pytest.raises(DataError, match="other weights .*; copy the same to all nodes"):
        next(Worker(f"{bucket}/out", options, 1, 4, "another")(block))


def test_prefetch_is_bounded_and_stops() -> None:
    from vrdir.cluster.ray_engine import waves

    assert list(waves(iter(range(10)), 2, 3)) == [[0, 1], [2, 3, 4], [5, 6, 7], [8, 9]]
    drawn: list[int] = []

    def endless() -> Any:
        number = 0
        while True:
            drawn.append(number)
            yield number
            number += 1

    lists = waves(endless(), 3, 3)
    next(lists)
    lists.close()  # type: ignore[attr-defined]
    assert len(drawn) <= 8
