"""Adaptation to tiny real models of other packages, with random weights.

Tests are skipped where a package is not installed.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.frontend.optional import import_or_skip
from torch import Tensor, nn

import vrdir
from vrdir.adaptation.answers import AnswerKind, Boxes, Classes, Queries
from vrdir.adaptation.recogniser import load_recogniser


def timm_classifier() -> nn.Module:
    return import_or_skip("timm").create_model("mobilenetv3_small_050", num_classes=7)


def torchvision_classifier() -> nn.Module:
    return import_or_skip("torchvision.models").resnet18(num_classes=7)


def torchvision_detector() -> nn.Module:
    detection = import_or_skip("torchvision.models.detection")
    return detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=5, box_score_thresh=0.0
    )


def transformers_classifier() -> nn.Module:
    transformers = import_or_skip("transformers")
    config = transformers.ViTConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        image_size=32, patch_size=8, num_labels=5,
    )  # fmt: skip
    return transformers.ViTForImageClassification(config)


def transformers_detector() -> nn.Module:
    transformers = import_or_skip("transformers")
    config = transformers.YolosConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        image_size=[64, 64], patch_size=16, num_detection_tokens=6, num_labels=3,
        use_mid_position_embeddings=False,
    )  # fmt: skip
    return transformers.YolosForObjectDetection(config)


Loaded = tuple[nn.Module, type[AnswerKind], int]
"""A model, the kind of its answers, and the side of its input."""
MODELS: dict[str, tuple[Callable[[], nn.Module], type[AnswerKind], int]] = {
    "timm": (timm_classifier, Classes, 32),
    "torchvision": (torchvision_classifier, Classes, 64),
    "torchvision detector": (torchvision_detector, Boxes, 96),
    "transformers": (transformers_classifier, Classes, 32),
    "transformers detector": (transformers_detector, Queries, 64),
}


@pytest.fixture(params=MODELS)
def loaded(request: pytest.FixtureRequest) -> Loaded:
    make, kind, side = MODELS[request.param]
    torch.manual_seed(0)
    return make(), kind, side


def test_gradients_of_features_reach_the_image(loaded: Loaded, photo_batch: Tensor) -> None:
    module, kind, side = loaded
    recogniser = load_recogniser(module, input_format=vrdir.adaptation.InputFormat(size=side))
    assert isinstance(recogniser.kind, kind)
    image = photo_batch.clone().requires_grad_()
    seen = recogniser.see(image)
    assert recogniser.kind.agreement(seen.answers, recogniser.answers(image)) == pytest.approx(
        [1.0] * len(image), abs=1e-4
    )
    assert seen.features
    torch.stack([layer.square().mean() for layer in seen.features]).sum().backward()
    assert image.grad is not None
    assert float(image.grad.abs().sum()) > 0


def test_adapts(loaded: Loaded, photos: Path, weights: Path, tmp_path: Path) -> None:
    module, _, side = loaded
    result = vrdir.adapt(
        module, photos, tmp_path / "adapted", weights=weights, steps=2, held_out=6,
        input_format=vrdir.adaptation.InputFormat(size=side),
        write_anyway=True,
    )  # fmt: skip
    assert result.weights is not None
    restored = vrdir.Restorer(result.weights)(torch.rand(3, 40, 50))
    assert restored.shape == (3, 40, 50)
