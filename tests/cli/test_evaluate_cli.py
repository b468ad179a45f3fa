"""`vrdir evaluate restoration`: its table, its files, exclusions and bad arguments."""

import csv
import io
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.conftest import text
from typer.testing import CliRunner

from vrdir.cli.app import app
from vrdir.evaluation.restoration.metrics import METRICS, measure
from vrdir.images.convert import open_image
from vrdir.model.vrdir import VRDIR
from vrdir.restoring.restorer import Restorer
from vrdir.weights.bundled import sha256

BAD_NAME = "<b>&.png"

KEYS = [metric.key for metric in METRICS]


def run(*arguments: object) -> Any:
    return CliRunner().invoke(
        app, ["evaluate", "restoration", *(str(a) for a in arguments)], catch_exceptions=False
    )


@pytest.fixture
def whole(photo: Image.Image, tmp_path: Path) -> Path:
    """Write a list of three valid pairs; two names look like markup to HTML or rich."""
    photo.save(tmp_path / "clean.png")
    for name, shade in (("dim.png", 0.8), (BAD_NAME, 0.6), ("[red].png", 0.3)):
        photo.point(lambda v, shade=shade: round(v * shade)).save(tmp_path / name)
    (tmp_path / "whole.txt").write_text(
        f"dim.png|clean.png\n{BAD_NAME}|clean.png\n[red].png|clean.png\n"
    )
    return tmp_path / "whole.txt"


@pytest.fixture
def broken(whole: Path, photo: Image.Image) -> Path:
    """Write the same list with a missing file and one of another size between them."""
    photo.crop((0, 0, 40, 40)).save(whole.parent / "small.png")
    first, *others = whole.read_text().splitlines(keepends=True)
    (whole.parent / "broken.txt").write_text(
        "".join([first, "nowhere.png|clean.png\n", "small.png|clean.png\n", *others])
    )
    return whole.parent / "broken.txt"


def test_json_csv_and_page_have_the_same_figures(
    whole: Path, weights: Path, tmp_path: Path
) -> None:
    table, page = tmp_path / "out" / "table.csv", tmp_path / "out" / "page.html"
    result = run(
        "--pairs",
        f"three={whole}",
        "--weights",
        weights,
        "--device",
        "cpu",
        "--csv",
        table,
        "--report",
        page,
        "--json",
    )
    assert result.exit_code == 0, text(result)
    content = json.loads(result.stdout)
    assert content["weights"] == str(weights)
    assert content["sha256"] == sha256(weights / "model.safetensors")
    assert list(content["definitions"]) == KEYS
    (found,) = content["sets"]
    assert (found["name"], found["count"], found["excluded"], found["synthetic"]) == (
        "three",
        3,
        0,
        0,
    )
    assert [image["name"] for image in found["images"]] == ["dim.png", BAD_NAME, "[red].png"]
    for which in ("degraded", "restored"):
        for metric in KEYS:
            assert found[which][metric] == pytest.approx(
                sum(image[which][metric] for image in found["images"]) / 3
            )
    # one image measured by hand: restored by the command, written to a file and read again
    restored = tmp_path / "restored.png"
    Restorer(weights, "cpu").restore_file(tmp_path / "dim.png", restored)
    clean = open_image(tmp_path / "clean.png").tensor
    for which, path in (("restored", restored), ("degraded", tmp_path / "dim.png")):
        by_hand = measure(open_image(path).tensor, clean)
        assert found["images"][0][which] == pytest.approx(by_hand)

    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert [row["name"] for row in rows] == [image["name"] for image in found["images"]]
    for row, image in zip(rows, found["images"], strict=True):
        for which in ("degraded", "restored"):
            for metric in KEYS:
                assert float(row[f"{which}_{metric}"]) == pytest.approx(
                    image[which][metric], abs=1e-6
                )
        assert (row["set"], row["width"], row["height"], row["excluded"]) == (
            "three",
            "97",
            "75",
            "",
        )

    html = page.read_text()
    assert f"{found['restored']['psnr_rgb']:.2f} dB (RGB, mean of 3 images)" in html
    shown = {case["name"] for case in found["cases"].values()}
    assert html.count("<img ") == 8 * len(shown)  # four pictures with a window each
    assert not re.search(
        r"""(src|href)\s*=\s*["'](?!data:)|<script|<link|url\(|@import|https?://""", html
    )
    assert BAD_NAME not in html
    assert "&lt;b&gt;&amp;.png" in html
    assert sorted(path.name for path in page.parent.iterdir()) == [
        "page.html",
        "table.csv",
    ]  # nothing half-written


def test_excluded_pairs_are_listed_in_all_outputs(
    whole: Path, broken: Path, weights: Path, tmp_path: Path
) -> None:
    options = ("--weights", weights, "--overwrite")
    table, page = tmp_path / "table.csv", tmp_path / "page.html"
    result = run(
        "--pairs", whole, "--pairs", broken, *options, "--csv", table, "--report", page, "--json"
    )
    assert result.exit_code == 1
    assert f"{broken}:2: {broken.parent / 'nowhere.png'} does not exist" in text(result)
    assert f"{broken}:3: {broken.parent / 'small.png'} is 40 x 40 pixels" in text(result)
    all_well, some = json.loads(result.stdout)["sets"]
    assert (some["count"], some["excluded"]) == (3, 2)
    assert some["restored"] == all_well["restored"]
    assert [(row["line"], row["name"]) for row in some["exclusions"]] == [
        (2, "nowhere.png"),
        (3, "small.png"),
    ]
    assert "does not exist" in some["exclusions"][0]["reason"]
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert [row["line"] for row in rows] == ["1", "2", "3", "1", "2", "3", "4", "5"]
    assert [bool(row["excluded"]) for row in rows] == [False] * 4 + [True] * 2 + [False] * 2
    assert rows[4]["restored_psnr_rgb"] == ""
    html = page.read_text()
    assert "2 of 5 pairs excluded" in html
    assert "line 2, nowhere.png: " in html
    assert "line 3, small.png: " in html

    shown = run("--pairs", broken, *options)
    assert shown.exit_code == 1
    assert "broken [red].png " in text(shown)  # a line per image where there is no terminal
    assert "broken: 2 of 5 pairs excluded. PSNR " in text(shown)
    assert f"{some['restored']['psnr_rgb']:.2f}" in text(shown)
    assert f"{some['restored']['ssim_y']:.4f}" in text(shown)


def test_set_in_which_no_pair_can_be_measured(whole: Path, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "none.txt").write_text("nowhere.png|clean.png\n")
    command = ("--pairs", tmp_path / "none.txt", "--pairs", whole, "--weights", weights)
    result = run(*command, "--report", tmp_path / "page.html", "--json")
    assert result.exit_code == 1
    none, three = json.loads(result.stdout)["sets"]
    assert (
        none["degraded"],
        none["restored"],
        none["cases"],
        none["excluded"],
        three["count"],
    ) == (None, None, {}, 1, 3)
    assert "Nothing was measured." in (tmp_path / "page.html").read_text()
    assert "none: 1 of 1 pair excluded. Nothing was measured." in text(run(*command))


def test_synthesised_pairs_are_reproducible_and_called_synthetic(
    whole: Path, weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "noise.txt").write_text("@noise:sigma=25|clean.png\n@haze:beta=1|clean.png\n")
    command = ("--pairs", tmp_path / "noise.txt", "--weights", weights)
    result = run(*command, "--report", tmp_path / "page.html", "--json")
    assert result.exit_code == 0, text(result)
    (found,) = json.loads(result.stdout)["sets"]
    assert found["synthetic"] == 2
    assert [image["name"] for image in found["images"]] == [
        "clean.png (noise:sigma=25)",
        "clean.png (haze:beta=1)",
    ]
    assert found["images"][0]["degraded"]["psnr_rgb"] == pytest.approx(
        20.3, abs=0.6
    )  # 20 log10(255 / 25), a little clipped
    assert json.loads(run(*command, "--json").stdout)["sets"] == [found]
    assert '<span class="badge">synthetic</span>' in (tmp_path / "page.html").read_text()
    assert "noise (synthetic)" in text(run(*command))


def test_results_of_another_restorer(whole: Path, photo: Image.Image, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    for stem in ("dim", "<b>&", "[red]"):
        photo.save(folder / f"{stem}.webp", lossless=True)
    command = (
        "--pairs",
        whole,
        "--restored",
        folder,
        "--report",
        tmp_path / "page.html",
        "--overwrite",
        "--json",
    )
    result = run(*command)
    assert result.exit_code == 0, text(result)
    content = json.loads(result.stdout)
    assert content["restored"] == str(folder)
    assert "weights" not in content
    assert content["sets"][0]["restored"]["psnr_rgb"] == 100
    assert content["sets"][0]["degraded"]["psnr_rgb"] < 30
    (folder / "dim.webp").unlink()
    result = run(*command)
    assert result.exit_code == 1
    assert f"{whole}:1: {folder} contains no dim.*" in text(result)
    assert json.loads(result.stdout)["sets"][0]["count"] == 2


def test_each_restorer_is_a_column(
    whole: Path,
    weights: Path,
    tiny: VRDIR,
    photo: Image.Image,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny.save_pretrained(tmp_path / "runs" / "mine")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for stem in ("dim", "<b>&", "[red]"):
        photo.save(theirs / f"{stem}.webp", lossless=True)
    (tmp_path / "peers.py").write_text(
        "def same(image):\n    return image\ndef none(image):\n    return image / 2\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    command = [
        "--pairs",
        "whole.txt",
        "--weights",
        f"before={weights}",
        "--weights",
        "runs/mine",
        "--restored",
        "theirs",
    ]
    command += [
        "--restorer",
        "same=peers:same",
        "--device",
        "cpu",
        "--csv",
        "t.csv",
        "--report",
        "p.html",
        "--overwrite",
    ]
    result = run(*command, "--json")
    assert result.exit_code == 0, text(result)
    content = json.loads(result.stdout)
    assert content["weights before"] == str(weights)
    assert content["sha256 mine"] == sha256(weights / "model.safetensors")
    assert (content["restored theirs"], content["restorer same"]) == ("theirs", "peers:same")
    sets = {one["restorer"]: one for one in content["sets"]}
    assert list(sets) == ["before", "mine", "theirs", "same"]
    alone = json.loads(
        run("--pairs", "whole.txt", "--weights", weights, "--device", "cpu", "--json").stdout
    )["sets"][0]
    assert sets["before"]["restored"] == sets["mine"]["restored"] == alone["restored"]
    assert sets["theirs"]["restored"]["psnr_rgb"] == 100
    assert sets["same"]["restored"] == sets["same"]["degraded"] == alone["degraded"]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "t.csv").read_text())))
    assert [row["restorer"] for row in rows] == [name for name in sets for _ in range(3)]
    html = (tmp_path / "p.html").read_text()
    assert "<th>PSNR in</th><th>PSNR before</th><th>PSNR mine</th><th>PSNR theirs</th>" in html
    assert html.count("<h2>whole, ") == 4
    shown = text(run(*command))
    figures = [f"{sets[name]['restored']['psnr_rgb']:.2f}" for name in sets]
    assert all(figure in shown for figure in figures)
    assert "whole, mine: PSNR " in shown
    assert (
        "whole: mine against before: +0.00 dB on average (RGB), better in 0 of 3, worse in 0."
        in shown
    )
    assert "-> before " in shown  # a line per image
    (theirs / "dim.webp").unlink()  # what one cannot do counts for none
    failed = run(*command, "--restorer", "none=peers:none", "--json")
    assert failed.exit_code == 1
    assert [one["excluded"] for one in json.loads(failed.stdout)["sets"]] == [3] * 5
    assert "whole.txt:1: theirs: theirs contains no dim.*" in text(failed)
    assert "none: the restorer returned float64" in text(failed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Missing option"),
        (("--pairs", "nowhere.txt"), "pair list nowhere.txt does not exist"),
        (("--pairs", "empty.txt"), "empty.txt contains no pairs"),
        (("--pairs", "twisted.txt"), "twisted.txt:1: a line must be degraded|clean"),
        (
            ("--pairs", "whole.txt", "--pairs", "sub/whole.txt"),
            "have the same name, 'whole'; name them: --pairs NAME=LIST",
        ),
        (("--pairs", "whole.txt", "--weights", "huge"), "unknown weights 'huge'"),
        (("--pairs", "whole.txt", "--device", "tpu9"), "device 'tpu9' is not available"),
        (
            ("--pairs", "whole.txt", "--restored", "nowhere"),
            "the folder of restored images does not exist: nowhere",
        ),
        (("--pairs", "noise.txt", "--restored", "."), "has no degraded file"),
        (
            ("--pairs", "whole.txt", "--restored", ".", "--device", "cpu"),
            "--device has no effect with --restored, where no network runs",
        ),
        (
            ("--pairs", "whole.txt", "--weights", "small", "--weights", "small"),
            "--weights small: the name 'small' is already used",
        ),
        (
            ("--pairs", "whole.txt", "--restored", ".", "--restored", "x=.", "--restorer", "x=."),
            "--restorer x: that name is already used",
        ),
        (("--pairs", "whole.txt", "--restorer", "."), "--restorer must be NAME=..."),
        (
            ("--pairs", "whole.txt", "--restored", ".", "--restorer", "x=nowhere:f"),
            "'nowhere' cannot be imported",
        ),
        (("--pairs", "whole.txt", "--csv", "sub"), "sub is a folder; use the name of a file"),
        (
            ("--pairs", "whole.txt", "--csv", "whole.txt"),
            "whole.txt exists; replace it with --overwrite",
        ),
        (
            ("--pairs", "whole.txt", "--csv", "a", "--report", "a"),
            "two results would be written to a;",
        ),
        (("--pairs", "whole.txt", "--csv", "whole.txt/a.csv"), "whole.txt/a.csv cannot be written"),
    ],
)
def test_bad_arguments_are_reported_and_nothing_is_written(
    arguments: tuple[str, ...],
    message: str,
    whole: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "whole.txt").write_text(whole.read_text())
    (tmp_path / "empty.txt").write_text("# nothing\n")
    (tmp_path / "twisted.txt").write_text("a.png b.png\n")
    (tmp_path / "noise.txt").write_text("@noise:sigma=25|clean.png\n")
    before = sorted(tmp_path.rglob("*"))
    result = run(
        *arguments,
        *(() if {"--weights", "--restored"} & set(arguments) else ("--weights", weights)),
    )
    assert result.exit_code == 2
    assert message in text(result)
    assert " dB" not in text(result)  # and no time was spent
    assert sorted(tmp_path.rglob("*")) == before


def test_results_are_replaced_only_with_overwrite(
    whole: Path, weights: Path, tmp_path: Path
) -> None:
    table = tmp_path / "table.csv"
    table.write_text("mine")
    command = ("--pairs", whole, "--weights", weights, "--csv", table)
    assert run(*command).exit_code == 2
    assert table.read_text() == "mine"
    assert run(*command, "--overwrite").exit_code == 0
    assert table.read_text().startswith("set,line,name,")


def test_unwritable_result_is_reported_after_the_table(
    whole: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        os, "access", lambda path, mode: True
    )  # a disk that fills up only then, say
    result = run("--pairs", whole, "--weights", weights, "--csv", "/proc/vrdir/table.csv")
    assert result.exit_code == 1
    assert "/proc/vrdir/table.csv cannot be written" in text(result)
    assert "whole: PSNR " in text(result)


def test_list_with_an_equals_sign_in_its_name(whole: Path, weights: Path, tmp_path: Path) -> None:
    odd = whole.rename(tmp_path / "sigma=25.txt")
    (found,) = json.loads(run("--pairs", odd, "--weights", weights, "--json").stdout)["sets"]
    assert found["name"] == "sigma=25"


def test_help() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert "--report" in text(result)
