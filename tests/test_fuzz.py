"""Damaged files of all kinds raise only the package's own errors (see benchmarks/fuzz.py)."""

import pytest

for package in ("av", "yaml"):
    pytest.importorskip(package)

from benchmarks.fuzz import SHARES, cases, run  # noqa: E402

# Cases of seed 0 that have failed before.
FOUND = [("videos", number) for number in (215, 278, 649, 919, 980, 1057, 1172)]
OWN_ERRORS_ONLY = tuple(SHARES)


def test_damaged_files_raise_only_own_errors() -> None:
    counts, failures = run(list(cases(200, list(SHARES))), seed=1)
    assert sum(counts.values()) >= 195
    assert all(counts[kind, "refused"] for kind in OWN_ERRORS_ONLY)
    assert [line for line in failures if ": bare: " not in line] == []
    assert [line for line in failures if line.startswith(OWN_ERRORS_ONLY)] == []


def test_previously_failing_cases() -> None:
    assert run(FOUND, seed=0)[1] == []
