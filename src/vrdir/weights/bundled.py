"""Which weights there are: those in the package, a folder, or a repository on the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from vrdir.image_files.whole_files import first_line

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).parent
MANIFEST = FOLDER / "manifest.json"


def manifest() -> dict[str, Any]:
    """Facts about every bundled set of weights by name: source, licence, training data, recipe, commit, SHA-256, figures."""
    return json.loads(MANIFEST.read_text())["weights"] if MANIFEST.is_file() else {}


def resolve_weights(weights: str | Path) -> Path:
    """The folder that holds the weights.

    Args:
        weights: a bundled name, a folder, or a Hugging Face repository id "owner/name". Of a bundled name and a folder called the
            same a str means the former, a Path the latter.

    Raises:
        FileNotFoundError: it is none of these.
    """
    path = Path(weights)
    if str(weights) in manifest():
        if path.is_dir() and isinstance(weights, Path):
            return path
        if path.is_dir():
            logger.warning("taking the bundled weights %s; for the folder of that name here say ./%s", weights, weights)
        return FOLDER / str(weights)
    if path.is_dir():
        return path
    if path.exists():
        raise FileNotFoundError(f"weights are a folder with config.json and model.safetensors; {path} is a file")
    owner, _, name = str(weights).partition("/")
    if owner and name and "/" not in name and not owner.startswith((".", "~")):
        return download(str(weights))
    raise FileNotFoundError(f"no weights {str(weights)!r}: bundled are {', '.join(manifest()) or 'none'}; else give a folder")


def download(repository: str) -> Path:
    """Fetch (once) a model's config and weights from the Hugging Face hub."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise FileNotFoundError(
            f"{repository!r} is no folder here; to look for it on the Hugging Face hub: pip install 'vrdir[hub]'"
        ) from None
    try:
        return Path(snapshot_download(repository, allow_patterns=["config.json", "model.safetensors"]))
    except Exception as error:  # its own errors, and those of whatever HTTP library is behind it
        raise FileNotFoundError(
            f"{repository!r} is no folder here and could not be fetched from the Hugging Face hub: {first_line(error)}"
        ) from None


def upload(folder: Path, repository: str, *, private: bool | None, token: str | None, message: str) -> str:
    """Put a folder's files into a repository on the Hugging Face hub, made if it is not there; return the commit's address.

    Raises ValueError if huggingface_hub is not installed, or the hub does not take them.
    """
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise ValueError("uploading needs huggingface_hub: pip install 'vrdir[hub]'") from None
    api = HfApi(token=token)
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message).commit_url)
    except Exception as error:  # its own errors, and those of whatever HTTP library is behind it
        raise ValueError(
            f"{repository!r} could not be uploaded to the Hugging Face hub: {first_line(error)}; log in by hf auth login, or give a token"
        ) from None


def sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def verify(name: str) -> list[str]:
    """Compare the files of bundled weights with their hashes in the manifest: one line a problem, none if all is well."""
    problems = []
    for file, expected in manifest()[name]["sha256"].items():
        path = FOLDER / name / file
        if not path.is_file():
            problems.append(f"{path} is missing")
        elif sha256(path) != expected:
            problems.append(f"{path} is not the file that was released (its SHA-256 differs)")
    return problems
