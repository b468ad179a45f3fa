"""Recognition losses: a recogniser's features and answers on restored and on clean images.

No labels are used: the clean image is the teacher.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from vrdir.errors import MissingFileError
from vrdir.model.blocks import move_to
from vrdir.model.intrinsic_extractor import EfficientNetLite0
from vrdir.training.losses import dense_consistency
from vrdir.training.onnx_network import OnnxNetwork
from vrdir.training.recipe_parts import DetectorSettings


class Recognition:
    """Compares the features of a frozen classifier, EfficientNet-Lite0.

    Args:
        extractor: the network that the model's E is cut from.
    """

    def __init__(self, extractor: str) -> None:
        self.from_extractor = extractor == "efficientnet_lite0"
        self.recogniser: EfficientNetLite0 | None = None

    def load(self, device: torch.device, extractor_weights: Path | None) -> None:
        """Load the recogniser, from the extractor's file where that is the same network."""
        if self.recogniser is None:
            recogniser = EfficientNetLite0((4, 8, 16, 32))
            recogniser.load_pretrained(extractor_weights if self.from_extractor else None)
            self.recogniser = move_to(recogniser.requires_grad_(False), device)

    def loss(self, restored: Tensor, clean: Tensor) -> Tensor:
        """Return the mean cosine distance of the features, over positions and taps."""
        assert self.recogniser is not None
        with torch.no_grad():
            wanted = self.recogniser(clean)
        return dense_consistency(self.recogniser(restored), wanted)


class Detection:
    """Compares what a frozen detector finds, and the features by which it does.

    Args:
        settings: the detector's file and which of its tensors are compared.
    """

    def __init__(self, settings: DetectorSettings) -> None:
        self.settings = settings
        self.detector: OnnxNetwork | None = None

    def load(self, device: torch.device) -> None:
        """Read the detector's file. Raises MissingFileError or RecogniserError, naming it."""
        if not self.settings.file.is_file():
            raise MissingFileError(f"the detector does not exist: {self.settings.file}")
        tensors = (*self.settings.features, *self.settings.predictions)
        self.detector = move_to(OnnxNetwork(self.settings.file, tensors), device)

    def loss(self, restored: Tensor, clean: Tensor) -> Tensor:
        """Return the divergence of the found objects plus the relative error of the features.

        The divergence is Kullback and Leibler's between the probabilities of each class at each
        position, summed and divided by the number of objects in the clean image. Features count
        where there are objects, and a twentieth elsewhere.
        """
        assert self.detector is not None
        count = self.settings.images
        size = (self.settings.side, self.settings.side)
        sized = [
            functional.interpolate(image[:count].float(), size, mode="bilinear")
            for image in (restored, clean)
        ]
        with torch.no_grad():
            wanted = [t.float() for t in self.detector(sized[1])]
        found = [t.float() for t in self.detector(sized[0])]
        kinds = len(self.settings.features)
        pairs = [
            (probabilities(f), probabilities(w))
            for f, w in zip(found[kinds:], wanted[kinds:], strict=True)
        ]
        objects = torch.stack([w.sum() for _, w in pairs]).sum() + len(sized[0])
        divergence = torch.stack([bernoulli_divergence(w, f).sum() for f, w in pairs]).sum()
        errors = [
            relative_error(f, w, [p for _, p in pairs])
            for f, w in zip(found[:kinds], wanted[:kinds], strict=True)
        ]
        return divergence / objects + torch.stack(errors).mean()


def probabilities(prediction: Tensor) -> Tensor:
    """Return the probability of each class, (B, classes, h, w), of a YOLOX prediction map.

    The map is (B, 5 + classes, h, w): a box, whether there is an object, and which.
    """
    return prediction[:, 4:5] * prediction[:, 5:]


def bernoulli_divergence(wanted: Tensor, found: Tensor) -> Tensor:
    """Return `KL(wanted || found)` of probabilities, element by element."""
    wanted, found = wanted.clamp(1e-4, 1 - 1e-4), found.clamp(1e-4, 1 - 1e-4)
    return wanted * (wanted / found).log() + (1 - wanted) * ((1 - wanted) / (1 - found)).log()


def relative_error(found: Tensor, wanted: Tensor, classes: list[Tensor]) -> Tensor:
    """Return the L1 error of features over their mean, weighted by where objects are."""
    weight = torch.ones_like(wanted[:, :1]) * 0.05
    for probability in classes:
        if probability.shape[-2:] == wanted.shape[-2:]:
            weight = weight + probability.amax(1, keepdim=True)
    error = ((found - wanted).abs() * weight).sum()
    return error / (wanted.abs() * weight).sum().clamp_min(1e-6)
