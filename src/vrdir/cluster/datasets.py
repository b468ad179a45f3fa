"""Restoration in other pipelines: Ray Data, and pandas frames (Spark, Dask)."""

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
        dataset: it has a column of images: encoded files (bytes), or arrays of uint8 (H, W, 3)
            in RGB, as `ray.data.read_images` makes them.
        column: its name.
        settings: how many workers there are, and what each has.
        restorer: arguments of `vrdir.Restorer`.

    Returns:
        The data set with restored images of the same kind, and with the columns vrdir_haze,
        vrdir_noise, vrdir_rain, vrdir_changed (`vrdir.batch.results.Diagnosis`) and vrdir_error:
        the reason why an image could not be restored and was left as it is, else "".

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

    It is what Spark's `DataFrame.mapInPandas` takes; Dask's `map_partitions` takes
    `lambda frame: next(function([frame]))`, with its setting dataframe.convert-string off. The
    network is loaded once for each partition.

    Args:
        column: the column of encoded files (bytes).
        restorer: arguments of `vrdir.Restorer`.

    Returns:
        A function from frames to frames, which have the columns that `restore` adds.
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
    """Return the names of the columns that restoring adds."""
    return [f"{PREFIX}{name}" for name in (*DIAGNOSIS, "error")]


class ColumnRestorer:
    """Restores a column of batches: an actor of Ray, or what has a partition of Spark or Dask."""

    def __init__(self, column: str, restorer: dict[str, Any]) -> None:
        self.column, self.restorer = column, Restorer(**restorer)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return a batch with its column restored and the diagnosis beside it.

        Raises:
            DataError: it has no such column.
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
    """Return images as the column that they came in: an array of one shape where it was one."""
    if isinstance(before, np.ndarray) and before.dtype != object:
        return np.stack(images)
    if isinstance(before, np.ndarray):
        column = np.empty(len(images), dtype=object)
        column[:] = images
        return column
    return images
