"""Which tolerance is in force for each target of a reference, why, and what it costs: for people, before anything runs."""

from __future__ import annotations

from dataclasses import dataclass

from detectors.reference import BlockEffects, ReferenceProfile
from detectors.sequential.default_tables import DetectionSettings, Prepared, prepare
from detectors.sequential.expected_delay import expected_events
from stream.monitor_settings import ModelSettings

SHIFTS = (0.25, 0.5, 1.0)  # whose delays are told, in reference standard deviations


@dataclass(frozen=True, slots=True)
class Taken:
    """One target. least: as configured; auto: whether it may be widened; values, absent: in force (absent: of its missing and
    invalid values). events, events_least: until each of SHIFTS is found, as it is and at the least tolerance; inf = never.
    """

    name: str
    least: float
    auto: bool
    values: float
    absent: float
    effects: BlockEffects | None
    events: tuple[float, ...]
    events_least: tuple[float, ...]

    @property
    def widened(self) -> bool:
        return max(self.values, self.absent) > self.least


def detection(settings: ModelSettings, target: str, budget_ms: float, cells: int) -> DetectionSettings:
    """What the detector of one of `cells` targets is told."""
    tolerance, auto = settings.tolerance_of(target)
    return DetectionSettings(tolerance, budget_ms, cells, auto=auto)


def taken(settings: ModelSettings, profile: ReferenceProfile) -> tuple[Taken, ...]:
    """Of every target, in the order of the reference, which is complete. Cost: a ms a target."""
    cells = len(profile.targets)
    found = []
    for target in profile.targets:
        told = detection(settings, target.name, settings.budget_ms, cells)
        window_ms = max(profile.windows.every_ms, 1) * target.group
        prepared = prepare(target, told, profile.id)
        plain = prepare(target, DetectionSettings(told.tolerance, told.budget_ms, cells), profile.id)
        found.append(
            Taken(
                name=target.name,
                least=told.tolerance,
                auto=told.auto,
                values=prepared.tolerances.values,
                absent=prepared.tolerances.absent,
                effects=target.effects,
                events=_events(prepared, window_ms),
                events_least=_events(plain, window_ms),
            )
        )
    return tuple(found)


def _events(prepared: Prepared, window_ms: float) -> tuple[float, ...]:
    return tuple(expected_events(prepared, shift, window_ms) for shift in SHIFTS)
