"""Reading of YAML files from untrusted sources.

A few hundred bytes of YAML can expand to billions of values. So the values are counted before any
are built.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vrdir.errors import DataError, VrdirError, first_line, require
from vrdir.text_files import read_text

MOST_BYTES, MOST_VALUES, DEEPEST, LONGEST = 2**20, 100_000, 32, 10_000


def read_yaml(path: Path) -> Any:
    """Read a YAML file with the safe loader.

    Raises:
        DataError: it is not a regular file, not YAML, or larger than allowed: a megabyte, 100 000
            values with all aliases expanded, 32 levels, 10 000 characters in a value. The message
            is one line, without the file's name.
        MissingPackageError: PyYAML is not installed.
    """
    if not path.is_file():
        raise DataError("it is not a file")
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise DataError(f"it has {size} bytes; at most {MOST_BYTES} are read")
    return parse_yaml(read_text(path))


def parse_yaml(content: str | bytes) -> Any:
    """Parse YAML. Raises as `read_yaml`."""
    yaml = require("yaml", "train", "YAML files need PyYAML")
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_size(yaml.parse(content, loader))
        return yaml.load(content, loader)
    except VrdirError:
        raise
    except yaml.YAMLError as error:
        raise DataError(" ".join(str(error).split())) from None
    except Exception as error:  # its constructors raise many kinds for wrong values
        raise DataError(first_line(error)) from None


def _check_size(events: Any) -> None:
    """Raise DataError for too many values, or too deep or too long ones.

    An alias counts as many values as the collection that it repeats.

    Args:
        events: of PyYAML's parser.
    """
    sizes: dict[str, int] = {}  # the number of values of each anchor
    # The anchor and number of values so far, of each collection that is open.
    open_collections: list[tuple[str | None, int]] = [(None, 0)]
    for event in events:
        kind, name, size = type(event).__name__, getattr(event, "anchor", None), 1
        if kind in ("SequenceStartEvent", "MappingStartEvent"):
            open_collections.append((name, 1))
            if len(open_collections) > DEEPEST:
                raise DataError(f"it is nested in more than {DEEPEST} levels")
            sizes.pop(name or "", None)
            continue
        if kind in ("SequenceEndEvent", "MappingEndEvent"):
            name, size = open_collections.pop()
        elif kind == "AliasEvent":
            if name is None or name not in sizes:
                raise DataError(f"*{name} has no anchor before it, or is inside its own anchor")
            size, name = sizes[name], None
        elif kind != "ScalarEvent":
            continue
        elif len(event.value) > LONGEST:
            raise DataError(
                f"a value has {len(event.value)} characters; at most {LONGEST} are read"
            )
        if name is not None:
            sizes[name] = size
        outer, so_far = open_collections[-1]
        if so_far + size > MOST_VALUES:
            raise DataError(f"it expands to more than {MOST_VALUES} values")
        open_collections[-1] = (outer, so_far + size)
