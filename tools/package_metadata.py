"""Give the built package a readme whose links work on a package index, and the project's addresses.

In the repository the README's links are relative, so that they work in any copy of it. On a package
index they must be absolute. The address of the repository is not written down anywhere: it is read
from `VRDIR_ADDRESS`, or on GitHub Actions from the variables that GitHub sets. A package that is
built without either has the unchanged readme, and no addresses.

hatchling runs this for every build; pyproject.toml names it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

ROOT = Path(__file__).resolve().parents[1]


def address_of(environment: Mapping[str, str]) -> str | None:
    """Return the repository's address, such as "https://github.com/owner/vrdir", if it is known."""
    if given := environment.get("VRDIR_ADDRESS"):
        return given.rstrip("/")
    if environment.get("GITHUB_ACTIONS") == "true":
        return f"{environment['GITHUB_SERVER_URL']}/{environment['GITHUB_REPOSITORY']}"
    return None


def with_absolute_links(readme: str, address: str, tag: str) -> str:
    """Return a readme whose relative links and images are addresses.

    Args:
        readme: Markdown.
        address: the repository's address.
        tag: the tag or branch that the links lead to.
    """

    def absolute(match: re.Match[str]) -> str:
        start, target = match[1], match[2]
        if target.startswith("../../"):  # GitHub's own pages: badges, issues
            return f"{start}({address}/{target.removeprefix('../../')})"
        kind = "raw" if start.startswith("!") else "blob"
        return f"{start}({address}/{kind}/{tag}/{target})"

    return re.sub(r"(!\[[^\[\]]*\]|\])\((?!https?:|#|mailto:)([^()\s]+)\)", absolute, readme)


def version() -> str:
    """Return the package's version."""
    text = (ROOT / "src/vrdir/__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    assert found is not None
    return found[1]


class PackageMetadata(MetadataHookInterface):
    """The hook that hatchling calls."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Fill in the dynamic fields `readme` and `urls`."""
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        address = address_of(os.environ)
        metadata["urls"] = {}
        if address:
            tag = f"v{version()}"
            readme = with_absolute_links(readme, address, tag)
            metadata["urls"] = {
                "Source": address,
                "Documentation": f"{address}/blob/{tag}/docs/index.md",
                "Changelog": f"{address}/blob/{tag}/CHANGELOG.md",
                "Issues": f"{address}/issues",
            }
        metadata["readme"] = {"content-type": "text/markdown", "text": readme}
