"""The command line: results, error messages and exit statuses."""

import json
import os
import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import text
from typer.testing import CliRunner

from vrdir.cli.app import app
from vrdir.restoring.restorer import Restorer


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture
def folder(photo: Image.Image, tmp_path: Path) -> Path:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    photo.save(tmp_path / "in" / "a.png")
    photo.save(tmp_path / "in" / "sub" / "b [1].jpg")
    return tmp_path / "in"


def test_folder_is_restored(folder: Path, weights: Path, tmp_path: Path) -> None:
    result = run("restore", folder, "-o", tmp_path / "out", "--weights", weights, "--explain")
    assert result.exit_code == 0
    assert "2 of 2 restored" in text(result)
    assert re.search(r"b \[1\]\.jpg: haze \d+%, noise \d+%, rain \d+%, clean \d+%", text(result))
    assert sorted(
        p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")
    ) == ["a.png", "sub/b [1].jpg"]


def test_file_that_fails_does_not_stop_the_others(
    folder: Path, weights: Path, tmp_path: Path
) -> None:
    whole = (folder / "sub" / "b [1].jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    result = run("restore", folder, "-o", tmp_path / "out", "--weights", weights)
    assert result.exit_code == 1
    assert "cut.jpg is damaged or truncated" in text(result)
    assert "empty.png is empty" in text(result)
    assert "2 of 4 restored, 2 failed" in text(result)
    assert len([p for p in (tmp_path / "out").rglob("*") if p.is_file()]) == 2


def test_json_for_machines(folder: Path, weights: Path, tmp_path: Path) -> None:
    (folder / "empty.png").write_bytes(b"")
    result = run("restore", folder, "-o", tmp_path / "out", "--weights", weights, "--json")
    assert result.exit_code == 1
    content = json.loads(result.stdout)
    assert content["failed"] == 1
    assert [Path(f["source"]).name for f in content["files"]] == ["a.png", "empty.png", "b [1].jpg"]
    assert sum(content["files"][0]["shares"].values()) == pytest.approx(1, abs=1e-3)


def test_outputs_in_other_formats(folder: Path, weights: Path, tmp_path: Path) -> None:
    assert (
        run(
            "restore", folder, "-o", tmp_path / "out", "--weights", weights, "--format", "webp"
        ).exit_code
        == 0
    )
    assert Image.open(tmp_path / "out" / "sub" / "b [1].webp").format == "WEBP"


@pytest.mark.parametrize(
    "arguments",
    [
        ("restore", "a.png", "-o", "b.png", "--output", "c.png"),
        ("train", "decoder", "--clean", "photos", "--clean", "more", "--work-dir", "run"),
        ("pairs", "build", "--clean", "a", "--degraded", "b", "--degraded", "c", "-o", "d.txt"),
    ],
)
def test_repeated_single_path_option_raises(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "accepts one path, but is used 2 times" in text(result)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere.jpg", "-o", "out"), "nowhere.jpg does not exist"),
        (("", "-o", "out"), "an input is empty"),
        (("{in}", "-o", "out", "--weights", "huge"), "unknown weights 'huge'"),
        (("{in}", "-o", "out", "--device", "tpu9"), "device 'tpu9' is not available"),
        (("{in}", "-o", "out", "--format", "docx"), "no image format for the suffix '.docx'"),
        (("{in}", "-o", "{in}"), "the output would overwrite its input"),
        (("{in}",), "Missing option"),
        (("{in}", "-o", "out.png"), "is one file, but there are several inputs"),
    ],
)
def test_bad_arguments_are_reported_and_nothing_is_written(
    arguments: tuple[str, ...],
    message: str,
    folder: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [argument.format(**{"in": folder}) for argument in arguments]
    if "--weights" not in given:
        given += ["--weights", str(weights)]
    before = sorted(tmp_path.rglob("*"))
    result = run("restore", *given)
    assert result.exit_code == 2
    assert message in text(result)
    assert sorted(tmp_path.rglob("*")) == before


def test_error_names_damaged_weights(folder: Path, weights: Path, tmp_path: Path) -> None:
    (weights / "model.safetensors").write_bytes(b"hello")
    result = run("restore", folder, "-o", tmp_path / "out", "--weights", weights)
    assert result.exit_code == 2
    assert "model.safetensors is damaged" in text(result)
    assert not (tmp_path / "out").exists()


def test_error_names_unwritable_folder(folder: Path, weights: Path, tmp_path: Path) -> None:
    locked = Path("/proc/vrdir")  # where even root may not
    if os.geteuid() != 0:
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o500)
    result = run("restore", folder, "-o", locked, "--weights", weights)
    assert result.exit_code == 1
    assert f"{locked / 'a.png'} cannot be written" in text(result)
    assert "0 of 2 restored, 2 failed" in text(result)


def test_error_names_unreadable_input(
    folder: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() == 0:  # root may read everything, so the system's answer is put in its place
        opening = os.open

        def refuse(path: Path, *arguments: Any) -> int:
            if Path(path).name == "a.png":
                raise PermissionError(13, "Permission denied")
            return opening(path, *arguments)

        monkeypatch.setattr(os, "open", refuse)
    else:
        (folder / "a.png").chmod(0)
    result = run("restore", folder, "-o", tmp_path / "out", "--weights", weights)
    assert result.exit_code == 1
    assert "a.png cannot be read (Permission denied)" in text(result)
    assert "1 of 2 restored, 1 failed" in text(result)
    if os.geteuid() == 0:
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    else:
        folder.chmod(0)
    result = run("restore", folder, "-o", tmp_path / "out2", "--weights", weights)
    folder.chmod(0o700)
    assert result.exit_code == 2
    assert f"{folder} cannot be read; check its permissions" in text(result)


def test_degrade(folder: Path, tmp_path: Path) -> None:
    command = (
        "degrade",
        folder,
        "--with",
        "haze:beta=1.2,airlight=0.8..0.9",
        "--with",
        "noise:sigma=25",
        "--seed",
        3,
    )
    assert run(*command, "-o", tmp_path / "one").exit_code == 0
    assert run(*command, "-o", tmp_path / "two").exit_code == 0
    first, second = (np.asarray(Image.open(tmp_path / name / "a.png")) for name in ("one", "two"))
    assert np.array_equal(first, second)
    assert first.mean() > np.asarray(Image.open(folder / "a.png")).mean()
    # A file's pixels do not depend on which others there are.
    assert (
        run("degrade", folder / "a.png", *command[2:], "-o", tmp_path / "three.png").exit_code == 0
    )
    assert np.array_equal(np.asarray(Image.open(tmp_path / "three.png")), first)


def test_unreadable_subfolder_is_reported_and_the_rest_is_processed(
    folder: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() == 0:  # root may read everything, so the system's answer is put in its place
        scandir = os.scandir

        def refuse(path: str) -> object:
            if str(path) == str(folder / "sub"):
                raise PermissionError(13, "Permission denied", str(path))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refuse)
        monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(folder / "sub"))
    else:
        (folder / "sub").chmod(0)
    result = run("restore", folder, "-o", tmp_path / "out", "--weights", weights)
    (folder / "sub").chmod(0o700)
    assert result.exit_code == 1
    assert f"{folder / 'sub'} is a folder that cannot be read; check its permissions" in text(
        result
    )
    assert "1 of 2 restored, 1 failed" in text(result)


def test_error_names_cmyk_photo(folder: Path, weights: Path, tmp_path: Path) -> None:
    Image.new("CMYK", (20, 20)).save(folder / "print.jpg")
    result = run("restore", folder, "-o", tmp_path / "out", "--weights", weights)
    assert result.exit_code == 1
    assert (
        f"{folder / 'print.jpg'}: it is a CMYK picture, made for print; convert it to RGB first"
        in text(result)
    )


def test_degrade_lists_the_degradations() -> None:
    result = run("degrade", "--list")
    assert result.exit_code == 0
    for line in ("beta=0.4..2.6: ", "coverage=", "sigma=2..55"):
        assert line in text(result)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("fog", "unknown degradation 'fog'"),
        ("haze:sigma=3", "haze accepts beta="),
        ("noise:sigma=loud", "noise:sigma must be a number"),
        ("noise:sigma=1..2..3", "noise:sigma must be a number"),
        ("rain:layers=2..3", "rain:layers must be one whole number"),
        ("haze:colour_cast=0.01..0.02", "haze:colour_cast must be one number"),
    ],
)
def test_error_names_wrong_degradation(
    step: str, message: str, folder: Path, tmp_path: Path
) -> None:
    result = run("degrade", folder, "-o", tmp_path / "out", "--with", step)
    assert result.exit_code == 2
    assert message in text(result)
    assert not (tmp_path / "out").exists()


def test_unwritable_output_is_found_before_anything_is_restored(
    folder: Path, weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        result = run("restore", folder, "-o", output, "--weights", weights)
        assert result.exit_code == 2
        assert (
            f"{output} cannot be written: {tmp_path / 'file'} is not a folder; "
            "choose another output" in text(result)
        )
    # A folder's name may contain a dot; a misspelt file name is reported first.
    assert (
        run(
            "restore", folder / "a.png", "-o", tmp_path / "results-1.0", "--weights", weights
        ).exit_code
        == 0
    )
    assert (tmp_path / "results-1.0" / "a.png").is_file()
    result = run("restore", folder / "fogy.png", "-o", tmp_path / "clear.png", "--weights", weights)
    assert result.exit_code == 2
    assert f"{folder / 'fogy.png'} does not exist" in text(result)


def test_error_names_wrong_range(folder: Path, tmp_path: Path) -> None:
    for step, message in (
        ("noise:sigma=30..20", "from low to high"),
        ("noise:sigma=300", "must be between 0 and"),
    ):
        result = run("degrade", folder, "-o", tmp_path / "out", "--with", step)
        assert result.exit_code == 2  # known before any file is read
        assert message in text(result)
        assert "a.png" not in text(result)
    assert not (tmp_path / "out").exists()


def test_smoke_recipe_trains_weights_that_restore(
    photo_folder: Path, folder: Path, tmp_path: Path
) -> None:
    """Train every stage by the command, restore with the result, and check that it helped."""
    work = tmp_path / "run"
    command = (
        "train",
        "all",
        "--recipe",
        "smoke",
        "--clean",
        photo_folder,
        "--work-dir",
        work,
        "--device",
        "cpu",
    )
    result = run(*command)
    assert result.exit_code == 0, text(result)
    final = work / "weights" / "refine"
    assert str(final) in text(result)
    lines = [json.loads(line) for line in (work / "metrics.jsonl").read_text().splitlines()]
    for kind in ("haze", "noise", "rain", "mixed"):
        psnr = [line[f"psnr_{kind}"] for line in lines if f"psnr_{kind}" in line]
        assert psnr[-1] > psnr[0] + 0.1, kind
    assert run("restore", folder, "-o", tmp_path / "out", "--weights", final).exit_code == 0
    assert len(list((tmp_path / "out").rglob("*.*"))) == 2
    again = run(*command)
    assert again.exit_code == 2
    assert "already contains a run" in text(again)
    before = (final / "model.safetensors").read_bytes()
    resumed = run(*command, "--resume")
    assert resumed.exit_code == 0
    assert (final / "model.safetensors").read_bytes() == before
    other = run(*command, "--resume", "--seed", "1")
    assert other.exit_code == 2
    assert "is a different recipe (different settings: seed)" in text(other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--recipe", "nowhere.yaml"), "recipe nowhere.yaml does not exist"),
        (("--refine-steps", "none"), "refine.steps"),
        (("--steps", "3"), "unknown option --steps; did you mean --"),
        (("--refine-steps", "["), "--refine-steps: '[' is not a YAML value"),
        (("--crop-px", "100"), "crop_px must be a multiple of 8"),
        (("--extractor-weights", "nowhere.pth"), "the extractor weights do not exist: nowhere.pth"),
        (("--clean", "nowhere"), "the folder of clean photos does not exist: nowhere"),
    ],
)
def test_training_reports_errors_before_it_starts(
    options: tuple[str, ...], message: str, photo_folder: Path, tmp_path: Path
) -> None:
    given = {"--recipe": "smoke", "--clean": str(photo_folder), "--work-dir": str(tmp_path / "run")}
    given[options[0]] = options[1]
    result = run("train", "all", *[part for pair in given.items() for part in pair])
    assert result.exit_code == 2
    assert message in text(result)
    assert not (tmp_path / "run").exists()


def test_weights_commands() -> None:
    listed = run("weights", "list")
    assert listed.exit_code == 0
    assert "small" in text(listed)
    facts = json.loads(run("weights", "show", "small").stdout)
    assert facts["licence"]
    assert run("weights", "verify").exit_code == 0
    wrong = run("weights", "show", "huge")
    assert wrong.exit_code == 2
    assert "unknown bundled weights 'huge'; choose one of small" in text(wrong)


def test_info_and_version() -> None:
    facts = json.loads(run("info", "--json").stdout)
    assert {"vrdir", "python", "torch", "devices", "threads"} <= facts.keys()
    assert "torch" in text(run("info"))
    assert re.fullmatch(r"vrdir \d+\.\d+\.\d+(\.dev\d+)?", text(run("--version")))


def test_every_command_has_help() -> None:
    for command in (
        (),
        ("restore",),
        ("degrade",),
        ("train", "all"),
        ("weights", "list"),
        ("weights", "show"),
        ("weights", "verify"),
        ("info",),
    ):
        result = run(*command, "--help")
        assert result.exit_code == 0
        assert "Usage" in text(result)


def test_large_picture_causes_no_pillow_warning(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Pillow warns above this number, and refuses above twice the number.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 75 * 97 - 1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert (
            run(
                "degrade", folder / "a.png", "-o", tmp_path / "out.png", "--with", "noise"
            ).exit_code
            == 0
        )
    assert not [one for one in caught if issubclass(one.category, Image.DecompressionBombWarning)]


def test_stopped_export_leaves_no_file(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(
        "vrdir.export.exporting._write_onnx", lambda *_, **__: signal.raise_signal(signal.SIGTERM)
    )
    result = run("export", "onnx", "-o", tmp_path / "out" / "net.onnx", "--weights", weights)
    assert result.exit_code == 143
    assert list((tmp_path / "out").iterdir()) == []


def test_every_type_that_pillow_reads_is_read_and_the_others_are_counted(
    folder: Path, weights: Path, tmp_path: Path, photo: Image.Image
) -> None:
    formats = {
        "a.jfif": "JPEG",
        "b.jpe": "JPEG",
        "c.JPG_large": "JPEG",
        "d.tga": "TGA",
        "e.dib": "DIB",
        "f.j2k": "JPEG2000",
        "g.pnm": "PPM",
        "h.apng": "PNG",
        "i.jp2": "JPEG2000",
    }
    for name, file_format in formats.items():
        photo.save(
            folder / name, file_format, **({"no_jp2": True} if name.endswith(".j2k") else {})
        )
    photo.convert("1").save(folder / "k.pbm")
    photo.save(folder / "l.im")
    photo.save(folder / "m.sgi")
    for name in ("n.pdf", "o.PDF", "p.dng", "q.jxl", "sub/r.pdf", "README"):
        (folder / name).write_bytes(b"%PDF")
    for command in (("restore", "--weights", weights), ("degrade", "--with", "noise")):
        out = tmp_path / command[0]
        result = run(command[0], folder, "-o", out, *command[1:], "--json")
        assert result.exit_code == 0, text(result)
        content = json.loads(result.stdout)
        assert content["skipped"] == {".pdf": 3, ".dng": 1, ".jxl": 1, "without a suffix": 1}
        assert len(content["files"]) == 14
        for name, file_format in formats.items():
            with Image.open(out / name) as written:
                assert written.format == file_format
        # A codestream without boxes, as the input.
        assert (out / "f.j2k").read_bytes().startswith(b"\xff\x4f\xff\x51")
        assert not (out / "i.jp2").read_bytes().startswith(b"\xff\x4f")
        for name in ("l.im.png", "m.sgi.png"):
            with Image.open(out / name) as written:
                assert (written.format, written.size) == ("PNG", photo.size)
        output = text(run(command[0], folder, "-o", out, *command[1:], "--overwrite"))
        assert (
            "skipped: 6 files of other types (3 .pdf, 1 .dng, 1 .jxl, 1 without a suffix); "
            "develop a camera's RAW files first" in output
        )
    result = run("restore", folder / "p.dng", "-o", tmp_path / "raw.png", "--weights", weights)
    assert (result.exit_code, "develop it first" in text(result)) == (1, True)


def test_error_lists_other_file_types_of_a_folder(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.nef").touch()
    result = run("restore", tmp_path / "in", "-o", tmp_path / "out", "--weights", weights)
    assert result.exit_code == 2
    assert (
        "but 1 file of other types (1 .nef); develop a camera's RAW files first "
        "(rawpy, darktable); looked for" in text(result)
    )


def test_threads_wait_without_spinning(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.setenv(name, "")  # put back at the end, whatever was set
        monkeypatch.delenv(name)
    code = "import os, sys, vrdir.cli.app as cli; "
    code += "cli.app(['weights', 'list'], standalone_mode=False); "
    code += "sys.exit(os.environ['OMP_WAIT_POLICY'] != 'PASSIVE' or 'torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode
        == 0
    )
    run("info")
    assert (os.environ["OMP_WAIT_POLICY"], os.environ["KMP_BLOCKTIME"]) == ("PASSIVE", "0")
    assert os.environ["GOMP_SPINCOUNT"] == "10000"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.delenv("KMP_BLOCKTIME")
    run("info")
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    assert "KMP_BLOCKTIME" not in os.environ


def test_threads_can_be_limited(
    weights: Path, photo: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    photo.save(tmp_path / "photo.png")
    before = torch.get_num_threads()
    seen = []
    restore = Restorer.restore_files
    monkeypatch.setattr(
        Restorer,
        "restore_files",
        lambda *args: seen.append(torch.get_num_threads()) or restore(*args),
    )
    try:
        result = run(
            "restore",
            tmp_path / "photo.png",
            "-o",
            tmp_path / "out",
            "--weights",
            weights,
            "--threads",
            3,
        )
        assert result.exit_code == 0, text(result)
        assert seen == [3]
        assert os.environ["OMP_NUM_THREADS"] == "3"
    finally:
        torch.set_num_threads(before)
    for command in (
        ["restore"],
        ["degrade"],
        ["evaluate", "restoration"],
        ["evaluate", "reid"],
        ["train", "refine"],
    ):
        assert "--threads" in text(run(*command, "--help"))
    assert run("degrade", tmp_path, "-o", tmp_path / "out", "--threads", 0).exit_code == 2
