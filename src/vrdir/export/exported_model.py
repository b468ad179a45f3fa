"""ExportedModel: a network that was exported to a file, run by another runtime than PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from vrdir.errors import ImageError, MissingFileError, WeightsError
from vrdir.export.backends import exported_backend
from vrdir.forks import survive_forks
from vrdir.model.checks import check_image, check_result
from vrdir.model.clean_images import clean_threshold
from vrdir.model.config import VRDIRConfig, describe
from vrdir.model.vrdir import Restoration


class ExportFacts(BaseModel):
    """The facts inside an exported file, as JSON.

    Attributes:
        vrdir: the version that exported it.
        weights_sha256: of the network's values, not of a file (see
            `vrdir.export.exporting.state_sha256`).
        config: the network's shape.
        size: (H, W) if the file accepts images of that size only, one at a time; None for any size
            and batches.
    """

    model_config = ConfigDict(frozen=True)

    vrdir: str
    weights_sha256: str
    config: VRDIRConfig
    size: tuple[int, int] | None = None


class ExportedModel:
    """An exported network, with the results of `VRDIR.restore`.

    It runs on the CPU, with as many threads as PyTorch has when the file is opened. It keeps
    nothing about an image, so several threads may use it. It can be pickled; the file is then
    opened again.

    Args:
        path: a file that `vrdir export` wrote: .onnx, or the format of the backend.
        backend: a name in `vrdir.export.backends.BACKENDS`, such as "onnx" for ONNX Runtime.

    Raises:
        MissingFileError: there is no such file.
        WeightsError: the file is damaged, contains values that are not finite, or was not exported
            by vrdir.
        MissingPackageError: the runtime is not installed.
    """

    def __init__(self, path: Path | str, backend: str) -> None:
        runtime = exported_backend(backend)
        survive_forks()
        self.path, self.backend = Path(path), backend
        if not self.path.is_file():
            raise MissingFileError(
                f"exported network {path} does not exist; create it with vrdir export"
            )
        opened = runtime.open(self.path)
        if opened.facts is None:
            raise WeightsError(
                f"{path} was not written by vrdir export: the network's config is missing"
            )
        try:
            self.facts = ExportFacts.model_validate_json(opened.facts)
        except ValidationError as error:
            raise WeightsError(
                f"{path} has a config that this version cannot read ({describe(error)}); "
                "export it again"
            ) from None
        self._run = opened.run

    @property
    def config(self) -> VRDIRConfig:
        """Return the network's config."""
        return self.facts.config

    def restore(self, image: Tensor, skip_clean: bool | float = False) -> Restoration:
        """Restore images and return the share of each degradation, as `VRDIR.restore` does.

        There are no gradients, and no guidance maps, which the file does not return.

        Args:
            image: (B, 3, H, W), RGB in [0, 1].
            skip_clean: as for `VRDIR.restore`. It saves no time: the graph has no branches.

        Returns:
            The result, on the CPU; `guidance` is empty.

        Raises:
            InputError: the image has another shape, or there is no clean branch to skip by.
            ImageError: the file accepts only images of another size.
            ResultError: the result is not finite.
        """
        check_image(image)
        self._check_size(image)
        threshold = clean_threshold(skip_clean, self.config)
        image = image.detach().cpu().contiguous()
        pieces = [image] if self.facts.size is None else image.split(1)
        results = [self._run(piece.numpy()) for piece in pieces]
        restored, shares = (
            torch.from_numpy(np.concatenate(arrays)) for arrays in zip(*results, strict=True)
        )
        check_result(restored, shares)
        if threshold is not None:
            restored = torch.where((shares[:, -1] < threshold).view(-1, 1, 1, 1), restored, image)
        return Restoration(restored, [], shares)

    def _check_size(self, image: Tensor) -> None:
        if self.facts.size is not None and image.shape[-2:] != self.facts.size:
            own, given = (
                " x ".join(map(str, size)) for size in (self.facts.size, image.shape[-2:])
            )
            raise ImageError(
                f"{self.path} accepts only images of {own} pixels (height x width), not {given}; "
                "export it without a size"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return ExportedModel, (self.path, self.backend)
