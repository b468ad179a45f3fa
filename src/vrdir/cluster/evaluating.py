"""Evaluations on a Ray cluster. Their figures are the same as on one machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from vrdir.cluster.ray_pool import divide
from vrdir.cluster.ray_settings import RaySettings

if TYPE_CHECKING:
    from vrdir.data.pairs import Pair
    from vrdir.evaluation.recognition.image_files import Exclusion, ImageFile
    from vrdir.evaluation.recognition.protocol import AnswerImage, Row
    from vrdir.evaluation.restoration.protocol import ExcludedPair, Measured
    from vrdir.evaluation.restoration.restorers import RestorePair


def measure_on_ray(
    pairs: Sequence[Pair],
    load: Callable[[], Mapping[str, RestorePair]],
    settings: RaySettings,
) -> Iterator[tuple[Measured | ExcludedPair, ...]]:
    """Measure pairs as `vrdir.evaluation.restoration.protocol.measure_by_each` does, on a cluster.

    Args:
        pairs: pairs of images. All nodes must have the files at the same paths.
        load: returns the restorers by name; each worker calls it once.
        settings: how the cluster is used.

    Yields:
        For each pair, in order, the result of each restorer.

    Raises:
        VrdirError: a node does not have the folder, or a restorer cannot be loaded.
    """
    yield from divide(partial(_measurer, load), pairs, settings)


def _measurer(
    load: Callable[[], Mapping[str, RestorePair]],
) -> Callable[[Pair], tuple[Measured | ExcludedPair, ...]]:
    from vrdir.evaluation.restoration.protocol import measure_by_each

    restorers = load()
    return lambda pair: next(measure_by_each([pair], restorers))


def answers_on_ray(
    images: Sequence[ImageFile],
    load: Callable[[], AnswerImage[Any]],
    settings: RaySettings,
) -> Iterator[Row[Any] | Exclusion]:
    """Run a recogniser on all variants of images, on a cluster.

    Args:
        images: the clean images. All nodes must have the files at the same paths.
        load: returns `RecognitionTask.answer_image` of a task; each worker calls it once.
        settings: how the cluster is used.

    Yields:
        For each image, in order, the outputs of the recogniser, or why the image is excluded.

    Raises:
        VrdirError: a node does not have the folder, or the recogniser breaks its contract.
    """
    yield from divide(load, images, settings)
