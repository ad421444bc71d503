"""What a reference makes of an operator's limits, for `check-reference`. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detectors.reference import ReferenceProfile
from stream.monitor_settings import MonitorSettings
from stream.reference_limits import ReferenceLimits
from stream.window_series import FromReference, Threshold, named

COLUMNS = ["limit", "target", "as configured", "windows of", "mean ± std of the reference's", "pages"]


@dataclass(frozen=True, slots=True)
class LimitRow:
    """One threshold on one target in windows of `events`; `limits`: side -> value, {} where the reference makes none."""

    series: str
    target: str
    configured: Mapping[str, str]
    events: int
    mean: float | None
    std: float | None
    limits: Mapping[str, float]

    @property
    def cells(self) -> list[str]:
        """As a row under COLUMNS."""
        configured = " · ".join(f"{side} {text}" for side, text in self.configured.items())
        if self.mean is None or self.std is None:
            return [self.series, self.target, configured, f"{self.events:,}", "", "never: too few windows with a value"]
        pages = " · ".join(f"{side} {value:.4g}" for side, value in self.limits.items())
        return [self.series, self.target, configured, f"{self.events:,}", f"{self.mean:.4g} ± {self.std:.2g}", pages]

    @property
    def as_json(self) -> dict[str, Any]:
        return {
            "series": self.series,
            "target": self.target,
            "configured": dict(self.configured),
            "events": self.events,
            "mean": self.mean,
            "std": self.std,
            "limits": dict(self.limits),
        }


def limit_rows(settings: MonitorSettings, profile: ReferenceProfile) -> list[LimitRow]:
    """Of every threshold that the reference makes, in windows of its smallest, median and largest size and the usual length."""
    thresholds = settings.model(profile.model).thresholds
    limits = ReferenceLimits(profile, thresholds)
    every_ms = settings.lengths(profile.model, profile.windows).every_ms
    rows = []
    for threshold in thresholds:
        for target in profile.targets:
            if target.name in named([threshold], [target.name]):
                sizes = sorted({profile.windows.size_min, target.size_median // target.group, profile.windows.size_max})
                rows += [_row(limits, threshold, target.name, size, every_ms) for size in sizes]
    return rows


def _row(limits: ReferenceLimits, threshold: Threshold, target: str, events: int, every_ms: int) -> LimitRow:
    spread = limits.spread(threshold, target, events)
    sides = limits.of(threshold, target, events, every_ms)
    found = {"above": sides.above, "below": sides.below}
    made = {"above": threshold.above, "below": threshold.below}
    return LimitRow(
        series=threshold.series,
        target=target,
        configured={side: str(limit) for side, limit in made.items() if limit is not None},
        events=events,
        mean=None if spread is None else spread.mean,
        std=None if spread is None else spread.std,
        limits={} if spread is None else {side: value for side, value in found.items() if value is not None},
    )


def sentences(rows: Sequence[LimitRow], thresholds: Sequence[Threshold]) -> list[str]:
    """What is to be known of the rows: where none can be made, and that nothing is promised."""
    said = ["limits that the reference makes page outside the promise of `false_alarms`"]
    rates = [each for each in thresholds for side in (each.above, each.below) if _is_rate(side)]
    if rates:
        said.append(
            "a rate is what windows like the reference's do, if what exceeds the largest tenth of them is exponential; heavier tails "
            "(mean, std, max of heavy-tailed values) pass it more often, some 2 to 6 times"
        )
    none = sorted({row.target for row in rows if row.mean is None})
    if none:
        said.append(f"no limit for {', '.join(none)}: too few of the reference's windows have a value")
    return said


def _is_rate(limit: object) -> bool:
    return isinstance(limit, FromReference) and limit.period_ms is not None
