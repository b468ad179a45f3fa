"""Hugging Face: a pipeline, and a model with its image processor.

    pip install transformers
    python examples/frontend_huggingface.py

The model is a tiny ViT with random weights: the example shows the calls, not a useful result.
"""

from __future__ import annotations

from pathlib import Path

import skimage.data
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor, pipeline

import vrdir

photo = Image.open(Path(skimage.data.__file__).parent / "chelsea.png").convert("RGB")
config = ViTConfig(
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    image_size=32,
    patch_size=8,
)
model = ViTForImageClassification(config).train(False)
processor = ViTImageProcessor(size={"height": 32, "width": 32})

# A pipeline receives photos. They are restored at their own size, so boxes and masks fit them.
classify = vrdir.restore_before(
    pipeline("image-classification", model=model, image_processor=processor)
)
print(classify(photo, top_k=1))
print(len(classify([photo, photo])))

# A model receives the output of its processor, from which the normalisation is read.
restored = vrdir.restore_before(model, preprocessing=processor)
print(restored(**processor(images=photo, return_tensors="pt")).logits.shape)
