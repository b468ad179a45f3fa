"""What the options of `vrdir evaluate TASK` name: recognisers, conditions, restorers."""

from __future__ import annotations

import hashlib
import io
import itertools
import logging
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vrdir.cli.networks import networks_of
from vrdir.errors import InputError

if TYPE_CHECKING:
    from vrdir.evaluation.recognition.conditions import Condition
    from vrdir.evaluation.recognition.image_files import ImageFile
    from vrdir.evaluation.recognition.labels.labelled import LabelledImages
    from vrdir.evaluation.recognition.restorers import RestoreImage
    from vrdir.evaluation.recognition.task import RecognitionTask
    from vrdir.evaluation.user_functions import Pixels

logger = logging.getLogger(__name__)

SEVERITIES = re.compile(r"severity=([1-5])\.\.([1-5])(?!\d)")


def load_recognisers(
    task: RecognitionTask[Any, Any, Any], specs: Sequence[str], data: LabelledImages[Any]
) -> list[Any]:
    """Load the recognisers and try each on the first image.

    So one that breaks its contract is noticed before time is spent on the others.

    Raises:
        MissingFileError: a file is missing.
        RecogniserError: one cannot be loaded or breaks its contract.
        InputError: two have the same name.
    """
    from vrdir.errors import RecogniserError
    from vrdir.evaluation.user_functions import to_pixels
    from vrdir.images.convert import open_image

    recognisers = [task.load(spec) for spec in specs]
    names = [one.name for one in recognisers]
    if len(set(names)) < len(names):
        raise InputError(
            f"two recognisers have the same name: {', '.join(names)}; use each only once"
        )
    for one in recognisers:
        try:
            task.call(one, to_pixels(open_image(data.images[0].path).tensor))
        except RecogniserError:
            raise
        except Exception:  # the evaluation will name the image
            logger.debug("%s", data.images[0].path, exc_info=True)
    return recognisers


def make_conditions(steps: Sequence[str], degraded: Sequence[str]) -> list[Condition]:
    """Return the conditions in the order given; without any, the images are used unchanged.

    Args:
        steps: of `--with`; `severity=1..3` makes three conditions.
        degraded: of `--degraded`, NAME=DIR.

    Raises:
        MissingFileError: a folder is missing.
        InputError: a degradation is unknown, or two conditions have the same name.
    """
    from vrdir.evaluation.recognition.conditions import AsTaken, Condition

    conditions = [Condition(text) for step in steps for text in expand_severities(step)]
    for name, folder in (named_option("--degraded", text) for text in degraded):
        conditions.append(Condition(name, folder=Path(folder)))
    names = [condition.name for condition in conditions]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise InputError(f"two conditions have the same name, {repeated!r}; use different names")
    return conditions or [AsTaken()]


def expand_severities(step: str) -> list[str]:
    """Return a degradation for each severity of a range; of several ranges all combinations.

    >>> expand_severities("haze:severity=1..3")
    ['haze:severity=1', 'haze:severity=2', 'haze:severity=3']

    Raises:
        InputError: a range is empty.
    """
    parts = SEVERITIES.split(step)  # text, low, high, text, low, high, ..., text
    bounds = zip(parts[1::3], parts[2::3], strict=True)
    ranges = [range(int(low), int(high) + 1) for low, high in bounds]
    if not all(ranges):
        raise InputError(
            f"{step}: a range of severities must begin with the lower one, such as 1..5"
        )
    *texts, last = parts[::3]
    return [
        "".join(f"{text}severity={level}" for text, level in zip(texts, levels, strict=True)) + last
        for levels in itertools.product(*ranges)
    ]


def named_option(option: str, text: str) -> tuple[str, str]:
    """Return the two parts of NAME=VALUE. Raises InputError if it is not like that."""
    name, _, value = text.partition("=")
    if not name or not value:
        raise InputError(f"{option} must be NAME=..., such as fog=photos/foggy, not {text!r}")
    return name, value


def load_restorers(
    given: Sequence[str], conditions: Sequence[Condition], weights: Sequence[str], device: str
) -> tuple[dict[str, RestoreImage], dict[str, Any]]:
    """Load the restorers.

    Args:
        given: of `--restorer`, NAME=SPEC.
        conditions: the conditions of the evaluation.
        weights: of `--weights`; empty for `--no-vrdir`.
        device: of `--device`.

    Returns:
        The restorers by name, networks first, and facts on them for reports.

    Raises:
        MissingFileError: a folder is missing.
        InputError: there are no such weights, device or function; two have the same name; there is
            none.
    """
    from vrdir.evaluation.recognition.restorers import load_restorer, network_for_images

    networks, facts = networks_of(weights, device)
    restorers: dict[str, RestoreImage] = {
        name: network_for_images(network) for name, network in networks.items()
    }
    for name, spec in (named_option("--restorer", text) for text in given):
        if name in (*restorers, "nothing"):
            raise InputError(f"--restorer {name}=...: that name is already used; choose another")
        restorers[name] = load_restorer(spec, conditions)
        facts[f"restorer {name}"] = spec
    if not restorers:
        raise InputError(
            "with --no-vrdir there is nothing to compare; add --restorer NAME=DIR or "
            "NAME=module:function"
        )
    return restorers, facts


@contextmanager
def cached_restorers(
    restorers: Mapping[str, RestoreImage], recognisers: int
) -> Iterator[Mapping[str, RestoreImage]]:
    """Keep restored images in a temporary folder if there are several recognisers.

    So each image is restored once for all of them.
    """
    if recognisers < 2:
        yield restorers
        return
    from vrdir.evaluation.recognition.restorers import RestoredFolders

    with tempfile.TemporaryDirectory(prefix="vrdir-") as folder:
        yield {
            name: restore
            if isinstance(restore, RestoredFolders)
            else _cached(restore, Path(folder) / str(i))
            for i, (name, restore) in enumerate(restorers.items())
        }


def _cached(restore: RestoreImage, folder: Path) -> RestoreImage:
    import numpy as np

    from vrdir.atomic import write_whole

    folder.mkdir()

    def restore_once(image: ImageFile, condition: str, pixels: Pixels) -> Pixels:
        key = f"{condition}|{image.path}".encode("utf-8", "surrogateescape")
        kept = folder / f"{hashlib.sha256(key).hexdigest()}.npz"
        if kept.is_file():
            with np.load(kept) as content:
                restored: Pixels = content["restored"]
                return restored
        restored = restore(image, condition, pixels)
        # Anything else is an error that the evaluation names.
        if isinstance(restored, np.ndarray) and restored.dtype == np.uint8:
            packed = io.BytesIO()
            np.savez_compressed(packed, restored=restored)
            try:
                write_whole(packed.getvalue(), kept)
            # The disk is full: the image is restored again for the next recogniser.
            except OSError as error:
                logger.debug("%s is not kept: %s", image.path, error)
        return restored

    return restore_once
