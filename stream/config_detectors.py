"""What an operator may configure of the catalogue: thresholds on window series, and online detectors of them."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from detectors import REGISTRY
from detectors.registry import Family, Reads
from detectors.verdict import BadSettings
from stream import window_series
from stream.config_errors import unknown_name
from stream.config_kafka import Name, Section
from stream.quantities import refusal, shown
from stream.watchers import Watcher

PARAMETERS_MAX = 10
Number = Annotated[float, Field(allow_inf_nan=False)]


ONLINE = tuple(
    name for name, entry in REGISTRY.items() if entry.family is Family.ONLINE and entry.reads is Reads.NUMBERS
)
TYPES = (*window_series.NAMES, *ONLINE)


def _one_of(names: tuple[str, ...]) -> BeforeValidator:
    def check(value: Any) -> Any:
        if isinstance(value, str) and value not in names:
            raise refusal("DL-C013", f"{shown(value)} is not known", unknown_name(value, names))
        return value

    return BeforeValidator(check)


TypeName = Annotated[str, _one_of(TYPES), WithJsonSchema({"enum": list(TYPES)})]
SeriesName = Annotated[str, _one_of(window_series.NAMES), WithJsonSchema({"enum": list(window_series.NAMES)})]


class Detector(Section):
    """A threshold on a window series, or an online detector on one: both page outside the promise of `false_alarms`."""

    type: TypeName = Field(
        description="a statistic of the windows records, a distance, a test, whose number is p, or an online detector"
    )
    series: SeriesName | None = Field(default=None, description="of an online detector: which numbers it sees")
    targets: tuple[Name, ...] = Field(default=(), description="names of targets; none = all")
    threshold: Number | None = Field(default=None, description="pages above this")
    below: Number | None = Field(default=None, description="pages below this; of a test: where p is below it")
    parameters: Annotated[dict[Name, int | float | str], Field(max_length=PARAMETERS_MAX)] = Field(
        default={}, description="of a detector of the README's catalogue: instead of its defaults"
    )

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        if self.type in ONLINE:
            self._watches()
        else:
            self._limits()
        if self.parameters and self.type not in REGISTRY:
            raise refusal("DL-C020", f"{self.type} has no parameters", "no parameters")
        try:
            self._chosen()
        except BadSettings as error:
            raise refusal("DL-C014", str(error), "as the README's catalogue says") from None
        return self

    def _watches(self) -> None:
        if self.series is None:
            raise refusal("DL-C010", f"{self.type} has no series", "series: the numbers it sees, for instance mean")
        if self.threshold is not None or self.below is not None:
            raise refusal("DL-C020", f"{self.type} has its limits among its parameters", "no threshold and no below")

    def _limits(self) -> None:
        family = REGISTRY[self.type].family if self.type in REGISTRY else None
        low, high = self.below, self.threshold
        if self.series is not None:
            raise refusal("DL-C020", f"{self.type} is a series itself", "no series; those are for online detectors")
        if low is None and high is None:
            wanted = "threshold: the value above which it pages"
            if family is Family.TEST:
                wanted = "below: the p at which it pages"
            raise refusal("DL-C010", f"{self.type} has no limit", wanted)
        if family is Family.TEST and (high is not None or not 0 < (low or 0) < 1):
            raise refusal("DL-C020", f"{self.type} pages where p is small", "below, between 0 and 1, and no threshold")
        if family is Family.DISTANCE and (low is not None or not (high or 0) > 0):
            raise refusal("DL-C020", f"{self.type} pages where it is large", "threshold, above 0, and no below")
        if high is not None and low is not None and low >= high:
            raise refusal("DL-C020", f"below {low:g} and above {high:g} is always", "below < threshold")

    def _chosen(self) -> window_series.Parameters:
        return window_series.parameters_of(self.type, self.parameters) if self.parameters else ()

    def read(self) -> window_series.Threshold | Watcher:
        """As the monitor uses it."""
        if self.series is not None:
            return Watcher(self.type, self.series, self.targets, self._chosen())
        return window_series.Threshold(self.type, self.threshold, self.below, self.targets, self._chosen())
