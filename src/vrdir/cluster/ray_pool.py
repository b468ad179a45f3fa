"""Use a Ray cluster: connect to it, and apply a class or a function to items on its workers."""

from __future__ import annotations

import logging
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from vrdir.cluster.ray_settings import RaySettings
from vrdir.errors import InputError, MissingFileError, VrdirError, first_line, require

RETRIES = "\nFailed to apply UDF"  # the beginning of what Ray adds to an error message
REASON = "--engine ray needs Ray"
Item = TypeVar("Item")
Result = TypeVar("Result")


def connect(settings: RaySettings) -> None:
    """Connect to a cluster, unless this program is connected already.

    Raises:
        InputError: there is no cluster at the address.
        MissingPackageError: Ray is not installed.
    """
    ray = require("ray", "cluster", REASON)
    require("ray.data", "cluster", REASON)
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    if ray.is_initialized():
        return
    try:
        ray.init(settings.address, log_to_driver=False, logging_level="error")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(
            f"cannot connect to a Ray cluster at {settings.address!r} ({first_line(error)}); start "
            "one with 'ray start --head', or omit --ray-address to start one on this machine"
        ) from None


@contextmanager
def own_errors() -> Iterator[None]:
    """Raise errors of the family in a `with` block as a worker raised them, without Ray's text."""
    try:
        yield
    except Exception as error:
        cause: Any = error
        while cause is not None and getattr(cause, "cause", None) is None:
            cause = cause.__cause__
        raised = getattr(cause, "cause", None)
        if isinstance(raised, VrdirError):
            if raised.args and isinstance(raised.args[0], str):  # Ray adds how to retry
                raised.args = (raised.args[0].partition(RETRIES)[0], *raised.args[1:])
            raise raised from None
        raise


def map_in_actors(
    dataset: Any,
    worker: type,
    arguments: Mapping[str, Any],
    settings: RaySettings,
    batch_size: int | None,
    batch_format: str = "numpy",
) -> Any:
    """Apply a class to the batches of a Ray data set; every actor has an instance of the class.

    Ray starts and ends actors between the smallest and the largest number of workers. It holds data
    back while all of them are busy, and replaces a lost actor and repeats its batches.

    Args:
        dataset: a `ray.data.Dataset`.
        worker: the class. Its instances are called with a batch, and return or yield batches.
        arguments: arguments for the class, by name.
        settings: the number of actors, and the cores and GPUs of each.
        batch_size: the number of rows in a batch; None for the blocks of the data set, which Ray
            allows only without GPUs.
        batch_format: the type of the batches, as for `Dataset.map_batches`.

    Returns:
        The new data set. It is computed when it is read.
    """
    data = require("ray.data", "cluster", REASON)
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True  # for `own_errors`
    return dataset.map_batches(
        worker,
        fn_constructor_kwargs=dict(arguments),
        batch_size=batch_size,
        batch_format=batch_format,
        compute=data.ActorPoolStrategy(
            min_size=settings.workers[0],
            max_size=max(settings.workers),
            max_tasks_in_flight_per_actor=2,  # the next batch waits at its worker
        ),
        num_cpus=settings.cpus,
        num_gpus=settings.gpus or None,
    )


def divide(
    make: Callable[[], Callable[[Item], Result]],
    items: Sequence[Item],
    settings: RaySettings,
    folder: str = "",
) -> Iterator[Result]:
    """Apply a function to items on a Ray cluster and yield the results in the items' order.

    Args:
        make: returns the function; each worker calls it once. It must be picklable, such as a
            `functools.partial` of a function in a module.
        items: the arguments of the function; they and the results must be picklable.
        settings: how the cluster is used.
        folder: the folder to which relative paths belong, with the same path on all nodes; by
            default the current folder.

    Yields:
        The result of each item.

    Raises:
        MissingFileError: a node does not have the folder.
        VrdirError: an error that `make` or the function raised.
    """
    if not items:
        return
    connect(settings)
    data = require("ray.data", "cluster", REASON)
    arrow = require("pyarrow", "cluster", REASON)
    pickled = [pickle.dumps(item) for item in items]
    blocks = [
        arrow.table(
            {
                "number": list(range(start, min(start + settings.batch, len(items)))),
                "content": pickled[start : start + settings.batch],
            }
        )
        for start in range(0, len(items), settings.batch)
    ]
    arguments = {"make": make, "folder": folder or str(Path.cwd()), "cpus": settings.cpus}
    size = settings.batch if settings.gpus else None
    mapped = map_in_actors(data.from_arrow(blocks), Applied, arguments, settings, size, "pyarrow")
    waiting: dict[int, bytes] = {}
    following = 0
    for batch in mapped.iter_batches(batch_size=None, batch_format="pyarrow"):
        waiting.update(
            zip(
                batch.column("number").to_pylist(), batch.column("content").to_pylist(), strict=True
            )
        )
        while following in waiting:
            result = pickle.loads(waiting.pop(following))
            if isinstance(result, Failure):
                raise result.error
            yield result
            following += 1


class Failure:
    """An error of the family in a worker, which the driver raises again."""

    def __init__(self, error: VrdirError) -> None:
        self.error = error


class Applied:
    """An actor that applies a function to pickled items.

    Args:
        make: returns the function.
        folder: the folder to which relative paths belong.
        cpus: the cores of this worker.
    """

    def __init__(self, make: Callable[[], Callable[[Any], Any]], folder: str, cpus: float) -> None:
        import torch

        torch.set_num_threads(max(1, int(cpus)))
        self.function: Callable[[Any], Any] | None = None
        self.failure: Failure | None = None
        try:
            try:
                os.chdir(folder)
            except OSError:
                raise MissingFileError(
                    f"a node of the cluster has no folder {folder}; the files must have the same "
                    "path on all nodes, such as on a shared file system"
                ) from None
            sys.path.append("")  # the user's functions may be in the folder
            self.function = make()
        except VrdirError as error:
            self.failure = Failure(error)

    def __call__(self, batch: Any) -> Any:
        """Return a table with the pickled results instead of the items."""
        results = [pickle.dumps(self._applied(one)) for one in batch.column("content").to_pylist()]
        arrow = require("pyarrow", "cluster", REASON)
        return arrow.table({"number": batch.column("number"), "content": results})

    def _applied(self, content: bytes) -> Any:
        if self.function is None:
            return self.failure
        try:
            return self.function(pickle.loads(content))
        except VrdirError as error:
            return Failure(error)
