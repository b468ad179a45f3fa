"""Borders of one colour: found, removed, and put back bit for bit."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import vrdir
from vrdir.model.vrdir import VRDIR, Restoration
from vrdir.restoring.borders import Inner, inside_borders, restore_inside


def scene(height: int = 40, width: int = 60) -> Tensor:
    return 0.2 + 0.6 * torch.rand(3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("pads", "value"),
    [
        ((0, 0, 5, 5), 0.0),  # black bars above and below
        ((7, 7, 0, 0), 0.0),
        ((0, 20, 0, 0), 114 / 255),  # a letterbox with the picture at the left
        ((4, 4, 4, 4), 1.0),  # the frame of a scan
        ((0, 0, 1, 0), 0.0),  # one row
    ],
)
def test_picture_inside_is_found(pads: tuple[int, ...], value: float) -> None:
    image = functional.pad(scene(), pads, value=value)
    left, right, top, bottom = pads
    assert inside_borders(image) == Inner(top, top + 40, left, left + 60)
    assert right + 60 + left == image.shape[2]
    assert bottom + 40 + top == image.shape[1]


def test_borders_can_be_nested() -> None:
    bars = functional.pad(scene(), (0, 0, 6, 6), value=0.0)
    framed = functional.pad(bars, (2, 2, 2, 2), value=1.0)
    assert inside_borders(framed) == Inner(8, 48, 2, 62)


def test_other_edges_are_not_borders() -> None:
    whole = Inner(0, 40, 0, 60)
    assert inside_borders(scene()) == whole
    assert inside_borders(torch.full((3, 40, 60), 0.5)) == whole
    sky = scene()
    sky[:, :10] = 0.7  # of one colour, and almost the same below
    sky[:, 10:20] = 0.7 + 0.5 / 255 * torch.rand(3, 10, 60)
    assert inside_borders(sky) == whole
    coloured = scene()
    coloured[:, 0] = torch.linspace(0, 1, 60)
    assert inside_borders(coloured) == whole


def written(strip: Tensor, first: int, last: int) -> Tensor:
    """Write on some rows of a strip (3, H, W), on a quarter of each."""
    strip[:, first:last, 4:28:2] = 1.0
    return strip


def test_borders_can_contain_text() -> None:
    strip = written(torch.zeros(3, 10, 60), 2, 7)
    assert inside_borders(torch.cat([scene(), strip], 1)) == Inner(0, 40, 0, 60)
    assert inside_borders(torch.cat([strip, scene()], 1)) == Inner(10, 50, 0, 60)
    sideways = torch.cat([scene(), strip], 1).mT
    assert inside_borders(sideways) == Inner(0, 60, 0, 40)


def test_text_that_touches_the_picture_is_not_a_border() -> None:
    strip = written(torch.zeros(3, 10, 60), 6, 10)
    assert inside_borders(torch.cat([strip, scene()], 1)) == Inner(6, 50, 0, 60)


def test_page_of_text_is_not_a_border() -> None:
    page = torch.ones(3, 80, 60)
    for row in range(6, 70, 8):
        page[:, row : row + 4, 4:28:2] = 0.0
    page = torch.cat([page, scene()], 1)
    assert inside_borders(page).top == 6


def test_borders_are_unchanged_and_picture_is_restored_as_without_them(tiny: VRDIR) -> None:
    restorer = vrdir.Restorer(tiny, device="cpu")
    picture = (scene() * 255).byte().permute(1, 2, 0).numpy()
    barred = np.pad(picture, ((9, 9), (0, 0), (0, 0)))
    restored = restorer(barred)
    assert np.array_equal(restored[:9], barred[:9])
    assert np.array_equal(restored[-9:], barred[-9:])
    assert np.array_equal(restored[9:-9], restorer(picture))
    seen = vrdir.Restorer(tiny, device="cpu", borders=False)(barred)
    assert not np.array_equal(seen, restored)


def test_each_image_of_a_batch_has_its_own_borders(tiny: VRDIR) -> None:
    restorer = vrdir.Restorer(tiny, device="cpu")
    batch = torch.stack([scene(), scene()])
    batch[1, :, :, :12] = 0.0
    restored = restorer.restore(batch)
    assert torch.allclose(restored.image[0], restorer(batch[0]), atol=1e-5)
    assert torch.allclose(restored.image[1, :, :, 12:], restorer(batch[1, :, :, 12:]), atol=1e-5)
    assert torch.equal(restored.image[1, :, :, :12], batch[1, :, :, :12])
    assert len(restored.shares) == len(restored.diagnosis) == 2


def test_gradients_pass_inside_borders_and_around_them() -> None:
    image = functional.pad(scene(), (0, 0, 5, 5))[None].requires_grad_()
    result = restore_inside(image, lambda part: Restoration(2 * part, [], torch.zeros(1, 1)), 8)
    result.image.sum().backward()
    assert image.grad is not None
    assert torch.equal(image.grad[:, :, 5:-5], torch.full((1, 3, 40, 60), 2.0))
    assert torch.equal(image.grad[:, :, :5], torch.ones(1, 3, 5, 60))


def test_guidance_of_a_batch_with_borders_has_the_size_of_the_image(tiny: VRDIR) -> None:
    batch = torch.stack([scene(48, 64), scene(48, 64)])
    batch[1, :, :16] = 0.0
    batch[1, :, :, :8] = 0.0
    multiple = tiny.config.multiple
    with torch.no_grad():
        whole = tiny.restore(batch)
        inside = tiny.restore(batch[1:, :, 16:, 8:])
        found = restore_inside(batch, tiny.restore, multiple)
    assert [maps.shape for maps in found.guidance] == [maps.shape for maps in whole.guidance]
    for maps, part, stride in zip(
        found.guidance, inside.guidance, tiny.config.strides, strict=True
    ):
        top, left = 16 // stride, 8 // stride
        expected = part[0, :, : 48 // stride - top, : 64 // stride - left]
        torch.testing.assert_close(maps[1, :, top:, left:], expected)
        torch.testing.assert_close(maps[1, :, 0], maps[1, :, top])  # a border repeats the edge
        torch.testing.assert_close(maps.sum(1), torch.ones_like(maps[:, 0]))
    torch.testing.assert_close(found.guidance[0][0], whole.guidance[0][0])


@pytest.mark.parametrize("size", [(1, 9), (33, 50), (17, 16)])
def test_guidance_with_borders_of_any_size(tiny: VRDIR, size: tuple[int, int]) -> None:
    image = functional.pad(scene(*size), (3, 11, 7, 2), value=0.0)[None]
    with torch.no_grad():
        whole = tiny.restore(image)
        found = restore_inside(image, tiny.restore, tiny.config.multiple)
    assert [maps.shape for maps in found.guidance] == [maps.shape for maps in whole.guidance]
