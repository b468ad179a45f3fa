"""Restore: the restorer as a step of a preprocessing pipeline."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vrdir.frontend.image_arguments import image_key
from vrdir.frontend.network import KeepsDtypes
from vrdir.images.convert import Channels
from vrdir.images.sixteen_bits import DeepPicture
from vrdir.model.vrdir import VRDIR
from vrdir.restoring.loading import network_of
from vrdir.restoring.restorer import Restorer


class Restore(KeepsDtypes):
    """A transform that restores images. The output has the type of the input.

    >>> from torchvision.transforms import v2
    >>> transform = v2.Compose([vrdir.Restore(), v2.Resize(256), v2.CenterCrop(224), v2.ToImage()])

    Use it as the first step: before resizing, which blurs rain and noise into the scene, and before
    any normalisation. It can be pickled for the workers of a data loader; use `device="cpu"` there.

    It takes samples as the libraries of transforms pass them:

    - torchvision v2: `restore(image)`, `restore(image, target)`, `restore((image, target))`. The
      first is the image; a mapping contains its image under `image`, `pixel_values` or the like.
    - albumentations: `restore(image=array, bboxes=...)`, which returns a dictionary. For
      `A.Compose` use `vrdir.frontend.AlbumentationsRestore`.
    - A list is a list of images.

    It is a module, so it can be part of `nn.Sequential`, and `to` moves it. It stays in evaluation
    mode and in float32, does not train, and passes no gradients; `vrdir.restore_before` does.

    Args:
        weights: as for `Restorer`.
        device: as for `Restorer`.
        skip_clean: as for `Restorer`.
        channels: as for `Restorer`.
        strength: as for `Restorer`.
        only: as for `Restorer`.
        borders: as for `Restorer`.

    Raises:
        InputError: a setting is invalid.
        WeightsError: the weights cannot be used.
        MissingFileError: they do not exist.
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
        if weights is not self.network:  # a network given by the caller is not frozen
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
        """Stay in evaluation mode, regardless of `mode`."""
        return super().train(False)

    def forward(self, *sample: Any, **named: Any) -> Any:
        """Restore the image of a sample.

        Args:
            *sample: the image, alone or first.
            **named: the sample by name, if nothing is given by position; else parameters of the
                pipeline, which are ignored.

        Raises:
            ImageError: the image is damaged, or contains values out of range, such as normalised
                ones.
            InputError: the sample has no image.
        """
        if not sample:
            return self._restored(named)
        first = self._restored(sample[0])
        return first if len(sample) == 1 else (first, *sample[1:])

    def _restored(self, sample: Any) -> Any:
        if isinstance(sample, Mapping):
            restored: Any = copy.copy(sample)
            key = image_key(sample)
            restored[key] = self._restored(sample[key])
            return restored
        if isinstance(sample, tuple) and not isinstance(sample, DeepPicture):
            parts = [self._restored(sample[0]), *sample[1:]]
            return sample._make(parts) if hasattr(sample, "_make") else tuple(parts)
        if isinstance(sample, list):
            return [self._restored(image) for image in sample]
        image = self.restorer(sample)
        return image.as_subclass(type(sample)) if isinstance(sample, Tensor) else image

    def __repr__(self) -> str:
        restorer = self.restorer
        settings = f"device={str(restorer.device)!r}, skip_clean={restorer.skip_clean}"
        return f"{type(self).__name__}({settings}, channels={restorer.channels!r})"
