"""Hugging Face: a pipeline, and a model with its image processor.

pip install transformers
python examples/frontend_huggingface.py      # a tiny random ViT: it shows the calls, not what is in the photo
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
model, processor = (
    ViTForImageClassification(config).eval(),
    ViTImageProcessor(size={"height": 32, "width": 32}),
)

# A pipeline is given photos: they are restored at their own size, so boxes and masks are theirs.
classify = vrdir.restore_before(
    pipeline("image-classification", model=model, image_processor=processor)
)
print(classify(photo, top_k=1))
print(len(classify([photo, photo])))

# A model is given what its processor makes: the normalisation is read there.
restored = vrdir.restore_before(model, preprocessing=processor)
print(restored(**processor(images=photo, return_tensors="pt")).logits.shape)
