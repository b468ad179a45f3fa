"""How readily the global context takes photos of a place for photos in fog."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import vrdir
from vrdir.adaptation.readiness import CLEAN_SHARE, STEPS, Readiness, make_ready
from vrdir.model.vrdir import VRDIR


@pytest.fixture
def field() -> VRDIR:
    """Return `field` with a context that is less ready than the bundled one."""
    network = VRDIR.from_pretrained("field")
    assert network.context is not None
    with torch.no_grad():
        network.context.to_strength.bias -= 0.15
    return network


@pytest.fixture(scope="module")
def foggy(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("foggy")
    paths = []
    for number, path in enumerate(sorted(photos.iterdir())[::4]):
        with Image.open(path) as photo:
            haze = vrdir.degrade(photo.convert("RGB"), "haze:beta=2,depth=regions", number)
        paths.append(folder / path.name)
        haze.save(paths[-1])
    return paths


def test_context_becomes_ready_for_fog_and_leaves_clean_photos(
    field: VRDIR, photos: Path, foggy: list[Path]
) -> None:
    clean = sorted(photos.iterdir())[::4]
    assert field.context is not None
    before = field.context.to_strength.bias.clone()
    ready = make_ready(field, foggy, clean)
    assert ready is not None
    assert ready.added in STEPS
    assert ready.added > 0
    assert ready.place[1] > ready.place[0]
    assert ready.clean[1] <= ready.clean[0] + max(CLEAN_SHARE, 1 / len(clean))
    torch.testing.assert_close(field.context.to_strength.bias, before + ready.added)


def test_clean_photos_set_the_limit(field: VRDIR, foggy: list[Path]) -> None:
    # Photos of the place that are also the clean photos: at most one more may change.
    ready = make_ready(field, foggy, foggy)
    assert ready is not None
    assert ready.clean[1] <= ready.clean[0] + 1 / len(foggy) + 1e-9


def test_adaptation_to_a_foggy_place_reports_the_readiness(
    classifier: nn.Module, photos: Path, foggy: list[Path], tmp_path: Path
) -> None:
    notes: list[str] = []
    result = vrdir.adapt(
        classifier, photos, tmp_path / "out", weights="field", degraded=foggy[0].parent,
        degradations="haze", steps=1, held_out=6, view_px=64, write_anyway=True,
        note=notes.append,
    )  # fmt: skip
    assert result.weights is not None
    (ready,) = (note for note in notes if "global context changes" in note)
    record = json.loads((tmp_path / "out" / "adaptation.json").read_text())
    assert str(Readiness(**record["readiness"])) in ready
    assert "photos changed by the global context" in result.report.read_text()


def test_readiness_is_measured_on_the_network_that_is_written(
    classifier: nn.Module, photos: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("vrdir.adaptation.job.SHARES", (0.25,))
    result = vrdir.adapt(
        classifier, photos, tmp_path / "out", weights="field", degraded=photos,
        degradations="haze", steps=1, held_out=6, view_px=64, write_anyway=True,
    )  # fmt: skip
    assert result.weights is not None
    assert result.share == 0.25
    content = json.loads((result.weights / "adaptation.json").read_text())
    added = Readiness(**content["readiness"]).added
    assert added > 0
    written, field = (
        VRDIR.from_pretrained(name).state_dict()["context.to_strength.bias"]
        for name in (result.weights, "field")
    )
    torch.testing.assert_close(written - field, torch.full_like(field, added), atol=3e-3, rtol=0)


def test_weights_without_context_stay_as_they_are(photos: Path) -> None:
    network = VRDIR.from_pretrained("small")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert make_ready(network, sorted(photos.iterdir())[:3], sorted(photos.iterdir())[:3]) is None
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_readiness_in_words() -> None:
    assert str(Readiness(0.12, (0.25, 0.525), (0.0, 0.01))) == (
        "the global context changes 25 -> 52 % of these photos, 0 -> 1 % of clean photos"
    )
