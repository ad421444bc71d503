"""What an operator may configure of the catalogue: thresholds on window series."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from detectors import REGISTRY
from detectors.registry import Family
from detectors.verdict import BadSettings
from stream import window_series
from stream.config_errors import unknown_name
from stream.config_kafka import Name, Section
from stream.quantities import refusal, shown

PARAMETERS_MAX = 10
Number = Annotated[float, Field(allow_inf_nan=False)]


def _series(value: Any) -> Any:
    if isinstance(value, str) and value not in window_series.NAMES:
        raise refusal("DL-C013", f"{shown(value)} is not known", unknown_name(value, window_series.NAMES))
    return value


SeriesName = Annotated[str, BeforeValidator(_series), WithJsonSchema({"enum": list(window_series.NAMES)})]


class Threshold(Section):
    """A window series that pages beyond an operator's own threshold, outside the promise of `false_alarms`."""

    type: SeriesName = Field(description="a statistic of the windows records, a distance, or a test, whose number is p")
    targets: tuple[Name, ...] = Field(default=(), description="names of targets; none = all")
    threshold: Number | None = Field(default=None, description="pages above this")
    below: Number | None = Field(default=None, description="pages below this; of a test: where p is below it")
    parameters: Annotated[dict[Name, int | float | str], Field(max_length=PARAMETERS_MAX)] = Field(
        default={}, description="of a distance or a test: instead of the defaults in the README's catalogue"
    )

    @model_validator(mode="after")
    def _some_limit(self) -> Self:
        family = REGISTRY[self.type].family if self.type in REGISTRY else None
        if self.threshold is None and self.below is None:
            wanted = (
                "below: the p at which it pages"
                if family is Family.TEST
                else "threshold: the value above which it pages"
            )
            raise refusal("DL-C010", f"{self.type} has no limit", wanted)
        if family is Family.TEST and (self.threshold is not None or not 0 < (self.below or 0) < 1):
            raise refusal("DL-C020", f"{self.type} pages where p is small", "below, between 0 and 1, and no threshold")
        if family is Family.DISTANCE and (self.below is not None or not (self.threshold or 0) > 0):
            raise refusal("DL-C020", f"{self.type} pages where it is large", "threshold, above 0, and no below")
        if self.threshold is not None and self.below is not None and self.below >= self.threshold:
            raise refusal(
                "DL-C020", f"below {self.below:g} and above {self.threshold:g} is always", "below < threshold"
            )
        return self

    @model_validator(mode="after")
    def _known_parameters(self) -> Self:
        if self.parameters and self.type not in window_series.COMPARISONS:
            raise refusal("DL-C020", f"{self.type} has no parameters", "no parameters")
        try:
            self.read()
        except BadSettings as error:
            raise refusal("DL-C014", str(error), "as the README's catalogue says") from None
        return self

    def read(self) -> window_series.Threshold:
        """As the monitor uses it. Raises BadSettings."""
        chosen = window_series.parameters_of(self.type, self.parameters) if self.parameters else ()
        return window_series.Threshold(self.type, self.threshold, self.below, self.targets, chosen)
