"""The formula of each docstring, worked out again here from the drawn parameters."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from vrdir.degradations.blur import defocus_blur, disc, mirror, motion_blur, shake
from vrdir.degradations.depth import smooth_depth
from vrdir.degradations.draws import Draws
from vrdir.degradations.haze import haze, night_haze, street_lamps
from vrdir.degradations.jpeg import jpeg
from vrdir.degradations.light import low_light
from vrdir.degradations.noise import demosaicked, noise, sensor_noise
from vrdir.degradations.rain import drop_layer, rain, raindrops, softened, streak_layer
from vrdir.degradations.resolution import low_resolution
from vrdir.degradations.scatter import scattered
from vrdir.degradations.snow import flake_layer, snow
from vrdir.degradations.srgb import to_linear, to_srgb

ONE = torch.ones(1, 1, 1, 1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def grey(level: float, batch: int = 1, side_px: int = 64) -> Tensor:
    return torch.full((batch, 3, side_px, side_px), level)


def test_srgb_follows_the_standard() -> None:
    values = torch.linspace(0, 1, 1001)
    torch.testing.assert_close(to_srgb(to_linear(values)), values, rtol=0, atol=2e-6)
    for value, light in ((0.0, 0.0), (0.04, 0.04 / 12.92), (0.5, 0.2140411), (1.0, 1.0)):
        assert float(to_linear(torch.tensor(value))) == pytest.approx(light, abs=1e-6)


def test_haze_is_atmospheric_scattering(photo_batch: Tensor) -> None:
    depth = torch.linspace(0, 1, 75).view(1, 1, 75, 1).expand(2, 1, 75, 97)
    result = haze(photo_batch, seeded(), beta=1.5, depth=depth)
    assert torch.allclose(result.parameters["beta"], torch.tensor(1.5))
    transmission = torch.exp(-1.5 * depth)
    airlight = result.parameters["airlight"].view(2, 3, 1, 1)
    torch.testing.assert_close(
        result.image, photo_batch * transmission + airlight * (1 - transmission)
    )
    torch.testing.assert_close(result.image[:, :, 0], photo_batch[:, :, 0])  # nothing at depth 0


def test_uneven_haze_is_as_dense_on_the_whole() -> None:
    result = haze(
        grey(0, 20),
        seeded(),
        beta=0.5,
        airlight=1.0,
        colour_cast=0,
        unevenness=0.6,
        depth=torch.ones(20, 1, 64, 64),
    )
    density = -torch.log(1 - result.image[:, :1]) / 0.5
    assert float(density.min()) >= 0.4 - 1e-4
    assert float(density.max()) <= 1.6 + 1e-4
    assert float(density.mean()) == pytest.approx(1, abs=0.06)
    assert float(density.std((2, 3)).min()) > 0.03


def test_warm_haze_is_yellow_and_cold_haze_blue() -> None:
    for warmth in (-1.0, 0.5):
        result = haze(
            grey(0.2),
            seeded(),
            beta=20.0,
            airlight=0.8,
            colour_cast=0,
            warmth=warmth,
            depth=torch.ones(1, 1, 64, 64),
        )
        expected = torch.tensor([0.8 + 0.04 * warmth, 0.8, 0.8 - 0.15 * warmth])
        torch.testing.assert_close(result.image[0, :, 5, 5], expected)
        torch.testing.assert_close(result.parameters["airlight"][0], expected)


def test_depth_is_plausible(photo_batch: Tensor) -> None:
    depth = torch.cat([smooth_depth(Draws(photo_batch, seeded(seed))) for seed in range(50)])
    assert depth.shape == (100, 1, 75, 97)
    assert 0 <= float(depth.min()) <= float(depth.max()) <= 1.5
    upwards = (depth[:, 0, 0].mean(1) > depth[:, 0, -1].mean(1)).float().mean()
    assert float(upwards) > 0.7  # outdoors the far is above


def test_night_haze_without_lamps_is_scattering_in_linear_light(photo_batch: Tensor) -> None:
    depth = torch.linspace(0, 1, 75).view(1, 1, 75, 1).expand(2, 1, 75, 97)
    result = night_haze(photo_batch, seeded(), exposure_ev=-2.0, beta=0.7, lamps=0.0, depth=depth)
    transmission = torch.exp(-0.7 * depth)
    airlight = to_linear(result.parameters["airlight"].view(2, 3, 1, 1))
    dark = (to_linear(result.image) - airlight * (1 - transmission)) / transmission
    colour = (dark / to_linear(photo_batch).clamp_min(1e-3)) / 2**-2
    at_photo = to_linear(photo_batch) > 0.05
    for row in range(2):
        for channel, (low, high) in enumerate(
            ((0.75, 0.83), (0.74, 0.88), (0.8, 1.1))
        ):  # of night skies lit by a town
            here = colour[row, channel][at_photo[row, channel]]
            assert float(here.std()) < 2e-3
            assert low - 1e-3 <= float(here.mean()) <= high + 1e-3


def test_glow_of_a_lamp_follows_multiple_scattering() -> None:
    draws = Draws(torch.zeros(12, 3, 201, 201), seeded(1))
    pools, glows = street_lamps(draws, torch.ones(12, 1, 1, 1), torch.zeros(12, 1, 1, 1))
    in_view = 0
    for pool, glow in zip(pools[:, 0], glows[:, 0], strict=True):
        row, column = divmod(int(glow.argmax()), 201)
        if not (5 < column < 195 and row > 20):
            continue
        in_view += 1
        assert row < 110  # lamps hang
        assert (
            float(pool[row + 30, column]) > 0.99 > float(pool[max(0, row - 15), column])
        )  # and light what is below them
        assert float(pool.max()) <= 1
        radii = torch.arange(4, 80)
        side = column + (1 if column < 100 else -1) * radii
        tail = torch.log(-torch.log(glow[row, side]))  # log of (r / R)^p: a line of slope p
        slope, start = np.polyfit(np.log(radii.numpy() / 201), tail.numpy(), 1)
        assert 0.44 < slope < 0.66
        assert (
            0.009 < math.exp(-start / slope) < 0.028
        )  # R, as a share of the height; the distance of the lamp changes it a little
    assert in_view >= 3
    for dark in street_lamps(draws, torch.zeros(12, 1, 1, 1), torch.zeros(12, 1, 1, 1)):
        assert float(dark.max()) == 0


def test_night_haze_with_lamps_follows_its_formula(photo_batch: Tensor) -> None:
    depth = torch.linspace(0, 1, 97).view(1, 1, 1, 97).expand(2, 1, 75, 97)
    drawn = {"exposure_ev": -3.0, "beta": 0.8, "airlight": 0.2, "lamps": 4.0, "glow": 3.0}
    result = night_haze(photo_batch, seeded(2), **drawn, depth=depth)
    draws = Draws(photo_batch, seeded(2))
    for name, value in drawn.items():
        draws.uniform(name, value)
    lamp, sky, air = (
        draws.unit(1, 1, 1) ** 2,
        0.3 * draws.unit(1, 1, 1),
        0.25 + 0.35 * draws.unit(1, 1, 1),
    )
    pools, glows = street_lamps(draws, torch.full((2, 1, 1, 1), 4.0), torch.full((2, 1, 1, 1), 0.8))
    sodium, led, night = (
        torch.tensor(c).view(1, 3, 1, 1)
        for c in ((1.0, 0.52, 0.13), (0.85, 0.95, 1.0), (0.75, 0.85, 1.1))
    )
    colour = sodium * (1 - lamp) + led * lamp
    airlight = 0.2 * ((1 - air) + air * colour)
    lit = to_linear(photo_batch) * (
        (night * (1 - sky) + colour * sky) / 8 + 0.08 * 3 * pools * colour
    )
    transmission = torch.exp(-0.8 * depth)
    expected = lit * transmission + to_linear(airlight) * (1 - transmission) + 3 * glows * colour
    torch.testing.assert_close(to_linear(result.image), expected, rtol=1e-4, atol=1e-5)


def test_low_light_is_fewer_photons(photo_batch: Tensor) -> None:
    result = low_light(
        photo_batch,
        seeded(),
        exposure_ev=-3.0,
        warmth=0.5,
        unevenness=0.0,
        electrons=1e6,
        read_e=0.0,
    )
    colour = 1 + 0.5 * (torch.tensor([1.0, 0.72, 0.42]).view(1, 3, 1, 1) - 1)
    torch.testing.assert_close(
        to_linear(result.image), to_linear(photo_batch) / 8 * colour, rtol=0, atol=3e-3
    )
    uneven = low_light(
        photo_batch,
        seeded(),
        exposure_ev=0.0,
        warmth=0.0,
        unevenness=0.8,
        electrons=1e6,
        read_e=0.0,
    )
    reach = to_linear(uneven.image) / to_linear(photo_batch).clamp_min(0.02)
    assert 0.15 < float(reach[to_linear(photo_batch) > 0.1].min()) < 0.6
    dark = low_light(
        grey(0.8, 1, 128),
        seeded(),
        exposure_ev=-2.0,
        warmth=0.0,
        unevenness=0.0,
        electrons=800.0,
        read_e=1.0,
    ).image
    assert float(torch.corrcoef(to_linear(dark)[0].flatten(1))[0, 1]) > 0.4  # a camera's grain


def test_noise_has_its_sigma() -> None:
    for sigma in (5.0, 25.0, 50.0):
        result = noise(grey(0.5, 2, 200), seeded(), sigma=sigma)
        assert float(result.image.std() * 255) == pytest.approx(sigma, rel=0.01)
        assert float(result.image.mean()) == pytest.approx(0.5, abs=1e-3)


def test_sensor_variance_is_linear_in_the_light() -> None:
    electrons, read_e = 400.0, 8.0
    for light in (0.15, 0.4, 0.7):
        image = to_srgb(grey(light, 1, 256))
        result = sensor_noise(
            image, seeded(), electrons=electrons, read_e=read_e, correlation=0.0, jpeg_quality=100.0
        )
        counted = to_linear(result.image)
        assert float(counted.var()) == pytest.approx(
            light / electrons + (read_e / electrons) ** 2, rel=0.02
        )
        assert float(counted.mean()) == pytest.approx(light, abs=1e-3)


def test_cameras_grain_is_wider_than_a_pixel_and_mostly_grey() -> None:
    neighbours, channels = {}, {}
    for correlation in (0.0, 1.0):
        image = to_srgb(grey(0.4, 1, 200))
        noisy = sensor_noise(
            image,
            seeded(),
            electrons=500.0,
            read_e=2.0,
            correlation=correlation,
            jpeg_quality=100.0,
        ).image
        grain = to_linear(noisy)[0] - 0.4
        neighbours[correlation] = float(
            torch.corrcoef(torch.stack([grain[:, :, 1:].flatten(), grain[:, :, :-1].flatten()]))[
                0, 1
            ]
        )
        channels[correlation] = float(torch.corrcoef(grain.flatten(1))[0, 1])
        assert float(grain.mean()) == pytest.approx(0, abs=2e-3)
    assert abs(neighbours[0.0]) < 0.02
    assert abs(channels[0.0]) < 0.02
    assert neighbours[1.0] > 0.4
    assert channels[1.0] > 0.5


def test_demosaicking_is_bilinear() -> None:
    flat = torch.tensor([0.2, 0.5, 0.9]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    torch.testing.assert_close(demosaicked(flat)[..., :-1, :-1], flat[..., :-1, :-1])
    point = torch.zeros(1, 3, 9, 9)
    point[:, :, 4, 4] = 1  # a red site: of the other colours nothing is measured there
    expected = torch.zeros(1, 3, 9, 9)
    expected[0, 0, 3:6, 3:6] = torch.tensor([[0.25, 0.5, 0.25], [0.5, 1.0, 0.5], [0.25, 0.5, 0.25]])
    torch.testing.assert_close(demosaicked(point), expected)


def test_sensor_noise_ends_with_jpeg(photo_batch: Tensor) -> None:
    settings = {"electrons": 1e6, "read_e": 0.0, "correlation": 0.0}
    filed = sensor_noise(photo_batch, seeded(), **settings, jpeg_quality=20.0).image
    alone = jpeg(photo_batch, seeded(), quality=20.0).image
    assert float((filed - alone).square().mean()) < 0.1 * float(
        (alone - photo_batch).square().mean()
    )


def test_rain_is_affine_in_the_scene() -> None:
    drawn = {"coverage": 0.2, "length_px": 15.0, "opacity": 0.8, "veil": 0.1}
    dark, middle, bright = (
        rain(grey(level), seeded(4), **drawn).image[:, :1] for level in (0.0, 0.5, 1.0)
    )
    torch.testing.assert_close(middle, (dark + bright) / 2)
    covering = 0.9 - (bright - dark)  # (1 - v) o S m
    air = float(dark.min())  # v A, where there is no streak
    assert 0.1 * 0.65 <= air <= 0.1 * 0.85
    adding = dark - air  # (1 - v) o S b
    ratio = (covering / adding)[adding > 0.05]  # m / b: one number
    assert float(ratio.std()) < 1e-4
    assert 0 <= float(ratio.mean()) <= 1 / 0.8
    assert float(adding.max()) <= 0.9 * 0.8 + 1e-5


def test_gusts_thin_the_rain() -> None:
    settings = {"coverage": 0.3, "length_px": 15.0, "opacity": 0.8, "veil": 0.0}
    even, gusty = (
        rain(grey(0), seeded(4), **settings, unevenness=unevenness).image
        for unevenness in (0.0, 0.6)
    )
    share = (gusty / even)[even > 0.1]
    assert 0.4 - 1e-4 <= float(share.min()) <= float(share.max()) <= 1 + 1e-4
    assert float(share.std()) > 0.02


def test_some_of_the_rain_falls_through_clear_air() -> None:
    drawn = rain(
        grey(0.3, 64), seeded(), veil=(0.1, 0.2), mist=(0.5, 1.0), clear_air=0.4
    ).parameters
    clear = drawn["mist"] == 0
    assert torch.equal(clear, drawn["veil"] == 0)
    assert 12 <= int(clear.sum()) <= 38  # of 64; four standard deviations around 26
    every = rain(grey(0.3, 4), seeded(), veil=(0.1, 0.2), mist=(0.5, 1.0), clear_air=1.0)
    torch.testing.assert_close(every.image, rain(grey(0.3, 4), seeded(), veil=0.0, mist=0.0).image)
    with pytest.raises(ValueError, match="clear_air"):
        rain(grey(0.3), seeded(), clear_air=1.5)


def test_a_curtain_of_rain_brightens_what_is_darker_than_the_air() -> None:
    settings = {"opacity": 0.0, "veil": 0.0, "curtain": 0.5, "length_px": 20.0}
    dark, dim = (rain(grey(level), seeded(4), **settings).image[:, :1] for level in (0.0, 0.5))
    drops = dark / 0.5  # C A
    air = drops[drops > 0] - (dim[drops > 0] - 0.5) / 0.5  # C A - C (A - 0.5) = C / 2
    ratio = drops[drops > 0] / (2 * air)  # A, one number
    assert 0.65 <= float(ratio.min()) <= float(ratio.max()) <= 0.851
    assert float(ratio.std()) < 1e-3
    assert 0.3 <= float((drops / ratio.mean()).mean()) <= 0.5
    bright = grey(0.9)
    torch.testing.assert_close(rain(bright, seeded(4), **settings).image, bright)


def test_the_curtain_runs_along_the_wind() -> None:
    fallen = rain(
        grey(0.0, 4), seeded(), opacity=0.0, veil=0.0, curtain=1.0, angle_deg=0.0, length_px=20.0
    ).image
    along = (fallen[:, :, 4:] - fallen[:, :, :-4]).abs().mean()
    across = (fallen[..., 4:] - fallen[..., :-4]).abs().mean()
    assert float(across) > 2 * float(along)


def test_no_curtain_hangs_in_clear_air() -> None:
    settings = {"veil": 0.0, "mist": 0.0, "curtain": (0.3, 0.6)}
    drawn = rain(grey(0.3, 64), seeded(), **settings, clear_air=0.4).parameters["curtain"]
    assert 12 <= int((drawn == 0).sum()) <= 38
    assert float(drawn[drawn > 0].min()) >= 0.3


def test_mist_hides_the_far(photo_batch: Tensor) -> None:
    settings = {"opacity": 0.0, "veil": 0.0}
    torch.testing.assert_close(rain(photo_batch, seeded(), **settings).image, photo_batch)
    misty = rain(photo_batch, seeded(), **settings, mist=20.0).image
    assert float(misty.std((2, 3)).max()) < float(photo_batch.std((2, 3)).min())
    dark, bright = (
        rain(grey(level), seeded(1), **settings, mist=1.0).image for level in (0.0, 1.0)
    )
    transmission = bright - dark
    ratio = dark / (1 - transmission).clamp_min(1e-3)  # A, one number
    assert (
        0.65
        <= float(ratio[transmission < 0.95].min())
        <= float(ratio[transmission < 0.95].max())
        <= 0.851
    )
    assert float(transmission.std()) > 0.01


def test_rain_has_the_requested_coverage_and_brightens_dark_pixels() -> None:
    dark = grey(0, 4, 128)
    for coverage in (0.05, 0.2):
        result = rain(dark, seeded(), coverage=coverage, length_px=20.0, opacity=0.8, veil=0.0)
        covered = float((result.image[:, 0] > 0.15).float().mean())
        assert coverage / 2.5 < covered < coverage * 2.5
        assert float(result.image.min()) > -1e-5


def test_rain_of_the_bundled_weights_stays_the_same() -> None:
    image = torch.rand(4, 3, 96, 128, generator=seeded(1))
    for function, first in (
        (haze, (0.7601511, 0.5743457, 0.6221881)),
        (noise, (0.7377552, 0.3132503, 0.3267645)),
    ):
        torch.testing.assert_close(
            function(image, seeded(7)).image[0, 0, 0, :3], torch.tensor(first), rtol=0, atol=1e-5
        )
    rainy = rain(image, seeded(7)).image[0, 0, 0, :3]
    torch.testing.assert_close(
        rainy, torch.tensor([0.7597831, 0.3574762, 0.4615671]), rtol=0, atol=1e-5
    )


def direction(layer: Tensor) -> float:
    """Return the direction of a layer's streaks, in degrees from vertical.

    It is the weak direction of the structure tensor.
    """
    rows, columns = np.gradient(layer.numpy())
    tensor = np.array(
        [[(columns**2).sum(), (columns * rows).sum()], [(columns * rows).sum(), (rows**2).sum()]]
    )
    along = np.linalg.eigh(tensor)[1][:, 0]
    return float((np.degrees(np.arctan2(along[0], along[1])) + 90) % 180 - 90)


@pytest.mark.parametrize("degrees", [0.0, 30.0])
def test_streaks_and_flakes_follow_the_wind(degrees: float) -> None:
    draws = Draws(torch.zeros(1, 3, 128, 128), seeded())
    streaks = streak_layer(draws, 0.05 * ONE, 40 * ONE, 1.5 * ONE, degrees * ONE)[0, 0]
    assert direction(streaks) == pytest.approx(degrees, abs=4)
    flakes = flake_layer(draws, 0.2 * ONE, 1.5 * ONE, 14 * ONE, degrees * ONE, 0.5 * ONE)[0, 0]
    assert direction(flakes) == pytest.approx(degrees, abs=8)


def test_defocused_streaks_keep_their_total_light() -> None:
    layer = torch.zeros(2, 1, 65, 65)
    layer[:, :, 32, 32] = 1
    soft = softened(layer, torch.tensor([2.0, 0.0]).view(2, 1, 1, 1))
    y, x = torch.meshgrid(torch.arange(65) - 32.0, torch.arange(65) - 32.0, indexing="ij")
    torch.testing.assert_close(
        soft[0, 0], torch.exp(-(x**2 + y**2) / 8) / (8 * math.pi), rtol=0, atol=1e-5
    )
    assert torch.equal(soft[1], layer[1])


def test_snow_covers_with_its_own_brightness() -> None:
    dark, bright = (
        snow(grey(level, 1, 128), seeded(), coverage=0.3, opacity=0.9, mist=0.5).image
        for level in (0.0, 1.0)
    )
    clear = bright - dark  # t (1 - a)
    brightness = dark / (1 - clear).clamp_min(1e-3)
    here = brightness[clear < 0.95]
    assert float(here.std()) < 1e-4
    assert 0.8 <= float(here.mean()) <= 0.97
    assert float(clear.min()) >= 0
    torch.testing.assert_close(snow(grey(0.3), seeded(), opacity=0.0, mist=0.0).image, grey(0.3))


def test_snow_combines_layers_and_mist(photo_batch: Tensor) -> None:
    drawn = {
        "coverage": 0.3,
        "size_px": 4.0,
        "trail_px": 5.0,
        "angle_deg": 10.0,
        "blur_px": 2.0,
        "opacity": 0.9,
        "mist": 0.7,
    }
    result = snow(photo_batch, seeded(), **drawn, layers=3)
    draws = Draws(photo_batch, seeded())
    for name in drawn:
        draws.uniform(name, 0.5)
    brightness = draws.uniform("brightness", (0.8, 0.97))
    clear = torch.ones(2, 1, 75, 97)
    for nearness in (1, 0.6, 0.36):
        size, trail, blur = (value * nearness * torch.ones(2, 1, 1, 1) for value in (4.0, 5.0, 2.0))
        share = (1 - 0.7 ** (1 / 3)) * torch.ones(2, 1, 1, 1)
        clear = clear * (
            1 - 0.9 * flake_layer(draws, share, size, trail, 10 * torch.ones(2, 1, 1, 1), blur)
        )
    transmission = torch.exp(-0.7 * smooth_depth(draws))
    misty = photo_batch * transmission + brightness * (1 - transmission)
    torch.testing.assert_close(
        result.image, misty * clear + brightness * (1 - clear), rtol=0, atol=1e-5
    )


def test_snow_has_the_requested_coverage() -> None:
    for coverage in (0.05, 0.3):
        result = snow(
            grey(0, 4, 128), seeded(), coverage=coverage, mist=0.0, size_px=3.0, opacity=1.0
        )
        covered = float((result.image[:, 0] > 0.1).float().mean())
        assert coverage / 2.5 < covered < coverage * 2.5


def test_points_are_scattered_one_to_a_cell() -> None:
    draws = Draws(torch.zeros(2, 3, 60, 60), seeded())
    cell = torch.tensor([7.5, 12.0]).view(2, 1, 1, 1)
    near = torch.stack([torch.sqrt(point.x**2 + point.y**2) for point in scattered(draws, cell, 1)])
    assert near.shape == (4, 2, 1, 60, 60)
    # A point within half a cell of a pixel is always among its four, so discs of that radius are
    # whole.
    discs = (near < cell / 2).any(0)
    expected = math.pi / 4  # discs, some of them overlapping
    for share in discs.float().mean((1, 2, 3)).tolist():
        assert 0.4 < share < expected
    for row in range(2):
        for point in scattered(Draws(torch.zeros(2, 3, 60, 60), seeded()), cell, 1):
            x, y = point.x[row, 0], point.y[row, 0]
            middle = torch.stack(
                [torch.arange(60.0).view(1, 60) - x, torch.arange(60.0).view(60, 1) - y]
            )  # where the points are
            _, counts = torch.unique(middle.flatten(1).mul(100).round(), dim=1, return_counts=True)
            assert (
                int(counts.max()) <= (float(cell[row]) + 1) ** 2
            )  # a pixel's point is another in the next cell


def test_drop_shows_the_scene_upside_down() -> None:
    image = torch.linspace(0.2, 0.8, 161).view(1, 1, 161, 1).expand(1, 3, 161, 161)
    settings = {"coverage": 0.3, "radius_px": 12.0, "blur_px": 0.5, "field": 3.0, "rim": 0.5}
    result = raindrops(image, seeded(), **settings, layers=1)
    draws = Draws(image, seeded())
    for name in settings:  # the draws that go before the drops'
        draws.uniform(name, 1.0)
    drop = drop_layer(draws, 0.3 * ONE, 12 * ONE, 0.5 * ONE)
    whole = (drop.outline == 1) & (drop.distance < 0.95)
    rows = torch.arange(161.0).view(1, 1, -1, 1)
    centre = rows - drop.y * drop.radius
    source = centre - 3.0 * drop.radius * drop.y / torch.sqrt(2 - drop.distance**2)
    glint = 0.5 * torch.exp(-(((drop.x + 0.35) / 0.18) ** 2 + ((drop.y + 0.5) / 0.1) ** 2))
    expected = (0.2 + 0.6 * source / 160) * (1 - 0.5 * drop.distance**4) + glint
    sure = whole & (source > 8) & (source < 152)
    assert int(sure.sum()) > 1000
    assert float((result.image[:, :1] - expected)[sure].abs().max()) < 0.01
    dry = drop.outline == 0
    assert torch.equal(result.image[:, :1][dry], image[:, :1][dry])
    assert 0.15 < float((drop.outline > 0.5).float().mean()) < 0.45


def test_large_drops_cover_small_ones() -> None:
    image = torch.rand(1, 3, 96, 96, generator=seeded(1))
    result = raindrops(image, seeded(), coverage=0.3, radius_px=10.0, blur_px=0.5, layers=2)
    draws = Draws(image, seeded())
    for _ in range(5):
        draws.uniform("any", 1.0)
    share = (1 - 0.7**0.5) * ONE
    small, large = (
        drop_layer(draws, share, radius * ONE, 0.5 * ONE).outline for radius in (5.5, 10.0)
    )
    dry = (small == 0) & (large == 0)
    assert 0.2 < float(dry.float().mean()) < 0.9
    assert torch.equal((result.image - image).abs().amax(1, keepdim=True) == 0, dry)


def test_point_of_light_becomes_a_disc() -> None:
    for radius in (0.0, 0.5, 2.0, 6.3):
        kernel = disc(radius * ONE, 8)[0, 0]
        assert float(kernel.sum()) == pytest.approx(1, abs=1e-6)
        assert float(1 / kernel[8, 8]) == pytest.approx(max(1, math.pi * radius**2), rel=0.12)
        assert float(kernel[8, 8 + math.ceil(radius + 0.5) :].sum()) <= (1 if radius == 0 else 1e-9)


@pytest.mark.parametrize(
    ("length", "degrees"), [(20.0, 0.0), (20.0, 30.0), (12.0, -70.0), (15.0, 90.0)]
)
def test_straight_shake_has_its_length_and_direction(length: float, degrees: float) -> None:
    kernel = shake(length * ONE, torch.deg2rad(degrees * ONE), 0 * ONE, 20)[0, 0].double()
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-6)
    y, x = torch.meshgrid(
        20 - torch.arange(41.0), torch.arange(41.0) - 20, indexing="ij"
    )  # y goes up
    assert abs(float((kernel * x).sum())) < 0.01
    assert abs(float((kernel * y).sum())) < 0.01
    spread = torch.stack(
        [
            (kernel * x * x).sum(),
            (kernel * x * y).sum(),
            (kernel * x * y).sum(),
            (kernel * y * y).sum(),
        ]
    ).view(2, 2)
    values, vectors = torch.linalg.eigh(spread)
    assert math.sqrt(float(values[0])) == pytest.approx(0.5, abs=0.04)  # sampled at whole pixels
    assert math.sqrt(12 * (float(values[1]) - 0.25)) == pytest.approx(length, rel=0.03)
    found = math.degrees(math.atan2(float(vectors[1, 1]), float(vectors[0, 1])))
    assert (found - degrees + 90) % 180 - 90 == pytest.approx(0, abs=1)


def test_motion_path_deviates_by_its_bend() -> None:
    kernel = shake(20 * ONE, 0 * ONE, 0.3 * ONE, 20)[0, 0]
    y = 20 - torch.arange(41.0)
    ends = (kernel * y.view(-1, 1)).sum(0) / kernel.sum(0).clamp_min(
        1e-9
    )  # height of the path over each column
    # From the lowest point in the middle to the ends it rises by 4 (1/2)^2 of bend x length.
    assert float(ends[10] - ends[20]) == pytest.approx(-1 * -0.3 * 20, abs=0.8)
    assert float(ends[30] - ends[20]) == pytest.approx(-1 * -0.3 * 20, abs=0.8)


def test_long_shake_leaves_no_gaps() -> None:
    length, period = 200.0, 3.17
    columns = torch.arange(600).view(1, 1, 1, -1)
    grating = (0.5 + 0.4 * torch.sin(2 * math.pi * columns / period)).expand(1, 3, 8, -1)
    shaken = to_linear(
        motion_blur(grating, seeded(), length_px=length, angle_deg=0.0, bend=0.0).image
    )[..., 150:450]
    assert (
        float(shaken.std() / to_linear(grating).std()) < 0.03
    )  # a box of that length leaves next to nothing


def test_reported_coverage_is_the_possible_one() -> None:
    for degradation, options in (
        (raindrops, {"blur_px": 0.5, "radius_px": 8.0}),
        (snow, {"blur_px": 0.5, "trail_px": 0.0, "mist": 0.0}),
    ):
        for layers in (1, 3):
            results = [
                degradation(grey(0.0, side_px=256), seeded(3), coverage=c, layers=layers, **options)
                for c in (0.05, 0.45, 0.59)
            ]
            told = [float(result.parameters["coverage"]) for result in results]
            assert told[0] == pytest.approx(0.05)
            assert told[1] == told[2] < 0.45 if layers == 1 else told[1] <= told[2]
    lens = raindrops(
        grey(0.5, side_px=512), seeded(1), coverage=0.59, layers=1, blur_px=0.5, radius_px=8.0
    )
    covered = float((lens.image - 0.5).abs().amax(1).gt(1e-3).float().mean())
    assert covered == pytest.approx(float(lens.parameters["coverage"]), abs=0.04)


def test_blur_is_a_convolution_in_linear_light(photo_batch: Tensor) -> None:
    light = to_linear(photo_batch)
    result = defocus_blur(photo_batch, seeded(), radius_px=(2.0, 4.0))
    for row in range(2):
        kernel = disc(result.parameters["radius_px"][row] * ONE, 6)
        padded = torch.from_numpy(
            np.pad(light[row].numpy(), ((0, 0), (6, 6), (6, 6)), mode="symmetric")
        )
        expected = to_srgb(functional.conv2d(padded[:, None], kernel))[:, 0]
        torch.testing.assert_close(result.image[row], expected, rtol=0, atol=1e-4)
    shaken = motion_blur(photo_batch, seeded(), length_px=8.0, angle_deg=20.0, bend=0.2)
    kernel = shake(8 * ONE, torch.deg2rad(20 * ONE), 0.2 * ONE, 10).flip(
        2, 3
    )  # conv2d does not flip
    padded = torch.from_numpy(
        np.pad(light.numpy(), ((0, 0), (0, 0), (10, 10), (10, 10)), mode="symmetric")
    )
    expected = functional.conv2d(padded.flatten(0, 1)[:, None], kernel).view(photo_batch.shape)
    torch.testing.assert_close(shaken.image, to_srgb(expected), rtol=0, atol=1e-4)
    torch.testing.assert_close(
        defocus_blur(grey(0.3), seeded()).image, grey(0.3), rtol=0, atol=1e-5
    )


def test_mirroring_repeats_for_large_margins() -> None:
    assert mirror(3, 4, torch.device("cpu")).tolist() == [2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0]
    assert mirror(1, 2, torch.device("cpu")).tolist() == [0, 0, 0, 0, 0]


def test_low_resolution_agrees_with_pillow(photo: Image.Image, photo_batch: Tensor) -> None:
    result = low_resolution(photo_batch[:1], seeded(), factor=2.5).image
    size = (round(97 / 2.5), round(75 / 2.5))
    expected = photo.resize(size, Image.Resampling.BICUBIC).resize(
        photo.size, Image.Resampling.BICUBIC
    )
    difference = (result[0] - torch.from_numpy(np.array(expected)).permute(2, 0, 1) / 255).abs()
    assert float(difference.mean()) < 0.5 / 255  # Pillow rounds between the two directions too
    assert float(difference.max()) < 6 / 255
    torch.testing.assert_close(
        low_resolution(photo_batch, seeded(), factor=1.0).image, photo_batch, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    ("quality", "subsampling", "least"),
    [(10, 1, 45.0), (50, 1, 49.0), (90, 1, 49.0), (10, 2, 38.7), (50, 2, 44.5), (90, 2, 45.5)],
)
def test_jpeg_agrees_with_libjpeg(
    photo: Image.Image, photo_batch: Tensor, quality: int, subsampling: int, least: float
) -> None:
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=quality, subsampling={1: 0, 2: 2}[subsampling])
    theirs = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255
    ours = jpeg(photo_batch[:1], seeded(), quality=float(quality), subsampling=subsampling).image[0]
    difference = -10 * math.log10(float((ours - theirs).square().mean()))
    damage = -10 * math.log10(float((theirs - photo_batch[0]).square().mean()))
    assert difference > least
    assert difference > damage + 5


def test_jpeg_qualities_differ_within_a_batch(photo_batch: Tensor) -> None:
    result = jpeg(photo_batch, [seeded(1), seeded(2)], quality=(5.0, 95.0))
    for row in range(2):
        alone = jpeg(
            photo_batch[row : row + 1], seeded(), quality=float(result.parameters["quality"][row])
        )
        torch.testing.assert_close(result.image[row : row + 1], alone.image)
