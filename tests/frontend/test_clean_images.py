"""Clean images: passed nearly unchanged, or skipped on request."""

from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from tests.frontend.recognisers import MEAN, STD, Seen, normalised
from torch import Tensor

import vrdir
from vrdir.model.config import PAPER
from vrdir.model.vrdir import VRDIR


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
        monkeypatch.setattr(tiny.decoder, "forward", None)  # the decoder is not run at all
        assert torch.equal(everything(values), values)


def test_skipping_needs_a_clean_branch() -> None:
    paper = VRDIR(PAPER)
    for build in (
        lambda: vrdir.restore_before(Seen(), paper, skip_clean=True),
        lambda: vrdir.Restorer(paper, "cpu", skip_clean=True),
    ):
        with pytest.raises(ValueError, match="skip_clean needs a network with a clean branch"):
            build()


def test_bundled_weights_do_not_skip_a_noisy_photo(photo: Image.Image) -> None:
    coffee = (
        Image.open(Path(skimage.data.__file__).parent / "coffee.png")
        .convert("RGB")
        .resize((256, 256), Image.Resampling.BICUBIC)
    )
    restore = vrdir.Restore(device="cpu", skip_clean=True)
    noisy = vrdir.degrade(coffee, "noise:sigma=25", seed=0)
    assert not np.array_equal(np.asarray(restore(noisy)), np.asarray(noisy))
