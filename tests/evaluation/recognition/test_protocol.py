"""The protocol: variants of images, exclusions, and from which results are computed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vrdir.data.pairs import synthesised
from vrdir.errors import ImageError, RecogniserError
from vrdir.evaluation.recognition.conditions import AS_TAKEN, CLEAN, AsTaken, Condition
from vrdir.evaluation.recognition.image_files import Exclusion, ImageFile, MatchedFolder
from vrdir.evaluation.recognition.protocol import collect_answers
from vrdir.evaluation.recognition.restorers import (
    RestoredFolders,
    function_for_images,
    load_restorer,
)
from vrdir.evaluation.recognition.results import EXAMPLES, Comparison
from vrdir.evaluation.recognition.scoring import Description, Scores
from vrdir.evaluation.recognition.variants import Variant, Variants
from vrdir.evaluation.user_functions import Pixels, load_function, to_pixels
from vrdir.images.convert import open_image
from vrdir.model.vrdir import VRDIR
from vrdir.restoring.restorer import Restorer


@pytest.fixture
def photos(photo: Image.Image, tmp_path: Path) -> list[ImageFile]:
    """Three clean photos, c/0 to c/2, and folders with darker ones and with restored ones."""
    found = []
    for i in range(3):
        picture = photo.crop((i * 20, 0, i * 20 + 40, 30))
        for folder in ("clean/c", "dark", "restored/clean", "restored/dark"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            changed = picture.point(lambda v: v // 2) if folder == "dark" else picture
            changed.save(tmp_path / folder / f"{i}.png")
        found.append(ImageFile(f"c/{i}", tmp_path / f"clean/c/{i}.png"))
    return found


def mean_of(image: ImageFile, pixels: Pixels) -> float:
    return float(pixels.mean())


def test_image_is_found_by_its_path_or_its_file_name(
    photos: list[ImageFile], tmp_path: Path
) -> None:
    assert MatchedFolder(tmp_path / "dark").find(photos[1]) == tmp_path / "dark/1.png"
    assert MatchedFolder(tmp_path / "clean").find(photos[1]) == tmp_path / "clean/c/1.png"
    (tmp_path / "dark/1.jpg").write_bytes(b"")
    with pytest.raises(ImageError, match=r"contains 1.jpg and 1.png; one image for each"):
        MatchedFolder(tmp_path / "dark").find(photos[1])
    with pytest.raises(ImageError, match=r"contains no d/7"):
        MatchedFolder(tmp_path / "dark").find(ImageFile("d/7", tmp_path))
    with pytest.raises(FileNotFoundError, match="folder .*nowhere does not exist"):
        MatchedFolder(tmp_path / "nowhere")
    (tmp_path / "linked").symlink_to(tmp_path / "clean")
    assert MatchedFolder(tmp_path / "linked").find(photos[1]).name == "1.png"


def test_folders_without_common_names_raise_and_extra_files_are_excluded(
    photos: list[ImageFile], tmp_path: Path
) -> None:
    others = [ImageFile("x", tmp_path / "x.png")]
    with pytest.raises(
        ValueError, match=r"has the name of a clean image: it contains 0.png, the data set x.png"
    ):
        collect_answers(
            others, Variants([Condition("dark", tmp_path / "dark")], {}, 0), mean_of, []
        )
    (tmp_path / "dark/3.jxl").write_bytes(b"?")
    over, other = MatchedFolder(tmp_path / "dark").unmatched(photos[:1], ["2.png"])
    assert over == Exclusion(str(tmp_path / "dark/1.png"), "there is no clean image of this name")
    assert other == Exclusion(
        str(tmp_path / "dark/3.jxl"),
        "a file of a type that is not read: .jxl; save images as PNG",
    )
    twice = [*photos, ImageFile("d/0", photos[0].path)]
    with pytest.raises(
        ValueError,
        match=r"contains one 0\.\*, but the data set has several; keep the sub-folders, as in c/0",
    ):
        MatchedFolder(tmp_path / "dark").unmatched(twice, [])
    dark = MatchedFolder(tmp_path / "dark")
    assert dark.find(twice[0]) == dark.find(twice[0])
    with pytest.raises(ImageError, match="matches both c/0 and d/0"):
        dark.find(twice[3])


def test_names_with_composed_or_decomposed_letters(photo: Image.Image, tmp_path: Path) -> None:
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
    photos = [
        ImageFile(f"{nfc}/{nfc}", tmp_path / "clean" / nfc / f"{nfc}.png"),
        ImageFile("plain", tmp_path / "clean/plain.png"),
    ]
    for matched in (MatchedFolder(tmp_path / "fog"), MatchedFolder(tmp_path / "flat")):
        assert matched.find(photos[0]).name == f"{nfd}.png"
        assert matched.unmatched(photos, []) == []
        assert matched.unmatched(photos[1:], [photos[0].name]) == []  # excluded already
        extra = [one.name for one in matched.unmatched(photos[1:], [])]
        assert extra == [str(matched.find(photos[0]))]
    (tmp_path / "restored/clean").symlink_to(tmp_path / "clean")
    peer = RestoredFolders(
        tmp_path / "restored", [Condition(nfc, tmp_path / "fog")]
    )  # its folder is called by the condition
    assert peer.folders[nfc].find(photos[0]).name == f"{nfd}.png"
    photo.save(tmp_path / "flat" / f"{nfc}.png")
    assert (
        MatchedFolder(tmp_path / "flat").find(photos[0]).name == f"{nfc}.png"
    )  # the very name comes first


def test_invalid_conditions_raise(tmp_path: Path) -> None:
    for name, message in (
        ("fog", "unknown degradation 'fog'"),
        ("haze:severity=9", "whole number from 1 to 5"),
        (CLEAN, "are reserved"),
    ):
        with pytest.raises(ValueError, match=message):
            Condition(name)
    with pytest.raises(ValueError, match="these are used twice: noise, noise"):
        Variants([Condition("noise"), Condition("noise")], {}, 0)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Condition("foggy", tmp_path / "nowhere")


def test_as_taken_is_the_only_condition(photos: list[ImageFile]) -> None:
    variants = Variants([AsTaken()], {"peer": function_for_images(lambda image: 255 - image)}, 0)
    before, after = variants.all
    assert (before, after) == (Variant(AS_TAKEN, ""), Variant(AS_TAKEN, "peer"))
    made = dict(variants.images(photos[0]))
    assert (made[after] == 255 - made[before]).all()
    assert torch.equal(variants.picture(photos[0], before), open_image(photos[0].path).tensor[0])
    with pytest.raises(ValueError, match="no other condition"):
        Variants([AsTaken(), Condition("noise")], {}, 0)


def test_variants_have_the_size_of_the_image_and_8_bits(
    photos: list[ImageFile], tmp_path: Path, tiny: VRDIR
) -> None:
    conditions = [Condition("dark", tmp_path / "dark"), Condition("noise:sigma=30")]
    restorer = Restorer(tiny, "cpu")
    variants = Variants(
        conditions,
        {"net": restorer, "files": function_for_images(lambda image: 255 - image)},
        seed=3,
    )
    made = dict(variants.images(photos[0]))
    assert list(made) == variants.all
    assert len(made) == 9
    clean = open_image(photos[0].path).tensor
    noisy = to_pixels(synthesised(clean, "noise:sigma=30", photos[0].path, seed=3))
    assert (made[Variant("noise:sigma=30", "")] == noisy).all()
    assert (made[Variant("noise:sigma=30", "net")] == restorer(noisy)).all()
    assert (made[Variant("dark", "files")] == 255 - made[Variant("dark", "")]).all()
    for variant, pixels in made.items():
        assert pixels.shape == (30, 40, 3)
        assert torch.equal(
            (variants.picture(photos[0], variant) * 255).round().byte(),
            torch.from_numpy(pixels.copy()).movedim(-1, 0),
        )


def test_restored_images_from_folders(photos: list[ImageFile], tmp_path: Path) -> None:
    conditions = [Condition("dark", tmp_path / "dark")]
    answered = collect_answers(
        photos,
        Variants(conditions, {"peer": load_restorer(str(tmp_path / "restored"), conditions)}, 0),
        mean_of,
        [],
    )
    assert answered.by_variant[Variant("dark", "peer")] == answered.by_variant[Variant(CLEAN, "")]
    assert answered.by_variant[Variant("dark", "")] != answered.by_variant[Variant(CLEAN, "")]
    with pytest.raises(FileNotFoundError, match=r"restored.noise"):
        RestoredFolders(tmp_path / "restored", [Condition("noise")])


def test_image_that_fails_in_one_variant_is_excluded_from_all(
    photos: list[ImageFile], tmp_path: Path
) -> None:
    Image.open(tmp_path / "dark/1.png").crop((0, 0, 20, 20)).save(tmp_path / "dark/1.png")

    def fails(image: Pixels) -> Pixels:
        if (image == np.asarray(Image.open(photos[2].path))).all():
            raise RuntimeError("out of memory\nand more")
        return image

    done: list[str] = []
    variants = Variants(
        [Condition("dark", tmp_path / "dark")], {"peer": function_for_images(fails)}, 0
    )
    answered = collect_answers(photos, variants, mean_of, [], (), done.append)
    assert answered.images == photos[:1]
    assert {len(answers) for answers in answered.by_variant.values()} == {1}
    assert done == ["c/0", "c/1", "c/2"]
    wrong, failed = answered.excluded
    assert wrong.name == "c/1"
    assert "20 x 20 pixels" in wrong.reason
    assert failed == Exclusion("c/2", "out of memory")


def test_restorer_that_returns_another_size_or_type_is_excluded(photos: list[ImageFile]) -> None:
    for function, message in (
        (lambda image: image[:5], r"uint8 \(5, 40, 3\)"),
        (lambda image: image / 255, "float64"),
        (list, "list"),
    ):
        with pytest.raises(
            ValueError, match=f"nothing is left to measure: 3 exclusions, .*peer returned {message}"
        ):
            collect_answers(
                photos, Variants([], {"peer": function_for_images(function)}, 0), mean_of, []
            )


def test_restorer_that_changes_its_input_affects_no_other_variant(photos: list[ImageFile]) -> None:
    def blackens(image: Pixels) -> Pixels:
        image[:] = 0
        return image

    variants = Variants(
        [],
        {
            "first": function_for_images(blackens),
            "second": function_for_images(lambda image: image),
        },
        0,
    )
    answers = collect_answers(photos, variants, mean_of, []).by_variant
    assert answers[Variant(CLEAN, "first")] == [0, 0, 0]
    assert answers[Variant(CLEAN, "second")] == answers[Variant(CLEAN, "")] != [0, 0, 0]


def test_recogniser_that_breaks_its_contract_stops_the_evaluation(
    photos: list[ImageFile],
) -> None:
    def broken(image: ImageFile, pixels: Pixels) -> float:
        raise RecogniserError("it returned nothing")

    with pytest.raises(RecogniserError, match="it returned nothing"):
        collect_answers(photos, Variants([], {}, 0), broken, [])


def test_examples_are_spread_over_all_images_that_changed(photos: list[ImageFile]) -> None:
    many = [ImageFile(f"{i}", photos[0].path) for i in range(20)]
    before, after = Variant("noise", ""), Variant("noise", "net")
    quality = {
        before: [0.0] * 10 + [1.0] * 10,
        after: [1.0] * 10 + [1.0] * 9 + [0.0],
        Variant(CLEAN, ""): [1.0] * 20,
    }
    variants = Variants([Condition("noise")], {"net": function_for_images(lambda image: image)}, 0)
    scores = Scores(
        metrics=[],
        count=20,
        data="",
        excluded=[],
        figures={},
        p_value=lambda metric, before, after: 1.0,
        images=many,
        quality=quality,
        describe=lambda variant, i: Description(f"{variant.restorer or variant.condition} {i}"),
        truth=str,
    )
    examples = Comparison(variants, scores).examples()
    improved, worsened = ([one for one in examples if one.improved is way] for way in (True, False))
    assert [example.name for example in improved] == ["0", "2", "5", "7"]
    assert len(improved) == EXAMPLES
    (last,) = worsened
    assert last.name == last.truth == "19"
    assert last.answers == {"clean": "clean 19", "degraded": "noise 19", "restored": "net 19"}
    assert torch.equal(last.pictures["clean"](), open_image(photos[0].path).tensor[0])
    assert not torch.equal(last.pictures["degraded"](), last.pictures["clean"]())


def test_functions_are_loaded_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "peer_of_ours.py").write_text(
        "def darker(image):\n    return image // 2\n\nnumber = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load_function("peer_of_ours:darker")(8) == 4
    restore = load_restorer("peer_of_ours:darker", [])
    assert restore(ImageFile("", tmp_path), "", np.full((1, 1, 3), 9, np.uint8)).max() == 4
    for spec, message in (
        ("peer_of_ours:number", "no function 'number'"),
        ("no_such_module:f", "'no_such_module' cannot be imported"),
    ):
        with pytest.raises(ValueError, match=message):
            load_function(spec)
