"""Which strata the targets of a reference have, by the clock or by size, and why: for people, before anything runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detectors.reference import ReferenceProfile, TargetReference
from detectors.sequential.strata import (
    CARRIED_SHARE,
    CYCLES_MIN,
    HOURS,
    WINDOWS_MIN,
    Season,
    carries,
    hours_of,
    within_hours,
)

I64 = NDArray[np.int64]

WORDS = {Season.HOUR_OF_DAY: "hour of the day", Season.HOUR_OF_WEEK: "hour of the week"}
NAMES_SHOWN = 5


def season_reason(profile: ReferenceProfile, start_ms: I64 | None, wanted: str) -> str:
    """One sentence. start_ms I64[m]: of the reference's windows, None without time."""
    asked = Season(wanted)
    if asked is Season.NONE:
        return "; ".join(["season none, as configured: windows of all hours are ranked together", *_sizes(profile)])
    if start_ms is None:
        return f"season {wanted}: rows without time have no hours"
    return f"season {wanted}: " + "; ".join([*_taken(profile), *_sizes(profile), *_left(profile, start_ms, asked)])


def _named(targets: Sequence[TargetReference]) -> str:
    names = ", ".join(target.name for target in targets[:NAMES_SHOWN])
    return names + (f" and {len(targets) - NAMES_SHOWN} more" if len(targets) > NAMES_SHOWN else "")


def _sizes(profile: ReferenceProfile) -> list[str]:
    """Of the targets that are ranked by the size of their windows; one clause for all that have the same bounds."""
    found: dict[tuple[int, ...], list[TargetReference]] = {}
    for target in profile.targets:
        if target.strata is not None and not target.strata.by_clock:
            found.setdefault(tuple(target.strata.bounds.tolist()), []).append(target)
    return [
        f"windows of {_named(targets)} are ranked among those of about their size, for sizes come in runs "
        f"({targets[0].size_min:,} to {targets[0].size_max:,} events, in {len(bounds) + 1} strata that begin at "
        f"{', '.join(f'{size:,}' for size in (targets[0].size_min, *bounds))})"
        for bounds, targets in found.items()
    ]


def _taken(profile: ReferenceProfile) -> list[str]:
    found = []
    for season, words in WORDS.items():
        targets = [t for t in profile.targets if t.strata is not None and t.strata.by == season]
        if not targets:
            continue
        few = max(int((t.strata.windows < WINDOWS_MIN).sum()) for t in targets if t.strata is not None)
        unjudged = f"; up to {few} hours with fewer than {WINDOWS_MIN} windows are not judged" if few else ""
        found.append(f"windows of {_named(targets)} are ranked within their {words} (UTC){unjudged}")
    return found


def _left(profile: ReferenceProfile, start_ms: I64, asked: Season) -> list[str]:
    """Why the others have none, and why hours of the week were out of reach."""
    left = [target for target in profile.targets if target.strata is None or not target.strata.by_clock]
    length_ms, pane_ms = profile.windows.every_ms, max(profile.windows.resolution_ms, 1)
    start_ms = start_ms[within_hours(start_ms, start_ms // pane_ms * pane_ms + length_ms)]
    if asked is not Season.AUTO:
        needs = f"no hour has {WINDOWS_MIN} windows, or windows are longer than half an hour"
        return [f"{len(left)} targets have no hours: {needs}"] if left else []
    carried = [season for season in WORDS if carries(season, start_ms, length_ms)]
    found = []
    if left and carried:
        found.append(f"windows of {len(left)} of {len(profile.targets)} targets do not differ between the hours")
    for season, words in WORDS.items():
        if season not in carried:
            usual = int(np.median(np.bincount(hours_of(season, start_ms), minlength=HOURS[season])))
            days = (int(start_ms[-1]) - int(start_ms[0])) / 86_400_000 if len(start_ms) else 0.0
            found.append(
                f"its windows cannot be told by {words}: {WINDOWS_MIN} windows an hour (for {CARRIED_SHARE:.0%} of the windows) in "
                f"{CYCLES_MIN * HOURS[season] // 24} days, none longer than half an hour, are needed; it has {usual} in {days:.0f} days"
            )
    return found
