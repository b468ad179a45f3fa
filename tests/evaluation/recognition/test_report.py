"""Verdicts, tables, files and pages: they agree with the figures."""

import base64
import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vrdir.evaluation.metric import Metric
from vrdir.evaluation.recognition.image_files import Exclusion
from vrdir.evaluation.recognition.report import MOST_EXAMPLES, MOST_EXCLUDED, as_page, series_of
from vrdir.evaluation.recognition.results import ConditionResult, Example, RecognitionResult
from vrdir.evaluation.recognition.statistics import Estimate
from vrdir.evaluation.recognition.tables import as_csv, as_json, rows_of
from vrdir.evaluation.recognition.verdict import outcome, outcomes, verdict
from vrdir.evaluation.report.pictures import boxed_picture

METRICS = [
    Metric("top1", "Top-1", 1, "share of right ones", len, unit="%"),
    Metric("top5", "Top-5", 1, "share of those among five", len, unit="%"),
]
BAD = "<b>&\"'"
CLEAN = 89.0


def near(value: float) -> Estimate:
    return Estimate(value, value - 4.5, value + 4)


def condition(
    name: str, degraded: float, p_value: float = 0.0004, synthetic: bool = True, **restored: float
) -> ConditionResult:
    """Return a result with top-1 as given, and top-5 five points above it."""
    lost = CLEAN - degraded
    shares = {
        one: Estimate(
            (value - degraded) / lost,
            (value - degraded) / lost - 0.2,
            (value - degraded) / lost + 0.1,
        )
        if lost > 0
        else None
        for one, value in restored.items()
    }
    return ConditionResult(
        name=name,
        synthetic=synthetic,
        degraded={"top1": near(degraded), "top5": near(degraded + 5)},
        restored={
            one: {"top1": near(value), "top5": near(value + 5)} for one, value in restored.items()
        },
        recovered={one: {"top1": share, "top5": None} for one, share in shares.items()},
        p_value={one: {"top1": p_value, "top5": 0.5} for one in restored},
    )


def result(
    conditions: Sequence[ConditionResult],
    examples: Sequence[Example] = (),
    excluded: Sequence[Exclusion] = (),
    **changes: Any,
) -> Any:
    restorers = list(conditions[0].restored)
    whole = RecognitionResult(
        task="classification",
        recogniser="some_net",
        facts={"licence": "MIT", "sha256": "0123456789abcdef"},
        metrics=METRICS,
        count=60,
        excluded=excluded,
        clean={"top1": near(CLEAN), "top5": near(95)},
        clean_restored={one: {"top1": near(CLEAN + 0.4), "top5": near(95)} for one in restorers},
        clean_p_value={one: {"top1": 0.62, "top5": 1.0} for one in restorers},
        conditions=conditions,
        title="classification",
        examples=examples,
    )
    return replace(whole, **changes)


def case(
    name: str,
    improved: bool = True,
    under: str = "haze:severity=3",
    size: tuple[int, int] = (30, 40),
    **changes: Any,
) -> Example:
    def picture(shade: float) -> Tensor:
        return torch.full((3, *size), shade)

    pictures = {
        "clean": lambda: picture(0.2),
        "degraded": lambda: picture(0.5),
        "restored": lambda: picture(0.8),
    }
    answers = {"clean": "cat 90 %", "degraded": "vase 20 %", "restored": "cat 70 %"}
    return replace(Example(name, under, "vrdir", improved, pictures, answers, "cat"), **changes)


HAZE = condition("haze:severity=3", 70.4, vrdir=86.6)


def test_verdict_on_one_condition() -> None:
    assert verdict(result([HAZE])) == (
        "vrdir in front of some_net, haze:severity=3 (synthetic): "
        "recovers 87 % (67 to 97) of the loss "
        "(Top-1 70.4 -> 86.6 %, clean 89.0 %, p < 0.001). "
        "On clean images it changes Top-1 by +0.4 points "
        "(89.0 -> 89.4 %, not significant, p = 0.62)."
    )


@pytest.mark.parametrize(
    ("degraded", "restored", "p_value", "said", "not_said"),
    [
        (
            70.0,
            74.0,
            0.2,
            "makes no significant difference (Top-1 70.0 -> 74.0 %",
            "recovers",
        ),
        (70.0, 74.0, 0.05, "makes no significant difference", "recovers"),
        (70.0, 74.0, float("nan"), "makes no significant difference", "recovers"),
        (70.0, 60.0, 0.001, "does harm: it loses 10.0 points (Top-1 70.0 -> 60.0 %", "recovers"),
        (70.0, 60.0, 0.3, "makes no significant difference", "harm"),
        (
            90.0,
            93.0,
            0.01,
            "gains 3.0 points (Top-1 90.0 -> 93.0 %",
            "recovers",
        ),  # nothing was lost
        (70.0, 80.0, 0.049, "recovers 53 %", "chance"),
    ],
)
def test_verdict_claims_no_more_than_the_figures(
    degraded: float, restored: float, p_value: float, said: str, not_said: str
) -> None:
    told = verdict(result([condition("fog", degraded, p_value, synthetic=False, vrdir=restored)]))
    assert said in told
    assert not_said not in told
    assert "synthetic" not in told


def test_verdict_reports_harm_to_clean_images() -> None:
    whole = result(
        [HAZE],
        clean_restored={"vrdir": {"top1": near(80), "top5": near(90)}},
        clean_p_value={"vrdir": {"top1": 0.01, "top5": 1.0}},
    )
    assert (
        "On clean images it changes Top-1 by -9.0 points (89.0 -> 80.0 %, p = 0.010)."
        in verdict(whole)
    )


def test_verdict_counts_several_conditions() -> None:
    whole = result(
        [
            HAZE,
            condition("noise:sigma=50", 40, vrdir=64.5),
            condition("rain", 80, 0.6, vrdir=79),
            condition("fog", 70, 0.02, False, vrdir=50),
        ],
        excluded=[Exclusion("a.png", "cannot be read")],
    )
    assert outcomes(whole, "vrdir") == {"helps": 2, "harms": 1, "neither": 1}
    assert [outcome(whole, one, "vrdir") for one in whole.conditions] == [
        "helps",
        "helps",
        "neither",
        "harms",
    ]
    told = verdict(whole)
    assert (
        "helps under 2 of 4 conditions, does harm under 1, makes no significant difference under 1."
        in told
    )
    assert "Where it helps, it recovers 50 to 87 % of the loss in Top-1." in told
    assert told.endswith("1 exclusion.")


def test_json_and_csv_contain_every_figure() -> None:
    whole = result(
        [HAZE, condition("fog", 70, float("nan"), False, vrdir=72)],
        [case("a")],
        [Exclusion("b,c.png", "no label")],
        facts={"limit": "the first 60 of 100 images by name"},
    )
    content = json.loads(json.dumps(as_json([whole], {"seed": 0}), allow_nan=False))
    assert content["seed"] == 0
    (found,) = content["results"]
    assert (found["images"], found["excluded"], found["exclusions"]) == (
        60,
        1,
        [{"name": "b,c.png", "reason": "no label"}],
    )
    assert found["clean"]["top1"] == {"value": 89.0, "low": 84.5, "high": 93.0}
    haze, fog = found["conditions"]
    assert (haze["synthetic"], fog["synthetic"]) == (True, False)
    assert haze["restored"]["vrdir"]["top1"]["value"] == 86.6
    assert haze["recovered"]["vrdir"]["top1"]["value"] == pytest.approx(16.2 / 18.6)
    assert fog["p_value"]["vrdir"]["top1"] is None
    assert found["cases"][0]["said"]["degraded"] == "vase 20 %"

    *figures, left_out = list(csv.DictReader(io.StringIO(as_csv([whole]))))
    assert len(figures) == len(rows_of(whole)) == 2 * (2 + 2 + 2)
    for line, row in zip(figures, rows_of(whole), strict=True):
        assert (line["condition"], line["in_front"], line["metric"]) == (
            row.condition,
            row.in_front,
            row.metric.key,
        )
        assert [float(line[edge]) for edge in ("value", "low", "high")] == pytest.approx(
            row.value, rel=1e-5
        )
        assert bool(line["recovered"]) == (row.recovered is not None)
        assert line["limit"] == "the first 60 of 100 images by name"
    assert (left_out["excluded"], left_out["reason"], left_out["value"]) == (
        "b,c.png",
        "no label",
        "",
    )


def test_page_agrees_with_the_figures_and_needs_no_network() -> None:
    html = as_page(
        [
            result(
                [HAZE, condition("fog", 70, 0.4, False, vrdir=72)],
                [case("a"), case("b", improved=False)],
            )
        ],
        {"vrdir": "1.2"},
    )
    table = cells(html)
    assert table[1:5] == [
        ["clean images"],
        ["nothing", "89.084.5 to 93.0", "", "", ""],
        ["vrdir", "89.484.9 to 93.4", "+0.4", "", "0.62"],
        ["haze:severity=3 (synthetic)"],
    ]
    assert table[6] == ["vrdir", "86.682.1 to 90.6", "+16.2", "87 %67 to 97", "< 0.001"]
    assert ["fog"] in table  # not called synthetic
    assert "<dt>Synthetic</dt>" in html
    assert html.index("Improved: ") < html.index("Worsened: ")
    assert html.count("<img ") == 6
    assert html.count('class="good"') == html.count('class="bad"') == 2
    assert "0123456789ab<" in html  # of the hash what fits
    assert not re.search(
        r"""(src|href)\s*=\s*["'](?!data:)|<script|<link|url\(|@import|https?://""", html
    )


def test_page_without_synthetic_images_does_not_mention_them() -> None:
    assert "ynthetic" not in as_page(
        [result([condition("fog", 70, synthetic=False, vrdir=80)])], {}
    )


def cells(html: str) -> list[list[str]]:
    """Return the cells of the first table, without tags."""
    rows = re.findall(
        r"<tr.*?</tr>", html[html.index("<table>") : html.index("</table>")], re.DOTALL
    )
    return [
        [
            re.sub(r"<[^>]*>", "", cell).replace("&lt;", "<")
            for cell in re.findall(r"<t[dh].*?</t[dh]>", row)
        ]
        for row in rows
    ]


def test_all_restorers_are_in_one_table_and_chart() -> None:
    html = as_page([result([condition("fog", 60, vrdir=80, peer=70)])], {})
    assert [row[0] for row in cells(html)[1:]] == [
        "clean images",
        "nothing",
        "vrdir",
        "peer",
        "fog (synthetic)",
        "nothing",
        "vrdir",
        "peer",
    ]
    assert set(re.findall(r'class="mark (s\d)"', html)) == {"s0", "s1", "s2"}
    assert "peer in front of some_net, fog (synthetic): recovers 34 %" in html.replace(
        "\u00a0", " "
    )


def test_all_text_of_a_result_is_escaped() -> None:
    bad = case(
        BAD,
        answers={"clean": BAD, "degraded": BAD, "restored": BAD},
        truth=BAD,
        restorer=BAD,
        condition=BAD,
    )
    whole = result(
        [condition(BAD, 60, 0.0004, True, **{BAD: 70.0})],
        [bad],
        [Exclusion(BAD, BAD)],
        recogniser=BAD,
        facts={BAD: BAD},
        metrics=[Metric(key, BAD, 1, BAD, len) for key in ("top1", "top5")],
    )
    html = as_page([whole, whole], {BAD: BAD})
    assert BAD not in html
    assert "<b>&" not in html
    assert html.count("&lt;b&gt;&amp;") > 30


def test_page_shows_few_examples_of_every_condition() -> None:
    names = [f"haze:severity={i}" for i in range(1, 6)]
    cases = [
        case(f"{name} {i} {won}", won, name)
        for name in names
        for won in (True, False)
        for i in range(20)
    ]
    html = as_page([result([condition(name, 60, vrdir=70) for name in names], cases)], {})
    assert html.count('class="case small"') == MOST_EXAMPLES
    for name in names:
        assert (
            6 <= html.count(f"<h3>Improved: {name}, ") + html.count(f"<h3>Worsened: {name}, ") <= 8
        )
    many = [Exclusion(f"{i}.png", "no label") for i in range(MOST_EXCLUDED + 7)]
    html = as_page([result([HAZE], excluded=many)], {})
    assert "and 7 more, named in the JSON and CSV results" in html
    assert f"{len(many)} exclusions." in verdict(result([HAZE], excluded=many))


def test_example_without_its_file_is_shown_as_text() -> None:
    def gone() -> Tensor:
        raise FileNotFoundError("a.png is gone")

    html = as_page([result([HAZE], [case("a", pictures={"clean": gone}), case("b")])], {})
    assert "no pictures: a.png is gone" in html
    assert "degraded: vase 20 %" in html
    assert html.count("<img ") == 3


def test_severities_are_drawn_as_a_curve_and_others_as_a_forest() -> None:
    conditions = [condition(f"haze:severity={i}", 80 - 5 * i, vrdir=85 - i) for i in (1, 3, 5)]
    html = as_page([result([*conditions, condition("noise:sigma=50", 40, vrdir=60)])], {})
    forest, curve = (
        figure for figure in re.findall(r'<figure class="plot chart">.*?</figure>', html, re.DOTALL)
    )
    assert "the severity of haze (synthetic)" in curve
    assert curve.count('class="mark') == 2 * 4  # clean, and three severities
    assert re.findall(r'class="middle".*?>([^<]+)<', curve) == ["clean", "1", "3", "5"]
    assert "noise:sigma=50 (synthetic)" in forest
    assert "haze" not in forest
    assert as_page([result(conditions)], {}).count('class="plot chart"') == 1


def test_series_of_conditions_that_differ_in_one_number() -> None:
    assert series_of(
        ["haze:severity=5", "haze:severity=1", "haze:severity=3", "noise:sigma=50", "noise:sigma=9"]
    ) == {
        "the severity of haze": {
            "1": "haze:severity=1",
            "3": "haze:severity=3",
            "5": "haze:severity=5",
        }
    }
    mixed = [f"haze:beta={beta},warmth=0.1+noise:sigma=25" for beta in (10, 2.5, 0.5)]
    ((shared, steps),) = series_of(mixed).items()
    assert shared == "the beta of haze:warmth=0.1+noise:sigma=25"
    assert list(steps) == ["0.5", "2.5", "10"]
    assert series_of(["fog1", "fog2", "fog3"]) == {}


def opened(uri: str) -> np.ndarray[Any, Any]:
    return np.asarray(
        Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("L")
    ).astype(int)


def test_boxes_are_drawn_and_labelled() -> None:
    grey = torch.full((3, 300, 960), 0.5)  # shown at half its size
    shown = opened(boxed_picture("", "", grey, [(200, 100, 600, 280, "cat 90 %")]).whole)
    assert shown.shape == (150, 480)
    changed = abs(shown - 128) > 60
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    assert (columns[0], columns[-1], rows[-1]) == pytest.approx((100, 300, 140), abs=2)
    assert 20 < rows[0] < 48  # the text is above the box
    assert not changed[60:130, 110:290].any()  # nothing inside
    twice = opened(
        boxed_picture(
            "", "", grey, [(200, 100, 600, 280, "cat 90 %"), (200, 100, 600, 280, "dog 80 %")]
        ).whole
    )
    assert (abs(twice - 128) > 60)[53:60, 105:140].any()  # the second text is at another place
    assert (twice[:48] == shown[:48]).mean() > 0.99
    for boxes in (
        [(-20, -20, 5000, 5000, "x" * 300)],
        [(0, 0, 0.1, 0.1, "")],
        [(50, 50, 20, 20, "twisted")],
        [(9, 9, 99, 99, "")] * 9,
    ):
        assert opened(boxed_picture("", "", grey, boxes).whole).shape == (150, 480)


def test_examples_of_detection_show_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Mapping[str, Any]] = []

    def spy(title: str, caption: str, image: Tensor, boxes: Sequence[Any], mark: str) -> Any:
        drawn.append({"title": title, "boxes": boxes, "mark": mark})
        return boxed_picture(title, caption, image, boxes, mark)

    monkeypatch.setattr("vrdir.evaluation.recognition.report.boxed_picture", spy)
    boxes = {"clean": [(1.0, 2.0, 20.0, 25.0, "cat 90 %")]}
    html = as_page(
        [result([HAZE], [case("a", boxes=boxes, improved=False)], large_pictures=True)], {}
    )
    assert [one["boxes"] for one in drawn] == [boxes["clean"], (), ()]
    assert [one["mark"] for one in drawn] == ["", "good", "bad"]
    assert '<div class="case">' in html  # as wide as the page
