"""Evaluations that are divided over a Ray cluster: the figures are those of one machine."""

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
        pairs: of pair lists. All nodes must have their files at the same paths.
        load: returns the restorers; each worker calls it once.
        settings: how the cluster is used.

    Yields:
        For each pair, in order, a result per restorer.

    Raises:
        VrdirError: a node lacks the folder or what the restorers need.
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
    """Show a recogniser all variants of images, on a cluster.

    Args:
        images: the clean images. All nodes must have the files at the same paths.
        load: returns `RecognitionTask.answer_image` of a task; each worker calls it once.
        settings: how the cluster is used.

    Yields:
        For each image, in order, the answers, or why it is excluded.

    Raises:
        VrdirError: a node lacks the folder, or the recogniser breaks its contract.
    """
    yield from divide(load, images, settings)
