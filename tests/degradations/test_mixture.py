"""Mixtures report the degradations of each image, which does not depend on the others."""

import itertools
from collections import Counter

import pytest
import torch
from torch import Tensor

from vrdir.degradations.degrade import apply_degradation
from vrdir.degradations.mixture import CLEAN, MIXED, degrade_mixture, joining
from vrdir.degradations.registry import DEGRADATIONS, can_meet
from vrdir.degradations.steps import ranges_of


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_mixture_reports_the_degradations_of_each_image(photo_batch: Tensor) -> None:
    names = ("noise", "rain", "haze")
    batch = photo_batch.repeat(20, 1, 1, 1)
    mixture = degrade_mixture(batch, {CLEAN: 1, MIXED: 1, "rain": 1}, names, seeded())
    assert mixture.image.shape == batch.shape
    assert torch.equal(mixture.image, (mixture.image * 255).round() / 255)
    assert set(mixture.kinds) == {CLEAN, MIXED, "rain"}
    for kind, present, image, clean in zip(
        mixture.kinds, mixture.present, mixture.image, batch, strict=True
    ):
        if kind == CLEAN:
            assert not present.any()
            assert torch.equal(image, clean)
        elif kind == MIXED:
            assert int(present.sum()) >= 2
        else:
            assert present.tolist() == [False, True, False]


def test_kinds_follow_their_shares() -> None:
    mixture = degrade_mixture(
        torch.zeros(4000, 3, 1, 1), {CLEAN: 1, "jpeg": 3, "noise": 0}, ("jpeg", "noise"), seeded()
    )
    counts = Counter(mixture.kinds)
    assert counts["jpeg"] / 4000 == pytest.approx(0.75, abs=0.03)
    assert counts["noise"] == 0


def test_image_with_its_own_generator_does_not_depend_on_its_batch(photo_batch: Tensor) -> None:
    names = tuple(DEGRADATIONS)
    shares = {MIXED: 2.0, CLEAN: 0.2, **dict.fromkeys(names, 0.1)}
    batch = torch.cat([photo_batch, photo_batch.flip(2)])
    seeds = (1, 2, 3, 4)
    together = degrade_mixture(batch, shares, names, [seeded(seed) for seed in seeds])
    assert len(set(together.kinds)) > 1
    for row, seed in enumerate(seeds):
        alone = degrade_mixture(batch[row : row + 1], shares, names, [seeded(seed)])
        assert alone.kinds == together.kinds[row : row + 1]
        assert torch.equal(alone.present, together.present[row : row + 1])
        # Equal in all 8 bits, except where a Fourier transform of a batch rounds the other way.
        differing = (alone.image - together.image[row : row + 1]).abs() > 1e-6
        assert float(differing.float().mean()) < 1e-3
    # In another order, as another process may hold them, each still has its own pixels.
    back = degrade_mixture(batch.flip(0), shares, names, [seeded(seed) for seed in reversed(seeds)])
    assert back.kinds == together.kinds[::-1]


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_single_degradation_is_stronger_than_in_a_mixture(name: str, photo_batch: Tensor) -> None:
    mixture = degrade_mixture(photo_batch, {name: 1}, (name,), seeded(3))
    assert mixture.kinds == [name, name]
    assert mixture.present.all()
    generator = seeded(3)
    (
        torch.rand((2, 1), generator=generator),
        torch.rand((2, 1), generator=generator),
    )  # kinds and joins
    expected = (apply_degradation(photo_batch, name, generator).image * 255).round() / 255
    torch.testing.assert_close(mixture.image, expected, rtol=0, atol=1e-6)
    for key, (low, high) in DEGRADATIONS[name].milder.items():
        assert DEGRADATIONS[name].defaults[key] != (low, high)


def test_ranges_replace_defaults_but_not_milder_ranges(photo_batch: Tensor) -> None:
    ranges = ranges_of("haze:beta=0,warmth=0.5+noise:sigma=9..9")
    noisy = degrade_mixture(photo_batch, {"noise": 1}, ("haze", "noise"), seeded(1), ranges).image
    assert float((noisy - photo_batch).std() * 255) == pytest.approx(9, rel=0.1)
    clear = degrade_mixture(photo_batch, {"haze": 1}, ("haze", "noise"), seeded(1), ranges).image
    torch.testing.assert_close(clear, (photo_batch * 255).round() / 255)  # beta 0 means no haze
    mixed = degrade_mixture(photo_batch, {"mixed": 1}, ("haze", "noise"), seeded(1), ranges).image
    assert float((mixed - photo_batch).abs().mean()) > 0.05  # a mixture's beta is 0.2 to 1.8


def test_share_of_the_images_goes_through_a_jpeg_file(photo_batch: Tensor) -> None:
    batch = photo_batch[:1].repeat(60, 1, 1, 1)
    shares, names = {CLEAN: 1, "noise": 1}, ("noise",)
    plain = degrade_mixture(batch, shares, names, seeded(5))
    stored = degrade_mixture(batch, shares, names, seeded(5), jpeg_share=0.5)
    assert (
        stored.kinds == plain.kinds
    )  # the file comes last: what is in the photo is drawn as before
    assert torch.equal(stored.present, plain.present)
    differs = (stored.image != plain.image).flatten(1).any(1)
    assert 15 < int(differs.sum()) < 45
    assert {kind for kind, other in zip(plain.kinds, differs.tolist(), strict=True) if other} == {
        CLEAN,
        "noise",
    }
    untouched = differs & ~plain.present[:, 0]
    assert float((stored.image - plain.image)[untouched].abs().flatten(1).mean(1).max()) < 0.05
    assert torch.equal(
        degrade_mixture(batch, shares, names, seeded(5), jpeg_share=1.0).present, plain.present
    )


def test_ranges_are_read_like_degradations() -> None:
    assert ranges_of("") == {}
    assert ranges_of("haze:warmth=-0.3..0.3+noise:sigma=5") == {
        "haze": {"warmth": (-0.3, 0.3)},
        "noise": {"sigma": 5.0},
    }
    assert ranges_of("haze:severity=2,warmth=0")["haze"] == {
        "beta": 1.0,
        "warmth": 0.0,
        "unevenness": (0.0, 0.3),
    }
    with pytest.raises(ValueError, match="once"):
        ranges_of("noise:sigma=5+noise:sigma=6")
    with pytest.raises(ValueError, match="noise accepts sigma"):
        ranges_of("noise:level=5")
    with pytest.raises(ValueError, match="sigma"):
        ranges_of("noise:sigma=-5..5")


def test_mixture_follows_the_physical_order(photo_batch: Tensor) -> None:
    # JPEG is last, whatever the order of the names: its levels are whole.
    names = ("jpeg", "noise")
    batch = photo_batch[:1]
    generator = seeded(5)
    mixture = degrade_mixture(batch, {MIXED: 1}, names, seeded(5))
    torch.rand((1, 1), generator=generator), torch.rand((1, 2), generator=generator)
    noisy = apply_degradation(batch, "noise", generator, **DEGRADATIONS["noise"].milder).image
    expected = apply_degradation(noisy, "jpeg", generator, **DEGRADATIONS["jpeg"].milder).image
    torch.testing.assert_close(mixture.image, expected, rtol=0, atol=1e-6)


def test_mixtures_combine_two_or_three_degradations() -> None:
    for names in (("haze", "rain", "noise"), tuple(DEGRADATIONS)):
        joins = joining(torch.rand(20000, len(names), generator=seeded()), names)
        counts = joins.sum(1)
        assert int(counts.min()) == 2
        assert int(counts.max()) == 3
        assert 2 < float(counts.float().mean()) < 3
        shares = joins.float().mean(0)
        assert float(shares.max()) < 2.2 * float(shares.min()), shares  # none is left out
    assert joining(torch.tensor([[0.9]]), ("rain",)).tolist() == [[True]]
    assert joining(torch.zeros(2, 0), ()).shape == (
        2,
        0,
    )  # all of a network's branches may be its user's own


def test_exclusive_degradations_are_not_combined() -> None:
    names = tuple(DEGRADATIONS)
    joins = joining(torch.rand(5000, len(names), generator=seeded()), names)
    pairs = [pair for pair in itertools.combinations(names, 2) if not can_meet(*pair)]
    assert ("haze", "night_haze") in pairs
    for pair in pairs:
        one, other = (joins[:, names.index(name)] for name in pair)
        assert bool(one.any())
        assert not bool((one & other).any()), pair
    # Nor where the lowest draw leaves nothing to meet it.
    few = ("haze", "night_haze", "rain", "snow")
    joins = joining(torch.rand(5000, len(few), generator=seeded()), few)
    for pair in (
        ("haze", "night_haze"),
        ("rain", "snow"),
        ("night_haze", "rain"),
        ("night_haze", "snow"),
    ):
        assert not bool(joins[:, [few.index(name) for name in pair]].all(1).any()), pair
    # Where there is nothing else, two are two.
    assert joining(torch.rand(10, 2, generator=seeded()), ("rain", "snow")).all()


def test_wrong_shares_and_names_raise(photo_batch: Tensor) -> None:
    with pytest.raises(ValueError, match="unknown degradation fog"):
        degrade_mixture(photo_batch, {"fog": 1}, ("haze",), seeded())
    with pytest.raises(ValueError, match="unknown degradation rain"):
        degrade_mixture(photo_batch, {"rain": 1}, ("haze",), seeded())
    for shares in ({CLEAN: 0.0}, {CLEAN: -1.0, "haze": 2.0}):
        with pytest.raises(ValueError, match="shares must be 0 or more"):
            degrade_mixture(photo_batch, shares, ("haze",), seeded())
