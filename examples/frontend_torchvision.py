"""torchvision: a detector that takes images of different sizes, and a step of a v2 pipeline.

    python examples/frontend_torchvision.py

The weights are random: the example shows the calls, not a useful result.
"""

from __future__ import annotations

import torch
from torchvision.models import ResNet50_Weights, resnet50
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.transforms import v2

import vrdir

# Detectors take RGB in [0, 1] and normalise inside. Boxes are in the pixels of each image.
detector = vrdir.restore_before(
    ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None).eval()
)
with torch.no_grad():
    detections = detector([torch.rand(3, 240, 320), torch.rand(3, 300, 200)])
print([len(d["boxes"]) for d in detections])

# Classifiers take the output of their weights' transforms, from which the normalisation is read.
weights = ResNet50_Weights.DEFAULT
classifier = vrdir.restore_before(resnet50().eval(), preprocessing=weights)
with torch.no_grad():
    print(classifier(weights.transforms()(torch.rand(3, 300, 400))[None]).shape)

# Better, if you can change the pipeline: restore first, at the photo's own size.
pipeline = v2.Compose([vrdir.Restore(device="cpu"), weights.transforms()])
print(pipeline(torch.rand(3, 300, 400)).shape)
