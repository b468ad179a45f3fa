"""A metric: one entry of a table from which reports, help and documentation are made.

The tables are `vrdir.evaluation.restoration.metrics.METRICS` and the `metrics` of each task in
`vrdir.evaluation.recognition.tasks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Measure = TypeVar("Measure", bound=Callable[..., Any])


@dataclass(frozen=True)
class Metric(Generic[Measure]):
    """A metric; higher values are better.

    Attributes:
        key: its name in JSON and CSV, such as "top1".
        label: its name in tables and sentences, such as "Top-1".
        digits: how many decimals tables show.
        definition: what exactly is computed, for reports and documentation.
        function: computes it. What it takes and returns depends on the table that it is in.
        unit: such as "dB" or "%"; empty for a plain number.
        in_summaries: whether narrow tables and captions have it, too.
    """

    key: str
    label: str
    digits: int
    definition: str
    function: Measure
    unit: str = ""
    in_summaries: bool = True

    @property
    def heading(self) -> str:
        """The label with the unit, such as "Top-1, %"."""
        return f"{self.label}, {self.unit}" if self.unit else self.label

    def shown(self, value: float | None, sign: str = "") -> str:
        """Return a value as tables show it; "-" for None.

        Args:
            value: the value.
            sign: "+" to show the sign of positive values, too.
        """
        return "-" if value is None else format(value, f"{sign}.{self.digits}f")


def documented(metrics: Iterable[Metric[Any]]) -> str:
    """Return metrics as the rows of a Markdown table, as the guides show them."""
    return "\n".join(f"| {metric.heading} | {metric.definition} |" for metric in metrics)
