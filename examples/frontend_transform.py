"""The restorer as the first step of preprocessing: PIL, NumPy, albumentations, a data loader.

python examples/frontend_transform.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import vrdir

PHOTOS = Path(skimage.data.__file__).parent


class Photos(Dataset[np.ndarray]):
    """Photos, restored by the worker that reads them, then resized."""

    names = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg")

    def __init__(self, restore: vrdir.Restore) -> None:
        self.restore = restore

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> np.ndarray:
        clear = self.restore(Image.open(PHOTOS / self.names[index]).convert("RGB"))
        return np.array(clear.resize((224, 224), Image.Resampling.BICUBIC))


def main() -> None:
    """Restore one array, then photos in a worker."""
    restore = vrdir.Restore(device="cpu", skip_clean=True)
    array = np.array(Image.open(PHOTOS / "coffee.png"))
    # As albumentations calls transforms; in A.Compose use vrdir.frontend.AlbumentationsRestore.
    sample = restore(image=array, bboxes=[(10, 20, 200, 300)])
    print(sample["image"].shape, sample["bboxes"])
    for batch in DataLoader(
        Photos(restore), batch_size=2, num_workers=1, multiprocessing_context="spawn"
    ):
        print(batch.shape, batch.dtype)


if __name__ == "__main__":
    main()
