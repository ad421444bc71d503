"""What an operator says of metrics that need more than their name, and the series that come of it. Pure.

A *series* is a metric with what was said of it: quantile_loss is one for each quantile (`quantile_loss_0.9`), every other metric
is the one of its own name. Nothing here changes what collectors keep.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash

from detectors.performance import METRICS, Direction, Estimate, MetricSettings, PerformanceSums, measure

QUANTILE_LOSS, BUSINESS_VALUE = "quantile_loss", "business_value"
KPI, KPI_TO_TARGET = "kpi", "kpi_to_target"
_START = f"{QUANTILE_LOSS}_"


def metric_of(series: str) -> str:
    """One of METRICS."""
    return QUANTILE_LOSS if series.startswith(_START) else series


def quantile_of(series: str) -> float | None:
    """The quantile of one of quantile_loss."""
    return float(series.removeprefix(_START)) if series.startswith(_START) else None


@dataclass(frozen=True, slots=True)
class ToldKpi:
    """What conversions' values are to the business. `lower_is_better`: says only whether a change is for the worse."""

    name: str
    target: float | None = None
    per_conversion: bool = False
    lower_is_better: bool = False
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """quantiles: of quantile_loss. worth, worth_unit: of business_value, by place of label and prediction; () = none."""

    quantiles: tuple[float, ...] = ()
    worth: tuple[tuple[float, ...], ...] = ()
    worth_unit: str = ""
    kpi: ToldKpi | None = None

    def series(self, metric: str) -> tuple[str, ...]:
        """Those of one of METRICS; () = it needs what was not said."""
        if metric == QUANTILE_LOSS:
            return tuple(f"{_START}{quantile!r}" for quantile in self.quantiles)
        return () if self._lacks(metric) else (metric,)

    def _lacks(self, metric: str) -> bool:
        if metric == KPI_TO_TARGET:
            return self.kpi is None or self.kpi.target is None
        return (metric == BUSINESS_VALUE and not self.worth) or (metric == KPI and self.kpi is None)

    def _kpi(self, series: str) -> ToldKpi | None:
        return self.kpi if series in {KPI, KPI_TO_TARGET} else None

    def settings(self, series: str) -> MetricSettings:
        """What the metric is told."""
        quantile = quantile_of(series)
        if quantile is not None:
            return MetricSettings(quantile=quantile)
        if series == BUSINESS_VALUE:
            return MetricSettings(value=np.array(self.worth, np.float64))
        kpi = self._kpi(series)
        return MetricSettings() if kpi is None else MetricSettings(target=kpi.target, per_conversion=kpi.per_conversion)

    def meaning(self, series: str) -> str:
        """Equal texts: numbers of one series that may be compared; empty: always."""
        if series == BUSINESS_VALUE:
            return f"{self.worth} {self.worth_unit}"
        kpi = self._kpi(series)
        if kpi is None:
            return ""
        target = kpi.target if series == KPI_TO_TARGET else None
        return f"{kpi.name} {kpi.per_conversion} {target} {kpi.unit}"

    def direction(self, series: str) -> Direction:
        """Which way is better."""
        kpi = self._kpi(series)
        return Direction.LOWER if kpi is not None and kpi.lower_is_better else METRICS[metric_of(series)].direction

    def stored(self, series: str) -> str:
        """The name under which a reference keeps it: another one, where it would mean another thing."""
        meaning = self.meaning(series)
        return f"{series}#{xxhash.xxh3_64_hexdigest(meaning.encode())}" if meaning else series

    def unit(self, series: str) -> str:
        """As the operator has it; "" = none was told."""
        kpi = self._kpi(series)
        return self.worth_unit if series == BUSINESS_VALUE else kpi.unit if kpi is not None else ""

    def measure(self, series: str, sums: PerformanceSums) -> Estimate:
        """As detectors.performance.measure."""
        return measure(metric_of(series), sums, self.settings(series))

    def named(self, series: str) -> str:
        """As people call it, after the name of its metric."""
        kpi = self._kpi(series)
        return series if kpi is None else f"{series} {kpi.name}"

    def beside(self, series: str) -> dict[str, Any]:
        """What a record or an alert of the series says beside its metric."""
        quantile, kpi = quantile_of(series), self._kpi(series)
        said = {"quantile": quantile, "unit": self.unit(series) or None}
        if kpi is not None:
            said |= {"kpi": kpi.name, "target_value": kpi.target}
        return {name: each for name, each in said.items() if each is not None}


NOTHING = Told()
