"""`vrdir evaluate TASK`: from files to table, JSON, CSV and page, with real recognisers."""

import csv
import io
import json
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.conftest import text
from typer.testing import CliRunner

from vrdir import atomic as whole_files
from vrdir.cli.app import app
from vrdir.cli.recognition_inputs import cached_restorers, expand_severities
from vrdir.evaluation.recognition.image_files import ImageFile
from vrdir.evaluation.user_functions import Pixels
from vrdir.model.vrdir import VRDIR
from vrdir.weights.bundled import sha256

NETS = '''
import numpy as np

def by_brightness(images):
    """Dark or bright, by the mean level."""
    return np.array([[0.0, 2.0] if image.mean() > 80 else [2.0, 0.0] for image in images])

by_brightness.classes = ["dark", "bright"]

def always_dark(images):
    return np.tile([1.0, 0.0], (len(images), 1))

always_dark.classes = ["dark", "bright"]

def of_three(images):
    return np.zeros((len(images), 3))

of_three.classes = ["dark", "bright"]

def light(image):
    """The box around what is nearly white."""
    rows, columns = np.nonzero(image.mean(2) > 200)
    if not len(rows):
        return [], [], []
    return [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], [0.9], [0]

light.classes = ["lamp"]

def colour(images):
    return np.stack([image.mean((0, 1)) + 1 for image in images])

def brighten(image):
    return np.minimum(image.astype(int) * 2, 255).astype(np.uint8)

def shrink(image):
    return image[:-1]

def fail_on_red(image):
    if image[..., 0].mean() > 1.5 * image[..., 1].mean():
        raise RuntimeError("too red for me")
    return image
'''


def run(task: str, *arguments: object) -> Any:
    return CliRunner().invoke(app, ["evaluate", task, *map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, in which the recognisers are; they are imported from there."""
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    return tmp_path


@pytest.fixture
def weights(tiny: VRDIR, here: Path) -> Path:
    tiny.save_pretrained(here / "weights")
    return here / "weights"


@pytest.fixture
def photos(here: Path, photo: Image.Image) -> Path:
    """Write eight bright and four dark photos in a folder per class; dim/ has darker versions."""
    small = photo.resize((48, 36))
    for i in range(12):
        kind, light = ("bright", 1.0 + 0.02 * i) if i < 8 else ("dark", 0.3)
        for folder, share in (("photos", 1.0), ("dim", 0.5)):
            target = here / folder / kind / f"{i:02}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            small.point(lambda v, by=light * share: round(min(v * by, 255))).save(target)
    return here / "photos"


DIM = ("--data", "photos", "--recogniser", "nets:by_brightness", "--degraded", "dim=dim")
PEER = (*DIM, "--no-vrdir", "--restorer", "peer=nets:brighten")


def test_classification_from_folders_to_page(photos: Path, weights: Path, here: Path) -> None:
    outputs = ("--csv", "out/table.csv", "--report", "out/page.html", "--json")
    result = run(
        "classification",
        *DIM,
        "--weights",
        weights,
        "--device",
        "cpu",
        "--restorer",
        "peer=nets:brighten",
        *outputs,
    )
    assert result.exit_code == 0, text(result)
    content = json.loads(result.stdout)
    assert content["sha256"] == sha256(weights / "model.safetensors")
    assert (content["restorer peer"], content["seed"], content["resamples"]) == (
        "nets:brighten",
        0,
        1000,
    )
    (found,) = content["results"]
    assert (found["recogniser"], found["images"], found["excluded"]) == (
        "nets:by_brightness",
        12,
        0,
    )
    assert found["clean"]["top1"]["value"] == 100
    (dim,) = found["conditions"]
    assert (dim["name"], dim["synthetic"]) == ("dim", False)
    assert dim["degraded"]["top1"]["value"] == pytest.approx(
        100 * 4 / 12
    )  # bright is classified as dark
    assert dim["restored"]["peer"]["top1"]["value"] == 100
    assert dim["recovered"]["peer"]["top1"]["value"] == pytest.approx(1)
    assert dim["p_value"]["peer"]["top1"] == pytest.approx(2 * 0.5**8)  # McNemar: eight of eight
    assert dim["restored"]["vrdir"]["top1"]["value"] == pytest.approx(
        100 * 4 / 12
    )  # random weights
    assert {"vrdir", "peer"} == dim["restored"].keys() == found["clean_restored"].keys()
    assert found["clean_restored"]["peer"]["top1"]["value"] == pytest.approx(100)

    rows = list(csv.DictReader(io.StringIO((here / "out" / "table.csv").read_text())))
    (row,) = (
        row
        for row in rows
        if (row["condition"], row["in_front"], row["metric"]) == ("dim", "peer", "top1")
    )
    assert [float(row[key]) for key in ("value", "recovered", "p_value")] == pytest.approx(
        [100, 1, 0.0078125]
    )
    html = (here / "out" / "page.html").read_text().replace("\u00a0", " ")
    assert (
        "peer in front of nets:by_brightness, dim: recovers 100 % (100 to 100) of the loss" in html
    )
    assert "vrdir in front of nets:by_brightness, dim: makes no significant difference" in html
    assert (
        html.count("<img ") == 3 * 4
    )  # of the eight that the peer won, four; nothing else changed
    assert "synthetic" not in html
    assert not re.search(
        r"""(src|href)\s*=\s*["'](?!data:)|<script|<link|url\(|@import|https?://""", html
    )
    assert sorted(path.name for path in (here / "out").iterdir()) == [
        "page.html",
        "table.csv",
    ]  # nothing half-written


def test_table_on_the_terminal_and_progress_lines(photos: Path) -> None:
    shown = text(run("classification", *PEER))
    assert "nets:by_brightness 6 of 12 images" in shown
    assert "dim nothing 33.3 " in shown
    assert "peer 100.0 100.0 to 100.0 +66.7 100 % (100 to 100) 0.008" in shown
    assert "nets:by_brightness: peer in front of nets:by_brightness, dim: recovers 100 %" in shown
    assert "vrdir" not in shown


def test_synthesised_conditions_are_called_synthetic_and_severities_expand(
    photos: Path, here: Path
) -> None:
    command: tuple[object, ...] = (
        "--data",
        "photos",
        "--recogniser",
        "nets:by_brightness",
        "--no-vrdir",
        "--restorer",
        "peer=nets:brighten",
    )
    command = (
        *command,
        "--with",
        "low_light:severity=1..3",
        "--with",
        "noise:sigma=30",
        "--bootstrap",
        "50",
        "--seed",
        "3",
    )
    first = run("classification", *command, "--report", "page.html", "--json")
    assert first.exit_code == 0, text(first)
    (found,) = json.loads(first.stdout)["results"]
    names = [condition["name"] for condition in found["conditions"]]
    assert names == [
        "low_light:severity=1",
        "low_light:severity=2",
        "low_light:severity=3",
        "noise:sigma=30",
    ]
    assert all(condition["synthetic"] for condition in found["conditions"])
    assert run("classification", *command, "--json").stdout == first.stdout  # the same each time
    (other,) = json.loads(run("classification", *command, "--seed", "4", "--json").stdout)[
        "results"
    ]
    assert other["conditions"] != found["conditions"]
    html = (here / "page.html").read_text()
    assert "the severity of low_light (synthetic)" in html
    assert "<dt>Synthetic</dt>" in html


def test_severity_ranges() -> None:
    assert expand_severities("haze:severity=2") == ["haze:severity=2"]
    assert expand_severities("haze:beta=0.5..1.5") == ["haze:beta=0.5..1.5"]
    assert expand_severities("haze:severity=1..2+noise:severity=4..5,sigma=3") == [
        "haze:severity=1+noise:severity=4,sigma=3",
        "haze:severity=1+noise:severity=5,sigma=3",
        "haze:severity=2+noise:severity=4,sigma=3",
        "haze:severity=2+noise:severity=5,sigma=3",
    ]
    with pytest.raises(ValueError, match="must begin with the lower one"):
        expand_severities("haze:severity=3..1")


def test_several_recognisers_get_the_same_restored_images(photos: Path, here: Path) -> None:
    (here / "counting.py").write_text(
        "import nets\ncalls = []\n"
        "def brighten(image):\n    calls.append(1)\n    return nets.brighten(image)\n"
    )
    command = (
        *DIM,
        "--recogniser",
        "nets:always_dark",
        "--no-vrdir",
        "--restorer",
        "peer=counting:brighten",
        "--json",
    )
    sys.modules.pop("counting", None)
    result = run("classification", *command, "--report", "page.html")
    assert result.exit_code == 0, text(result)
    one, other = json.loads(result.stdout)["results"]
    assert one["conditions"][0]["restored"]["peer"]["top1"]["value"] == 100
    assert other["conditions"][0]["restored"]["peer"]["top1"]["value"] == pytest.approx(
        100 * 4 / 12
    )
    assert (
        len(sys.modules["counting"].calls) == 2 * 12
    )  # clean and dim, once for both recognisers and the page
    html = (here / "page.html").read_text()
    assert (
        html.index("conditions under which")
        < html.index("<h2>nets:by_brightness")
        < html.index("<h2>nets:always_dark")
    )


def test_excluded_images_are_listed_in_all_outputs(photos: Path, here: Path) -> None:
    (here / "dim" / "bright" / "02.png").unlink()
    (here / "dim" / "bright" / "03.png").write_bytes(b"no image")
    Image.new("RGB", (48, 36), (200, 20, 20)).save(photos / "bright" / "red.png")
    Image.new("RGB", (48, 36), (100, 10, 10)).save(here / "dim" / "bright" / "red.png")
    Image.new("RGB", (48, 36)).save(here / "dim" / "astray.png")
    command = (
        *DIM,
        "--no-vrdir",
        "--restorer",
        "peer=nets:fail_on_red",
        "--csv",
        "t.csv",
        "--report",
        "p.html",
        "--json",
    )
    result = run("classification", *command)
    assert result.exit_code == 1
    (found,) = json.loads(result.stdout)["results"]
    assert (found["images"], found["excluded"]) == (10, 4)
    names = {one["name"]: one["reason"] for one in found["exclusions"]}
    assert names.keys() == {"bright/02", "bright/03", "bright/red", "dim/astray.png"}
    assert "too red for me" in names["bright/red"]
    table, html = (here / "t.csv").read_text(), (here / "p.html").read_text()
    for name in names:
        assert f"excluded: {name}: " in text(result)
        assert name in table
        assert f"<li>{name}: " in html


def test_names_with_markup_or_invalid_unicode(photos: Path, here: Path) -> None:
    for folder in ("photos", "dim"):
        for stem in ("<b>&", "[red]", os.fsdecode(b"\xff")):
            (here / folder / "bright" / "00.png").with_stem(stem).write_bytes(
                (here / folder / "bright" / "00.png").read_bytes()
            )
    (here / "dim" / "bright" / "[red].png").unlink()
    result = run("classification", *PEER, "--csv", "t.csv", "--report", "p.html")
    assert result.exit_code == 1
    assert "excluded: bright/[red]: " in text(result)
    assert (here / "p.html").read_text().count("<b>&") == 0
    assert b"bright/[red]" in (here / "t.csv").read_bytes()


def test_limit_is_noted_in_every_output(photos: Path, here: Path) -> None:
    Image.new("RGB", (48, 36)).save(here / "dim" / "astray.png")
    command = (*PEER, "--limit", "5", "--csv", "t.csv", "--report", "p.html", "--overwrite")
    result = run("classification", *command, "--json")
    assert result.exit_code == 1
    (found,) = json.loads(result.stdout)["results"]
    assert found["images"] == 5
    assert [one["name"] for one in found["exclusions"]] == [
        "dim/astray.png"
    ]  # not the seven beyond the limit
    note = "the first 5 of 12 images by name"
    assert found["facts"]["limit"] == note
    assert note in (here / "t.csv").read_text()
    assert note in (here / "p.html").read_text()
    assert note[1:] in text(run("classification", *command))
    assert (
        "limit"
        not in json.loads(run("classification", *PEER, "--limit", "12", "--json").stdout)[
            "results"
        ][0]["facts"]
    )


def test_classification_by_csv(photos: Path, here: Path) -> None:
    lines = [
        f"{path.parent.name}/{path.stem}.jpg,{path.parent.name}"
        for path in sorted(photos.rglob("*.png"))
    ]
    (here / "labels.csv").write_text(
        "\n".join(["file,label", *lines, "nowhere.png,dark", "bright/00.png,cat"]) + "\n"
    )
    command = ("--data", "labels.csv", "--images", "photos", *PEER[2:])
    assert run("classification", *command).exit_code == 2  # 00 is labelled twice
    (here / "labels.csv").write_text(
        "\n".join(["file,label", *lines[1:], "nowhere.png,dark", "bright/00.png,cat"]) + "\n"
    )
    result = run("classification", *command, "--json")
    assert result.exit_code == 1
    (found,) = json.loads(result.stdout)["results"]
    assert found["images"] == 11
    assert {one["name"] for one in found["exclusions"]} == {"nowhere.png", "bright/00"}


@pytest.mark.parametrize("kind", ["yolo", "coco"])
def test_detection(kind: str, here: Path) -> None:
    annotations: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 7, "name": "lamp"}],
    }
    for i in range(8):
        x, y = 5 + 3 * i, 10
        for folder, light in (("images", 255), ("dim", 120)):
            pixels = np.full((40, 60, 3), 30, np.uint8)
            pixels[y : y + 15, x : x + 20] = light
            target = here / "data" / folder / f"{i}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(target)
        annotations["images"].append({"id": i, "file_name": f"{i}.png", "width": 60, "height": 40})
        annotations["annotations"].append(
            {
                "id": i,
                "image_id": i,
                "category_id": 7,
                "bbox": [x, y, 20, 15],
                "area": 300,
                "iscrowd": 0,
            }
        )
        (here / "data" / "labels").mkdir(exist_ok=True)
        (here / "data" / "labels" / f"{i}.txt").write_text(
            f"0 {(x + 10) / 60} {(y + 7.5) / 40} {20 / 60} {15 / 40}\n"
        )
    crowd = {
        "id": 99,
        "image_id": 0,
        "category_id": 7,
        "bbox": [50, 30, 5, 5],
        "area": 25,
        "iscrowd": 1,
    }
    annotations["annotations"].append(crowd)
    (here / "data" / "coco.json").write_text(json.dumps(annotations))
    data = (
        ("--data", "data")
        if kind == "yolo"
        else ("--data", "data/coco.json", "--images", "data/images")
    )
    command = (
        *data,
        "--recogniser",
        "nets:light",
        "--degraded",
        "dim=data/dim",
        "--no-vrdir",
        "--restorer",
        "peer=nets:brighten",
    )
    result = run("detection", *command, "--report", "page.html", "--bootstrap", "200", "--json")
    assert result.exit_code == 0, text(result)  # a crowd is named, but nothing is wrong
    (found,) = json.loads(result.stdout)["results"]
    assert found["excluded"] == (kind == "coco")
    assert found["clean"]["map"]["value"] == pytest.approx(100)
    (dim,) = found["conditions"]
    assert dim["degraded"]["map"]["value"] == 0
    assert dim["restored"]["peer"]["map"]["value"] == pytest.approx(100)
    assert dim["p_value"]["peer"]["map"] < 0.05
    html = (here / "page.html").read_text()
    assert "1 of 1 found, 0 false" in html
    assert "0 of 1 found, 0 false" in html
    for i in range(8):  # the dim photos are all there is
        (here / "data" / "images" / f"{i}.png").write_bytes(
            (here / "data" / "dim" / f"{i}.png").read_bytes()
        )
    alone = run(
        "detection",
        *data,
        "--recogniser",
        "nets:light",
        "--no-vrdir",
        "--restorer",
        "peer=nets:brighten",
        "--json",
    )
    assert alone.exit_code == 0, text(alone)
    (taken,) = json.loads(alone.stdout)["results"][0]["conditions"]
    assert taken["name"] == "as taken"
    assert taken["degraded"]["map"]["value"] == 0
    assert taken["restored"]["peer"]["map"]["value"] == pytest.approx(100)
    assert taken["p_value"]["peer"]["map"] < 0.05
    assert "recovered" not in taken


def test_reidentification(here: Path) -> None:
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (120, 120, 30)]
    for person, colour in enumerate(colours, 1):
        for camera, part in ((1, "query"), (2, "gallery"), (3, "gallery")):
            for folder, shown in (("persons", colour), ("grey", (90, 90, 90 + 3 * camera))):
                target = here / folder / part / f"{person:04}_c{camera}s1_000001_01.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (16, 32), shown).save(target)
    Image.new("RGB", (16, 32)).save(here / "persons" / "gallery" / "-1_c1s1_000001_01.png")
    command = (
        "--recogniser",
        "nets:colour",
        "--degraded",
        "grey=grey",
        "--no-vrdir",
        "--restorer",
        "peer=nets:brighten",
        "--json",
    )
    result = run("reid", "--data", "persons", *command, "--report", "page.html")
    assert result.exit_code == 0, text(result)
    (found,) = json.loads(result.stdout)["results"]
    assert (found["images"], found["excluded"]) == (4, 1)  # the junk is named, but nothing is wrong
    assert found["clean"]["rank1"]["value"] == 100
    assert found["conditions"][0]["degraded"]["rank1"]["value"] == 25
    assert "4 queries" in (here / "page.html").read_text()
    (few,) = json.loads(run("reid", "--data", "persons", *command, "--limit", "2").stdout)[
        "results"
    ]
    assert few["images"] == 2
    assert few["facts"]["limit"] == "the first 2 of 4 persons by number"
    (alone,) = json.loads(run("reid", "--data", "grey", *command[:2], *command[4:]).stdout)[
        "results"
    ]
    assert alone["conditions"][0]["name"] == "as taken"
    assert alone["conditions"][0]["degraded"]["rank1"]["value"] == 25
    assert alone["conditions"][0]["p_value"]["peer"].keys() >= {"rank1", "rank10", "map"}
    refused = run("reid", "--data", "persons", "--images", "persons", *command)
    assert refused.exit_code == 2
    assert "--images has no effect for reid" in text(refused)


def test_photos_of_real_weather_are_compared_as_taken_and_restored(
    photos: Path, weights: Path, here: Path
) -> None:
    for path in (here / "dim").rglob(
        "*.png"
    ):  # what another restorer made of the dim photos, which are all there is
        target = here / "theirs" / path.relative_to(here / "dim")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((photos / path.relative_to(here / "dim")).read_bytes())
    command: tuple[object, ...] = (
        "--data",
        "dim",
        "--recogniser",
        "nets:by_brightness",
        "--weights",
        weights,
        "--device",
        "cpu",
    )
    command = (
        *command,
        "--restorer",
        "peer=nets:brighten",
        "--restorer",
        "theirs=theirs",
        "--csv",
        "t.csv",
        "--report",
        "p.html",
    )
    result = run("classification", *command, "--json")
    assert result.exit_code == 0, text(result)
    (found,) = json.loads(result.stdout)["results"]
    (taken,) = found["conditions"]
    assert (taken["name"], taken["synthetic"]) == ("as taken", False)
    assert taken["degraded"]["top1"]["value"] == pytest.approx(100 * 4 / 12)
    assert {name: one["top1"]["value"] for name, one in taken["restored"].items()} == pytest.approx(
        {"vrdir": 100 * 4 / 12, "peer": 100, "theirs": 100}
    )
    assert taken["p_value"]["peer"]["top1"] == pytest.approx(
        2 * 0.5**8
    )  # the same test as of photos with twins
    assert "recovered" not in result.stdout
    assert "clean" not in result.stdout
    assert found["cases"][0]["said"].keys() == {"degraded", "restored"}
    assert found["verdict"].startswith(
        "vrdir in front of nets:by_brightness, photos as taken: makes no significant difference"
    )
    assert (
        "peer in front of nets:by_brightness, photos as taken: "
        "gains 66.7 points (Top-1 33.3 -> 100.0 %, p = 0.008)." in found["verdict"]
    )
    rows = list(csv.DictReader(io.StringIO((here / "t.csv").read_text())))
    assert [(row["condition"], row["in_front"], row["recovered"]) for row in rows] == [
        ("as taken", name, "") for name in ("nothing", "vrdir", "peer", "theirs")
    ]
    html = (here / "p.html").read_text().replace("\u00a0", " ")
    assert "gains 66.7 points (Top-1 33.3 → 100.0 %, p = 0.008)" in html
    assert html.count("<img ") == 2 * 8  # of the eight that each of two peers won, four
    assert html.count('class="mark') == 4
    for word in ("lean image", "ecovered", "ynthetic", "degraded"):
        assert word not in html.replace("no clean versions", "")
    shown = text(run("classification", *command, "--overwrite", "--recogniser", "nets:always_dark"))
    assert "photos as taken nothing 33.3 " in shown
    assert "peer 100.0 100.0 to 100.0 +66.7 0.008" in shown
    assert "recovered" not in shown
    assert "as taken,\npoints" in (here / "p.html").read_text()


def test_each_of_several_weights_is_a_column(
    photos: Path, weights: Path, tiny: VRDIR, here: Path
) -> None:
    tiny.save_pretrained(here / "runs" / "mine")
    command = (
        "--weights",
        f"before={weights}",
        "--weights",
        "runs/mine",
        "--restorer",
        "peer=nets:brighten",
        "--device",
        "cpu",
    )
    result = run("classification", *DIM, *command, "--json")
    assert result.exit_code == 0, text(result)
    content = json.loads(result.stdout)
    assert list(content["results"][0]["conditions"][0]["restored"]) == ["before", "mine", "peer"]
    assert (content["weights before"], content["weights mine"]) == (str(weights), "runs/mine")
    assert (
        content["sha256 before"] == content["sha256 mine"] == sha256(weights / "model.safetensors")
    )


def test_results_of_another_restorer_in_a_folder(photos: Path, here: Path) -> None:
    command = (*DIM, "--no-vrdir", "--restorer", "theirs=theirs", "--json")
    missing = run("classification", *command)
    assert missing.exit_code == 2
    for condition in ("clean", "dim"):
        for path in photos.rglob("*.png"):  # a restorer that finds the clean image again
            target = here / "theirs" / condition / path.relative_to(photos).with_suffix(".webp")
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.open(path).save(target, lossless=True)
    result = run("classification", *command)
    assert result.exit_code == 0, text(result)
    assert (
        json.loads(result.stdout)["results"][0]["conditions"][0]["restored"]["theirs"]["top1"][
            "value"
        ]
        == 100
    )
    Image.new("RGB", (48, 36)).save(here / "theirs" / "dim" / "astray.webp")
    result = run("classification", *command, "--recogniser", "nets:always_dark")
    assert result.exit_code == 1
    for found in json.loads(result.stdout)["results"]:
        assert [one["name"] for one in found["exclusions"]] == ["theirs/dim/astray.webp"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Missing option"),
        (("--data", "nowhere", *PEER[2:]), "nowhere is neither a folder nor a CSV file"),
        (
            (*DIM, "--weights", "small", "--weights", "x=small", "--weights", "small"),
            "--weights small: the name 'small' is already used",
        ),
        ((*PEER, "--with", "hase"), "unknown degradation 'hase'"),
        ((*PEER, "--with", "haze:severity=5..1"), "severities must begin with the lower one"),
        ((*PEER, "--with", "clean"), "the condition names 'clean'"),
        ((*PEER, "--degraded", "dim=dim"), "two conditions have the same name, 'dim'"),
        (
            (*PEER, "--degraded", "fog"),
            "--degraded must be NAME=..., such as fog=photos/foggy, not 'fog'",
        ),
        ((*PEER, "--degraded", "fog=nowhere"), "folder nowhere does not exist"),
        (
            (*PEER, "--restorer", "peer=nets:brighten"),
            "--restorer peer=...: that name is already used",
        ),
        ((*PEER, "--restorer", "nothing=nets:brighten"), "that name is already used"),
        ((*PEER, "--restorer", "other=nets:nothing"), "nets has no function 'nothing'"),
        ((*PEER, "--restorer", "other=nowhere:nothing"), "'nowhere' cannot be imported"),
        ((*DIM, "--no-vrdir"), "with --no-vrdir there is nothing to compare"),
        ((*DIM, "--weights", "huge"), "unknown weights 'huge'"),
        ((*DIM, "--device", "tpu9"), "device 'tpu9' is not available"),
        ((*PEER, "--recogniser", "nets:by_brightness"), "two recognisers have the same name"),
        ((*PEER, "--recogniser", "nowhere.onnx"), "recogniser nowhere.onnx does not exist"),
        ((*PEER, "--recogniser", "nets:brighten"), "has no class names"),
        ((*PEER, "--recogniser", "nets:of_three"), "nets:of_three returned scores of shape (1, 3)"),
        ((*PEER, "--bootstrap", "0"), "--bootstrap"),
        ((*PEER, "--limit", "0"), "--limit"),
        ((*PEER, "--seed", "-1"), "--seed"),
        ((*PEER, "--device", "cpu"), "--device has no effect with --no-vrdir; remove it"),
        ((*PEER, "--csv", "dim"), "dim is a folder; use the name of a file"),
        ((*PEER, "--report", "nets.py"), "nets.py exists; replace it with --overwrite"),
        ((*PEER, "--csv", "a", "--report", "a"), "two results would be written to a;"),
    ],
)
def test_bad_arguments_are_reported_and_nothing_is_written(
    arguments: tuple[str, ...], message: str, photos: Path, here: Path
) -> None:
    before = sorted(path for path in here.rglob("*") if "__pycache__" not in path.parts)
    result = run(
        "classification",
        *arguments,
        *(("--report", "page.html") if arguments and "--report" not in arguments else ()),
    )
    assert result.exit_code == 2
    assert message in re.sub(r"\s*[│╭╮╰╯─]+\s*", " ", text(result))
    assert sorted(path for path in here.rglob("*") if "__pycache__" not in path.parts) == before


def test_broken_recogniser_is_noticed_before_any_image_is_restored(
    photos: Path, here: Path
) -> None:
    (here / "counting.py").write_text(
        "calls = []\ndef same(image):\n    calls.append(1)\n    return image\n"
    )
    sys.modules.pop("counting", None)
    result = run(
        "classification",
        *DIM,
        "--recogniser",
        "nets:of_three",
        "--no-vrdir",
        "--restorer",
        "peer=counting:same",
    )
    assert result.exit_code == 2
    assert "nets:of_three returned scores of shape (1, 3)" in text(result)
    assert sys.modules["counting"].calls == []


def test_restorer_that_changes_the_size_is_reported(photos: Path) -> None:
    result = run("classification", *DIM, "--no-vrdir", "--restorer", "peer=nets:shrink")
    assert result.exit_code == 2
    assert "peer returned uint8 (35, 48, 3) for an image of uint8 (36, 48, 3)" in text(result)


def test_missing_package_is_reported_with_the_install_command(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    result = run("classification", *PEER)
    assert result.exit_code == 2
    assert "jinja2 is missing): pip install 'vrdir[evaluate]'" in text(result)


def test_unwritable_result_is_reported_after_the_table(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    result = run("classification", *PEER, "--csv", "/proc/vrdir/table.csv")
    assert result.exit_code == 1
    assert "/proc/vrdir/table.csv cannot be written" in text(result)
    assert "recovers 100 %" in text(result)


def test_commands_of_the_guide_run(
    photos: Path, weights: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "recognition.md").read_text()
    (module,) = re.findall(r"^```python\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    (here / "mine.py").write_text(module)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (here / "theirs").mkdir()
    (here / "theirs" / "clean").symlink_to(photos)
    (here / "theirs" / "noise").symlink_to(photos)
    lines = [
        line
        for block in re.findall(r"^```bash\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
        for line in block.replace("\\\n", "").splitlines()
    ]
    commands = [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("vrdir ")]
    assert len(commands) == 5
    for command in commands:
        own = ("--weights", str(weights), "--bootstrap", "50") if command[0] == "evaluate" else ()
        result = CliRunner().invoke(app, [*command, *own], catch_exceptions=False)
        assert result.exit_code == 0, text(result)
    assert {"proof.html", "noise.html", "noise.csv", "peers.html"} <= {
        path.name for path in here.iterdir()
    }


@pytest.mark.parametrize("task", ["classification", "detection", "reid"])
def test_help_describes_the_data(task: str) -> None:
    result = run(task, "--help")
    assert result.exit_code == 0
    words = {"classification": "folder per class", "detection": "COCO JSON", "reid": "Market-1501"}
    assert words[task] in text(result)
    assert "--restorer" in text(result)


def test_image_is_restored_once_for_all_recognisers_unless_the_disk_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []

    def restore(item: ImageFile, condition: str, image: Pixels) -> Pixels:
        calls.append(condition)
        return 255 - image

    def refuse(content: bytes, path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    item, image = ImageFile("a", Path("a.png")), np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    for room, expected in ((True, ["fog", "rain"]), (False, ["fog", "rain", "fog", "rain"])):
        calls.clear()
        if not room:
            monkeypatch.setattr(whole_files, "write_whole", refuse)
        with cached_restorers({"x": restore}, 2) as kept:
            for condition in ("fog", "rain", "fog", "rain"):
                assert np.array_equal(kept["x"](item, condition, image), 255 - image)
        assert calls == expected
