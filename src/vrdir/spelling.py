"""What a mistyped name was meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping


def did_you_mean(name: str, known: Iterable[str], synonyms: Mapping[str, str] | None = None) -> str:
    """Return "; did you mean haze?", with the known names that are nearest to a name, or "" where none is near.

    Args:
        name: what was given.
        known: the names there are.
        synonyms: other words, in lower case, and the known name that each means.
    """
    lower, known = name.lower(), list(known)
    if name in known:
        return ""
    by_lower = {each.lower(): each for each in known}
    meant = (synonyms or {}).get(lower.replace("-", "_").replace(" ", "_"))
    near = (
        [meant]
        if meant
        else [by_lower[each] for each in difflib.get_close_matches(lower, by_lower, 3, 0.7)]
    )
    return f"; did you mean {' or '.join(near)}?" if near else ""
