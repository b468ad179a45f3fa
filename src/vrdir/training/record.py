"""The record of a run: recipe, data, code and machine, checked when the run continues."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from vrdir import __version__
from vrdir.atomic import write_whole
from vrdir.data.items import Item
from vrdir.errors import ExistsError, MissingFileError, SettingsError, first_line
from vrdir.model.loading import WEIGHTS_FILE
from vrdir.training.settings import Recipe

logger = logging.getLogger(__name__)

RECIPE, RUN, DATA = "recipe.yaml", "run.json", "data.txt"
FREE = {
    "data.workers",
    "data.cache_gib",
    "data.on_device",
    "compile",
    "log_every",
    "keep_checkpoints",
}
"""Settings of how the work is done, which do not change the result."""

MAY_CHANGE = {"learning_rate", "clip_norm", "precision"}
"""Settings that may change when a run continues: the remedies of a loss that is not finite."""


@dataclass(frozen=True)
class Run:
    """All facts that identify a run.

    Attributes:
        stages: names of its stages, in order.
        recipe: all settings.
        training, validation: its items.
        weights: model folders of the earlier stages, by part.
        device, processes: where it runs.
    """

    stages: Sequence[str]
    recipe: Recipe
    training: Sequence[Item]
    validation: Sequence[Item]
    weights: Mapping[str, Path]
    device: str
    processes: int

    @property
    def parts(self) -> tuple[tuple[str, Sequence[Item]], ...]:
        """The items by what they are for."""
        return (("train", self.training), ("validate", self.validation))

    def facts(self) -> dict[str, Any]:
        """Return what must be the same when the run continues."""
        return {
            "stages": list(self.stages),
            "data": {
                "training": len(self.training),
                "validation": len(self.validation),
                "fingerprint": fingerprint(self.parts),
            },
            "priors": {
                name: hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
                for name, folder in sorted(self.weights.items())
            },
        }

    def session(self) -> dict[str, Any]:
        """Return the time, the code and the machine of this start."""
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return {"at": now, "code": code_version()} | environment(self.device, self.processes)


def open_work_dir(work_dir: Path, run: Run, resume: bool) -> None:
    """Record a run in a new work directory, or check that the run in it is the same one.

    Raises:
        ExistsError: there is a run or something else in it, and `resume` is False.
        MissingFileError: there is no run in it, and `resume` is True.
        SettingsError: there is another run in it.
    """
    if resume:
        _continue_run(work_dir, run)
    else:
        _start_run(work_dir, run)


def _start_run(work_dir: Path, run: Run) -> None:
    recipe_file = work_dir / RECIPE
    if recipe_file.exists():
        raise ExistsError(
            f"{work_dir} already contains a run; continue it with --resume, or choose another "
            "--work-dir"
        )
    if work_dir.exists() and not work_dir.is_dir():
        raise ExistsError(f"{work_dir} is a file; use a new or empty folder for --work-dir")
    if work_dir.exists() and {path.name for path in work_dir.iterdir()} - {RUN, DATA}:
        raise ExistsError(
            f"{work_dir} contains other files than those of a run; use a new folder for --work-dir"
        )
    work_dir.mkdir(parents=True, exist_ok=True)
    listing = "".join(f"{part} {item.name}\n" for part, items in run.parts for item in items)
    write_whole(listing.encode("utf-8", "surrogateescape"), work_dir / DATA)
    content = run.facts() | {"seed": run.recipe.seed, "sessions": [run.session()]}
    write_json(content, work_dir / RUN)
    run.recipe.write(recipe_file)  # last: a work directory with a recipe contains a run


def _continue_run(work_dir: Path, run: Run) -> None:
    recipe_file, run_file = work_dir / RECIPE, work_dir / RUN
    if not recipe_file.exists():
        raise MissingFileError(
            f"{work_dir} contains no run to continue; remove --resume to start one"
        )
    different = differences(Recipe.read(recipe_file), run.recipe)
    fixed = [key for key in different if key.split(".")[-1] not in MAY_CHANGE]
    if fixed:
        raise SettingsError(
            f"{recipe_file} is a different recipe (different settings: {', '.join(fixed)}); resume "
            "with that recipe, or start a new run"
        )
    session, content = run.session(), _same_run(run_file, run.facts())
    content["sessions"].append(session)
    for left in work_dir.rglob(".*.partial"):  # of writes that were interrupted by a kill
        left.unlink()
    if different:
        logger.warning(
            "the run continues with a different %s, so its result will differ",
            ", ".join(different),
        )
        session["changed"] = different
        run.recipe.write(recipe_file)
    write_json(content, run_file)


def _same_run(run_file: Path, now: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a run file. Raises SettingsError if it is not of this run."""
    try:
        content: dict[str, Any] = json.loads(run_file.read_text())
        recorded = [content[key] for key in now]
        content["sessions"] = [*content["sessions"]]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise SettingsError(
            f"{run_file} cannot be read ({first_line(error)}); start a new run in another "
            "--work-dir"
        ) from None
    remedies = {
        "stages": "the same command",
        "data": f"the data of {run_file.parent / DATA}, in the same order",
        "priors": "the same weights",
    }
    for then, (key, value) in zip(recorded, now.items(), strict=True):
        if then != value:
            raise SettingsError(
                f"{run_file} belongs to a different run: its {key} are {then}, not {value}; resume "
                f"with {remedies[key]}"
            )
    return content


def differences(before: Recipe, now: Recipe) -> list[str]:
    """Return the settings in which two recipes differ ("decoder.steps"), except those in `FREE`."""
    one, other = flat(before.model_dump(mode="json")), flat(now.model_dump(mode="json"))
    return [key for key in (one | other) if one.get(key) != other.get(key) and key not in FREE]


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings with keys such as "decoder.steps"."""
    values: dict[str, Any] = {}
    for key, value in content.items():
        values |= (
            flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return values


def fingerprint(parts: Sequence[tuple[str, Sequence[Item]]]) -> str:
    """Return a SHA-256 over the items of each part, in order: kinds, file names and sizes in bytes.

    It does not depend on the folder of the files.
    """
    digest = hashlib.sha256()
    for part, items in parts:
        for item in items:
            files = [
                f"{path.name}:{path.stat().st_size}"
                for path in (item.degraded, item.clean)
                if path is not None
            ]
            known = "" if item.degradations is None else ",".join((*item.degradations, ""))
            digest.update(
                "|".join([part, item.kind, item.synthesis, known, *files, ""]).encode(
                    "utf-8", "surrogateescape"
                )
            )
    return digest.hexdigest()


def code_version() -> str:
    """Return the package's version and, in a git checkout, the commit, marked if files differ."""
    folder = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()

    try:
        if not git("ls-files", "__init__.py"):  # an installed package inside another repository
            return __version__
        changed = " with changes" if git("status", "--porcelain", ".") else ""
        return f"{__version__} {git('rev-parse', 'HEAD')}{changed}"
    except (OSError, subprocess.SubprocessError):
        return __version__


def environment(device: str, processes: int) -> dict[str, Any]:
    """Return what a result may depend on, besides the recipe and the code."""
    packages = {}
    for name in ("torch", "lightning-fabric", "numpy", "pillow", "scikit-image"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "not installed"
    name = (
        torch.cuda.get_device_name(device)
        if device.startswith("cuda")
        else platform.processor() or platform.machine()
    )
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": packages,
        "device": f"{device} ({name})",
        "processes": processes,
        "threads": torch.get_num_threads(),
        "command": sys.argv,
    }


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """Write JSON, whole or not at all."""
    write_whole((json.dumps(content, indent=1) + "\n").encode(), path)
