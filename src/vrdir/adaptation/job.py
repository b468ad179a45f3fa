"""One adaptation, step by step: check, measure the place, train, choose a share, prove, write."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vrdir.adaptation.card import as_card
from vrdir.adaptation.photos import Photos
from vrdir.adaptation.place import measure_photos, ranges_of_place
from vrdir.adaptation.proof import AFTER, BEFORE, Proof, Trial, joined, proof_of, try_on
from vrdir.adaptation.readiness import make_ready
from vrdir.adaptation.recogniser import Recogniser
from vrdir.adaptation.report import as_page
from vrdir.adaptation.settings import AdaptationSettings
from vrdir.adaptation.stage import AdaptStage
from vrdir.adaptation.timing import steps_in_minutes
from vrdir.atomic import write_whole
from vrdir.data.items import Item
from vrdir.data.validation_set import ValidationSet
from vrdir.degradations.registry import CLEAN, DEGRADATIONS, MIXED
from vrdir.errors import ExistsError, MissingFileError, SettingsError
from vrdir.images.folders import check_writable
from vrdir.model.blocks import move_to
from vrdir.model.loading import WEIGHTS_FILE
from vrdir.model.vrdir import VRDIR
from vrdir.text_files import read_json
from vrdir.training.earlier_stages import EarlierStages
from vrdir.training.logs import Watcher
from vrdir.training.record import RECIPE, write_json
from vrdir.training.run import train
from vrdir.training.settings import Recipe
from vrdir.weights.bundled import sha256

RUN, RECORD, CARD, REPORT = "run", "adaptation.json", "README.md", "report.html"
"""The folder of the training run, and the files next to it, in the folder of the new weights."""
SHARES = (1.0, 0.75, 0.5, 0.25)
"""The shares of the trained change that are tried: the first one that harms nothing is kept."""


@dataclass(frozen=True)
class Adaptation:
    """The result of `adapt`.

    Attributes:
        weights: the folder of the adapted weights; None if no weights were written.
        report: the HTML page with the proof.
        proof: the results on held-out photos, before and after adaptation.
        share: the share of the trained change that was kept, above 0 to 1.
        steps: the number of training steps.
        recogniser: the name of the recogniser.
    """

    weights: Path | None
    report: Path
    proof: Proof
    share: float
    steps: int
    recogniser: str


class AdaptationJob:
    """One adaptation: its settings, its initial network, and its folder."""

    def __init__(
        self,
        settings: AdaptationSettings,
        output: Path,
        folder: Path,
        weights: str,
        device: torch.device,
        note: Callable[[str], None],
    ) -> None:
        self.settings, self.output, self.folder = settings, output, folder
        self.weights, self.device, self.note = weights, device, note
        self.before = move_to(VRDIR.from_pretrained(folder, device=device), device)
        able = [name for name in self.before.config.branches if name in DEGRADATIONS]
        self.kinds = [*able, *([MIXED] if len(able) > 1 else []), CLEAN]
        asked = list(settings.wanted(self.before.config))
        self.weather = asked if len(asked) < len(able) else self.kinds[:-1]

    def check_output(self, resume: bool) -> None:
        """Raise an error if the folder cannot be used for the result."""
        begun = (self.output / RUN / RECIPE).exists()
        if (self.output / WEIGHTS_FILE).exists():
            raise ExistsError(f"{self.output} already contains weights; choose another folder")
        if begun and not resume:
            raise ExistsError(
                f"{self.output} contains an unfinished adaptation; continue it with --resume, or "
                "choose another folder"
            )
        if resume and not begun:
            raise MissingFileError(
                f"{self.output} contains no adaptation to continue; remove --resume"
            )
        check_writable(self.output, self.output)

    def weather_of(self, place_photos: Sequence[Path]) -> dict[str, dict[str, Any]]:
        """Return ranges of degradations' parameters, measured on photos of the place."""
        ranges = ranges_of_place(measure_photos(place_photos, self.before), self.weather)
        shown = "; ".join(
            f"{name} {', '.join(f'{key} {low:g} to {high:g}' for key, (low, high) in of.items())}"
            for name, of in ranges.items()
        )
        self.note(f"{place_photos[0].parent}: {shown or 'no haze and no noise was measured'}")
        return ranges

    def record(
        self, recogniser: Recogniser, place: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Return the facts that must be the same if the adaptation is continued, as JSON values."""
        return {
            "settings": self.settings.model_dump(mode="json", exclude={"minutes"}),
            "weights": {"name": self.weights, "sha256": sha256(self.folder / WEIGHTS_FILE)},
            "recogniser": {
                "name": recogniser.name,
                "sha256": recogniser.fingerprint,
                "answers": type(recogniser.kind).__name__,
                "size": list(recogniser.size),
                "normalisation": json.loads(json.dumps(recogniser.normalisation._asdict())),
                "layers": list(recogniser.layers),
            },
            "place": json.loads(json.dumps(place)),
        }

    def recipe(
        self,
        recogniser: Recogniser,
        photos: Photos,
        place: Mapping[str, Mapping[str, Any]],
        resume: bool,
    ) -> Recipe:
        """Return the recipe. Its steps are those of the settings or the stopped run, or by time."""
        config, steps = self.before.config, self.settings.steps
        if steps is None and resume:
            refine = Recipe.read(self.output / RUN / RECIPE).refine
            steps = int(refine.steps) if refine is not None else None
        if steps is None:
            trial = self.settings.recipe(config, recogniser.size, 100, place)
            stage = AdaptStage(trial, recogniser, self.settings, self.before)
            steps = steps_in_minutes(
                self.settings.minutes, stage, self.before, trial, photos.training, self.device
            )
        self.note(f"{steps} steps of training")
        return self.settings.recipe(config, recogniser.size, steps, place)

    def train(
        self,
        recipe: Recipe,
        recogniser: Recogniser,
        photos: Photos,
        resume: bool,
        watcher: Watcher | None,
    ) -> VRDIR:
        """Train, and return the trained network."""
        trained = train(
            recipe,
            [AdaptStage(recipe, recogniser, self.settings, self.before)],
            photos,
            self.output / RUN,
            earlier=EarlierStages(whole=self.folder),
            device=str(self.device),
            resume=resume,
            watcher=watcher,
        )
        return move_to(VRDIR.from_pretrained(trained, device=self.device), self.device)

    def make_ready(
        self, after: VRDIR, place_photos: Sequence[Path], photos: Photos
    ) -> dict[str, Any]:
        """Let the global context recognise fog on photos of the place; return it for the record."""
        ready = make_ready(after, place_photos, [item.clean for item in photos.training])
        if ready is None:
            return {}
        self.note(f"{place_photos[0].parent}: {ready}")
        return {"readiness": ready._asdict()}

    def photos(self, items: Sequence[Item], recipe: Recipe) -> ValidationSet:
        """Return a validation set of photos, which are degraded in the same way every time."""
        photos = ValidationSet(
            items,
            self.before.config.branches,
            recipe.crop_px,
            ranges=recipe.ranges,
            jpeg_share=recipe.jpeg_share,
            whole=True,
        )
        photos.check()
        return photos

    def prove(
        self,
        after: VRDIR,
        recogniser: Recogniser,
        photos: ValidationSet,
        begun: Sequence[Trial] | None = None,
    ) -> Proof:
        """Return the results on photos; `begun` has the trials of "before", if there are any."""
        networks = {AFTER: after} if begun else {BEFORE: self.before, AFTER: after}
        trials = try_on(networks, recogniser, photos, self.kinds, self.device)
        trials = joined(begun, trials) if begun else trials
        measure = "" if recogniser.kind is None else recogniser.kind.measure
        return proof_of(trials, self.weather, measure, self.settings.seed)

    def choose(
        self, after: VRDIR, recogniser: Recogniser, photos: Photos, recipe: Recipe
    ) -> tuple[float, VRDIR]:
        """Return the share of the change to keep, and the network with this share.

        It is the largest share in `SHARES` that makes no kind of photo worse, or else the smallest.
        A third of the held-out photos is used for this choice.
        """
        chosen_by = self.photos(photos.divided()[0], recipe)
        begun = None
        for share in SHARES:
            network = between(self.before, after, share)
            proof = self.prove(network, recogniser, chosen_by, begun)
            begun = proof.trials
            if not proof.harmed:
                break
            self.note(f"with {share:g} of the change: {proof.harms()}")
        return share, network

    def write(
        self,
        after: VRDIR,
        recogniser: Recogniser,
        proof: Proof,
        photos: ValidationSet,
        record: Mapping[str, Any],
        write_anyway: bool,
    ) -> Adaptation:
        """Write the page; with a positive proof or `write_anyway`, also the card and weights."""
        content = {**record, "verdict": proof.verdict(), "figures": proof.figures()}
        page = as_page(content, proof, self.before, after, recogniser, photos)
        write_whole(page.encode("utf-8", "replace"), self.output / REPORT)
        write_json(content, self.output / RECORD)
        written = None
        if proof.paid or write_anyway:
            write_whole(as_card(content, proof).encode(), self.output / CARD)
            after.save_pretrained(self.output, half=True)
            written = self.output
        return Adaptation(
            written,
            self.output / REPORT,
            proof,
            content["share"],
            content["steps"],
            recogniser.name,
        )


def check_record(path: Path, now: Mapping[str, Any]) -> None:
    """Raise SettingsError if the record in a file belongs to another adaptation."""
    then = read_json(path) if path.is_file() else {}
    for key, value in now.items():
        if then.get(key) != value:
            raise SettingsError(
                f"{path} belongs to a different adaptation: its {key} differ; continue with the "
                "same command, or choose another folder"
            )


def between(before: VRDIR, after: VRDIR, share: float) -> VRDIR:
    """Return a network with interpolated weights: `before + share * (after - before)`."""
    if share == 1:
        return after
    state, other = before.state_dict(), after.state_dict()
    mixed = VRDIR(before.config)
    mixed.load_state_dict(
        {
            key: torch.lerp(value, other[key], share) if value.is_floating_point() else value
            for key, value in state.items()
        }
    )
    device = next(before.parameters()).device
    return move_to(mixed, device).requires_grad_(False).eval()
