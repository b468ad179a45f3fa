"""The global context: resampling, lifting the veil, and what stays unchanged."""

import pytest
import torch
from torch.nn import functional

from vrdir.model.config import ContextConfig, VRDIRConfig
from vrdir.model.global_context import (
    LEVELS,
    STEEPEST,
    TONES,
    GlobalContext,
    LocalTone,
    Veil,
    equalised,
    lift,
    lift_whole,
    reduced,
    resampled,
    resampling,
)
from vrdir.model.vrdir import VRDIR

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


def test_physical_veil_is_removed() -> None:
    scene = 0.2 + 0.4 * torch.rand(2, 3, 32, 48)
    transmission, airlight, light = 0.4, 0.9, 0.7
    hazy = light * (scene * transmission + airlight * (1 - transmission))
    veil = flat_veil(2, airlight, 1 / light, -torch.log(torch.tensor(transmission)).item())
    assert torch.allclose(lift_whole(hazy, veil), scene, atol=1e-5)


def test_removing_haze_does_not_clip_to_black() -> None:
    """A dark pixel is near: it cannot be behind the veil that covers the others."""
    image = torch.tensor([0.0, 0.01, 0.1, 0.5]).view(1, 1, 2, 2).repeat(1, 3, 1, 1)
    lifted = lift_whole(image, flat_veil(1, 0.8, 1.0, 3.0))
    assert (lifted >= -1e-6).all()
    assert lifted[0, 0, 0, 0] == 0


def test_zero_veil_keeps_every_bit() -> None:
    image = torch.rand(1, 3, 33, 47)
    assert torch.equal(lift_whole(image, flat_veil(1, 0.7, 1.0, 0.0)), image)


def test_lifted_window_matches_the_whole_image(model: VRDIR) -> None:
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


def test_veil_does_not_depend_on_the_size_in_pixels(model: VRDIR) -> None:
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


def test_untrained_head_changes_almost_nothing() -> None:
    image = torch.rand(1, 3, 50, 70)
    with torch.no_grad():
        assert torch.equal(VRDIR(CONFIG)(image), image)


def test_bands_match_the_whole_image(model: VRDIR) -> None:
    from vrdir.restoring.strips import restore_in_strips

    image = torch.rand(1, 3, 83, 61)
    whole = model(image)
    assert (whole - image).abs().max() > 0.05
    in_strips = restore_in_strips(model, image, strip_pixels=1024, precision=torch.float32).image
    assert torch.allclose(in_strips, whole, atol=2e-5)


def test_exported_graph_matches_the_network(model: VRDIR) -> None:
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


TONE = CONFIG.model_copy(update={"context": ContextConfig(side=64, channels=8, tone=True)})


@pytest.fixture
def toned() -> VRDIR:
    """A network that follows the tone curves, fully at some places and half at others."""
    torch.manual_seed(0)
    network = VRDIR(TONE).eval().requires_grad_(False)
    assert network.context is not None
    torch.nn.init.normal_(network.context.to_strength.weight, 0, 0.2)
    torch.nn.init.constant_(network.context.to_strength.bias, 0.8)
    torch.nn.init.normal_(network.decoder.to_correction.weight, 0, 0.05)
    return network


def foggy() -> torch.Tensor:
    """A dim scene of little contrast, dark below and pale above, (1, 3, 96, 120)."""
    generator = torch.Generator().manual_seed(3)
    things = functional.interpolate(torch.rand(1, 3, 12, 15, generator=generator), size=(96, 120))
    ramp = torch.linspace(1, 0, 96).view(1, 1, -1, 1)
    return 0.1 + 0.35 * ramp + 0.06 * things


def test_untrained_tone_keeps_every_bit() -> None:
    image = foggy()
    with torch.no_grad():
        assert torch.equal(VRDIR(TONE)(image), image)


def test_local_contrast_is_raised_and_dark_things_are_not_blackened(toned: VRDIR) -> None:
    image = foggy()
    found = toned.find_veil(image)
    assert isinstance(found, LocalTone)
    lifted = lift_whole(image, found)
    parts = [functional.unfold(x, 16, stride=16).std(1).mean() for x in (image, lifted)]
    assert parts[1] > 1.5 * parts[0]
    assert (lifted < 0.02).float().mean() < 0.03


def test_tone_curve_is_increasing_with_limited_slope() -> None:
    brightness = 0.5 + 0.02 * torch.randn(2, 1, 64, 64)  # nearly all at one level
    steps = equalised(brightness.clamp(0, 1)).diff(dim=1) * (TONES - 1)
    assert (steps > 0).all()
    assert steps.max() < 1.05 * STEEPEST + 1


@pytest.mark.parametrize("level", [0.0, 0.4, 1.0])
def test_picture_without_degradation_is_unchanged(toned: VRDIR, level: float) -> None:
    image = torch.full((1, 3, 40, 50), level)
    found = toned.find_veil(image)
    assert found is not None
    lifted = lift_whole(image, found)
    assert torch.isfinite(lifted).all()
    assert lifted.std() < 0.1
    assert level in (0.4, lifted.mean().round(decimals=1))  # black stays black, and white white


def test_toned_window_matches_the_whole_image(toned: VRDIR) -> None:
    view = functional.interpolate(foggy(), size=(96, 96))
    found = toned.find_veil(view)
    assert found is not None
    place = torch.tensor([[32, 48, 96]])
    window, _ = toned.lifted_windows(view[..., 32:64, 48:80], reduced(view, 64), place)
    assert torch.allclose(window, lift_whole(view, found)[..., 32:64, 48:80], atol=1e-5)


def test_strips_and_exports_tone_as_the_network_does(toned: VRDIR) -> None:
    from vrdir.export.graph import ExportableVRDIR
    from vrdir.restoring.strips import restore_in_strips

    image, whole = foggy(), toned(foggy())
    assert (whole - image).abs().mean() > 0.03
    in_strips = restore_in_strips(toned, image, strip_pixels=2048, precision=torch.float32).image
    assert torch.allclose(in_strips, whole, atol=2e-5)
    assert torch.allclose(ExportableVRDIR(toned)(image)[0], whole, atol=2e-4)


def test_strength_weakens_the_tone(toned: VRDIR) -> None:
    image = foggy()
    found = toned.find_veil(image)
    assert isinstance(found, LocalTone)
    whole, half = (lift_whole(image, found.times(s)) - image for s in (1.0, 0.5))
    assert torch.allclose(half, 0.5 * whole, atol=1e-6)
    assert found.times(0.5).amount() == pytest.approx(0.5 * found.amount().item())


def test_training_reaches_every_part_of_the_toning_head() -> None:
    torch.manual_seed(0)
    model = VRDIR(TONE)
    assert model.context is not None
    image = foggy()
    wanted = image + 0.15
    optimizer = torch.optim.Adam(model.context.parameters(), 3e-3)
    errors = []
    for _ in range(40):
        found = model.find_veil(image)
        assert found is not None
        error = (lift_whole(image, found) - wanted).abs().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    missing = [n for n, p in model.context.named_parameters() if p.grad is None]
    assert all(name.startswith("to_haze") for name in missing)  # it changes no pixel
    assert errors[-1] < 0.9 * errors[0]


def test_pictures_with_borders_of_one_colour_are_toned_inside(toned: VRDIR) -> None:
    from vrdir.restoring.restorer import Restorer

    framed = functional.pad(foggy(), (0, 0, 8, 8))
    image = (framed[0].permute(1, 2, 0) * 255).round().byte().numpy()
    restorer = Restorer(toned, device="cpu")
    restored, bare = restorer(image), restorer(image[8:-8])
    assert (restored[8:-8] == bare).all()
    assert (restored[:8] == image[:8]).all()
