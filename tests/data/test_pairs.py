"""Pair lists: read, written, checked."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from vrdir.data.pairs import (
    Pair,
    checked_pairs,
    open_pair,
    pair_problems,
    read_pairs,
    scan,
    survey,
    write_pairs,
)
from vrdir.errors import ImageError

Put = Callable[..., Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Save an image, of one grey value, under a name."""

    def save(
        name: str,
        size: tuple[int, int] = (8, 6),
        mode: str = "RGB",
        value: int = 90,
        **options: object,
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, size, value if mode in ("L", "I;16") else (value,) * len(mode)).save(
            path, **options
        )
        return path

    return save


@pytest.fixture
def listed(tmp_path: Path) -> Callable[[str], Path]:
    """Write a list as text."""

    def write(text: str) -> Path:
        path = tmp_path / "pairs.txt"
        path.write_bytes(text.encode())
        return path

    return write


def test_paths_are_relative_to_the_list(
    tmp_path: Path, listed: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = listed(
        "# hazy and clear\n\nhazy/1_1.png|clear/1.png\n/data/2.png | "
        "../2.png\n@haze:severity=2+noise:sigma=10..30|clear/3.png\n"
    )
    expected = [
        Pair(tmp_path / "clear/1.png", tmp_path / "hazy/1_1.png", "", 3),
        Pair(tmp_path / "../2.png", Path("/data/2.png"), "", 4),
        Pair(tmp_path / "clear/3.png", None, "haze:severity=2+noise:sigma=10..30", 5),
    ]
    monkeypatch.chdir("/")
    assert read_pairs(path) == expected


def test_lists_from_windows(listed: Callable[[str], Path], tmp_path: Path) -> None:
    assert read_pairs(listed("\ufeffa b.png|ä.png\r\n\r\nc.png|d.png")) == [
        Pair(tmp_path / "ä.png", tmp_path / "a b.png", "", 1),
        Pair(tmp_path / "d.png", tmp_path / "c.png", "", 3),
    ]


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
def test_list_may_be_in_any_unicode(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_bytes("a.png|ü.png\r\n@clean|ü.png\r\n\r\n".encode(encoding))
    assert read_pairs(tmp_path / "pairs.txt") == [
        Pair(tmp_path / "ü.png", tmp_path / "a.png", "", 1),
        Pair(tmp_path / "ü.png", None, "clean", 2),
    ]


def test_names_from_other_systems_are_found(
    put: Put, listed: Callable[[str], Path], tmp_path: Path
) -> None:
    for name in ("br\u00fcme/e\u0301t\u00e9.png", "br\u00fcme/plain.png", "back\\slash.png"):
        put(name)
    path = listed(
        "bru\u0308me/\u00e9t\u00e9.png|br\u00fcme\\plain.png\n"
        "back\\slash.png|bru\u0308me\\e\u0301te\u0301.png\n"
        "none\\u\u0308.png|.\\br\u00fcme\\plain.png\n"
    )
    mixed, plain = tmp_path / "br\u00fcme/e\u0301t\u00e9.png", tmp_path / "br\u00fcme/plain.png"
    first, second, third = read_pairs(path)
    assert first[:2] == (plain, mixed)
    assert second[:2] == (
        mixed,
        tmp_path / "back\\slash.png",
    )  # a file of that very name comes first
    assert third[:2] == (
        plain,
        tmp_path / "none\\u\u0308.png",
    )  # what is not there is called as the list has it
    put("two/\u00e9.png")
    put("two/e\u0301.png")
    (both,) = read_pairs(listed("two/e\u0301.png|two/\u00e9.png\n"))
    assert (both.degraded, both.clean) == (
        tmp_path / "two/e\u0301.png",
        tmp_path / "two/\u00e9.png",
    )


def test_same_data_on_a_mac_has_the_same_fingerprint_and_noise(put: Put, tmp_path: Path) -> None:
    surveys, noisy = [], []
    for folder, name in (("a", "\u00e9.png"), ("b", "e\u0301.png")):
        pair = Pair(put(f"{folder}/{name}"), None, "noise:sigma=25", 1)
        surveys.append(survey([pair], tmp_path / "pairs.txt").fingerprint)
        noisy.append(open_pair(pair)[0])
    assert surveys[0] == surveys[1]
    assert torch.equal(*noisy)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "a.png",
            "a line must be degraded|clean, two paths with one bar between them, not 'a.png'",
        ),
        ("a.png|", "a line must be degraded|clean"),
        ("|b.png", "a line must be degraded|clean"),
        ("a.png|b.png|c.png", "a line must be degraded|clean"),
        ("@fogg|b.png", "unknown degradation 'fogg'"),
        ("@|b.png", "unknown degradation ''"),
        ("@noise:sigma=much|b.png", "noise:sigma must be a number"),
        (
            "@noise:sigma=-5|b.png",
            "sigma",
        ),  # a number, but only where it is applied it shows that it is none for a sigma
    ],
)
def test_error_names_invalid_line(line: str, message: str, listed: Callable[[str], Path]) -> None:
    path = listed(f"ok.png|ok2.png\n{line}\n")
    with pytest.raises(ValueError, match=re.escape(f"{path}:2: ") + ".*" + re.escape(message)):
        read_pairs(path)
    pairs, problems = scan(path)
    assert [pair.line for pair in pairs] == [1]
    assert len(problems) == 1


def test_files_that_are_not_lists_are_rejected(
    tmp_path: Path, listed: Callable[[str], Path], put: Put
) -> None:
    with pytest.raises(FileNotFoundError, match=r"pair list .*nowhere\.txt does not exist"):
        read_pairs(tmp_path / "nowhere.txt")
    with pytest.raises(ValueError, match="is a folder, not a pair list"):
        read_pairs(tmp_path)
    with pytest.raises(ValueError, match="is not text in UTF-8"):
        read_pairs(put("a.png"))
    for content in ("", "\n\n", "# only words\n"):
        with pytest.raises(ValueError, match="contains no pairs"):
            read_pairs(listed(content))
    (tmp_path / "pairs.txt").write_bytes("é.png|b.png\n".encode("latin-1"))
    with pytest.raises(
        ValueError, match=r"pairs.txt is not text in UTF-8 or UTF-16; save it as UTF-8"
    ):
        read_pairs(tmp_path / "pairs.txt")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe is a pipe, a socket or a device"):
        read_pairs(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is a pipe, a socket or a device"):
        read_pairs(Path("/dev/zero"))


# Everything that a file system allows, except for bars, line breaks and trailing spaces.
NAMES = st.text(
    st.characters(exclude_characters="/|\0\n", exclude_categories=["Cs"]), min_size=1, max_size=20
).filter(lambda name: name not in (".", "..") and name == name.rstrip())


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    names=st.lists(
        st.tuples(NAMES, NAMES, st.sampled_from(["", "hazy", "../beside", "/far/away", "#1"])),
        min_size=1,
        max_size=4,
    ),
    file=st.sampled_from(["pairs.txt", "lists/pairs.txt", "a/b/c/pairs.txt"]),
)
@example(
    names=[("#1.png", "@2.png", ""), ("\ufeff1.png", "2.png", ""), (" 1.png", "\u30002.png", "")],
    file="pairs.txt",
)
@example(names=[("\ufeff1.png", "2.png", "")], file="pairs.txt")
@example(names=[("0", "\\", "")], file="pairs.txt")
@example(names=[("0", "\\", "")], file="lists/pairs.txt")
def test_any_name_survives_writing_and_reading(
    names: list[tuple[str, str, str]], file: str, tmp_path: Path
) -> None:
    pairs = [
        Pair(tmp_path / folder / clean, tmp_path / degraded, "", n)
        for n, (degraded, clean, folder) in enumerate(names, 1)
    ]
    write_pairs(pairs, tmp_path / file)
    back = read_pairs(tmp_path / file)
    assert [tuple(os.path.normpath(path) for path in pair[:2]) for pair in back] == [
        tuple(os.path.normpath(path) for path in pair[:2]) for pair in pairs
    ]
    assert [pair.line for pair in back] == [pair.line for pair in pairs]


def test_paths_in_a_list_are_short_where_list_and_data_may_move_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "data"
    (tmp_path / "store").mkdir()
    (root / "lists").mkdir(parents=True)
    (root / "linked").symlink_to(tmp_path / "store")
    monkeypatch.chdir(root)
    pairs = [
        Pair(root / "gt/1.png", Path("hazy/1_1.png"), "", 1),
        Pair(Path("../elsewhere/1.png"), Path("linked/1.png"), "", 2),
        Pair(Path("lists/../gt/1.png"), None, "noise:sigma=25", 3),
    ]
    write_pairs(pairs, Path("pairs.txt"))
    assert (
        Path("pairs.txt").read_text()
        == "hazy/1_1.png|gt/1.png\nlinked/1.png|../elsewhere/1.png\n@noise:sigma=25|gt/1.png\n"
    )
    write_pairs(pairs, Path("lists/pairs.txt"))
    assert Path("lists/pairs.txt").read_text().splitlines() == [
        "../hazy/1_1.png|../gt/1.png",
        f"../linked/1.png|{tmp_path}/elsewhere/1.png",
        "@noise:sigma=25|../gt/1.png",
    ]
    by_either_name = [Pair(root / "linked/1.png", tmp_path / "store/2.png", "", 1)]
    write_pairs(by_either_name, Path("linked/pairs.txt"))
    assert Path("linked/pairs.txt").read_text() == "2.png|1.png\n"
    write_pairs(
        pairs[2:], Path("linked/pairs.txt")
    )  # one up from there is not data/, but the folder that holds store/
    assert (tmp_path / "store/pairs.txt").read_text() == "@noise:sigma=25|../data/gt/1.png\n"
    assert (tmp_path / "store/pairs.txt").parent.joinpath("../data/gt").resolve() == root / "gt"


def test_reader_of_a_replaced_list_gets_the_whole_old_list(tmp_path: Path) -> None:
    target = tmp_path / "pairs.txt"
    write_pairs([Pair(tmp_path / "1.png", tmp_path / "2.png", "", 1)], target)
    with target.open() as reader:
        write_pairs([Pair(tmp_path / "3.png", tmp_path / "4.png", "", 1)], target)
        assert reader.read() == "2.png|1.png\n"
    assert target.read_text() == "4.png|3.png\n"


@pytest.mark.parametrize("name", ["a|b.png", "a\nb.png", "a.png ", "a\udcff.png"])
def test_name_unfit_for_a_list_is_rejected_and_old_list_kept(name: str, tmp_path: Path) -> None:
    target = tmp_path / "pairs.txt"
    target.write_text("old")
    with pytest.raises(ValueError, match="cannot be in a pair list"):
        write_pairs([Pair(tmp_path / "1.png", tmp_path / name, "", 1)], target)
    with pytest.raises(ValueError, match="no pairs to write"):
        write_pairs([], target)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.txt"]


def test_problems_are_reported_with_line_numbers(
    put: Put, listed: Callable[[str], Path], tmp_path: Path
) -> None:
    put("good.png")
    put("clean.png")
    put("wide.png", size=(9, 6))
    put("print.jpg", mode="CMYK")
    put("film.gif", save_all=True, append_images=[Image.new("RGB", (8, 6), (1, 2, 3))])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "words.png").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to("clean.png")
    (tmp_path / "dangling.png").symlink_to("nowhere.png")
    wrong = {
        "nowhere.png": "does not exist",
        "wide.png": "is 9 x 6 pixels, .*clean.png is 8 x 6; crop or resize one of them first",
        "print.jpg": "is a CMYK picture; convert it to RGB first",
        "film.gif": "contains 2 frames or pages",
        "empty.png": r"is empty \(0 bytes\)",
        "words.png": "is not an image",
        "folder.png": "is a folder, not an image",
        "clean.png": "is both the degraded and the clean image",
        "link.png": "is both the degraded and the clean image",
        "dangling.png": "does not exist",
    }
    path = listed(
        "good.png|clean.png\n"
        + "".join(f"{name}|clean.png\n" for name in wrong)
        + "@noise|gone.png\n"
    )
    problems = pair_problems(read_pairs(path), path)
    assert len(problems) == len(wrong) + 1
    for line, (problem, (name, message)) in enumerate(
        zip(problems, [*wrong.items(), ("gone.png", "does not exist")], strict=True), 2
    ):
        assert re.match(re.escape(f"{path}:{line}: {tmp_path / name} ") + message, problem), problem

    with pytest.raises(
        ValueError,
        match=r"pairs.txt:2: .*nowhere.png does not exist; .*; and 8 more problems "
        r"\(`vrdir pairs check .*pairs.txt`",
    ):
        checked_pairs(path)
    assert checked_pairs(listed("good.png|clean.png")) == [
        Pair(tmp_path / "clean.png", tmp_path / "good.png", "", 1)
    ]


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_sizes_are_those_of_the_upright_picture(suffix: str, put: Put, tmp_path: Path) -> None:
    on_its_side, upright, lying = (
        put(f"side.{suffix}", exif=turned()),
        put("upright.png", size=(6, 8)),
        put("lying.png"),
    )
    assert pair_problems([Pair(upright, on_its_side, "", 1)], tmp_path) == []
    assert len(pair_problems([Pair(lying, on_its_side, "", 1)], tmp_path)) == 1
    degraded, clean = open_pair(Pair(upright, on_its_side, "", 1))  # and loading agrees
    assert degraded.shape == clean.shape == (1, 3, 8, 6)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA", "I;16", "1"])
def test_images_that_can_be_opened_have_no_problem(mode: str, put: Put, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    (
        Image.new("I;16", (8, 6), 300) if mode == "I;16" else Image.new("RGB", (8, 6)).convert(mode)
    ).save(path)
    pair = Pair(put("clean.png"), path, "", 1)
    assert pair_problems([pair], tmp_path) == []
    assert open_pair(pair)[0].shape == (1, 3, 6, 8)


def test_survey_counts_and_its_fingerprint_identifies_the_data(put: Put, tmp_path: Path) -> None:
    small, large = put("gt/1.png"), put("gt/2.png", size=(10, 8))
    pairs = [
        Pair(small, put("in/1_1.png"), "", 1),
        Pair(small, put("in/1_2.png"), "", 2),
        Pair(large, None, "noise:sigma=25", 3),
    ]
    seen = survey(pairs, tmp_path)
    assert seen[:6] == ([], 3, 1, 2, (8, 10), (6, 8))
    assert re.fullmatch("[0-9a-f]{64}", seen.fingerprint)

    (tmp_path / "moved").mkdir()
    for folder in ("gt", "in"):
        (tmp_path / folder).rename(tmp_path / "moved" / folder)
    moved = [
        Pair(
            tmp_path / "moved/gt" / pair.clean.name,
            pair.degraded and tmp_path / "moved/in" / pair.degraded.name,
            pair.synthesis,
            9,
        )
        for pair in reversed(pairs)
    ]
    assert survey(moved, tmp_path).fingerprint == seen.fingerprint
    assert survey(moved[:2], tmp_path).fingerprint != seen.fingerprint
    assert (
        survey([moved[0]._replace(synthesis="noise:sigma=50"), *moved[1:]], tmp_path).fingerprint
        != seen.fingerprint
    )
    prints = {seen.fingerprint}
    for name, size in (("in/1_1.png", (8, 6)), ("gt/1.png", (8, 6)), ("gt/2.png", (10, 8))):
        put(f"moved/{name}", size, compress_level=0)  # other bytes
        prints.add(survey(moved, tmp_path).fingerprint)
    assert len(prints) == 4


def test_pairs_are_opened_whole(put: Put) -> None:
    degraded, clean = open_pair(Pair(put("1.png", value=102), put("2.png", value=51), "", 1))
    assert degraded.shape == clean.shape == (1, 3, 6, 8)
    assert torch.allclose(degraded, torch.tensor(51 / 255))
    assert torch.allclose(clean, torch.tensor(102 / 255))
    with pytest.raises(
        ImageError,
        match=r"1\.png is 8 x 6 pixels, .*3\.png is 5 x 6 pixels; the images of a pair must",
    ):
        open_pair(Pair(put("3.png", size=(5, 6)), put("1.png"), "", 1))


def test_synthesised_image_is_reproducible_and_has_its_strength(tmp_path: Path, put: Put) -> None:
    path = put("photo.png", size=(160, 120), value=128)
    pair = Pair(path, None, "noise:sigma=25", 1)
    degraded, clean = open_pair(pair)
    assert torch.equal(degraded, open_pair(pair)[0])
    assert torch.equal(degraded, (degraded * 255).round() / 255)
    assert float((degraded - clean).std()) * 255 == pytest.approx(25, rel=0.03)

    elsewhere = put("other/photo.png", size=(160, 120), value=128)
    assert torch.equal(degraded, open_pair(Pair(elsewhere, None, "noise:sigma=25", 7))[0])
    for other in (
        pair._replace(clean=put("photo2.png", size=(160, 120), value=128)),
        pair._replace(synthesis="noise:sigma=25.0"),
    ):
        assert not torch.equal(degraded, open_pair(other)[0])
    assert not torch.equal(degraded, open_pair(pair, seed=1)[0])


def test_grey_photos_get_grey_noise(put: Put) -> None:
    degraded, _ = open_pair(Pair(put("grey.png", mode="L"), None, "noise:sigma=25", 1))
    assert torch.equal(degraded[:, 0], degraded[:, 1])
    assert torch.equal(degraded[:, 0], degraded[:, 2])
    assert float(degraded.std()) > 0.05


def test_random_ranges_stay_within_8_bits(put: Put) -> None:
    degraded, _ = open_pair(
        Pair(put("photo.png", size=(40, 30)), None, "haze:severity=2+noise:sigma=10..30", 1)
    )
    levels = np.asarray(degraded) * 255
    assert np.abs(levels - levels.round()).max() < 1e-3
    assert 0 <= levels.min() < levels.max() <= 255
