"""Whole adaptations of a tiny network to a tiny recogniser."""

import json
import os
import re
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import vrdir
from vrdir.adaptation.job import between
from vrdir.adaptation.photos import Photos
from vrdir.adaptation.recogniser import load_recogniser
from vrdir.adaptation.settings import AdaptationSettings
from vrdir.adaptation.stage import AdaptStage, parameters_of
from vrdir.cli.app import app
from vrdir.errors import (
    DataError,
    ExistsError,
    InputError,
    MissingFileError,
    SettingsError,
)
from vrdir.model.config import PAPER
from vrdir.model.vrdir import VRDIR
from vrdir.training.trainer import Interrupted

FAST: dict[str, Any] = {
    "steps": 24,
    "view_px": 32,
    "batch_size": 4,
    "held_out": 9,
    "trained": "all",
    "learning_rate": 5e-3,
}
SIZE = vrdir.adaptation.InputFormat(32)


def adapted(recogniser: Any, photos: Path, output: Path, weights: Path, **other: Any) -> Any:
    given = {"weights": weights, "input_format": SIZE, "device": "cpu", **FAST, **other}
    return vrdir.adapt(recogniser, photos, output, **given)


def test_harmful_network_is_adapted_and_loads(
    embedder: nn.Module, photos: Path, tmp_path: Path, weights: Path
) -> None:
    output = tmp_path / "mine"
    result = adapted(embedder, photos, output, weights)
    assert result.proof.paid, result.proof.verdict()
    assert result.weights == output
    assert result.share == 1
    before, after = (VRDIR.from_pretrained(folder) for folder in (weights, output))
    same = before.state_dict()
    for name, tensor in after.state_dict().items():
        if name.startswith("extractor."):
            assert torch.allclose(tensor, same[name], rtol=1e-3, atol=1e-3)  # stored as float16
    assert not torch.allclose(
        after.decoder.to_correction.weight, before.decoder.to_correction.weight
    )
    vrdir.Restorer(output, "cpu")(torch.rand(1, 3, 20, 20))
    card, page = (output / name for name in ("README.md", "report.html"))
    assert "Adapted to TinyEmbedder" in card.read_text()
    assert result.proof.verdict() in card.read_text()
    assert "Adaptation helps" in page.read_text()
    # The second line of a cell: the table would be too wide for the page with both on one.
    assert re.search(r"<td>\d+\.\d\d<small>-(>|&gt;) \d+\.\d\d</small></td>", page.read_text())
    record = json.loads((output / "adaptation.json").read_text())
    assert record["steps"] == 24
    assert record["photos"] == {"training": 11, "held_out": 9}
    with pytest.raises(ExistsError, match="already contains weights"):
        adapted(embedder, photos, output, weights)


def test_adaptation_without_gain_writes_no_weights(
    classifier: nn.Module, photos: Path, tmp_path: Path, weights: Path
) -> None:
    given = {"steps": 1, "learning_rate": 1e-9}
    result = adapted(classifier, photos, tmp_path / "none", weights, **given)
    assert result.weights is None
    assert not (tmp_path / "none" / "model.safetensors").exists()
    assert "no significant gain" in result.proof.verdict()
    assert "no significant gain" in result.report.read_text()
    again = adapted(classifier, photos, tmp_path / "one", weights, **given, write_anyway=True)
    assert again.weights == tmp_path / "one"
    assert "no significant gain" in (tmp_path / "one" / "README.md").read_text()


class StopAt:
    """Sends SIGINT to this process after a step."""

    def __init__(self, step: int) -> None:
        self.at = step

    def step(self, stage: str, step: int, steps: int, batch_size: int) -> None:
        if step == self.at:
            os.kill(os.getpid(), signal.SIGINT)

    def metrics(self, line: Any) -> None:
        pass


def test_stopped_and_continued_adaptation_gives_the_same_result(
    classifier: nn.Module, photos: Path, tmp_path: Path, weights: Path
) -> None:
    assert threading.current_thread() is threading.main_thread()
    whole = adapted(classifier, photos, tmp_path / "whole", weights, steps=6, write_anyway=True)
    given = {"steps": 6, "write_anyway": True}
    with pytest.raises(Interrupted, match="SIGINT"):
        adapted(classifier, photos, tmp_path / "two", weights, **given, watcher=StopAt(4))
    with pytest.raises(ExistsError, match="continue it with --resume"):
        adapted(classifier, photos, tmp_path / "two", weights, **given)
    with pytest.raises(SettingsError, match="its settings differ"):
        adapted(classifier, photos, tmp_path / "two", weights, **given, resume=True, seed=1)
    with torch.no_grad():
        changed = type(classifier)()
        next(changed.parameters()).add_(1)
    with pytest.raises(SettingsError, match="its recogniser differ"):
        adapted(changed, photos, tmp_path / "two", weights, **given, resume=True)
    two = adapted(classifier, photos, tmp_path / "two", weights, **given, resume=True)
    first, second = (VRDIR.from_pretrained(one.weights).state_dict() for one in (whole, two))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_impossible_runs_fail_before_writing(
    classifier: nn.Module, photos: Path, tmp_path: Path, weights: Path
) -> None:
    output = tmp_path / "mine"
    with pytest.raises(InputError, match="do not restore snow; they restore haze, noise, rain"):
        adapted(classifier, photos, output, weights, degradations="haze+snow")
    with pytest.raises(SettingsError, match="steps"):
        adapted(classifier, photos, output, weights, steps=0)
    with pytest.raises(SettingsError, match="speed"):
        adapted(classifier, photos, output, weights, speed=3)
    with pytest.raises(MissingFileError, match="contains no adaptation to continue"):
        adapted(classifier, photos, output, weights, resume=True)
    with pytest.raises(MissingFileError, match="folder of clean photos does not exist"):
        adapted(classifier, tmp_path / "no", output, weights)
    with pytest.raises(MissingFileError, match="folder of photos of the place does not exist"):
        adapted(classifier, photos, output, weights, degraded=tmp_path / "no")
    with pytest.raises(MissingFileError, match="unknown weights 'smal'.*did you mean small"):
        adapted(classifier, photos, output, Path("smal"))
    few = tmp_path / "few"
    few.mkdir()
    (few / "one.png").write_bytes((photos / "coffee_0.png").read_bytes())
    with pytest.raises(DataError, match="contains 1 photos; adaptation needs at least 16"):
        adapted(classifier, few, output, weights)
    assert not output.exists()


def test_photos_of_the_place_set_the_synthesis(
    classifier: nn.Module, photos: Path, tmp_path: Path
) -> None:
    noisy = tmp_path / "noisy"
    vrdir_degrade = CliRunner().invoke(
        app, ["degrade", str(photos), "-o", str(noisy), "--with", "noise:sigma=20"]
    )
    assert vrdir_degrade.exit_code == 0, vrdir_degrade.output
    told: list[str] = []
    given = {"steps": 1, "held_out": 6, "note": told.append, "degradations": "noise"}
    adapted(classifier, photos, tmp_path / "mine", Path("small"), degraded=noisy, **given)
    record = json.loads((tmp_path / "mine" / "adaptation.json").read_text())
    low, high = record["place"]["noise"]["sigma"]
    assert 12 < low <= 20 <= high < 28
    assert any("noise sigma" in sentence for sentence in told)


def test_command_adapts_and_writes_results(
    photos: Path, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "command_of_test.py").write_text(
        "import torch\nclass Net(torch.nn.Module):\n"
        "    def forward(self, x):\n        return x.mean((2, 3))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    arguments = ["adapt", "--recogniser", "command_of_test:Net", "--clean", str(photos)]
    arguments += ["-o", str(tmp_path / "mine"), "--weights", str(weights), "--steps", "20"]
    arguments += ["--size", "32", "--view-px", "32", "--held-out", "6", "--json", "--task", "reid"]
    arguments += ["--trained", "all", "--mean", "0", "--std", "1", "--device", "cpu"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code in (0, 1), result.output
    found = json.loads(result.stdout)
    assert found["steps"] == 20
    assert found["paid"] is (result.exit_code == 0)
    assert (found["weights"] is None) is not found["paid"]
    assert {"haze", "noise", "rain", "mixed", "clean", "together"} == set(found["figures"])


def test_minutes_become_steps(
    classifier: nn.Module, photos: Path, tmp_path: Path, weights: Path
) -> None:
    result = adapted(classifier, photos, tmp_path / "m", weights, steps=None, minutes=0.001)
    assert result.steps == 10  # the least


@pytest.mark.parametrize("part", ["decoder", "last", "channels", "all"])
def test_only_the_chosen_part_changes(
    part: Any, tiny: VRDIR, classifier: nn.Module, photos: Path
) -> None:
    settings = AdaptationSettings.of(**{**FAST, "trained": part})
    recipe = settings.recipe(tiny.config, (32, 32), 1, {})
    found = load_recogniser(classifier, input_format=SIZE)
    stage = AdaptStage(recipe, found, settings, tiny)
    chosen = stage.trained(tiny)
    assert 0 < len(chosen) < len(list(tiny.parameters()))
    assert not {id(p) for p in tiny.extractor.parameters()} & set(map(id, chosen))


def test_papers_decoder_has_no_parts() -> None:
    with pytest.raises(InputError, match="no part 'last'; use all"):
        parameters_of(VRDIR(PAPER), "last")


def test_requested_degradations_are_shown_most(tiny: VRDIR) -> None:
    settings = AdaptationSettings.of(degradations="haze:beta=1..2")
    shares = settings.shares(tiny.config, {})
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["haze"] == max(shares.values())
    assert set(shares) == {"clean", "haze", "noise", "rain", "mixed"}
    recipe = settings.recipe(tiny.config, (224, 224), 100, {"haze": {"warmth": (0.1, 0.2)}})
    assert recipe.ranges["haze"]["beta"] == (1, 2)
    assert recipe.ranges["haze"]["warmth"] == (0.1, 0.2)
    assert recipe.crop_px == 224


def test_photos_are_divided_without_overlap(photos: Path) -> None:
    divided = Photos.of_folder(photos, 9)
    chosen, proving = divided.divided()
    parts = [{item.clean for item in part} for part in (divided.training, chosen, proving)]
    assert [len(part) for part in parts] == [11, 3, 6]
    assert len(set.union(*parts)) == 20


def test_interpolation_keeps_a_share_of_the_change(tiny: VRDIR) -> None:
    other = VRDIR(tiny.config)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.fill_(1)
    mixed = between(tiny, other, 0.25)
    expected = 0.75 * tiny.decoder.stem.bias + 0.25
    assert torch.allclose(mixed.decoder.stem.bias, expected)
    assert between(tiny, other, 1) is other


def test_python_lines_of_the_page_run(
    embedder: nn.Module,
    photos: Path,
    tmp_path: Path,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = Path(__file__).parents[2] / "docs" / "adapt.md"
    (code,) = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(photos)
    # Minutes would be minutes: the same call, on a tiny network and for a moment.
    code = code.replace("minutes=20", f"steps=12, weights={str(weights)!r}, **fast")
    fast = {key: value for key, value in FAST.items() if key != "steps"}
    given: dict[str, Any] = {"model": embedder, "fast": {**fast, "input_format": SIZE}}
    exec(compile(code, str(page), "exec"), given)
    assert given["result"].proof.weather == ["haze", "rain"]
    assert ("restorer" in given) is (given["result"].weights is not None)
