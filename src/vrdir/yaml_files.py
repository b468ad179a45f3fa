"""YAML from strangers: what a few hundred bytes can stand for is counted before any of it is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vrdir.errors import first_line
from vrdir.text_files import read_text

MOST_BYTES, MOST_VALUES, DEEPEST, LONGEST = 2**20, 100_000, 32, 10_000


def read_yaml(path: Path) -> Any:
    """What a YAML file says, by the safe loader.

    Raises:
        ValueError: why not, in a line without the file's name: it is no YAML, no regular file, or holds more than a sensible one:
            a megabyte, 100 000 values with all aliases followed, 32 levels, a value of 10 000 characters.
        ModuleNotFoundError: PyYAML is not installed.
    """
    if not path.is_file():
        raise ValueError("it is no file")
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"it has {path.stat().st_size} bytes; at most {MOST_BYTES} are read")
    return parse_yaml(read_text(path))


def parse_yaml(content: str | bytes) -> Any:
    """What YAML says; see `read_yaml`. Raises ValueError, in one line."""
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _count(yaml.parse(content, loader))
        return yaml.load(content, loader)
    except Exception as error:  # of wrong values its constructors raise all sorts
        reason = (
            " ".join(str(error).split()) if isinstance(error, yaml.YAMLError) else first_line(error)
        )
        raise ValueError(reason) from None


def _count(events: Any) -> None:
    """Raise ValueError for too many values, with every alias counted as what it stands for, or too deep ones."""
    sizes: dict[str, int] = {}  # of what has been given a name
    open_ones: list[tuple[str | None, int]] = [
        (None, 0)
    ]  # name and size so far, of each collection around
    for event in events:
        kind, name, size = type(event).__name__, getattr(event, "anchor", None), 1
        if kind in ("SequenceStartEvent", "MappingStartEvent"):
            open_ones.append((name, 1))
            if len(open_ones) > DEEPEST:
                raise ValueError(f"it is nested in more than {DEEPEST} levels")
            sizes.pop(name or "", None)
            continue
        if kind in ("SequenceEndEvent", "MappingEndEvent"):
            name, size = open_ones.pop()
        elif kind == "AliasEvent":
            if name is None or name not in sizes:
                raise ValueError(f"*{name} stands for nothing before it, or holds itself")
            size, name = sizes[name], None
        elif kind != "ScalarEvent":
            continue
        elif len(event.value) > LONGEST:
            raise ValueError(
                f"a value of {len(event.value)} characters; at most {LONGEST} are read"
            )
        if name is not None:
            sizes[name] = size
        around, so_far = open_ones[-1]
        if so_far + size > MOST_VALUES:
            raise ValueError(f"it stands for more than {MOST_VALUES} values")
        open_ones[-1] = (around, so_far + size)
