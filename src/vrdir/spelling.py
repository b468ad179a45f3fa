"""Suggestions for mistyped names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping


def did_you_mean(name: str, known: Iterable[str], synonyms: Mapping[str, str] | None = None) -> str:
    """Return "; did you mean haze?" with the known names closest to a name; "" if none is close.

    Args:
        name: the name that was given.
        known: the names that exist.
        synonyms: the known name that each other word, in lower case, means.
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
