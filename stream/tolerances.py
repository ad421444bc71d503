"""Which tolerance is in force for each target of a reference, why, and what it costs: for people, before anything runs."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from detectors.reference import BlockEffects, ReferenceProfile, TargetReference, WindowInfo
from detectors.sequential.default_tables import DetectionSettings, Prepared, prepare, tolerances_of
from detectors.sequential.expected_delay import expected_events
from detectors.sequential.tolerance_auto import BLOCKS_MIN
from detectors.sequential.windows_auto import reserve
from stream.monitor_settings import ModelSettings
from stream.quantities import Duration

SHIFTS = (0.25, 0.5, 1.0)  # whose delays are told, in reference standard deviations


@dataclass(frozen=True, slots=True)
class Taken:
    """One target. least: as configured; auto: whether it may be widened; values, absent: in force (absent: of its missing and
    invalid values), would_be: with auto. events, events_least: until each of SHIFTS is found, as it is and at the least
    tolerance; inf = never.
    """

    name: str
    least: float
    auto: bool
    values: float
    absent: float
    would_be: float
    effects: BlockEffects | None
    events: tuple[float, ...]
    events_least: tuple[float, ...]

    @property
    def widened(self) -> bool:
        return max(self.values, self.absent) > self.least


def detection(
    settings: ModelSettings, target: TargetReference, windows: WindowInfo, budget_ms: float, cells: int
) -> DetectionSettings:
    """What the detector of one of `cells` targets is told."""
    tolerance, auto = settings.tolerance_of(target.name)
    return DetectionSettings(tolerance, budget_ms, cells, auto=auto, reserve=reserve(windows.auto, target.group))


def taken(settings: ModelSettings, profile: ReferenceProfile) -> tuple[Taken, ...]:
    """Of every target, in the order of the reference, which is complete. Cost: some ms a target."""
    cells = len(profile.targets)
    found = []
    for target in profile.targets:
        told = detection(settings, target, profile.windows, settings.inputs_budget_ms, cells)
        window_ms = max(profile.windows.every_ms, 1) * target.group
        prepared = prepare(target, told, profile.id)
        plain = prepare(target, replace(told, auto=False), profile.id)
        found.append(
            Taken(
                name=target.name,
                least=told.tolerance,
                auto=told.auto,
                values=prepared.tolerances.values,
                absent=prepared.tolerances.absent,
                would_be=max(tolerances_of(target, replace(told, auto=True))),
                effects=target.effects,
                events=_events(prepared, window_ms),
                events_least=_events(plain, window_ms),
            )
        )
    return tuple(found)


def _events(prepared: Prepared, window_ms: float) -> tuple[float, ...]:
    return tuple(expected_events(prepared, shift, window_ms) for shift in SHIFTS)


def why(taken: Taken, *, dependent: bool) -> str:
    """Why this tolerance, in words. `dependent`: its windows are known to depend on each other."""
    effects = taken.effects
    if effects is not None and max(effects.values, effects.absent) > 0.0:
        length, blocks = Duration(effects.length_ms), f"{effects.blocks} seen"
        parts = [("its values", effects.values), ("its missing or invalid values", effects.absent)]
        moved = " and ".join(f"{what} by {size:.2g}" for what, size in parts if size > 0.0)
        does = (
            f"blocks of {length} ({blocks}) move {moved}"
            if effects.values != effects.absent
            else (f"blocks of {length} ({blocks}) move its shares by {effects.values:.2g}")
        )
        if taken.widened:
            return f"{does}, without drift"
        if taken.would_be > taken.least:
            return f"as configured, although {does}; auto would take {taken.would_be:.2g}"
        return f"as configured, and it holds that {does}"
    if not dependent:
        return "as configured"
    if effects is None:
        return f"as configured, although its windows depend on each other: there are not {BLOCKS_MIN} blocks to tell how much"
    return f"as configured, although its windows depend on each other: blocks of {Duration(effects.length_ms)} do not differ"


def sentences(taken: Sequence[Taken], dependent: Collection[str]) -> list[str]:
    """For each target whose tolerance needs a word what it is, why, and what it costs; one sentence for all others."""
    found, usual = [], []
    for each in taken:
        reason = why(each, dependent=each.name in dependent)
        if reason == "as configured":
            usual.append(each)
            continue
        figure = f"{each.values:.2g}" + (
            f" (missing and invalid values {each.absent:.2g})" if each.absent != each.values else ""
        )
        instead = f" instead of {each.least:.2g}" if each.widened else ""
        before = f" instead of {_shown(each.events_least)}" if each.events != each.events_least else ""
        found.append(
            f"{each.name}: tolerance {figure}{instead}, {reason}; found after {_shown(each.events)} events{before}"
        )
    if usual:
        numbers = sorted({f"{each.values:.2g}" for each in usual})
        slowest = tuple(max(each.events[i] for each in usual) for i in range(len(SHIFTS)))
        who = "all targets" if len(usual) == len(taken) else f"the other {len(usual)} targets"
        found.append(
            f"{who}: tolerance {' or '.join(numbers)}, as configured; found after {_shown(slowest)} events at most"
        )
    shifts = " / ".join(f"{shift:g}" for shift in SHIFTS)
    return [
        f"tolerances in reference standard deviations, and about when a lasting shift by {shifts} of them is found:",
        *found,
    ]


def _shown(events: Sequence[float]) -> str:
    return " / ".join("never" if math.isinf(each) else f"{each:,.0f}" for each in events)


def as_json(taken: Taken, *, dependent: bool) -> dict[str, Any]:
    """The same for programs; null = never."""
    delays = [
        {"shift": shift, "events": _finite(now), "events_at_least_tolerance": _finite(least)}
        for shift, now, least in zip(SHIFTS, taken.events, taken.events_least, strict=True)
    ]
    return {
        "values": taken.values,
        "missing_and_invalid": taken.absent,
        "least": taken.least,
        "auto": taken.auto,
        "block_effects": None if taken.effects is None else asdict(taken.effects),
        "because": why(taken, dependent=dependent),
        "delays": delays,
    }


def _finite(events: float) -> float | None:
    return None if math.isinf(events) else events
