"""`vrdir degrade`: what it writes, its depth maps, its list, and what it says when it cannot."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.conftest import text
from typer.testing import CliRunner

import vrdir
from vrdir.cli.app import app
from vrdir.degradations.parameters import shown
from vrdir.degradations.registry import DEGRADATIONS, OVERLAYS


def run(*arguments: object) -> Any:
    return CliRunner().invoke(
        app, ["degrade", *(str(a) for a in arguments)], catch_exceptions=False
    )


@pytest.fixture
def folder(photo: Image.Image, tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        photo.save(tmp_path / "in" / name)
    return tmp_path / "in"


def read(path: Path) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(path))


def test_list_shows_every_degradation_parameter_and_severity() -> None:
    result = run("--list")
    assert result.exit_code == 0
    listed = text(result)
    for name, degradation in DEGRADATIONS.items():
        assert f"{name}: {degradation.summary[:20]}" in listed
        for key, parameter in degradation.parameters.items():
            assert f"{key}={shown(parameter.default)}" in listed
            if parameter.severities:
                assert f"severity 1 to 5: {', '.join(map(shown, parameter.severities))}" in listed
    assert "beta=0.4..2.6: scattering coefficient" in listed
    assert "exposure_ev=-4..-2 stops: EV" in listed
    assert "(-10 to 0)" in listed


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_every_degradation_by_name(name: str, folder: Path, tmp_path: Path) -> None:
    assert (
        run(folder / "a.png", "-o", tmp_path / "out.png", "--with", f"{name}:severity=3").exit_code
        == 0
    )
    assert not np.array_equal(read(tmp_path / "out.png"), read(folder / "a.png"))


def test_severities_and_several_steps(folder: Path, tmp_path: Path) -> None:
    source = folder / "a.png"
    for severity in (1, 5):
        assert (
            run(
                source, "-o", tmp_path / f"{severity}.png", "--with", f"noise:severity={severity}"
            ).exit_code
            == 0
        )
    damage = [
        float((read(tmp_path / f"{s}.png").astype(float) - read(source)).std()) for s in (1, 5)
    ]
    assert damage[0] == pytest.approx(8, abs=1.5)
    assert damage[1] > 4 * damage[0]
    joined, apart = tmp_path / "joined", tmp_path / "apart"
    assert (
        run(folder, "-o", joined, "--with", "haze:severity=2+noise:sigma=25", "--seed", 4).exit_code
        == 0
    )
    assert (
        run(
            folder,
            "-o",
            apart,
            "--with",
            "haze:severity=2",
            "--with",
            "noise:sigma=25",
            "--seed",
            4,
        ).exit_code
        == 0
    )
    assert np.array_equal(read(joined / "a.png"), read(apart / "a.png"))
    assert not np.array_equal(
        read(joined / "a.png"), read(joined / "b.png")
    )  # each has its own draws


def test_depth_maps_by_name_and_one_that_is_missing(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "depth").mkdir()
    depth = np.zeros((75, 97), np.float32)
    depth[40:] = 1
    np.save(tmp_path / "depth" / "b.npy", depth)
    result = run(
        folder,
        "-o",
        tmp_path / "out",
        "--with",
        "haze:beta=2,airlight=1",
        "--depth",
        tmp_path / "depth",
    )
    assert result.exit_code == 1
    assert f"{folder / 'a.png'}: no depth map a.* in {tmp_path / 'depth'}" in text(result)
    assert "1 of 2 degraded, 1 failed" in text(result)
    assert not (tmp_path / "out" / "a.png").exists()
    hazy, clean = read(tmp_path / "out" / "b.png"), read(folder / "b.png")
    assert np.array_equal(hazy[:40], clean[:40])
    assert hazy[40:].mean() > clean[40:].mean() + 50


def test_one_depth_map_for_one_file(folder: Path, tmp_path: Path) -> None:
    Image.new("L", (97, 75), 0).save(tmp_path / "near.png")
    arguments = (
        "--with",
        "haze:beta=2",
        "--with",
        "noise:sigma=0",
        "--depth",
        tmp_path / "near.png",
    )
    assert run(folder / "a.png", "-o", tmp_path / "out.png", *arguments).exit_code == 0
    assert np.array_equal(read(tmp_path / "out.png"), read(folder / "a.png"))
    result = run(folder, "-o", tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert "is one depth map, but there are 2 images; use a folder of maps with the names" in text(
        result
    )
    result = run(folder, "-o", tmp_path / "out", "--with", "rain", "--depth", tmp_path / "near.png")
    assert result.exit_code == 2
    assert "a depth has an effect on haze and night_haze only, not on rain" in text(result)
    result = run(folder, "-o", tmp_path / "out", "--with", "haze", "--depth", tmp_path / "nowhere")
    assert result.exit_code == 2
    assert "nowhere does not exist" in text(result)
    Image.new("L", (5, 5), 0).save(tmp_path / "small.png")
    result = run(
        folder / "a.png",
        "-o",
        tmp_path / "small_out.png",
        "--with",
        "haze",
        "--depth",
        tmp_path / "small.png",
    )
    assert result.exit_code == 1
    assert "small.png has the shape (5, 5); it must have the image's size, (75, 97)" in text(result)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("fog", "unknown degradation 'fog'"),
        ("snow:severity=9", "snow:severity must be a whole number from 1 to 5, not '9'"),
        ("haze:sigma=3", "haze accepts beta="),
        (
            "rain+jpeg:quality=best",
            "jpeg:quality must be a number, or a range such as 0.5..1.5, not 'best'",
        ),
    ],
)
def test_error_names_wrong_step(step: str, message: str, folder: Path, tmp_path: Path) -> None:
    result = run(folder, "-o", tmp_path / "out", "--with", step)
    assert result.exit_code == 2
    assert message in text(result)
    assert not (tmp_path / "out").exists()


def test_command_and_the_function_agree(folder: Path, tmp_path: Path) -> None:
    import zlib

    assert (
        run(
            folder / "a.png", "-o", tmp_path / "out.png", "--with", "rain:severity=2", "--seed", 9
        ).exit_code
        == 0
    )
    expected = vrdir.degrade(
        Image.open(folder / "a.png"), "rain:severity=2", seed=zlib.crc32(b"9|0|a")
    )
    assert np.array_equal(read(tmp_path / "out.png"), np.asarray(expected))


def test_photos_of_one_name_in_two_folders_have_their_own_draws_and_depth(
    folder: Path, tmp_path: Path
) -> None:
    tree, depth = tmp_path / "tree", tmp_path / "depth"
    for name in ("one", "two"):
        (tree / name).mkdir(parents=True)
        (depth / name).mkdir(parents=True)
        (tree / name / "a.png").write_bytes((folder / "a.png").read_bytes())
    assert run(tree, "-o", tmp_path / "out", "--with", "noise:sigma=25").exit_code == 0
    assert not np.array_equal(read(tmp_path / "out/one/a.png"), read(tmp_path / "out/two/a.png"))
    for name, value in (("one", 0.0), ("two", 1.0)):
        np.save(depth / name / "a.npy", np.full((75, 97), value, np.float32))
    assert (
        run(
            tree, "-o", tmp_path / "hazy", "--with", "haze:beta=2,airlight=1", "--depth", depth
        ).exit_code
        == 0
    )
    assert np.array_equal(read(tmp_path / "hazy/one/a.png"), read(folder / "a.png"))
    assert read(tmp_path / "hazy/two/a.png").mean() > read(folder / "a.png").mean() + 50
    (depth / "one" / "a.npy").rename(depth / "a.npy")
    result = run(tree, "-o", tmp_path / "no", "--with", "haze:beta=2", "--depth", depth)
    assert result.exit_code == 2
    assert (
        f"{depth / 'a.npy'} may belong to several photos; keep their folders, "
        f"as in {depth / 'one' / 'a.npy'}" in text(result)
    )


def test_list_as_json() -> None:
    listed = json.loads(run("--list", "--json").output)
    assert list(listed) == [*DEGRADATIONS, *OVERLAYS]
    assert listed["noise"]["severities"]["sigma"] == [8, 16, 28, 45, 70]
    assert listed["haze"]["defaults"]["beta"] == [0.4, 2.6]
