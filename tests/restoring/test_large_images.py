"""Large images are changed as a reduced copy is, and small ones as before."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import vrdir
from vrdir.model.vrdir import VRDIR, Restoration
from vrdir.restoring import large_images
from vrdir.restoring.large_images import (
    COPY_PIXELS,
    LARGE_PIXELS,
    affine_maps,
    copy_size,
    follow_copy,
    resized,
    rows_of,
)


def scene(height: int, width: int, seed: int = 1) -> Tensor:
    """Return a scene with soft objects and fine grain, (1, 3, height, width) in [0.2, 0.8]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 50, 70, generator=generator)
    soft = functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
    grain = 0.05 * torch.rand(1, 3, height, width, generator=generator)
    return 0.2 + 0.55 * soft + grain


def restoration(image: Tensor) -> Restoration:
    return Restoration(image, [], torch.ones(len(image), 1))


def hazier_at_full_size(image: Tensor) -> Restoration:
    """Raise the contrast by half, but by a tenth in a large image."""
    gain = 1.1 if image.shape[-1] > 700 else 1.5
    return restoration(0.5 + gain * (image - 0.5))


@pytest.mark.parametrize(
    ("size", "copy"),
    [
        ((512, 512), None),
        ((427, 640), None),
        ((720, 1280), (246, 438)),
        ((4000, 6000), (268, 402)),
        ((600, 40_000), None),  # not a photo: 40 pixels of a copy say little
    ],
)
def test_sizes_of_copies(size: tuple[int, int], copy: tuple[int, int] | None) -> None:
    assert LARGE_PIXELS == 4 * COPY_PIXELS
    assert copy_size(*size) == copy


def test_small_images_have_no_copy() -> None:
    small = torch.rand(2, 3, 64, 64)
    result = restoration(1 - small)
    assert follow_copy(small, result, restore=pytest.fail) is result  # type: ignore[arg-type]


def test_contrast_of_a_large_image_is_that_of_its_copy() -> None:
    image = scene(600, 900)
    result = follow_copy(image, hazier_at_full_size(image), hazier_at_full_size).image
    torch.testing.assert_close(result, 0.5 + 1.5 * (image - 0.5), atol=0.02, rtol=0)
    grain = image - functional.avg_pool2d(image, 3, 1, 1)
    raised = result - functional.avg_pool2d(result, 3, 1, 1)
    inside = (..., slice(20, -20), slice(20, -20))
    ratio = float(raised[inside].std() / grain[inside].std())
    assert ratio == pytest.approx(1.5, abs=0.05)  # details, too, which the copy cannot show


def test_what_was_removed_at_full_size_stays_removed() -> None:
    clean = scene(600, 900)
    grainy = (clean + 0.1 * torch.randn(clean.shape)).clamp(0, 1)
    result = follow_copy(grainy, restoration(clean), restoration).image
    assert (result - clean).abs().mean() < 0.2 * (grainy - clean).abs().mean()


def test_unchanged_images_of_a_batch_stay_unchanged() -> None:
    image = torch.cat([scene(600, 900), scene(600, 900, seed=2)])
    restored = image.clone()
    restored[1] = 0.5 + 1.1 * (image[1] - 0.5)
    result = follow_copy(image, restoration(restored), hazier_at_full_size).image
    assert torch.equal(result[0], image[0])
    assert not torch.equal(result[1], restored[1])
    untouched = restoration(image)
    assert follow_copy(image, untouched, restore=pytest.fail) is untouched  # type: ignore[arg-type]
    copied = restoration(image.clone())
    assert follow_copy(image, copied, restore=pytest.fail) is copied  # type: ignore[arg-type]


def test_affine_maps_fit_and_keep_the_contrast_of_even_places() -> None:
    found = scene(40, 60)
    gain, offset = affine_maps(found, 0.3 + 0.5 * found)
    torch.testing.assert_close(gain * found + offset, 0.3 + 0.5 * found, atol=0.02, rtol=0)
    assert 0.5 <= gain.min() <= gain.mean() < 0.55
    even = torch.full((1, 3, 40, 60), 0.4)
    gain, offset = affine_maps(even, even + 0.2)
    torch.testing.assert_close(gain, torch.ones_like(gain), atol=0.002, rtol=0)
    torch.testing.assert_close(gain * even + offset, even + 0.2, atol=1e-5, rtol=0)


def test_rows_of_enlarged_maps() -> None:
    maps = torch.rand(2, 3, 7, 11)
    whole = functional.interpolate(maps, (40, 11), mode="bilinear", align_corners=False)
    for top, count in ((0, 40), (0, 13), (13, 27)):
        torch.testing.assert_close(rows_of(maps, top, count, 40), whole[..., top : top + count, :])


def test_gradients_pass() -> None:
    image = scene(600, 900).requires_grad_()
    follow_copy(image, hazier_at_full_size(image), hazier_at_full_size).image.mean().backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()
    assert image.grad.abs().sum() > 0


def test_restorer_and_front_end_agree(tiny: VRDIR, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both follow the copy, and so give the same image."""
    monkeypatch.setattr(large_images, "LARGE_PIXELS", 96 * 96 - 1)
    monkeypatch.setattr(large_images, "COPY_PIXELS", 64 * 64)
    image = scene(96, 96)
    alone = tiny.restore(image).image
    by_restorer = vrdir.Restorer(tiny, device="cpu")(image)
    by_front_end = vrdir.Restore(tiny)(image)
    assert (by_restorer - alone).abs().max() > 1e-4
    torch.testing.assert_close(by_front_end, by_restorer, atol=1e-5, rtol=0)


def test_levels_of_copies_are_smoothed_over_frames(
    tiny: VRDIR, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame of a video depends on the ones before it, also where its copy decides."""
    monkeypatch.setattr(large_images, "LARGE_PIXELS", 96 * 96 - 1)
    monkeypatch.setattr(large_images, "COPY_PIXELS", 64 * 64)
    kept: list[Tensor | None] = []
    restore = VRDIR.restore

    def recorded(self: VRDIR, image: Tensor, *args: Any, **kwargs: Any) -> Restoration:
        if image.shape[-1] < 96:
            levels = kwargs["statistics"]
            kept.append(levels.level(self.decoder, torch.full((1, 6, 1, 1), float(len(kept)))))
        return restore(self, image, *args, **kwargs)

    monkeypatch.setattr(VRDIR, "restore", recorded)
    frames = [scene(96, 96)[0].permute(1, 2, 0).numpy()] * 3
    list(vrdir.Restorer(tiny, device="cpu").stream(frames, smoothing=0.8))
    levels = [float(level.mean()) for level in kept if level is not None]
    assert levels == pytest.approx([0, 0.5, 1])  # the plain averages of 0, 1 and 2


def test_copy_of_a_large_image_is_sharp() -> None:
    stripes = torch.zeros(1, 3, 8, 800)
    stripes.unflatten(-1, (100, 8))[..., :4] = 1.0
    bicubic = resized(stripes, (4, 400))
    bilinear = functional.interpolate(stripes, (4, 400), mode="bilinear", antialias=True)
    assert bicubic.std() > bilinear.std()
    assert 0 <= bicubic.min() <= bicubic.max() <= 1
