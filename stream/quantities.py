"""Values with units as an operator writes them: "5m", "1 per 30d", "350MB", and secrets that are named, not written."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic_core import PydanticCustomError, core_schema

UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
UNIT_BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
DURATION_MS_MAX = 10 * 365 * UNIT_MS["d"]  # a slip of a unit, not a wish
SECRET_BYTES_MAX = 64 * 1024  # a key file with its chain is a few kB

_DURATION = re.compile(r"(\d{1,12})(ms|s|m|h|d|w)")
_RATE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?) +per +(\S+)")
_SIZE = re.compile(r"(\d{1,12}) ?(B|kB|MB|GB|KiB|MiB|GiB)")
_REFERENCE = re.compile(r"\$\{(?:(file):)?([^{}]+)\}")

MASK = "********"


def refusal(code: str, message: str, expected: str) -> PydanticCustomError:
    """An error that config_errors turns into a Problem: `code` is a key of ERROR_CODES."""
    return PydanticCustomError("driftline", "{message}", {"code": code, "message": message, "expected": expected})


def shown(value: object) -> str:
    text = repr(value) if not isinstance(value, bool) else str(value).lower()
    return text if len(text) <= 80 else text[:77] + "..."


class _Quantity:
    """Reads itself from text; subclasses are frozen dataclasses with `parse`."""

    __slots__ = ()
    pattern = ""
    meaning = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        raise NotImplementedError

    @classmethod
    def _validate(cls, value: Any) -> Self:
        if isinstance(value, cls):
            return value
        if not isinstance(value, str):
            raise refusal("DL-C015", f"{shown(value)} has no unit", cls.meaning)
        return cls.parse(value)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._validate, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^{cls.pattern}$", "examples": [cls.meaning.split(" ", 1)[0]]}


@dataclass(frozen=True, slots=True, order=True)
class Duration(_Quantity):
    """A length of time > 0, in whole milliseconds."""

    ms: int

    pattern = r"[0-9]+(ms|s|m|h|d|w)"
    meaning = "5m (a whole number and one of ms, s, m, h, d, w)"

    @classmethod
    def parse(cls, text: str) -> Duration:
        match = _DURATION.fullmatch(text)
        if match is None:
            raise refusal("DL-C015", f"{shown(text)} is no duration", cls.meaning)
        length_ms = int(match[1]) * UNIT_MS[match[2]]
        if not 0 < length_ms <= DURATION_MS_MAX:
            raise refusal("DL-C014", f"{text} is out of range", "more than 0 and at most 10 years")
        return cls(length_ms)

    def __str__(self) -> str:
        unit = next(unit for unit in reversed(UNIT_MS) if self.ms % UNIT_MS[unit] == 0)
        return f"{self.ms // UNIT_MS[unit]}{unit}"


@dataclass(frozen=True, slots=True)
class Rate(_Quantity):
    """How many false alarms in how long: "1 per 30d"."""

    count: float
    period: Duration

    pattern = r"[0-9]+(\.[0-9]+)? +per +[0-9]+(ms|s|m|h|d|w)"
    meaning = '"1 per 30d" (a number, "per", a duration)'

    @classmethod
    def parse(cls, text: str) -> Rate:
        match = _RATE.fullmatch(text)
        if match is None or _DURATION.fullmatch(match[2]) is None:
            raise refusal("DL-C015", f"{shown(text)} is no rate", cls.meaning)
        count = float(match[1])
        if count <= 0:
            raise refusal(
                "DL-C014", f"{text} is out of range", "more than 0: no detector that ever alarms can promise none"
            )
        return cls(count, Duration.parse(match[2]))

    @property
    def budget_ms(self) -> float:
        """Mean time between false alarms, A of the detector."""
        return self.period.ms / self.count

    def __str__(self) -> str:
        return f"{self.count:g} per {self.period}"


@dataclass(frozen=True, slots=True, order=True)
class Size(_Quantity):
    """An amount of memory > 0."""

    bytes: int

    pattern = r"[0-9]+ ?(B|kB|MB|GB|KiB|MiB|GiB)"
    meaning = "350MB (a whole number and one of B, kB, MB, GB, KiB, MiB, GiB)"

    @classmethod
    def parse(cls, text: str) -> Size:
        match = _SIZE.fullmatch(text)
        if match is None:
            raise refusal("DL-C015", f"{shown(text)} is no size", cls.meaning)
        size = int(match[1]) * UNIT_BYTES[match[2]]
        if size <= 0:
            raise refusal("DL-C014", f"{text} is out of range", "more than 0")
        return cls(size)

    def __str__(self) -> str:
        for unit in ("GB", "MB", "kB"):
            if self.bytes % UNIT_BYTES[unit] == 0:
                return f"{self.bytes // UNIT_BYTES[unit]}{unit}"
        return f"{self.bytes}B"


class Secret:
    """A value that is never shown: written as ${NAME} (environment) or ${file:PATH} (its content, last newline cut off).

    A literal is read too, and `literal` is set, so that the loader can warn. repr, str, serialisation and comparison
    errors show the mask only; `reveal()` is the one way to the value.
    """

    __slots__ = ("_value", "literal", "reference")

    def __init__(self, value: str, reference: str = "", *, literal: bool = False) -> None:
        self._value = value
        self.reference = reference
        self.literal = literal

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return f"Secret({self})"

    def __str__(self) -> str:
        return self.reference or MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a secret is not written to disk or sent to another process; name it again")

    @classmethod
    def resolve(cls, text: str, base: Path) -> Secret:
        """The secret that `text` names; relative paths start at `base`. Raises a coded error that never shows a value."""
        match = _REFERENCE.fullmatch(text)
        if match is None:
            if "${" in text:
                raise refusal("DL-C016", "a secret is one reference and nothing around it", "${NAME} or ${file:PATH}")
            return cls(text, literal=True)
        if match[1] is None:
            value = os.environ.get(match[2])
            if value is None:
                raise refusal("DL-C016", f"the environment variable {match[2]} is not set", f"export {match[2]}=...")
            return cls(value, text)
        path = base / match[2]
        try:
            with path.open("rb") as file:
                raw = file.read(SECRET_BYTES_MAX + 1)
        except OSError as error:
            raise refusal("DL-C016", f"{match[2]} cannot be read: {error.strerror}", "a readable file") from None
        if len(raw) > SECRET_BYTES_MAX:
            raise refusal("DL-C016", f"{match[2]} is larger than 64 KiB", "a file that holds the secret alone")
        try:
            return cls(raw.decode().removesuffix("\n").removesuffix("\r"), text)
        except UnicodeDecodeError:
            raise refusal("DL-C016", f"{match[2]} is not UTF-8 text", "a file that holds the secret alone") from None

    @classmethod
    def _validate(cls, value: Any, info: ValidationInfo) -> Secret:
        if isinstance(value, cls):
            return value
        if not isinstance(value, str):
            raise refusal("DL-C011", "not text", "${NAME} or ${file:PATH}")
        return cls.resolve(value, (info.context or {}).get("base", Path()))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.with_info_plain_validator_function(
            cls._validate, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string", "examples": ["${NAME}", "${file:PATH}"]}
