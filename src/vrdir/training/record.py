"""What was run: the recipe, the data, the code, the machine; and whether a run that goes on is the same one."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from vrdir import __version__
from vrdir.atomic import write_whole
from vrdir.data.items import Item
from vrdir.errors import first_line
from vrdir.model.vrdir import WEIGHTS_FILE
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
}  # how the work is done, not what
MAY_CHANGE = {
    "learning_rate",
    "clip_norm",
    "precision",
}  # when a run goes on: the remedies of a loss that is not finite


def open_work_dir(
    work_dir: Path,
    stages: Sequence[str],
    recipe: Recipe,
    training: Sequence[Item],
    validation: Sequence[Item],
    priors: Mapping[str, Path],
    device: str,
    processes: int,
    resume: bool,
) -> None:
    """Record in a new work directory what is run, or make sure that the run in it is the same one.

    Raises:
        FileExistsError: it holds a run, and `resume` is not asked for.
        FileNotFoundError: it holds none, and `resume` is.
        ValueError: it holds another run.
    """
    parts = (("train", training), ("validate", validation))
    listing = "".join(f"{part} {item.name}\n" for part, items in parts for item in items)
    now = {
        "stages": list(stages),
        "data": {
            "training": len(training),
            "validation": len(validation),
            "fingerprint": fingerprint(parts),
        },
        "priors": {
            name: hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
            for name, folder in sorted(priors.items())
        },
    }
    session: dict[str, Any] = {
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "code": code_version(),
    }
    session |= environment(device, processes)
    recipe_file, run_file = work_dir / RECIPE, work_dir / RUN
    if not resume:
        if recipe_file.exists():
            raise FileExistsError(
                f"{work_dir} already holds a run; go on with it by --resume, or choose another --work-dir"
            )
        if work_dir.exists() and not work_dir.is_dir():
            raise FileExistsError(
                f"{work_dir} is a file; give a folder, new or empty, for --work-dir"
            )
        if work_dir.exists() and {path.name for path in work_dir.iterdir()} - {RUN, DATA}:
            raise FileExistsError(
                f"{work_dir} holds other things than a run; give a new folder for --work-dir"
            )
        work_dir.mkdir(parents=True, exist_ok=True)
        write_whole(listing.encode("utf-8", "surrogateescape"), work_dir / DATA)
        write_json(now | {"seed": recipe.seed, "sessions": [session]}, run_file)
        recipe.write(recipe_file)  # last: with it, the run is there
        return
    if not recipe_file.exists():
        raise FileNotFoundError(
            f"{work_dir} holds no run to go on with; leave --resume out to start one"
        )
    different = differences(Recipe.read(recipe_file), recipe)
    fixed = [key for key in different if key.split(".")[-1] not in MAY_CHANGE]
    if fixed:
        raise ValueError(
            f"{recipe_file} is another recipe (it differs in {', '.join(fixed)}); resume with that one, or start anew"
        )
    try:
        before = json.loads(run_file.read_text())
        said = [before[key] for key in now]
        before["sessions"].append(session)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{run_file} cannot be read ({first_line(error)}); start anew in another --work-dir"
        ) from None
    remedies = {
        "stages": "the same command",
        "data": f"the data of {work_dir / DATA}, in the same order",
        "priors": "the same weights",
    }
    for then, (key, value) in zip(said, now.items(), strict=True):
        if then != value:
            raise ValueError(
                f"{run_file} is another run: its {key} are {then}, not {value}; resume with {remedies[key]}"
            )
    for left in work_dir.rglob(".*.partial"):  # of writes that a kill cut short
        left.unlink()
    if different:
        logger.warning(
            "the run goes on with another %s, so it will not end as it would have",
            ", ".join(different),
        )
        session["changed"] = different
        recipe.write(recipe_file)
    write_json(before, run_file)


def differences(before: Recipe, now: Recipe) -> list[str]:
    """The settings in which two recipes differ, "decoder.steps" style, but for those that say how the work is done."""
    one, other = flat(before.model_dump(mode="json")), flat(now.model_dump(mode="json"))
    return [key for key in (one | other) if one.get(key) != other.get(key) and key not in FREE]


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as "decoder.steps" style keys."""
    values: dict[str, Any] = {}
    for key, value in content.items():
        values |= (
            flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return values


def fingerprint(parts: Sequence[tuple[str, Sequence[Item]]]) -> str:
    """SHA-256 over what the items of each part are, in order, and their files' names and sizes in bytes, whatever folder they lie in."""
    digest = hashlib.sha256()
    for part, items in parts:
        for item in items:
            files = [
                f"{path.name}:{path.stat().st_size}"
                for path in (item.degraded, item.clean)
                if path is not None
            ]
            said = "" if item.degradations is None else ",".join((*item.degradations, ""))
            digest.update(
                "|".join([part, item.kind, item.synthesis, said, *files, ""]).encode(
                    "utf-8", "surrogateescape"
                )
            )
    return digest.hexdigest()


def code_version() -> str:
    """The package's version and, in a git checkout, the commit, marked where files differ from it."""
    folder = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()

    try:
        tracked = git(
            "ls-files", "__init__.py"
        )  # not any repository that happens to be around an installed package
        return (
            f"{__version__} {git('rev-parse', 'HEAD')}{' with changes' if git('status', '--porcelain', '.') else ''}"
            if tracked
            else __version__
        )
    except (OSError, subprocess.SubprocessError):
        return __version__


def environment(device: str, processes: int) -> dict[str, Any]:
    """What a figure may depend on beside the recipe and the code."""
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
    """Write JSON, in one piece or not at all."""
    write_whole((json.dumps(content, indent=1) + "\n").encode(), path)
