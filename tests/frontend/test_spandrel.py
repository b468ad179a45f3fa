"""The network as an architecture of spandrel; skipped where spandrel cannot be imported."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.frontend.optional import import_or_skip

import vrdir
from vrdir.model.vrdir import VRDIR


@pytest.fixture
def loader() -> Any:
    """A loader that knows all of spandrel's own architectures, and ours after them."""
    spandrel: Any = import_or_skip("spandrel")
    from vrdir.frontend import VRDIRArchitecture

    registry = spandrel.MAIN_REGISTRY.copy()
    registry.add(spandrel.ArchSupport.from_architecture(VRDIRArchitecture()))
    return spandrel.ModelLoader(registry=registry)


def test_spandrel_loads_one_file(
    loader: Any, tiny: VRDIR, photo_batch: torch.Tensor, tmp_path: Path
) -> None:
    from vrdir.frontend import save_one_file

    save_one_file(tiny, tmp_path / "tiny.safetensors")
    model = loader.load_from_file(tmp_path / "tiny.safetensors")
    assert (model.architecture.id, model.purpose, model.scale) == ("VRDIR", "Restoration", 1)
    assert model.model.config == tiny.config  # the branches in their order, too
    image = photo_batch[:1]
    torch.testing.assert_close(model(image), vrdir.Restorer(tiny, "cpu")(image))
    with pytest.raises(Exception, match="does not support half precision"):
        model.half()


def test_spandrel_loads_bundled_weights(loader: Any, tmp_path: Path) -> None:
    from vrdir.frontend import save_one_file

    save_one_file("small", tmp_path / "small.safetensors")
    model = loader.load_from_file(tmp_path / "small.safetensors")
    assert model.tags == ["haze", "noise", "sensor_noise", "rain", "clean"]


def test_weights_without_a_config_raise(loader: Any, weights: Path) -> None:
    with pytest.raises(ValueError, match=r"but not its config; write one .*save_one_file"):
        loader.load_from_file(weights / "model.safetensors")


def test_other_weights_raise(loader: Any, tiny: VRDIR, tmp_path: Path) -> None:
    from vrdir.frontend.spandrel import CONFIG_KEY, save_one_file

    save_one_file(tiny, tmp_path / "tiny.safetensors")
    state = loader.load_state_dict_from_file(tmp_path / "tiny.safetensors")
    with pytest.raises(ValueError, match=r"do not fit their config \(lacks decoder"):
        loader.load_from_state_dict(
            {name: value for name, value in state.items() if not name.startswith("decoder.stem")}
        )
    text = torch.frombuffer(bytearray(b'{"extractor": "resnet"}'), dtype=torch.uint8)
    with pytest.raises(ValueError, match="vrdir_config is not a VRDIR config: extractor"):
        loader.load_from_state_dict({**state, CONFIG_KEY: text})
