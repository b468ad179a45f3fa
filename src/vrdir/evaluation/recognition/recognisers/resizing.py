"""How the input of an ONNX recogniser is made from an image: the rule in its card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from vrdir.errors import RecogniserError

FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
PAD = 114  # the grey level of a letterbox without `pad`


class Resizing(NamedTuple):
    """A rule: its card's entries, and the height and width that it ends at."""

    rule: Mapping[str, Any]
    size: tuple[int, int]

    def apply(self, image: Image.Image) -> tuple[Image.Image, float]:
        """Return the resized image, and the factor by which it was resized (1 if irrelevant)."""
        return MODES[self.rule["mode"]](image, self)

    @property
    def filter(self) -> Image.Resampling:
        """The filter by which images are resized."""
        return FILTERS[self.rule["filter"]]


def letterboxed(
    image: Image.Image, side: int, pad: int, resampling: Image.Resampling
) -> tuple[Image.Image, float]:
    """Resize the longer side to `side` and put the image at the top left of a grey square.

    Returns:
        The square, and the factor by which the image was resized.
    """
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    canvas = Image.new("RGB", (side, side), (pad, pad, pad))
    canvas.paste(image.resize(size, resampling), (0, 0))
    return canvas, scale


def centre_cropped(
    image: Image.Image, shorter: int, side: int, resampling: Image.Resampling
) -> Image.Image:
    """Resize the shorter side to `shorter` and cut out the centre, `side` x `side`."""
    scale = shorter / min(image.size)
    resized = image.resize((round(image.width * scale), round(image.height * scale)), resampling)
    left, top = (resized.width - side) // 2, (resized.height - side) // 2
    return resized.crop((left, top, left + side, top + side))


def _letterbox(image: Image.Image, by: Resizing) -> tuple[Image.Image, float]:
    return letterboxed(image, by.size[0], int(by.rule.get("pad", PAD)), by.filter)


def _centre_crop(image: Image.Image, by: Resizing) -> tuple[Image.Image, float]:
    shorter, side = int(by.rule["shorter_side"]), int(by.rule["crop"])
    return centre_cropped(image, shorter, side, by.filter), 1


def _stretch(image: Image.Image, by: Resizing) -> tuple[Image.Image, float]:
    return image.resize((by.size[1], by.size[0]), by.filter), 1


MODES: Mapping[str, Callable[[Image.Image, Resizing], tuple[Image.Image, float]]] = {
    "letterbox": _letterbox,
    "shorter_side_centre_crop": _centre_crop,
    "stretch": _stretch,
}
"""By the card's `resize.mode`."""


def read_resizing(
    card: Mapping[str, Any], path: Path, task: str, mode: str, size: tuple[int, int]
) -> Resizing:
    """Return the rule of a card.

    Args:
        card: the card's content.
        path: the ONNX file.
        task: the task's name, for errors.
        mode: the mode that the task needs.
        size: the height and width of the network's input.

    Raises:
        RecogniserError: the rule is another, or does not end at the network's input size.
    """
    rule, beside = card["resize"], path.with_suffix(".json")
    if rule.get("mode") != mode:
        raise RecogniserError(
            f"{beside}: resize.mode {rule.get('mode')!r}; for {task} it must be {mode!r}"
        )
    if str(rule.get("filter")) not in FILTERS or not rule.get("antialias", True):
        raise RecogniserError(
            f"{beside}: resize.filter {rule.get('filter')!r}; "
            f"it must be antialiased {', '.join(FILTERS)}"
        )
    crop = rule.get("crop")
    wanted = rule.get("size") if crop is None else [crop, crop]
    not_square = mode == "letterbox" and size[0] != size[1]
    if wanted != list(size) or not_square or (crop is not None and "shorter_side" not in rule):
        raise RecogniserError(
            f"{beside}: resize ends at {wanted} (H, W), but the input of {path.name} is "
            f"{list(size)}"
        )
    if rule.get("align", "top-left") != "top-left":
        raise RecogniserError(f"{beside}: resize.align {rule['align']!r}; it must be 'top-left'")
    return Resizing(rule, size)
