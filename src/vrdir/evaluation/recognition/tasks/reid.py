"""Re-identification in clean, degraded and restored images: is the person of a query found among those of other cameras?

Query and gallery are degraded, and restored, alike: a camera in fog sees fog all day.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vrdir.evaluation.recognition.labels.classification import ReidData
from vrdir.evaluation.recognition.protocol import (
    RecognitionResult,
    Said,
    ask,
    cases_of,
    nothing_left,
    result_of,
)
from vrdir.evaluation.recognition.recognisers.contracts import Embedder
from vrdir.evaluation.recognition.statistics import (
    bootstrap_weights,
    mcnemar,
    mean_figure,
    paired_mean_test,
)
from vrdir.evaluation.recognition.variants import (
    Condition,
    Exclusion,
    Item,
    Pixels,
    Restore,
    Source,
    Variant,
)
from vrdir.restoring.restorer import Restorer

Array = np.ndarray[Any, np.dtype[Any]]

METRICS = {
    "rank1": "Rank-1: % of queries whose most similar gallery image shows the same person; images by the query's own camera are left out",
    "rank5": "Rank-5: % of queries with the same person among the 5 most similar",
    "rank10": "Rank-10: % of queries with the same person among the 10 most similar",
    "map": "mAP: % mean over the queries of average precision, the mean of the precision at each right image",
}
QUERIES_AT_ONCE = 256


class Ranking(NamedTuple):
    """What became of each query that can be answered.

    Attributes:
        first: (Q,) place of the first right gallery image, from 0.
        precision: (Q,) average precision in [0, 1].
        nearest: (Q,) person of the most similar gallery image.
    """

    first: Array
    precision: Array
    nearest: Array


def evaluate_reid(
    data: ReidData,
    recogniser: Embedder,
    conditions: Sequence[Condition],
    restorers: Mapping[str, Restore | Restorer],
    *,
    seed: int = 0,
    bootstrap: int = 1000,
    progress: Callable[[str], None] | None = None,
) -> RecognitionResult:
    """Whom an embedder finds in clean, degraded and restored images.

    Args:
        data: from `labels.read_reid`.
        recogniser: from `recognisers.load_recogniser`.
        conditions: the degradations.
        restorers: by name.
        seed: of the synthesis and of the resamples.
        bootstrap: how many resamples of the queries the intervals are taken from (the gallery stays), and swaps the mAP's test.
        progress: called with the name of each image that was dealt with.

    Returns:
        Figures over the queries that have a match by another camera; tests are McNemar's, exact, for the ranks, and by
        randomisation for mAP.

    Raises:
        ValueError: the recogniser breaks its contract, or nothing can be measured.
    """
    source = Source(conditions, restorers, seed)

    def recognise(item: Item, image: Pixels) -> Array:
        vector: Array = recogniser([image])[0]
        return vector

    answered = ask(data.items, source, recognise, data.excluded, data.set_aside, progress)
    facts = {
        item.name: one
        for item, *one in zip(data.items, data.persons, data.cameras, data.queries, strict=True)
    }
    persons, cameras, queries = (
        np.array(column)
        for column in zip(*(facts[item.name] for item in answered.items), strict=True)
    )
    gallery = ~queries
    matched = np.array(
        [
            bool((gallery & (persons == who) & (cameras != where)).any())
            for who, where in zip(persons, cameras, strict=True)
        ]
    )
    asked = np.flatnonzero(queries & matched)
    unmatched = [answered.items[i].name for i in np.flatnonzero(queries & ~matched)]
    excluded = [
        *answered.excluded,
        *(
            Exclusion(name, "a query without a match: no other camera saw this person")
            for name in unmatched
        ),
    ]
    if not len(asked):
        raise ValueError(nothing_left(excluded))
    rankings = {
        variant: ranking(
            np.stack([vectors[i] for i in asked]),
            np.stack([vectors[i] for i in np.flatnonzero(gallery)]),
            (persons[asked], cameras[asked]),
            (persons[gallery], cameras[gallery]),
        )
        for variant, vectors in answered.answers.items()
    }
    weights = bootstrap_weights(len(asked), bootstrap, seed)
    values = {variant: per_query(one) for variant, one in rankings.items()}

    def test(metric: str, before: Variant, after: Variant) -> float:
        pair = values[before][metric], values[after][metric]
        return paired_mean_test(*pair, bootstrap, seed) if metric == "map" else mcnemar(*pair)

    def say(variant: Variant, i: int) -> Said:
        place = int(rankings[variant].first[i])
        return Said(
            "found first"
            if place == 0
            else f"found at place {place + 1}; first person {rankings[variant].nearest[i]}"
        )

    return result_of(
        task="reid",
        recogniser=recogniser.name,
        facts={
            **recogniser.facts,
            "data": f"{len(asked)} queries, {gallery.sum()} gallery images, {len(set(persons[asked]))} persons",
        },
        metrics=METRICS,
        images=len(asked),
        excluded=excluded,
        source=source,
        figures={
            variant: {key: mean_figure(value, weights) for key, value in one.items()}
            for variant, one in values.items()
        },
        test=test,
        cases=cases_of(
            source,
            [answered.items[i] for i in asked],
            {variant: one["rank1"].astype(float).tolist() for variant, one in values.items()},
            say,
            lambda i: f"person {persons[asked[i]]}",
        ),
    )


def per_query(one: Ranking) -> dict[str, Array]:
    """Metric -> hit or miss, or average precision, of each query."""
    return {"map": one.precision} | {
        key: one.first < int(key[4:]) for key in METRICS if key != "map"
    }


def ranking(
    queries: Array, gallery: Array, of_queries: tuple[Array, Array], of_gallery: tuple[Array, Array]
) -> Ranking:
    """Rank the gallery for each query by the dot product; images of the query's person by its own camera are taken out first.

    Args:
        queries, gallery: vectors of unit length, (Q, D) and (G, D).
        of_queries, of_gallery: the person and the camera of each.

    Returns:
        The ranking; every query must have a match by another camera. Average precision is the mean of the precision at the
        right images, as torchreid and others have it; Market-1501's own code takes trapezia and comes out a little higher.
    """
    (asked, asked_by), (persons, cameras) = of_queries, of_gallery
    first, precision, nearest = [], [], []
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        order = np.argsort(
            -(queries[start : start + QUERIES_AT_ONCE] @ gallery.T), axis=1, kind="stable"
        )
        for row, who, where in zip(
            order, asked[start:], asked_by[start:], strict=False
        ):  # the last rows are fewer
            row = row[(persons[row] != who) | (cameras[row] != where)]
            places = np.flatnonzero(persons[row] == who)
            first.append(places[0])
            precision.append(np.mean(np.arange(1, len(places) + 1) / (places + 1)))
            nearest.append(persons[row[0]])
    return Ranking(np.array(first), np.array(precision), np.array(nearest))
