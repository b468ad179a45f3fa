"""The shared flow: where images come from, what is excluded, and what a result is made of."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vrdir.data.pairs import synthesised
from vrdir.errors import ImageError, RecogniserError
from vrdir.evaluation.recognition.protocol import CASES, Said, ask, cases_of
from vrdir.evaluation.recognition.variants import (
    AS_TAKEN,
    CLEAN,
    AsTaken,
    Condition,
    Folder,
    FromFolders,
    Item,
    Pixels,
    Source,
    Variant,
    by_function,
    load_function,
    load_restorer,
    pixels_of,
)
from vrdir.images.convert import open_image
from vrdir.model.vrdir import VRDIR
from vrdir.restoring.restorer import Restorer


@pytest.fixture
def items(photo: Image.Image, tmp_path: Path) -> list[Item]:
    """Three clean photos, c/0 to c/2, and folders with darker ones and with restored ones."""
    found = []
    for i in range(3):
        picture = photo.crop((i * 20, 0, i * 20 + 40, 30))
        for folder in ("clean/c", "dark", "restored/clean", "restored/dark"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            changed = picture.point(lambda v: v // 2) if folder == "dark" else picture
            changed.save(tmp_path / folder / f"{i}.png")
        found.append(Item(f"c/{i}", tmp_path / f"clean/c/{i}.png"))
    return found


def mean_of(item: Item, image: Pixels) -> float:
    return float(image.mean())


def test_an_image_is_found_by_its_path_or_by_its_last_part(
    items: list[Item], tmp_path: Path
) -> None:
    assert Folder(tmp_path / "dark").find(items[1]) == tmp_path / "dark/1.png"
    assert Folder(tmp_path / "clean").find(items[1]) == tmp_path / "clean/c/1.png"
    (tmp_path / "dark/1.jpg").write_bytes(b"")
    with pytest.raises(ImageError, match=r"holds 1.jpg and 1.png; one image for each"):
        Folder(tmp_path / "dark").find(items[1])
    with pytest.raises(ImageError, match=r"holds no d/7"):
        Folder(tmp_path / "dark").find(Item("d/7", tmp_path))
    with pytest.raises(FileNotFoundError, match="no folder"):
        Folder(tmp_path / "nowhere")
    (tmp_path / "linked").symlink_to(tmp_path / "clean")
    assert Folder(tmp_path / "linked").find(items[1]).name == "1.png"


def test_two_sets_of_different_names_are_an_error_and_what_is_over_is_named(
    items: list[Item], tmp_path: Path
) -> None:
    others = [Item("x", tmp_path / "x.png")]
    with pytest.raises(
        ValueError, match=r"has none of the data's names: it holds 0.png, the data x.png"
    ):
        ask(others, Source([Condition("dark", tmp_path / "dark")], {}, 0), mean_of, [])
    (tmp_path / "dark/3.jxl").write_bytes(b"?")
    over, other = Folder(tmp_path / "dark").compare(items[:1], ["2.png"])
    assert over == (str(tmp_path / "dark/1.png"), "there is no clean image of this name")
    assert other == (
        str(tmp_path / "dark/3.jxl"),
        "a file of a type that is not read: .jxl; save images as PNG",
    )
    twice = [*items, Item("d/0", items[0].path)]
    with pytest.raises(
        ValueError, match=r"holds one 0\.\*, the data several; keep its folders, as in c/0"
    ):
        Folder(tmp_path / "dark").compare(twice, [])
    dark = Folder(tmp_path / "dark")
    assert dark.find(twice[0]) == dark.find(twice[0])
    with pytest.raises(ImageError, match="would belong to c/0 and to d/0"):
        dark.find(twice[3])


def test_letters_may_be_composed_or_not(photo: Image.Image, tmp_path: Path) -> None:
    nfc, nfd = "caf\u00e9", "cafe\u0301"
    for name in (f"{nfc}/{nfc}", "plain"):
        for folder, path in (
            ("clean", name),
            ("fog", name.replace(nfc, nfd)),
            ("flat", name.replace(nfc, nfd).split("/")[-1]),
        ):
            target = tmp_path / folder / f"{path}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            photo.save(target)
    (tmp_path / "restored" / nfd).mkdir(parents=True)
    photo.save(tmp_path / "restored" / nfd / f"{nfd}.png")
    items = [
        Item(f"{nfc}/{nfc}", tmp_path / "clean" / nfc / f"{nfc}.png"),
        Item("plain", tmp_path / "clean/plain.png"),
    ]
    for folder in (Folder(tmp_path / "fog"), Folder(tmp_path / "flat")):
        assert folder.find(items[0]).name == f"{nfd}.png"
        assert folder.compare(items, []) == []
        assert folder.compare(items[1:], [items[0].name]) == []  # excluded already
        assert [one.name for one in folder.compare(items[1:], [])] == [str(folder.find(items[0]))]
    (tmp_path / "restored/clean").symlink_to(tmp_path / "clean")
    peer = FromFolders(
        tmp_path / "restored", [Condition(nfc, tmp_path / "fog")]
    )  # its folder is called by the condition
    assert peer.folders[nfc].find(items[0]).name == f"{nfd}.png"
    photo.save(tmp_path / "flat" / f"{nfc}.png")
    assert (
        Folder(tmp_path / "flat").find(items[0]).name == f"{nfc}.png"
    )  # the very name comes first


def test_conditions_that_cannot_be(tmp_path: Path) -> None:
    for name, message in (
        ("fog", "unknown degradation 'fog'"),
        ("haze:severity=9", "whole number from 1 to 5"),
        (CLEAN, "always measured"),
    ):
        with pytest.raises(ValueError, match=message):
            Condition(name)
    with pytest.raises(ValueError, match="one name: noise, noise"):
        Source([Condition("noise"), Condition("noise")], {}, 0)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Condition("foggy", tmp_path / "nowhere")


def test_images_as_taken_stand_alone(items: list[Item]) -> None:
    source = Source([AsTaken()], {"peer": by_function(lambda image: 255 - image)}, 0)
    before, after = source.variants
    assert (before, after) == (Variant(AS_TAKEN, ""), Variant(AS_TAKEN, "peer"))
    made = dict(source.images(items[0]))
    assert (made[after] == 255 - made[before]).all()
    assert torch.equal(source.picture(items[0], before), open_image(items[0].path).tensor[0])
    with pytest.raises(ValueError, match="no other condition"):
        Source([AsTaken(), Condition("noise")], {}, 0)


def test_every_variant_is_made_at_the_images_own_size_by_8_bits(
    items: list[Item], tmp_path: Path, tiny: VRDIR
) -> None:
    conditions = [Condition("dark", tmp_path / "dark"), Condition("noise:sigma=30")]
    restorer = Restorer(tiny, "cpu")
    source = Source(
        conditions, {"net": restorer, "files": by_function(lambda image: 255 - image)}, seed=3
    )
    made = dict(source.images(items[0]))
    assert list(made) == source.variants
    assert len(made) == 9
    clean = open_image(items[0].path).tensor
    noisy = pixels_of(synthesised(clean, "noise:sigma=30", items[0].path, seed=3))
    assert (made[Variant("noise:sigma=30", "")] == noisy).all()
    assert (made[Variant("noise:sigma=30", "net")] == restorer(noisy)).all()
    assert (made[Variant("dark", "files")] == 255 - made[Variant("dark", "")]).all()
    for variant, pixels in made.items():
        assert pixels.shape == (30, 40, 3)
        assert torch.equal(
            (source.picture(items[0], variant) * 255).round().byte(),
            torch.from_numpy(pixels.copy()).movedim(-1, 0),
        )


def test_restored_images_from_folders(items: list[Item], tmp_path: Path) -> None:
    conditions = [Condition("dark", tmp_path / "dark")]
    answered = ask(
        items,
        Source(conditions, {"peer": load_restorer(str(tmp_path / "restored"), conditions)}, 0),
        mean_of,
        [],
    )
    assert answered.answers[Variant("dark", "peer")] == answered.answers[Variant(CLEAN, "")]
    assert answered.answers[Variant("dark", "")] != answered.answers[Variant(CLEAN, "")]
    with pytest.raises(FileNotFoundError, match=r"restored.noise"):
        FromFolders(tmp_path / "restored", [Condition("noise")])


def test_an_image_that_fails_anywhere_is_excluded_everywhere_by_name(
    items: list[Item], tmp_path: Path
) -> None:
    Image.open(tmp_path / "dark/1.png").crop((0, 0, 20, 20)).save(tmp_path / "dark/1.png")

    def fails(image: Pixels) -> Pixels:
        if (image == np.asarray(Image.open(items[2].path))).all():
            raise RuntimeError("out of memory\nand more")
        return image

    done: list[str] = []
    source = Source([Condition("dark", tmp_path / "dark")], {"peer": by_function(fails)}, 0)
    answered = ask(items, source, mean_of, [], (), done.append)
    assert answered.items == items[:1]
    assert {len(answers) for answers in answered.answers.values()} == {1}
    assert done == ["c/0", "c/1", "c/2"]
    wrong, failed = answered.excluded
    assert wrong.name == "c/1"
    assert "20 x 20 pixels" in wrong.reason
    assert failed == ("c/2", "out of memory")


def test_a_restorer_must_give_back_the_same_size_and_kind(items: list[Item]) -> None:
    for function, message in (
        (lambda image: image[:5], r"uint8 \(5, 40, 3\)"),
        (lambda image: image / 255, "float64"),
        (list, "list"),
    ):
        with pytest.raises(
            ValueError, match=f"nothing is left to measure: 3 exclusions, .*peer returned {message}"
        ):
            ask(items, Source([], {"peer": by_function(function)}, 0), mean_of, [])


def test_a_restorer_may_write_into_what_it_is_given(items: list[Item]) -> None:
    def blackens(image: Pixels) -> Pixels:
        image[:] = 0
        return image

    source = Source(
        [], {"first": by_function(blackens), "second": by_function(lambda image: image)}, 0
    )
    answers = ask(items, source, mean_of, []).answers
    assert answers[Variant(CLEAN, "first")] == [0, 0, 0]
    assert answers[Variant(CLEAN, "second")] == answers[Variant(CLEAN, "")] != [0, 0, 0]


def test_a_recogniser_that_breaks_its_contract_stops_the_evaluation(items: list[Item]) -> None:
    def broken(item: Item, image: Pixels) -> float:
        raise RecogniserError("it returned nothing")

    with pytest.raises(RecogniserError, match="it returned nothing"):
        ask(items, Source([], {}, 0), broken, [])


def test_cases_are_spread_over_all_that_changed(items: list[Item]) -> None:
    many = [Item(f"{i}", items[0].path) for i in range(20)]
    before, after = Variant("noise", ""), Variant("noise", "net")
    quality = {
        before: [0.0] * 10 + [1.0] * 10,
        after: [1.0] * 10 + [1.0] * 9 + [0.0],
        Variant(CLEAN, ""): [1.0] * 20,
    }
    source = Source([Condition("noise")], {"net": by_function(lambda image: image)}, 0)
    cases = cases_of(
        source,
        many,
        quality,
        lambda variant, i: Said(f"{variant.restorer or variant.condition} {i}"),
        str,
    )
    won, lost = ([case for case in cases if case.won is way] for way in (True, False))
    assert [case.name for case in won] == ["0", "2", "5", "7"]
    assert len(won) == CASES
    assert [case.name for case in lost] == ["19"]
    assert lost[0].said == {"clean": "clean 19", "degraded": "noise 19", "restored": "net 19"}
    assert lost[0].truth == "19"
    assert torch.equal(lost[0].pictures["clean"](), open_image(items[0].path).tensor[0])
    assert not torch.equal(lost[0].pictures["degraded"](), lost[0].pictures["clean"]())


def test_functions_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "peer_of_ours.py").write_text(
        "def darker(image):\n    return image // 2\n\nnumber = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load_function("peer_of_ours:darker")(8) == 4
    restore = load_restorer("peer_of_ours:darker", [])
    assert restore(Item("", tmp_path), "", np.full((1, 1, 3), 9, np.uint8)).max() == 4
    for spec, message in (
        ("peer_of_ours:number", "no function 'number'"),
        ("no_such_module:f", "'no_such_module' cannot be imported"),
    ):
        with pytest.raises(ValueError, match=message):
            load_function(spec)
