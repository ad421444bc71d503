"""Dead letters as people handle them: read from their topic, counted, chosen, shown, and retried once. Pure.

The dead-letters topic holds letters (deadletter.py) and, in the partition of the letter, the *marks* of `dlq retry`: records
with the one header dlq.mark and a JSON value {letter, state, by, at, attempt, topic, partition, offset}. State `retrying`
is written before the original is published (offset = end of the partition then), `retried` after it (offset = where it is).
So a repeated command never publishes a letter twice, whatever ended the one before, and who retried what and when
lasts as long as the letter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from stream.deadletter import ORIGINAL_PREFIX
from stream.limits import limit
from stream.original_headers import ATTEMPT_HEADER, LETTER_HEADER, Header

RETRIES_MAX = limit("retries_max", 5, "what was refused after five retries is not mended by a sixth")
MARK_HEADER = "dlq.mark"
RETRYING, RETRIED = "retrying", "retried"


class RawLetter(Protocol):
    """One record of the dead-letters topic, as the client gives it."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class Letter:
    """`place`: partition and offset in the dead-letters topic. `facts`: the dlq. headers, without the prefix."""

    id: str
    place: tuple[int, int]
    written_ms: int
    key: bytes | None
    value: bytes | None
    facts: dict[str, str]
    headers: tuple[Header, ...]

    @property
    def attempt(self) -> int:
        return int(self.facts["attempt"])

    @property
    def source(self) -> tuple[str, int]:
        """Topic and partition that the event came from."""
        return self.facts["topic"], int(self.facts["partition"])


@dataclass(frozen=True, slots=True)
class Mark:
    """What `dlq retry` did with one letter: who, when, where to."""

    letter: str
    state: str
    by: str
    at: str
    attempt: int
    topic: str
    partition: int
    offset: int

    def encode(self) -> bytes:
        names = ("letter", "state", "by", "at", "attempt", "topic", "partition", "offset")
        return orjson.dumps({name: getattr(self, name) for name in names})

    def audit(self) -> str:
        """One line: when, who, what, where to."""
        return (
            f"{self.at} {self.by} {self.state} {self.letter} as attempt {self.attempt}"
            f" to {self.topic}/{self.partition}/{self.offset}"
        )


def letter_of(record: RawLetter, *, whole: bool = True) -> Letter | None:
    """The letter that a record is, without key, value and headers unless `whole`; None = it is none."""
    facts: dict[str, str] = {}
    for name, value in record.headers:
        if name.startswith("dlq.") and name not in facts:
            facts[name] = (value or b"").decode("utf-8", "backslashreplace")
    facts = {name.removeprefix("dlq."): value for name, value in facts.items()}
    numbers = ("partition", "offset", "row", "attempt")
    if "reason" not in facts or "topic" not in facts or not all(_is_number(facts.get(name, "")) for name in numbers):
        return None
    ident = letter_id(facts["topic"], *(int(facts[name]) for name in numbers[:3]))
    kept = [
        (name.removeprefix(ORIGINAL_PREFIX), value)
        for name, value in record.headers
        if name.startswith(ORIGINAL_PREFIX)
    ]
    place = (record.partition, record.offset)
    key, value = (record.key, record.value) if whole else (None, None)
    return Letter(ident, place, record.timestamp, key, value, facts, tuple(kept) if whole else ())


def mark_of(record: RawLetter) -> Mark | None:
    """The mark that a record is; None = it is none."""
    if not any(name == MARK_HEADER for name, _ in record.headers):
        return None
    try:
        body = orjson.loads(record.value or b"")
        mark = Mark(**body)
    except (orjson.JSONDecodeError, TypeError):
        return None
    numbers = (mark.attempt, mark.partition, mark.offset)
    texts = (mark.letter, mark.state, mark.by, mark.at, mark.topic)
    whole = all(type(n) is int for n in numbers) and all(isinstance(text, str) for text in texts)
    return mark if whole else None


def letter_id(topic: str, partition: int, offset: int, row: int = 0) -> str:
    return f"{topic}/{partition}/{offset}/{row}"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 19


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters: none of the conditions = all. `ident`: of letter_id; `place`: PARTITION/OFFSET of the letter itself."""

    ident: str = ""
    place: tuple[int, int] | None = None
    reasons: tuple[str, ...] = ()
    since_ms: int | None = None
    partition: int | None = None

    def takes(self, letter: Letter) -> bool:
        return (
            (not self.ident or letter.id == self.ident)
            and (self.place is None or letter.place == self.place)
            and (not self.reasons or letter.facts["reason"] in self.reasons)
            and (self.since_ms is None or letter.written_ms >= self.since_ms)
            and (self.partition is None or int(letter.facts["partition"]) == self.partition)
        )


def wanted_one(text: str) -> Wanted:
    """PARTITION/OFFSET in the dead-letters topic, or the event's TOPIC/PARTITION/OFFSET[/ROW]. Raises ValueError."""
    parts = text.split("/")
    topic = parts[0]
    numbers = parts if len(parts) == 2 else parts[1:]
    if not 2 <= len(parts) <= 4 or not topic or not all(map(_is_number, numbers)):
        raise ValueError(f"{text!r} is no letter: PARTITION/OFFSET or TOPIC/PARTITION/OFFSET/ROW")
    if len(parts) == 2:
        return Wanted(place=(int(parts[0]), int(parts[1])))
    return Wanted(ident=letter_id(topic, *map(int, numbers)))


@dataclass(slots=True)
class Book:
    """What a pass over the topic has found: of each event the first letter (a crash may repeat one), of each letter its
    marks. `foreign`: records that are neither.
    """

    wanted: Wanted = field(default_factory=Wanted)
    letters: dict[str, Letter] = field(default_factory=dict)
    marks: dict[str, Mark] = field(default_factory=dict)
    repeats: int = 0
    foreign: int = 0

    def add(self, record: RawLetter) -> None:
        letter = letter_of(record, whole=False)
        if letter is not None:
            if letter.id in self.letters:
                self.repeats += 1
            elif self.wanted.takes(letter):
                self.letters[letter.id] = letter
            return
        mark = mark_of(record)
        if mark is None:
            self.foreign += 1
        elif mark.state == RETRIED or mark.letter not in self.marks:
            self.marks[mark.letter] = mark

    def state(self, letter: Letter) -> str:
        mark = self.marks.get(letter.id)
        return "" if mark is None else mark.state

    def counted(self) -> list[dict[str, Any]]:
        """Rows by reason, topic and partition, the largest first: how many, how many retried, first and last time."""
        rows: dict[tuple[str, str, int], dict[str, Any]] = {}
        for letter in self.letters.values():
            facts = letter.facts
            where = (facts["reason"], facts["topic"], int(facts["partition"]))
            row = rows.setdefault(
                where,
                dict(zip(("reason", "topic", "partition"), where, strict=True))
                | {"letters": 0, "retried": 0, "first_ms": letter.written_ms, "last_ms": letter.written_ms},
            )
            row["letters"] += 1
            row["retried"] += self.state(letter) == RETRIED
            row["first_ms"] = min(row["first_ms"], letter.written_ms)
            row["last_ms"] = max(row["last_ms"], letter.written_ms)
        return sorted(rows.values(), key=lambda row: (-row["letters"], row["reason"], row["topic"], row["partition"]))


def why_not(letter: Letter, partitions: Mapping[str, int]) -> str | None:
    """Why this letter cannot be published as it came; None = it can. `partitions`: of each topic that the configuration reads."""
    facts = letter.facts
    if letter.attempt >= RETRIES_MAX:
        return f"attempt {letter.attempt}: refused {RETRIES_MAX} times after a retry, it is not published again"
    if facts.get("payload", "full") != "full":
        return f"payload {facts['payload']}: the original bytes are not in the letter"
    if "key_sha256" in facts:
        return "its key was cut"
    if "headers_dropped" in facts:
        return f"{facts['headers_dropped']} of its headers were not kept"
    if facts["topic"] not in partitions:
        return f"it came from {facts['topic']}, the configuration reads {', '.join(partitions)}"
    if int(facts["partition"]) >= partitions[facts["topic"]]:
        return f"{facts['topic']} has no partition {facts['partition']}"
    return None


def retry_headers(letter: Letter) -> list[Header]:
    """Headers of the record that a retry publishes: which retry, of which letter, then the original's."""
    ours: list[Header] = [(ATTEMPT_HEADER, str(letter.attempt + 1).encode()), (LETTER_HEADER, letter.id.encode())]
    return ours + list(letter.headers)


def retried_letter(headers: Iterable[Header]) -> str:
    """Id of the letter that a published record comes from; "" = from none."""
    return next(((value or b"").decode("utf-8", "replace") for name, value in headers if name == LETTER_HEADER), "")


def escaped(data: bytes | str) -> str:
    r"""One line for a terminal: what is not printable (controls, ESC, bidirectional overrides, bytes that are no UTF-8) as \x1b."""
    text = data.decode("utf-8", "backslashreplace") if isinstance(data, bytes) else data
    return "".join(ch if ch.isprintable() else ch.encode("unicode_escape").decode() for ch in text)


def shown(letter: Letter, mark: Mark | None) -> Iterator[str]:
    """Lines for people: every header, then key and payload."""
    yield f"letter    {escaped(letter.id)}  (at {letter.place[0]}/{letter.place[1]} of the dead letters)"
    for name, fact in letter.facts.items():
        yield f"dlq.{escaped(name)}: {escaped(fact)}"
    for header, value in letter.headers:
        yield f"orig.{escaped(header)}: {'null' if value is None else escaped(value)}"
    yield "key: " + ("null" if letter.key is None else escaped(letter.key))
    yield "payload: " + ("not kept" if letter.value is None else escaped(letter.value))
    if mark is not None:
        yield escaped(mark.audit())
