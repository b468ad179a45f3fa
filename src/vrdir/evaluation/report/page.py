"""The report of any evaluation: one self-contained HTML page.

A page is made of the plain parts below, which do not depend on what is evaluated; `render` turns
them into HTML. The page needs no network and runs no script. All text in it is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from vrdir.errors import require
from vrdir.evaluation.report.charts import BarChart, Chart
from vrdir.evaluation.report.pictures import Picture


class Table(NamedTuple):
    """A table: a head and rows of text; the first column is text, the others are figures.

    A row of one cell is a heading for the rows below it. Text after a line break in a cell is
    shown smaller, below the rest.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


class PictureRow(NamedTuple):
    """The pictures of one image, side by side.

    Attributes:
        title: why it is shown.
        caption: which image it is.
        pictures: the pictures.
        small: whether another row fits beside it.
    """

    title: str
    caption: str
    pictures: Sequence[Picture]
    small: bool = False


class Section(NamedTuple):
    """The part of a page on one set of images.

    Attributes:
        title: its name.
        badge: a word or two beside the title.
        verdict: the result in a sentence or two.
        tables: of figures.
        plots: charts beside the tables.
        picture_rows: images as examples.
        excluded: what was left out and why, a line each.
        details: a long table, collapsed under `details_title`.
        details_title: its title.
        points: further sentences on the result.
        facts: of this set, by name.
    """

    title: str
    badge: str
    verdict: str
    tables: Sequence[Table] = ()
    plots: Sequence[BarChart | Chart] = ()
    picture_rows: Sequence[PictureRow] = ()
    excluded: Sequence[str] = ()
    details: Table | None = None
    details_title: str = "All images"
    points: Sequence[str] = ()
    facts: Mapping[str, str] = MappingProxyType({})


class Page(NamedTuple):
    """A whole report.

    Attributes:
        title: its title.
        facts: such as versions, by name.
        overview: a table over all sets, if there are several.
        sections: the sets.
        notes: how the figures are defined, by name.
    """

    title: str
    facts: Mapping[str, str]
    overview: Table | None
    sections: Sequence[Section]
    notes: Mapping[str, str]


def render(page: Page) -> str:
    """Return the page as HTML. Raises MissingPackageError if jinja2 is not installed."""
    jinja2 = require("jinja2", "evaluate", "a report needs more packages (jinja2 is missing)")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return str(environment.get_template("report.html.jinja").render(page=page))
