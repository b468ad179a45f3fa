"""Listing of folders, with real links and loops."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from vrdir.images.folders import Names, files_below, skipped


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in (
        "in/b.png",
        "in/A.JPG",
        "in/sub/deep/c.tif",
        "in/sub/d.webp",
        "in/notes.txt",
        "in/.hidden.png",
        "in/.git/e.png",
        "other/f.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(root: Path, **options: Any) -> list[str]:
    return [path.relative_to(root).as_posix() for path in files_below(root / "in", **options)]


def test_own_files_come_before_those_of_sub_folders(root: Path) -> None:
    assert names(root) == ["in/A.JPG", "in/b.png", "in/sub/d.webp", "in/sub/deep/c.tif"]
    assert names(root, hidden=None) == [
        "in/.hidden.png",
        "in/A.JPG",
        "in/b.png",
        "in/.git/e.png",
        "in/sub/d.webp",
        "in/sub/deep/c.tif",
    ]
    assert names(root, without=root / "in" / "sub") == ["in/A.JPG", "in/b.png"]
    assert len(names(root, without=root / "in")) == 4  # the folder itself is not excluded
    assert len(names(root, without=root / "nowhere")) == 4


def test_links_are_followed_once_and_loops_end(root: Path) -> None:
    (root / "in" / "up").symlink_to(root)  # which leads back into "in"
    (root / "in" / "again").symlink_to(root / "other")
    (root / "in" / "and again").symlink_to(root / "other")
    (root / "in" / "file.png").symlink_to(root / "other" / "f.png")
    (root / "in" / "gone.png").symlink_to(root / "nowhere.png")
    (root / "in" / "itself.png").symlink_to("itself.png")
    own = ["in/A.JPG", "in/b.png", "in/file.png", "in/gone.png", "in/itself.png"]
    below = ["in/sub/d.webp", "in/sub/deep/c.tif"]
    assert names(root) == [*own, "in/again/f.png", *below]
    assert names(root, links=False) == [*own, *below]


def test_pipes_are_not_listed(root: Path) -> None:
    os.mkfifo(root / "in" / "pipe.png")
    assert "in/pipe.png" not in names(root)


def test_folder_that_cannot_be_listed_is_reported(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refuse(path: str) -> object:
        if path == str(root / "in" / "sub"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    if os.geteuid() == 0:  # root may read everything, so the system's error is raised here
        monkeypatch.setattr(os, "scandir", refuse)
    else:
        (root / "in" / "sub").chmod(0)
    errors: list[OSError] = []
    assert names(root, unreadable=errors.append) == ["in/A.JPG", "in/b.png"]
    assert [error.filename for error in errors] == [str(root / "in" / "sub")]
    with pytest.raises(PermissionError):
        names(root)
    (root / "in" / "sub").chmod(0o700)


def test_files_of_other_types_are_counted(root: Path) -> None:
    for name in (
        "in/a.pdf",
        "in/b.PDF",
        "in/sub/c.pdf",
        "in/d.dng",
        "in/README",
        "in/.hidden.pdf",
        "in/.git/f.pdf",
        "in/photo.JPG_large",
    ):
        (root / name).touch()
    os.mkfifo(root / "in" / "pipe.png")
    others = Counter[str]()
    assert "in/photo.JPG_large" in names(root, others=others)
    assert others == {".pdf": 3, ".dng": 1, ".txt": 1, "without a suffix": 1, "pipe or device": 1}
    types = "3 .pdf, 1 .dng, 1 .txt, 1 pipe or device, 1 without a suffix"
    advice = "develop a camera's RAW files first (rawpy, darktable)"
    assert skipped(others) == f"7 files of other types ({types}); {advice}"
    assert skipped({}) == ""
    assert skipped({".txt": 1}) == "1 file of other types (1 .txt)"
    assert skipped({f".{n}": 1 for n in range(9)}).endswith(".5, 3 more types)")


def test_names_are_found_case_and_unicode_insensitively() -> None:
    names = Names(
        ["IMG_1.JPG", "stra\u00dfe.png", "\u00e9.png", "E\u0301.png", "two.png", "TWO.png"]
    )
    assert names.find("img_1.jpg") == "IMG_1.JPG"
    assert names.find("STRASSE.png") == "stra\u00dfe.png"
    assert names.find("e\u0301.png") == "\u00e9.png"  # the composed one of two that differ in case
    assert names.find("\u00c9.png") == "E\u0301.png"
    assert names.find("two.png") == "two.png"
    assert names.find("Two.png") == "Two.png"  # there are two of them
    assert names.find("img_2.jpg") == "img_2.jpg"
