"""Restore: the restorer as a step of a preprocessing pipeline."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vrdir.frontend.front_end import KeepsTypes, image_key
from vrdir.images.convert import Channels
from vrdir.images.sixteen_bits import DeepPicture
from vrdir.model.vrdir import VRDIR
from vrdir.restoring.loading import network_of
from vrdir.restoring.restorer import Restorer


class Restore(KeepsTypes):
    """A transform that restores images of any kind and gives back the same kind; what comes with them passes through.

    >>> transform = v2.Compose([vrdir.Restore(), v2.Resize(256), v2.CenterCrop(224), v2.ToImage(), ...])

    Put it first: before the resizing that blurs rain and noise into the scene, and before any normalisation. It can be pickled,
    for the workers of a data loader, which are better off with `device="cpu"`.

    It takes samples as the libraries of transforms pass them:

    - torchvision v2: `restore(image)`, `restore(image, target)`, `restore((image, target))`: of several, the first is the image; a
      mapping holds its image under `image`, `pixel_values` or the like;
    - albumentations: `restore(image=array, bboxes=...)`, which returns a dictionary; within `A.Compose` there is the class
      of the same name in `vrdir.frontend.albumentations`;
    - a list is a list of images.

    It is a module, so it may stand in `nn.Sequential`, and `to` moves it. It stays in evaluation mode and in float32, does not
    train, and lets no gradients through; `vrdir.restore_before` does.

    Args:
        weights, device, skip_clean, channels, strength, only, borders: as for `Restorer`.
    """

    def __init__(
        self,
        weights: str | Path | VRDIR = "small",
        device: str = "auto",
        skip_clean: bool | float = False,
        channels: Channels = "rgb",
        strength: float = 1.0,
        only: Iterable[str] | str | None = None,
        borders: bool = True,
    ) -> None:
        super().__init__()
        self.network = network_of(weights)
        if weights is not self.network:  # somebody else's network is theirs to freeze
            self.network.requires_grad_(False)
        self.restorer = Restorer(
            self.network,
            device,
            skip_clean,
            channels=channels,
            strength=strength,
            only=only,
            borders=borders,
        )
        self.train(False)

    def train(self, mode: bool = True) -> Restore:
        return super().train(False)

    def forward(self, *sample: Any, **named: Any) -> Any:
        """Restore the image of a sample. Where images come by position, names are a pipeline's own parameters and passed over.

        Raises:
            ImageError: it is no image, is damaged, or holds values out of range, such as normalised ones.
            ValueError: no image is found in the sample.
        """
        if not sample:
            return self._of(named)
        first = self._of(sample[0])
        return first if len(sample) == 1 else (first, *sample[1:])

    def _of(self, sample: Any) -> Any:
        if isinstance(sample, Mapping):
            restored: Any = copy.copy(sample)
            key = image_key(sample)
            restored[key] = self._of(sample[key])
            return restored
        if isinstance(sample, tuple) and not isinstance(sample, DeepPicture):
            parts = [self._of(sample[0]), *sample[1:]]
            return sample._make(parts) if hasattr(sample, "_make") else tuple(parts)
        if isinstance(sample, list):
            return [self._of(image) for image in sample]
        image = self.restorer(sample)
        return image.as_subclass(type(sample)) if isinstance(sample, Tensor) else image

    def __repr__(self) -> str:
        restorer = self.restorer
        settings = f"device={str(restorer.device)!r}, skip_clean={restorer.skip_clean}"
        return f"{type(self).__name__}({settings}, channels={restorer.channels!r})"
