"""Folders with the names of the downloaded data sets, and the rules that find their pairs."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from vrdir.data.public_datasets import CLEAN_ONLY, RULES, images_below, match

Tree = Callable[..., Path]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Make a folder with images of these names."""

    def make(*names: str) -> Path:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 6)).save(path)
        return tmp_path

    return make


def found(rule: str, root: Path, degraded: str, clean: str) -> list[str]:
    """The pairs as "degraded|clean", each below its folder."""
    matching = match(rule, root / degraded, root / clean)
    assert not matching.without_clean
    assert not matching.without_degraded
    assert [pair.line for pair in matching.pairs] == list(range(1, len(matching.pairs) + 1))
    return [
        (pair.degraded or root).relative_to(root / degraded).as_posix()
        + "|"
        + pair.clean.relative_to(root / clean).as_posix()
        for pair in matching.pairs
    ]


LAYOUTS = {  # rule, folder of the degraded ones, folder of the clean ones, pairs below these
    "RESIDE ITS": (
        "reside",
        "hazy",
        "clear",
        "10_1_0.9.png|10.png 1_10_0.98796.png|1.png 1_1_0.90179.png|1.png 2_1_0.99082.png|2.png",
    ),
    "RESIDE OTS": (
        "reside",
        "hazy",
        "clear",
        "0005_0.8_0.04.jpg|0005.jpg 0005_1_0.2.jpg|0005.jpg 0008_0.85_0.1.jpg|0008.jpg",
    ),
    "RESIDE OTS, in parts": (
        "reside",
        "hazy",
        "clear",
        "part1/0025_0.8_0.04.jpg|0025.jpg part2/2061_0.95_0.12.jpg|2061.jpg",
    ),
    "RESIDE OTS, parts beside the clear ones": (
        "reside",
        "OTS",
        "OTS/clear",
        "part1/0025_1_0.2.jpg|0025.jpg part4/8970_0.9_0.1.jpg|8970.jpg",
    ),
    "RESIDE SOTS indoor": (
        "reside",
        "indoor/hazy",
        "indoor/gt",
        "1400_1.png|1400.png 1400_10.png|1400.png 1449_1.png|1449.png",
    ),
    "RESIDE SOTS outdoor": (
        "reside",
        "outdoor/hazy",
        "outdoor/gt",
        "0001_0.8_0.2.jpg|0001.png 0002_0.8_0.08.jpg|0002.png",
    ),
    "RESIDE SOTS, one folder for both": (
        "reside",
        "indoor",
        "indoor",
        "hazy/1400_1.png|gt/1400.png hazy/1401_2.png|gt/1401.png",
    ),
    "Rain1400": ("reside", "rainy_image", "ground_truth", "901_1.jpg|901.jpg 901_14.jpg|901.jpg"),
    "Rain100 test set, old naming": (
        "rain100",
        "Rain100L",
        "Rain100L",
        "rain-001.png|norain-001.png rain-100.png|norain-100.png",
    ),
    "Rain100 training set, old naming": (
        "rain100",
        "RainTrainH",
        "RainTrainH",
        "rain-1.png|norain-1.png rain-1800.png|norain-1800.png",
    ),
    "Rain100, new naming": (
        "rain100",
        "rain",
        "norain",
        "X2/norain-1x2.png|norain-1.png X2/norain-200x2.png|norain-200.png",
    ),
    "Train100L of later papers": (
        "rain100",
        "rainy",
        "gt",
        "rain-1.png|norain-1.png rain-200.png|norain-200.png",
    ),
    "Rain100 of later papers": ("same-name", "input", "target", "1.png|1.png 100.png|100.png"),
    "CBSD68 with its noisy folders": (
        "same-name",
        "noisy25",
        "original_png",
        "0000.png|0000.png 0067.png|0067.png",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_as_downloaded(layout: str, tree: Tree) -> None:
    rule, degraded, clean, lines = LAYOUTS[layout]
    pairs = lines.split()
    root = tree(
        *(
            f"{folder}/{name}"
            for pair in pairs
            for folder, name in zip((degraded, clean), pair.split("|"), strict=True)
        )
    )
    assert found(rule, root, degraded, clean) == pairs


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["test_001.png", "test_400.png"], id="BSD400, grey, as DnCNN has it"),
        pytest.param(["a100007.jpg", "a8143.jpg"], id="BSD400, colour"),
        pytest.param(["101085.png", "253027.PNG"], id="CBSD68"),
        pytest.param(["original_png/0000.png", "original_png/0067.png"], id="CBSD68, numbered"),
        pytest.param(["00001.bmp", "04744.bmp"], id="WED"),
    ],
)
def test_clean_only_sets(names: list[str], tree: Tree) -> None:
    root = tree(*names)
    matching = match(CLEAN_ONLY, None, root, "noise:sigma=25")
    assert [
        (pair.clean.relative_to(root).as_posix(), pair.degraded) for pair in matching.pairs
    ] == [(name, None) for name in names]
    assert {pair.synthesis for pair in matching.pairs} == {"noise:sigma=25"}
    for synthesis, message in [
        ("fogg:beta=1", "unknown degradation 'fogg'"),
        ("noise:sigma=-3", "sigma must be between 0 and 255"),
    ]:
        with pytest.raises(ValueError, match=message):
            match(CLEAN_ONLY, None, root, synthesis)


def test_sub_folders_of_one_name_belong_together(tree: Tree) -> None:
    names = [f"{side}/{part}/1.png" for side in ("input", "target") for part in ("test", "train")]
    root = tree(*names)
    assert found("same-name", root, "input", "target") == [
        "test/1.png|test/1.png",
        "train/1.png|train/1.png",
    ]


def test_twin_is_searched_only_in_the_same_part(tree: Tree) -> None:
    root = tree("input/test/1.png", "input/train/1.png", "target/train/1.png")
    matching = match("same-name", root / "input", root / "target")
    assert [pair.degraded for pair in matching.pairs] == [root / "input/train/1.png"]
    assert matching.without_clean == [root / "input/test/1.png"]


def test_many_severities_in_separate_folders(tree: Tree) -> None:
    root = tree("noisy/1.png", "noisy/sigma15/1.png", "noisy/sigma25/1.png", "clean/1.png")
    assert found("same-name", root, "noisy", "clean") == [
        "1.png|1.png",
        "sigma15/1.png|1.png",
        "sigma25/1.png|1.png",
    ]


def test_one_folder_inside_the_other(tree: Tree) -> None:
    root = tree("data/clean/1.png", "data/hazy/1.png", "below/1.png", "below/rainy/1.png")
    assert found("same-name", root, "data", "data/clean") == ["hazy/1.png|1.png"]
    assert found("same-name", root, "below/rainy", "below") == ["1.png|1.png"]


def test_suffixes_may_differ_in_kind_and_case(tree: Tree) -> None:
    root = tree("in/1.JPG", "in/ä b.png", "out/1.png", "out/ä b.PNG")
    assert found("same-name", root, "in", "out") == ["1.JPG|1.png", "ä b.png|ä b.PNG"]


def test_names_match_in_any_unicode_form(tree: Tree) -> None:
    root = tree(
        "in/\u00e9t\u00e9/\u00fc_1.png",
        "in/b\u00e4r_2.png",
        "gt/e\u0301te\u0301/u\u0308.png",
        "gt/ba\u0308r.png",
        "gt/other/u\u0308.png",
    )
    matching = match("reside", root / "in", root / "gt")
    assert {
        pair.degraded.name: str(pair.clean.relative_to(root / "gt"))
        for pair in matching.pairs
        if pair.degraded
    } == {
        "\u00fc_1.png": "e\u0301te\u0301/u\u0308.png",
        "b\u00e4r_2.png": "ba\u0308r.png",
    }
    assert [path.parent.name for path in matching.without_degraded] == ["other"]
    both = tree("two/in/\u00e9.png", "two/gt/\u00e9.png", "two/gt/e\u0301.png") / "two"
    (pair,) = match("same-name", both / "in", both / "gt").pairs
    assert pair.clean.name == "\u00e9.png"  # the very name comes first


def test_files_without_a_twin_are_counted(tree: Tree) -> None:
    """Without the 546 rainy images with test backgrounds, RainTrainH keeps their clean images."""
    root = tree("T/rain-1.png", "T/norain-1.png", "T/norain-2.png", "T/rain-3.png")
    matching = match("rain100", root / "T", root / "T")
    assert len(matching.pairs) == 1
    assert matching.without_clean == [root / "T/rain-3.png"]
    assert matching.without_degraded == [root / "T/norain-2.png"]
    assert match("rain100", root / "T", root / "T/../T") == matching


def test_error_names_both_clean_twins(tree: Tree) -> None:
    root = tree("in/1.png", "out/1.jpg", "out/1.png")
    with pytest.raises(
        ValueError, match=r"in/1\.png has two clean twins, .*out/1\.jpg and .*out/1\.png"
    ):
        match("same-name", root / "in", root / "out")
    root = tree("hazy/3_1_0.9.png", "gt/3.png", "gt/3_1.png")
    with pytest.raises(ValueError, match="two clean twins"):
        match("reside", root / "hazy", root / "gt")


@pytest.mark.parametrize(
    ("rule", "names", "advice"),
    [
        (
            "same-name",
            ["a/1400_1.png", "a/1400_2.png", "b/1400.png"],
            "a contains 1400_1.png, 1400_2.png, .*--rule reside would match 2 of 2",
        ),
        ("same-name", ["a/rain-001.png", "b/norain-001.png"], "--rule rain100 would match 1 of 1"),
        ("rain100", ["a/1.png", "b/1.png"], "--rule same-name would match 1 of 1"),
        (
            "reside",
            ["a/1400.png", "b/1400_1.png", "b/1400_2.png", "b/1400_3.png"],
            r"1400_2.png, \.\.\. \(3 images\).*exchanged it would match 3 of 3",
        ),
        ("same-name", ["a/1.png", "b/2.png"], "no other rule matches"),
    ],
)
def test_error_without_match_suggests_the_right_rule(
    rule: str, names: Sequence[str], advice: str, tree: Tree
) -> None:
    root = tree(*names)
    with pytest.raises(ValueError, match=f"no pairs by the rule {rule}.*{advice}"):
        match(rule, root / "a", root / "b")


def test_one_folder_with_indistinguishable_sides_has_no_pairs(tree: Tree) -> None:
    root = tree("1.png", "2.png")
    with pytest.raises(ValueError, match="no pairs by the rule same-name"):
        match("same-name", root, root)


def test_error_names_invalid_arguments(tree: Tree, tmp_path: Path) -> None:
    root = tree("in/1.png", "out/1.png")
    for arguments, message in [
        (
            ("best", root / "in", root / "out"),
            "unknown rule 'best'; choose one of same-name, reside, rain100, clean-only",
        ),
        (("reside", None, root / "out"), "needs the folder of the degraded images"),
        (("same-name", root / "in", root / "out", "noise:sigma=25"), "does not synthesise"),
        (
            (CLEAN_ONLY, root / "in", root / "out", "noise:sigma=25"),
            "needs degradations to synthesise",
        ),
        ((CLEAN_ONLY, None, root / "out"), "degradations to synthesise"),
    ]:
        with pytest.raises(ValueError, match=message):
            match(*arguments)
    (tmp_path / "empty").mkdir()
    for folder, message in [
        ("nowhere", r"folder .* does not exist"),
        ("empty", "no images in"),
        ("in/1.png", r"folder .* does not exist"),
    ]:
        with pytest.raises(FileNotFoundError, match=message):
            match("same-name", root / folder, root / "out")


def test_hidden_and_foreign_files_are_left_out_and_links_followed_once(
    tree: Tree, tmp_path: Path
) -> None:
    root = tree(
        "in/1.png", "in/._1.png", "in/__MACOSX/1.png", "in/.thumbs/1.png", "elsewhere/2.png"
    )
    (root / "in/notes.txt").write_text("no image")
    (root / "in/part2").symlink_to(root / "elsewhere")
    (root / "in/loop").symlink_to(root / "in")
    assert images_below(root / "in") == [root / "in/1.png", root / "in/part2/2.png"]


def test_every_rule_has_examples_that_it_matches() -> None:
    for name, rule in RULES.items():
        assert rule.help
        assert rule.examples
        for degraded, clean in rule.examples:
            if name == CLEAN_ONLY:
                assert not degraded
            else:
                assert Path(clean).stem in rule.twins(Path(degraded).stem)
