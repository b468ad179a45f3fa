"""How a recogniser is evaluated: it gets every variant of every image.

One image is kept in memory at a time. An image that fails in one variant is excluded from all, by
name, so all figures of a result are taken over the same images.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from vrdir.errors import DataError, RecogniserError, first_line
from vrdir.evaluation.recognition.image_files import Exclusion, ImageFile, nothing_left
from vrdir.evaluation.recognition.variants import Variant, Variants
from vrdir.evaluation.user_functions import Pixels

logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")
Row: TypeAlias = list[tuple[Variant, Answer]]
"""The answers to all variants of one image."""
AnswerImage: TypeAlias = Callable[[ImageFile], Row[Answer] | Exclusion]
"""Returns the answers to one image, or why it is excluded."""
AnswerImages: TypeAlias = Callable[[Sequence[ImageFile]], Iterable[Row[Answer] | Exclusion]]
"""The same for all images, in order."""


@dataclass(frozen=True)
class Answers(Generic[Answer]):
    """A recogniser's answers.

    Attributes:
        images: the images that could be measured in every variant.
        by_variant: variant -> the answer to each of the images.
        excluded: everything that was excluded, also by the data set.
    """

    images: list[ImageFile]
    by_variant: dict[Variant, list[Answer]]
    excluded: list[Exclusion]


def answer_image(
    image: ImageFile, variants: Variants, recognise: Callable[[ImageFile, Pixels], Answer]
) -> Row[Answer] | Exclusion:
    """Run a recogniser on every variant of one image.

    Args:
        image: the clean image.
        variants: computes its variants.
        recognise: returns the part of the answer to one variant that is kept; it should be small.

    Returns:
        The answers, or why the image is excluded.

    Raises:
        RecogniserError: the recogniser's output breaks its contract.
    """
    try:
        return [(variant, recognise(image, pixels)) for variant, pixels in variants.images(image)]
    except RecogniserError:
        raise
    except Exception as error:  # the next image may still work
        logger.debug("%s", image.path, exc_info=True)
        return Exclusion(image.name, first_line(error))


def collect_answers(
    images: Sequence[ImageFile],
    variants: Variants,
    recognise: Callable[[ImageFile, Pixels], Answer],
    excluded: Sequence[Exclusion] = (),
    set_aside: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
    rows: Iterable[Row[Answer] | Exclusion] | None = None,
) -> Answers[Answer]:
    """Run a recogniser on every variant of every image.

    Args:
        images: the clean images.
        variants: computes their variants.
        recognise: returns the part of the answer to one variant that is kept; it should be small.
        excluded: what the data set excluded.
        set_aside: names of images that are not evaluated, such as those beyond a limit; degraded
            versions of them may be there.
        progress: called with the name of each image when it is done.
        rows: for each image what `answer_image` returned elsewhere, in place of calling it here.

    Raises:
        RecogniserError: the recogniser's output breaks its contract.
        DataError: no image could be measured, or two folders have no name in common.
    """
    left_out = list(excluded)
    for folder in variants.folders:
        left_out += folder.unmatched(images, [*set_aside, *(one.name for one in excluded)])
    kept: list[ImageFile] = []
    answers: dict[Variant, list[Answer]] = {variant: [] for variant in variants.all}
    if rows is None:
        rows = (answer_image(image, variants, recognise) for image in images)
    for image, row in zip(images, rows, strict=True):
        if isinstance(row, Exclusion):
            left_out.append(row)
        else:
            kept.append(image)
            for variant, answer in row:
                answers[variant].append(answer)
        if progress is not None:
            progress(image.name)
    if not kept:
        raise DataError(nothing_left(left_out))
    return Answers(kept, answers, left_out)
