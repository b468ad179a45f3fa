"""restore_before and Restore: the recogniser sees the restored image, in its own normalisation, by its own calling convention."""

import copy
import inspect
import io
import pickle
import subprocess
import sys
from collections import UserDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import GeneratorType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import vrdir
from vrdir.frontend.normalisation import Normalisation, find_normalisation
from vrdir.images.sixteen_bits import DeepPicture
from vrdir.model.vrdir import PAPER, VRDIR, Restoration

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Seen(nn.Module):
    """A recogniser that gives back what it was given, and has a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.names = {0: "cat"}

    def forward(self, images: Any, **rest: Any) -> Any:
        return (
            images * self.weight
            if isinstance(images, Tensor) and images.is_floating_point()
            else images
        )

    def features(self, images: Tensor) -> Tensor:
        return images


class HuggingFaceModel(nn.Module):
    """The calling convention of transformers' vision models."""

    def forward(self, pixel_values: Tensor | None = None, pixel_mask: Tensor | None = None) -> Any:
        return {"pixel_values": pixel_values, "pixel_mask": pixel_mask}


def normalised(image: Tensor, mean: Any = MEAN, std: Any = STD) -> Tensor:
    return (image - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def caffe(image: Tensor) -> Tensor:
    return image.flip(1) * 255 - torch.tensor([103.5, 116.3, 123.7]).view(3, 1, 1)


def classifier() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 4, 5, stride=4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
    ).eval()


# --- normalisation


@pytest.mark.parametrize(
    ("declared", "make"),
    [
        ({}, lambda x: x),
        ({"mean": MEAN, "std": STD}, normalised),
        ({"range": 255}, lambda x: x * 255),
        ({"range": (-1, 1)}, lambda x: x * 2 - 1),
        (
            {"mean": 127, "std": 128, "range": 255},
            lambda x: (x * 255 - 127) / 128,
        ),  # EfficientNet-Lite's own
        ({"mean": (103.5, 116.3, 123.7), "range": 255, "channels": "bgr"}, caffe),
    ],
)
def test_a_declared_normalisation_is_undone_and_redone(
    tiny: VRDIR, photo_batch: Tensor, declared: Any, make: Any
) -> None:
    model = vrdir.restore_before(Seen(), tiny, **declared)
    torch.testing.assert_close(
        model(make(photo_batch)), make(tiny(photo_batch)), rtol=1e-4, atol=1e-4
    )


def test_what_carries_a_normalisation_is_read() -> None:
    imagenet = Normalisation(MEAN, STD)
    timm = {"mean": MEAN, "std": STD, "input_size": (3, 224, 224)}
    preset = SimpleNamespace(mean=list(MEAN), std=list(STD), crop_size=[224])
    processor = SimpleNamespace(
        do_normalize=True,
        image_mean=[0.5] * 3,
        image_std=[0.25] * 3,
        do_rescale=True,
        rescale_factor=1 / 255,
    )
    half = Normalisation((0.5,) * 3, (0.25,) * 3)
    assert find_normalisation(SimpleNamespace(pretrained_cfg=timm)) == imagenet
    assert find_normalisation(None, timm) == imagenet
    assert find_normalisation(None, preset) == imagenet
    assert find_normalisation(None, SimpleNamespace(meta={}, transforms=lambda: preset)) == imagenet
    assert find_normalisation(None, processor) == half
    assert find_normalisation(SimpleNamespace(image_processor=processor)) == half
    # What is declared comes first, field by field.
    assert find_normalisation(
        SimpleNamespace(pretrained_cfg=timm), std=1, channels="bgr"
    ) == Normalisation(MEAN, (1.0,) * 3, channels="bgr")
    # Of a Compose the step that normalises is read; without one, whether it scales to [0, 1].
    resize, to_tensor, normalise = (
        SimpleNamespace(size=224),
        type("ToTensor", (), {})(),
        SimpleNamespace(mean=[0.5] * 3, std=[0.25] * 3),
    )
    assert (
        find_normalisation(None, SimpleNamespace(transforms=[resize, to_tensor, normalise])) == half
    )
    assert (
        find_normalisation(None, SimpleNamespace(transforms=[resize, to_tensor])) == Normalisation()
    )
    assert find_normalisation(None, to_tensor) == Normalisation()
    assert (
        find_normalisation(None, SimpleNamespace(transforms=[type("ConvertImageDtype", (), {})()]))
        == Normalisation()
    )
    with pytest.raises(ValueError, match="no normalisation can be read from a SimpleNamespace"):
        find_normalisation(None, SimpleNamespace(transforms=[resize]))
    # A mean of the recogniser's own may be applied by itself.
    assert find_normalisation(SimpleNamespace(mean=0.5, std=0.5)) == Normalisation()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"do_rescale": True, "rescale_factor": 1 / 255, "do_flip_channel_order": True},
            Normalisation(channels="bgr"),
        ),
        (
            {"do_rescale": True, "rescale_factor": 1 / 127.5, "rescale_offset": True},
            Normalisation(range=(-1.0, 1.0)),
        ),
        (
            {
                "do_rescale": False,
                "do_normalize": True,
                "image_mean": (120, 110, 100),
                "image_std": (60, 60, 60),
            },
            Normalisation((120.0, 110.0, 100.0), (60.0,) * 3, (0.0, 255.0)),
        ),
    ],
)
def test_image_processors_that_differ(fields: Any, expected: Normalisation) -> None:
    assert find_normalisation(None, SimpleNamespace(**fields)) == expected


def test_declarations_that_make_no_sense(tiny: VRDIR) -> None:
    for wrong, message in (
        ({"mean": (0.5, 0.5)}, "one for each of 3 channels, not 2"),
        ({"std": 0}, "std be positive"),
        ({"range": (1, 0)}, "range must rise"),
        ({"range": (1,)}, r"range is the value of white, or \(black, white\), not \(1,\)"),
        ({"range": "255"}, "range is the value of white"),
        ({"range": (0, float("nan"))}, "range must be finite"),
        ({"channels": "grb"}, '"rgb" or "bgr"'),
        ({"preprocessing": object()}, "no normalisation can be read from a object"),
        ({"skip_clean": 2.0}, "skip_clean is True, False or a share"),
    ):
        with pytest.raises(ValueError, match=message):
            vrdir.restore_before(Seen(), tiny, **wrong)


def test_a_wrong_normalisation_is_named(tiny: VRDIR, photo_batch: Tensor) -> None:
    model = vrdir.restore_before(Seen(), tiny)
    with pytest.raises(
        ValueError, match=r"goes from -2.* declare what the recogniser is really given: mean="
    ):
        model(normalised(photo_batch))
    with pytest.raises(ValueError, match=r"goes from 0 to 2\d\d "):
        model((photo_batch * 255).round())
    with pytest.raises(ValueError, match="goes from nan"):
        model(photo_batch * float("nan"))
    with pytest.raises(ValueError, match="goes from -1 to "):
        model(photo_batch * 2 - 1)
    overshoot = photo_batch * 1.1 - 0.05  # as of a resampling filter
    torch.testing.assert_close(model(overshoot), tiny(overshoot.clamp(0, 1)))
    # PyTorch's bicubic filter goes further, at lone points, the more so of noise
    noisy = (
        photo_batch
        + 0.2 * torch.randn(photo_batch.shape, generator=torch.Generator().manual_seed(0))
    ).clamp(0, 1)
    resized = nn.functional.interpolate(noisy, (150, 130), mode="bicubic")
    assert float(resized.amax()) > 1.12
    torch.testing.assert_close(model(resized), tiny(resized.clamp(0, 1)))
    assert vrdir.Restorer(tiny, "cpu")(resized).shape == resized.shape
    fog = torch.linspace(0.55, 0.95, 90).expand(3, 90, 90).clone()
    fog[:, :3] = 0.3  # few dark pixels, and all of them wrong by the range that is declared
    for batch in (
        fog[None] * 2 - 1,
        torch.cat(
            [photo_batch[:1, :, :75, :75].repeat(31, 1, 1, 1), fog[None, :, :75, :75] * 2 - 1]
        ),
    ):
        with pytest.raises(ValueError, match=r"goes from -0.4"):
            model(batch)


def test_a_normalisation_that_nobody_declares_is_warned_of_once(
    tiny: VRDIR, photo_batch: Tensor, photo: Image.Image, caplog: pytest.LogCaptureFixture
) -> None:
    foggy = (photo_batch * 0.3 + 0.63 - 0.5) / 0.5  # normalised, and within [0, 1] all the same
    assert 0 <= foggy.min() <= foggy.max() <= 1
    timm, detector = Seen(), Seen()
    timm.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    detector.transform = SimpleNamespace(
        image_mean=[0.5] * 3
    )  # torchvision's, which normalise inside
    declared = [
        vrdir.restore_before(Seen(), tiny, **one)
        for one in ({"range": 1}, {"mean": 0.5, "std": 0.5}, {"std": 1})
    ]
    declared += [vrdir.restore_before(one, tiny) for one in (timm, detector)]
    for model in declared:
        model(foggy)
    silent = vrdir.restore_before(Seen(), tiny)
    silent((photo_batch * 255).byte())
    silent(photo)
    silent(np.asarray(photo))
    assert not caplog.records
    silent(foggy)
    assert (
        "declare it in restore_before, by mean= and std=, range=255, preprocessing=; or range=1"
        in caplog.text
    )
    silent(foggy)
    vrdir.restore_before(lambda images: images, tiny, device="cpu", channels="bgr")(foggy.numpy())
    assert (
        len(caplog.records) == 2
    )  # once for each recogniser; the order of the channels says nothing of the scale


# --- what a recogniser may be given


def test_structures_come_back_as_they_went_in(
    tiny: VRDIR, photo_batch: Tensor, photo: Image.Image
) -> None:
    model = vrdir.restore_before(Seen(), tiny)
    restored = tiny(photo_batch).detach()
    torch.testing.assert_close(model(photo_batch[0]).detach(), restored[0])
    torch.testing.assert_close(model(photo_batch.half()).float(), restored, atol=2e-3, rtol=0)
    eight_bit = (photo_batch * 255).round().byte()
    found = model(eight_bit)
    assert found.dtype == torch.uint8
    assert (found.float() - restored * 255).abs().max() < 0.51  # rounded, once
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
        ValueError, match=r"no images in this call \(arguments: 0 by position, boxes\); name theirs"
    ):
        hugging(boxes=1)


@pytest.fixture
def padded(photo_batch: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    """A padded batch, normalised, its mask, and the images by themselves, two of which are alike in size."""
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
    batch[4] = torch.randn(3, 80, 97)  # nothing of it is valid
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
    assert torch.equal(batch[outside][:9], torch.zeros(9))  # what came in is as it was
    by_position, by_mapping = (
        model(batch, mask.bool()),
        model.front_end({"pixel_values": batch, "pixel_mask": mask}),
    )
    arrays = model(pixel_values=batch.numpy(), pixel_mask=mask.numpy())
    nested = model.front_end(
        SimpleNamespace(tensors=batch, mask=mask == 0)
    )  # DETR's own, of what is padding
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


def test_what_a_mask_leaves_out_stays_and_gradients_pass(tiny: VRDIR, photo_batch: Tensor) -> None:
    seen: list[Restoration] = []
    model = vrdir.restore_before(HuggingFaceModel(), tiny, hook=seen.append)
    mask = torch.zeros(2, 75, 97)
    mask[0, 10:40, 20:60] = 1  # the padding may be anywhere
    mask[1, 3:70, 5:90] = 1
    mask[1, 30:40, 30:40] = 0  # and need not be a frame
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
            ValueError, match=r"the pixel_mask of images \(2, 3, 75, 97\) is \(B, H, W\), not"
        ):
            model(pixel_values=image, pixel_mask=wrong)
    with pytest.raises(RuntimeError, match="pixel_mask decides by what is in the batch"):
        torch.export.export(model, (), {"pixel_values": photo_batch, "pixel_mask": mask})


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(2, 1, 8, 8), r"not \(2, 1, 8, 8\)"),
        (torch.rand(8, 8, 3), r"not \(8, 8, 3\); it looks like \(H, W, 3\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), "uint8 or floating point, not int64"),
        (np.zeros((8, 8), np.float32), r"\(B, 3, H, W\), \(3, H, W\) or \(H, W, 3\), not \(8, 8\)"),
        (7, "cannot find images in a int"),
        ({"text": "a cat"}, "no images under any of pixel_values, .* among text"),
        ("https://example.org/cat.jpg", "is not fetched from here"),
        ("nowhere.png", "nowhere.png does not exist"),
    ],
)
def test_what_is_no_image_is_refused(tiny: VRDIR, images: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vrdir.restore_before(Seen(), tiny)(images)


def test_what_is_no_recogniser_is_refused(tiny: VRDIR) -> None:
    with pytest.raises(TypeError, match="cannot be"):
        vrdir.restore_before("resnet50", tiny)
    with pytest.raises(TypeError, match="cannot be"):
        vrdir.restore_before(Seen, tiny)
    with pytest.raises(ValueError, match="has a restorer in front already"):
        vrdir.restore_before(vrdir.restore_before(Seen(), tiny), tiny)
    text = SimpleNamespace(task="text-classification", preprocess=None, image_processor=None)
    with pytest.raises(
        ValueError, match="the pipeline for text-classification has no image processor"
    ):
        vrdir.restore_before(type("TextPipeline", (), {"__call__": print, **vars(text)})(), tiny)


def test_methods_that_would_go_past_the_restoration_are_named(tiny: VRDIR) -> None:
    model = vrdir.restore_before(Seen(), tiny)
    assert model.names == {0: "cat"}
    with pytest.raises(
        AttributeError,
        match=r"Seen.features would go past the restoration; .* \.recogniser\.features",
    ):
        _ = model.features
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = model.nothing_like_it


# --- a module like any other


def test_gradients_reach_the_input_and_the_restorer_only_when_asked(
    tiny: VRDIR, photo_batch: Tensor
) -> None:
    model = vrdir.restore_before(classifier(), tiny).train()
    assert model.recogniser.training
    assert not any(m.training for m in model.front_end.modules())
    image = photo_batch.clone().requires_grad_()
    model(image).sum().backward()
    assert image.grad is not None
    assert image.grad.abs().max() > 0
    assert all(p.grad is None for p in tiny.parameters())
    assert all(p.grad is not None for p in model.recogniser.parameters())

    function = vrdir.restore_before(lambda images: images.square(), tiny, device="cpu")
    image.grad = None
    function(image).sum().backward()
    assert image.grad is not None

    model = vrdir.restore_before(classifier(), tiny, train_restorer=True).train()
    assert all(m.training for m in model.front_end.modules())
    model(photo_batch).sum().backward()
    trained = [name for name, p in tiny.named_parameters() if p.grad is not None]
    assert any(name.startswith("decoder") for name in trained)
    assert any(name.startswith("enhancement") for name in trained)
    assert not any(name.startswith("extractor") for name in trained)


def test_half_is_for_the_recogniser(tiny: VRDIR, photo_batch: Tensor) -> None:
    precise = {name: t.clone() for name, t in tiny.state_dict().items()}
    model = vrdir.restore_before(classifier(), tiny, mean=MEAN, std=STD)
    expected = model(normalised(photo_batch))
    found = model.half()(normalised(photo_batch).half())
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), expected, atol=5e-3, rtol=0)
    assert {p.dtype for p in model.recogniser.parameters()} == {torch.float16}
    assert all(torch.equal(t, precise[name]) for name, t in tiny.state_dict().items())
    moved = model.to("meta")
    assert {p.device.type for p in moved.parameters()} == {"meta"}


def test_autocast_is_for_the_recogniser(tiny: VRDIR, photo_batch: Tensor) -> None:
    seen: list[Restoration] = []
    types: list[torch.dtype] = []
    recogniser = classifier()
    recogniser[0].register_forward_hook(lambda module, given, answer: types.append(answer.dtype))
    model = vrdir.restore_before(recogniser, tiny, mean=MEAN, std=STD, hook=seen.append)
    images = normalised(photo_batch).requires_grad_()
    model(images)
    eight_bit = (photo_batch[0] * 255).byte()
    restored = [
        vrdir.Restorer(tiny, "cpu")(eight_bit),
        vrdir.Restore(tiny, "cpu")(eight_bit),
        model.front_end(eight_bit),
    ]
    for half in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", half):
            model(images).float().sum().backward()
            again = [
                vrdir.Restorer(tiny, "cpu")(eight_bit),
                vrdir.Restore(tiny, "cpu")(eight_bit),
                model.front_end(eight_bit),
            ]
        assert torch.equal(seen[-2].image, seen[0].image)
        assert seen[-2].image.dtype == torch.float32
        assert all(map(torch.equal, again, restored))
    assert types == [torch.float32, torch.bfloat16, torch.float16]


def test_state_copies_and_pickles(tiny: VRDIR, photo_batch: Tensor) -> None:
    model = vrdir.restore_before(classifier(), tiny)
    expected = model(photo_batch)
    other = vrdir.restore_before(nn.Sequential(*classifier()), VRDIR(tiny.config))
    assert not torch.equal(other(photo_batch), expected)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(photo_batch), expected)
    assert {key.split(".")[0] for key in model.state_dict()} == {"recogniser", "front_end"}
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(again(photo_batch), expected)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    assert buffer.tell() > 0


def test_the_composite_can_be_exported(tiny: VRDIR) -> None:
    model = vrdir.restore_before(classifier(), tiny, mean=MEAN, std=STD)
    images = torch.rand(5, 3, 48, 64)
    with torch.no_grad():
        batch = torch.export.Dim("batch", min=1, max=64)
        exported = torch.export.export(
            model, (normalised(images[:2]),), dynamic_shapes=({0: batch},)
        )
        for count in (1, 5):
            torch.testing.assert_close(
                exported.module()(normalised(images[:count])), model(normalised(images[:count]))
            )
    skipping = vrdir.restore_before(classifier(), tiny, skip_clean=True)
    with pytest.raises(RuntimeError, match="skip_clean decides by what is in the image"):
        torch.export.export(skipping, (images,))


def test_the_composite_can_be_exported_for_any_size(tiny: VRDIR) -> None:
    model = vrdir.restore_before(classifier(), tiny, mean=MEAN, std=STD)
    images = normalised(torch.rand(3, 3, 131, 75))
    sizes = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    with torch.no_grad():
        example = images[:2, :, :45, :70].contiguous()
        exported = torch.export.export(model, (example,), dynamic_shapes=(sizes,)).module()
        for rows, columns in ((45, 70), (64, 64), (131, 75), (9, 75)):
            view = images[:, :, :rows, :columns]
            torch.testing.assert_close(exported(view), model(view), atol=1e-4, rtol=1e-4)


def test_compiled_recognisers_and_traces(tiny: VRDIR, photo_batch: Tensor) -> None:
    recogniser = classifier()
    model = vrdir.restore_before(recogniser, tiny)
    with torch.no_grad():
        expected = model(photo_batch)
        kinds: list[Any] = [torch.jit.script(recogniser), torch.fx.symbolic_trace(recogniser)]
        kinds.append(torch.jit.trace(recogniser, photo_batch))
        for one in kinds:
            torch.testing.assert_close(vrdir.restore_before(one, tiny)(photo_batch), expected)
        torch.testing.assert_close(torch.jit.trace(model, photo_batch)(photo_batch), expected)
        graph = torch.fx.symbolic_trace(nn.Sequential(model.front_end, recogniser))
        torch.testing.assert_close(graph(photo_batch), expected)
        torch.testing.assert_close(graph(photo_batch[:, :, :40]), model(photo_batch[:, :, :40]))


class Labelling(HuggingFaceModel):
    """One that is given labels, after something else than the image."""

    def forward(  # type: ignore[override]
        self, input_ids: Any = None, pixel_values: Tensor | None = None, *, labels: Any = None
    ) -> Any:
        return pixel_values, labels


def test_the_signature_is_the_recognisers(tiny: VRDIR, photo_batch: Tensor) -> None:
    model = vrdir.restore_before(Labelling(), tiny)
    names = ["input_ids", "pixel_values", "labels"]
    assert list(inspect.signature(model.forward).parameters) == names
    assert list(inspect.signature(type(model).forward).parameters) == [
        "self",
        *names,
    ]  # what Hugging Face's Trainer looks at
    assert inspect.signature(model.forward) == inspect.signature(model.recogniser.forward)
    plain = vrdir.restore_before(Seen(), tiny)
    assert list(inspect.signature(plain.forward).parameters) == ["images", "rest"]
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert list(inspect.signature(type(again).forward).parameters) == ["self", *names]
        assert isinstance(again, type(model).__mro__[1])
    assert type(model._replicate_for_data_parallel()) is type(
        model
    )  # as torch.nn.DataParallel makes them
    seen, labels = model(None, photo_batch, labels=7)  # by position, and not the first
    torch.testing.assert_close(seen, tiny(photo_batch))
    assert labels == 7


def test_the_state_can_be_saved_as_safetensors(
    tiny: VRDIR, photo_batch: Tensor, tmp_path: Path
) -> None:
    model = vrdir.restore_before(classifier(), tiny)
    expected = model(photo_batch)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other = vrdir.restore_before(classifier(), VRDIR(tiny.config))
    assert other.load_state_dict(load_file(tmp_path / "model.safetensors")).missing_keys == []
    torch.testing.assert_close(other(photo_batch), expected)
    save_file(vrdir.Restorer(tiny, "cpu").model.state_dict(), tmp_path / "network.safetensors")
    state = model.state_dict(keep_vars=True)
    assert all(state[name] is parameter for name, parameter in model.named_parameters())


def test_threads_may_share_a_composite(tiny: VRDIR, photo_batch: Tensor) -> None:
    model = vrdir.restore_before(classifier(), tiny, skip_clean=True)
    batches = [photo_batch[:, :, : 30 + 4 * i] for i in range(8)]
    with torch.no_grad():
        expected = [model(batch) for batch in batches]

        def work(batch: Tensor) -> Tensor:
            with torch.no_grad():  # a thread's own
                return model(batch)

        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(work, batches * 2))
    for mine, theirs in zip(found, expected * 2, strict=True):
        assert torch.equal(mine, theirs)


def test_the_hook_sees_the_restored_image_and_the_guidance(tiny: VRDIR) -> None:
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


def test_large_pictures_take_the_memory_that_they_take_elsewhere(
    tiny: VRDIR, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Restoration] = []
    noise = np.random.default_rng(0).integers(
        0, 256, (1000, 1100, 3), dtype=np.uint8
    )  # more than a megapixel
    whole: list[torch.Size] = []
    monkeypatch.setattr(VRDIR, "restore", lambda self, image, *_, **__: whole.append(image.shape))
    restored = vrdir.restore_before(Seen(), tiny, hook=seen.append)(Image.fromarray(noise))
    assert not whole  # never in one piece
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
    restore = VRDIR.restore
    monkeypatch.setattr(
        VRDIR,
        "restore",
        lambda self, image, *a, **k: pieces.append(len(image)) or restore(self, image, *a, **k),
    )
    assert np.abs(vrdir.Restorer(tiny, "cpu")(small).astype(int) - expected).max() <= 1
    assert pieces == [2, 2, 1]  # a long batch takes no more memory than a short one


# --- doing no harm


def test_clean_photos_pass_within_40_db() -> None:
    images = []
    for name in ("astronaut.png", "coffee.png", "motorcycle_left.png"):
        photo = (
            Image.open(Path(skimage.data.__file__).parent / name)
            .convert("RGB")
            .resize((224, 224), Image.Resampling.BICUBIC)
        )
        images.append(torch.from_numpy(np.array(photo)).permute(2, 0, 1) / 255)
    clean = torch.stack(images)
    model = vrdir.restore_before(Seen(), device="cpu", mean=MEAN, std=STD)
    passed = model(normalised(clean)).detach() * torch.tensor(STD).view(3, 1, 1) + torch.tensor(
        MEAN
    ).view(3, 1, 1)
    psnr = -10 * (passed - clean).square().mean((1, 2, 3)).log10()
    assert psnr.min() > 40, psnr


def test_clean_images_are_skipped_one_by_one(
    tiny: VRDIR, photo_batch: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.cat([photo_batch, photo_batch * 0.2, torch.rand_like(photo_batch)])
    with torch.no_grad():
        plain = tiny.restore(images)
        shares = plain.shares[:, -1]
        threshold = float(shares.sort().values[2:4].mean())
        clean = shares >= threshold
        assert 0 < clean.sum() < len(images)
        skipped = tiny.restore(images, skip_clean=threshold)
        assert torch.equal(skipped.image[clean], images[clean])
        torch.testing.assert_close(
            skipped.image[~clean], tiny.restore(images[~clean]).image, atol=1e-6, rtol=0
        )
        torch.testing.assert_close(skipped.image[~clean], plain.image[~clean], atol=1e-6, rtol=0)
        assert torch.equal(tiny.restore(images, skip_clean=1.0).image, plain.image)
        assert torch.equal(skipped.shares, plain.shares)
        eight_bit = (images[0] * 255).byte()
        assert torch.equal(vrdir.Restorer(tiny, "cpu", skip_clean=1e-6)(eight_bit), eight_bit)
        assert not torch.equal(vrdir.Restorer(tiny, "cpu")(eight_bit), eight_bit)
        everything = vrdir.restore_before(Seen(), tiny, mean=MEAN, std=STD, skip_clean=1e-6)
        values = normalised(images)
        monkeypatch.setattr(tiny.decoder, "forward", None)  # the heavy part is not run at all
        assert torch.equal(everything(values), values)


def test_a_restorer_lends_its_network_as_it_is(tiny: VRDIR) -> None:
    skipping = vrdir.Restorer(tiny, "cpu", skip_clean=0.5)
    assert vrdir.restore_before(Seen(), skipping).front_end.skip_clean == 0.5
    assert vrdir.restore_before(Seen(), skipping, skip_clean=False).front_end.skip_clean is False
    assert vrdir.restore_before(Seen(), tiny).front_end.skip_clean is False
    with pytest.raises(
        ValueError,
        match="a front-end computes in float32; give it a Restorer of that precision, not bf16",
    ):
        vrdir.restore_before(Seen(), vrdir.Restorer(tiny, "cpu", precision="bf16"))


def test_a_restorer_follows_its_network(tiny: VRDIR, photo: Image.Image) -> None:
    restorer = vrdir.Restorer(copy.deepcopy(tiny), "cpu")
    vrdir.restore_before(Seen(), restorer).to("meta")
    assert restorer.device.type == "meta"
    for build in (
        lambda net: vrdir.restore_before(Seen(), net),
        lambda net: vrdir.Restorer(net, "cpu"),
    ):
        with pytest.raises(ValueError, match="the network holds float16; give it in float32"):
            build(copy.deepcopy(tiny).half())


def test_pictures_of_16_bits_come_to_the_recogniser_as_pil_pictures(
    tiny: VRDIR, tmp_path: Path
) -> None:
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


def test_arrays_of_either_byte_order_and_empty_ones(tiny: VRDIR, photo: Image.Image) -> None:
    model = vrdir.restore_before(Seen(), tiny)
    array = np.asarray(photo, np.float32)[None] / 255
    np.testing.assert_array_equal(model(array.astype(">f4")), model(array))
    for empty in (np.zeros((0, 9, 9, 3), np.uint8), np.zeros((0, 3, 9, 9), np.float32)):
        assert model(empty).shape == empty.shape


def test_skipping_needs_a_clean_branch() -> None:
    paper = VRDIR(PAPER)
    for build in (
        lambda: vrdir.restore_before(Seen(), paper, skip_clean=True),
        lambda: vrdir.Restorer(paper, "cpu", skip_clean=True),
    ):
        with pytest.raises(ValueError, match="skip_clean needs a network with a clean branch"):
            build()


def test_bundled_weights_tell_clean_from_noisy(photo: Image.Image) -> None:
    coffee = (
        Image.open(Path(skimage.data.__file__).parent / "coffee.png")
        .convert("RGB")
        .resize((256, 256), Image.Resampling.BICUBIC)
    )
    restore = vrdir.Restore(device="cpu", skip_clean=True)
    noisy = vrdir.degrade(coffee, "noise:sigma=25", seed=0)
    assert not np.array_equal(np.asarray(restore(noisy)), np.asarray(noisy))


# --- connectors


class Session:
    """The calling convention of onnxruntime.InferenceSession."""

    def __init__(self, *inputs: tuple[str, str, list[Any]]) -> None:
        self.inputs = [SimpleNamespace(name=n, type=t, shape=s) for n, t, s in inputs]

    def get_inputs(self) -> list[Any]:
        return self.inputs

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]

    def run(self, output_names: Any, input_feed: Any, run_options: Any = None) -> list[Any]:
        return [input_feed]

    def end_profiling(self) -> str:
        return "profile"

    def custom(self) -> None: ...


def test_an_onnx_session(tiny: VRDIR, photo_batch: Tensor) -> None:
    plain = Session(
        ("image", "tensor(float)", ["B", 3, "H", "W"]), ("scale", "tensor(float)", ["B", 2])
    )
    session = vrdir.restore_before(plain, tiny, range=255)
    (feeds,) = session.run(None, {"image": photo_batch.numpy() * 255, "scale": 1})
    assert feeds["image"].flags.c_contiguous
    np.testing.assert_allclose(feeds["image"], tiny(photo_batch).detach().numpy() * 255, atol=1e-2)
    assert feeds["scale"] == 1
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert session.get_inputs() is plain.inputs
    assert session.end_profiling() == "profile"
    with pytest.raises(AttributeError, match="custom would go past"):
        _ = session.custom
    with pytest.raises(ValueError, match="'image' is not among the inputs given: scale"):
        session.run(None, {"scale": 1})
    two = Session(("left", "tensor(float)", [1, 3, 8, 8]), ("right", "tensor(float)", [1, 3, 8, 8]))
    with pytest.raises(
        ValueError,
        match=r"several inputs could be the image: left tensor\(float\) \[1, 3, 8, 8\], right",
    ):
        vrdir.restore_before(two, tiny)
    assert vrdir.restore_before(two, tiny, argument="right").input_name == "right"
    for mask in ([1, 1, "H", "W"], ["B", "C", "H", "W"], [1, 3, 8, 8]):
        for image in (["B", 3, "H", "W"], ["B", "H", "W", 3]):
            masked = Session(("mask", "tensor(float)", mask), ("image", "tensor(float)", image))
            assert vrdir.restore_before(masked, tiny).input_name == "image"
    unnamed = Session(
        ("a", "tensor(float)", [1, 1, "H", "W"]), ("b", "tensor(float)", [1, 3, "H", "W"])
    )
    assert vrdir.restore_before(unnamed, tiny).input_name == "b"
    with pytest.raises(ValueError, match="no input 'middle'"):
        vrdir.restore_before(two, tiny, argument="middle")
    with pytest.raises(ValueError, match="no input looks like an image"):
        vrdir.restore_before(Session(("tokens", "tensor(int64)", ["B", "L"])), tiny)


class Pipeline:
    """The calling convention of a Hugging Face image pipeline."""

    task, image_processor = "object-detection", object()

    def __call__(self, inputs: Any, **options: Any) -> Any:
        if isinstance(inputs, (list, tuple)):
            return [self(image) for image in inputs]
        if isinstance(
            inputs, GeneratorType
        ):  # as transformers tests for it: no other iterator will do
            return (self(image) for image in inputs)
        assert isinstance(inputs, (Image.Image, dict))
        return inputs

    def preprocess(self, image: Any) -> Any:
        return image


def test_a_hugging_face_pipeline(tiny: VRDIR, photo: Image.Image, tmp_path: Path) -> None:
    pipeline = vrdir.restore_before(Pipeline(), tiny, device="cpu")
    expected = np.asarray(vrdir.Restorer(tiny, "cpu")(photo))
    photo.save(tmp_path / "photo.png")
    for images in (photo, str(tmp_path / "photo.png")):
        assert np.array_equal(np.asarray(pipeline(images, threshold=0.5)), expected)
    assert [np.array_equal(np.asarray(i), expected) for i in pipeline([photo, photo])] == [
        True,
        True,
    ]
    question = pipeline({"image": photo, "question": "what?"})
    assert np.array_equal(np.asarray(question["image"]), expected)
    assert question["question"] == "what?"
    drawn: list[int] = []

    def stream() -> Any:
        for i in range(2):
            drawn.append(i)
            yield photo

    answers = pipeline(stream())
    assert drawn == []  # asked for one by one
    assert np.array_equal(np.asarray(next(answers)), expected)
    assert drawn == [0]
    assert pipeline.task == "object-detection"


class Yolo(nn.Module):
    """The calling convention of ultralytics.YOLO, which is a module but takes no batches: arrays are BGR."""

    __module__ = "ultralytics.engine.model"

    def __call__(self, source: Any = None, stream: bool = False, **options: Any) -> Any:
        return source, stream

    def track(self, source: Any = None, **options: Any) -> Any:
        return source


def test_an_ultralytics_model(tiny: VRDIR, photo: Image.Image, tmp_path: Path) -> None:
    model = vrdir.restore_before(Yolo(), tiny, device="cpu")
    expected = np.asarray(vrdir.Restorer(tiny, "cpu")(photo))
    bgr = np.asarray(photo)[..., ::-1]
    source, stream = model(bgr, True)
    assert stream
    assert source.flags.c_contiguous
    assert np.array_equal(source[..., ::-1], expected)
    assert np.array_equal(np.asarray(model.track(photo, persist=True)), expected)
    photo.save(tmp_path / "photo.png")
    opened = model(tmp_path / "photo.png")[0]
    assert np.array_equal(np.asarray(opened), expected)
    assert opened.filename == str(tmp_path / "photo.png")
    assert len(model([photo, bgr])[0]) == 2
    with pytest.raises(ValueError, match="cannot find images in a int"):
        model(0)
    assert (
        vrdir.Restore(tiny, "cpu")(photo).size
        == model(DeepPicture(np.asarray(photo).astype(np.uint16) * 257, {}))[0].size
    )
    with pytest.raises(
        ValueError, match="arrays are known to be BGR, and its tensors RGB; leave channels= out"
    ):
        vrdir.restore_before(Yolo(), tiny, device="cpu", channels="bgr")
    with pytest.raises(AttributeError, match="Yolo.to would go past"):
        _ = model.to


# --- as a transform


class Labelled(Tensor):
    """A tensor of a type of its own, which operations do not keep, as torchvision's tv_tensors are."""

    __torch_function__ = torch._C._disabled_torch_function_impl


def test_a_transform_by_torchvisions_convention(
    tiny: VRDIR, photo: Image.Image, photo_batch: Tensor
) -> None:
    restore = vrdir.Restore(tiny, device="cpu")
    expected = np.asarray(vrdir.Restorer(tiny, "cpu")(photo))
    target = {"boxes": torch.tensor([[1.0, 2, 3, 4]]), "image_id": 7}
    assert np.array_equal(np.asarray(restore(photo)), expected)
    assert np.array_equal(restore(np.asarray(photo)), expected)
    for image, same in (restore(photo, target), restore((photo, target))):
        assert np.array_equal(np.asarray(image), expected)
        assert same is target
    sample = {"image": photo, "mask": photo}
    answer = restore(sample)
    assert np.array_equal(np.asarray(answer["image"]), expected)
    assert answer["mask"] is photo
    assert sample["image"] is photo
    assert type(restore(photo_batch[0].as_subclass(Labelled))) is Labelled
    assert len(restore([photo, photo])) == 2
    with pytest.raises(ValueError, match="in \\[0, 1\\]"):
        restore(normalised(photo_batch))
    with pytest.raises(ValueError, match="no images under any of"):
        restore({"label": 1})


def test_a_transform_by_albumentations_convention(tiny: VRDIR, photo: Image.Image) -> None:
    restore = vrdir.Restore(tiny, device="cpu")
    array = np.asarray(photo)
    boxes = [(1, 2, 3, 4)]
    answer = restore(image=array, bboxes=boxes)
    assert set(answer) == {"image", "bboxes"}
    assert np.array_equal(answer["image"], vrdir.Restorer(tiny, "cpu")(array))
    assert answer["bboxes"] is boxes
    assert np.array_equal(restore(array, shape=(75, 97)), answer["image"])  # as A.Lambda calls it


def test_a_transform_is_a_module(tiny: VRDIR, photo_batch: Tensor, weights: Path) -> None:
    restore = vrdir.Restore(weights, "cpu")
    model = nn.Sequential(restore, classifier())
    with torch.no_grad():
        torch.testing.assert_close(
            model(photo_batch), model[1](vrdir.Restorer(tiny, "cpu")(photo_batch))
        )
    model.train().half()
    assert not any(module.training for module in restore.modules())
    assert {p.dtype for p in restore.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in restore.parameters())
    assert all(
        p.requires_grad
        for p in vrdir.Restore(VRDIR(tiny.config), "cpu").network.decoder.parameters()
    )  # somebody else's
    other = nn.Sequential(vrdir.Restore(VRDIR(tiny.config), "cpu"), classifier())
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other[0](photo_batch), restore(photo_batch))
    again = copy.deepcopy(restore)
    assert again.restorer.model is again.network
    assert str(model.to("meta")[0]) == "Restore(device='meta', skip_clean=False, channels='rgb')"


def test_a_transform_goes_to_the_workers_of_a_loader(
    tiny: VRDIR, photo: Image.Image, tmp_path: Path
) -> None:
    restore = vrdir.Restore(tiny, device="cpu", skip_clean=True)
    expected = np.asarray(restore(photo))
    (tmp_path / "restore.pickle").write_bytes(pickle.dumps((restore, photo)))
    code = "import pickle, sys, numpy; r, p = pickle.load(open(sys.argv[1], 'rb')); numpy.save(sys.argv[2], numpy.asarray(r(p)))"
    subprocess.run(
        [sys.executable, "-c", code, tmp_path / "restore.pickle", tmp_path / "found.npy"],
        check=True,
    )
    assert np.array_equal(np.load(tmp_path / "found.npy"), expected)
    assert restore.restorer.skip_clean is True


def test_the_image_by_position_is_restored_beside_keywords_of_any_name(
    tiny: VRDIR, photo_batch: torch.Tensor
) -> None:
    model = vrdir.restore_before(lambda image, source=None: (image, source), tiny, device="cpu")
    seen, source = model(photo_batch, source="cam1")
    torch.testing.assert_close(seen, tiny(photo_batch))
    assert source == "cam1"


def test_a_negative_position_is_refused(tiny: VRDIR, photo_batch: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="no images in this call"):
        vrdir.restore_before(lambda image: image, tiny, device="cpu", argument=-1)(photo_batch)


def test_a_mean_may_be_any_number_and_what_is_none_is_named() -> None:
    for one in (np.float32(0.5), torch.tensor(0.5), [0.5, 0.5, 0.5], np.full(3, 0.5)):
        assert find_normalisation(nn.Identity(), mean=one).mean == (0.5, 0.5, 0.5)
    for wrong in (float("nan"), "imagenet", (1.0, 2.0)):
        with pytest.raises(ValueError, match="^mean "):
            find_normalisation(nn.Identity(), mean=wrong)


def test_arrays_in_opencvs_order(tiny: VRDIR, photo: Image.Image, tmp_path: Path) -> None:
    rgb = np.asarray(photo)
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    expected = vrdir.Restorer(tiny, "cpu")(rgb)
    restorer = vrdir.Restorer(tiny, "cpu", channels="bgr")
    restore = vrdir.Restore(tiny, "cpu", channels="bgr")
    for found in (
        restorer(bgr),
        restorer.restore(bgr).image,
        restore(bgr),
        restore(image=bgr)["image"],
    ):
        assert np.array_equal(found[..., ::-1], expected)
    tensor = torch.from_numpy(bgr).permute(2, 0, 1)
    assert np.array_equal(restorer(tensor).flip(0).permute(1, 2, 0).numpy(), expected)
    photo.save(tmp_path / "photo.png")
    for picture in (photo, tmp_path / "photo.png"):  # files and pictures are what they are
        assert np.array_equal(np.asarray(restorer(picture)), expected)
    assert np.array_equal(
        vrdir.degrade(bgr, "haze", seed=3, channels="bgr")[..., ::-1],
        vrdir.degrade(rgb, "haze", seed=3),
    )
    for wrong in (vrdir.Restorer, vrdir.Restore):
        with pytest.raises(ValueError, match='channels is "rgb" or "bgr", not'):
            wrong(tiny, "cpu", channels="BGR")
