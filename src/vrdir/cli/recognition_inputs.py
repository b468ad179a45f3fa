"""What the options of `vrdir evaluate classification`, `detection` and `reid` stand for: data, conditions, recognisers, restorers."""

from __future__ import annotations

import hashlib
import io
import itertools
import logging
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vrdir.cli.console import networks_of

if TYPE_CHECKING:
    from vrdir.evaluation.recognition.labels.detection import DetectionData
    from vrdir.evaluation.recognition.labels.classification import ClassificationData, ReidData
    from vrdir.evaluation.recognition.recognisers.contracts import Classifier, Detector, Embedder
    from vrdir.evaluation.recognition.variants import Condition, Restore

    Data = ClassificationData | DetectionData | ReidData
    Recogniser = Classifier | Detector | Embedder

logger = logging.getLogger(__name__)

Task = Literal["classification", "detection", "reid"]
SEVERITIES = re.compile(r"severity=([1-5])\.\.([1-5])(?!\d)")


def read_data(task: Task, path: Path, images: Path | None) -> Data:
    """The labelled images of a task. Raises FileNotFoundError or ValueError if there are none."""
    from vrdir.evaluation.recognition.labels.detection import read_detection
    from vrdir.evaluation.recognition.labels.classification import read_classification, read_reid

    if task != "reid":
        return (read_classification if task == "classification" else read_detection)(path, images)
    if images is not None:
        raise ValueError(
            "--images is not for reid, whose images lie in query/ and gallery/ of --data"
        )
    return read_reid(path)


def limited(task: Task, data: Any, limit: int | None) -> tuple[Any, str]:
    """The first images by name, or persons by number, and what to say of it: "" if nothing was cut."""
    if limit is None:
        return data, ""
    keys = data.persons if task == "reid" else [item.name for item in data.items]
    things = sorted(set(keys) - {0})  # person 0 is a distractor
    if len(things) <= limit:
        return data, ""
    first = set(things[:limit])
    kept = [i for i, key in enumerate(keys) if key in first]
    columns = {
        "classification": ["labels"],
        "detection": ["truths"],
        "reid": ["persons", "cameras", "queries"],
    }[task]
    cut = {name: [getattr(data, name)[i] for i in kept] for name in ("items", *columns)}
    beyond = [item.name for item, key in zip(data.items, keys, strict=True) if key not in first]
    what = "persons by number" if task == "reid" else "images by name"
    return replace(
        data, **cut, set_aside=[*data.set_aside, *beyond]
    ), f"the first {limit} of {len(things)} {what}"


def recognisers_of(task: Task, specs: Sequence[str], data: Data) -> list[Recogniser]:
    """The recognisers, each tried on the first image: one that breaks its contract is known before time is spent on the others.

    Raises:
        FileNotFoundError, ValueError: one cannot be had, breaks its contract, or is called like another.
    """
    from vrdir.errors import RecogniserError
    from vrdir.evaluation.recognition.loading import load_recogniser
    from vrdir.evaluation.recognition.variants import pixels_of
    from vrdir.images.convert import open_image

    recognisers: list[Any] = [load_recogniser(spec, task) for spec in specs]
    names = [one.name for one in recognisers]
    if len(set(names)) < len(names):
        raise ValueError(f"two recognisers are called the same: {', '.join(names)}; give each once")
    for one in recognisers:
        try:
            image = pixels_of(open_image(data.items[0].path).tensor)
            one(image if task == "detection" else [image])
        except RecogniserError:
            raise
        except Exception:  # of this image: the evaluation names it
            logger.debug("%s", data.items[0].path, exc_info=True)
    return recognisers


def conditions_of(steps: Sequence[str], degraded: Sequence[str]) -> list[Condition]:
    """The conditions, in the order given, of which `severity=1..3` makes three; without any the images are taken as they are.

    Raises:
        FileNotFoundError, ValueError: a degradation or folder is unknown, or two have one name.
    """
    from vrdir.evaluation.recognition.variants import AsTaken, Condition

    conditions = [Condition(text) for step in steps for text in severities(step)]
    conditions += [
        Condition(name, folder=Path(folder))
        for name, folder in (named_option("--degraded", text) for text in degraded)
    ]
    names = [condition.name for condition in conditions]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"there are two conditions {twice!r}; give each a name of its own")
    return conditions or [AsTaken()]


def severities(step: str) -> list[str]:
    """ "haze:severity=1..3" -> "haze:severity=1", "haze:severity=2" and "haze:severity=3"; several in all combinations."""
    parts = SEVERITIES.split(step)  # text, low, high, text, low, high, ..., text
    ranges = [
        range(int(low), int(high) + 1) for low, high in zip(parts[1::3], parts[2::3], strict=True)
    ]
    if not all(ranges):
        raise ValueError(f"{step}: a range of severities goes upwards, such as 1..5")
    texts = parts[::3]
    return [
        "".join(f"{text}severity={level}" for text, level in zip(texts, levels, strict=False))
        + texts[-1]
        for levels in itertools.product(*ranges)
    ]


def named_option(option: str, text: str) -> tuple[str, str]:
    """NAME=VALUE in two. Raises ValueError if it is not."""
    name, _, value = text.partition("=")
    if not name or not value:
        raise ValueError(f"{option} is NAME=..., such as fog=photos/foggy; not {text!r}")
    return name, value


def restorers_of(
    given: Sequence[str], conditions: Sequence[Condition], weights: Sequence[str], device: str
) -> tuple[dict[str, Restore], dict[str, Any]]:
    """The restorers by name, vrdir by each of the weights first, and the facts of them for the reports.

    Raises:
        FileNotFoundError, ValueError: there are no such weights, device, folder or function; two have one name, or there are none.
    """
    from vrdir.evaluation.recognition.variants import by_network, load_restorer

    networks, facts = networks_of(weights, device)
    restorers: dict[str, Restore] = {
        name: by_network(network) for name, network in networks.items()
    }
    for name, spec in (named_option("--restorer", text) for text in given):
        if name in (*restorers, "nothing"):
            raise ValueError(f"--restorer {name}=...: that name is taken")
        restorers[name] = load_restorer(spec, conditions)
        facts[f"restorer {name}"] = spec
    if not restorers:
        raise ValueError(
            "--no-vrdir leaves nothing to compare; give a --restorer NAME=DIR or NAME=module:function"
        )
    return restorers, facts


@contextmanager
def remembered(
    restorers: Mapping[str, Restore], recognisers: int
) -> Iterator[Mapping[str, Restore]]:
    """The same restorers; with several recognisers each image is restored once, and kept in a temporary folder for the others."""
    if recognisers < 2:
        yield restorers
        return
    from vrdir.evaluation.recognition.variants import FromFolders

    with tempfile.TemporaryDirectory(prefix="vrdir-") as folder:
        yield {
            name: restore
            if isinstance(restore, FromFolders)
            else _remembered(restore, Path(folder) / str(i))
            for i, (name, restore) in enumerate(restorers.items())
        }


def _remembered(restore: Restore, folder: Path) -> Restore:
    import numpy as np

    from vrdir.atomic import write_whole

    folder.mkdir()

    def remembering(item: Any, condition: str, image: Any) -> Any:
        kept = folder / (
            hashlib.sha256(
                f"{condition}|{item.path}".encode("utf-8", "surrogateescape")
            ).hexdigest()
            + ".npz"
        )
        if kept.is_file():
            with np.load(kept) as content:
                return content["restored"]
        restored = restore(item, condition, image)
        if (
            isinstance(restored, np.ndarray) and restored.dtype == np.uint8
        ):  # anything else is an error of its own
            packed = io.BytesIO()
            np.savez_compressed(packed, restored=restored)
            try:
                write_whole(packed.getvalue(), kept)
            except (
                OSError
            ) as error:  # no room for more: the next recogniser has it restored once more
                logger.debug("%s is not kept: %s", item.path, error)
        return restored

    return remembering
