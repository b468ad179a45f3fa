"""The weights of earlier stages, from which a run begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vrdir.errors import MissingFileError, SettingsError
from vrdir.model.config import VRDIRConfig
from vrdir.model.vrdir import VRDIR
from vrdir.weights.bundled import bundled_weights, resolve_weights


@dataclass(frozen=True)
class EarlierStages:
    """Weights to begin from: model folders, or work directories of earlier runs.

    Attributes:
        decoder: of stage 1.
        branches: of stage 2, by the branch's name.
        whole: a whole network to continue from. Where bundled weights and a folder have the same
            name, a str means the weights and a Path the folder.
    """

    decoder: Path | None = None
    branches: Mapping[str, Path] = field(default_factory=dict)
    whole: Path | str | None = None

    def folders(self) -> dict[str, Path]:
        """Return the model folder of each part. Raises MissingFileError."""
        found = {
            f"branch-{name}": model_folder(path, f"branch-{name}")
            for name, path in self.branches.items()
        }
        if self.decoder is not None:
            found["decoder"] = model_folder(self.decoder, "decoder")
        if self.whole is not None:
            found["whole"] = whole_folder(self.whole)
        return found

    def load_into(self, model: VRDIR) -> None:
        """Copy the parts, and E with them, into a model.

        Raises:
            MissingFileError, SettingsError: naming the folder.
        """
        state = model.state_dict()
        for part, folder in self.folders().items():
            other = VRDIR.from_pretrained(folder)
            branch = part.removeprefix("branch-") if part.startswith("branch-") else ""
            check_config(model.config, other.config, folder, branch, whole=part == "whole")
            found = other.state_dict().items()
            state |= {key: value for key, value in found if belongs_to(part, branch, key)}
        model.load_state_dict(state)


def belongs_to(part: str, branch: str, key: str) -> bool:
    """Return whether a tensor of a network belongs to a part of it, E included."""
    if part == "whole":
        return True
    if part == "decoder":
        return key.startswith(("decoder.", "extractor.", "context."))
    return key.startswith("extractor.") or f".branches.{branch}." in key


def model_folder(path: Path, *stages: str) -> Path:
    """Return a model folder itself, or that of the first stage that a work directory has finished.

    Raises:
        MissingFileError: it is neither.
    """
    for folder in (path, *(path / "weights" / stage for stage in stages)):
        if (folder / "model.safetensors").is_file():
            return folder
    raise MissingFileError(
        f"{path} contains no weights of the stage {' or '.join(stages)}: use a model folder, or "
        "the work directory of a run that finished this stage"
    )


def whole_folder(path: Path | str) -> Path:
    """Return the folder of a whole network.

    Args:
        path: the name of bundled weights, a model folder, or a work directory, of which the latest
            stage is taken.

    Raises:
        MissingFileError: it is none of these.
    """
    if str(path) in bundled_weights() and (isinstance(path, str) or not path.is_dir()):
        return resolve_weights(path)
    return model_folder(Path(path), "haze", "whole", "refine", "fusion", "context")


def check_config(
    config: VRDIRConfig, other: VRDIRConfig, folder: Path, branch: str, whole: bool
) -> None:
    """Raise SettingsError if the weights in `folder` do not fit a network of this config."""
    free: set[str] = set()
    if not whole:
        free |= {"branches", "clean_branch"}
        if branch:
            free |= {"decoder", "widths", "encoder_blocks", "decoder_blocks", "channel_attention"}
    ours, theirs = config.model_dump(), other.model_dump()
    different = [key for key in ours if key not in free and ours[key] != theirs[key]]
    if different:
        named = "; ".join(f"{key} is {theirs[key]}, not {ours[key]}" for key in different)
        raise SettingsError(
            f"{folder} contains a network that differs from the recipe's ({named}); use the recipe "
            "with which it was trained"
        )
    if branch and branch not in other.branches:
        raise SettingsError(f"{folder} has no branch {branch}; it has {', '.join(other.branches)}")
