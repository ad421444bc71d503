"""Names that a person takes for one and a program for two: other case, other composition of accents, blanks, invisible marks. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

INVISIBLE = {"Cf", "Cc", "Zs", "Zl", "Zp"}
"""Unicode categories of format and control characters and of blanks."""


def skeleton(name: str) -> str:
    """What is left of a name for the eye."""
    seen = "".join(ch for ch in name if unicodedata.category(ch) not in INVISIBLE)
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", seen).casefold())


def look_alikes(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of different names with one skeleton, each sorted; the groups by their first names."""
    groups: dict[str, set[str]] = {}
    for name in names:
        groups.setdefault(skeleton(name), set()).add(name)
    return sorted(tuple(sorted(group)) for group in groups.values() if len(group) > 1)
