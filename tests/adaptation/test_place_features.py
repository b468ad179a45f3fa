"""Features of the recogniser on photos of the place."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.adaptation.conftest import TinyClassifier
from torch import Tensor, nn

import vrdir
from vrdir.adaptation.place_features import Moments, PlaceFeatures
from vrdir.adaptation.recogniser import InputFormat, Recogniser, load_recogniser
from vrdir.data.image_cache import decode, photos_in
from vrdir.errors import DataError
from vrdir.images.contact_sheet import to_pil

DEVICE = torch.device("cpu")


@pytest.fixture
def recogniser() -> Recogniser:
    return load_recogniser(TinyClassifier(), None, InputFormat(32, mean=0, std=1), (), DEVICE)


@pytest.fixture
def veiled(photos: Path, tmp_path: Path) -> Path:
    """Return a folder of the photos under a grey veil."""
    folder = tmp_path / "veiled"
    folder.mkdir()
    for path in photos_in(photos):
        to_pil(0.3 * tensor(path)[0] + 0.5).save(folder / path.name)
    return folder


def tensor(path: Path) -> Tensor:
    return decode(path)[None].float() / 255


def compared(folder: Path, photos: Path, recogniser: Recogniser) -> PlaceFeatures:
    return PlaceFeatures(photos_in(folder), photos_in(photos), 32, recogniser, same, DEVICE)


def same(image: Tensor) -> Tensor:
    return image


def unveiled(image: Tensor) -> Tensor:
    return (image - 0.5) / 0.3


def test_moments_are_those_of_all_positions() -> None:
    features = torch.rand(3, 4, 5, 6)
    moments = Moments.of([features])
    torch.testing.assert_close(moments.mean[0], features.mean((0, 2, 3)))
    deviation = features.var((0, 2, 3), correction=0).sqrt()
    torch.testing.assert_close(moments.deviation[0], deviation, atol=1e-6, rtol=1e-5)
    assert float(moments.distance(moments)) == 0


def test_restoring_the_veiled_photos_reduces_the_distance(
    veiled: Path, photos: Path, recogniser: Recogniser
) -> None:
    place = compared(veiled, photos, recogniser)
    assert len(place.held_out) == 7
    assert len(place.photos) == 13
    assert place.distance(unveiled) < 0.3 * place.distance(same)
    assert float(place.loss(unveiled, ["a"])) < 0.5 * float(place.loss(same, ["a"]))


def test_choice_of_views_does_not_matter_where_nothing_changed(
    veiled: Path, photos: Path, recogniser: Recogniser
) -> None:
    place = compared(veiled, photos, recogniser)
    losses = [float(place.loss(same, [name])) for name in "abcdef"]
    assert losses == pytest.approx([losses[0]] * 6, rel=1e-4)
    again = [float(place.loss(unveiled, [name])) for name in "aab"]
    assert again[0] == again[1]
    assert again[0] != again[2]


def test_gradients_reach_the_restorer(veiled: Path, photos: Path, recogniser: Recogniser) -> None:
    place = compared(veiled, photos, recogniser)
    share = nn.Parameter(torch.tensor(0.5))
    place.loss(lambda image: torch.lerp(image, unveiled(image), share), ["a"]).backward()
    assert share.grad is not None
    assert float(share.grad) < 0  # less of the veil brings the features nearer


def test_two_photos_are_too_few(veiled: Path, photos: Path, recogniser: Recogniser) -> None:
    with pytest.raises(DataError, match="contains 2 photos of the place; at least 3"):
        PlaceFeatures(photos_in(veiled)[:2], photos_in(photos), 32, recogniser, same, DEVICE)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_record_contains_the_features_of_the_place(
    weight: float, veiled: Path, photos: Path, tmp_path: Path, weights: Path
) -> None:
    given: dict[str, Any] = {"steps": 2, "view_px": 32, "held_out": 6, "trained": "all"}
    result = vrdir.adapt(
        TinyClassifier(),
        photos,
        tmp_path / "mine",
        weights=weights,
        degraded=veiled,
        place=weight,
        input_format=InputFormat(32),
        device="cpu",
        **given,
    )
    record = json.loads((tmp_path / "mine" / "adaptation.json").read_text())
    assert ("place_distance" in record) is bool(weight)
    assert ("photos of the place" in result.report.read_text()) is bool(weight)


class Mean(nn.Module):
    """A recogniser without layers."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def test_recogniser_without_layers_takes_only_the_weather(
    veiled: Path, photos: Path, tmp_path: Path, weights: Path
) -> None:
    notes: list[str] = []
    vrdir.adapt(
        Mean(),
        photos,
        tmp_path / "mine",
        weights=weights,
        degraded=veiled,
        task="reid",
        input_format=InputFormat(32, mean=0, std=1),
        device="cpu",
        note=notes.append,
        **{"steps": 2, "view_px": 32, "held_out": 6, "trained": "all"},
    )
    assert "the recogniser has no layers to compare on photos of the place" in notes
    assert "place_distance" not in json.loads((tmp_path / "mine/adaptation.json").read_text())


def test_constant_channels_do_not_count() -> None:
    features = torch.rand(2, 3, 4, 4)
    features[:, 1] = 0
    wanted = Moments.of([features, torch.zeros(2, 5, 4, 4)])
    assert wanted.comparable
    assert float(Moments.of([features + 0.1, torch.ones(2, 5, 4, 4)]).distance(wanted)) < 1
    assert not Moments.of([torch.zeros(2, 5, 4, 4)]).comparable
    assert not Moments.of([]).comparable
