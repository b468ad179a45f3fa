"""Depth with edges, and what is drawn on top of a picture."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Generator

from vrdir.degradations.degrade import apply_degradation, degrade
from vrdir.degradations.depth import REGIONS, drawn_depth, regions_of
from vrdir.degradations.draws import Draws
from vrdir.degradations.overlays import DRAWINGS, draw_overlays
from vrdir.errors import ImageError

THIN = ("bars", "frame", "privacy_mask")  # may be thinner than a pixel of a small image


def seeds(count: int, first: int = 0) -> list[Generator]:
    return [Generator().manual_seed(first + n) for n in range(count)]


def two_halves() -> torch.Tensor:
    """A dark thing in front of something pale, (4, 3, 40, 60)."""
    image = torch.full((4, 3, 40, 60), 0.8)
    image[:, :, :, :30] = 0.1
    return image


def test_regions_follow_the_edges_of_the_photo() -> None:
    labels = regions_of(Draws(two_halves(), seeds(4)))
    assert labels.shape == (4, 40, 60)
    assert labels.min() >= 0
    assert labels.max() < REGIONS
    for image in labels:
        assert not set(image[:, :30].unique().tolist()) & set(image[:, 30:].unique().tolist())


def test_depth_edges_follow_photo_edges() -> None:
    depth = drawn_depth(Draws(two_halves(), seeds(4)), "regions")
    assert depth.min() >= 0
    assert depth.max() <= 1.6
    steps = depth.diff(dim=3).abs().mean((0, 1, 2))
    assert steps.argmax() == 29
    smooth = drawn_depth(Draws(two_halves(), seeds(4)), "smooth").diff(dim=3).abs()
    assert smooth.max() < steps.max()


def test_depth_of_an_image_does_not_depend_on_its_batch() -> None:
    image = torch.rand(3, 3, 24, 24)
    together = drawn_depth(Draws(image, seeds(3)), "mixed")
    alone = drawn_depth(Draws(image[1:2], seeds(1, 1)), "mixed")
    assert torch.allclose(together[1:2], alone, atol=1e-5)


def test_haze_accepts_depth_by_name() -> None:
    image = torch.rand(1, 3, 32, 32)
    results = [
        apply_degradation(image, "haze", seeds(1), depth=kind, beta=2.0).image
        for kind in ("smooth", "regions")
    ]
    assert not torch.equal(*results)
    text = degrade(image[0], "haze:depth=regions,light=0.5", seed=3)
    assert text.mean() < degrade(image[0], "haze:depth=regions", seed=3).mean()


@pytest.mark.parametrize("text", ["haze:depth=deep", "haze:light=0", "haze:light=1.5"])
def test_error_names_bad_depth_and_light(text: str) -> None:
    with pytest.raises(ValueError, match=text.split(":")[1].split("=")[0]):
        degrade(torch.rand(3, 16, 16), text)


def test_light_dims_the_whole_scene() -> None:
    image = torch.rand(2, 3, 16, 16)
    full = apply_degradation(image, "haze", seeds(2), beta=1.0, airlight=0.8, colour_cast=0.0)
    dim = apply_degradation(
        image, "haze", seeds(2), beta=1.0, airlight=0.8, colour_cast=0.0, light=0.5
    )
    assert torch.allclose(dim.image, full.image / 2, atol=1e-6)
    assert dim.parameters["light"].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_overlay_leaves_most_of_the_picture(name: str) -> None:
    image = torch.rand(16, 3, 64, 96)
    mask, colour = DRAWINGS[name](Draws(image, seeds(16)))
    share = mask.expand(16, 1, 64, 96).float().mean((1, 2, 3))
    assert share.max() < 0.75
    assert share.mean() > 0.001
    assert colour is None or (
        colour.shape == image.shape and 0 <= colour.min() <= colour.max() <= 1
    )


def test_overlays_are_the_same_on_degraded_and_clean() -> None:
    clean, degraded = torch.rand(24, 3, 48, 48), torch.rand(24, 3, 48, 48)
    overlay = draw_overlays(clean, seeds(24), share=0.7)
    first, second = overlay.on(clean), overlay.on(degraded)
    drawn = overlay.mask.expand_as(clean)
    assert torch.equal(first[drawn], second[drawn])
    assert torch.equal(first[~drawn], clean[~drawn])
    assert "" in overlay.kinds
    assert len(set(overlay.kinds)) > 4
    for number, kind in enumerate(overlay.kinds):
        assert bool(overlay.mask[number].any()) == (kind != "") or kind in THIN


def test_overlay_depends_on_the_images_own_generator() -> None:
    image = torch.rand(5, 3, 32, 32)
    together, alone = draw_overlays(image, seeds(5)), draw_overlays(image[3:4], seeds(1, 3))
    assert torch.equal(together.on(image)[3:4], alone.on(image[3:4]))


def test_overlay_is_applied_like_a_degradation() -> None:
    image = torch.rand(2, 3, 64, 64)
    barred = apply_degradation(image, "overlay", seeds(2), kind="bars")
    drawn = (barred.image != image).any(1)
    assert torch.allclose(drawn.float().mean((1, 2)), barred.parameters["covered"], atol=0.01)
    assert barred.parameters["covered"].min() > 0
    mixed = degrade(image[0], "haze:beta=2+overlay:kind=padding", seed=4)
    assert mixed.shape == image[0].shape
    with pytest.raises(
        ValueError, match="overlay:kind must be one of any, bars, .*, not 'sticker'"
    ):
        degrade(image[0], "overlay:kind=sticker")
    with pytest.raises(ValueError, match="kind must be one of any, bars"):
        apply_degradation(image, "overlay", seeds(2), kind="sticker")


def test_depth_files_without_an_array_raise(tmp_path: Path) -> None:
    path = tmp_path / "depth.npy"
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 9999), }".ljust(117)
    several = io.BytesIO()
    np.savez(several, a=np.zeros(2), b=np.zeros(2))
    for content in (
        b"",
        b"\x93NUMPY\1\0v\0" + header + b"\n",  # petabytes
        b"\x93NUMPY\1\0v\0" + header[:30],
        b"no array",
        several.getvalue(),
    ):
        path.write_bytes(content)
        with pytest.raises(
            ImageError, match=r"depth\.npy (is not an array|contains several arrays)"
        ):
            degrade(torch.rand(3, 32, 32), "haze", depth=path)
