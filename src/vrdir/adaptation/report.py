"""The HTML page with the proof of an adaptation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from vrdir import __version__
from vrdir.adaptation.proof import AFTER, BEFORE, Outcome, Proof, Trial, rounded
from vrdir.adaptation.readiness import Readiness
from vrdir.adaptation.recogniser import Recogniser
from vrdir.data.validation_set import ValidationSet
from vrdir.evaluation.recognition.statistics import Estimate
from vrdir.evaluation.report.charts import Interval, forest
from vrdir.evaluation.report.page import Page, PictureRow, Section, Table, render
from vrdir.evaluation.report.pictures import boxed_picture
from vrdir.model.vrdir import VRDIR

EXAMPLES = 3
"""The number of example photos that became better, and of those that became worse."""
SERIES = ("as they are", "before", "after")
HEAD = ("photos", "as they are", "before", "after", "gain", "PSNR, dB")


def as_page(
    content: Mapping[str, Any],
    proof: Proof,
    before: VRDIR,
    after: VRDIR,
    recogniser: Recogniser,
    photos: ValidationSet,
) -> str:
    """Return the page as HTML. The example photos are restored again for it.

    Args:
        content: the content of the record (adaptation.json).
        proof: the figures.
        before: the network before adaptation.
        after: the adapted network.
        recogniser: the recogniser of the adaptation.
        photos: the photos of the proof.
    """
    settings = content["settings"]
    facts = {
        "vrdir": __version__,
        "torch": torch.__version__,
        "recogniser": str(recogniser.name),
        "weights": f"{content['weights']['name']} ({content['weights']['sha256'][:12]})",
        "steps": str(content["steps"]),
        "trained": f"{settings['trained']}, {100 * content['share']:.0f} % of the change kept",
        "photos": f"{content['photos']['training']} to train on, {proof.photos} for the proof",
        "seed": str(settings["seed"]),
        **recogniser.facts,
    }
    if "readiness" in content:
        facts["photos changed by the global context"] = str(Readiness(**content["readiness"]))
    groups = {kind: _figures(outcome) for kind, outcome in proof.kinds.items()}
    badge = "paid" if proof.paid else "harms" if proof.harmed else "no gain"
    section = Section(
        "Agreement with the outputs for the clean photos",
        badge,
        proof.verdict(),
        [Table(HEAD, [[cell.replace(" -> ", "\n-> ") for cell in row] for row in proof.rows()])],
        [forest(groups, None, SERIES, f"Agreement in %: {proof.measure}. Bars: 95 % intervals.")],
        _examples(proof, before, after, recogniser, photos),
        points=[f"requested: {', '.join(proof.weather)}"],
    )
    notes = {
        "Agreement": proof.measure,
        "Gain": "after minus before, with a bias-corrected 95 % bootstrap interval over photos.",
        "Paid": "the interval of the gain, over the requested degradations, is above 0, and no "
        "kind of photo became worse: PSNR by more than 0.3 dB, or agreement significantly and by "
        "more than 0.5 points.",
    }
    return render(Page(f"Adapted to {recogniser.name}", facts, None, [section], notes))


def _figures(outcome: Outcome) -> dict[str, Interval]:
    return dict(
        zip(SERIES, map(_interval, (outcome.degraded, outcome.before, outcome.after)), strict=True)
    )


def _interval(figure: Estimate) -> Interval:
    return figure.value, figure.low, figure.high


def _examples(
    proof: Proof,
    before: VRDIR,
    after: VRDIR,
    recogniser: Recogniser,
    photos: ValidationSet,
) -> list[PictureRow]:
    """Return pictures of the photos whose agreement rose and fell most."""
    ordered = sorted(
        (trial for trial in proof.trials if trial.kind in proof.weather),
        key=lambda trial: trial.agreement[BEFORE] - trial.agreement[AFTER],
    )
    better = [t for t in ordered[:EXAMPLES] if t.agreement[AFTER] > t.agreement[BEFORE]]
    worse = [t for t in ordered[::-1][:EXAMPLES] if t.agreement[AFTER] < t.agreement[BEFORE]]
    titles = {(t.kind, t.number): "better" for t in better}
    titles |= {(t.kind, t.number): "worse" for t in worse}
    trials = {(t.kind, t.number): t for t in (*better, *worse)}
    rows, counts = [], dict.fromkeys(proof.weather, -1)
    shares = dict.fromkeys(proof.weather, 1.0)
    device = next(before.parameters()).device
    with torch.no_grad():
        for kind, degraded, clean in photos.pairs(shares, lambda _: True):
            counts[kind] += 1
            key = (kind, counts[kind])
            if key not in titles:
                continue
            images = {
                "clean": clean.to(device),
                "degraded": degraded.to(device),
                BEFORE: rounded(before(degraded.to(device))),
                AFTER: rounded(after(degraded.to(device))),
            }
            rows.append(_row(titles[key], trials[key], images, recogniser))
    return sorted(rows, key=lambda row: row.title)


def _row(
    title: str, trial: Trial, images: Mapping[str, torch.Tensor], recogniser: Recogniser
) -> PictureRow:
    assert recogniser.kind is not None
    captions = {
        name: recogniser.kind.caption(recogniser.answers(image)) for name, image in images.items()
    }
    marks = {BEFORE: "", AFTER: "good" if title == "better" else "bad"}
    pictures = [
        boxed_picture(name, captions[name], image[0].cpu(), mark=marks.get(name, ""))
        for name, image in images.items()
    ]
    change = (
        f"{trial.kind}: agreement {100 * trial.agreement[BEFORE]:.0f} -> "
        f"{100 * trial.agreement[AFTER]:.0f} %"
    )
    return PictureRow(title, change, pictures)
