"""Process the images of requests: read the header, restore a batch, encode the results."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from PIL import Image

from vrdir.batch.results import Diagnosis
from vrdir.errors import ImageError
from vrdir.images.convert import open_image
from vrdir.images.formats import FORMATS as IMAGE_FORMATS
from vrdir.images.formats import open_header
from vrdir.images.open_arrays import OpenImage
from vrdir.images.reading import decode, decoding
from vrdir.images.reducing import reduced
from vrdir.images.writing import encode
from vrdir.restoring.restored import restore_opened
from vrdir.restoring.restorer import Restorer
from vrdir.serving.batching import GivenUpError, Job, check_wanted
from vrdir.serving.problems import ProblemError
from vrdir.serving.settings import BYTES_A_PIXEL

NAME = "the image"  # its name in error messages

# The media types of the formats that can be written, by Pillow's name of the format. Responses
# have the first one.
MEDIA_TYPES = {each.name: each.media_types for each in IMAGE_FORMATS if each.media_types}
FORMATS = {media_type: name for name, types in MEDIA_TYPES.items() for media_type in types}


class Header(NamedTuple):
    """The facts in the header of an image file.

    Attributes:
        file_format: Pillow's name of the format.
        width, height: the size in pixels.
    """

    file_format: str
    width: int
    height: int

    @property
    def pixels(self) -> int:
        """The number of pixels."""
        return self.width * self.height


class ImageTask(NamedTuple):
    """An image to restore, and how.

    Attributes:
        content: the encoded file.
        restorer: the restorer to use.
        max_side: reduce a larger image to this many pixels on its longer side; None keeps its size.
        file_format: Pillow's name of the format of the result; None for that of the image.
        quality: the quality of lossy formats, 1 to 100.
        max_pixels: the largest number of pixels that the image may have.
        with_image: whether to encode the restored image; False if only the diagnosis is needed.
    """

    content: bytes
    restorer: Restorer
    max_side: int | None
    file_format: str | None
    quality: int
    max_pixels: int
    with_image: bool


class ImageResult(NamedTuple):
    """A restored image.

    Attributes:
        content: the encoded file; None if only the diagnosis was needed.
        file_format: Pillow's name of its format.
        width: the width of the result in pixels.
        height: the height of the result in pixels.
        shares: the share of each degradation and of "clean", 0 to 1, as in `Restored`.
        diagnosis: the degradations in physical terms.
        milliseconds: the time of each step ("decode", "network", "encode"); the time of "network"
            is that of the whole batch.
    """

    content: bytes | None
    file_format: str
    width: int
    height: int
    shares: dict[str, float]
    diagnosis: Diagnosis
    milliseconds: dict[str, float]


def read_header(content: bytes, max_megapixels: float) -> Header:
    """Read the header of an encoded image.

    Args:
        content: the file.
        max_megapixels: the largest size to accept, in millions of pixels.

    Raises:
        ProblemError: it is not an image, or has too many pixels.
    """
    bomb = False
    try:
        with decoding(NAME):
            try:
                picture = open_header(io.BytesIO(content), NAME)
            except Image.DecompressionBombError:
                bomb = True
    except ImageError as error:
        raise ProblemError("not-an-image", str(error)) from None
    if bomb:
        raise ProblemError("image-too-large", _too_large("far", max_megapixels))
    header = Header(picture.format or "PNG", *picture.size)
    if header.pixels > max_megapixels * 1e6:
        raise ProblemError(
            "image-too-large", _too_large(f"{header.pixels / 1e6:.2f} megapixels,", max_megapixels)
        )
    return header


def _too_large(megapixels: str, limit: float) -> str:
    return f"the image has {megapixels} more than the {limit:g} megapixels that are accepted"


def cost_of(content: bytes, restorer: Restorer) -> int:
    """Return the memory that restoring an encoded image needs, in units of `BYTES_A_PIXEL`.

    Raises:
        ProblemError: it needs more memory than this machine has.
    """
    try:
        return restorer.network.content_bytes(content, NAME) // BYTES_A_PIXEL
    except ImageError as error:
        raise ProblemError("image-too-large", str(error)) from None


def writable_format(file_format: str) -> str:
    """Return the format of the result for an image of this format: the same, or PNG."""
    file_format = "JPEG" if file_format == "MPO" else file_format
    return file_format if file_format in MEDIA_TYPES else "PNG"


class _Opened(NamedTuple):
    image: OpenImage
    file_format: str
    milliseconds: float


def restore_batch(jobs: Sequence[Job]) -> list[ImageResult | Exception]:
    """Restore the images of jobs, whose payloads are `ImageTask`s with the same restorer.

    The images should have the same size. Images that differ from the size in their header are
    restored in batches of their own.

    Returns:
        For each job its result, or the exception that it ended with.

    Raises:
        GivenUpError: all of the jobs were given up.
    """
    results: list[ImageResult | Exception | None] = [None] * len(jobs)
    opened: dict[int, _Opened] = {}
    for number, job in enumerate(jobs):
        check_wanted(jobs)
        try:
            opened[number] = _open(job.payload)
        except Exception as error:  # the other images of the batch may be valid
            results[number] = error
    groups: dict[torch.Size, list[int]] = {}
    for number, one in opened.items():
        groups.setdefault(one.image.tensor.shape, []).append(number)
    for numbers in groups.values():
        parts = [opened[number] for number in numbers]
        answers = _restore([jobs[number] for number in numbers], parts)
        for number, result in zip(numbers, answers, strict=True):
            results[number] = result
    return [result for result in results if result is not None]


def _open(task: ImageTask) -> _Opened:
    start = time.perf_counter()
    picture = decode(task.content, NAME)
    width, height = picture.size
    if width * height > task.max_pixels:
        limit = task.max_pixels / 1e6
        raise ProblemError(
            "image-too-large", _too_large(f"{width * height / 1e6:.2f} megapixels,", limit)
        )
    file_format = task.file_format or writable_format(picture.format or "PNG")
    if task.max_side is not None:
        picture = reduced(picture, task.max_side)
    return _Opened(open_image(picture), file_format, 1000 * (time.perf_counter() - start))


def _restore(jobs: Sequence[Job], parts: Sequence[_Opened]) -> list[ImageResult | Exception]:
    start = time.perf_counter()
    network = jobs[0].payload.restorer.network
    batch = OpenImage(torch.cat([part.image.tensor for part in parts]), _as_it_is, False)
    try:
        restored = restore_opened(network, batch, check=partial(check_wanted, jobs))
    except Exception as error:
        if len(jobs) == 1 or isinstance(error, GivenUpError):
            return [error] * len(jobs)
        # One image may be the cause: restore each one alone.
        return [_restore([job], [part])[0] for job, part in zip(jobs, parts, strict=True)]
    milliseconds = 1000 * (time.perf_counter() - start)
    results: list[ImageResult | Exception] = []
    for number, (job, part) in enumerate(zip(jobs, parts, strict=True)):
        try:
            check_wanted([job])
            after = restored.image[number : number + 1]
            facts = restored.shares[number], restored.diagnosis[number]
            results.append(_finish(job.payload, part, after, *facts, milliseconds))
        except Exception as error:  # such as a format that cannot store the picture
            results.append(error)
    return results


def _as_it_is(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _finish(
    task: ImageTask,
    part: _Opened,
    after: torch.Tensor,
    shares: dict[str, float],
    diagnosis: Diagnosis,
    network: float,
) -> ImageResult:
    start = time.perf_counter()
    content = None
    if task.with_image:
        content = encode(part.image.close(after), part.file_format, NAME, task.quality)
    encoding = 1000 * (time.perf_counter() - start)
    height, width = after.shape[-2:]
    steps = {"decode": part.milliseconds, "network": network, "encode": encoding}
    return ImageResult(content, part.file_format, width, height, shares, diagnosis, steps)
