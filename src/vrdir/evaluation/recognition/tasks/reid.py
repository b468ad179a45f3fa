"""Re-identification of persons: is the person of a query found among images of other cameras?

Query and gallery are degraded and restored in the same way: a camera in fog sees fog all day.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vrdir.errors import DataError, InputError, RecogniserError
from vrdir.evaluation.metric import Metric
from vrdir.evaluation.recognition.image_files import Exclusion, ImageFile, nothing_left
from vrdir.evaluation.recognition.labels.labelled import LabelledImages
from vrdir.evaluation.recognition.labels.reid import DISTRACTOR, Sighting, read_reid
from vrdir.evaluation.recognition.recognisers.contracts import Embedder
from vrdir.evaluation.recognition.recognisers.onnx_network import OnnxNetwork
from vrdir.evaluation.recognition.recognisers.packages import load_timm, load_transformers
from vrdir.evaluation.recognition.scoring import Description, Scores, score_samples
from vrdir.evaluation.recognition.statistics import Resampling
from vrdir.evaluation.recognition.task import RecognitionTask
from vrdir.evaluation.user_functions import Pixels

if TYPE_CHECKING:
    from vrdir.evaluation.recognition.protocol import Answers
    from vrdir.evaluation.recognition.variants import Variant

QUERIES_AT_ONCE = 256


class Ranking(NamedTuple):
    """Where the person of each query is found in the gallery.

    Attributes:
        first: (Q,) place of the first right gallery image, from 0.
        precision: (Q,) average precision in [0, 1].
        nearest: (Q,) person of the most similar gallery image.
    """

    first: NDArray[Any]
    precision: NDArray[Any]
    nearest: NDArray[Any]


class Reidentification(RecognitionTask[Sighting, Embedder, NDArray[Any]]):
    """Re-identification of persons by the protocol of Market-1501.

    The functions of the metrics take a `Ranking` and return a value per query. Tests are exact
    McNemar tests for the ranks, and by randomisation for mAP. Resamples draw the queries; the
    gallery stays.
    """

    name = "reid"
    title = "re-identification"
    help = (
        "Measure rank-1 and mAP of person re-identification on clean, degraded and restored images."
    )
    data_help = (
        "A folder with query/ and gallery/, named as in Market-1501: "
        "0002_c1s1_000451_03.jpg is person 2 seen by camera 1."
    )
    metrics = (
        Metric(
            "rank1",
            "Rank-1",
            1,
            "share of queries whose most similar gallery image shows the same person; "
            "images by the query's own camera are excluded",
            lambda ranking: ranking.first < 1,
            unit="%",
        ),
        Metric(
            "rank5",
            "Rank-5",
            1,
            "share of queries with the same person among the 5 most similar",
            lambda ranking: ranking.first < 5,
            unit="%",
        ),
        Metric(
            "rank10",
            "Rank-10",
            1,
            "share of queries with the same person among the 10 most similar",
            lambda ranking: ranking.first < 10,
            unit="%",
        ),
        Metric(
            "map",
            "mAP",
            1,
            "mean over the queries of average precision, "
            "the mean of the precision at each right image",
            lambda ranking: ranking.precision,
            unit="%",
        ),
    )
    unit = "queries"
    limit_unit = "persons by number"
    onnx_outputs: ClassVar[Mapping[str, int]] = {"embedding": 2}
    onnx_resizing = "stretch"

    def read(self, path: Path, images: Path | None = None) -> LabelledImages[Sighting]:
        """Read persons; see `read_reid`.

        Raises:
            InputError: a folder of images is given.
        """
        if images is not None:
            raise InputError(
                "--images has no effect for reid: its images are in query/ and gallery/ of --data"
            )
        return read_reid(path)

    def limit_key(self, image: ImageFile, label: Sighting) -> int | None:
        """Return the person; None for distractors."""
        return label.person if label.person != DISTRACTOR else None

    def from_function(self, spec: str, function: Callable[..., Any]) -> Embedder:
        """Return an embedder that calls a function: list of B images -> vectors (B, D)."""
        return Embedder(spec, {"source": spec}, function)

    def from_onnx(self, network: OnnxNetwork) -> Embedder:
        """Return an embedder that runs an ONNX file."""
        return Embedder(network.name, network.facts, network.run_batch)

    def packages(self) -> Mapping[str, Callable[[str], Embedder]]:
        """Return package -> a function that loads one of its models as an embedder."""
        return {"timm": _from_timm, "transformers": _from_transformers}

    def call(self, recogniser: Embedder, image: Pixels) -> NDArray[Any]:
        """Return the vector of one image, of length 1, (D,)."""
        vector: NDArray[Any] = recogniser([image])[0]
        return vector

    def score(
        self,
        recogniser: Embedder,
        labels: Sequence[Sighting],
        answers: Answers[NDArray[Any]],
        resampling: Resampling,
    ) -> Scores:
        """Return figures over the queries whose person another camera saw, too."""
        persons, cameras, is_query = (np.array(column) for column in zip(*labels, strict=True))
        asked, excluded = _answerable(answers.images, persons, cameras, is_query)
        excluded = [*answers.excluded, *excluded]
        if not asked:
            raise DataError(nothing_left(excluded))
        gallery = np.flatnonzero(~is_query)
        rankings = {
            variant: rank_gallery(
                np.stack([vectors[i] for i in asked]),
                np.stack([vectors[i] for i in gallery]),
                (persons[asked], cameras[asked]),
                (persons[gallery], cameras[gallery]),
            )
            for variant, vectors in answers.by_variant.items()
        }

        def describe(variant: Variant, index: int) -> Description:
            place = int(rankings[variant].first[index])
            if place == 0:
                return Description("found first")
            nearest = rankings[variant].nearest[index]
            return Description(f"found at place {place + 1}; first person {nearest}")

        return score_samples(
            self.metrics,
            rankings,
            resampling,
            images=[answers.images[i] for i in asked],
            excluded=excluded,
            data=f"{len(asked)} queries, {len(gallery)} gallery images, "
            f"{len(set(persons[asked]))} persons",
            describe=describe,
            truth=lambda index: f"person {persons[asked[index]]}",
        )


def _answerable(
    images: Sequence[ImageFile],
    persons: NDArray[Any],
    cameras: NDArray[Any],
    is_query: NDArray[Any],
) -> tuple[list[int], list[Exclusion]]:
    """Return the indices of queries with a match by another camera, and the other queries."""
    has_match = np.array(
        [
            bool((~is_query & (persons == person) & (cameras != camera)).any())
            for person, camera in zip(persons, cameras, strict=True)
        ]
    )
    reason = "a query without a match: no other camera saw this person"
    unmatched: list[int] = np.flatnonzero(is_query & ~has_match).tolist()
    excluded = [Exclusion(images[i].name, reason, by_protocol=True) for i in unmatched]
    return np.flatnonzero(is_query & has_match).tolist(), excluded


def rank_gallery(
    queries: NDArray[Any],
    gallery: NDArray[Any],
    of_queries: tuple[NDArray[Any], NDArray[Any]],
    of_gallery: tuple[NDArray[Any], NDArray[Any]],
) -> Ranking:
    """Rank the gallery for each query by the dot product.

    Images of the query's person by its own camera are left out. Average precision is the mean of
    the precision at the right images, as in torchreid and others; Market-1501's own code takes
    trapezia and gives slightly higher values.

    Args:
        queries: vectors of unit length, (Q, D).
        gallery: vectors of unit length, (G, D).
        of_queries: the person and the camera of each, (Q,) both.
        of_gallery: the person and the camera of each, (G,) both.

    Returns:
        The ranking. Every query must have a match by another camera.
    """
    (asked, asked_by), (persons, cameras) = of_queries, of_gallery
    first, precision, nearest = [], [], []
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        part = slice(start, start + QUERIES_AT_ONCE)
        order = np.argsort(-(queries[part] @ gallery.T), axis=1, kind="stable")
        for row, person, camera in zip(order, asked[part], asked_by[part], strict=True):
            row = row[(persons[row] != person) | (cameras[row] != camera)]
            places = np.flatnonzero(persons[row] == person)
            first.append(places[0])
            precision.append(np.mean(np.arange(1, len(places) + 1) / (places + 1)))
            nearest.append(persons[row[0]])
    return Ranking(np.array(first), np.array(precision), np.array(nearest))


def _from_timm(name: str) -> Embedder:
    loaded = load_timm(name, num_classes=0)  # the features before the classifier
    return Embedder(loaded.name, loaded.facts, loaded.run)


def _from_transformers(name: str) -> Embedder:
    loaded = load_transformers(name, "AutoModel", "reid")

    def run(images: Sequence[Pixels]) -> Any:
        pooled = getattr(loaded.run(images), "pooler_output", None)
        if pooled is None:
            raise RecogniserError(
                f"{loaded.name} has no pooled output; use a `module:function` that runs it"
            )
        return pooled.flatten(1)

    return Embedder(loaded.name, loaded.facts, run)
