"""Statistics of the whole image: measured, recorded, supplied, smoothed."""

import pytest
import torch
from torch import Tensor, nn

from vrdir.model.blocks import ResidualBlock
from vrdir.model.degradation_normalization import DegradationNormalization
from vrdir.model.fourier_modulation import FourierGuidedModulation
from vrdir.model.global_statistics import (
    GlobalStatistics,
    Moments,
    SmoothedLevels,
    SuppliedStatistics,
    own_moments,
)
from vrdir.model.vrdir import VRDIR


def randomised(module: nn.Module) -> nn.Module:
    """Return the module with random weights; new blocks are the identity."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def restored(model: VRDIR, image: Tensor, statistics: object = None) -> Tensor:
    with torch.no_grad():
        return model.restore(image, statistics=statistics).image  # type: ignore[arg-type]


class Recorder(GlobalStatistics):
    """Records the moments and returns them unchanged."""

    def __init__(self) -> None:
        self.recorded: dict[nn.Module, Moments] = {}

    def moments(self, module: nn.Module, found: Moments) -> Moments:
        assert self.recorded.setdefault(module, found) is found  # each module asks once
        return found


def test_recording_changes_nothing(tiny: VRDIR, photo_batch: Tensor) -> None:
    plain = restored(tiny, photo_batch)
    recorder = Recorder()
    assert torch.equal(restored(tiny, photo_batch, recorder), plain)
    # With the recorded moments, the result is the same; and every module has asked.
    assert torch.equal(restored(tiny, photo_batch, SuppliedStatistics(recorder.recorded)), plain)
    attending = {m for m in tiny.modules() if isinstance(m, ResidualBlock) and m.attend is not None}
    assert (
        set(recorder.recorded)
        == {m for m in tiny.modules() if isinstance(m, DegradationNormalization)} | attending
    )
    assert len(attending) > 4


def test_without_smoothing_frames_are_independent(tiny: VRDIR, photo_batch: Tensor) -> None:
    smoothed = SmoothedLevels(0)
    for image in (photo_batch[:1], photo_batch[1:], photo_batch[:1] * 0.5):
        smoothed.next_frame()
        assert torch.equal(restored(tiny, image, smoothed), restored(tiny, image))


def test_strips_with_the_moments_of_the_whole_give_the_whole() -> None:
    whole = torch.randn(1, 6, 8, 20) * torch.linspace(0.5, 3, 20)
    parts = [whole[..., :6], whole[..., 6:]]
    module = randomised(DegradationNormalization(6, 1))
    with torch.no_grad():
        expected = module(whole)
        supply = SuppliedStatistics({module: own_moments(whole)})
        found = torch.cat([module(part, supply) for part in parts], 3)
        alone = torch.cat([module(part) for part in parts], 3)
    # Columns away from the seam, where convolutions see other neighbours
    away = [i for i in range(20) if abs(i - 5.5) > 2]
    torch.testing.assert_close(found[..., away], expected[..., away])
    assert not torch.allclose(alone[..., away], expected[..., away], atol=1e-3)


def test_moments_of_other_modules_stay() -> None:
    module, found = nn.Identity(), Moments(torch.ones(1, 2, 1, 1))
    assert SuppliedStatistics({}).moments(module, found) is found


class Raised(GlobalStatistics):
    """Raises every level by one in the first channel."""

    levels = True

    def level(self, module: nn.Module, found: Tensor) -> Tensor:
        first = torch.zeros_like(found)
        first[:, 0] = 1
        return found + first


def test_level_of_the_guidance() -> None:
    module = randomised(FourierGuidedModulation(4, 3))
    features = torch.randn(1, 4, 9, 11)
    with torch.no_grad():
        plain, guided = module(features), module(features, Raised())
    torch.testing.assert_close(guided.sum(1), torch.ones(1, 9, 11))
    assert (guided[:, 0] > plain[:, 0]).all()
    torch.testing.assert_close(guided[:, 1] / guided[:, 2], plain[:, 1] / plain[:, 2])


def test_level_of_the_correction(tiny: VRDIR, photo_batch: Tensor) -> None:
    image = photo_batch[:1, :, :72, :96]
    with torch.no_grad():
        features = tiny.extractor(image)
        plain, raised = (
            tiny.decoder(features, image),
            tiny.decoder(features, image, image, Raised()),
        )
    # The first channel of the correction is the gain of red.
    torch.testing.assert_close(raised, plain + image * torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1))


def test_smoothing_averages_first_and_decays_then() -> None:
    module, smoothed = nn.Identity(), SmoothedLevels(0.75)
    values = [1.0, 3.0, 2.0, 10.0, 0.0]
    found, expected = [], [1.0, 2.0, 2.0, 4.0, 3.0]  # means of 1, 2, 3, 4; then 0.75 of the past
    for value in values:
        smoothed.next_frame()
        level = smoothed.level(module, torch.full((1, 1, 1, 1), value))
        assert smoothed.level(module, torch.full((1, 1, 1, 1), 7.0)) is level  # once a frame
        found.append(level.item())
    assert found == pytest.approx(expected)
    smoothed.reset()
    smoothed.next_frame()
    assert smoothed.level(module, torch.full((1, 1, 1, 1), 9.0)).item() == 9


def test_smoothing_out_of_range_raises() -> None:
    for share in (1, -0.1, float("nan")):
        with pytest.raises(ValueError, match="at least 0 and below 1"):
            SmoothedLevels(share)


def test_statistics_do_not_prevent_export(tiny: VRDIR, photo_batch: Tensor) -> None:
    program = torch.export.export(tiny, (photo_batch[..., :64, :96],))
    torch.testing.assert_close(
        program.module()(photo_batch[..., :64, :96]), restored(tiny, photo_batch[..., :64, :96])
    )
