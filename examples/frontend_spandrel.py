"""spandrel: the weights as one file, loaded as programs that use spandrel load it.

pip install vrdir spandrel torchvision
python examples/frontend_spandrel.py PHOTO [-o restored.png]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from spandrel import MAIN_REGISTRY, ArchSupport, ModelLoader

from vrdir.frontend import VRDIRArchitecture, save_one_file


def main() -> None:
    """Write the bundled weights into one file, load it with spandrel, and restore a photo."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photo", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("restored.png"))
    arguments = parser.parse_args()
    support = ArchSupport.from_architecture(VRDIRArchitecture())
    MAIN_REGISTRY.add(support, ignore_duplicates=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vrdir-small.safetensors"
        save_one_file("small", file)
        model = ModelLoader().load_from_file(file)
    print(f"{model.architecture.name}: {', '.join(model.tags)}")
    photo = np.asarray(Image.open(arguments.photo).convert("RGB"), np.float32) / 255
    restored = model(torch.from_numpy(photo).permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    Image.fromarray((restored * 255).round().byte().numpy()).save(arguments.output)


if __name__ == "__main__":
    main()
