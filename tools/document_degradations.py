"""Write the tables of docs/degradations.md from the declarations of the degradations.

python tools/document_degradations.py
"""

from __future__ import annotations

from pathlib import Path

from vrdir.degradations.parameters import shown
from vrdir.degradations.registry import DEGRADATIONS

PAGE = Path(__file__).parents[1] / "docs" / "degradations.md"
BEGIN = "<!-- tables: python tools/document_degradations.py writes them -->\n"
END = "<!-- end of the tables -->\n"


def tables() -> str:
    """Return the tables: formulas, parameters and severities."""
    formulas = [
        f"| `{name}` | {one.summary.partition(':')[0].rstrip('.')} | {one.formula} "
        f"| {one.source or '-'} |\n"
        for name, one in DEGRADATIONS.items()
    ]
    parameters = [
        f"| `{name}` | `{key}` | {shown(parameter.default)} | {parameter.unit or '-'} "
        f"| {parameter.allowed} | {parameter.about} |\n"
        for name, one in DEGRADATIONS.items()
        for key, parameter in one.parameters.items()
    ]
    severities = [
        f"| `{name}` | `{key}` | {' | '.join(map(shown, values))} |\n"
        for name, one in DEGRADATIONS.items()
        for key, values in one.severities.items()
    ]
    return "".join(
        [
            "| Name | What it does | Formula | Source |\n|---|---|---|---|\n",
            *formulas,
            "\n### Parameters\n\n",
            "| Name | Parameter | Default | Unit | Allowed | Meaning |\n",
            "|---|---|---|---|---|---|\n",
            *parameters,
            "\n### Severities\n\n",
            "Severity 1 is barely visible (except at night); at severity 5 a recogniser mostly "
            "fails. This is the\naim: severities were chosen by eye, as in ImageNet-C, without "
            "running a recogniser. A parameter that\nis not in the table keeps its default.\n\n",
            "| Name | Parameter | 1 | 2 | 3 | 4 | 5 |\n|---|---|---|---|---|---|---|\n",
            *severities,
        ]
    )


def page(text: str) -> str:
    """Return the page's text with new tables."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{tables()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
