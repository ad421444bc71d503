"""Which tolerance is in force for each target of a reference, why, and what it costs: for people, before anything runs."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.reference import BlockEffects, ReferenceProfile, TargetReference, WindowInfo
from detectors.sequential.default_tables import DetectionSettings, Prepared, prepare, tolerances_of
from detectors.sequential.expected_delay import Delay, Past, can_shift, expected_delay
from detectors.sequential.tolerance_auto import BLOCKS_MIN
from detectors.sequential.windows_auto import reserve
from stream.monitor_settings import ModelSettings
from stream.quantities import Duration

I64 = NDArray[np.int64]

SHIFTS = (0.25, 0.5, 1.0)  # whose delays are told, in reference standard deviations
ONE_VALUE = "the reference has one value alone, so there is no deviation to shift by"


@dataclass(frozen=True, slots=True)
class Taken:
    """One target. least: as configured; auto: whether it may be widened; values, absent: in force (absent: of its missing and
    invalid values), would_be: with auto. delays, delays_least: until each of SHIFTS is found, as it is and at the least
    tolerance; none where the reference has one value alone, or its windows are not given.
    """

    name: str
    least: float
    auto: bool
    values: float
    absent: float
    would_be: float
    effects: BlockEffects | None
    delays: tuple[Delay, ...] = ()
    delays_least: tuple[Delay, ...] = ()

    @property
    def widened(self) -> bool:
        return max(self.values, self.absent) > self.least


def detection(
    settings: ModelSettings, target: TargetReference, windows: WindowInfo, budget_ms: float, cells: int
) -> DetectionSettings:
    """What the detector of one of `cells` targets is told."""
    tolerance, auto = settings.tolerance_of(target.name)
    return DetectionSettings(tolerance, budget_ms, cells, auto=auto, reserve=reserve(windows.auto, target.group))


def taken(
    settings: ModelSettings,
    profile: ReferenceProfile,
    windows: Sequence[I64] | None = None,
    start_ms: I64 | None = None,
) -> tuple[Taken, ...]:
    """Of every target, in the order of the reference, which is complete. windows: counts I64[m, b + 2] of each target's list
    windows and start_ms I64[m], as `build_with_windows` gives them; without them no delays are told. Cost: some ms a target, with
    delays what expected_delay.py says.
    """
    cells = len(profile.targets)
    found = []
    for place, target in enumerate(profile.targets):
        told = detection(settings, target, profile.windows, settings.inputs_budget_ms, cells)
        prepared = prepare(target, told, profile.id)
        one = Taken(
            name=target.name,
            least=told.tolerance,
            auto=told.auto,
            values=prepared.tolerances.values,
            absent=prepared.tolerances.absent,
            would_be=max(tolerances_of(target, replace(told, auto=True))),
            effects=target.effects,
        )
        if windows is not None and can_shift(prepared):
            past = Past.of(windows[place], start_ms, profile.windows)
            now = _delays(prepared, past)
            least = _delays(prepare(target, replace(told, auto=False), profile.id), past) if one.widened else now
            one = replace(one, delays=now, delays_least=least)
        found.append(one)
    return tuple(found)


def _delays(prepared: Prepared, past: Past) -> tuple[Delay, ...]:
    """From the largest shift on: where one is not found, no smaller one is looked for."""
    found: list[Delay] = []
    for shift in reversed(SHIFTS):
        in_vain = bool(found) and math.isinf(found[-1].events)
        found.append(found[-1] if in_vain else expected_delay(prepared, past, shift))
    return tuple(reversed(found))


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
        before = f" instead of {_shown(each.delays_least)}" if each.delays != each.delays_least else ""
        after = f"found after {_shown(each.delays)} events{before}" if each.delays else ONE_VALUE
        found.append(f"{each.name}: tolerance {figure}{instead}, {reason}; {after}")
    if usual:
        numbers = sorted({f"{each.values:.2g}" for each in usual})
        who = "all targets" if len(usual) == len(taken) else f"the other {len(usual)} targets"
        found.append(f"{who}: tolerance {' or '.join(numbers)}, as configured; {_usual_delays(usual)}")
    shifts = " / ".join(f"{shift:g}" for shift in SHIFTS)
    told = f"when a lasting shift by {shifts} of them is found (simulated on the reference's windows):"
    return [f"tolerances in reference standard deviations, and {told}", *found]


def _usual_delays(usual: Sequence[Taken]) -> str:
    """The fastest and the slowest of them; those of one value are named."""
    shifting = [each for each in usual if each.delays]
    if not shifting:
        return ONE_VALUE
    ends = [sorted((each.delays[i] for each in shifting), key=_order) for i in range(len(SHIFTS))]
    first, last = tuple(each[0] for each in ends), tuple(each[-1] for each in ends)
    text = f"found after {_shown(first)} events"
    if first != last:
        slowest = max(shifting, key=lambda each: _order(each.delays[0]))
        text = f"found after {_between(first, last)} events ({slowest.name} last)"
    still = [each.name for each in usual if not each.delays]
    return f"{text}; {', '.join(still)}: {ONE_VALUE}" if still else text


def _order(delay: Delay) -> tuple[float, float]:
    """Sooner is less; what the tolerance holds is last."""
    return delay.events, delay.looked_at or math.inf


def _shown(delays: Sequence[Delay]) -> str:
    return " / ".join(_delay_shown(each) for each in delays)


def _between(first: Sequence[Delay], last: Sequence[Delay]) -> str:
    texts = [(_delay_shown(low), _delay_shown(high)) for low, high in zip(first, last, strict=True)]
    return " / ".join(low if low == high else f"{low} to {high}" for low, high in texts)


def _delay_shown(delay: Delay) -> str:
    if math.isfinite(delay.events):
        return f"{delay.events:,.0f}"
    return f"over {delay.looked_at:,}" if delay.looked_at else "never"


def as_json(taken: Taken, *, dependent: bool) -> dict[str, Any]:
    """The same for programs; events null = not found in so many as were looked at; of which 0 = the tolerance holds the shift."""
    delays = [
        {
            "shift": shift,
            "events": _finite(now.events),
            "looked_at": now.looked_at,
            "events_at_least_tolerance": _finite(least.events),
        }
        for shift, now, least in zip(SHIFTS, taken.delays, taken.delays_least, strict=False)
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
