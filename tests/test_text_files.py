"""Text files of any size and encoding."""

import os
from pathlib import Path

import pytest

from vrdir.errors import DataError
from vrdir.text_files import decode_text, read_text

TEXT = "naïve\r\nШум\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_encodings(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(TEXT.encode(encoding))
    assert read_text(tmp_path / "a.txt") == "naïve\nШум\n"
    assert decode_text(TEXT.encode(encoding), "a list") == "naïve\nШум\n"


def test_other_encodings_raise() -> None:
    with pytest.raises(DataError, match="^a list is not text in UTF-8 or UTF-16"):
        decode_text(TEXT.encode("koi8-r", "replace"), "a list")


def test_endless_file_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "labels.txt"
    path.touch()
    os.truncate(path, 1 << 40)  # of holes, which take no place
    monkeypatch.setattr("vrdir.text_files.MOST_BYTES", 1 << 20)
    with pytest.raises(DataError, match=r"labels\.txt has more than .*; divide it"):
        read_text(path)
