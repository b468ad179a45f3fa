"""Tiny recognisers, photos and weights for adaptation."""

from pathlib import Path

import pytest
import skimage.data
import torch
from PIL import Image
from torch import Tensor, nn

from vrdir.model.vrdir import VRDIR


class TinyClassifier(nn.Module):
    """Three convolutions and five classes, with random weights that are always the same."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.early = nn.Conv2d(3, 8, 3, 2, 1)
        self.late = nn.Sequential(nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(12, classes)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.late(self.early(x)).mean((2, 3)))


class TinyEmbedder(TinyClassifier):
    """The same with vectors of unit length."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(super().forward(x), dim=1)


@pytest.fixture
def classifier() -> TinyClassifier:
    return TinyClassifier()


@pytest.fixture
def embedder() -> TinyEmbedder:
    return TinyEmbedder(classes=16)


@pytest.fixture
def weights(tiny: VRDIR, tmp_path: Path) -> Path:
    """Return a folder with a tiny network, whose random weights harm what it restores."""
    tiny.save_pretrained(tmp_path / "begun")
    return tmp_path / "begun"


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 20 clean photos."""
    folder = tmp_path_factory.mktemp("photos")
    for name in ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png"):
        photo = Image.open(Path(skimage.data.__file__).parent / name).convert("RGB")
        for part in range(5):
            left = part * 30
            photo.crop((left, 20, left + 150, 150)).save(folder / f"{Path(name).stem}_{part}.png")
    return folder
