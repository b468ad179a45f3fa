"""Restore as a transform of albumentations', which has to be installed: `pip install albumentations`."""

from __future__ import annotations

from typing import Any

from albumentations import ImageOnlyTransform
from albumentations.core.transforms_interface import BaseTransformInitSchema

from vrdir.frontend.transform import Restore as Transform
from vrdir.images.convert import Channels


class Restore(ImageOnlyTransform):  # type: ignore[misc]
    """Restores the image; boxes, masks and key points stay as they are, since its size does.

    >>> pipeline = A.Compose([Restore(device="cpu"), A.Resize(416, 416)], bbox_params=...)

    Args:
        weights, device, skip_clean, channels: as for `vrdir.Restore`; weights by name or path.
        p: how often it is applied; 1: to every image.
    """

    class InitSchema(BaseTransformInitSchema):  # type: ignore[misc]
        weights: str
        device: str
        skip_clean: bool | float
        channels: Channels

    def __init__(
        self,
        weights: str = "small",
        device: str = "auto",
        skip_clean: bool | float = False,
        channels: Channels = "rgb",
        p: float = 1.0,
    ) -> None:
        super().__init__(p=p)
        self.weights, self.device, self.skip_clean, self.channels = (
            weights,
            device,
            skip_clean,
            channels,
        )
        self.restore = Transform(weights, device, skip_clean, channels)

    def apply(self, img: Any, *_: Any, **__: Any) -> Any:
        return self.restore(img)

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        return "weights", "device", "skip_clean", "channels"
