"""The restorer as a transform of albumentations, which must be installed separately."""

from __future__ import annotations

from typing import Any

from vrdir.errors import MissingPackageError
from vrdir.frontend.transform import Restore
from vrdir.images.convert import Channels

try:
    from albumentations import ImageOnlyTransform
    from albumentations.core.transforms_interface import BaseTransformInitSchema
except ModuleNotFoundError as error:
    raise MissingPackageError(
        f"AlbumentationsRestore needs albumentations ({error}): pip install albumentations"
    ) from None


class AlbumentationsRestore(ImageOnlyTransform):  # type: ignore[misc]
    """A transform of albumentations that restores the image.

    The image keeps its size, so boxes, masks and key points stay unchanged.

    >>> import albumentations as A
    >>> from vrdir.frontend import AlbumentationsRestore
    >>> boxes = A.BboxParams(format="yolo", label_fields=["labels"])
    >>> pipeline = A.Compose([AlbumentationsRestore(), A.Resize(416, 416)], bbox_params=boxes)

    Args:
        weights: as for `vrdir.Restore`, by name or path.
        device: as for `vrdir.Restore`.
        skip_clean: as for `vrdir.Restore`.
        channels: as for `vrdir.Restore`.
        strength: as for `vrdir.Restore`.
        only: as for `vrdir.Restore`, as a name or a list of names.
        borders: as for `vrdir.Restore`.
        p: the probability of applying it; 1 for every image.
    """

    class InitSchema(BaseTransformInitSchema):  # type: ignore[misc]
        """The types of the arguments, which albumentations checks."""

        weights: str
        device: str
        skip_clean: bool | float
        channels: Channels
        strength: float
        only: list[str] | str | None
        borders: bool

    def __init__(
        self,
        weights: str = "small",
        device: str = "auto",
        skip_clean: bool | float = False,
        channels: Channels = "rgb",
        strength: float = 1.0,
        only: list[str] | str | None = None,
        borders: bool = True,
        p: float = 1.0,
    ) -> None:
        super().__init__(p=p)
        self.weights, self.device = weights, device
        self.skip_clean, self.channels = skip_clean, channels
        self.strength, self.only, self.borders = strength, only, borders
        self.restore = Restore(weights, device, skip_clean, channels, strength, only, borders)

    def apply(self, img: Any, *_: Any, **__: Any) -> Any:
        """Restore an array (H, W, 3) or (H, W), uint8, uint16, or float in [0, 1]."""
        return self.restore(img)

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        """Return the names of the arguments, for albumentations to save the transform."""
        return "weights", "device", "skip_clean", "channels", "strength", "only", "borders"
