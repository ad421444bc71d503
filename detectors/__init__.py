"""Pure statistics: no I/O, no clock, no logging, no Kafka.

Every detector is one file and one line here. A "sequential" one judges windows and remembers (prepare, start, update,
describe, state_to_sections, state_from_sections); a "distance" is a function of the bins of one window and its reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType


@dataclass(frozen=True, slots=True)
class Entry:
    """What there is under a name. `promise`: its alarms are inside the promise of `false_alarms`."""

    kind: str
    module: str
    promise: bool


REGISTRY: dict[str, Entry] = {
    "default": Entry("sequential", "detectors.sequential.default", promise=True),
    "psi": Entry("distance", "detectors.distance.psi", promise=False),
    "kolmogorov_smirnov": Entry("distance", "detectors.distance.kolmogorov_smirnov", promise=False),
    "jensen_shannon": Entry("distance", "detectors.distance.jensen_shannon", promise=False),
}


def load(name: str) -> ModuleType:
    """The module of a registered detector, imported when it is first asked for. Raises KeyError."""
    return import_module(REGISTRY[name].module)
