"""Restore images inside other pipelines: Ray Data, and pandas frames (Spark, Dask)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from vrdir.cluster.ray_pool import map_in_actors
from vrdir.cluster.ray_settings import RaySettings
from vrdir.cluster.work import for_workers
from vrdir.errors import DataError, VrdirError, first_line, require
from vrdir.restoring.restorer import Restorer

if TYPE_CHECKING:
    import pandas
    import ray.data

DIAGNOSIS = ("haze", "noise", "rain", "changed")
PREFIX = "vrdir_"


def restore(
    dataset: ray.data.Dataset,
    column: str = "image",
    settings: RaySettings | None = None,
    **restorer: Any,
) -> ray.data.Dataset:
    """Restore a column of a Ray data set.

        restored = vrdir.cluster.restore(ray.data.read_images("s3://bucket/foggy"))

    Args:
        dataset: a data set with a column of images: encoded files (bytes), or RGB arrays
            (H, W, 3) uint8, as `ray.data.read_images` returns them.
        column: the name of this column.
        settings: the number of workers, and the cores and GPUs of each.
        restorer: arguments of `vrdir.Restorer`.

    Returns:
        The data set with restored images of the same type, and with five more columns: vrdir_haze,
        vrdir_noise, vrdir_rain, vrdir_changed (`vrdir.batch.results.Diagnosis`), and vrdir_error.
        An image that cannot be restored stays unchanged, and vrdir_error has the reason; for the
        others it is "".

    Raises:
        MissingPackageError: Ray is not installed.
    """
    require("ray.data", "cluster", "vrdir.cluster.restore needs Ray")
    arguments = {"column": column, "restorer": for_workers(restorer)}
    settings = settings or RaySettings()
    return map_in_actors(dataset, ColumnRestorer, arguments, settings, settings.batch)


def map_in_pandas(
    column: str = "image", **restorer: Any
) -> Callable[[Iterable[pandas.DataFrame]], Iterator[pandas.DataFrame]]:
    """Return a function that restores a column of encoded images in pandas frames.

    Pass the function to `DataFrame.mapInPandas` of Spark. For Dask, pass
    `lambda frame: next(function([frame]))` to `map_partitions`, and switch off Dask's setting
    dataframe.convert-string. Each process loads the network once.

    Args:
        column: the name of the column of encoded files (bytes).
        restorer: arguments of `vrdir.Restorer`.

    Returns:
        A function that takes an iterable of frames and yields the restored frames, with the columns
        that `restore` adds.
    """
    restorer = for_workers(restorer)

    def function(frames: Iterable[pandas.DataFrame]) -> Iterator[pandas.DataFrame]:
        import pandas

        worker = ColumnRestorer(column, restorer)
        for frame in frames:
            values = worker({name: frame[name].tolist() for name in frame.columns})
            *measured, error = added_columns()
            added = {name: np.array(values[name], dtype=float) for name in measured}  # None is NaN
            images = pandas.Series(values[column], frame.index, frame[column].dtype)
            yield frame.assign(**{column: images, **added, error: values[error]})

    return function


def added_columns() -> list[str]:
    """Return the names of the columns that `restore` adds."""
    return [f"{PREFIX}{name}" for name in (*DIAGNOSIS, "error")]


class ColumnRestorer:
    """Restores a column of batches, in an actor of Ray or for a partition of Spark or Dask.

    Args:
        column: the name of the column of images.
        restorer: arguments of `vrdir.Restorer`.
    """

    def __init__(self, column: str, restorer: dict[str, Any]) -> None:
        self.column, self.restorer = column, Restorer(**restorer)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return a batch with its column restored, and with the columns that `restore` adds.

        Raises:
            DataError: the batch has no column of this name.
        """
        if self.column not in batch:
            raise DataError(
                f"there is no column {self.column!r}; the columns are: {', '.join(batch)}"
            )
        images, found = [], []
        for image in batch[self.column]:
            restored, row = self._restored(image)
            images.append(restored)
            found.append(row)
        added = {name: [row[index] for row in found] for index, name in enumerate(added_columns())}
        return {**batch, self.column: _as_column(images, batch[self.column]), **added}

    def _restored(self, image: Any) -> tuple[Any, tuple[float | None, ...]]:
        try:
            result = self.restorer.restore(image)
        except VrdirError as error:
            return image, (None, None, None, None, first_line(error))  # type: ignore[return-value]
        diagnosis = result.diagnosis[0]
        haze = float("nan") if diagnosis.haze is None else diagnosis.haze
        return result.image, (haze, *diagnosis[1:], "")  # type: ignore[return-value]


def _as_column(images: list[Any], before: Any) -> Any:
    """Return images as a column of the same type as before: one array, objects, or a list."""
    import numpy as np

    if isinstance(before, np.ndarray) and before.dtype != object:
        return np.stack(images)
    if isinstance(before, np.ndarray):
        column = np.empty(len(images), dtype=object)
        column[:] = images
        return column
    return images
