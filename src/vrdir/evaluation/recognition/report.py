"""The result of evaluating recognisers as a page with charts and pictures."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from vrdir.errors import first_line
from vrdir.evaluation.metric import Metric
from vrdir.evaluation.recognition.conditions import AS_TAKEN, CLEAN
from vrdir.evaluation.recognition.results import Example, RecognitionResult
from vrdir.evaluation.recognition.statistics import Estimate
from vrdir.evaluation.recognition.tables import NOTHING, Row, rows_of
from vrdir.evaluation.recognition.verdict import (
    SIGNIFICANT,
    bare_p,
    condition_label,
    effect,
    headlines,
    main_metric,
    outcomes,
)
from vrdir.evaluation.report.charts import Chart, curves, forest
from vrdir.evaluation.report.page import Page, PictureRow, Section, Table, render
from vrdir.evaluation.report.pictures import boxed_picture

logger = logging.getLogger(__name__)

MOST_EXAMPLES = 32  # on a page
MOST_POINTS = 5  # with more conditions, a section omits the sentence about each
MOST_EXCLUDED = 1000  # exclusions that a section names
HASH_DIGITS = 12  # of a SHA-256, in a section's facts
CLEAN_IMAGES = "clean images"
NUMBER = re.compile(r"(?<=[:,])(\w+)=(-?\d+\.?\d*)(?=$|[,+])")
"""A number in a condition's name, as in haze:severity=3."""
INTERVAL_NOTE = "95 %, by bootstrap: the images (in re-identification, the queries) are resampled "
"with replacement, many times. They show how much a figure could differ with other images of the "
"same kind."
RECOVERED_NOTE = (
    "(restored - degraded) / (clean - degraded): 100 % is as good as clean images, 0 % is no help, "
    "less is harm. A dash: the degradation caused no significant loss."
)
AS_TAKEN_NOTE = (
    "these photos have no clean versions: the recogniser gets each without and with restoring. "
    "What clean photos of the same scenes would give is unknown."
)
P_NOTE = (
    "of a paired test on the same images with and without the restorer: how often chance alone "
    f"makes a difference as large. A difference is significant if p is below {SIGNIFICANT}; of "
    "twenty comparisons without any effect, about one is."
)
SYNTHETIC_NOTE = (
    "degraded images were computed from the clean ones by vrdir's own functions. Its weights were "
    "trained on such images, which flatters them; photos of real haze, rain or noise may differ."
)
PICTURES_NOTE = (
    "evenly spread over all images whose answer improved or worsened by restoring, not chosen by "
    "looks. The better answer has a blue edge, the worse one a red edge. Reduced and compressed "
    "for this page."
)


def as_page(results: Sequence[RecognitionResult], facts: Mapping[str, str]) -> str:
    """Return the page as HTML. The pictures of its examples are computed here.

    Args:
        results: one per recogniser.
        facts: such as versions and weights.
    """
    series = [NOTHING, *dict.fromkeys(name for result in results for name in result.restorers)]
    most = max(4, MOST_EXAMPLES // len(results))
    titles = " and ".join(dict.fromkeys(result.title for result in results))
    page = Page(
        f"The effect of restoring on recognition: {titles}",
        facts,
        _overview(results) if len(results) > 1 else None,
        [_section(result, series, most) for result in results],
        _notes(results),
    )
    return render(page)


def _overview(results: Sequence[RecognitionResult]) -> Table:
    rows: list[Sequence[str]] = []
    for result in results:
        key = main_metric(result).key
        rows.append([result.recogniser])
        for restorer in result.restorers:
            if result.clean:
                before, after = result.clean[key], result.clean_restored[restorer][key]
            else:
                (condition,) = result.conditions
                before, after = condition.degraded[key], condition.restored[restorer][key]
            counts = outcomes(result, restorer)
            cells = (str(counts[one]) for one in ("helps", "neither", "harms"))
            rows.append((restorer, *cells, f"{after.value - before.value:+.1f}"))
    measured = "clean" if results[0].clean else AS_TAKEN
    columns = ("it helps", "no significant\ndifference", "it harms", f"{measured},\npoints")
    return Table(("conditions under which", *columns), rows)


def _notes(results: Sequence[RecognitionResult]) -> dict[str, str]:
    notes = {metric.label: metric.definition for result in results for metric in result.metrics}
    notes["Interval"] = INTERVAL_NOTE
    if any(result.clean for result in results):
        notes["Recovered"] = RECOVERED_NOTE
    else:
        notes["Photos as taken"] = AS_TAKEN_NOTE
    notes["p"] = P_NOTE
    if any(condition.synthetic for result in results for condition in result.conditions):
        notes["Synthetic"] = SYNTHETIC_NOTE
    if any(result.examples for result in results):
        notes["Pictures"] = PICTURES_NOTE
    return notes


def _section(result: RecognitionResult, series: Sequence[str], most_examples: int) -> Section:
    main, *others = result.metrics
    first, *points = headlines(result).values()
    if 1 < len(result.conditions) <= MOST_POINTS:
        leading = result.restorers[0]
        points += [
            f"{leading}, {condition_label(condition)}: {effect(result, condition, leading)}"
            for condition in result.conditions
        ]
    examples = _balanced(result.examples, most_examples)
    return Section(
        result.recogniser,
        f"{result.count} {result.unit}",
        _typeset(first),
        [_table(result, [main])],
        _charts(result, main, series),
        [_picture_row(example, small=not result.large_pictures) for example in examples],
        _excluded(result),
        _table(result, others) if others else None,
        ", ".join(metric.label for metric in others),
        [_typeset(point) for point in points],
        {
            name: text[:HASH_DIGITS] if name == "sha256" else text
            for name, text in result.facts.items()
        },
    )


def _excluded(result: RecognitionResult) -> list[str]:
    lines = [f"{one.name}: {one.reason}" for one in result.excluded[:MOST_EXCLUDED]]
    more = len(result.excluded) - MOST_EXCLUDED
    return [*lines, f"and {more} more, named in the JSON and CSV results"] if more > 0 else lines


def _typeset(sentence: str) -> str:
    """Return a sentence with real arrows, and with figures and units that keep together."""
    no_break = "\u00a0"
    arrows = sentence.replace(" -> ", f"{no_break}\u2192{no_break}")
    return re.sub(r"(?<=\d) (?=%)|(?<=\bp) (?=[=<])|(?<=[=<]) (?=\d)", no_break, arrows)


def _table(result: RecognitionResult, metrics: Sequence[Metric[Any]]) -> Table:
    """Return a table of metrics; with several, each heading names the metric."""
    labels = {condition.name: condition_label(condition) for condition in result.conditions}
    labels = {CLEAN: CLEAN_IMAGES} | labels
    rows: list[Sequence[str]] = []
    before = 0.0
    for row in rows_of(result):
        if row.metric not in metrics:
            continue
        if row.in_front == NOTHING:
            before = row.value.value
            metric = f"{row.metric.label}, " if len(metrics) > 1 else ""
            rows.append([f"{metric}{labels[row.condition]}"])
        rows.append(_table_row(row, before))
    table = Table(
        (
            "in front",
            metrics[0].heading if len(metrics) == 1 else "%",
            "change",
            "recovered",
            "p",
        ),
        rows,
    )
    return table if result.clean else _without_recovered(table)


def _table_row(row: Row, before: float) -> Sequence[str]:
    digits = row.metric.digits
    value = f"{row.metric.shown(row.value.value)}\n{_range(row.value, digits)}"
    if row.in_front == NOTHING:
        return (row.in_front, value, "", "", "")
    share = "" if row.condition == CLEAN else "-"
    if row.recovered is not None:
        percent = Estimate(*(100 * edge for edge in row.recovered))
        share = f"{percent.value:.0f} %\n{_range(percent, 0)}"
    change = row.metric.shown(row.value.value - before, sign="+")
    return (row.in_front, value, change, share, "" if row.p_value is None else bare_p(row.p_value))


def _without_recovered(table: Table) -> Table:
    """Return the table without the recovered shares, which are unknown without clean images."""
    head, *rows = [(*row[:3], *row[4:]) for row in (table.head, *table.rows)]
    return Table(head, rows)


def _range(estimate: Estimate, digits: int) -> str:
    return f"{estimate.low:.{digits}f} to {estimate.high:.{digits}f}"


def _charts(result: RecognitionResult, metric: Metric[Any], series: Sequence[str]) -> list[Chart]:
    """Return curves over conditions that differ in one number, and one forest of the others."""
    drawn: set[str] = set()
    charts = []
    for shared, steps in series_of([condition.name for condition in result.conditions]).items():
        charts.append(_curve(result, metric, series, shared, steps))
        drawn |= set(steps.values())
    forest_chart = _forest(result, metric, series, drawn)
    return [forest_chart, *charts] if forest_chart else charts


def _curve(
    result: RecognitionResult,
    metric: Metric[Any],
    series: Sequence[str],
    shared: str,
    steps: Mapping[str, str],
) -> Chart:
    conditions = {condition.name: condition for condition in result.conditions}
    of_steps = [conditions[name] for name in steps.values()]
    key = metric.key
    lines = {NOTHING: [result.clean[key], *(one.degraded[key] for one in of_steps)]}
    for restorer, values in result.clean_restored.items():
        lines[restorer] = [values[key], *(one.restored[restorer][key] for one in of_steps)]
    synthetic = " (synthetic)" if of_steps[0].synthetic else ""
    caption = f"{metric.heading}, over {shared}{synthetic}, with 95 % intervals."
    return curves([CLEAN, *steps], lines, (CLEAN_IMAGES, result.clean[key]), series, caption)


def _forest(
    result: RecognitionResult, metric: Metric[Any], series: Sequence[str], drawn: set[str]
) -> Chart | None:
    """Return a chart of the conditions that are not drawn yet; None if there is none."""
    key = metric.key
    groups = {}
    if result.clean:
        groups[CLEAN_IMAGES] = {name: one[key] for name, one in result.clean_restored.items()}
    conditions = [one for one in result.conditions if one.name not in drawn]
    for condition in conditions:
        restored = {name: one[key] for name, one in condition.restored.items()}
        groups[condition_label(condition)] = {NOTHING: condition.degraded[key], **restored}
    caption = f"{metric.heading}, by what is in front of {result.recogniser}, with 95 % intervals."
    clean = (CLEAN_IMAGES, result.clean[key]) if result.clean else None
    return forest(groups, clean, series, caption) if conditions else None


def series_of(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the series of three or more conditions that differ in one number only.

    Returns:
        What they share -> number -> the condition's name, in order of the numbers.

    >>> series_of(["haze:beta=3", "haze:beta=1", "haze:beta=2", "noise:sigma=50"])
    {'the beta of haze': {'1': 'haze:beta=1', '2': 'haze:beta=2', '3': 'haze:beta=3'}}
    """
    alike: dict[tuple[str, str, str], dict[str, str]] = {}
    for name in names:
        for match in NUMBER.finditer(name):
            rest = (match[1], name[: match.start()], name[match.end() :])
            alike.setdefault(rest, {})[match[2]] = name
    series: dict[str, dict[str, str]] = {}
    taken: set[str] = set()
    for (parameter, before, after), steps in sorted(alike.items(), key=lambda item: -len(item[1])):
        if len(steps) < 3 or taken & set(steps.values()):
            continue
        shared = f"{before}{after}".replace(":,", ":").rstrip(":,")
        ordered = sorted(steps.items(), key=lambda item: float(item[0]))
        series[f"the {parameter} of {shared}"] = dict(ordered)
        taken |= set(steps.values())
    return series


def _balanced(examples: Sequence[Example], most: int) -> list[Example]:
    """Return at most `most` examples, improved ones first, as many as possible of every group.

    A group is a condition, a restorer, and whether the answer improved.
    """
    groups: dict[tuple[bool, str, str], list[Example]] = {}
    for example in examples:
        groups.setdefault(_group(example), []).append(example)
    turns = zip_longest(*groups.values())
    taken = [example for turn in turns for example in turn if example is not None][:most]
    order = {group: number for number, group in enumerate(groups)}
    return sorted(taken, key=lambda one: (not one.improved, order[_group(one)]))


def _group(example: Example) -> tuple[bool, str, str]:
    return (not example.improved, example.condition, example.restorer)


def _picture_row(example: Example, small: bool) -> PictureRow:
    as_taken = example.condition == AS_TAKEN
    change = "Improved" if example.improved else "Worsened"
    condition = "" if as_taken else f"{example.condition}, "
    title = f"{change}: {condition}{example.restorer} in front"
    caption = f"{example.name}; true: {example.truth}"
    better, worse = ("restored", "degraded") if example.improved else ("degraded", "restored")
    marks = {better: "good", worse: "bad"}
    titles = {"degraded": AS_TAKEN} if as_taken else {}
    try:
        pictures = [
            boxed_picture(
                titles.get(key, key),
                example.answers.get(key, ""),
                image(),
                example.boxes.get(key, ()),
                marks.get(key, ""),
            )
            for key, image in example.pictures.items()
        ]
    # A file may be gone by now: the figures stay valid, and the page shows what it can.
    except Exception as error:
        logger.debug("%s", example.name, exc_info=True)
        answers = "; ".join(f"{name}: {text}" for name, text in example.answers.items())
        return PictureRow(title, f"{caption} ({answers}); no pictures: {first_line(error)}", [])
    return PictureRow(title, caption, pictures, small)
