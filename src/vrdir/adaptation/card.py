"""The model card of adapted weights: the recogniser, the training, and the proof."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vrdir.adaptation.proof import Proof

CARD = """# Adapted to {recogniser}

`vrdir` weights, adapted without labels to one frozen recogniser. Load them by
`vrdir.Restorer(FOLDER)`.

| | |
|---|---|
| Initial weights | `{weights}` (SHA-256 {began:.12}) |
| Recogniser | {recogniser}, {answers} (SHA-256 of its weights {fingerprint:.12}) |
| Layers | {layers} |
| Trained on | {training} clean photos of the user, degraded at random in each of {steps} steps |
| Degradations | {degradations} |
| Changed | {trained}; {share:.0%} of the change was kept |
| Seed | {seed} |
| Licence | that of the initial weights |

{verdict}

Agreement is the {measure}; {photos} held-out photos, with 95 % intervals.

{table}

This recogniser was used in training, so it is not a held-out recogniser for these weights. If you
have labels, measure with `vrdir evaluate`.
"""


def as_card(content: Mapping[str, Any], proof: Proof) -> str:
    """Return the card as Markdown.

    Args:
        content: the content of the record (adaptation.json).
        proof: the figures.
    """
    settings, recogniser = content["settings"], content["recogniser"]
    rows = [
        "| photos | not restored | before | after | gain | PSNR, dB |",
        "|---|---|---|---|---|---|",
        *(f"| {' | '.join(cell.replace(chr(10), ', ') for cell in row)} |" for row in proof.rows()),
    ]
    return CARD.format(
        recogniser=recogniser["name"],
        weights=content["weights"]["name"],
        began=content["weights"]["sha256"],
        answers=recogniser["answers"].lower(),
        fingerprint=recogniser["sha256"],
        layers=", ".join(f"`{name}`" for name in recogniser["layers"]) or "none",
        training=content["photos"]["training"],
        steps=content["steps"],
        degradations=settings["degradations"] or "all that the weights restore",
        trained=settings["trained"],
        share=content["share"],
        seed=settings["seed"],
        verdict=content["verdict"],
        measure=proof.measure,
        photos=proof.photos,
        table="\n".join(rows),
    )
