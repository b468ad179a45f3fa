"""Shared by all tests: photos from scikit-image's wheel, and tiny networks with random weights."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from vrdir.model.config import VRDIRConfig
from vrdir.model.vrdir import VRDIR

TINY = VRDIRConfig(
    extractor="efficientnet_lite0",
    strides=(4, 8),
    clean_branch=True,
    branch_blocks=1,
    decoder="pixel_skip",
    widths=(8, 12, 16),
    encoder_blocks=(1, 0, 1),
    decoder_blocks=(1, 1, 1),
    channel_attention=True,
)

# image (B, 3, H, W) -> Identity -> seen, opset 17
IDENTITY_ONNX = bytes.fromhex(
    "08083a630a170a05696d61676512047365656e22084964656e746974791201675a220a05696d616765"
    "12190a17080112130a031201420a0208030a031201480a"
    "0312015762210a047365656e12190a17080112130a031201420a0208030a031201480a0312015742040a001011"
)


LFS_POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{64 * '0'}\nsize 12345\n"


@pytest.fixture
def tiny() -> VRDIR:
    """Return a small network with every part, whose random weights change its input."""
    torch.manual_seed(0)
    model = VRDIR(TINY).eval()
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of clean photos, cut from those in scikit-image's wheel."""
    folder = tmp_path_factory.mktemp("clean")
    for name in ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png"):
        photo = Image.open(Path(skimage.data.__file__).parent / name).convert("RGB")
        for part in range(3):
            photo.crop((part * 90, 20, part * 90 + 200, 220)).save(
                folder / f"{Path(name).stem}_{part}.png"
            )
    return folder


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    """Return a small photo of odd size, RGB."""
    whole = Image.open(Path(skimage.data.__file__).parent / "chelsea.png").convert("RGB")
    return whole.crop((100, 50, 100 + 97, 50 + 75))


@pytest.fixture
def photo_batch(photo: Image.Image) -> torch.Tensor:
    """Return the photo and its mirror image: (2, 3, 75, 97) in [0, 1]."""
    image = torch.from_numpy(np.array(photo)).permute(2, 0, 1) / 255
    return torch.stack([image, image.flip(2)])


@pytest.fixture
def weights(tiny: VRDIR, tmp_path: Path) -> Path:
    """Return a folder with the tiny network."""
    tiny.save_pretrained(tmp_path / "weights")
    return tmp_path / "weights"


def text(result: Any) -> str:
    """Return a command's output and errors in one line, without colours and line breaks."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", result.output + result.stderr).split())
