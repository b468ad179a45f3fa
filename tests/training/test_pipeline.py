"""The reference's pipeline by commands, on small data like RESIDE, BSD and Rain100L."""

import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
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
from vrdir.weights.bundled import FOLDER, sha256

ROOT = Path(__file__).parents[2]
# For the recipe `small`, whose weights are bundled.
BRIEF = (
    "--crop-px 32 --batch-size 5 --loss-weights '{recognition: 0.0}' --validation-photos 2 "
    "--validation-crop-px 32"
)


def vrdir_command(line: str) -> Any:
    result = CliRunner().invoke(app, shlex.split(line, comments=True), catch_exceptions=False)
    assert result.exit_code == 0, f"vrdir {line}: {result.output}{result.stderr}"
    return result


def documented_commands() -> list[str]:
    """The commands of docs/training.md, in order."""
    text = (ROOT / "docs" / "training.md").read_text().replace("\\\n", " ")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [
        line
        for block in blocks
        for line in block.splitlines()
        if line.startswith(("vrdir ", "python tools/grow_weights.py "))
    ]


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory, photo_folder: Path) -> Path:
    """Small data sets with the names and folders of the real ones, in odd sizes."""
    root = tmp_path_factory.mktemp("downloads")
    photos = [Image.open(path).crop((0, 0, 111, 93)) for path in photos_in(photo_folder)]
    sets = (
        "ITS/hazy",
        "ITS/clear",
        "SOTS/indoor/hazy",
        "SOTS/indoor/gt",
        "BSD400",
        "CBSD68",
        "RainTrainL",
        "Rain100L",
        "photos",
    )
    for folder in sets:
        (root / folder).mkdir(parents=True)
    for number, photo in enumerate(photos[:6], 1):
        photo.save(root / f"ITS/clear/{number}.png")
        for level, beta in enumerate((0.8, 1.6), 1):
            hazy = vrdir.degrade(photo, "haze", seed=10 * number + level, beta=beta)
            hazy.save(root / f"ITS/hazy/{number}_{level}_{0.7 + number / 100}.png")
    for number, photo in enumerate(photos[9:11], 1400):
        photo.save(root / f"SOTS/indoor/gt/{number}.png")
        vrdir.degrade(photo, "haze", seed=number, beta=1.2).save(
            root / f"SOTS/indoor/hazy/{number}_1.png"
        )
    for number, photo in enumerate(photos):
        photo.save(root / f"photos/{number}.jpg")
    for number, photo in enumerate(photos[:8]):
        photo.save(root / f"BSD400/test_{number:03}.png")
    photos[11].save(root / "CBSD68/0000.png")
    for number, photo in enumerate(photos[4:9], 1):
        photo.save(root / f"RainTrainL/norain-{number}.png")
        vrdir.degrade(photo, "rain", seed=number).save(root / f"RainTrainL/rain-{number}.png")
    (root / "hard").mkdir()  # as tools/hard_views.py leaves it
    photos[3].resize((64, 64)).save(root / "hard/view.png")
    (root / "hard/hard.txt").write_text("@clean|view.png\n@sensor_noise|view.png\n")
    photos[10].save(root / "Rain100L/norain-001.png")
    vrdir.degrade(photos[10], "rain", seed=0).save(root / "Rain100L/rain-001.png")
    return root


@pytest.fixture(scope="module")
def recipe(downloads: Path) -> Path:
    stage = {"batch_size": 4, "learning_rate": 2e-3, "warmup_steps": 2}
    content = {
        "model": TINY.model_dump(mode="json"),
        "crop_px": 32,
        "validation": {"photos": 4, "crop_px": None, "every": "100 epochs"},
        "checkpoint_every": "10 epochs",
        "log_every": 1,
        "decoder": stage | {"steps": 60, "loss_weights": {"degraded": 1.0, "ranking": 0.0}},
        "branch": stage | {"steps": "2 epochs"},
        "fusion": stage | {"steps": 6},
        "refine": stage | {"steps": 2, "loss_weights": {"recognition": 0.0}},
    }
    path = downloads / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def trained(downloads: Path, recipe: Path) -> Path:
    """Run all commands of docs/training.md, from pair lists to the table."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(downloads)
        for line in documented_commands():
            small = re.sub("--recipe (paper|base)", f"--recipe {recipe} --device cpu", line)
            small = small.replace("--recipe small", f"--recipe small --device cpu {BRIEF}")
            if small.startswith("vrdir "):
                vrdir_command(re.sub(r"steps \d+", "steps 5", small).removeprefix("vrdir "))
            else:
                subprocess.run(
                    [sys.executable, ROOT / small.split()[1], *shlex.split(small)[2:]], check=True
                )
    return downloads / "runs"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def metrics(work_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (work_dir / "metrics.jsonl").read_text().splitlines()]


def test_every_stage_begins_with_the_weights_of_earlier_stages(trained: Path) -> None:
    final = weights(trained / "fusion/weights/fusion")
    decoder = weights(trained / "decoder/weights/decoder")
    for name, tensor in final.items():
        if name.startswith(("decoder.", "extractor.")):
            assert torch.equal(tensor, decoder[name]), name
        for branch in ("haze", "noise", "rain"):
            if f".branches.{branch}." in name:
                assert torch.equal(
                    tensor, weights(trained / f"{branch}/weights/branch-{branch}")[name]
                ), name
    config = json.loads((trained / "fusion/weights/fusion/config.json").read_text())
    assert config["branches"] == ["haze", "noise", "rain"]


def test_branch_is_added_to_a_whole_network(trained: Path) -> None:
    config = json.loads((trained / "everyday/weights/refine/config.json").read_text())
    assert config["branches"] == ["haze", "noise", "sensor_noise", "rain", "low_light", "snow"]
    start = next(line for line in metrics(trained / "everyday") if "psnr_snow" in line)
    assert start["step"] == 0
    assert start["psnr_clean"] > 40  # it begins as the bundled weights
    assert {"psnr_low_light", "psnr_haze", "psnr_mixed"} <= start.keys()
    assert 90 < start["not_black_haze"] <= 100  # in %


def test_stages_learn(trained: Path) -> None:
    losses = [line["loss_pixel"] for line in metrics(trained / "decoder") if "loss_pixel" in line]
    assert len(losses) == 60
    assert sum(losses[-20:]) < 0.9 * sum(losses[:20])
    for branch in ("haze", "noise", "rain"):
        scores = [
            value
            for line in metrics(trained / branch)
            for name, value in line.items()
            if name.startswith("psnr_")
        ]
        assert len(scores) == 2
        assert scores[1] != scores[0]


def test_epochs_follow_from_the_size_of_the_data(trained: Path) -> None:
    steps = {branch: metrics(trained / branch)[-1]["steps"] for branch in ("haze", "noise", "rain")}
    assert steps == {"haze": 6, "noise": 4, "rain": 3}  # twice 12, 8 and 5 pairs by 4, rounded up


def test_run_continues_from_the_weights_of_another_run(trained: Path) -> None:
    short = trained.parent / "short"
    runs = [json.loads((short / number / "run.json").read_text()) for number in "123"]
    assert "whole" in runs[1]["priors"]
    assert runs[1]["priors"]["whole"] != runs[2]["priors"]["whole"]
    rates = [
        [
            line["learning_rate"]
            for line in metrics(short / number)
            if line["stage"] == "refine" and "learning_rate" in line
        ]
        for number in "123"
    ]
    assert rates[0][-1] == rates[1][-1] == 2e-3
    assert rates[2][-1] < 2e-3


def test_bundled_weights_are_continued_by_name_with_photos_and_a_list(trained: Path) -> None:
    run = json.loads((trained / "hard" / "run.json").read_text())
    assert run["priors"] == {"whole": sha256(FOLDER / "small" / "model.safetensors")}
    assert run["data"]["training"] == 12  # 12 photos but the two held out, and two lines
    before, after = weights(FOLDER / "small"), weights(trained / "hard/weights/refine")
    moved = [
        name for name, values in before.items() if not torch.equal(values.float(), after[name])
    ]
    assert moved
    assert not [name for name in moved if name.startswith("extractor.")]


def test_run_is_recorded(trained: Path) -> None:
    run = json.loads((trained / "fusion" / "run.json").read_text())
    assert run["stages"] == ["fusion"]
    assert run["data"]["training"] == 25
    assert set(run["priors"]) == {"decoder", "branch-haze", "branch-noise", "branch-rain"}
    assert run["sessions"][0]["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert "rain" in (trained / "fusion" / "recipe.yaml").read_text()
    assert (
        "train ITS/hazy/1_1_0.71.png" in (trained / "fusion" / "data.txt").read_text().splitlines()
    )
    assert (trained / "fusion" / "curves.png").is_file()


def test_new_degradation_adds_a_branch_and_keeps_the_others(
    trained: Path, recipe: Path, photo_folder: Path
) -> None:
    w, every = trained, f"--recipe {recipe} --device cpu --clean {photo_folder}"
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
    assert json.loads((w / "refined/weights/refine/config.json").read_text())["branches"] == [
        "haze",
        "noise",
        "rain",
        "snow",
    ]
    both = (
        w / "both"
    )  # a work directory that is through with both stages: the later one is gone on with
    for stage in ("four/weights/fusion", "refined/weights/refine"):
        shutil.copytree(w / stage, both / "weights" / Path(stage).name)
    vrdir_command(f"train refine --weights {both} {every} --work-dir {w}/again")
    prior = json.loads((w / "again/run.json").read_text())["priors"]["whole"]
    assert (
        prior
        == hashlib.sha256((both / "weights/refine/model.safetensors").read_bytes()).hexdigest()
    )


def test_custom_degradation_needs_only_pairs(trained: Path, recipe: Path) -> None:
    d, w, every = trained.parent, trained, f"--recipe {recipe} --device cpu"
    (d / "a=b.txt").write_text((d / "rain.txt").read_text())  # "=" in a name does not end the name
    lists = f"--pairs murk={d}/a=b.txt --val-pairs murk={d}/rain100l.txt"
    vrdir_command(
        f"train branch --degradation murk --decoder {w}/decoder {lists} {every} "
        f"--work-dir {w}/murk --steps 2"
    )
    branches = f"--branch haze={w}/haze --branch murk={w}/murk"
    vrdir_command(
        f"train fusion --decoder {w}/decoder {branches} {lists} {every} --work-dir {w}/with_murk"
    )
    assert vrdir.VRDIR.from_pretrained(w / "with_murk/weights/fusion").config.guidance_names == (
        "haze",
        "murk",
        "clean",
    )


def test_result_is_evaluated_on_test_lists(trained: Path) -> None:
    assert (trained.parent / "report.html").is_file()
    assert {
        line.split(",")[0] for line in (trained.parent / "table.csv").read_text().splitlines()[1:]
    } == {"sots", "cbsd68", "rain100l"}


def failing(line: str) -> str:
    result = CliRunner().invoke(app, line.split(), catch_exceptions=False)
    assert result.exit_code == 2, result.output
    return " ".join(result.stderr.split())


def test_errors_are_raised_before_training(
    trained: Path, recipe: Path, photo_folder: Path, tmp_path: Path
) -> None:
    w, every = trained, f"--clean {photo_folder} --device cpu --work-dir {tmp_path}/new"
    said = failing(f"train branch --degradation snow --decoder {w}/decoder --recipe smoke {every}")
    assert "contains a network that differs from the recipe's (widths is" in said
    said = failing(
        f"train fusion --decoder {w}/decoder --branch haze={w}/rain --recipe {recipe} {every}"
    )
    assert "contains no weights of the stage branch-haze" in said
    said = failing(
        f"train fusion --decoder {w}/decoder --branch haze={w}/rain/weights/branch-rain "
        f"--recipe {recipe} {every}"
    )
    assert "has no branch haze; it has rain" in said
    assert "--branch must be NAME=PATH" in failing(
        f"train fusion --decoder {w}/decoder --branch haze --recipe {recipe} {every}"
    )
    said = failing(
        f"train refine --weights {w}/fusion --model-branches [haze] --recipe {recipe} {every}"
    )
    assert "--model-branches is for whole runs; here the branches are haze, noise, rain" in said
    assert "nowhere contains no weights" in failing(
        f"train branch --degradation rain --decoder {tmp_path}/nowhere --recipe {recipe} {every}"
    )
    said = failing(
        f"train branch --degradation mist --decoder {w}/decoder --recipe {recipe} {every}"
    )  # unknown: needs its own pairs
    assert "no training data for the stage branch-mist" in said
    said = failing(
        f"train branch --degradation rain --decoder {w}/decoder --recipe {recipe} {every} "
        f"--extractor-weights {w}/x.pth"
    )
    assert "remove --extractor-weights: the extractor is taken from the earlier stage" in said
    assert "unknown option --step; did you mean --steps" in failing(
        f"train decoder --recipe {recipe} {every} --step 3"
    )
    assert "decoder.steps: " in failing(f"train decoder --recipe {recipe} {every} --steps many")
    assert "use --clean FOLDER or --pairs LIST" in failing(
        f"train decoder --recipe {recipe} --work-dir {tmp_path}/new"
    )
    data = f"--pairs haze={w.parent}/its.txt --val-clean {photo_folder} --work-dir {tmp_path}/new"
    said = failing(
        f"train branch --degradation rain --decoder {w}/decoder --recipe {recipe} {data}"
    )
    assert "no training data for the stage branch-rain (only haze)" in said
    said = failing(
        f"train decoder --recipe {recipe} --pairs {w.parent}/its.txt --work-dir {tmp_path}/new"
    )
    assert "no validation data:" in said
    data = (
        f"--pairs {w.parent}/rain.txt --val-pairs haze={w.parent}/its.txt --work-dir {tmp_path}/new"
    )
    said = failing(
        f"train branch --degradation rain --decoder {w}/decoder --recipe {recipe} {data}"
    )
    assert "no validation data for the stage branch-rain" in said
    assert not (tmp_path / "new").exists()


def test_resuming_with_other_weights_is_rejected(
    trained: Path, recipe: Path, photo_folder: Path, tmp_path: Path
) -> None:
    data = f"--clean {photo_folder} --work-dir {tmp_path}/rain --steps 1"
    line = f"train branch --degradation rain --decoder {tmp_path}/decoder --recipe {recipe} {data}"
    shutil.copytree(trained / "decoder/weights/decoder", tmp_path / "decoder")
    vrdir_command(line)
    vrdir_command(line + " --resume")
    shutil.rmtree(tmp_path / "decoder")
    shutil.copytree(trained / "fusion/weights/fusion", tmp_path / "decoder")
    assert "belongs to a different run: its priors are" in failing(line + " --resume")


def test_help_lists_every_setting(recipe: Path) -> None:
    text = CliRunner().invoke(app, ["train", "branch", "--help"]).output
    for flag in (
        "--steps",
        "--learning-rate",
        "--loss-weights",
        "--crop-px",
        "--ema-decay",
        "--validation-every",
        "--data-workers",
    ):
        assert flag in text
    assert "--fusion-steps" not in text
    assert "--fusion-steps" in CliRunner().invoke(app, ["train", "all", "--help"]).output
