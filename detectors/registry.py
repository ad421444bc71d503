"""How a registered detector describes itself: its line in `detectors.REGISTRY`, its `Parameters` and its docstring.

A module's docstring opens with what it is and has the sections Guarantee, Cost and Source; `card` reads them, and what
is missing is a BadEntry. Tables, schemas and the tests over everything that is registered are made of cards.
"""

# ruff: noqa: N818 - the error is named after what is wrong

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from types import ModuleType
from typing import Any

from detectors.parameters import Base, described, schema

SECTIONS = ("Guarantee", "Cost", "Source")
_OTHER_SECTIONS = ("Input", "Output", "State", "Refuses", "Differs", "Parameters", "Reads")
_HEAD = re.compile(rf"(?:^|\n|[ ]{{2,}})({'|'.join((*SECTIONS, *_OTHER_SECTIONS))})(?::[ ]|[ ]{{2,}})")


class BadEntry(Exception):
    """A registered module lacks what its family must have."""


class Family(StrEnum):
    """What a detector is, and so which functions its module has.

    sequential   judges windows and remembers: prepare, start, update, describe, state_to_sections, state_from_sections
    distance     one number for one window, 0 = as the reference: prepare(reference, parameters) -> measure(window) -> F64[t]
    test         a statistic of one window and its p-value: prepare(reference, parameters) -> measure(window) -> Outcome
    online       one number after the other: start, update, state_to_sections, state_from_sections (`detectors.online`)
    multivariate  one number for a window, of all numeric features together: prepare, width, sample_rows, add, measure
                 (`detectors.multivariate`)
    """

    SEQUENTIAL = "sequential"
    DISTANCE = "distance"
    TEST = "test"
    ONLINE = "online"
    MULTIVARIATE = "multivariate"


class Reads(StrEnum):
    """What of a window a detector looks at; one of the family online looks at any series."""

    BINS = "all bins"  # missing, invalid and categories included
    ORDERED = "ordered bins"  # of numeric targets, without missing and invalid: others have no value
    POSITIONS = "ordered bins and their cuts"
    NUMBERS = "numbers"
    ERRORS = "errors: 0 or 1"
    ROW_SUMS = "sums over rows of numeric features"
    ROW_SAMPLE = "a sample of rows of numeric features"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the registry. `promise`: its alarms are inside the promise of `false_alarms`; `always`: it runs, and stands in
    every windows record, without being configured; `parameters`: the dataclass of them in its module.
    """

    family: Family
    module: str
    reads: Reads = Reads.BINS
    promise: bool = False
    always: bool = False
    parameters: str = "Parameters"


@dataclass(frozen=True, slots=True)
class Card:
    """Everything that there is to say about one detector."""

    name: str
    entry: Entry
    title: str
    guarantee: str
    cost: str
    source: str
    parameters: type[Any]

    def schema(self) -> dict[str, Any]:
        """JSON Schema of its parameters. BadEntry if they are configured elsewhere."""
        if not issubclass(self.parameters, Base):
            raise BadEntry(f"{self.name}: {self.parameters.__name__} is not made of detectors.parameters")
        return schema(self.parameters)

    def settings(self) -> str:
        """Its parameters for people; empty if it has none or they are configured elsewhere."""
        return described(self.parameters) if issubclass(self.parameters, Base) else ""


def sections(docstring: str) -> dict[str, str]:
    """The named parts of a module's docstring, each on one line; "" = what stands before the first of them."""
    first, *rest = _HEAD.split(docstring)
    found = {"": first}
    found.update(zip(rest[::2], rest[1::2], strict=True))
    # a part ends at an empty line, or where the next begins
    return {name: " ".join(text.split("\n\n")[0].split()) for name, text in found.items()}


def card(name: str, entry: Entry, module: ModuleType) -> Card:
    """Raises BadEntry for a docstring without Guarantee, Cost or Source, or a module without its parameters."""
    parts = sections(module.__doc__ or "")
    for section in SECTIONS:
        if not parts.get(section):
            raise BadEntry(f"{name}: the docstring of {entry.module} has no {section}")
    if not hasattr(module, entry.parameters):
        raise BadEntry(f"{name}: {entry.module} has no {entry.parameters}")
    return Card(
        name=name,
        entry=entry,
        title=re.sub(r" \[\d\]", "", parts[""]),
        guarantee=parts["Guarantee"],
        cost=parts["Cost"],
        source=parts["Source"],
        parameters=getattr(module, entry.parameters),
    )
