"""The global context: resampling, lifting the veil, and what stays unchanged."""

import pytest
import torch
from torch.nn import functional

from vrdir.model.global_context import (
    LEVELS,
    GlobalContext,
    Veil,
    lift,
    lift_whole,
    reduced,
    resampled,
    resampling,
)
from vrdir.model.vrdir import VRDIR, ContextConfig, VRDIRConfig

CONFIG = VRDIRConfig(
    extractor="efficientnet_lite0",
    strides=(4,),
    branches=("haze", "noise"),
    clean_branch=True,
    decoder="pixel_skip",
    widths=(8, 8),
    encoder_blocks=(1, 0),
    decoder_blocks=(1, 1),
    channel_attention=True,
    context=ContextConfig(side=64, strides=(4, 8), channels=8),
)


@pytest.fixture
def model() -> VRDIR:
    """A network with random weights that does something."""
    torch.manual_seed(0)
    network = VRDIR(CONFIG).eval().requires_grad_(False)
    context, decoder = network.context, network.decoder
    assert isinstance(context, GlobalContext)
    torch.nn.init.normal_(context.to_gain.weight, 0, 0.3)
    torch.nn.init.constant_(context.to_gain.bias, 0.0)
    torch.nn.init.normal_(decoder.to_correction.weight, 0, 0.05)
    return network


def flat_veil(batch: int, airlight: float, exposure: float, log_gain: float) -> Veil:
    return Veil(
        torch.full((batch, 3), airlight),
        torch.full((batch, 1), exposure),
        torch.full((batch, LEVELS, 4, 4), log_gain),
    )


@pytest.mark.parametrize(("before", "after"), [(100, 24), (7, 7), (24, 101), (5, 64), (1, 9)])
def test_matrices_resample_as_torch_does(before: int, after: int) -> None:
    image = torch.rand(1, 2, before, before + 3)
    matrices = resampling(before, after), resampling(before + 3, after + 1)
    wanted = functional.interpolate(image, size=(after, after + 1), mode="bilinear", antialias=True)
    assert torch.allclose(resampled(image, *matrices), wanted, atol=1e-5)


def test_a_physical_veil_is_taken_away() -> None:
    scene = 0.2 + 0.4 * torch.rand(2, 3, 32, 48)
    transmission, airlight, light = 0.4, 0.9, 0.7
    hazy = light * (scene * transmission + airlight * (1 - transmission))
    veil = flat_veil(2, airlight, 1 / light, -torch.log(torch.tensor(transmission)).item())
    assert torch.allclose(lift_whole(hazy, veil), scene, atol=1e-5)


def test_nothing_is_driven_into_black() -> None:
    """A dark pixel is near: it cannot be behind the veil that lies over the others."""
    image = torch.tensor([0.0, 0.01, 0.1, 0.5]).view(1, 1, 2, 2).repeat(1, 3, 1, 1)
    lifted = lift_whole(image, flat_veil(1, 0.8, 1.0, 3.0))
    assert (lifted >= -1e-6).all()
    assert lifted[0, 0, 0, 0] == 0


def test_no_veil_leaves_each_bit() -> None:
    image = torch.rand(1, 3, 33, 47)
    assert torch.equal(lift_whole(image, flat_veil(1, 0.7, 1.0, 0.0)), image)


def test_a_window_is_lifted_as_in_the_whole(model: VRDIR) -> None:
    view = torch.rand(2, 3, 96, 96)
    veil = model.find_veil(view)
    assert veil is not None
    assert veil.log_gain.max() > 0.05
    place = torch.tensor([[0, 40, 96], [13, 7, 96]])
    windows = torch.stack(
        [v[:, t : t + 32, x : x + 32] for v, (t, x, _) in zip(view, place.tolist(), strict=True)]
    )
    lifted, _ = model.lifted_windows(windows, reduced(view, 64), place)
    whole = lift_whole(view, veil)
    for window, image, (top, left, _) in zip(lifted, whole, place.tolist(), strict=True):
        assert torch.allclose(window, image[:, top : top + 32, left : left + 32], atol=1e-5)


def test_the_veil_does_not_depend_on_the_size_in_pixels(model: VRDIR) -> None:
    small = functional.interpolate(torch.rand(1, 3, 12, 16), size=(96, 128), mode="bicubic")
    large = functional.interpolate(small, scale_factor=4, mode="bilinear")
    veils = [model.find_veil(image.clamp(0, 1)) for image in (small, large)]
    assert veils[0] is not None
    assert veils[1] is not None
    assert (veils[0].log_gain - veils[1].log_gain).abs().mean() < 0.05 * veils[0].log_gain.mean()


def test_training_reaches_every_part_of_the_head() -> None:
    model = VRDIR(CONFIG)
    assert model.context is not None
    scene = torch.rand(2, 3, 64, 64)
    hazy = 0.5 * scene + 0.4
    optimizer = torch.optim.Adam(model.context.parameters(), 3e-3)
    errors = []
    for _ in range(40):
        veil = model.find_veil(hazy)
        assert veil is not None
        error = (lift_whole(hazy, veil) - scene).abs().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    missing = [n for n, p in model.context.named_parameters() if p.grad is None]
    assert missing == []
    assert errors[-1] < 0.6 * errors[0]


def test_an_untrained_head_changes_next_to_nothing() -> None:
    image = torch.rand(1, 3, 50, 70)
    with torch.no_grad():
        assert torch.equal(VRDIR(CONFIG)(image), image)


def test_bands_give_what_the_whole_gives(model: VRDIR) -> None:
    from vrdir.restoring.strips import restore_in_strips

    image = torch.rand(1, 3, 83, 61)
    whole = model(image)
    assert (whole - image).abs().max() > 0.05
    banded = restore_in_strips(model, image, strip_pixels=1024, precision=torch.float32).image
    assert torch.allclose(banded, whole, atol=2e-5)


def test_the_exported_graph_gives_what_the_network_gives(model: VRDIR) -> None:
    from vrdir.export.graph import ExportableVRDIR

    image = torch.rand(2, 3, 45, 70)
    assert torch.allclose(ExportableVRDIR(model)(image)[0], model(image), atol=2e-4)


def test_lift_reads_the_level_of_brightness() -> None:
    veil = flat_veil(1, 1.0, 1.0, 0.0)
    veil.log_gain[:, LEVELS - 1] = 1.0  # at the airlight's brightness alone
    image = torch.full((1, 3, 2, 2), 1 - 1 / (LEVELS - 1))  # one level below it
    rows = columns = resampling(4, 2)
    assert torch.equal(lift(image, veil, rows, columns), image)
    between = torch.full((1, 3, 2, 2), 1 - 0.5 / (LEVELS - 1))
    wanted = 1 - 0.1 * torch.exp(torch.tensor(0.5))
    assert torch.allclose(lift(between, veil, rows, columns), wanted, atol=1e-5)
