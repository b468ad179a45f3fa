"""The scripts in tools/ that make what the package ships, and those in benchmarks/ that build networks of their own."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from tests.conftest import TINY

from vrdir.model.vrdir import VRDIR

TOOLS = Path(__file__).parents[1] / "tools"


def run(name: str, *arguments: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(TOOLS / name), run_name="__main__")


def test_average_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, name in enumerate(("first", "second")):
        torch.manual_seed(seed)
        VRDIR(TINY).save_pretrained(tmp_path / name)
    run("average_weights.py", tmp_path / "first", tmp_path / "second", tmp_path / "out", "--share", 0.25, monkeypatch=monkeypatch)
    first, second, out = (VRDIR.from_pretrained(tmp_path / name).state_dict() for name in ("first", "second", "out"))
    for name, values in out.items():
        torch.testing.assert_close(values, 0.75 * first[name] + 0.25 * second[name])
    VRDIR(TINY.model_copy(update={"branch_blocks": 2})).save_pretrained(tmp_path / "other")
    with pytest.raises(SystemExit):
        run("average_weights.py", tmp_path / "first", tmp_path / "other", tmp_path / "no", "--share", 0.5, monkeypatch=monkeypatch)
    assert "are not of one config" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


ABLATIONS = runpy.run_path(str(TOOLS.parent / "benchmarks" / "ablations.py"))


@pytest.mark.parametrize("name", ABLATIONS["VARIANTS"])
def test_each_ablation_is_a_network_that_learns(name: str) -> None:
    variant = ABLATIONS["VARIANTS"][name]
    config = ABLATIONS["recipe_of"](variant, seed=1).model
    assert config.clean_branch
    torch.manual_seed(0)
    with variant.built():
        model = VRDIR(config)
    assert all(any(isinstance(module, part) for module in model.modules()) for _, _, part in variant.parts)
    model(torch.rand(2, 3, 40, 48)).square().mean().backward()
    parts = {part for part, _ in (key.split(".", 1) for key, value in model.named_parameters() if value.grad is not None)}
    assert {"enhancement", "decoder"} <= parts
