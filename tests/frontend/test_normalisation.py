"""A recogniser's normalisation: declared, read, undone and applied again."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.frontend.recognisers import MEAN, STD, Seen, normalised
from torch import Tensor, nn

import vrdir
from vrdir.frontend import Normalisation, find_normalisation
from vrdir.model.vrdir import VRDIR


def caffe_normalised(image: Tensor) -> Tensor:
    return image.flip(1) * 255 - torch.tensor([103.5, 116.3, 123.7]).view(3, 1, 1)


@pytest.mark.parametrize(
    ("declared", "make"),
    [
        ({}, lambda x: x),
        ({"mean": MEAN, "std": STD}, normalised),
        ({"range": 255}, lambda x: x * 255),
        ({"range": (-1, 1)}, lambda x: x * 2 - 1),
        # EfficientNet-Lite's own
        ({"mean": 127, "std": 128, "range": 255}, lambda x: (x * 255 - 127) / 128),
        ({"mean": (103.5, 116.3, 123.7), "range": 255, "channels": "bgr"}, caffe_normalised),
    ],
)
def test_declared_normalisation_is_undone_and_redone(
    tiny: VRDIR, photo_batch: Tensor, declared: Any, make: Any
) -> None:
    model = vrdir.restore_before(Seen(), tiny, **declared)
    torch.testing.assert_close(
        model(make(photo_batch)), make(tiny(photo_batch)), rtol=1e-4, atol=1e-4
    )


def test_normalisation_is_read_from_descriptions() -> None:
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
    # Declarations come first, field by field.
    assert find_normalisation(
        SimpleNamespace(pretrained_cfg=timm), std=1, channels="bgr"
    ) == Normalisation(MEAN, (1.0,) * 3, channels="bgr")
    # In a Compose the step that normalises is read; else a step that scales to [0, 1].
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
    # The recogniser may apply its own mean.
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
def test_unusual_image_processors_are_read(fields: Any, expected: Normalisation) -> None:
    assert find_normalisation(None, SimpleNamespace(**fields)) == expected


def test_invalid_declarations_raise(tiny: VRDIR) -> None:
    for wrong, message in (
        ({"mean": (0.5, 0.5)}, "one for each of 3 channels, not 2"),
        ({"std": 0}, "std positive"),
        ({"range": (1, 0)}, "range must be increasing"),
        ({"range": (1,)}, r"range must be the value of white, or \(black, white\), not \(1,\)"),
        ({"range": "255"}, "range must be the value of white"),
        ({"range": (0, float("nan"))}, "range must be finite"),
        ({"channels": "grb"}, '"rgb" or "bgr"'),
        ({"preprocessing": object()}, "no normalisation can be read from a object"),
        ({"skip_clean": 2.0}, "skip_clean must be True, False or a share"),
    ):
        with pytest.raises(ValueError, match=message):
            vrdir.restore_before(Seen(), tiny, **wrong)


def test_values_out_of_range_raise(tiny: VRDIR, photo_batch: Tensor) -> None:
    model = vrdir.restore_before(Seen(), tiny)
    with pytest.raises(ValueError, match=r"ranges from -2.* the recogniser really receives: mean="):
        model(normalised(photo_batch))
    with pytest.raises(ValueError, match=r"ranges from 0 to 2\d\d "):
        model((photo_batch * 255).round())
    with pytest.raises(ValueError, match="ranges from nan"):
        model(photo_batch * float("nan"))
    with pytest.raises(ValueError, match="ranges from -1 to "):
        model(photo_batch * 2 - 1)
    overshoot = photo_batch * 1.1 - 0.05  # as after a resampling filter
    torch.testing.assert_close(model(overshoot), tiny(overshoot.clamp(0, 1)))
    # PyTorch's bicubic filter overshoots more at single points, most of all in noise
    noisy = (
        photo_batch
        + 0.2 * torch.randn(photo_batch.shape, generator=torch.Generator().manual_seed(0))
    ).clamp(0, 1)
    resized = nn.functional.interpolate(noisy, (150, 130), mode="bicubic")
    assert float(resized.amax()) > 1.12
    torch.testing.assert_close(model(resized), tiny(resized.clamp(0, 1)))
    assert vrdir.Restorer(tiny, "cpu")(resized).shape == resized.shape
    fog = torch.linspace(0.55, 0.95, 90).expand(3, 90, 90).clone()
    fog[:, :3] = 0.3  # few dark pixels, all out of the declared range
    for batch in (
        fog[None] * 2 - 1,
        torch.cat(
            [photo_batch[:1, :, :75, :75].repeat(31, 1, 1, 1), fog[None, :, :75, :75] * 2 - 1]
        ),
    ):
        with pytest.raises(ValueError, match=r"ranges from -0.4"):
            model(batch)


def test_undeclared_normalisation_is_logged_once(
    tiny: VRDIR, photo_batch: Tensor, photo: Image.Image, caplog: pytest.LogCaptureFixture
) -> None:
    foggy = (photo_batch * 0.3 + 0.63 - 0.5) / 0.5  # normalised, but within [0, 1]
    assert 0 <= foggy.min() <= foggy.max() <= 1
    timm: Any = Seen()
    detector: Any = Seen()
    timm.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    # torchvision's detectors normalise inside
    detector.transform = SimpleNamespace(image_mean=[0.5] * 3)
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
        "declare it in restore_before, with mean= and std=, range=255 or preprocessing="
        in caplog.text
    )
    silent(foggy)
    vrdir.restore_before(lambda images: images, tiny, device="cpu", channels="bgr")(foggy.numpy())
    # Once for each recogniser; the channel order does not give the scale.
    assert len(caplog.records) == 2


def test_mean_accepts_numbers_and_rejects_others() -> None:
    one: Any
    wrong: Any
    for one in (np.float32(0.5), torch.tensor(0.5), [0.5, 0.5, 0.5], np.full(3, 0.5)):
        assert find_normalisation(nn.Identity(), mean=one).mean == (0.5, 0.5, 0.5)
    for wrong in (float("nan"), "imagenet", (1.0, 2.0)):
        with pytest.raises(ValueError, match="^mean "):
            find_normalisation(nn.Identity(), mean=wrong)
