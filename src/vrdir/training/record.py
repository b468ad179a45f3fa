"""What was run: the recipe, the data, the code, the machine; and whether a run that goes on is the same one."""

from __future__ import annotations

import hashlib
import json
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
from vrdir.data.items import Item
from vrdir.images import write_whole
from vrdir.model.vrdir import WEIGHTS_FILE
from vrdir.training.settings import Recipe

RECIPE, RUN, DATA = "recipe.yaml", "run.json", "data.txt"
FREE = {"workers", "cache_gib", "on_device"}  # of the settings of data: where work is done, not what


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
    files = {item.name: item for item in (*training, *validation)}
    listing = "".join(f"{part} {item.name}\n" for part, items in (("train", training), ("validate", validation)) for item in items)
    now = {
        "stages": list(stages),
        "data": {"training": len(training), "validation": len(validation), "fingerprint": fingerprint(list(files.values()))},
        "priors": {name: hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest() for name, folder in sorted(priors.items())},
    }
    session = {"at": datetime.now(timezone.utc).isoformat(timespec="seconds"), "code": code_version()} | environment(device, processes)
    recipe_file, run_file = work_dir / RECIPE, work_dir / RUN
    if not resume:
        if recipe_file.exists():
            raise FileExistsError(f"{work_dir} already holds a run; go on with it by --resume, or choose another --work-dir")
        work_dir.mkdir(parents=True, exist_ok=True)
        write_whole(listing.encode(), work_dir / DATA)
        write_json(now | {"seed": recipe.seed, "sessions": [session]}, run_file)
        recipe.write(recipe_file)  # last: with it, the run is there
        return
    if not recipe_file.exists():
        raise FileNotFoundError(f"{work_dir} holds no run to go on with; leave --resume out to start one")
    different = differences(Recipe.read(recipe_file), recipe)
    if different:
        raise ValueError(f"{recipe_file} is another recipe (it differs in {', '.join(different)}); resume with that one, or start anew")
    before = json.loads(run_file.read_text())
    for key, remedy in (("stages", "the same command"), ("data", f"the data of {work_dir / DATA}"), ("priors", "the same weights")):
        if before[key] != now[key]:
            raise ValueError(f"{run_file} is another run: its {key} are {before[key]}, not {now[key]}; resume with {remedy}")
    before["sessions"].append(session)
    write_json(before, run_file)


def differences(before: Recipe, now: Recipe) -> list[str]:
    """The settings in which two recipes differ, but for those that say where work is done."""
    one, other = (recipe.model_dump(mode="json") for recipe in (before, now))
    for dump in (one, other):
        dump["data"] = {key: value for key, value in dump["data"].items() if key not in FREE}
        del dump["compile"], dump["log_every"], dump["keep_checkpoints"]
    return [key for key in other if one[key] != other[key]]


def fingerprint(items: Sequence[Item]) -> str:
    """SHA-256 over what the items are and the sizes of their files, whatever folder they lie in."""
    lines = []
    for item in items:
        files = [path for path in (item.degraded, item.clean) if path is not None]
        lines.append("|".join([item.kind, item.synthesis, *(f"{path.name}:{path.stat().st_size}" for path in files)]))
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def code_version() -> str:
    """The package's version and, in a git checkout, the commit, marked where files differ from it."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        tracked = git("ls-files", Path(__file__).name)  # not any repository that happens to be around an installed package
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
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor() or platform.machine()
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
