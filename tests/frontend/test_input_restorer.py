"""The images in a recogniser's input are restored; everything else stays the same."""

from collections import UserDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.frontend.recognisers import MEAN, STD, HuggingFaceModel, Seen, classifier, normalised
from torch import Tensor

import vrdir
from vrdir.images.sixteen_bits import DeepPicture
from vrdir.model.vrdir import VRDIR, Restoration
from vrdir.restoring.large_images import LARGE_PIXELS


def test_output_has_the_structure_of_the_input(
    tiny: VRDIR, photo_batch: Tensor, photo: Image.Image
) -> None:
    model = vrdir.restore_before(Seen(), tiny)
    restored = tiny(photo_batch).detach()
    torch.testing.assert_close(model(photo_batch[0]).detach(), restored[0])
    torch.testing.assert_close(model(photo_batch.half()).float(), restored, atol=2e-3, rtol=0)
    eight_bit = (photo_batch * 255).round().byte()
    found = model(eight_bit)
    assert found.dtype == torch.uint8
    assert (found.float() - restored * 255).abs().max() < 0.51  # rounded once
    different = [photo_batch[0], photo_batch[1, :, :40, :50]]
    images = model(different)
    assert [tuple(i.shape) for i in images] == [(3, 75, 97), (3, 40, 50)]
    torch.testing.assert_close(images[1], tiny(different[1][None])[0])
    array = model(photo_batch.numpy())
    assert isinstance(array, np.ndarray)
    np.testing.assert_allclose(array, restored.numpy(), atol=1e-5)
    np.testing.assert_allclose(
        model(photo_batch.permute(0, 2, 3, 1).numpy()),
        restored.permute(0, 2, 3, 1).numpy(),
        atol=1e-5,
    )
    assert np.array_equal(np.asarray(model(photo)), eight_bit_of(restored[0]))
    assert model(torch.zeros(0, 3, 8, 8)).shape == (0, 3, 8, 8)
    batch = UserDict(pixel_values=photo_batch, labels="kept")
    answer = model(batch)
    torch.testing.assert_close(answer["pixel_values"].detach(), restored)
    assert answer["labels"] == "kept"
    assert batch["pixel_values"] is photo_batch


def eight_bit_of(image: Tensor) -> np.ndarray[Any, Any]:
    return (image * 255).round().byte().permute(1, 2, 0).numpy()


def test_arguments_by_name_and_position(tiny: VRDIR, photo_batch: Tensor) -> None:
    restored = tiny(photo_batch)
    mask = torch.ones(2, 75, 97)
    hugging = vrdir.restore_before(HuggingFaceModel(), tiny)
    answer = hugging(pixel_values=photo_batch, pixel_mask=mask)
    torch.testing.assert_close(answer["pixel_values"], restored)
    assert answer["pixel_mask"] is mask
    named = vrdir.restore_before(lambda text, picture: picture, tiny, argument="picture")
    torch.testing.assert_close(named("a cat", picture=photo_batch), restored)
    second = vrdir.restore_before(lambda text, picture: picture, tiny, argument=1)
    torch.testing.assert_close(second("a cat", photo_batch), restored)
    with pytest.raises(
        ValueError,
        match=r"no images in this call \(arguments: 0 by position, boxes\); name the argument",
    ):
        hugging(boxes=1)


@pytest.fixture
def padded(photo_batch: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    """A padded, normalised batch, its mask, and the single images, two of them of one size."""
    images = [
        photo_batch[0, :, :40, :50],
        photo_batch[1, :, :40, :50],
        photo_batch[1],
        photo_batch[0, :, 5:30],
    ]
    batch, mask = torch.zeros(5, 3, 80, 97), torch.zeros(5, 80, 97, dtype=torch.int64)
    for number, image in enumerate(images):
        rows, columns = image.shape[1:]
        batch[number, :, :rows, :columns] = normalised(image)
        mask[number, :rows, :columns] = 1
    batch[4] = torch.randn(3, 80, 97)  # no pixel of it is valid
    return batch, mask, images


def test_images_of_a_padded_batch_are_restored_alone(tiny: VRDIR, padded: Any) -> None:
    batch, mask, images = padded
    model = vrdir.restore_before(HuggingFaceModel(), tiny, mean=MEAN, std=STD)
    restored = model(pixel_values=batch, pixel_mask=mask)["pixel_values"]
    for found, image in zip(restored, images, strict=False):
        rows, columns = image.shape[1:]
        torch.testing.assert_close(found[:, :rows, :columns], normalised(tiny(image[None])[0]))
    outside = (mask == 0)[:, None].expand_as(batch)
    assert torch.equal(restored[outside], batch[outside])
    assert torch.equal(batch[outside][:9], torch.zeros(9))  # the input is unchanged
    by_position, by_mapping = (
        model(batch, mask.bool()),
        model.front_end({"pixel_values": batch, "pixel_mask": mask}),
    )
    arrays = model(pixel_values=batch.numpy(), pixel_mask=mask.numpy())
    # DETR's own mask is true where the padding is.
    nested = model.front_end(SimpleNamespace(tensors=batch, mask=mask == 0))
    for again in (
        by_position["pixel_values"],
        by_mapping["pixel_values"],
        torch.from_numpy(arrays["pixel_values"]),
        nested.tensors,
    ):
        assert torch.equal(again, restored)
    torch.testing.assert_close(
        model(pixel_values=batch[0], pixel_mask=mask[0])["pixel_values"], restored[0]
    )
    as_list = model(pixel_values=list(batch), pixel_mask=list(mask))["pixel_values"]
    torch.testing.assert_close(torch.stack(as_list), restored)


def test_masked_pixels_stay_and_gradients_pass(tiny: VRDIR, photo_batch: Tensor) -> None:
    seen: list[Restoration] = []
    model = vrdir.restore_before(HuggingFaceModel(), tiny, hook=seen.append)
    mask = torch.zeros(2, 75, 97)
    mask[0, 10:40, 20:60] = 1  # the padding may be on any side
    mask[1, 3:70, 5:90] = 1
    mask[1, 30:40, 30:40] = 0  # and inside the image
    image = photo_batch.clone().requires_grad_()
    restored = model(pixel_values=image, pixel_mask=mask)["pixel_values"]
    outside = (mask == 0)[:, None].expand_as(image)
    assert torch.equal(restored[outside], photo_batch[outside])
    torch.testing.assert_close(
        restored[0, :, 10:40, 20:60], tiny(photo_batch[:1, :, 10:40, 20:60])[0]
    )
    assert [tuple(r.image.shape) for r in seen] == [(1, 3, 30, 40), (1, 3, 67, 85)]
    restored.sum().backward()
    assert image.grad is not None
    assert set(image.grad[0, :, mask[0] == 0].flatten().tolist()) == {1.0}
    assert len(set(image.grad[0, :, mask[0] == 1].flatten().tolist())) > 1
    for wrong in (mask[0], mask[:, :40], mask[:, None]):
        with pytest.raises(
            ValueError, match=r"the pixel_mask of images \(2, 3, 75, 97\) must be \(B, H, W\), not"
        ):
            model(pixel_values=image, pixel_mask=wrong)
    with pytest.raises(RuntimeError, match="a pixel_mask makes the work depend on the data"):
        torch.export.export(model, (), {"pixel_values": photo_batch, "pixel_mask": mask})


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(2, 1, 8, 8), r"not \(2, 1, 8, 8\)"),
        (torch.rand(8, 8, 3), r"not \(8, 8, 3\); it looks like \(H, W, 3\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), "uint8 or floating point, not int64"),
        (np.zeros((8, 8), np.float32), r"\(B, 3, H, W\), \(3, H, W\) or \(H, W, 3\), not \(8, 8\)"),
        (7, "cannot find images in a int"),
        ({"text": "a cat"}, "no images under any of pixel_values, .*; the mapping has text"),
        ("https://example.org/cat.jpg", "an address, which is not downloaded"),
        ("nowhere.png", "nowhere.png does not exist"),
    ],
)
def test_input_without_images_raises(tiny: VRDIR, images: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vrdir.restore_before(Seen(), tiny)(images)


def test_hook_receives_image_and_guidance(tiny: VRDIR) -> None:
    seen: list[Restoration] = []
    model = vrdir.restore_before(classifier(), tiny, mean=MEAN, std=STD, hook=seen.append)
    images = torch.rand(5, 3, 200, 256)  # more than is restored at once
    model(normalised(images))
    (restoration,) = seen
    expected = tiny.restore(images)
    torch.testing.assert_close(restoration.image, expected.image, atol=1e-5, rtol=0)
    torch.testing.assert_close(restoration.shares, expected.shares)
    for mine, theirs in zip(restoration.guidance, expected.guidance, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)


def test_large_pictures_are_processed_in_strips(
    tiny: VRDIR, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Restoration] = []
    # More than a megapixel
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1100, 3), dtype=np.uint8)
    whole: list[torch.Size] = []
    restore = VRDIR.restore

    def only_copies(self: VRDIR, image: Tensor, *args: Any, **kwargs: Any) -> Restoration:
        if image.shape[-2] * image.shape[-1] > LARGE_PIXELS:
            whole.append(image.shape)
        return restore(self, image, *args, **kwargs)

    monkeypatch.setattr(VRDIR, "restore", only_copies)
    restored = vrdir.restore_before(Seen(), tiny, hook=seen.append)(Image.fromarray(noise))
    assert not whole  # never as a whole image
    assert np.array_equal(
        np.asarray(restored), np.asarray(vrdir.Restorer(tiny, "cpu")(Image.fromarray(noise)))
    )
    assert seen[0].shares.shape == (1, len(tiny.config.guidance_names))
    tensor = torch.from_numpy(noise).permute(2, 0, 1)[None]
    with torch.no_grad():
        assert vrdir.restore_before(Seen(), tiny)(tensor).shape == tensor.shape
    assert not whole
    vrdir.Restorer(tiny, "cpu")(noise[None].repeat(2, 0))
    assert not whole
    monkeypatch.undo()
    small = np.random.default_rng(0).integers(0, 256, (5, 200, 300, 3), dtype=np.uint8)
    expected = np.stack([vrdir.Restorer(tiny, "cpu")(one) for one in small])
    pieces: list[int] = []

    def record(self: VRDIR, image: Tensor, *args: Any, **kwargs: Any) -> Restoration:
        pieces.append(len(image))
        return restore(self, image, *args, **kwargs)

    monkeypatch.setattr(VRDIR, "restore", record)
    assert np.abs(vrdir.Restorer(tiny, "cpu")(small).astype(int) - expected).max() <= 1
    assert pieces == [2, 2, 1]  # a long batch needs no more memory than a short one


def test_pictures_of_16_bits_become_pil_images(tiny: VRDIR, tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (20, 30, 3), dtype=np.uint16)
    DeepPicture(deep, {}).save(tmp_path / "deep.png")
    model = vrdir.restore_before(lambda image: image, tiny, device="cpu")
    restored = vrdir.Restorer(tiny, "cpu")(tmp_path / "deep.png")
    for given in (tmp_path / "deep.png", DeepPicture(deep, {})):
        seen = model(given)
        assert isinstance(seen, Image.Image)
        assert np.array_equal(np.asarray(seen), np.asarray(restored.reduced()))
    grey = DeepPicture(deep[..., :2], {})
    assert vrdir.Restore(tiny, "cpu")(grey).mode == "LA;16"


def test_arrays_of_either_byte_order_and_empty_arrays(tiny: VRDIR, photo: Image.Image) -> None:
    model = vrdir.restore_before(Seen(), tiny)
    array = np.asarray(photo, np.float32)[None] / 255
    np.testing.assert_array_equal(model(array.astype(">f4")), model(array))
    for empty in (np.zeros((0, 9, 9, 3), np.uint8), np.zeros((0, 3, 9, 9), np.float32)):
        assert model(empty).shape == empty.shape


def test_image_by_position_comes_before_known_names(tiny: VRDIR, photo_batch: torch.Tensor) -> None:
    model = vrdir.restore_before(lambda image, source=None: (image, source), tiny, device="cpu")
    seen, source = model(photo_batch, source="cam1")
    torch.testing.assert_close(seen, tiny(photo_batch))
    assert source == "cam1"


def test_negative_position_raises(tiny: VRDIR, photo_batch: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="no images in this call"):
        vrdir.restore_before(lambda image: image, tiny, device="cpu", argument=-1)(photo_batch)
