"""Small recognisers that the tests of the front-end share."""

from typing import Any

import torch
from torch import Tensor, nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Seen(nn.Module):
    """A recogniser that returns its input, times a parameter."""

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


def classifier() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 4, 5, stride=4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
    ).eval()
