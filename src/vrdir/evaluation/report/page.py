"""The report of any evaluation: one self-contained HTML page with verdicts, tables, plots and pictures.

What is evaluated stays outside: a page is made of the plain parts below, and `render` turns them into HTML. The page needs no
network, runs no script, and whatever is put into it (file names above all) is escaped.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional

from vrdir.evaluation.report.charts import Chart, round_step
from vrdir.images.contact_sheet import to_pil

PICTURE_PX, ZOOM_PX = 480, 96  # the longer side of an embedded picture; the side of a zoomed window
MOST_BARS = 400


class Table(NamedTuple):
    """Rows of text under a head; the first column is text, the others are figures.

    A row of one cell is a heading for those below it; what follows a line break in a cell is set small under it.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


class Bar(NamedTuple):
    """A bar of a plot, in its 400 x 180 units."""

    x: float
    y: float
    width: float
    height: float
    rises: bool
    label: str


class Plot(NamedTuple):
    """Bars up and down from zero, `ticks` as (y, label), and what they show."""

    bars: Sequence[Bar]
    ticks: Sequence[tuple[float, str]]
    zero: float
    caption: str


class Picture(NamedTuple):
    """A picture and, if there is one, a window of it, enlarged, both as data URIs; `mark` it as "good" or "bad", or not at all."""

    title: str
    caption: str
    whole: str
    zoom: str = ""
    mark: str = ""


class Case(NamedTuple):
    """One image: why it is shown, which it is, and its pictures side by side; `small` ones leave room for another case beside them."""

    title: str
    caption: str
    pictures: Sequence[Picture]
    small: bool = False


class Section(NamedTuple):
    """One set of images.

    Attributes:
        title, badge: its name, and a word or two on what it is.
        verdict: what came out, in a sentence or two.
        excluded: what was left out and why, a line each.
        details: a long table, folded away under `details_title`.
        points: what the verdict rests on, a sentence each.
        facts: of this set, by name.
    """

    title: str
    badge: str
    verdict: str
    tables: Sequence[Table] = ()
    plots: Sequence[Plot | Chart] = ()
    cases: Sequence[Case] = ()
    excluded: Sequence[str] = ()
    details: Table | None = None
    details_title: str = "All images"
    points: Sequence[str] = ()
    facts: Mapping[str, str] = MappingProxyType({})


class Page(NamedTuple):
    """A whole report: a title, facts such as versions, an overview of all sets, the sets, and how the figures are defined."""

    title: str
    facts: Mapping[str, str]
    overview: Table | None
    sections: Sequence[Section]
    notes: Mapping[str, str]


def render(page: Page) -> str:
    """The page as HTML."""
    loader = PackageLoader("vrdir.evaluation.report", "")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.jinja").render(page=page)


def sorted_bars(values: Mapping[str, float], unit: str, caption: str) -> Plot:
    """One bar a value, sorted, up or down from zero; of more than 400 values, 400 evenly spread over the sorted ones.

    Args:
        values: by name, at least one.
        unit: such as "dB".
        caption: what is shown.
    """
    left, top, right, bottom = 34, 8, 396, 168
    ordered = sorted(values.items(), key=lambda item: item[1])
    if len(ordered) > MOST_BARS:
        ordered = [
            ordered[round(i * (len(ordered) - 1) / (MOST_BARS - 1))] for i in range(MOST_BARS)
        ]
    low, high = min(0.0, ordered[0][1]), max(0.0, ordered[-1][1])
    step = round_step((high - low) or 1)
    low, high = (
        math.floor(low / step) * step,
        max(math.ceil(high / step), 1 if low == 0 else 0) * step,
    )

    def height_of(value: float) -> float:
        return round(top + (high - value) / (high - low) * (bottom - top), 2)

    slot = (right - left) / len(ordered)
    width = round(min(slot * 0.86, 28), 3)
    bars = []
    for i, (name, value) in enumerate(ordered):
        y, zero = height_of(value), height_of(0)
        x = round(left + (i + 0.5) * slot - width / 2, 2)
        bars.append(
            Bar(
                x,
                min(y, zero),
                width,
                abs(round(y - zero, 2)),
                value >= 0,
                f"{name}: {value:+.2f} {unit}",
            )
        )
    ticks = [
        (height_of(i * step), f"{i * step:g}")
        for i in range(round(low / step), round(high / step) + 1)
    ]
    return Plot(bars, ticks, height_of(0), caption)


def picture(title: str, caption: str, image: Tensor, window: tuple[int, int, int]) -> Picture:
    """A picture of an image (3, H, W) in [0, 1], at most 480 pixels, with a frame around a window, and that window pixel by pixel.

    Args:
        title, caption: two lines above it.
        image: the image.
        window: top, left and side in pixels, as `worst_window` gives them.
    """
    top, left, side = window
    whole = to_pil(image)
    zoom = whole.crop((left, top, left + side, top + side))
    scale = min(1, PICTURE_PX / max(whole.size))
    whole = whole.resize(
        (max(1, round(whole.width * scale)), max(1, round(whole.height * scale))),
        Image.Resampling.LANCZOS,
    )
    frame = [round(scale * edge) for edge in (left, top, left + side - 1, top + side - 1)]
    draw = ImageDraw.Draw(whole)
    draw.rectangle(frame, outline="black", width=3)  # black under white shows on any picture
    draw.rectangle(
        [frame[0] + 1, frame[1] + 1, frame[2] - 1, frame[3] - 1] if side * scale > 6 else frame,
        outline="white",
    )
    return Picture(title, caption, data_uri(whole), data_uri(zoom, lossless=True))


def plain_picture(
    title: str,
    caption: str,
    image: Tensor,
    boxes: Sequence[tuple[float, float, float, float, str]] = (),
    mark: str = "",
) -> Picture:
    """A picture of an image (3, H, W) in [0, 1], at most 480 pixels, with boxes in pixels of the image and what stands at them."""
    whole = to_pil(image)
    scale = min(1, PICTURE_PX / max(whole.size))
    whole = whole.resize(
        (max(1, round(whole.width * scale)), max(1, round(whole.height * scale))),
        Image.Resampling.LANCZOS,
    )
    _draw_boxes(
        whole,
        [
            (round(x0 * scale), round(y0 * scale), round(x1 * scale), round(y1 * scale), text)
            for x0, y0, x1, y1, text in boxes
        ],
    )
    return Picture(title, caption, data_uri(whole), mark=mark)


def _draw_boxes(picture: Image.Image, boxes: Sequence[tuple[int, int, int, int, str]]) -> None:
    """Frames, white in black since that shows on any picture, and their texts, where there is room for them beside the earlier ones."""
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=15)
    boxes = [box for box in boxes if box[2] - box[0] >= 2 and box[3] - box[1] >= 2]
    for x0, y0, x1, y1, _ in boxes:
        draw.rectangle((x0, y0, x1, y1), outline="black", width=4)
        draw.rectangle((x0 + 1, y0 + 1, x1 - 1, y1 - 1), outline="white", width=2)
    taken: list[tuple[float, float, float, float]] = []
    for x0, y0, _, y1, text in boxes:
        _, _, width, height = draw.textbbox((0, 0), text, font)
        x = max(0, min(x0, picture.width - width - 6))
        for y in (
            y0 - height - 4,
            y0,
            y1 - height - 4,
            y1,
        ):  # above the box, at its top, at its bottom, below
            area = (x, y, x + width + 6, y + height + 4)
            free = all(
                area[2] <= a[0] or a[2] <= area[0] or area[3] <= a[1] or a[3] <= area[1]
                for a in taken
            )
            if free and y >= 0 and area[3] <= picture.height:
                taken.append(area)
                draw.rectangle((*area[:2], area[2] - 1, area[3] - 1), fill="black")
                draw.text((x + 3, y), text, "white", font)
                break


def error_map(image: Tensor, clean: Tensor, gain: float = 8) -> Tensor:
    """Where two images (3, H, W) differ: the mean difference of the channels times `gain`, black for none; (3, H, W) in [0, 1]."""
    return ((image - clean).abs().mean(0, keepdim=True) * gain).clamp(0, 1).expand(3, -1, -1)


def worst_window(image: Tensor, clean: Tensor, side_px: int = ZOOM_PX) -> tuple[int, int, int]:
    """Top, left and side of the square window in which two images (3, H, W) differ most."""
    side = min(side_px, *image.shape[1:])
    stride = max(1, side // 4)
    errors = functional.avg_pool2d((image - clean).abs().mean(0)[None, None], side, stride)[0, 0]
    row, column = divmod(int(torch.argmax(errors)), errors.shape[1])
    return row * stride, column * stride, side


def data_uri(image: Image.Image, lossless: bool = False) -> str:
    """A picture as the text of a WebP file, to stand in a page."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80, lossless=lossless)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
