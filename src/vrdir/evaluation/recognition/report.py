"""What an evaluation of recognisers found: as JSON, as CSV, and as a page with charts and pictures."""

from __future__ import annotations

import csv
import io
import logging
import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

from vrdir.errors import first_line
from vrdir.evaluation.recognition.protocol import Case, RecognitionResult
from vrdir.evaluation.recognition.statistics import Estimate
from vrdir.evaluation.recognition.variants import AS_TAKEN, CLEAN
from vrdir.evaluation.recognition.verdict import (
    SIGNIFICANT,
    called,
    headlines,
    main_metric,
    named,
    outcomes,
    point,
    shown_p,
    verdict,
)
from vrdir.evaluation.report.charts import Chart, curves, forest
from vrdir.evaluation.report.page import Case as ShownCase
from vrdir.evaluation.report.page import Page, Section, Table, plain_picture, render

logger = logging.getLogger(__name__)

NOTHING = "nothing"  # in front of the recogniser: it sees the image as it is
MOST_CASES, MOST_POINTS, MOST_EXCLUDED = 32, 5, 1000  # on a page
KINDS = {"classification": "classification", "detection": "detection", "reid": "re-identification"}
CLEAN_IMAGES = "clean images"
NUMBER = re.compile(
    r"(?<=[:,])(\w+)=(-?\d+\.?\d*)(?=$|[,+])"
)  # in a condition's name, as in haze:severity=3


class Row(NamedTuple):
    """A figure of a result: under which condition, behind which restorer, of which metric, and how it compares."""

    condition: str
    synthetic: bool
    in_front: str
    metric: str
    value: Estimate
    recovered: Estimate | None = None
    p_value: float | None = None


def rows_of(result: RecognitionResult) -> list[Row]:
    """All figures, the main metric first, of each the clean images first."""
    rows = []
    for metric in result.metrics:
        if result.clean:
            rows.append(Row(CLEAN, False, NOTHING, metric, result.clean[metric]))
        for restorer, values in result.clean_restored.items():
            rows.append(
                Row(
                    CLEAN,
                    False,
                    restorer,
                    metric,
                    values[metric],
                    None,
                    result.clean_p_value[restorer][metric],
                )
            )
        for one in result.conditions:
            rows.append(Row(one.name, one.synthetic, NOTHING, metric, one.degraded[metric]))
            for restorer, values in one.restored.items():
                compared = one.recovered[restorer][metric], one.p_value[restorer][metric]
                rows.append(
                    Row(one.name, one.synthetic, restorer, metric, values[metric], *compared)
                )
    return rows


def as_json(results: Sequence[RecognitionResult], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Everything but the pictures, for machines. `facts` (versions, weights, seed) come first.

    Where the images have no clean twins, nothing is said of clean ones and of what was recovered.
    """
    return {**facts, "results": [_result_as_json(result) for result in results]}


def _result_as_json(result: RecognitionResult) -> dict[str, Any]:
    figures = (
        ("degraded", "restored", "recovered", "p_value")
        if result.clean
        else ("degraded", "restored", "p_value")
    )
    clean = {
        name: _plain(getattr(result, name))
        for name in ("clean", "clean_restored", "clean_p_value")
        if result.clean
    }
    return {
        "task": result.task,
        "recogniser": result.recogniser,
        "facts": dict(result.facts),
        "definitions": dict(result.metrics),
        "images": result.images,
        "verdict": verdict(result),
        **clean,
        "conditions": [
            {
                "name": condition.name,
                "synthetic": condition.synthetic,
                **{name: _plain(getattr(condition, name)) for name in figures},
            }
            for condition in result.conditions
        ],
        "cases": [
            {
                name: getattr(case, name)
                for name in ("name", "condition", "restorer", "won", "truth")
            }
            | {"said": dict(case.said)}
            for case in result.cases
        ],
        "excluded": len(result.excluded),
        "exclusions": [excluded._asdict() for excluded in result.excluded],
    }


def _plain(value: Any) -> Any:
    """Estimates and mappings of them as dictionaries; NaN, which JSON has not, as None."""
    if isinstance(value, Estimate):
        return {name: _plain(edge) for name, edge in value._asdict().items()}
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and value != value else value


def as_csv(results: Sequence[RecognitionResult]) -> str:
    """A line per figure, see `Row`, and one per exclusion, which has its name and the reason in the last two columns only."""
    figures = ["value", "low", "high", "recovered", "recovered_low", "recovered_high"]
    head = [
        "task",
        "recogniser",
        "images",
        "limit",
        "condition",
        "synthetic",
        "in_front",
        "metric",
        *figures,
        "p_value",
        "excluded",
        "reason",
    ]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(head)
    for result in results:
        for row in rows_of(result):
            numbers = [
                *row.value,
                *(row.recovered or ("", "", "")),
                "" if row.p_value is None else row.p_value,
            ]
            shown = [f"{number:.6g}" if isinstance(number, float) else number for number in numbers]
            writer.writerow(
                [
                    result.task,
                    result.recogniser,
                    result.images,
                    result.facts.get("limit", ""),
                    *row[:4],
                    *shown,
                    "",
                    "",
                ]
            )
        for excluded in result.excluded:
            writer.writerow([result.task, result.recogniser, *[""] * (len(head) - 4), *excluded])
    return buffer.getvalue()


def as_page(results: Sequence[RecognitionResult], facts: Mapping[str, str]) -> str:
    """The page. It makes the pictures of its cases anew, so that none need be kept."""
    series = [NOTHING, *dict.fromkeys(name for result in results for name in result.restorers)]
    sections = [_section(result, series, max(4, MOST_CASES // len(results))) for result in results]
    tasks = dict.fromkeys(KINDS[result.task] for result in results)
    title = f"What restoring does to recognition: {' and '.join(tasks)}"
    return render(
        Page(
            title,
            facts,
            _overview(results) if len(results) > 1 else None,
            sections,
            _notes(results),
        )
    )


def _overview(results: Sequence[RecognitionResult]) -> Table:
    rows: list[Sequence[str]] = []
    for result in results:
        metric = main_metric(result)
        rows.append([result.recogniser])
        for restorer in result.restorers:
            counts = outcomes(result, restorer)
            if result.clean:
                change = result.clean_restored[restorer][metric].value - result.clean[metric].value
            else:
                change = (
                    result.conditions[0].restored[restorer][metric].value
                    - result.conditions[0].degraded[metric].value
                )
            rows.append(
                (
                    restorer,
                    *(str(counts[way]) for way in ("helps", "neither", "harms")),
                    f"{change:+.1f}",
                )
            )
    of = "clean" if results[0].clean else AS_TAKEN
    return Table(
        ("conditions under which", "it helps", "no sure\ndifference", "it harms", f"{of},\npoints"),
        rows,
    )


def _notes(results: Sequence[RecognitionResult]) -> dict[str, str]:
    notes = {
        called(result, metric): text.partition(": ")[2]
        for result in results
        for metric, text in result.metrics.items()
    }
    notes["Interval"] = (
        "95 %, by bootstrap: the images (in re-identification, the queries) are drawn again with replacement, many times over. "
        "It says how far a figure may be off because these images were taken and not others of their kind."
    )
    if any(result.clean for result in results):
        notes["Got back"] = (
            "(restored - degraded) / (clean - degraded): 100 % is as good as clean images, 0 % no help, less is harm. "
            "A dash where nothing was lost, or no more than chance may take."
        )
    else:
        notes["Photos as taken"] = (
            "these photos have no clean twins: the recogniser sees each without and with restoring. "
            "How much of what the weather took comes back cannot be known."
        )
    notes["p"] = (
        "of a paired test on the same images with and without the restorer: how often chance alone makes a difference as large. "
        f"Below {SIGNIFICANT} we call it significant; of twenty comparisons where there is no effect, about one is."
    )
    if any(condition.synthetic for result in results for condition in result.conditions):
        notes["Synthetic"] = (
            "degraded images were computed from the clean ones by vrdir's own functions. "
            "Its weights were trained on such images, which flatters them; photos of real haze, rain or noise may differ."
        )
    if any(result.cases for result in results):
        notes["Pictures"] = (
            "evenly spread over all images whose answer became better (won) or worse (lost) by restoring, not chosen by looks. "
            "The better answer has a blue edge, the worse a red one. Reduced and compressed for this page."
        )
    return notes


def _section(result: RecognitionResult, series: Sequence[str], most_cases: int) -> Section:
    excluded = [
        f"{excluded.name}: {excluded.reason}" for excluded in result.excluded[:MOST_EXCLUDED]
    ]
    if len(result.excluded) > MOST_EXCLUDED:
        excluded.append(
            f"and {len(result.excluded) - MOST_EXCLUDED} more, named in the JSON and CSV results"
        )
    main, *others = result.metrics
    first, *further = headlines(result).values()
    points = list(further)
    if 1 < len(result.conditions) <= MOST_POINTS:
        leading = result.restorers[0]
        points += [
            f"{leading}, {named(condition)}: {point(result, condition, leading)}"
            for condition in result.conditions
        ]
    return Section(
        result.recogniser,
        f"{result.images} {'queries' if result.task == 'reid' else 'images'}",
        _typeset(first),
        [_table(result, [main])],
        _charts(result, main, series),
        [_case(case, result.task) for case in _fairly(result.cases, most_cases)],
        excluded,
        _table(result, others) if others else None,
        ", ".join(called(result, metric) for metric in others),
        [_typeset(one) for one in points],
        {name: text[:12] if name == "sha256" else text for name, text in result.facts.items()},
    )


def _typeset(sentence: str) -> str:
    """A sentence with arrows, whose figures and units do not part at the end of a line."""
    return re.sub(
        r"(?<=\d) (?=%)|(?<=\bp) (?=[=<])|(?<=[=<]) (?=\d)",
        "\u00a0",
        sentence.replace(" -> ", "\u00a0\u2192\u00a0"),
    )


def _table(result: RecognitionResult, metrics: Sequence[str]) -> Table:
    rows: list[Sequence[str]] = []
    heading = ""
    conditions = {CLEAN: CLEAN_IMAGES} | {
        condition.name: named(condition) for condition in result.conditions
    }
    for row in rows_of(result):
        if row.metric not in metrics:
            continue
        value = f"{row.value.value:.1f}\n{_range(row.value, 1)}"
        if row.in_front == NOTHING:
            heading = conditions[row.condition]
            before = row.value.value
            rows.append(
                [heading if len(metrics) == 1 else f"{called(result, row.metric)}, {heading}"]
            )
            rows.append((row.in_front, value, "", "", ""))
            continue
        share = "" if row.condition == CLEAN else "-"
        if row.recovered is not None:
            share = f"{100 * row.recovered.value:.0f} %\n{_range(Estimate(*(100 * edge for edge in row.recovered)), 0)}"
        p_value = (
            ""
            if row.p_value is None
            else shown_p(row.p_value).removeprefix("p ").removeprefix("= ")
        )
        rows.append((row.in_front, value, f"{row.value.value - before:+.1f}", share, p_value))
    what = f"{called(result, metrics[0])}, %" if len(metrics) == 1 else "%"
    table = Table(("in front", what, "change", "got back", "p"), rows)
    return table if result.clean else _without_shares(table)


def _without_shares(table: Table) -> Table:
    """The table without what was got back, which nobody knows where there are no clean images."""
    head, *rows = [(*row[:3], *row[4:]) for row in (table.head, *table.rows)]
    return Table(head, rows)


def _range(estimate: Estimate, digits: int) -> str:
    return f"{estimate.low:.{digits}f} to {estimate.high:.{digits}f}"


def _charts(result: RecognitionResult, metric: str, series: Sequence[str]) -> list[Chart]:
    """Lines over conditions that differ in one number, such as a severity; the others below each other."""
    clean = (CLEAN_IMAGES, result.clean[metric]) if result.clean else None
    conditions = {condition.name: condition for condition in result.conditions}
    charts, drawn = [], set()
    for shared, steps in series_of(list(conditions)).items():
        lines = {NOTHING: [result.clean[metric]]} | {
            one: [values[metric]] for one, values in result.clean_restored.items()
        }
        for name in steps.values():
            lines[NOTHING].append(conditions[name].degraded[metric])
            for restorer, values in conditions[name].restored.items():
                lines[restorer].append(values[metric])
        caption = f"{called(result, metric)}, %, over {shared}{_synthetic(conditions[name].synthetic)}, with 95 % intervals."
        charts.append(curves([CLEAN, *steps], lines, clean, series, caption))
        drawn |= set(steps.values())
    groups = (
        {CLEAN_IMAGES: {name: values[metric] for name, values in result.clean_restored.items()}}
        if result.clean
        else {}
    )
    for name, condition in conditions.items():
        if name not in drawn:
            groups[named(condition)] = {NOTHING: condition.degraded[metric]} | {
                one: v[metric] for one, v in condition.restored.items()
            }
    caption = f"{called(result, metric)}, %, by what stands in front of {result.recogniser}, with 95 % intervals."
    return (
        [forest(groups, clean, series, caption), *charts]
        if groups.keys() - {CLEAN_IMAGES}
        else charts
    )


def _synthetic(synthetic: bool) -> str:
    return " (synthetic)" if synthetic else ""


def series_of(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Names that differ in one number only, three or more -> by what they share, each one's name by its number, in order.

    >>> series_of(["haze:severity=5", "haze:severity=1", "haze:severity=3", "noise:sigma=50"])
    {'the severity of haze': {'1': 'haze:severity=1', '3': 'haze:severity=3', '5': 'haze:severity=5'}}
    """
    alike: dict[tuple[str, str, str], dict[str, str]] = {}
    for name in names:
        for match in NUMBER.finditer(name):
            alike.setdefault((match[1], name[: match.start()], name[match.end() :]), {})[
                match[2]
            ] = name
    series: dict[str, dict[str, str]] = {}
    taken: set[str] = set()
    for (parameter, before, after), steps in sorted(alike.items(), key=lambda item: -len(item[1])):
        if len(steps) >= 3 and not taken & set(steps.values()):
            rest = f"{before}{after}".replace(":,", ":").rstrip(":,")
            series[f"the {parameter} of {rest}"] = dict(
                sorted(steps.items(), key=lambda item: float(item[0]))
            )
            taken |= set(steps.values())
    return series


def _fairly(cases: Sequence[Case], most: int) -> list[Case]:
    """At most so many, those won first; of every condition and restorer as many as of the others while there are."""
    groups: dict[tuple[bool, str, str], list[Case]] = {}
    for case in cases:
        groups.setdefault((not case.won, case.condition, case.restorer), []).append(case)
    taken = [case for turn in zip_longest(*groups.values()) for case in turn if case is not None][
        :most
    ]
    places = {key: place for place, key in enumerate(groups)}
    return sorted(
        taken, key=lambda case: (not case.won, places[not case.won, case.condition, case.restorer])
    )


def _case(case: Case, task: str) -> ShownCase:
    where = "" if case.condition == AS_TAKEN else f"{case.condition}, "
    title = f"{'Won' if case.won else 'Lost'}: {where}{case.restorer} in front"
    caption = f"{case.name}; true: {case.truth}"
    marks = {"degraded": "bad" if case.won else "good", "restored": "good" if case.won else "bad"}
    titles = {"degraded": AS_TAKEN} if case.condition == AS_TAKEN else {}
    try:
        pictures = [
            plain_picture(
                titles.get(name, name),
                case.said.get(name, ""),
                image(),
                case.boxes.get(name, ()),
                marks.get(name, ""),
            )
            for name, image in case.pictures.items()
        ]
    except (
        Exception
    ) as error:  # a file that went away since: the figures stand, and the page shows what it can
        logger.debug("%s", case.name, exc_info=True)
        said = "; ".join(f"{name}: {text}" for name, text in case.said.items())
        return ShownCase(title, f"{caption} ({said}); no pictures: {first_line(error)}", [])
    return ShownCase(title, caption, pictures, small=task != "detection")
