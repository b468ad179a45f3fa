"""The networks that `--weights` names, and the facts about them for a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vrdir.cli.options import name_and_value
from vrdir.errors import InputError

if TYPE_CHECKING:
    from vrdir.restoring.restorer import Restorer

SHOWN_DIGITS = 12  # of a hash on a page


def networks_of(weights: Sequence[str], device: str) -> tuple[dict[str, Restorer], dict[str, Any]]:
    """Load the networks that `--weights` names.

    A single one has the name vrdir. Several have the name in NAME=, or the last part of their own.

    Returns:
        The restorers by name, and the facts for a report.

    Raises:
        MissingFileError: there are no such weights.
        InputError: there is no such device, the weights are damaged, or two have the same name.
    """
    if not weights:
        return {}, {}
    import torch

    from vrdir.model.loading import WEIGHTS_FILE
    from vrdir.restoring.restorer import Restorer
    from vrdir.weights.bundled import resolve_weights, sha256

    networks: dict[str, Restorer] = {}
    facts: dict[str, Any] = {"torch": torch.__version__}
    for text in weights:
        given, value = name_and_value(text)
        name = given or ("vrdir" if len(weights) == 1 else Path(value).name or value)
        if name in (*networks, "nothing"):
            raise InputError(
                f"--weights {text}: the name {name!r} is already used; choose another: --weights "
                "NAME=WEIGHTS"
            )
        networks[name] = Restorer(value, device)
        of = "" if name == "vrdir" else f" {name}"
        facts |= {"device": str(networks[name].device), f"weights{of}": value}
        facts[f"sha256{of}"] = sha256(resolve_weights(value) / WEIGHTS_FILE)
    return networks, facts


def shown_facts(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return facts as pages show them: hashes are shortened."""
    return {
        key: str(value)[:SHOWN_DIGITS] if key.startswith("sha256") else str(value)
        for key, value in facts.items()
    }
