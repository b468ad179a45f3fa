"""How a recogniser is evaluated: it is shown every variant of every image.

One image is held in memory at a time. An image that fails in one variant is excluded from all, by
name, so all figures of a result are taken over the same images.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from vrdir.errors import DataError, RecogniserError, first_line
from vrdir.evaluation.recognition.image_files import Exclusion, ImageFile, nothing_left
from vrdir.evaluation.recognition.variants import Variant, Variants
from vrdir.evaluation.user_functions import Pixels

logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Answers(Generic[Answer]):
    """A recogniser's answers.

    Attributes:
        images: the images that could be measured in every variant.
        by_variant: variant -> the answer to each of the images.
        excluded: what was left out, by the data set too.
    """

    images: list[ImageFile]
    by_variant: dict[Variant, list[Answer]]
    excluded: list[Exclusion]


def collect_answers(
    images: Sequence[ImageFile],
    variants: Variants,
    recognise: Callable[[ImageFile, Pixels], Answer],
    excluded: Sequence[Exclusion] = (),
    set_aside: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
) -> Answers[Answer]:
    """Show a recogniser every variant of every image.

    Args:
        images: the clean images.
        variants: computes their variants.
        recognise: returns what is kept of the answer to one variant; it should be small.
        excluded: what the data set left out.
        set_aside: names of images that are not evaluated, such as those beyond a limit; degraded
            versions of them may be there.
        progress: called with the name of each image when it is done.

    Raises:
        RecogniserError: the recogniser's output breaks its contract.
        DataError: no image could be measured, or two folders have no name in common.
    """
    left_out = list(excluded)
    for folder in variants.folders:
        left_out += folder.unmatched(images, [*set_aside, *(one.name for one in excluded)])
    kept: list[ImageFile] = []
    answers: dict[Variant, list[Answer]] = {variant: [] for variant in variants.all}
    for image in images:
        try:
            row = [
                (variant, recognise(image, pixels)) for variant, pixels in variants.images(image)
            ]
        except RecogniserError:
            raise
        except Exception as error:  # the next image may still work
            logger.debug("%s", image.path, exc_info=True)
            left_out.append(Exclusion(image.name, first_line(error)))
        else:
            kept.append(image)
            for variant, answer in row:
                answers[variant].append(answer)
        if progress is not None:
            progress(image.name)
    if not kept:
        raise DataError(nothing_left(left_out))
    return Answers(kept, answers, left_out)
