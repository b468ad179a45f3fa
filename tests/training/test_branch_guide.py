"""The commands of docs/extending/branch.md, one after the other, with few steps."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

import vrdir
from vrdir.cli.app import app

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "extending" / "branch.md"
FEW = "--steps 2 --device cpu"
# The recipe `small` trains with large crops, and a recogniser.
SMALL = "--crop-px 32 --batch-size 2 --loss-weights '{recognition: 0.0}' --validation-crop-px 32"


def commands() -> list[str]:
    """Return the commands of the page, in its order."""
    text = PAGE.read_text().replace("\\\n", " ")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, photo_folder: Path) -> Path:
    """Run all commands of the page in a folder with its reader's files."""
    here = tmp_path_factory.mktemp("guide")
    (here / "photos").symlink_to(photo_folder)
    (here / "murky").mkdir()
    lines = []
    for path in sorted(photo_folder.iterdir())[:5]:
        photo = Image.open(path)
        vrdir.degrade(photo, "low_light", seed=1).save(here / "murky" / path.name)
        lines.append(f"murky/{path.name}|photos/{path.name}\n")
    (here / "underwater.txt").write_text("".join(lines[:4]))
    (here / "underwater_val.txt").write_text(lines[4])
    vrdir.degrade(photo, "snow", seed=1).save(here / "snowy.jpg")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        for line in commands():
            words = shlex.split(line)
            if words[0] == "python":
                subprocess.run([sys.executable, ROOT / words[1], *words[2:]], check=True)
                continue
            if words[1] == "train":
                few = [*shlex.split(FEW), *(shlex.split(SMALL) if "small" in words else [])]
                words = [*shlex.split(re.sub(r"--steps \d+", "", line)), *few]
            else:
                (here / "clear.jpg").unlink(missing_ok=True)
            result = CliRunner().invoke(app, words[1:], catch_exceptions=False)
            assert result.exit_code == 0, f"{line}: {result.output}{result.stderr}"
    return here


def test_the_guide_makes_a_network_with_the_new_branches(runs: Path) -> None:
    network = runs / "runs" / "fusion" / "weights" / "fusion"
    config = json.loads((network / "config.json").read_text())
    assert config["branches"] == ["noise", "snow", "murk"]
    final = load_file(network / "model.safetensors")
    decoder = load_file(runs / "runs/decoder/weights/decoder/model.safetensors")
    shared = [name for name in final if name.startswith("decoder.")]
    assert shared
    assert all(torch.equal(final[name], decoder[name]) for name in shared)
    for branch in config["branches"]:
        alone = load_file(runs / f"runs/{branch}/weights/branch-{branch}/model.safetensors")
        own = [name for name in final if f".branches.{branch}." in name]
        assert own
        assert all(torch.equal(final[name], alone[name]) for name in own)


def test_the_networks_of_the_guide_restore(runs: Path) -> None:
    photo = Image.open(runs / "snowy.jpg")
    for name in ("fusion/weights/fusion", "refine/weights/refine"):
        restored = vrdir.Restorer(runs / "runs" / name)(photo)
        assert not np.array_equal(np.asarray(restored), np.asarray(photo))
    assert Image.open(runs / "clear.jpg").size == photo.size  # by the last command


def test_the_bundled_weights_get_the_branch(runs: Path) -> None:
    old = vrdir.VRDIR.from_pretrained("small").config.branches
    new = json.loads((runs / "runs/grown/weights/refine/config.json").read_text())["branches"]
    assert new == [*old, "snow"]
