"""`vrdir pairs`: what it writes, what it says, its exit status."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.conftest import text
from typer.testing import CliRunner

from vrdir.cli.app import app


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["pairs", *(str(a) for a in arguments)], catch_exceptions=False)


@pytest.fixture
def sots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small SOTS, and a working folder next to it."""
    for name in (
        "hazy/1400_1.png",
        "hazy/1400_2.png",
        "hazy/1401_1.png",
        "gt/1400.png",
        "gt/1401.png",
    ):
        (tmp_path / "SOTS" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(tmp_path / "SOTS" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "SOTS"


def build(*arguments: object) -> Any:
    return run(
        "build", "--degraded", "SOTS/hazy", "--clean", "SOTS/gt", "-o", "pairs.txt", *arguments
    )


def test_build_and_check(sots: Path) -> None:
    result = build("--rule", "reside")
    assert result.exit_code == 0
    assert text(result) == "pairs.txt: 3 pairs, 2 clean images, by the rule reside"
    assert Path("pairs.txt").read_text() == (
        "SOTS/hazy/1400_1.png|SOTS/gt/1400.png\n"
        "SOTS/hazy/1400_2.png|SOTS/gt/1400.png\n"
        "SOTS/hazy/1401_1.png|SOTS/gt/1401.png\n"
    )
    result = run("check", "pairs.txt")
    assert result.exit_code == 0
    assert re.fullmatch(
        r"pairs.txt: 3 pairs, 2 clean images, 8 x 6 pixels, fingerprint [0-9a-f]{64}", text(result)
    )


def test_clean_images_without_pairs(sots: Path) -> None:
    result = run(
        "build",
        "--clean",
        "SOTS/gt",
        "--with",
        "haze:severity=2",
        "--with",
        "noise:sigma=10..30",
        "-o",
        "lists/noise.txt",
    )
    assert result.exit_code == 0
    assert "2 pairs, 2 clean images, by the rule clean-only" in text(result)
    assert (
        Path("lists/noise.txt").read_text().splitlines()[0]
        == "@haze:severity=2+noise:sigma=10..30|../SOTS/gt/1400.png"
    )
    assert "2 pairs (2 synthesised)" in text(run("check", "lists/noise.txt"))


def test_images_without_a_twin_warn_or_fail_with_strict(sots: Path) -> None:
    (sots / "gt/1401.png").rename(sots / "gt/1402.png")
    result = build("--rule", "reside", "--strict")
    assert result.exit_code == 2
    assert "1 degraded image has no clean twin, the first is SOTS/hazy/1401_1.png" in text(result)
    assert (
        "1 clean image has no degraded twin, the first is SOTS/gt/1402.png; "
        "nothing was written (--strict)" in text(result)
    )
    assert not Path("pairs.txt").exists()

    result = build("--rule", "reside")
    assert result.exit_code == 0
    assert "warning: 1 degraded image has no clean twin" in " ".join(result.stderr.split())
    assert "pairs.txt: 2 pairs, 1 clean image, by" in text(result)

    content = json.loads(build("--rule", "reside", "--json", "--overwrite").stdout)
    assert content == {
        "list": "pairs.txt",
        "rule": "reside",
        "pairs": 2,
        "clean_images": 1,
        "without_clean": ["SOTS/hazy/1401_1.png"],
        "without_degraded": ["SOTS/gt/1402.png"],
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--degraded", "SOTS/hazy", "--clean", "SOTS/gt", "-o", "p.txt"),
            "--rule reside would match 3 of 3",
        ),
        (
            ("--degraded", "SOTS/hazy", "--clean", "SOTS/gt", "-o", "p.txt", "--rule", "best"),
            "unknown rule 'best'",
        ),
        (
            ("--degraded", "SOTS/hazy", "--clean", "SOTS/gt", "-o", "SOTS"),
            "SOTS is a folder; name the list to write",
        ),
        (
            ("--degraded", "SOTS/hazy", "--clean", "SOTS/gt", "-o", "old.txt", "--rule", "reside"),
            "old.txt exists; replace it with --overwrite",
        ),
        (
            ("--degraded", "SOTS/hazy", "--clean", "nowhere", "-o", "p.txt"),
            "folder nowhere does not exist",
        ),
        (("--clean", "SOTS/gt", "-o", "p.txt"), "needs --degraded DIR, or --with NAME"),
        (
            ("--clean", "SOTS/gt", "-o", "p.txt", "--with", "noise:sigma=-1"),
            "sigma must be between 0 and 255",
        ),
        (
            ("--clean", "SOTS/gt", "--degraded", "SOTS/hazy", "-o", "p.txt", "--with", "noise"),
            "needs degradations to synthesise",
        ),
        (("--clean", "bars", "-o", "p.txt", "--with", "noise"), "cannot be in a pair list"),
        (("--degraded", "SOTS/hazy", "-o", "p.txt"), "Missing option"),
    ],
)
def test_bad_arguments_are_reported_and_nothing_is_written(
    arguments: tuple[str, ...], message: str, sots: Path, tmp_path: Path
) -> None:
    (tmp_path / "old.txt").write_text("old")
    (tmp_path / "bars").mkdir()
    Image.new("RGB", (8, 6)).save(tmp_path / "bars" / "a|b.png")
    before = sorted(tmp_path.rglob("*"))
    result = run("build", *arguments)
    assert result.exit_code == 2
    assert message in text(result)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "old.txt").read_text() == "old"


def test_check_names_every_problem_of_every_list(sots: Path) -> None:
    build("--rule", "reside")
    Path("bad.txt").write_text(
        "SOTS/hazy/1400_1.png|SOTS/gt/1409.png\nonly one path\n@fogg|SOTS/gt/1400.png\n"
    )
    Path("empty.txt").write_text("# nothing yet\n")
    result = run("check", "pairs.txt", "bad.txt", "empty.txt")
    assert result.exit_code == 1
    for message in (
        "pairs.txt: 3 pairs, 2 clean images",
        "bad.txt:1: SOTS/gt/1409.png does not exist",
        "bad.txt:2: a line must be degraded|clean",
        "bad.txt:3: unknown degradation 'fogg'",
        "bad.txt: 3 problems (named above)",
        "empty.txt contains no pairs",
    ):
        assert message in text(result)

    result = run("check", "pairs.txt", "bad.txt", "--json")
    assert result.exit_code == 1
    content = json.loads(result.stdout)
    assert content["problems"] == 3
    assert [report["pairs"] for report in content["lists"]] == [3, 1]
    assert content["lists"][0]["widths"] == [8, 8]

    result = run("check", "pairs.txt", "nowhere.txt")
    assert result.exit_code == 2
    assert "pair list nowhere.txt does not exist" in text(result)


def test_rules_are_shown_with_names(sots: Path) -> None:
    result = run("rules")
    assert result.exit_code == 0
    assert "hazy/0001_0.8_0.2.jpg|gt/0001.png" in text(result)
    assert "rain/X2/norain-1x2.png|norain/norain-1.png" in text(result)
    assert all(
        f"{name}: " in text(result) for name in ("same-name", "reside", "rain100", "clean-only")
    )


def test_line_numbers_and_names_are_printed_literally(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 6)).save("a.png")
    lines = ["a.png|a.png"] * 99 + ["a:car:b.png|a.png"]
    Path("list.txt").write_text("\n".join(lines) + "\n")
    assert "list.txt:100: a:car:b.png does not exist" in text(run("check", "list.txt"))
