"""Contact sheets: pictures in rows, with titles and captions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vrdir.images.writing import encode, write_file

LINE_PX, FONT_PX = 19, 15


def to_pil(image: Tensor) -> Image.Image:
    """Return a (3, H, W) tensor in [0, 1] as an 8-bit RGB picture."""
    pixels = (image.detach().cpu().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(pixels))


def draw_contact_sheet(
    rows: Sequence[Sequence[Tensor]],
    columns: Sequence[str] = (),
    captions: Sequence[Sequence[str]] = (),
    gap_px: int = 8,
) -> Image.Image:
    """Draw a grid of pictures with a title over each column and a caption under each picture.

    Args:
        rows: the pictures, (3, H, W) in [0, 1]; those of a row have one size, rows may differ.
        columns: a title for each column; empty for no titles.
        captions: for each row, a text for each picture, of one or more lines; empty for no
            captions.
        gap_px: the space between pictures.
    """
    font = ImageFont.load_default(size=FONT_PX)
    lines = max((caption.count("\n") + 1 for row in captions for caption in row), default=0)
    widths = [
        max(row[i].shape[2] for row in rows if i < len(row)) for i in range(max(map(len, rows)))
    ]
    heights = [row[0].shape[1] + LINE_PX * lines for row in rows]
    top = LINE_PX + gap_px if columns else 0
    width = sum(widths) + gap_px * (len(widths) + 1)
    height = top + sum(heights) + gap_px * (len(rows) + 1)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for i, title in enumerate(columns):
        draw.text((gap_px * (i + 1) + sum(widths[:i]), gap_px), title, "black", font)
    for r, row in enumerate(rows):
        y = top + gap_px * (r + 1) + sum(heights[:r])
        for i, image in enumerate(row):
            x = gap_px * (i + 1) + sum(widths[:i])
            sheet.paste(to_pil(image), (x, y))
            if captions:
                draw.text((x, y + image.shape[1] + 1), captions[r][i], "black", font)
    return sheet


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture as PNG."""
    write_file(encode(picture, "PNG"), path)
