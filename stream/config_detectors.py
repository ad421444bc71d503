"""What an operator may configure of the catalogue: thresholds on window series, and online detectors of them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema, model_validator

from detectors import REGISTRY
from detectors.multivariate import reads_arrays
from detectors.registry import Family, Reads
from detectors.verdict import BadSettings
from stream import window_series
from stream.config_errors import unknown_name
from stream.config_kafka import Name, Section
from stream.quantities import Rate, refusal, shown
from stream.watchers import Watcher

PARAMETERS_MAX = 10
DEVIATIONS_MAX = 1000.0
_DEVIATIONS = re.compile(r"(\d{1,9}(?:\.\d{1,9})?) +std")
LIMIT_MEANING = 'a number, "3 std" or "1 per 30d"'
NOT_KEPT = (window_series.DISTINCT, window_series.VOLUME)  # series of which a reference keeps nothing

ONLINE = tuple(
    name for name, entry in REGISTRY.items() if entry.family is Family.ONLINE and entry.reads is Reads.NUMBERS
)
ROWS = window_series.ROWS
SERIES = (*window_series.NAMES, window_series.VOLUME, *ROWS)
TYPES = (*SERIES, *ONLINE)
_OF_ERRORS = (
    "performance: {detectors: [...]} of the model, with `series: accuracy` or another share: it sees right and wrong"
)
MEANT = {"median": "p50"} | {
    name: _OF_ERRORS
    for name, entry in REGISTRY.items()
    if entry.family is Family.ONLINE and entry.reads is Reads.ERRORS
}


def one_of(names: tuple[str, ...], meant: Mapping[str, str] | None = None) -> BeforeValidator:
    """`meant`: what is probably wanted by a name that is none of them."""
    hints = meant or {}

    def check(value: Any) -> Any:
        if isinstance(value, str) and value not in names:
            expected = hints[value] if value in hints else unknown_name(value, names)
            raise refusal("DL-C013", f"{shown(value)} is not known", expected)
        return value

    return BeforeValidator(check)


def _limit(value: Any) -> window_series.Limit:
    """A number, or what the reference is to make it of. Raises coded errors."""
    if isinstance(value, window_series.FromReference):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise refusal("DL-C014", f"{shown(value)} is not finite", LIMIT_MEANING)
        return float(value)
    if not isinstance(value, str):
        raise refusal("DL-C011", f"{shown(value)} is no limit", LIMIT_MEANING)
    if " per " in value:
        rate = Rate.parse(value)
        return window_series.FromReference(period_ms=rate.budget_ms, text=str(rate))
    match = _DEVIATIONS.fullmatch(value)
    if match is None:
        raise refusal("DL-C011", f"{shown(value)} is no limit", LIMIT_MEANING)
    deviations = float(match[1])
    if not 0 < deviations <= DEVIATIONS_MAX:
        raise refusal("DL-C014", f"{value} is out of range", f"more than 0 and at most {DEVIATIONS_MAX:g} std")
    return window_series.FromReference(deviations=deviations, text=f"{deviations:g} std")


def _limit_text(value: window_series.Limit | None) -> Any:
    return value.text if isinstance(value, window_series.FromReference) else value


LimitField = Annotated[
    window_series.Limit,
    PlainValidator(_limit),
    PlainSerializer(_limit_text),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number"},
                {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? +std$", "examples": ["3 std"]},
                {"type": "string", "pattern": f"^{Rate.pattern}$", "examples": ["1 per 30d"]},
            ]
        }
    ),
]
TypeName = Annotated[str, one_of(TYPES, MEANT), WithJsonSchema({"enum": list(TYPES)})]
SeriesName = Annotated[str, one_of(SERIES, MEANT), WithJsonSchema({"enum": list(SERIES)})]


def _between(limit: window_series.Limit | None, low: float, high: float) -> bool:
    return isinstance(limit, window_series.FromReference) or (limit is not None and low < limit < high)


class Detector(Section):
    """A threshold on a window series, or an online detector on one: both page outside the promise of `false_alarms`."""

    type: TypeName = Field(
        description="a statistic of the windows records, a distance, a test, whose number is p, a multivariate detector, or an "
        "online one"
    )
    series: SeriesName | None = Field(default=None, description="of an online detector: which numbers it sees")
    targets: tuple[Name, ...] = Field(
        default=(),
        description="names of targets; none = all. Of mmd_random_features: one target with a `dimension`, whose arrays it is "
        "about; none = all numeric features together",
    )
    threshold: LimitField | None = Field(
        default=None,
        description="pages above this: a number; 3 std: beyond the mean of the reference's windows of the same size; or 1 per 30d: "
        "where those windows would pass it by chance so often, over all targets of the entry",
    )
    below: LimitField | None = Field(
        default=None, description="pages below this, given in the same ways; of a test: where p is below it"
    )
    parameters: Annotated[dict[Name, int | float | str], Field(max_length=PARAMETERS_MAX)] = Field(
        default={}, description="of a detector of the README's catalogue: instead of its defaults"
    )

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        if self.type in ONLINE:
            self._watches()
        else:
            self._limits()
        if window_series.VOLUME in (self.type, self.series) and self.targets:
            raise refusal("DL-C020", "volume is of the model, not of a target", "no targets")
        if self.targets and self.rows is not None:
            self._arrays(self.rows)
        if self.parameters and self.type not in REGISTRY:
            raise refusal("DL-C020", f"{self.type} has no parameters", "no parameters")
        try:
            self._chosen()
        except BadSettings as error:
            raise refusal("DL-C014", str(error), "as the README's catalogue says") from None
        return self

    @property
    def rows(self) -> str | None:
        """The multivariate detector that it is about, if it is about one."""
        asked = self.series or self.type
        return asked if asked in ROWS else None

    @property
    def of_categories(self) -> str | None:
        """The series of categories that it is about, if it is about one: numbers and arrays have no value of it."""
        asked = self.series or self.type
        return asked if asked in window_series.OF_CATEGORIES else None

    @property
    def of_numbers(self) -> str | None:
        """The same of numbers: categories have no value of it."""
        asked = self.series or self.type
        return asked if asked in window_series.OF_NUMBERS else None

    def _arrays(self, rows: str) -> None:
        if not reads_arrays(rows):
            read = f"{rows} is about all numeric features together"
            raise refusal("DL-C020", read, "no targets; a feature with watch: false is left out")
        if len(self.targets) > 1:
            raise refusal("DL-C020", f"{rows} is about the arrays of one target", "an entry for each of them")

    def _watches(self) -> None:
        if self.series is None:
            raise refusal("DL-C010", f"{self.type} has no series", "series: the numbers it sees, for instance mean")
        if self.threshold is not None or self.below is not None:
            raise refusal("DL-C020", f"{self.type} has its limits among its parameters", "no threshold and no below")

    def _limits(self) -> None:
        family = REGISTRY[self.type].family if self.type in REGISTRY else None
        low, high = self.below, self.threshold
        made = [each for each in (low, high) if isinstance(each, window_series.FromReference)]
        if self.series is not None:
            raise refusal("DL-C020", f"{self.type} is a series itself", "no series; those are for online detectors")
        if low is None and high is None:
            wanted = "threshold: the value above which it pages"
            if family is Family.TEST:
                wanted = "below: the p at which it pages"
            raise refusal("DL-C010", f"{self.type} has no limit", wanted)
        if made and self.type in (*NOT_KEPT, *ROWS):
            raise refusal("DL-C020", f"a reference keeps no {self.type} of its windows", "a number")
        if family is Family.TEST and (high is not None or not _between(low, 0, 1)):
            raise refusal("DL-C020", f"{self.type} pages where p is small", "below, between 0 and 1, and no threshold")
        if family is Family.TEST and any(each.deviations for each in made):
            raise refusal("DL-C020", f"p of {self.type} has no deviations that mean anything", "a number, or 1 per 30d")
        if family is Family.DISTANCE and (low is not None or not _between(high, 0, math.inf)):
            raise refusal("DL-C020", f"{self.type} pages where it is large", "threshold, above 0, and no below")
        if isinstance(high, float) and isinstance(low, float) and low >= high:
            raise refusal("DL-C020", f"below {low:g} and above {high:g} is always", "below < threshold")

    def _chosen(self) -> window_series.Parameters:
        return window_series.parameters_of(self.type, self.parameters) if self.parameters else ()

    def read(self) -> window_series.Threshold | Watcher:
        """As the monitor uses it."""
        if self.series is not None:
            return Watcher(self.type, self.series, self.targets, self._chosen())
        return window_series.Threshold(self.type, self.threshold, self.below, self.targets, self._chosen())


def targets_with_limits(detectors: Iterable[Detector], names: Iterable[str]) -> set[str]:
    """Those of these targets on which there are limits that the reference makes."""
    chosen = [detector.read() for detector in detectors]
    return window_series.named([own for own in chosen if isinstance(own, window_series.Threshold)], names)
