"""Every limit in one table: name, value, and why it is what it is. The documentation's table is derived from it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit. The unit stands last in the name."""

    name: str
    value: int
    why: str


LIMITS: dict[str, Limit] = {}


def limit(name: str, value: int, why: str) -> int:
    """Enter a row and return its value; a name is entered once."""
    if name in LIMITS:
        raise ValueError(f"limit {name} is declared twice")
    LIMITS[name] = Limit(name, value, why)
    return value


EVENT_BYTES_MAX = limit(
    "event_bytes_max", 1 << 20, "Kafka's own default for one message; bounds what one bad record can cost"
)
DEPTH_MAX = limit("depth_max", 32, "events are flat; deeper nesting is an attack on recursion or a mistake")
KEYS_MAX = limit("keys_max", 10_000, "a wide table has some thousand features; more is a feature explosion")
ID_BYTES_MAX = limit("id_bytes_max", 512, "ids are UUIDs or URNs; a longer one is a payload in the wrong field")
NAME_BYTES_MAX = limit("name_bytes_max", 256, "a model's or version's name is a metric label and a topic key")
RECORD_BYTES_MAX = limit(
    "record_bytes_max", 900_000, "Kafka refuses records above 1 MiB by default; room for headers and the batch"
)
DEAD_LETTER_BYTES_MAX = limit(
    "dead_letter_bytes_max", 64 << 10, "a longer original is stored truncated, with its sha256 and length"
)
DEAD_LETTER_CUT_BYTES = limit(
    "dead_letter_cut_bytes", 1 << 10, "what `payload: truncated` keeps: enough to see the shape"
)
DEAD_LETTER_KEY_BYTES_MAX = limit(
    "dead_letter_key_bytes_max", 16 << 10, "a key of a megabyte must not make a dead letter that no topic takes"
)
DETAIL_BYTES_MAX = limit("detail_bytes_max", 1 << 10, "a header for people, never a copy of the payload")
EVENT_TIME_MS_MIN = limit("event_time_ms_min", 315_532_800_000, "1980-01-01: older is a wrong unit or an unset clock")
EVENT_TIME_MS_MAX = limit("event_time_ms_max", 7_258_118_400_000, "2200-01-01 (exclusive): beyond is a wrong unit")
SAMPLE_TEXTS_MAX = limit(
    "sample_texts_max", 500, "distinct texts of one target in a sample; with 200 characters each they fit any record"
)
SAMPLE_TEXT_CHARACTERS_MAX = limit("sample_text_characters_max", 200, "a longer text is no category; it is cut")
VERSIONS_FOLLOWED_MAX = limit(
    "versions_followed_max", 100, "versions of a model whose outputs are judged at a time; the others are recorded"
)
ARRAY_NUMBERS_MAX = limit(
    "array_numbers_max",
    4096,
    "embeddings have some hundred to 3,072 numbers; a reference keeps 2,000 arrays, 33 MB then",
)
