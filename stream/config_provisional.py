"""At which ages the running value of a window that is not final is said: two words, or a list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, GetPydanticSchema, ValidatorFunctionWrapHandler
from pydantic_core import core_schema

from stream.quantities import Duration, refusal, shown

AGES_MAX = 5
WORDS = ("auto", "none")
Ages = Annotated[tuple[Duration, ...], Field(min_length=1, max_length=AGES_MAX)]


def _word_or_ages(value: Any, ages: ValidatorFunctionWrapHandler) -> Any:
    if isinstance(value, str) and value not in WORDS:
        raise refusal("DL-C013", f"{shown(value)} is not known", f"{', '.join(WORDS)}, or a list of ages: [5m, 1h]")
    return value if isinstance(value, str) else ages(value)


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) else [str(age) for age in value]


Provisional = Annotated[
    Literal["auto", "none"] | Ages,
    GetPydanticSchema(
        lambda _, handler: core_schema.no_info_wrap_validator_function(
            _word_or_ages,
            handler.generate_schema(Ages),
            serialization=core_schema.plain_serializer_function_ser_schema(_plain),
        ),
        lambda schema, handler: {"anyOf": [{"enum": list(WORDS)}, handler(schema)]},
    ),
]


def fitting(ages: str | Sequence[Duration], horizons: Sequence[Duration]) -> None:
    """Each once, and below some horizon. Raises a refusal."""
    if isinstance(ages, str):
        return
    if len(set(ages)) < len(ages):
        raise refusal("DL-C020", "an age of provisional values stands twice", "each once")
    most, longest = max(ages, key=_ms), max(horizons, key=_ms)
    if most.ms >= longest.ms:
        raise refusal("DL-C020", f"provisional: {most} is below no horizon", f"less than {longest}")


def _ms(length: Duration) -> int:
    return length.ms
