"""Batches do not depend on how the work is divided; validation images are fixed."""

import logging
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vrdir.data.batches import Batch
from vrdir.data.image_cache import ImageCache, photos_in
from vrdir.data.items import Item, items_of, split
from vrdir.data.pairs import open_pair, read_pairs
from vrdir.data.training_set import TrainingSet
from vrdir.data.validation_set import ValidationSet
from vrdir.degradations.draws import seed_of
from vrdir.errors import ImageError
from vrdir.images.folders import composed
from vrdir.training.paper_stages import BranchStage
from vrdir.training.settings import Recipe

NAMES = ("haze", "noise", "rain")
SHARES = {"clean": 1.0, "haze": 1.0, "noise": 1.0, "rain": 1.0, "mixed": 1.0}


def everything(_: Item) -> bool:
    return True


def training_set(items: list[Item], **options: Any) -> TrainingSet:
    return TrainingSet(items, NAMES, **({"crop_px": 32} | options))


def batches(
    data: TrainingSet, steps: range = range(1, 3), size: int = 4, **options: Any
) -> list[list[Batch]]:
    return list(data.stage("decoder", SHARES, everything).batches(size, steps, **options))


def picture(path: Path, size: tuple[int, int] = (60, 50), seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def pair_list(tmp_path: Path) -> Path:
    """Six pairs of inverted images, so that a crop shows whether both were cut alike."""
    lines = []
    for number in range(6):
        clean = picture(tmp_path / f"clean{number}.png", seed=number)
        Image.fromarray(255 - np.array(Image.open(clean))).save(tmp_path / f"degraded{number}.png")
        lines.append(f"degraded{number}.png|clean{number}.png\n")
    (tmp_path / "pairs.txt").write_text("".join(lines))
    return tmp_path / "pairs.txt"


def test_crops_have_requested_size_even_from_smaller_photos(tmp_path: Path) -> None:
    picture(tmp_path / "small.png", (50, 20))
    [[batch]] = batches(training_set([Item(tmp_path / "small.png")], crop_px=64), range(1, 2), 7)
    assert batch.clean.shape == batch.degraded.shape == (7, 3, 64, 64)
    assert 0 <= float(batch.clean.min()) < float(batch.clean.max()) <= 1
    validation = ValidationSet([Item(tmp_path / "small.png")], NAMES, 96)
    assert [clean.shape for _, _, clean in validation.pairs({"noise": 1.0}, everything)] == [
        (1, 3, 96, 96)
    ]


def test_pair_is_cropped_and_flipped_identically(pair_list: Path) -> None:
    items = items_of(None, [f"rain={pair_list}"], NAMES)
    for [batch] in batches(training_set(items), range(1, 8), 6):
        torch.testing.assert_close(batch.degraded, 1 - batch.clean)
        assert batch.present.tolist() == [[False, False, True]] * 6
        assert batch.known.all()


def test_papers_augmentation_is_a_mirror_image_at_most(pair_list: Path) -> None:
    item = items_of(None, [str(pair_list)], NAMES)[0]
    whole = torch.from_numpy(np.array(Image.open(item.clean))).permute(2, 0, 1)
    data = training_set([item], crop_px=48, augmentation="flip")
    found = {False: 0, True: 0}
    for seed in range(20):
        crop = data.crop(0, torch.Generator().manual_seed(seed))[0]
        windows = whole.unfold(1, 48, 1).unfold(2, 48, 1)
        for flip in (False, True):
            wanted = crop.flip(2) if flip else crop
            found[flip] += bool((windows == wanted[:, None, None]).all(-1).all(-1).all(0).any())
    assert found[False] + found[True] == 20
    assert min(found.values()) > 3


@pytest.mark.parametrize(
    "options", [{"parts": 2}, {"processes": 2}, {"parts": 2, "processes": 2}, {"workers": 2}]
)
def test_batches_do_not_depend_on_how_the_work_is_divided(
    options: dict[str, int], photo_folder: Path
) -> None:
    items = items_of(photo_folder, (), NAMES)
    whole = batches(training_set(items))
    ranks = range(options.get("processes", 1))
    divided = [batches(training_set(items), rank=rank, **options) for rank in ranks]
    for step, [batch] in enumerate(whole):
        parts = [part for rank in ranks for part in divided[rank][step]]
        for field in ("clean", "degraded"):
            torch.testing.assert_close(
                torch.cat([getattr(part, field) for part in parts]),
                getattr(batch, field),
                rtol=0,
                atol=1.01 / 255,
            )
        assert torch.equal(torch.cat([part.present for part in parts]), batch.present)
        assert [name for part in parts for name in part.names] == batch.names


def test_batch_of_one_source_depends_on_its_step_and_size_alone(photo_folder: Path) -> None:
    data = TrainingSet(
        items_of(photo_folder, (), ()),
        ("haze", "noise", "rain"),
        crop_px=32,
        view_px=48,
        copy_px=32,
        overlay_share=0.5,
        jpeg_share=0.5,
        one_source=True,
    )
    shares = {"clean": 1.0, "haze": 1.0, "rain": 1.0, "mixed": 1.0}
    stage = data.stage("refine", shares, lambda item: True, False, 0.3)
    first, again = (next(iter(stage.batches(8, range(3, 4))))[0] for _ in range(2))
    assert torch.equal(first.degraded, again.degraded)
    assert first.place is not None
    assert len({tuple(place) for place in first.place.tolist()}) > 4
    (next_batch,) = next(iter(stage.batches(8, range(4, 5))))
    assert not torch.equal(next_batch.degraded, first.degraded)


def test_step_does_not_depend_on_earlier_steps(photo_folder: Path) -> None:
    items = items_of(photo_folder, (), NAMES)
    _, [[first]] = (
        batches(training_set(items), range(1, 3)),
        batches(training_set(items), range(2, 3)),
    )
    [[again]] = batches(training_set(items), range(1, 3))[1:]
    assert torch.equal(first.degraded, again.degraded)
    [[other_seed]] = batches(training_set(items, seed=1), range(2, 3))
    assert not torch.equal(first.clean, other_seed.clean)
    [[other_stage]] = (
        training_set(items).stage("fusion", SHARES, everything).batches(4, range(2, 3))
    )
    assert not torch.equal(first.clean, other_stage.clean)


def test_two_processes_use_every_image_once_per_epoch(photo_folder: Path) -> None:
    items = items_of(photo_folder, (), NAMES)
    assert len(items) == 12
    orders = []
    for epoch in (range(1, 4), range(4, 7)):
        names = [
            name
            for rank in range(2)
            for [part] in batches(training_set(items), epoch, 4, rank=rank, processes=2)
            for name in part.names
        ]
        assert sorted(names) == sorted(item.name for item in items)
        orders.append(names)
    assert orders[0] != orders[1]


def test_balanced_lists_count_alike(pair_list: Path, photo_folder: Path) -> None:
    items = items_of(photo_folder, [f"rain={pair_list}"], NAMES)
    for balance, length in ((False, 18), (True, 24)):
        stage = training_set(items, balance=balance).stage("decoder", SHARES, everything)
        assert stage.epoch_length == length
        of_list = sum(stage.data.items[stage.index(n)].kind == "rain_pairs" for n in range(length))
        assert of_list == (12 if balance else 6)


def test_lists_have_their_share_of_every_batch(pair_list: Path, photo_folder: Path) -> None:
    items = items_of(photo_folder, [f"rain={pair_list}"], NAMES)
    for balance in (False, True):  # of several lists among themselves; there is one
        stage = training_set(items, balance=balance, pairs_share=0.25).stage(
            "decoder", SHARES, everything
        )
        assert stage.epoch_length == 16  # 12 photos and 4 from the list
        chosen = [stage.index(n) for n in range(48)]
        of_list = [items[i].kind == "rain_pairs" for i in chosen]
        assert [sum(of_list[n : n + 4]) for n in range(0, 48, 4)] == [1] * 12
        photos, pairs = (
            [i for i, one in zip(chosen, of_list, strict=True) if one is own]
            for own in (False, True)
        )
        for epoch in range(3):
            assert sorted(photos[12 * epoch : 12 * epoch + 12]) == list(range(12))
        assert sorted(pairs[:6]) == sorted(pairs[6:]) == list(range(12, 18))
        assert photos[:12] != photos[12:24]
    alone = training_set(items, pairs_share=0.25).stage(
        "decoder", SHARES, lambda item: item.kind == "rain_pairs"
    )
    assert alone.epoch_length == 6  # no folder for a list
    for part in (items[:12], items[12:]):
        with pytest.raises(ValueError, match="use --clean and --pairs, or remove it"):
            training_set(part, pairs_share=0.25)


def test_indivisible_batch_raises(photo_folder: Path) -> None:
    with pytest.raises(
        ValueError, match="batch_size 4 cannot be divided into 3 processes x 1 parts"
    ):
        batches(training_set(items_of(photo_folder, (), NAMES)), processes=3)


def test_list_synthesises_its_degradations(photo_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "noisy.txt").write_text(
        "".join(f"@noise:sigma=25|{path}\n" for path in photos_in(photo_folder))
    )
    items = items_of(None, [str(tmp_path / "noisy.txt")], NAMES)
    [[batch]] = batches(training_set(items, crop_px=64), range(1, 2), 12)
    middle = (batch.clean > 0.4) & (batch.clean < 0.6)
    assert float((batch.degraded - batch.clean)[middle].std() * 255) == pytest.approx(25, rel=0.05)
    assert batch.present.tolist() == [[False, True, False]] * 12
    validation = ValidationSet(items, NAMES, None)
    once, again = (
        [degraded for _, degraded, _ in validation.pairs(SHARES, everything)] for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    assert {tuple(image.shape) for image in once} == {(1, 3, 200, 200)}  # whole


def test_unnamed_lists_have_unknown_degradations(pair_list: Path) -> None:
    [[batch]] = batches(training_set(items_of(None, [str(pair_list)], NAMES)), range(1, 2))
    assert not batch.known.any()
    [[batch]] = batches(training_set(items_of(None, [f"clean={pair_list}"], NAMES)), range(1, 2))
    assert batch.known.all()
    assert not batch.present.any()
    with pytest.raises(
        ValueError,
        match="'fog' is not a known degradation; use one of haze, noise, rain, clean, mixed",
    ):
        items_of(None, [f"fog={pair_list}"], NAMES)


def test_degradation_without_branch_is_unknown_not_clean(
    photo_folder: Path, tmp_path: Path
) -> None:
    photo = photos_in(photo_folder)[0]
    (tmp_path / "list.txt").write_text(
        f"@snow|{photo}\n@snow+noise:sigma=25|{photo}\n@clean|{photo}\n@noise:sigma=25|{photo}\n"
    )
    items = items_of(None, [str(tmp_path / "list.txt")], NAMES)
    data = training_set(items)
    batch = data.stage("decoder", SHARES, everything).batch(
        data.stage("decoder", SHARES, everything).crops(0, 4)
    )
    found = {
        name.rpartition("@")[2]: (bool(k), p.tolist())
        for name, k, p in zip(batch.names, batch.known, batch.present, strict=True)
    }
    noisy = [False, True, False]
    clean = [False, False, False]
    assert list(map(found.get, ("snow", "snow+noise:sigma=25", "clean", "noise:sigma=25"))) == [
        (False, clean),
        (True, noisy),
        (True, clean),
        (True, noisy),
    ]


def test_lists_of_one_name_stay_apart(photo_folder: Path, tmp_path: Path) -> None:
    photos = photos_in(photo_folder)
    for file in ("its.txt", "ots.txt", "clean.txt", "a/train.txt", "b/train.txt"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(f"@haze:beta=1|{photos[0]}\n")
    lists = [
        f"haze={tmp_path}/its.txt",
        f"haze={tmp_path}/ots.txt",
        *(f"{tmp_path}/{name}/train.txt" for name in "ab"),
        f"{tmp_path}/clean.txt",
    ]
    assert [item.kind for item in items_of(None, lists, NAMES)] == [
        "haze",
        "haze_ots",
        "train",
        "train_2",
        "clean",
    ]
    beside_photos = [item.kind for item in items_of(photo_folder, lists, NAMES) if not item.drawn]
    assert beside_photos == [
        "haze_its",
        "haze_ots",
        "train",
        "train_2",
        "clean_2",
    ]  # "haze" is what the photos become
    kinds = ValidationSet(items_of(photo_folder, lists, NAMES), NAMES, None).kinds(
        {"clean": 1.0, "haze": 1.0}, everything
    )
    assert len(set(kinds)) == len(kinds) == 7


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    for file in ("a.png", ".b.png", ".thumbs/a.png", "more/c.png"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        picture(tmp_path / file)
    assert photos_in(tmp_path) == [tmp_path / "a.png", tmp_path / "more/c.png"]


def test_list_of_mixed_degradations_belongs_to_no_branch(
    photo_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "storm.txt").write_text("|".join(map(str, photos_in(photo_folder)[:2])) + "\n")
    stage = BranchStage(Recipe.read("smoke"), "haze")
    takes = {
        name: stage.accepts(items_of(None, [f"{name}{tmp_path}/storm.txt"], NAMES)[0])
        for name in ("", "haze=", "rain=", "mixed=")
    }
    assert takes == {"": True, "haze=": True, "rain=": False, "mixed=": False}


def test_folder_that_cannot_be_listed_is_logged(
    photo_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    for folder in ("photos", "photos/locked"):
        (tmp_path / folder).mkdir()
        picture(tmp_path / folder / "a.png")
    listed = os.scandir

    def scandir(
        path: str,
    ) -> Any:  # root may read everything, so the system's answer is put in its place
        if Path(path).name == locked:
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    locked = "locked"
    assert photos_in(tmp_path / "photos") == [tmp_path / "photos/a.png"]
    assert (
        f"skipped: the folder {tmp_path / 'photos/locked'} cannot be listed (Permission denied)"
        in caplog.text
    )
    locked = "photos"
    with pytest.raises(PermissionError):
        photos_in(tmp_path / "photos")


def test_cache_keeps_images_up_to_its_limit_and_shares_them(photo_folder: Path) -> None:
    paths = photos_in(photo_folder)
    one = 3 * 200 * 200
    cache = ImageCache(paths, budget_bytes=5 * one)
    for _ in range(2):
        for path in paths:
            assert torch.equal(
                cache.image(path), torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
            )
    assert cache.kept == 5
    data = training_set(items_of(photo_folder, (), NAMES))
    assert data.images.kept == 0
    batches(data, range(1, 7), workers=2)
    assert data.images.kept == 12  # by the workers, seen here


def test_image_that_cannot_be_decoded_is_logged_and_replaced(
    photo_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = photos_in(photo_folder)[0].read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    picture(tmp_path / "whole.png")
    (tmp_path / "no_image.jpg").write_bytes(b"no image")
    with caplog.at_level(logging.WARNING):
        items = items_of(tmp_path, (), NAMES)
        names = {
            name for [batch] in batches(training_set(items), range(1, 6)) for name in batch.names
        }
    assert names == {str(tmp_path / "whole.png")}
    assert "no_image.jpg" in caplog.text
    assert caplog.text.count("cut.png is damaged") == 1
    (tmp_path / "whole.png").unlink()
    with pytest.raises(
        ImageError, match=r"20 images in a row cannot be read, the last of them .*cut.png"
    ):
        batches(training_set(items_of(tmp_path, (), NAMES)))
    (tmp_path / "cut.png").unlink()
    with pytest.raises(ValueError, match="none of the 1 photos can be read"):
        items_of(tmp_path, (), NAMES)


def test_pair_whose_sizes_differ_is_found_before_training(pair_list: Path, tmp_path: Path) -> None:
    picture(tmp_path / "degraded3.png", (60, 49))
    with pytest.raises(ValueError, match=r"pairs.txt.*4"):
        items_of(None, [str(pair_list)], NAMES)


def test_validation_photos_are_held_out(photo_folder: Path) -> None:
    items = items_of(photo_folder, (), NAMES)
    training, validation = split(items, 3)
    assert len(validation) == 3
    assert sorted(training + validation) == items
    with pytest.raises(ValueError, match="cannot hold out 12 of 12"):
        split(items, 12)


def test_folder_without_photos_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no images in"):
        photos_in(tmp_path)
    with pytest.raises(FileNotFoundError, match="folder of clean photos does not exist"):
        photos_in(tmp_path / "nowhere")


def test_validation_and_evaluation_use_the_same_images(photo_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(
        "".join(f"@haze:beta=1+noise:sigma=10|{path}\n" for path in photos_in(photo_folder)[:3])
    )
    validation = ValidationSet(items_of(None, [str(tmp_path / "list.txt")], NAMES), NAMES, None)
    for pair, (_, degraded, clean) in zip(
        read_pairs(tmp_path / "list.txt"), validation.pairs(SHARES, everything), strict=True
    ):
        for one, other in zip(open_pair(pair), (degraded, clean), strict=True):
            assert torch.equal(one, other)


def test_clean_pairs_stay_unchanged(photo_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(
        "".join(f"@clean|{path}\n" for path in photos_in(photo_folder))
    )
    [[batch]] = batches(
        training_set(items_of(None, [str(tmp_path / "list.txt")], NAMES)), range(1, 2)
    )
    assert torch.equal(batch.degraded, batch.clean)
    assert batch.known.all()
    assert not batch.present.any()


def test_target_of_a_compressed_clean_photo_is_itself(photo_folder: Path) -> None:
    # Else a network would have to improve every photo, for all photos come in files.
    items = items_of(photo_folder, (), NAMES)
    data = TrainingSet(items, NAMES, crop_px=32, jpeg_share=1.0)
    before = TrainingSet(items, NAMES, crop_px=32)
    shares = {"clean": 1.0, "noise": 1.0}
    [[stored]], [[plain]] = (
        list(of.stage("refine", shares, everything).batches(16, range(1, 2)))
        for of in (data, before)
    )
    untouched = ~stored.present.any(1)
    assert 0 < int(untouched.sum()) < 16
    assert torch.equal(stored.clean[untouched], stored.degraded[untouched])
    assert not torch.equal(
        stored.clean[untouched], plain.clean[untouched]
    )  # it did go through a file
    assert torch.equal(
        stored.clean[~untouched], plain.clean[~untouched]
    )  # the others' aim is the photo itself
    for share, same in ((0.0, True), (1.0, False)):
        for kind, degraded, clean in ValidationSet(items[:2], NAMES, 48, jpeg_share=share).pairs(
            shares, everything
        ):
            assert torch.equal(degraded, clean) == (kind == "clean")
            original = next(
                iter(ValidationSet(items[:2], NAMES, 48).pairs({"clean": 1.0}, everything))
            )[2]
            if kind == "clean" and not same:
                assert not torch.equal(clean, original)
                break


def test_grey_photos_are_validated_on_in_one_grain(photo: Image.Image, tmp_path: Path) -> None:
    photo.convert("L").save(tmp_path / "grey.png")
    photo.save(tmp_path / "red.png")
    validation = ValidationSet(items_of(tmp_path, (), ()), ("noise",), 48)
    for (_, degraded, clean), grey in zip(
        validation.pairs({"noise": 1.0}, lambda item: True), (True, False), strict=True
    ):
        assert torch.equal(degraded[:, 0], degraded[:, 1]) == grey
        assert not torch.equal(degraded, clean)


def test_photos_and_lists_may_have_names_of_any_bytes(tmp_path: Path) -> None:
    """Latin-1's, say, as old archives have them: seeds and logs must do with them."""
    (tmp_path / "photos").mkdir()
    for number in range(3):
        picture(tmp_path / "photos" / os.fsdecode(b"caf\xe9%d.png" % number))
    (tmp_path / os.fsdecode(b"n\xe9.txt")).write_text("@noise:sigma=25|plain.png\n")
    picture(tmp_path / "plain.png")
    items = items_of(tmp_path / "photos", [str(tmp_path / os.fsdecode(b"n\xe9.txt"))], ["noise"])
    assert items[-1].kind == "n\\udce9"
    assert len(batches(training_set(items))) == 2
    validation = ValidationSet(items, ["noise"], 32)
    assert [kind for kind, *_ in validation.pairs({"noise": 1.0}, everything)] == ["noise"] * 3 + [
        "n\\udce9"
    ]


def test_seed_does_not_depend_on_unicode_form_of_name() -> None:
    assert seed_of(1, composed("cafe\u0301")) == seed_of(1, "caf\u00e9") != seed_of(1, "cafe")
    assert seed_of("validation", "noise", "0001") == zlib.crc32(b"validation|noise|0001")  # as ever
