"""Where weights come from: the package, a folder, or a repository on the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from vrdir.errors import (
    MissingFileError,
    MissingPackageError,
    WeightsError,
    first_line,
    require,
)
from vrdir.spelling import did_you_mean

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).parent
MANIFEST = FOLDER / "manifest.json"
MODEL_FILES = ("config.json", "model.safetensors")
# Stages of a training that end with a whole network, the last one first.
STAGES = ("haze", "whole", "refine", "fusion")
NAMED_FOLDERS = 8  # how many an error names


def bundled_weights() -> dict[str, Any]:
    """Return the facts about every set of bundled weights, by name.

    They are: source, licence, training data, recipe, commit, SHA-256, figures.
    """
    if not MANIFEST.is_file():
        return {}
    known: dict[str, Any] = json.loads(MANIFEST.read_text())["weights"]
    return known


def resolve_weights(weights: str | Path) -> Path:
    """Return the folder that contains the weights.

    Args:
        weights: a bundled name, a folder, a work directory of `vrdir train` (whose latest whole
            network is taken), or a Hugging Face repository id "owner/name". If a bundled name is
            also a folder, a str means the bundled weights and a Path means the folder.

    Raises:
        MissingFileError: it is none of these.
    """
    path = Path(weights)
    if str(weights) in bundled_weights():
        if path.is_dir() and isinstance(weights, Path):
            return trained_below(path)
        if path.is_dir():
            logger.warning(
                "the bundled weights %s are used; to use the folder of that name, write ./%s",
                weights,
                weights,
            )
        return FOLDER / str(weights)
    if path.is_dir():
        return trained_below(path)
    if path.exists():
        inside = all((path.parent / file).is_file() for file in MODEL_FILES)
        advice = f"give {path.parent}"
        if not inside:
            advice = f"weights are a folder with {' and '.join(MODEL_FILES)}"
        raise MissingFileError(f"{path} is a file; {advice}")
    names = bundled_weights()
    near = did_you_mean(str(weights), names) or did_you_mean(str(path), _folders_beside(path))
    owner, _, name = str(weights).partition("/")
    if owner and name and "/" not in name and not owner.startswith((".", "~")):
        return download(str(weights), near)
    raise MissingFileError(
        f"unknown weights {str(weights)!r}: use bundled weights ({', '.join(names) or 'none'}) or "
        f"a folder{near}"
    )


def trained_below(folder: Path) -> Path:
    """Return a model folder itself, or the latest whole network below a work directory.

    Args:
        folder: a model folder, or a work directory of `vrdir train`.

    Raises:
        MissingFileError: it is neither, but there are model folders below it, which are named.
    """
    # If only one of the files is missing, reading the folder gives the error.
    if any((folder / file).exists() for file in MODEL_FILES):
        return folder
    for stage in STAGES:
        if (folder / "weights" / stage / MODEL_FILES[1]).is_file():
            return folder / "weights" / stage
    patterns = ("", "*/", "*/*/", "*/*/*/")
    below = sorted(
        {path.parent for pattern in patterns for path in folder.glob(pattern + MODEL_FILES[1])}
    )
    if below:
        shown = ", ".join(map(str, below[:NAMED_FOLDERS]))
        more = ", ..." if len(below) > NAMED_FOLDERS else ""
        raise MissingFileError(
            f"{folder} contains no {MODEL_FILES[1]}; use one of its sub-folders that do: "
            f"{shown}{more}"
        )
    return folder


def _folders_beside(path: Path) -> list[str]:
    """Return the folders that a mistyped path may mean; none if its parent does not exist."""
    try:
        return [str(path.parent / entry.name) for entry in path.parent.iterdir() if entry.is_dir()]
    except OSError:
        return []


def download(repository: str, hint: str = "") -> Path:
    """Download a model's config and weights from the Hugging Face hub, once.

    Args:
        repository: "owner/name".
        hint: the end of error messages, with other names that may be meant.

    Returns:
        The folder that contains them.

    Raises:
        MissingFileError: huggingface_hub is not installed, or the download failed.
    """
    try:
        hub = require(
            "huggingface_hub",
            "hub",
            f"{repository!r} is not a folder here; to look for it on the Hugging Face hub",
        )
    except MissingPackageError as error:
        raise MissingFileError(f"{error}{hint}") from None
    try:
        return Path(hub.snapshot_download(repository, allow_patterns=list(MODEL_FILES)))
    except Exception as error:  # its own errors, and those of its HTTP library
        raise MissingFileError(
            f"{repository!r} is not a folder here and could not be fetched from the "
            f"Hugging Face hub: {first_line(error)}{hint}"
        ) from None


def upload(
    folder: Path, repository: str, *, private: bool | None, token: str | None, message: str
) -> str:
    """Upload a folder's files to a repository on the Hugging Face hub, created if necessary.

    Args:
        folder: the folder.
        repository: "owner/name".
        private: create the repository as a private one; None for the owner's default.
        token: of the hub; None for the token of the login.
        message: of the commit.

    Returns:
        The address of the commit.

    Raises:
        MissingPackageError: huggingface_hub is not installed.
        WeightsError: the hub refuses the files.
    """
    hub = require("huggingface_hub", "hub", "uploading needs huggingface_hub")
    api = hub.HfApi(token=token)
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
        return str(commit.commit_url)
    except Exception as error:  # its own errors, and those of its HTTP library
        raise WeightsError(
            f"{repository!r} could not be uploaded to the Hugging Face hub: {first_line(error)}; "
            "log in with hf auth login, or pass a token"
        ) from None


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def verify(name: str) -> list[str]:
    """Compare the files of bundled weights with their hashes in the manifest.

    Returns:
        A line for each problem.
    """
    problems = []
    for file, expected in bundled_weights()[name]["sha256"].items():
        path = FOLDER / name / file
        if not path.is_file():
            problems.append(f"{path} is missing")
        elif sha256(path) != expected:
            problems.append(f"{path} is not the file that was released (its SHA-256 differs)")
    return problems
