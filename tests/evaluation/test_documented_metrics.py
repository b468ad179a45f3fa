"""The guides contain the metrics of the code."""

import runpy
from pathlib import Path

import pytest

from vrdir.evaluation.recognition.registry import find_task, task_names

ROOT = Path(__file__).parents[2]
TOOL = runpy.run_path(str(ROOT / "tools" / "document_metrics.py"), run_name="tool")


@pytest.mark.parametrize("path", TOOL["PAGES"], ids=lambda path: path.name)
def test_tables_of_metrics_are_up_to_date(path: Path) -> None:
    page = path.read_text()
    assert page == TOOL["with_tables"](page), "run: python tools/document_metrics.py"


def test_every_task_is_documented() -> None:
    guide = (ROOT / "docs" / "recognition.md").read_text()
    for name in task_names():
        assert f"<!-- metrics: {name} -->" in guide
        assert f"| {name} |" in guide  # in the table of data sets


@pytest.mark.parametrize("name", task_names())
def test_every_task_is_complete(name: str) -> None:
    task = find_task(name)
    assert task.name == name
    for text in (task.title, task.help, task.data_help, task.unit, task.limit_unit):
        assert text
    keys = [metric.key for metric in task.metrics]
    assert len(set(keys)) == len(keys) > 0
    assert all(metric.definition and metric.label for metric in task.metrics)
