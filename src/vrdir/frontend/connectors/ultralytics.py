"""An Ultralytics model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vrdir.errors import InputError
from vrdir.frontend.connectors.callables import RestoredCallable
from vrdir.frontend.input_restorer import InputRestorer
from vrdir.images.sixteen_bits import DeepPicture
from vrdir.video.formats import is_video


class RestoredUltralytics(RestoredCallable):
    """An Ultralytics model, called by `model(source)`, `predict`, `track` or `embed`.

    Images keep their size, so boxes refer to the original image. A source is a PIL image, the path
    of an image file, a BGR array (H, W, 3) as OpenCV reads it, an RGB tensor (B, 3, H, W) in
    [0, 1], or a list of these. Videos, cameras, folders and addresses are not supported: restore
    files before (`vrdir restore`), or read frames and pass those.

    Args:
        recogniser: the model.
        front_end: restores its images.
        argument: not used; the images are always the first argument, `source`.

    Raises:
        InputError: another channel order is declared.
    """

    input_is_known: ClassVar[bool] = True
    unrestored_methods: ClassVar[tuple[str, ...]] = ("info", "add_callback", "clear_callback")

    def __init__(
        self, recogniser: Any, front_end: InputRestorer, argument: str | int | None = None
    ) -> None:
        if front_end.normalisation.channels == "bgr":
            raise InputError(
                "an Ultralytics model's arrays are BGR and its tensors RGB; do not pass channels="
            )
        super().__init__(recogniser, front_end, argument)

    @classmethod
    def accepts(cls, recogniser: Any) -> bool:
        """Return whether this connector matches a recogniser."""
        package = type(recogniser).__module__.partition(".")[0]
        return package == "ultralytics" and hasattr(recogniser, "track")

    def __call__(self, source: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Predict, as calling the model does."""
        return self.recogniser(self._restored(source), *args, **kwargs)

    def predict(self, source: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Predict, as the model's own method does."""
        return self.recogniser.predict(self._restored(source), *args, **kwargs)

    def track(self, source: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Track, as the model's own method does."""
        return self.recogniser.track(self._restored(source), *args, **kwargs)

    def embed(self, source: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Return feature vectors, as the model's own method does."""
        return self.recogniser.embed(self._restored(source), *args, **kwargs)

    def _restored(self, source: Any) -> Any:
        if isinstance(source, (list, tuple)) and not isinstance(source, DeepPicture):
            return [self._restored(image) for image in source]
        if isinstance(source, np.ndarray) and source.ndim == 3 and source.shape[-1] == 3:
            return np.ascontiguousarray(self.front_end(source[..., ::-1])[..., ::-1])
        if isinstance(source, (str, Path)):
            _check_file(source)
        return self.front_end(source)


def _check_file(source: str | Path) -> None:
    """Raise InputError for a folder, a pattern or a video, which Ultralytics reads by itself."""
    path = Path(source)
    if path.is_dir() or "*" in path.name or is_video(path):
        raise InputError(
            f"{source} is not one image; restore it to files first (vrdir restore), and call the "
            "Ultralytics model on those; or read the images or frames and pass them"
        )
