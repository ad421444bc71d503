"""What an operator says of metrics that need more than their name, and the series that come of it. Pure.

A *series* is a metric with what was said of it: quantile_loss is one for each quantile (`quantile_loss_0.9`), every other metric
is the one of its own name. Nothing here changes what collectors keep.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from detectors.performance import Estimate, MetricSettings, PerformanceSums, measure

QUANTILE_LOSS = "quantile_loss"
_START = f"{QUANTILE_LOSS}_"


def metric_of(series: str) -> str:
    """One of METRICS."""
    return QUANTILE_LOSS if series.startswith(_START) else series


def quantile_of(series: str) -> float | None:
    """The quantile of one of quantile_loss."""
    return float(series.removeprefix(_START)) if series.startswith(_START) else None


@dataclass(frozen=True, slots=True)
class Told:
    """quantiles: of quantile_loss."""

    quantiles: tuple[float, ...] = ()

    def series(self, metric: str) -> tuple[str, ...]:
        """Those of one of METRICS; () = it needs what was not said."""
        if metric == QUANTILE_LOSS:
            return tuple(f"{_START}{quantile!r}" for quantile in self.quantiles)
        return (metric,)

    def settings(self, series: str) -> MetricSettings:
        """What the metric is told."""
        quantile = quantile_of(series)
        return MetricSettings() if quantile is None else MetricSettings(quantile=quantile)

    def measure(self, series: str, sums: PerformanceSums) -> Estimate:
        """As detectors.performance.measure."""
        return measure(metric_of(series), sums, self.settings(series))

    def beside(self, series: str) -> dict[str, Any]:
        """What a record or an alert of the series says beside its metric."""
        quantile = quantile_of(series)
        return {} if quantile is None else {"quantile": quantile}


NOTHING = Told()
