"""What can be wrong with a configuration: one table of codes, the problem with its place, and how it is printed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

ERROR_CODES: dict[str, str] = {
    "DL-C001": "the file cannot be read",
    "DL-C002": "the file is too large",
    "DL-C003": "the file is not UTF-8 text",
    "DL-C004": "the file is not YAML",
    "DL-C005": "a key stands twice in one mapping, or an anchor in one file",
    "DL-C006": "a YAML tag or merge key that is not read here",
    "DL-C007": "too deep, or too many aliases",
    "DL-C008": "a key that is not text",
    "DL-C009": "nothing in the file, or more than one document",
    "DL-C010": "a key is missing",
    "DL-C011": "a value of the wrong type",
    "DL-C012": "an unknown key",
    "DL-C013": "a value that is none of the known ones",
    "DL-C014": "a value outside its limits",
    "DL-C015": "a duration, rate or size that cannot be read",
    "DL-C016": "a secret that is not there",
    "DL-C017": "a secret written into the file (warning)",
    "DL-C020": "settings that contradict each other",
    "DL-C021": "one topic in two roles",
    "DL-C022": "a window that is no multiple of the resolution",
    "DL-C023": "a name that the reference does not have",
    "DL-C024": "a file that is not there",
    "DL-C025": "more memory than memory_budget",
    "DL-C026": "a mapping that cannot be followed",
    "DL-C027": "a topic that is not there, or not as it must be",
    "DL-C028": "more waits for feedback than may",
}
"""Codes are released names: they are never reused for something else."""

NAMES_SHOWN = 30


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where (line and column count from 1, 0 = no place), what was read, what was expected."""

    code: str
    path: str
    read: str
    expected: str = ""
    file: str = ""
    line: int = 0
    column: int = 0
    severity: Severity = Severity.ERROR

    def __post_init__(self) -> None:
        assert self.code in ERROR_CODES, self.code

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    def render(self) -> str:
        """Two lines: the place, path and what was read; under the path what was expected, and the code."""
        indent = f"{self.place}  " if self.place else ""
        mark = "warning: " if self.severity is Severity.WARNING else ""
        first = f"{indent}{mark}{self.path}: {self.read}" if self.path else f"{indent}{mark}{self.read}"
        second = " " * len(indent) + (f"{self.expected}  " if self.expected else "")
        return f"{first}\n{second}[{self.code}]"

    def as_json(self) -> dict[str, str | int]:
        return {
            "code": self.code,
            "severity": self.severity.value,
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "path": self.path,
            "read": self.read,
            "expected": self.expected,
        }


class ConfigError(Exception):
    """The configuration cannot be used; `problems` has everything that is wrong with it, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.line, problem.column, problem.path)))
        super().__init__("\n".join(problem.render() for problem in self.problems))


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` most likely means, None when none is close."""
    known = list(known)
    folded = {candidate.lower().replace("-", "_"): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower().replace("-", "_"), folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else None


def unknown_name(name: str, known: Iterable[str]) -> str:
    """What to say under an unknown name: the nearest one, and what is known here."""
    names = sorted(known)
    guess = nearest(name, names)
    shown = ", ".join(names[:NAMES_SHOWN]) + (
        f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    )
    return (f"did you mean `{guess}`?  " if guess else "") + f"Known here: {shown or 'nothing'}"
