"""What a detector may be told: one frozen dataclass of plain values each, with limits and a sentence for every field.

    @dataclass(frozen=True)
    class Parameters(Base):
        expected_min: float = number(5.0, 0.0, 1000.0, "bins of which fewer events are expected are put together")

`read` makes one from what a configuration holds, `schema` its JSON Schema, `described` its line of a table.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from detectors.verdict import BadSettings


@dataclass(frozen=True)
class Base:
    """Checks every field as it is made. Raises BadSettings with the field's name, what was read and what is allowed."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check(f"{type(self).__module__.rpartition('.')[2]}.{field.name}", getattr(self, field.name), field)


P = TypeVar("P", bound=Base)


def number(default: float, low: float, high: float, meaning: str) -> Any:
    """A float in [low, high]; whole numbers are read as floats, True and False are not."""
    return dataclasses.field(default=default, metadata={"type": "number", "low": low, "high": high, "meaning": meaning})


def whole(default: int, low: int, high: int, meaning: str) -> Any:
    """An int in [low, high]."""
    return dataclasses.field(
        default=default, metadata={"type": "integer", "low": low, "high": high, "meaning": meaning}
    )


def choice(default: str, among: tuple[str, ...], meaning: str) -> Any:
    """One of these words."""
    return dataclasses.field(default=default, metadata={"type": "string", "among": among, "meaning": meaning})


def _check(name: str, value: object, field: dataclasses.Field[Any]) -> None:
    limits = field.metadata
    if "among" in limits:
        if value not in limits["among"]:
            raise BadSettings(f"{name}: {value!r} is none of {', '.join(limits['among'])}")
        return
    kinds = (int,) if limits["type"] == "integer" else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise BadSettings(f"{name}: {value!r} is no {limits['type']}")
    if not math.isfinite(value):
        raise BadSettings(f"{name}: {value!r} is not finite")
    if not limits["low"] <= value <= limits["high"]:
        raise BadSettings(f"{name}: {value!r} is outside {limits['low']:g} to {limits['high']:g}")


def read(kind: type[P], values: Mapping[str, Any]) -> P:
    """Parameters from plain values; what is left out has its default. Raises BadSettings, for unknown names too."""
    known = [field.name for field in dataclasses.fields(kind)]
    for name in values:
        if name not in known:
            raise BadSettings(f"{name!r} is no parameter; known here: {', '.join(known) or 'none'}")
    return kind(**values)


def schema(kind: type[Base]) -> dict[str, Any]:
    """JSON Schema of an object that `read` takes."""
    properties = {}
    for field in dataclasses.fields(kind):
        limits = field.metadata
        entry = {"type": limits["type"], "default": field.default, "description": limits["meaning"]}
        if "among" in limits:
            entry["enum"] = list(limits["among"])
        else:
            entry |= {"minimum": limits["low"], "maximum": limits["high"]}
        properties[field.name] = entry
    return {"type": "object", "properties": properties, "additionalProperties": False}


def described(kind: type[Base]) -> str:
    """`name` = default (limits): meaning; one after the other. Empty without parameters."""
    parts = []
    for field in dataclasses.fields(kind):
        limits = field.metadata
        span = " | ".join(limits["among"]) if "among" in limits else f"{limits['low']:g} to {limits['high']:g}"
        parts.append(f"`{field.name}` = {field.default} ({span}): {limits['meaning']}")
    return "; ".join(parts)
