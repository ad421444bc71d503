"""What an operator may say of metrics that need more than their name: what a row is worth, a KPI and its target."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from detectors.performance.layout import CLASSES_MAX
from stream.config_kafka import Name, Section
from stream.performance_told import ToldKpi
from stream.quantities import refusal
from stream.yaml_places import Key


def _text(value: Any) -> Any:
    """A bare 1 or true in YAML is the class that JSON writes the same way."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) else value


ClassName = Annotated[Name, BeforeValidator(_text), WithJsonSchema({"type": ["string", "integer", "boolean"]})]
AMOUNT_MAX = 1e12  # in size; a float still tells .00013 beside it; beside amounts without bound all others would vanish
Amount = Annotated[float, Field(allow_inf_nan=False, ge=-AMOUNT_MAX, le=AMOUNT_MAX)]
Row = Annotated[dict[ClassName, Amount], Field(max_length=CLASSES_MAX)]


def of_classes(path: Key) -> bool:
    """Whether the keys of the mapping at this path of the file are classes: 0 and 1 are, as in `classes`, without quotes."""
    if path[:1] != ("models",) or path[2:3] != ("performance",):
        return False
    return path[3:] == ("class_scores",) or (path[3:5] == ("business_value", "matrix") and len(path) <= 6)


class RowValues(Section):
    """What a row is worth by its label and prediction, of two classes; costs are negative."""

    true_positive: Amount = Field(description="labelled and predicted positive")
    false_positive: Amount = Field(description="predicted positive, labelled negative")
    false_negative: Amount = Field(description="predicted negative, labelled positive")
    true_negative: Amount = Field(description="labelled and predicted negative")


class BusinessValue(Section):
    """What predictions are worth once their label is known: the metric `business_value` is its mean."""

    unit: Name | None = Field(default=None, description="of the amounts, as records and alerts show it: EUR, minutes")
    values: RowValues | None = Field(default=None, description="of two classes: one amount for each outcome")
    matrix: Annotated[dict[ClassName, Row], Field(max_length=CLASSES_MAX)] = Field(
        default={},
        description="of any classes: label, then prediction, then the amount; all of `classes` in both; numbers need no quotes",
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.values is None) != bool(self.matrix):
            read = "both values and matrix" if self.matrix else "neither values nor matrix"
            raise refusal("DL-C020", read, "exactly one of values, matrix")
        return self

    def check(self, classes: tuple[str, ...]) -> None:
        """Raises a coded error unless every cell of these classes has an amount."""
        if self.values is not None:
            if len(classes) != 2:
                read = f"values are of two classes, there are {len(classes)}"
                raise refusal("DL-C020", read, "matrix: {label: {prediction: 1.0}}")
            return
        expected = f"of each label and each prediction: {', '.join(classes)}"
        keys = {"matrix": set(self.matrix)} | {f"matrix.{label}": set(row) for label, row in self.matrix.items()}
        for where, own in keys.items():
            strange = sorted(own ^ set(classes))
            if strange:
                read = "is none of the classes" if strange[0] in own else "is not there"
                raise refusal("DL-C020", f"{where}: {strange[0]} {read}", expected)

    def worth(self, classes: tuple[str, ...], positive: int) -> tuple[tuple[float, ...], ...]:
        """By place of label and of prediction among the classes."""
        own = self.values
        if own is None:
            return tuple(tuple(self.matrix[label][predicted] for predicted in classes) for label in classes)
        rows = ((own.true_negative, own.false_positive), (own.false_negative, own.true_positive))
        return rows if positive else tuple(row[::-1] for row in rows[::-1])


class Kpi(Section):
    """A number of the business, shown against its target: the value of conversions, whatever the events of that topic count."""

    name: Name = Field(description="as people call it, shown in records and alerts: revenue per visit")
    target: Amount | None = Field(default=None, description="what it should be; needed for kpi_to_target")
    per: Literal["prediction", "conversion"] = Field(
        default="prediction",
        description="the mean is of all predictions, those without a conversion with 0; or of those alone that have one",
    )
    better: Literal["higher", "lower"] = Field(
        default="higher", description="which way is good: alerts say whether a change is for the worse"
    )
    unit: Name | None = Field(default=None, description="of the value, as records and alerts show it: EUR, minutes")

    def read(self) -> ToldKpi:
        """As the monitor uses it."""
        return ToldKpi(self.name, self.target, self.per == "conversion", self.better == "lower", self.unit or "")
