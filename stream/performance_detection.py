"""How a model's performance is judged: what is learnt, operators' limits, online detectors. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from detectors.sequential.rank_alone import LEAST_ROWS
from stream.performance_told import metric_of, quantile_of
from stream.watchers import Watcher
from stream.window_series import FromReference, Limit


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which series an operator means: of `metric`; no horizons, no segments, no quantiles = all."""

    metric: str
    horizons_ms: tuple[int, ...] = ()
    segments: tuple[str, ...] = ()
    quantiles: tuple[float, ...] = ()

    def means(self, series: str, horizon_ms: int, segment: str) -> bool:
        return (
            metric_of(series) == self.metric
            and (not self.quantiles or quantile_of(series) in self.quantiles)
            and (not self.horizons_ms or horizon_ms in self.horizons_ms)
            and (not self.segments or segment in self.segments)
        )

    @property
    def deciding(self) -> list[Any]:
        own = [list(self.horizons_ms), list(self.segments)]
        return [*own, list(self.quantiles)] if self.quantiles else own


@dataclass(frozen=True, slots=True)
class PerformanceLimit:
    """Pages where the metric is above `above` or below `below`, as far as they are set."""

    chosen: Chosen
    above: Limit | None
    below: Limit | None = None

    @property
    def deciding(self) -> list[Any]:
        above, below = (each.deciding if isinstance(each, FromReference) else each for each in (self.above, self.below))
        return [self.chosen.metric, above, below, *self.chosen.deciding]


@dataclass(frozen=True, slots=True)
class PerformanceWatcher:
    """An online detector on the metric's values, or on the errors that it counts."""

    chosen: Chosen
    watcher: Watcher

    @property
    def deciding(self) -> list[Any]:
        return [*self.watcher.deciding, *self.chosen.deciding]


@dataclass(frozen=True, slots=True)
class PerformanceDetection:
    """How one model's performance is judged. learning: first windows of each series, which are learnt from and not judged by the
    default detector; tolerance: standard deviations of one row; least_rows: a window with fewer is added to the next one.
    """

    learning: int = 200
    tolerance: float = 0.0
    least_rows: int = LEAST_ROWS
    limits: tuple[PerformanceLimit, ...] = ()
    watchers: tuple[PerformanceWatcher, ...] = ()

    @property
    def deciding(self) -> list[Any]:
        """What of it decides about alarms, as JSON values."""
        limits, watchers = [each.deciding for each in self.limits], [each.deciding for each in self.watchers]
        return [self.learning, self.tolerance, self.least_rows, limits, watchers]
