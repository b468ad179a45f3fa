"""Views of a photo."""

import pytest
import torch

from vrdir.data.augmentation import Tone, View

PART = (
    torch.arange(3 * 64 * 64, dtype=torch.int64)
    .mul(7919)
    .remainder(256)
    .to(torch.uint8)
    .view(3, 64, 64)
)
DAYLIGHT = Tone(1.0, 1.0, 1.0, torch.ones(3))


def views(how: str, synthetic: bool = True, extent: int = 300) -> list[View]:
    return [
        View.drawn(how, 64, extent, extent, synthetic, torch.Generator().manual_seed(seed))
        for seed in range(200)
    ]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("how", "synthetic", "extent", "sides"),
    [
        ("flip", True, 300, {64}),
        ("full", True, 300, {64, 128}),
        ("full", True, 100, {64}),  # too small to be taken at twice the size
        ("full", False, 300, {64}),
        ("wide", True, 300, {32, 64, 128}),
        ("wide", False, 300, {64}),  # a real pair keeps its size and its light
        ("vivid", True, 300, {64, 128}),
        ("vivid", False, 300, {64}),
        ("varied", True, 300, {64, 128}),
        ("varied", False, 300, {64}),
    ],
)
def test_sizes_and_lights_of_each_augmentation(
    how: str, synthetic: bool, extent: int, sides: set[int]
) -> None:
    drawn = views(how, synthetic, extent)
    assert {view.height for view in drawn} == sides
    for side in sides:
        assert sum(view.height == side for view in drawn) > 200 / len(sides) / 2
    lit = sum(view.tone is not None for view in drawn)
    low, high = (
        {"wide": (70, 130), "vivid": (30, 70), "varied": (40, 90)}.get(how, (0, 0))
        if synthetic
        else (0, 0)
    )
    assert low <= lit <= high
    assert {view.turned for view in drawn} == ({False} if how == "flip" else {False, True})
    assert {view.mirrored for view in drawn} == {False, True}


def test_close_views_are_varied_ones_of_which_a_third_is_magnified() -> None:
    sides = []
    for varied, close in zip(views("varied"), views("close"), strict=True):
        assert (varied.turned, varied.mirrored) == (close.turned, close.mirrored)
        if close.height < 64:
            assert varied.height == 64
            sides.append(close.height)
        else:
            assert close._replace(tone=None) == varied._replace(tone=None)
    assert 45 < len(sides) < 90
    assert 21 <= min(sides) < 24
    assert 55 < max(sides) < 64
    assert {view.height for view in views("close", synthetic=False)} == {64}


def test_doubtful_views_are_near_or_in_another_light() -> None:
    drawn = views("doubtful")
    doubtful = [view for view in drawn if view.doubtful]
    assert 55 < len(doubtful) < 105
    near = [view for view in doubtful if view.height * view.width < 0.15 * 300 * 300]
    assert 0.3 < len(near) / len(doubtful) < 0.7
    assert all(view.tone is not None for view in doubtful if view not in near)
    whole = [view for view in drawn if not view.doubtful]
    assert min(view.height * view.width for view in whole) > 0.1 * 300 * 300


def test_all_views_are_whole_or_close() -> None:
    drawn = views("all")
    whole = [view for view in drawn if view.height != view.width]
    assert 0.35 < len(whole) / len(drawn) < 0.6
    assert {view.height for view in views("all", synthetic=False)} == {64}


def test_full_views_are_among_the_wide_ones() -> None:
    for full, wide in zip(views("full"), views("wide"), strict=True):
        assert (full.turned, full.mirrored) == (wide.turned, wide.mirrored)
        assert wide.height in (full.height, 32)


def test_varied_views_are_vivid_ones_and_some_in_another_light() -> None:
    lit = []
    for vivid, varied in zip(views("vivid"), views("varied"), strict=True):
        if vivid.tone is not None:
            assert (varied.tone.saturation, varied._replace(tone=None)) == (
                vivid.tone.saturation,
                vivid._replace(tone=None),
            )  # type: ignore[union-attr]
        else:
            assert varied._replace(tone=None) == vivid
            lit += [varied.tone] if varied.tone is not None else []
    assert 5 <= len(lit) <= 30
    assert {tone.saturation for tone in lit} == {1.0}
    assert all(tone.contrast < 1 for tone in lit)


def test_vivid_views_are_full_ones_in_stronger_colours() -> None:
    for full, vivid in zip(views("full"), views("vivid"), strict=True):
        assert vivid._replace(tone=None) == full
    saturations = [view.tone.saturation for view in views("vivid") if view.tone is not None]
    assert 1 < min(saturations) < 1.2
    assert 2.5 < max(saturations) < 3


def test_view_has_the_crops_size() -> None:
    for side in (32, 33, 64, 128):
        view = View(64 if side != 33 else 65, side, side, True, True, DAYLIGHT)
        part = PART.repeat(1, 2, 2)[:, :side, :side]
        made = view.apply(part)
        assert made.shape == (3, view.size, view.size)
        assert made.dtype == torch.uint8


def test_magnified_and_reduced_parts_show_the_same_scene() -> None:
    ramp = torch.arange(64).mul(4).to(torch.uint8).expand(3, 64, 64)
    near = View(128, 64, 64, False, False, None).apply(ramp)
    torch.testing.assert_close(
        near[:, 4:-4, 4:-4:2].float(),
        ramp.repeat_interleave(2, 1)[:, 4:-4, 2:-2].float(),
        atol=2,
        rtol=0,
    )
    assert torch.equal(View(32, 64, 64, False, False, None).apply(ramp), (ramp[:, ::2, ::2] + 2))


def test_light_of_views() -> None:
    assert torch.equal(DAYLIGHT.apply(PART), PART)
    torch.testing.assert_close(
        DAYLIGHT._replace(exposure=0.5).apply(PART).float(), PART.float() * 0.5, atol=0.51, rtol=0
    )
    flat = DAYLIGHT._replace(contrast=0.5).apply(PART).float()
    assert float(flat.mean()) == pytest.approx(float(PART.float().mean()), abs=0.5)
    assert float(flat.std()) == pytest.approx(float(PART.float().std()) / 2, rel=0.01)
    warm = DAYLIGHT._replace(gains=torch.tensor([1.1, 1.0, 0.9])).apply(PART).float()
    assert torch.equal(warm[1], PART[1].float())
    assert (warm[0] >= PART[0]).all()
    assert (warm[2] <= PART[2]).all()
    torch.testing.assert_close(
        DAYLIGHT._replace(gamma=2.0).apply(PART).float(),
        (PART.float() / 255) ** 2 * 255,
        atol=0.51,
        rtol=0,
    )


def test_vivid_views_have_more_saturation() -> None:
    colour = torch.tensor([90, 60, 30], dtype=torch.uint8).view(3, 1, 1)
    vivid = DAYLIGHT._replace(saturation=2.0)
    assert vivid.apply(colour).flatten().tolist() == [120, 60, 0]
    assert vivid._replace(saturation=0.0).apply(colour).flatten().tolist() == [60, 60, 60]
    assert vivid._replace(saturation=9.0).apply(colour).flatten().tolist() == [
        255,
        60,
        0,
    ]  # clipped, not wrapped
    grey = PART[:1].expand(3, -1, -1)
    assert torch.equal(vivid.apply(grey), grey)


def test_every_light_keeps_the_image_visible() -> None:
    tones = [Tone.drawn(torch.Generator().manual_seed(seed)) for seed in range(500)]
    for low, high, values in (
        (2**-0.6, 2**0.6, [t.gamma for t in tones]),
        (2**-1.5, 2**0.3, [t.exposure for t in tones]),
        (0.4, 1.0, [t.contrast for t in tones]),
        (2**-0.15, 2**0.15, [float(g) for t in tones for g in t.gains]),
    ):
        assert low <= min(values) < low * 1.1
        assert high * 0.9 < max(values) <= high
