"""Write the tables of metrics in docs/evaluation.md and docs/recognition.md from the code.

python tools/document_metrics.py

A table is between the lines `<!-- metrics: NAME -->` and `<!-- end of metrics -->`; NAME is
"restoration" or a recognition task.
"""

from __future__ import annotations

import re
from pathlib import Path

from vrdir.evaluation.metric import documented
from vrdir.evaluation.recognition.registry import find_task
from vrdir.evaluation.restoration.metrics import METRICS

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [DOCS / "evaluation.md", DOCS / "recognition.md"]
TABLE = re.compile(r"(<!-- metrics: (\w+) -->\n).*?(<!-- end of metrics -->)", re.DOTALL)
HEAD = "\n| Metric | Definition |\n|---|---|\n"


def with_tables(page: str) -> str:
    """Return a page's text with new tables."""

    def table(match: re.Match[str]) -> str:
        name = match[2]
        metrics = METRICS if name == "restoration" else find_task(name).metrics
        return f"{match[1]}{HEAD}{documented(metrics)}\n\n{match[3]}"

    return TABLE.sub(table, page)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(with_tables(path.read_text()))
