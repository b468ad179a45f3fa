"""The proof: how well the recogniser's answers for restored photos agree with the clean photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vrdir.adaptation.recogniser import Recogniser
from vrdir.data.validation_set import ValidationSet
from vrdir.degradations.registry import CLEAN
from vrdir.evaluation.recognition.statistics import (
    Estimate,
    Figure,
    Resampling,
    bootstrap_weights,
    estimate,
    mean_figure,
)
from vrdir.evaluation.restoration.metrics import psnr_rgb
from vrdir.model.vrdir import VRDIR

BEFORE, AFTER = "before", "after"
LOST_DB = 0.3
"""The largest loss of a kind of photo in mean PSNR, in dB, that counts as no harm."""
ENOUGH_DB = 50.0
"""PSNR values are limited to this, in dB, because clean photos reach 100."""
LOST_SHARE = 0.5
"""A significant loss of agreement is harm only if it is larger than this, in points."""
RESAMPLES = 2000


class Trial(NamedTuple):
    """One held-out photo, degraded in one way.

    Attributes:
        kind: the degradation, or "clean".
        number: the number of the photo, from 0.
        degraded: the agreement without restoring, in [0, 1].
        agreement: the agreement after restoring, in [0, 1], for each network.
        psnr: the PSNR after restoring, in dB, for each network.
    """

    kind: str
    number: int
    degraded: float
    agreement: Mapping[str, float]
    psnr: Mapping[str, float]


class Outcome(NamedTuple):
    """The figures of one kind of photo, or of several kinds together.

    Attributes:
        degraded: agreement without restoring, in per cent.
        before: agreement with the weights before adaptation, in per cent.
        after: agreement with the adapted weights, in per cent.
        gain: after minus before, in percentage points.
        psnr_before: mean PSNR with the weights before adaptation, in dB.
        psnr_after: mean PSNR with the adapted weights, in dB.
    """

    degraded: Estimate
    before: Estimate
    after: Estimate
    gain: Estimate
    psnr_before: float
    psnr_after: float

    @property
    def gained(self) -> bool:
        """Whether agreement rose significantly: the interval of the gain is above 0."""
        return self.gain.low > 0

    @property
    def harmed(self) -> bool:
        """Whether agreement fell significantly by over 0.5 points, or PSNR by over 0.3 dB."""
        fell = self.gain.high < 0 and self.gain.value < -LOST_SHARE
        return fell or self.psnr_after < self.psnr_before - LOST_DB


class Proof(NamedTuple):
    """The results of adaptation on held-out photos.

    Attributes:
        kinds: the outcome of each kind of photo: the requested degradations first, then the others,
            then clean photos.
        weather: the kinds that were requested.
        together: the outcome of the requested kinds together.
        photos: the number of photos.
        measure: a description of the agreement.
        trials: the trials of all photos and kinds.
    """

    kinds: Mapping[str, Outcome]
    weather: Sequence[str]
    together: Outcome
    photos: int
    measure: str
    trials: Sequence[Trial]

    @property
    def harmed(self) -> list[str]:
        """The kinds of photos that became worse."""
        return [kind for kind, outcome in self.kinds.items() if outcome.harmed]

    @property
    def paid(self) -> bool:
        """Whether there is a gain, and nothing became worse, so that the weights are written."""
        return self.together.gained and not self.harmed

    def verdict(self) -> str:
        """Return the result in a sentence or two."""
        one = self.together
        change = (
            f"{one.before.value:.1f} -> {one.after.value:.1f} % "
            f"({one.gain.value:+.1f}, 95 % interval {one.gain.low:+.1f} to {one.gain.high:+.1f})"
        )
        what = (
            f"agreement with the outputs for the clean photos, on {self.photos} held-out photos: "
            f"{change}"
        )
        if self.paid:
            return f"Adaptation helps: {what}."
        if not one.gained:
            return f"Adaptation has no significant gain: {what}."
        return f"Adaptation has a gain, but other results become worse: {what}; {self.harms()}."

    def harms(self) -> str:
        """Return in words which kinds became worse, and how."""
        return "; ".join(
            f"{kind} {one.gain.value:+.1f} points, {one.psnr_after - one.psnr_before:+.2f} dB"
            for kind, one in self.kinds.items()
            if one.harmed
        )

    def rows(self) -> list[tuple[str, ...]]:
        """Return the figures as rows of a table; the last row has the requested kinds together."""
        named = {**self.kinds, "together": self.together}
        return [(kind, *_cells(outcome)) for kind, outcome in named.items()]

    def figures(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        named = {**self.kinds, "together": self.together}
        return {
            kind: {
                key: list(value) if isinstance(value, Estimate) else round(value, 3)
                for key, value in outcome._asdict().items()
            }
            for kind, outcome in named.items()
        }


def _cells(one: Outcome) -> tuple[str, ...]:
    shown = [
        f"{e.value:.1f}\n{e.low:.1f} to {e.high:.1f}" for e in (one.degraded, one.before, one.after)
    ]
    gain = f"{one.gain.value:+.1f}\n{one.gain.low:+.1f} to {one.gain.high:+.1f}"
    return (*shown, gain, f"{one.psnr_before:.2f} -> {one.psnr_after:.2f}")


def try_on(
    networks: Mapping[str, VRDIR],
    recogniser: Recogniser,
    photos: ValidationSet,
    kinds: Sequence[str],
    device: torch.device,
) -> list[Trial]:
    """Restore each photo of each kind with each network, and compare the recogniser's answers.

    Args:
        networks: the networks by name.
        recogniser: the frozen recogniser.
        photos: the held-out photos.
        kinds: degradations, and "clean".
        device: where to compute.

    Returns:
        The trials, with the photos in the same order for each kind.

    Raises:
        ImageError: a photo cannot be read.
    """
    trials: list[Trial] = []
    counts: dict[str, int] = {}
    shares = dict.fromkeys(kinds, 1.0)
    with torch.no_grad():
        for kind, degraded, clean in photos.pairs(shares, lambda _: True):
            degraded, clean = degraded.to(device), clean.to(device)
            wanted = recogniser.answers(clean)
            agreement, psnr = {}, {}
            for name, network in networks.items():
                restored = rounded(network(degraded))
                agreement[name] = agree(recogniser, restored, wanted)
                psnr[name] = min(psnr_rgb(restored.cpu(), clean.cpu())[0], ENOUGH_DB)
            number = counts[kind] = counts.get(kind, -1) + 1
            unrestored = agree(recogniser, degraded, wanted)
            trials.append(Trial(kind, number, unrestored, agreement, psnr))
    return trials


def joined(some: Sequence[Trial], others: Sequence[Trial]) -> list[Trial]:
    """Return trials with the networks of both lists, which must have the same photos."""
    return [
        one._replace(
            agreement={**one.agreement, **other.agreement}, psnr={**one.psnr, **other.psnr}
        )
        for one, other in zip(some, others, strict=True)
    ]


def agree(recogniser: Recogniser, image: Tensor, wanted: object) -> float:
    """Return the agreement of the answer for one image (1, 3, H, W) with the wanted answer."""
    assert recogniser.kind is not None
    return recogniser.kind.agreement(recogniser.answers(image), wanted)[0]


def rounded(image: Tensor) -> Tensor:
    """Return an image in [0, 1] rounded to 8-bit levels."""
    return (image * 255).round() / 255


def proof_of(trials: Sequence[Trial], weather: Sequence[str], measure: str, seed: int = 0) -> Proof:
    """Return the proof from trials of the networks "before" and "after".

    Args:
        trials: the trials of all kinds, with the same photos for each kind.
        weather: the kinds that were requested.
        measure: a description of the agreement.
        seed: the seed of the bootstrap resamples.
    """
    by_kind: dict[str, list[Trial]] = {}
    for trial in trials:
        by_kind.setdefault(trial.kind, []).append(trial)
    order = [*weather, *(k for k in by_kind if k not in weather and k != CLEAN)]
    order += [CLEAN] if CLEAN in by_kind else []
    photos = len(next(iter(by_kind.values())))
    weights = bootstrap_weights(photos, Resampling(RESAMPLES, seed))
    outcomes = {kind: _outcome([by_kind[kind]], weights) for kind in order if kind in by_kind}
    asked = [by_kind[kind] for kind in weather if kind in by_kind]
    return Proof(outcomes, list(weather), _outcome(asked, weights), photos, measure, list(trials))


def _outcome(kinds: Sequence[Sequence[Trial]], weights: NDArray[np.uint16]) -> Outcome:
    """Return the outcome of kinds together: the mean over kinds is taken for each photo."""

    def figure(values: Sequence[Sequence[float]]) -> Figure:
        return mean_figure(np.asarray(values, np.float64).mean(0), weights)

    degraded = figure([[trial.degraded for trial in kind] for kind in kinds])
    before, after = (
        figure([[trial.agreement[name] for trial in kind] for kind in kinds])
        for name in (BEFORE, AFTER)
    )
    decibels = [
        float(np.mean([[trial.psnr[name] for trial in kind] for kind in kinds]))
        for name in (BEFORE, AFTER)
    ]
    gain = Figure(after.value - before.value, after.resampled - before.resampled)
    figures = [estimate(each) for each in (degraded, before, after, gain)]
    return Outcome(figures[0], figures[1], figures[2], figures[3], decibels[0], decibels[1])
