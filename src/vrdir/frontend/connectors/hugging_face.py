"""A Hugging Face pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from vrdir.errors import RecogniserError
from vrdir.frontend.connectors.callables import RestoredCallable
from vrdir.frontend.image_arguments import restore_arguments
from vrdir.frontend.input_restorer import InputRestorer


class RestoredPipeline(RestoredCallable):
    """A Hugging Face pipeline of any task whose input contains images.

    Images (PIL images, paths, or an iterable of them) are restored before the pipeline resizes
    them, and keep their size, so boxes and masks refer to the original image. Generators and data
    sets are restored one by one as the pipeline asks for them; a data set keeps its length.
    """

    @classmethod
    def accepts(cls, recogniser: Any) -> bool:
        """Return whether this connector matches a recogniser.

        Raises:
            RecogniserError: a pipeline without an image processor.
        """
        if not (callable(recogniser) and hasattr(recogniser, "task")):
            return False
        if not hasattr(recogniser, "preprocess"):
            return False
        owners = (recogniser, getattr(recogniser, "processor", None))
        if all(getattr(owner, "image_processor", None) is None for owner in owners):
            raise RecogniserError(
                f"the pipeline for {recogniser.task} has no image processor, "
                "so it accepts no images that could be restored"
            )
        return True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the pipeline with the images among the arguments restored."""
        args, kwargs = restore_arguments(self._restored, args, kwargs, self.argument, self._names)
        return self.recogniser(*args, **kwargs)

    def _restored(self, images: Any, mask: Any) -> Any:
        if isinstance(images, (str, list, tuple, Mapping, Tensor, np.ndarray)):
            return self.front_end(images, mask)
        indexed = hasattr(images, "__getitem__") and hasattr(images, "__len__")
        if indexed and not isinstance(images, IterableDataset):
            return RestoredDataset(images, self.front_end)
        if isinstance(images, Iterable) or hasattr(images, "__getitem__"):
            # Pipelines accept a generator, but no other kind of iterator.
            return (self.front_end(image) for image in images)
        return self.front_end(images, mask)


class RestoredDataset(Dataset[Any]):
    """A data set whose images are restored when they are read, in the process that reads them.

    Args:
        images: a data set with a length and an index.
        front_end: restores each item.
    """

    def __init__(self, images: Any, front_end: InputRestorer) -> None:
        self.images, self.front_end = images, front_end

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Any:
        return self.front_end(self.images[index])
