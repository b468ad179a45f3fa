"""Pictures of images for a page, as text for its HTML."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional

from vrdir.images.contact_sheet import to_pil

PICTURE_PX = 480
"""The longer side of a picture is reduced to this."""
ZOOM_PX = 96
"""The side of a zoomed window."""
FONT_PX = 15

Area = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels."""


class Picture(NamedTuple):
    """A picture on a page.

    Attributes:
        title: above it.
        caption: a second line above it.
        whole: the picture as a data URI.
        zoom: an enlarged window of it as a data URI; "" for none.
        mark: "good" or "bad" for a coloured edge; "" for none.
    """

    title: str
    caption: str
    whole: str
    zoom: str = ""
    mark: str = ""


def zoomed_picture(
    title: str, caption: str, image: Tensor, window: tuple[int, int, int]
) -> Picture:
    """Return a picture with a frame around a window, and that window pixel by pixel.

    Args:
        title: the first line above it.
        caption: the second line above it.
        image: (3, H, W) in [0, 1]; the picture is reduced to 480 pixels.
        window: top, left and side in pixels, as `worst_window` gives them.
    """
    top, left, side = window
    whole = to_pil(image)
    zoom = whole.crop((left, top, left + side, top + side))
    whole, scale = _reduced(whole)
    frame = [round(scale * edge) for edge in (left, top, left + side - 1, top + side - 1)]
    inner = [frame[0] + 1, frame[1] + 1, frame[2] - 1, frame[3] - 1]
    draw = ImageDraw.Draw(whole)
    draw.rectangle(frame, outline="black", width=3)  # black under white shows on any picture
    draw.rectangle(inner if side * scale > 6 else frame, outline="white")
    return Picture(title, caption, data_uri(whole), data_uri(zoom, lossless=True))


def boxed_picture(
    title: str,
    caption: str,
    image: Tensor,
    boxes: Sequence[tuple[float, float, float, float, str]] = (),
    mark: str = "",
) -> Picture:
    """Return a picture with boxes drawn into it.

    Args:
        title: the first line above it.
        caption: the second line above it.
        image: (3, H, W) in [0, 1]; the picture is reduced to 480 pixels.
        boxes: x0, y0, x1, y1 in pixels of the image, and the text beside the box.
        mark: as of `Picture`.
    """
    whole, scale = _reduced(to_pil(image))
    scaled = [
        (round(x0 * scale), round(y0 * scale), round(x1 * scale), round(y1 * scale), text)
        for x0, y0, x1, y1, text in boxes
    ]
    _draw_boxes(whole, scaled)
    return Picture(title, caption, data_uri(whole), mark=mark)


def _reduced(picture: Image.Image) -> tuple[Image.Image, float]:
    """Return a picture of at most 480 pixels, and the factor by which it was reduced."""
    scale = min(1, PICTURE_PX / max(picture.size))
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS), scale


def _draw_boxes(picture: Image.Image, boxes: Sequence[tuple[int, int, int, int, str]]) -> None:
    """Draw boxes and their texts; a text that would cover an earlier one is left out."""
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=FONT_PX)
    boxes = [box for box in boxes if box[2] - box[0] >= 2 and box[3] - box[1] >= 2]
    for x0, y0, x1, y1, _ in boxes:
        # White in black shows on any picture.
        draw.rectangle((x0, y0, x1, y1), outline="black", width=4)
        draw.rectangle((x0 + 1, y0 + 1, x1 - 1, y1 - 1), outline="white", width=2)
    taken: list[Area] = []
    for x0, y0, _, y1, text in boxes:
        _, _, width, height = draw.textbbox((0, 0), text, font)
        x = max(0, min(x0, picture.width - width - 6))
        # Above the box, at its top, at its bottom, below.
        for y in (y0 - height - 4, y0, y1 - height - 4, y1):
            area = (x, y, x + width + 6, y + height + 4)
            if y >= 0 and area[3] <= picture.height and not _touches(area, taken):
                taken.append(area)
                draw.rectangle((*area[:2], area[2] - 1, area[3] - 1), fill="black")
                draw.text((x + 3, y), text, "white", font)
                break


def _touches(area: Area, others: Sequence[Area]) -> bool:
    x0, y0, x1, y1 = area
    return any(x1 > a[0] and a[2] > x0 and y1 > a[1] and a[3] > y0 for a in others)


def error_map(image: Tensor, clean: Tensor, gain: float = 8) -> Tensor:
    """Return where two images (3, H, W) differ, as an image (3, H, W) in [0, 1].

    It is the mean difference of the channels times `gain`; black is no difference.
    """
    return ((image - clean).abs().mean(0, keepdim=True) * gain).clamp(0, 1).expand(3, -1, -1)


def worst_window(image: Tensor, clean: Tensor, side_px: int = ZOOM_PX) -> tuple[int, int, int]:
    """Return the square window in which two images (3, H, W) differ most: top, left and side."""
    side = min(side_px, *image.shape[1:])
    stride = max(1, side // 4)
    errors = functional.avg_pool2d((image - clean).abs().mean(0)[None, None], side, stride)[0, 0]
    row, column = divmod(int(torch.argmax(errors)), errors.shape[1])
    return row * stride, column * stride, side


def data_uri(image: Image.Image, lossless: bool = False) -> str:
    """Return a picture as the text of a WebP file, for use in a page."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80, lossless=lossless)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
