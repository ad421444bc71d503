"""Reads the dead-letters topic and publishes letters again: the Kafka side of `driftline dlq` (letters.py has the rules).

One command at a time: two operators who retry the same letter at the same moment may both publish it.
"""

from __future__ import annotations

import asyncio
import getpass
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

from stream.admin import partition_count
from stream.connection import aiokafka_settings, kafka_python_settings
from stream.letters import (
    MARK_HEADER,
    RETRIED,
    RETRYING,
    Book,
    Letter,
    Mark,
    Wanted,
    letter_of,
    retried_letter,
    retry_headers,
    why_not,
)
from stream.topics import TopicRole

if TYPE_CHECKING:
    from stream.config import Config

READ_STALL_S = 60.0
SEND_S = 60.0
BATCH = 100  # letters between two waits for acknowledgements


class DeskError(Exception):
    """Kafka is there and does not do what was asked; the text says what."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one letter: `state` retried, would (a dry run), before (it was retried earlier) or refused."""

    letter: Letter
    state: str
    text: str


def read_book(config: Config, wanted: Wanted) -> Book:
    """One pass over the topic: the wanted letters without their bytes. Raises DeskError, AdminError, KafkaUnreachableError."""
    book = Book(wanted)
    for record in _records(config, TopicRole.DEAD_LETTERS):
        book.add(record)
    return book


def read_whole(config: Config, letters: Iterable[Letter]) -> Iterator[Letter]:
    """The same letters with key, value and headers, in the order of their places."""
    with closing(_consumer(config)) as consumer:
        from kafka import TopicPartition

        ordered = sorted(letters, key=lambda letter: letter.place)
        for partition, group in groupby(ordered, key=lambda letter: letter.place[0]):
            at = TopicPartition(config.topic(TopicRole.DEAD_LETTERS), partition)
            offsets = [letter.place[1] for letter in group]
            left = set(offsets)
            for record in _stretch(consumer, at, offsets[0], offsets[-1] + 1):
                if record.offset in left:
                    left.discard(record.offset)
                    whole = letter_of(record)
                    assert whole is not None  # it was one in the pass before
                    yield whole
            if left:
                raise DeskError(f"{at.topic}-{partition}: retention has taken {len(left)} of the letters meanwhile")


def retry(config: Config, book: Book, *, dry_run: bool) -> Iterator[Outcome]:
    """Publish the book's letters as they came to where they came from, each once. Raises as read_book.

    Cost: three acknowledged writes for each BATCH of letters.
    """
    topics = [config.topic(role) for role in (TopicRole.PREDICTIONS, *config.topics.feedback())]
    partitions = {topic: _partitions(config, topic) for topic in topics}
    chosen: list[Letter] = []
    for letter in book.letters.values():
        if book.state(letter) == RETRIED:
            yield Outcome(letter, "before", book.marks[letter.id].audit())
        elif (reason := why_not(letter, partitions)) is not None:
            yield Outcome(letter, "refused", reason)
        else:
            chosen.append(letter)
    if dry_run:
        for letter in chosen:
            source, partition = letter.source
            yield Outcome(letter, "would", f"as attempt {letter.attempt + 1} to {source}/{partition}")
        return
    begun = {letter.id: book.marks[letter.id] for letter in chosen if book.state(letter) == RETRYING}
    published = _published(config, begun.values())
    from stream.snapshots import is_transient, to_be_mended

    try:
        with closing(_Desk(config)) as desk:
            whole = read_whole(config, chosen)
            while batch := list(islice(whole, BATCH)):
                yield from desk.retry(batch, published)
    except Exception as error:
        if not (is_transient(error) or to_be_mended(TopicRole.DEAD_LETTERS, error)):
            raise
        raise DeskError(f"Kafka refused: {type(error).__name__}: {error}; repeat the command later") from error


class _Desk:
    """Publishes batches of letters with one producer: the workers' own, because the other client takes no null header."""

    def __init__(self, config: Config) -> None:
        from stream.snapshots import open_producer

        self._config = config
        self._by = f"{getpass.getuser()}@{socket.gethostname()}"
        self._loop = asyncio.new_event_loop()
        try:
            self._producer = self._loop.run_until_complete(open_producer(aiokafka_settings(config.kafka)))
        except BaseException:
            self._loop.close()
            raise

    def close(self) -> None:
        try:
            self._loop.run_until_complete(self._producer.stop())
        finally:
            self._loop.close()

    def retry(self, letters: Sequence[Letter], published: Mapping[str, int]) -> Iterator[Outcome]:
        """Intent, record, mark: each acknowledged before the next. What is in `published` gets only its mark."""
        ends = self._ends({letter.source for letter in letters})
        intents = {
            letter.id: Mark(
                letter.id, RETRYING, self._by, _now(), letter.attempt + 1, *letter.source, ends[letter.source]
            )
            for letter in letters
        }  # fmt: skip
        fresh = [letter for letter in letters if letter.id not in published]
        self._mark(fresh, [intents[letter.id] for letter in fresh])
        sent = self._send([self._original(letter) for letter in fresh])
        offsets = dict(published) | {letter.id: offset for letter, offset in zip(fresh, sent, strict=True)}
        marks = [replace(intents[letter.id], state=RETRIED, offset=offsets[letter.id]) for letter in letters]
        self._mark(letters, marks)
        for letter, mark in zip(letters, marks, strict=True):
            yield Outcome(letter, RETRIED, mark.audit())

    def _original(self, letter: Letter) -> dict[str, Any]:
        """The record as it came, its time included: it is judged by that as it was the first time."""
        time_ms = letter.facts.get("timestamp", "")
        return {
            "topic": letter.source[0],
            "key": letter.key,
            "value": letter.value,
            "headers": retry_headers(letter),
            "partition": letter.source[1],
            "timestamp_ms": int(time_ms) if time_ms.isascii() and time_ms.isdigit() else None,
        }

    def _mark(self, letters: Sequence[Letter], marks: Sequence[Mark]) -> None:
        topic = self._config.topic(TopicRole.DEAD_LETTERS)
        self._send([
            {
                "topic": topic,
                "value": mark.encode(),
                "headers": [(MARK_HEADER, mark.state.encode())],
                "partition": letter.place[0],
            }
            for letter, mark in zip(letters, marks, strict=True)
        ])  # fmt: skip

    def _send(self, records: Sequence[dict[str, Any]]) -> list[int]:
        """Write all; their offsets, once every one is acknowledged."""

        async def send() -> list[int]:
            futures = [await self._producer.send(**record) for record in records]
            return [(await future).offset for future in futures]

        return self._loop.run_until_complete(asyncio.wait_for(send(), SEND_S))

    def _ends(self, places: set[tuple[str, int]]) -> dict[tuple[str, int], int]:
        from kafka import TopicPartition

        with closing(_consumer(self._config)) as consumer:
            ends = consumer.end_offsets([TopicPartition(*place) for place in places])
        return {(place.topic, place.partition): end for place, end in ends.items()}


def _published(config: Config, begun: Iterable[Mark]) -> dict[str, int]:
    """Of the letters whose retry was begun and not ended: where those are that were published."""
    found: dict[str, int] = {}
    waiting = sorted(begun, key=lambda mark: (mark.topic, mark.partition, mark.offset))
    if not waiting:
        return found
    from kafka import TopicPartition

    with closing(_consumer(config)) as consumer:
        for place, group in groupby(waiting, key=lambda mark: (mark.topic, mark.partition)):
            marks = list(group)
            names = {mark.letter for mark in marks}
            at = TopicPartition(*place)
            end = consumer.end_offsets([at])[at]
            for record in _stretch(consumer, at, marks[0].offset, end):
                ident = retried_letter(record.headers)
                if ident in names:
                    found.setdefault(ident, record.offset)
    return found


def _records(config: Config, role: TopicRole) -> Iterator[Any]:
    """Every record of a topic up to its end as of now, partition by partition."""
    from kafka import TopicPartition

    topic = config.topic(role)
    places = [TopicPartition(topic, partition) for partition in range(_partitions(config, topic))]
    with closing(_consumer(config)) as consumer:
        begins, ends = consumer.beginning_offsets(places), consumer.end_offsets(places)
        for place in places:
            yield from _stretch(consumer, place, begins[place], ends[place])


def _consumer(config: Config) -> Any:
    from kafka import KafkaConsumer

    return KafkaConsumer(**kafka_python_settings(config.kafka), enable_auto_commit=False, auto_offset_reset="earliest")


def _stretch(consumer: Any, at: Any, start: int, end: int) -> Iterator[Any]:
    consumer.assign([at])
    consumer.seek(at, start)
    deadline = time.monotonic() + READ_STALL_S
    while consumer.position(at) < end:
        found = consumer.poll(timeout_ms=500).get(at, ())
        yield from (record for record in found if record.offset < end)
        if found:
            deadline = time.monotonic() + READ_STALL_S
        elif time.monotonic() > deadline:
            raise DeskError(f"{at.topic}-{at.partition}: nothing for {READ_STALL_S:.0f} s before {end}")


def _partitions(config: Config, topic: str) -> int:
    count = partition_count(config.kafka, topic)
    if count is None:
        raise DeskError(f"there is no topic {topic}: driftline topics list")
    return count


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
