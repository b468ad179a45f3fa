"""The reference's whole pipeline, by its commands, on a small data set laid out like RESIDE + BSD + Rain100L, and a fourth branch."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from tests.conftest import TINY
from typer.testing import CliRunner

import vrdir
from vrdir.cli.app import app
from vrdir.data.image_cache import photos_in


def vrdir_command(line: str) -> Any:
    result = CliRunner().invoke(app, line.split(), catch_exceptions=False)
    assert result.exit_code == 0, f"vrdir {line}: {result.output}{result.stderr}"
    return result


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory, photo_folder: Path) -> Path:
    """Small data sets, named and laid out as the real ones are."""
    root = tmp_path_factory.mktemp("downloads")
    photos = [Image.open(path) for path in photos_in(photo_folder)]
    for folder in (
        "ITS/hazy",
        "ITS/clear",
        "SOTS/indoor/hazy",
        "SOTS/indoor/gt",
        "BSD400",
        "CBSD68",
        "Rain100L/rain/X2",
        "Rain100L/norain",
    ):
        (root / folder).mkdir(parents=True)
    for number, photo in enumerate(photos[:6], 1):
        photo.save(root / f"ITS/clear/{number}.png")
        for level, beta in enumerate((0.8, 1.6), 1):
            hazy = vrdir.degrade(photo, "haze", seed=10 * number + level, beta=beta)
            hazy.save(root / f"ITS/hazy/{number}_{level}_{0.7 + number / 100}.png")
    for number, photo in enumerate(photos[9:11], 1400):
        photo.save(root / f"SOTS/indoor/gt/{number}.png")
        vrdir.degrade(photo, "haze", seed=number, beta=1.2).save(root / f"SOTS/indoor/hazy/{number}_1.png")
    for number, photo in enumerate(photos[:8]):
        photo.save(root / f"BSD400/test_{number:03}.png")
    photos[11].save(root / "CBSD68/0000.png")
    for number, photo in enumerate(photos[4:9], 1):
        photo.save(root / f"Rain100L/norain/norain-{number:03}.png")
        vrdir.degrade(photo, "rain", seed=number).save(root / f"Rain100L/rain/X2/norain-{number:03}x2.png")
    return root


@pytest.fixture(scope="module")
def recipe(downloads: Path) -> Path:
    stage = {"batch_size": 4, "learning_rate": 2e-3, "warmup_steps": 2}
    content = {
        "model": TINY.model_dump(mode="json"),
        "crop_px": 32,
        "validation": {"photos": 4, "crop_px": None, "every": "100 epochs"},
        "checkpoint_every": "10 epochs",
        "decoder": stage | {"steps": 40, "loss_weights": {"degraded": 1.0, "ranking": 0.0}},
        "branch": stage | {"steps": "2 epochs"},
        "fusion": stage | {"steps": 6},
        "refine": stage | {"steps": 2, "loss_weights": {"recognition": 0.0}},
    }
    path = downloads / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def trained(downloads: Path, recipe: Path) -> Path:
    """Pair lists, decoder, three branches, fusion: the commands of the reference's scripts."""
    d, w = downloads, downloads / "runs"
    vrdir_command(f"pairs build --clean {d}/ITS/clear --degraded {d}/ITS/hazy --rule reside -o {d}/its.txt")
    vrdir_command(f"pairs build --clean {d}/SOTS/indoor/gt --degraded {d}/SOTS/indoor/hazy --rule reside -o {d}/sots.txt")
    vrdir_command(f"pairs build --clean {d}/BSD400 --with noise:sigma=15..50 -o {d}/bsd.txt")
    vrdir_command(f"pairs build --clean {d}/CBSD68 --with noise:sigma=25 -o {d}/cbsd68.txt")
    vrdir_command(f"pairs build --clean {d}/Rain100L/norain --degraded {d}/Rain100L/rain --rule rain100 -o {d}/rain.txt")
    vrdir_command(f"pairs check {d}/its.txt {d}/sots.txt {d}/bsd.txt {d}/cbsd68.txt {d}/rain.txt")
    every = f"--recipe {recipe} --device cpu"
    three = f"--pairs haze={d}/its.txt --pairs noise={d}/bsd.txt --pairs rain={d}/rain.txt"
    three += f" --val-pairs haze={d}/sots.txt --val-pairs noise={d}/cbsd68.txt"
    vrdir_command(f"train decoder {three} --work-dir {w}/decoder {every}")
    own = {"haze": ("its", "sots"), "noise": ("bsd", "cbsd68"), "rain": ("rain", "rain")}
    for name, (pairs, val_pairs) in own.items():
        lists = f"--pairs {d}/{pairs}.txt --val-pairs {d}/{val_pairs}.txt"
        vrdir_command(f"train branch --degradation {name} --decoder {w}/decoder {lists} --work-dir {w}/{name} {every}")
    branches = " ".join(f"--branch {name}={w}/{name}" for name in own)
    vrdir_command(f"train fusion --decoder {w}/decoder {branches} {three} --work-dir {w}/fusion {every}")
    return w


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def metrics(work_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (work_dir / "metrics.jsonl").read_text().splitlines()]


def test_every_stage_takes_up_what_those_before_it_learnt(trained: Path) -> None:
    final = weights(trained / "fusion/weights/fusion")
    decoder = weights(trained / "decoder/weights/decoder")
    for name, tensor in final.items():
        if name.startswith(("decoder.", "extractor.")):
            assert torch.equal(tensor, decoder[name]), name
        for branch in ("haze", "noise", "rain"):
            if f".branches.{branch}." in name:
                assert torch.equal(tensor, weights(trained / f"{branch}/weights/branch-{branch}")[name]), name
    config = json.loads((trained / "fusion/weights/fusion/config.json").read_text())
    assert config["branches"] == ["haze", "noise", "rain"]


def test_the_stages_learn(trained: Path) -> None:
    lines = [line for line in metrics(trained / "decoder") if "loss_pixel" in line]
    assert lines[-1]["loss_pixel"] < 0.2
    for branch in ("haze", "noise", "rain"):
        scores = [
            line[f"psnr_{kind}"] for line in metrics(trained / branch) for kind in ("sots", "cbsd68", "rain") if f"psnr_{kind}" in line
        ]
        assert len(scores) == 2
        assert scores[1] != scores[0]


def test_epochs_are_those_of_the_data(trained: Path) -> None:
    steps = {branch: metrics(trained / branch)[-1]["steps"] for branch in ("haze", "noise", "rain")}
    assert steps == {"haze": 6, "noise": 4, "rain": 3}  # twice 12, 8 and 5 pairs by 4, rounded up


def test_what_was_run_is_on_record(trained: Path) -> None:
    run = json.loads((trained / "fusion" / "run.json").read_text())
    assert run["stages"] == ["fusion"]
    assert run["data"]["training"] == 25
    assert set(run["priors"]) == {"decoder", "branch-haze", "branch-noise", "branch-rain"}
    assert run["sessions"][0]["packages"]["torch"] == torch.__version__
    assert "rain" in (trained / "fusion" / "recipe.yaml").read_text()
    assert f"train {trained.parent}/ITS/hazy/1_1_0.71.png" in (trained / "fusion" / "data.txt").read_text().splitlines()
    assert (trained / "fusion" / "curves.png").is_file()


def test_a_new_degradation_is_a_new_branch_and_leaves_the_others_alone(trained: Path, recipe: Path, photo_folder: Path) -> None:
    w, every = trained, f"--recipe {recipe} --device cpu --clean {photo_folder}"
    vrdir_command(f"train branch --degradation snow --decoder {w}/decoder {every} --work-dir {w}/snow --steps 3")
    branches = " ".join(f"--branch {name}={w}/{name}" for name in ("haze", "noise", "rain", "snow"))
    vrdir_command(f"train fusion --decoder {w}/decoder {branches} {every} --work-dir {w}/four")
    three, four = (weights(w / name / "weights/fusion") for name in ("fusion", "four"))
    old = [name for name in three if ".modulation." not in name]
    assert len(old) > 40
    for name in old:
        assert torch.equal(four[name], three[name]), name
    assert any(".branches.snow." in name for name in four)
    model = vrdir.VRDIR.from_pretrained(w / "four/weights/fusion")
    assert model.config.guidance_names == ("haze", "noise", "rain", "snow", "clean")
    assert "psnr_snow" in metrics(w / "four")[-1]
    vrdir_command(f"train refine --weights {w}/four {every} --work-dir {w}/refined")
    assert json.loads((w / "refined/weights/refine/config.json").read_text())["branches"] == ["haze", "noise", "rain", "snow"]


def test_the_result_is_evaluated_on_a_test_list(trained: Path) -> None:
    result = vrdir_command(f"evaluate restoration --weights {trained}/fusion/weights/fusion --pairs {trained.parent}/sots.txt --json")
    assert "sots" in result.stdout


def failing(line: str) -> str:
    result = CliRunner().invoke(app, line.split(), catch_exceptions=False)
    assert result.exit_code == 2, result.output
    return " ".join(result.stderr.split())


def test_what_does_not_fit_is_said_before_training(trained: Path, recipe: Path, photo_folder: Path, tmp_path: Path) -> None:
    w, every = trained, f"--clean {photo_folder} --device cpu --work-dir {tmp_path}/new"
    said = failing(f"train branch --degradation snow --decoder {w}/decoder --recipe smoke {every}")
    assert "holds another network than the recipe's (widths is" in said
    said = failing(f"train fusion --decoder {w}/decoder --branch haze={w}/rain --recipe {recipe} {every}")
    assert "holds no weights of the stage branch-haze" in said
    said = failing(f"train fusion --decoder {w}/decoder --branch haze={w}/rain/weights/branch-rain --recipe {recipe} {every}")
    assert "has no branch haze; it has rain" in said
    assert "--branch takes NAME=PATH" in failing(f"train fusion --decoder {w}/decoder --branch haze --recipe {recipe} {every}")
    assert "nowhere holds no weights" in failing(f"train branch --degradation rain --decoder {tmp_path}/nowhere --recipe {recipe} {every}")
    said = failing(f"train branch --degradation mist --decoder {w}/decoder --recipe {recipe} {every}")  # unknown: needs pairs of its own
    assert "nothing to train the stage branch-mist on" in said
    assert "no option --step; did you mean --steps" in failing(f"train decoder --recipe {recipe} {every} --step 3")
    assert "decoder.steps: " in failing(f"train decoder --recipe {recipe} {every} --steps many")
    assert "give --clean FOLDER or --pairs LIST" in failing(f"train decoder --recipe {recipe} --work-dir {tmp_path}/new")
    data = f"--pairs haze={w.parent}/its.txt --val-clean {photo_folder} --work-dir {tmp_path}/new"
    said = failing(f"train branch --degradation rain --decoder {w}/decoder --recipe {recipe} {data}")
    assert "nothing to train the stage branch-rain on (there is haze)" in said
    said = failing(f"train decoder --recipe {recipe} --pairs {w.parent}/its.txt --work-dir {tmp_path}/new")
    assert "there is nothing to validate on" in said
    data = f"--pairs {w.parent}/rain.txt --val-pairs haze={w.parent}/its.txt --work-dir {tmp_path}/new"
    said = failing(f"train branch --degradation rain --decoder {w}/decoder --recipe {recipe} {data}")
    assert "nothing to validate the stage branch-rain on" in said
    assert not (tmp_path / "new").exists()


def test_resuming_with_other_weights_is_refused(trained: Path, recipe: Path, photo_folder: Path, tmp_path: Path) -> None:
    data = f"--clean {photo_folder} --work-dir {tmp_path}/rain --steps 1"
    line = f"train branch --degradation rain --decoder {tmp_path}/decoder --recipe {recipe} {data}"
    shutil.copytree(trained / "decoder/weights/decoder", tmp_path / "decoder")
    vrdir_command(line)
    vrdir_command(line + " --resume")
    shutil.rmtree(tmp_path / "decoder")
    shutil.copytree(trained / "fusion/weights/fusion", tmp_path / "decoder")
    assert "is another run: its priors are" in failing(line + " --resume")


def test_the_help_lists_every_setting(recipe: Path) -> None:
    text = CliRunner().invoke(app, ["train", "branch", "--help"]).output
    for flag in ("--steps", "--learning-rate", "--loss-weights", "--crop-px", "--ema-decay", "--validation-every", "--data-workers"):
        assert flag in text
    assert "--fusion-steps" not in text
    assert "--fusion-steps" in CliRunner().invoke(app, ["train", "all", "--help"]).output
