"""A result that is not finite is an error everywhere, never a black picture."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from vrdir.batch.results import FileJob
from vrdir.cli.app import app
from vrdir.frontend.attach import restore_before
from vrdir.frontend.transform import Restore
from vrdir.model.vrdir import VRDIR
from vrdir.restoring.restorer import Restorer
from vrdir.restoring.strips import WHOLE_PIXELS, restore_in_strips

NOT_FINITE = "NaN or infinite values"
FLOATS = np.full((24, 24, 3), 0.5, np.float32)
LARGE = np.zeros((WHOLE_PIXELS // 512 + 8, 512, 3), np.uint8)


def broken(model: VRDIR, value: float, where: str = "decoder.to_correction.weight") -> VRDIR:
    """A network in which a parameter was overwritten after it was loaded."""
    with torch.no_grad():
        model.get_parameter(where).fill_(value)
    return model


VALUES = [float("nan"), float("inf"), 3e38]  # products of the last overflow


@pytest.fixture(params=VALUES, ids=str)
def restorer(tiny: VRDIR, request: pytest.FixtureRequest) -> Restorer:
    made = Restorer(tiny, "cpu")
    broken(tiny, request.param)
    return made


@pytest.mark.parametrize(
    "use",
    [
        lambda restorer: restorer(FLOATS),
        lambda restorer: restorer(Image.new("RGB", (20, 20), "grey")),
        lambda restorer: restorer(torch.rand(2, 3, 40, 40)),
        lambda restorer: restorer(torch.rand(20, 3, 128, 128)),  # in parts
        lambda restorer: restorer(LARGE),  # in bands
        lambda restorer: list(restorer.stream([FLOATS, FLOATS])),
        lambda restorer: list(restorer.stream([FLOATS], damaged="pass")),
    ],
)
def test_finite_check_of_a_restorer(restorer: Restorer, use: Callable[[Restorer], Any]) -> None:
    with pytest.raises(ArithmeticError, match=NOT_FINITE):
        use(restorer)


def test_finite_check_of_files(restorer: Restorer, tmp_path: Path) -> None:
    Image.new("RGB", (20, 20), "grey").save(tmp_path / "a.png")
    with pytest.raises(ArithmeticError, match=NOT_FINITE):
        restorer.restore_file(tmp_path / "a.png", tmp_path / "b.png")
    (result,) = restorer.restore_files([FileJob(tmp_path / "a.png", tmp_path / "b.png")])
    assert result.error is not None
    assert "a.png" in result.error
    assert NOT_FINITE in result.error
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_finite_check_of_a_video(restorer: Restorer, tmp_path: Path) -> None:
    pytest.importorskip("av")
    from tests.clips import clip

    with pytest.raises(ArithmeticError, match=NOT_FINITE):
        restorer.restore_video(clip(tmp_path / "a.mp4", 3), tmp_path / "b.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize(
    "images",
    [
        torch.rand(2, 3, 24, 24),
        Image.new("RGB", (20, 20)),
        np.zeros((20, 20, 3), np.uint8),
        {"pixel_values": torch.rand(1, 3, 9, 9)},
    ],
)
@pytest.mark.parametrize("value", VALUES)
def test_finite_check_of_a_front_end(tiny: VRDIR, value: float, images: Any) -> None:
    recogniser = restore_before(lambda image: image, tiny)
    broken(tiny, value)
    with pytest.raises(ArithmeticError, match=NOT_FINITE):
        recogniser(images)


def test_finite_check_of_a_training_front_end(tiny: VRDIR) -> None:
    model = restore_before(nn.Identity(), tiny, train_restorer=True)
    broken(tiny, float("nan"))
    with pytest.raises(ArithmeticError, match=NOT_FINITE):
        model(torch.rand(1, 3, 24, 24))


def test_finite_check_of_a_transform(tiny: VRDIR) -> None:
    transform = Restore(tiny, "cpu")
    broken(tiny, float("nan"))
    with pytest.raises(ArithmeticError, match=NOT_FINITE):
        transform(image=FLOATS)


@pytest.mark.parametrize(
    "where", ["enhancement.stride4.modulation.guidance.weight", "extractor.stem.weight"]
)
def test_non_finite_guidance_is_not_clean(tiny: VRDIR, where: str) -> None:
    restorer = Restorer(tiny, "cpu", skip_clean=True)
    broken(tiny, float("nan"), where)
    with pytest.raises(ArithmeticError, match=NOT_FINITE):
        restorer(FLOATS)


def test_strips_hide_no_infinity(tiny: VRDIR) -> None:
    broken(tiny, float("inf"), "decoder.to_correction.bias")
    assert (
        not restore_in_strips(tiny, torch.rand(1, 3, 40, 40), strip_pixels=400)
        .image.isfinite()
        .any()
    )


def test_network_with_nan_is_rejected(tiny: VRDIR) -> None:
    broken(tiny, float("nan"))
    with pytest.raises(
        ValueError, match=r"the network has NaN or infinite values in decoder.to_correction.weight"
    ):
        Restorer(tiny, "cpu")
    with pytest.raises(ValueError, match="the network has NaN"):
        restore_before(nn.Identity(), tiny)


def test_command_names_the_error_and_writes_nothing(
    tiny: VRDIR, weights: Path, tmp_path: Path
) -> None:
    from tests.model.test_loading import change

    change(weights, float("nan"))
    Image.new("RGB", (20, 20), "grey").save(tmp_path / "a.png")
    result = CliRunner().invoke(
        app,
        [
            "restore",
            str(tmp_path / "a.png"),
            "-o",
            str(tmp_path / "b.png"),
            "--weights",
            str(weights),
        ],
    )
    assert result.exit_code == 2
    assert NOT_FINITE in result.stderr
    assert not (tmp_path / "b.png").exists()
    assert json.loads((weights / "config.json").read_text())
