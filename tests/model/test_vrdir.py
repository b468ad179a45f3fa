"""The whole network: sizes, ranges, gradients, freezing, saving and loading."""

import json
import re
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from tests.conftest import TINY

from vrdir.model.config import CONFIGS, PAPER, SMALL, VRDIRConfig, describe
from vrdir.model.global_context import lift_whole
from vrdir.model.vrdir import VRDIR


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 3), (16, 16), (33, 50)])
@pytest.mark.parametrize("name", [*CONFIGS, "tiny"])
def test_any_size_is_restored_in_range(name: str, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = VRDIR(CONFIGS.get(name, TINY)).eval()
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # fresh ones would return their input
    image = torch.rand(2, 3, *size)
    with torch.no_grad():
        result = model.restore(image)
    assert result.image.shape == image.shape
    assert result.image.dtype == torch.float32
    assert 0 <= float(result.image.min()) <= float(result.image.max()) <= 1
    assert result.shares.shape == (2, len(model.config.guidance_names))
    torch.testing.assert_close(result.shares.sum(1), torch.ones(2))
    for guidance in result.guidance:
        torch.testing.assert_close(guidance.sum(1), torch.ones_like(guidance[:, 0]))


def test_single_image_matches_its_result_in_a_batch(tiny: VRDIR, photo_batch: torch.Tensor) -> None:
    with torch.no_grad():
        together = tiny(photo_batch)
        alone = torch.cat([tiny(image[None]) for image in photo_batch])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "shape", [(3, 8, 8), (1, 4, 8, 8), (1, 1, 8, 8), (0, 3, 8, 8), (1, 3, 0, 8)]
)
def test_wrong_shape_raises(tiny: VRDIR, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected an RGB tensor"):
        tiny(torch.zeros(shape))


@pytest.mark.parametrize("config", [PAPER, SMALL, TINY])
def test_every_trainable_parameter_gets_a_gradient_and_the_extractor_none(
    config: VRDIRConfig,
) -> None:
    torch.manual_seed(0)
    model = VRDIR(config)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.add_(
                0.02 * torch.randn_like(parameter)
            )  # leave the zeros at which some parts start
    image = torch.rand(2, 3, 48, 48)
    veil = model.find_veil(image)
    clear = image if veil is None else lift_whole(image, veil)
    features, _ = model.enhance(model.extract(clear))
    ((model.decoder(features, clear, image) - torch.rand_like(image)) ** 2).mean().backward()
    for name, parameter in model.named_parameters():
        if name.startswith("extractor."):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            assert float(parameter.grad.abs().sum()) > 0, name


def test_gradients_reach_the_input(tiny: VRDIR) -> None:
    image = torch.rand(1, 3, 24, 24, requires_grad=True)
    tiny(image).sum().backward()
    assert image.grad is not None
    assert torch.isfinite(image.grad).all()
    assert float(image.grad.abs().sum()) > 0


def test_branches_are_addressed_by_name_at_every_scale(tiny: VRDIR) -> None:
    keys = tiny.state_dict().keys()
    for name in TINY.branches:
        assert sum(f"branches.{name}." in key for key in keys) == len(
            list(tiny.branch_parameters(name))
        )
    with pytest.raises(KeyError):
        tiny.enhance_with("snow", [torch.zeros(1, 24, 2, 2), torch.zeros(1, 40, 1, 1)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"branches": ()}, "at least one"),
        ({"branches": ("haze", "haze")}, "different names"),
        ({"branches": ("clean",)}, "clean_branch"),
        ({"branches": ("no.dots",)}, "letters"),
        ({"widths": (8,)}, "same number of scales"),
        ({"depth": 3}, "depth"),
        ({"widths": (-8, 12, 16)}, "widths.0"),
        ({"decoder_blocks": (1, -1, 1)}, "decoder_blocks.1"),
        ({"branches": ("train",)}, "not be a Python keyword"),
        ({"strides": (3,)}, "stride \\[3\\]"),
    ],
)
def test_error_names_wrong_config_field(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        VRDIRConfig.model_validate(TINY.model_dump() | change)
    assert re.search(message, describe(caught.value))


def test_error_names_impossible_config(tiny: VRDIR, tmp_path: Path) -> None:
    tiny.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps(config | {"widths": [8], "encoder_blocks": [1], "decoder_blocks": [1]})
    )
    with pytest.raises(ValueError, match="config.json describes no network"):
        VRDIR.from_pretrained(tmp_path)


def test_saved_and_loaded_is_the_same(
    tiny: VRDIR, tmp_path: Path, photo_batch: torch.Tensor
) -> None:
    tiny.save_pretrained(tmp_path / "model")
    loaded = VRDIR.from_pretrained(tmp_path / "model")
    assert loaded.config == tiny.config
    assert not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded(photo_batch), tiny(photo_batch))
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


def test_half_precision_files_are_half_as_large_and_nearly_the_same(
    tiny: VRDIR, tmp_path: Path, photo_batch: torch.Tensor
) -> None:
    tiny.save_pretrained(tmp_path / "full")
    tiny.save_pretrained(tmp_path / "half", half=True)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("full", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    loaded = VRDIR.from_pretrained(tmp_path / "half")
    assert all(tensor.dtype == torch.float32 for tensor in loaded.state_dict().values())
    with torch.no_grad():
        assert float((loaded(photo_batch) - tiny(photo_batch)).abs().max()) < 4e-3


def test_error_lists_available_weights(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"unknown weights 'large': use bundled weights .small"
    ):
        VRDIR.from_pretrained("large")
    with pytest.raises(FileNotFoundError, match=r"config.json is missing"):
        VRDIR.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="is a file"):
        VRDIR.from_pretrained(tmp_path / "model.safetensors")


def test_error_names_damaged_files(tiny: VRDIR, tmp_path: Path) -> None:
    tiny.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    for content in (b"", b"hello", whole[: len(whole) // 2]):
        weights.write_bytes(content)
        with pytest.raises(ValueError, match="model.safetensors is damaged"):
            VRDIR.from_pretrained(tmp_path)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="model.safetensors is missing"):
        VRDIR.from_pretrained(tmp_path)
    weights.write_bytes(whole)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json is not a VRDIR config"):
        VRDIR.from_pretrained(tmp_path)


def test_weights_of_another_architecture_are_rejected_with_the_difference(
    tiny: VRDIR, tmp_path: Path
) -> None:
    tiny.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps(config | {"branches": ["haze", "noise", "snow"]})
    )
    with pytest.raises(ValueError, match=r"lacks enhancement\.stride4\.branches\.snow"):
        VRDIR.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"widths": [8, 12, 20]}))
    with pytest.raises(ValueError, match="instead of"):
        VRDIR.from_pretrained(tmp_path)


def test_loading_is_strict_about_extra_tensors(tiny: VRDIR, tmp_path: Path) -> None:
    tiny.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    save_file(state | {"stowaway": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="has stowaway, unknown here"):
        VRDIR.from_pretrained(tmp_path)
