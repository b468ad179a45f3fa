"""Work on a Ray cluster: connecting, pools of actors, and a function that is divided over them."""

from __future__ import annotations

import logging
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from vrdir.cluster.ray_settings import RaySettings
from vrdir.errors import InputError, MissingFileError, VrdirError, first_line, require

RETRIES = "\nFailed to apply UDF"  # what Ray adds to an error begins so
REASON = "--engine ray needs Ray"
Item = TypeVar("Item")
Result = TypeVar("Result")


def connect(settings: RaySettings) -> None:
    """Connect to the cluster, unless this program is connected.

    Raises:
        InputError: there is none at the address.
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
    """Raise errors of the family as they were raised in a worker, without Ray's traceback."""
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
    """Map the batches of a Ray data set by a class of which every actor has an instance.

    Ray starts and ends actors between the least and the most workers, holds the data back while
    all are busy, and starts a lost actor and its batches again.

    Args:
        dataset: the data set.
        worker: the class; it is called with batches.
        arguments: of the class.
        settings: how many actors there are, and what each has.
        batch_size: rows of a batch; None for the blocks that the data set is made of, which Ray
            allows only without GPUs.
        batch_format: as of `map_batches`.
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
            max_tasks_in_flight_per_actor=2,  # the next one waits where it will be done
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
        make: called once by each worker; returns the function. It must be picklable, as a
            `functools.partial` of a function of a module is.
        items: what the function takes; they and the results must be picklable.
        settings: how the cluster is used.
        folder: in which the workers take relative paths: it must be at the same place on all nodes.
            By default the current one.

    Raises:
        MissingFileError: a node has no such folder.
        VrdirError: what `make` or the function raises.
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
    arguments = {"make": make, "folder": folder or os.getcwd(), "cpus": settings.cpus}  # noqa: PTH109
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
    """An error of the family that a worker met, which the driver raises."""

    def __init__(self, error: VrdirError) -> None:
        self.error = error


class Applied:
    """An actor that applies a function to pickled items."""

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
            sys.path.append("")  # functions of the user may be in the folder
            self.function = make()
        except VrdirError as error:
            self.failure = Failure(error)

    def __call__(self, batch: Any) -> Any:
        """Return a table with the results in the place of the items."""
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
