"""Adapt weights to a recogniser and a place: the function `vrdir.adapt`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vrdir.adaptation.job import RECORD, Adaptation, AdaptationJob, check_record
from vrdir.adaptation.photos import Photos
from vrdir.adaptation.place import photos_of_place
from vrdir.adaptation.recogniser import InputFormat, load_recogniser
from vrdir.adaptation.settings import AdaptationSettings
from vrdir.errors import require
from vrdir.restoring.loading import choose_device
from vrdir.training.logs import Watcher
from vrdir.training.record import write_json
from vrdir.weights.bundled import resolve_weights

logger = logging.getLogger(__name__)


def adapt(
    recogniser: Any,
    clean_photos: str | Path,
    output: str | Path,
    *,
    weights: str | Path = "small",
    degraded: str | Path | None = None,
    task: str | None = None,
    layers: Sequence[str] = (),
    input_format: InputFormat | None = None,
    device: str = "auto",
    resume: bool = False,
    write_anyway: bool = False,
    watcher: Watcher | None = None,
    note: Callable[[str], None] = logger.info,
    **settings: Any,
) -> Adaptation:
    """Adapt weights to a frozen recogniser and a place, without labels.

    `vrdir.adapt(model, "photos", "weights/mine", degradations="haze+rain", minutes=20)` writes
    weights that `vrdir.Restorer("weights/mine")` loads.

    In every training step, clean photos are degraded at random. A part of the network learns to
    restore them so that the output of the recogniser is the same as for the clean photos. Held-out
    photos then show whether this helps. If there is no gain, or something becomes worse, no weights
    are written.

    Args:
        recogniser: a `torch.nn.Module` that takes images (B, 3, H, W); or a text: `module:name` of
            such a module or of a function that returns one, `timm:NAME`, `torchvision:NAME`,
            `transformers:NAME`, or the path of an ONNX file.
        clean_photos: a folder of clean photos like those that the recogniser will see, a few
            hundred.
        output: the folder for the new weights and the report.
        weights: the initial weights: a bundled name, a folder or a repository id.
        degraded: a folder of photos of the place in bad weather, without clean versions or labels;
            or None. Their haze, its colour, and their noise set how strong the synthetic
            degradations are, and how readily a global context recognises fog.
        task: "classification", "detection" or "reid"; None finds it by the recogniser's output.
        layers: the names of the recogniser's layers whose features are compared; empty to choose a
            few automatically.
        input_format: the size and normalisation of the recogniser's input; None to find them.
        device: "auto", "cpu", "cuda", ...
        resume: continue an adaptation that was stopped, in the same folder.
        write_anyway: write the weights even if there is no gain.
        watcher: is notified of every training step.
        note: is called with each message about the progress.
        settings: fields of `vrdir.adaptation.AdaptationSettings`, such as `minutes`.

    Returns:
        The folder of the weights, if they were written, and the proof.

    Raises:
        RecogniserError: the recogniser cannot be used.
        SettingsError: a setting is wrong, or `resume` is used with another adaptation.
        MissingFileError, ExistsError, DataError, InputError: a file or folder cannot be used; the
            message names it.
        MissingPackageError: a package of the extras `train` and `evaluate` is not installed.
        Interrupted: SIGTERM or SIGINT was received during training; `resume` continues.
    """
    require("scipy", "evaluate", "the proof's intervals need SciPy")
    wanted = AdaptationSettings.of(**settings)
    job = AdaptationJob(
        wanted,
        Path(output),
        resolve_weights(weights),
        str(weights),
        choose_device(device),
        note,
    )
    job.check_output(resume)
    wanted.wanted(job.before.config)
    photos = Photos.of_folder(Path(clean_photos), wanted.held_out)
    found = load_recogniser(recogniser, task, input_format, layers, job.device)
    note(f"{found.name}: {type(found.kind).__name__.lower()}, layers {', '.join(found.layers)}")
    place_photos = photos_of_place(Path(degraded)) if degraded is not None else []
    place = job.weather_of(place_photos) if place_photos else {}
    record = job.record(found, place)
    if resume:
        check_record(job.output / RECORD, record)
    recipe = job.recipe(found, photos, place, resume)
    job.output.mkdir(parents=True, exist_ok=True)
    write_json(record, job.output / RECORD)
    after = job.train(recipe, found, photos, resume, watcher)
    share, after = job.choose(after, found, photos, recipe)
    if place_photos and "haze" in job.weather:
        record |= job.make_ready(after, place_photos, photos)
    proving = job.photos(photos.divided()[1], recipe)
    proof = job.prove(after, found, proving)
    record |= {
        "steps": int(recipe.refine.steps) if recipe.refine is not None else 0,
        "share": share,
        "photos": {"training": len(photos.training), "held_out": len(photos.held_out)},
    }
    return job.write(after, found, proof, proving, record, write_anyway)
