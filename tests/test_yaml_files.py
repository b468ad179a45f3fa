"""YAML that expands to far more than its length, and values that PyYAML cannot construct."""

import time
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")

from vrdir.yaml_files import MOST_BYTES, parse_yaml, read_yaml  # noqa: E402

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)
MERGES = "a0: &a0 {k0: 1, l0: 2}\n" + "".join(
    f"a{n}: &a{n}\n  <<: [{', '.join([f'*a{n - 1}'] * 10)}]\n  k{n}: 1\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (LAUGHS, "expands to more than 100000 values"),
        (MERGES, "expands to more than 100000 values"),
        ("[" * 20_000, "nested in more than 32 levels|maximum nesting depth"),  # newer libyaml
        ("[" * 20_000 + "]" * 20_000, "nested in more than 32 levels|maximum nesting depth"),
        ("{a: " * 20_000 + "1" + "}" * 20_000, "nested in more than 32 levels"),
        ("- " * 20_000 + "x", "nested in more than 32 levels"),
        ("\n".join(" " * n + f"k{n}:" for n in range(500)), "nested in more than 32 levels"),
        ("[" + "x, " * 110_000 + "]", "expands to more than 100000 values"),
        ("a: &a [*a]", "inside its own anchor"),
        ("a: &a {b: *a}", "inside its own anchor"),
        ("a: *nothing", "nothing"),
        ("9" * 50_000, "a value has 50000 characters"),
        ("1" + ":10" * 20_000, "a value has 60001 characters"),
        ("9" * 5_000, "limit"),
        ("2001-99-99", "month"),
        ("!!timestamp never", "."),
        ("!!int ''", "."),
        ("!!bool maybe", "."),
        ('"\\U00ffffff"', "."),
        ("!!python/object/apply:os.system [true]", "constructor"),
        ("[", "expected"),
        ("{[a]: 1, {b: 2}: 3}", "unhashable"),
        ("\x00", "."),
    ],
    ids=lambda value: value[:12],
)
def test_unreasonable_yaml_is_rejected_quickly(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "a.yaml").write_text(content)
    start = time.process_time()
    ways: list[tuple[Any, Any]] = [(parse_yaml, content), (read_yaml, tmp_path / "a.yaml")]
    for read, given in ways:
        with pytest.raises(ValueError, match=reason) as caught:
            read(given)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500
    assert time.process_time() - start < 5


def test_large_yaml_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.yaml").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(ValueError, match=r"it has 1048577 bytes; at most 1048576 are read"):
        read_yaml(tmp_path / "a.yaml")
    with pytest.raises(ValueError, match="it is not a file"):
        read_yaml(tmp_path)


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ("", None),
        ("a: &a {b: [1, 2.5, true, null, x]}\nc: *a\nd: {<<: *a, e: 1e-3}", None),
        ("names: [" + ", ".join(f"class {n}" for n in range(21_000)) + "]", None),
        ("é: ü", {"é": "ü"}),
        ("1\n...\n", 1),
    ],
    ids=lambda value: str(value)[:12],
)
def test_reasonable_yaml_is_read_like_the_safe_loader(content: str, value: object) -> None:
    assert parse_yaml(content) == yaml.safe_load(content)
    assert value is None or parse_yaml(content) == value
    assert parse_yaml(content.encode("utf-8-sig")) == parse_yaml(content)
    assert parse_yaml(content.encode("utf-16")) == parse_yaml(content)
