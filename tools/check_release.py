"""Check that a release's tag, version, changelog and citation agree.

    python tools/check_release.py v0.2.0

Between releases the version ends in ".dev0" and the changelog's first heading in "(unreleased)".
Needs nothing but Python. Ends with status 1 and names each file that differs.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLACES = {
    "src/vrdir/__init__.py": r'^__version__ = "(.+)"$',
    "CHANGELOG.md": r"^## (\S+(?: \(unreleased\))?)",
    "CITATION.cff": r"^version: (.+)$",
}
"""Each file that names the version, and the first line that does."""


def versions(root: Path) -> dict[str, str]:
    """Return the version that each file names; "none" where it names none."""
    found = {}
    for name, pattern in PLACES.items():
        match = re.search(pattern, (root / name).read_text(encoding="utf-8"), re.MULTILINE)
        found[name] = match[1].strip() if match else "none"
    return found


def problems(tag: str, root: Path) -> list[str]:
    """Return a line for each file whose version is not the tag's."""
    version = tag.removeprefix("v")
    return [f"{name}: {found}" for name, found in versions(root).items() if found != version]


def main() -> None:
    """Print what differs, if anything."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tag", help='the tag, "v" and the version')
    given = parser.parse_args()
    if wrong := problems(given.tag, ROOT):
        raise SystemExit("\n".join([f"these differ from {given.tag}:", *wrong]))
    print(f"{given.tag}: version, changelog and citation agree")


if __name__ == "__main__":
    main()
