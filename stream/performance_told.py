"""What an operator says of metrics that need more than their name, and the series that come of it. Pure.

A *series* is a metric with what was said of it: quantile_loss is one for each quantile (`quantile_loss_0.9`), every other metric
is the one of its own name. Nothing here changes what collectors keep.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash

from detectors.performance import Estimate, MetricSettings, PerformanceSums, measure

QUANTILE_LOSS, BUSINESS_VALUE = "quantile_loss", "business_value"
_START = f"{QUANTILE_LOSS}_"


def metric_of(series: str) -> str:
    """One of METRICS."""
    return QUANTILE_LOSS if series.startswith(_START) else series


def quantile_of(series: str) -> float | None:
    """The quantile of one of quantile_loss."""
    return float(series.removeprefix(_START)) if series.startswith(_START) else None


@dataclass(frozen=True, slots=True)
class Told:
    """quantiles: of quantile_loss. worth, worth_unit: of business_value, by place of label and prediction; () = none."""

    quantiles: tuple[float, ...] = ()
    worth: tuple[tuple[float, ...], ...] = ()
    worth_unit: str = ""

    def series(self, metric: str) -> tuple[str, ...]:
        """Those of one of METRICS; () = it needs what was not said."""
        if metric == QUANTILE_LOSS:
            return tuple(f"{_START}{quantile!r}" for quantile in self.quantiles)
        return () if metric == BUSINESS_VALUE and not self.worth else (metric,)

    def settings(self, series: str) -> MetricSettings:
        """What the metric is told."""
        quantile = quantile_of(series)
        if quantile is not None:
            return MetricSettings(quantile=quantile)
        if series == BUSINESS_VALUE:
            return MetricSettings(value=np.array(self.worth, np.float64))
        return MetricSettings()

    def meaning(self, series: str) -> str:
        """Equal texts: numbers of one series that may be compared; empty: always."""
        return f"{self.worth} {self.worth_unit}" if series == BUSINESS_VALUE else ""

    def stored(self, series: str) -> str:
        """The name under which a reference keeps it: another one, where it would mean another thing."""
        meaning = self.meaning(series)
        return f"{series}#{xxhash.xxh3_64_hexdigest(meaning.encode())}" if meaning else series

    def unit(self, series: str) -> str:
        """As the operator has it; "" = none was told."""
        return self.worth_unit if series == BUSINESS_VALUE else ""

    def measure(self, series: str, sums: PerformanceSums) -> Estimate:
        """As detectors.performance.measure."""
        return measure(metric_of(series), sums, self.settings(series))

    def beside(self, series: str) -> dict[str, Any]:
        """What a record or an alert of the series says beside its metric."""
        quantile, unit = quantile_of(series), self.unit(series)
        return ({} if quantile is None else {"quantile": quantile}) | ({"unit": unit} if unit else {})


NOTHING = Told()
