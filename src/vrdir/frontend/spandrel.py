"""The network as a spandrel architecture, for programs that load models with spandrel.

spandrel (`pip install spandrel`) finds a model's architecture and its settings in one state dict.
The settings of a VRDIR are in `config.json` beside its weights, and tensors in a safetensors file
have no order, so the order of the branches would be lost. Therefore `save_one_file` writes both
into one file: the weights, and the config as a tensor of bytes.

>>> import torch
>>> from spandrel import MAIN_REGISTRY, ArchSupport, ModelLoader
>>> from vrdir.frontend import VRDIRArchitecture, save_one_file
>>> save_one_file("small", "vrdir-small.safetensors")
>>> support = ArchSupport.from_architecture(VRDIRArchitecture())
>>> added = MAIN_REGISTRY.add(support, ignore_duplicates=True)
>>> model = ModelLoader().load_from_file("vrdir-small.safetensors")
>>> restored = model(torch.rand(1, 3, 64, 96))
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import save
from torch import Tensor

from vrdir.atomic import write_whole
from vrdir.errors import MissingPackageError, WeightsError
from vrdir.frontend.batch_restoration import restore_batch
from vrdir.model.checks import check_result
from vrdir.model.config import VRDIRConfig, describe
from vrdir.model.control import ALL
from vrdir.model.loading import check_state
from vrdir.model.vrdir import VRDIR
from vrdir.restoring.loading import network_of

try:
    from spandrel import Architecture, ImageModelDescriptor, ModelTiling
except ModuleNotFoundError as error:
    raise MissingPackageError(
        f"VRDIRArchitecture needs spandrel and torchvision ({error}): "
        "pip install spandrel torchvision"
    ) from None

CONFIG_KEY = "vrdir_config"


def save_one_file(weights: str | Path | VRDIR, path: str | Path) -> None:
    """Write a network and its config into one safetensors file, which spandrel can load.

    Args:
        weights: as for `Restorer`.
        path: the file to write, ending in .safetensors.

    Raises:
        WeightsError: the weights cannot be used.
        MissingFileError: they do not exist.
    """
    network = network_of(weights)
    config = torch.frombuffer(
        bytearray(network.config.model_dump_json().encode()), dtype=torch.uint8
    )
    state = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    write_whole(save({**state, CONFIG_KEY: config}), Path(path))


class VRDIRArchitecture(Architecture[VRDIR]):  # type: ignore[misc]
    """VRD-IR (CVPR 2023): visual recognition-driven image restoration.

    Large images are processed in strips. Half precision is not supported, as the Fourier transform
    needs float32.
    """

    def __init__(self) -> None:
        super().__init__(id="VRDIR", name="VRD-IR", detect=_detect)

    def load(self, state_dict: dict[str, Any]) -> ImageModelDescriptor[VRDIR]:
        """Build the network that a state dict describes, with its weights.

        Raises:
            WeightsError: the state dict has no valid config, or does not fit it.
        """
        config = _read_config(state_dict)
        state = {name: value for name, value in state_dict.items() if name != CONFIG_KEY}
        with torch.device("meta"):  # compare shapes before memory is used
            outline = VRDIR(config)
        check_state(outline, state, "the weights do not fit their config", "write the file again")
        return ImageModelDescriptor(
            VRDIR(config),
            state,
            architecture=self,
            purpose="Restoration",
            tags=[*config.guidance_names],
            supports_half=False,
            supports_bfloat16=False,
            scale=1,
            input_channels=3,
            output_channels=3,
            tiling=ModelTiling.INTERNAL,
            call_fn=_restore,
        )


def _detect(state: Mapping[str, Any]) -> bool:
    """Return whether this is a VRDIR, with its config or without."""
    parts = ("extractor.", "enhancement.stride", "decoder.")
    return CONFIG_KEY in state or all(any(key.startswith(p) for key in state) for p in parts)


def _read_config(state: Mapping[str, Any]) -> VRDIRConfig:
    if CONFIG_KEY not in state:
        raise WeightsError(
            "the file contains the weights of a VRDIR but not its config; write one file with "
            "both: vrdir.frontend.save_one_file(folder, path)"
        )
    try:
        return VRDIRConfig.model_validate_json(bytes(state[CONFIG_KEY].cpu().tolist()))
    except ValidationError as error:
        raise WeightsError(f"{CONFIG_KEY} is not a VRDIR config: {describe(error)}") from None


def _restore(network: VRDIR, image: Tensor) -> Tensor:
    """Restore (B, 3, H, W) in [0, 1]."""
    restoration = restore_batch(
        network, image, skip_clean=False, control=ALL, borders=True, differentiable=False
    )
    check_result(restoration.image)
    return restoration.image
