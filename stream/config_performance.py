"""What an operator may configure on a model's performance: thresholds on its metrics, and online detectors of them."""

from __future__ import annotations

import math
from typing import Annotated, Self

from pydantic import Field, WithJsonSchema, model_validator

from detectors import REGISTRY
from detectors.performance.judged import COUNTED, NOT_JUDGED
from detectors.registry import Family, Reads
from detectors.verdict import BadSettings
from stream import window_series
from stream.config_detectors import PARAMETERS_MAX, LimitField, one_of
from stream.config_kafka import Name, Section
from stream.performance_detection import Chosen, PerformanceLimit, PerformanceWatcher
from stream.performance_plan import LABEL_METRICS, PROXY_TOPICS
from stream.performance_told import QUANTILE_LOSS
from stream.quantities import Duration, refusal
from stream.watchers import Watcher

JUDGED = tuple(name for name in (*PROXY_TOPICS, *LABEL_METRICS) if name not in NOT_JUDGED)
ONLINE = tuple(name for name, entry in REGISTRY.items() if entry.family is Family.ONLINE)
TYPES = (*JUDGED, *ONLINE)

Number = Annotated[float, Field(allow_inf_nan=False)]
TypeName = Annotated[str, one_of(TYPES), WithJsonSchema({"enum": list(TYPES)})]
MetricName = Annotated[str, one_of(JUDGED), WithJsonSchema({"enum": list(JUDGED)})]


class PerformanceDetector(Section):
    """A threshold on a metric, or an online detector on one: both page outside the promise of `false_alarms`."""

    type: TypeName = Field(description="a metric or proxy that is asked for, or an online detector")
    series: MetricName | None = Field(
        default=None,
        description="of an online detector: which metric it sees; those of errors see the rows of a share, in an order that is drawn",
    )
    horizons: tuple[Duration, ...] = Field(default=(), description="some of `horizons`; none = all")
    segments: tuple[Name, ...] = Field(default=(), description="`all`, or key=value of `segments`; none = all of them")
    quantiles: tuple[Number, ...] = Field(
        default=(), description="of quantile_loss: some of `performance.quantiles`; none = all"
    )
    threshold: LimitField | None = Field(
        default=None,
        description="pages above this: a number; 3 std: beyond the mean of the windows that were learnt, in windows of this size; or "
        "1 per 30d: where those would pass it by chance so often, over all series of the entry",
    )
    below: LimitField | None = Field(default=None, description="pages below this, given in the same ways")
    parameters: Annotated[dict[Name, int | float | str], Field(max_length=PARAMETERS_MAX)] = Field(
        default={}, description="of an online detector of the README's catalogue: instead of its defaults"
    )

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        if self.quantiles and self.metric != QUANTILE_LOSS:
            raise refusal("DL-C020", f"{self.metric} is of no quantile", f"no quantiles: those are of {QUANTILE_LOSS}")
        if self.type in ONLINE:
            self._watches()
            return self
        if self.series is not None:
            raise refusal("DL-C020", f"{self.type} is a metric itself", "no series; those are for online detectors")
        if self.parameters:
            raise refusal("DL-C020", f"{self.type} has no parameters", "no parameters")
        low, high = self.below, self.threshold
        if low is None and high is None:
            raise refusal("DL-C010", f"{self.type} has no limit", "threshold: the value above which it pages, or below")
        if isinstance(high, float) and isinstance(low, float) and low >= high:
            raise refusal("DL-C020", f"below {low:g} and above {high:g} is always", "below < threshold")
        if any(isinstance(each, float) and not math.isfinite(each) for each in (low, high)):
            raise refusal("DL-C014", f"a limit of {self.type} is not finite", "a finite number")
        return self

    def _watches(self) -> None:
        if self.series is None:
            raise refusal("DL-C010", f"{self.type} has no series", "series: the metric it sees, for instance accuracy")
        if self.threshold is not None or self.below is not None:
            raise refusal("DL-C020", f"{self.type} has its limits among its parameters", "no threshold and no below")
        if REGISTRY[self.type].reads is Reads.ERRORS and self.series not in COUNTED:
            shares = ", ".join(name for name in JUDGED if name in COUNTED)
            raise refusal("DL-C020", f"{self.type} reads errors, and {self.series} is no share of rows", shares)
        try:
            self._chosen()
        except BadSettings as error:
            raise refusal("DL-C014", str(error), "as the README's catalogue says") from None

    def _chosen(self) -> window_series.Parameters:
        return window_series.parameters_of(self.type, self.parameters) if self.parameters else ()

    @property
    def metric(self) -> str:
        return self.series or self.type

    def read(self) -> PerformanceLimit | PerformanceWatcher:
        """As the monitor uses it."""
        horizons = tuple(each.ms for each in self.horizons)
        chosen = Chosen(self.metric, horizons, self.segments, self.quantiles)
        if self.series is not None:
            return PerformanceWatcher(chosen, Watcher(self.type, self.series, (), self._chosen()))
        return PerformanceLimit(chosen, self.threshold, self.below)
