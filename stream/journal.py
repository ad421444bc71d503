"""The journal: copies of every decision that the input log does not determine. What was in force, never what was meant.

A copy is written after the commit of the first manifest that holds the decision, and again at a restore that cannot know
whether it was; equal decisions have equal bytes, and (stage, partition, number) is one decision, so readers drop repeats.

    key    stage/partition                      value  JSON: body, kind, number, partition, position, stage
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from stream.stage import Decision, Output
from stream.topics import TopicRole

FIELDS = {"stage": str, "partition": int, "number": int, "kind": str, "position": dict, "body": dict}


class JournalError(Exception):
    """A record that is no journal record, or two that contradict each other."""


@dataclass(frozen=True, slots=True)
class JournalRecord:
    """One decision of one partition of one stage."""

    stage: str
    partition: int
    decision: Decision


def encode_decision(stage: str, partition: int, decision: Decision) -> Output:
    """The journal record of `decision`. Equal decisions give equal bytes."""
    value = {
        "stage": stage,
        "partition": partition,
        "number": decision.number,
        "kind": decision.kind,
        "position": decision.position,
        "body": decision.body,
    }
    data = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    return Output(TopicRole.JOURNAL.value, f"{stage}/{partition}".encode(), data, 0)


def decode_decision(value: bytes) -> JournalRecord:
    """Inverse of encode_decision. Raises JournalError."""
    try:
        data = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise JournalError(f"journal record: {error}") from error
    if not isinstance(data, dict) or set(data) != set(FIELDS):
        raise JournalError(f"journal record: has {sorted(data) if isinstance(data, dict) else type(data).__name__}")
    for name, kind in FIELDS.items():
        if type(data[name]) is not kind:
            raise JournalError(f"journal record: {name} is {data[name]!r}, expected {kind.__name__}")
    decision = Decision(data["number"], data["kind"], data["position"], data["body"])
    return JournalRecord(data["stage"], data["partition"], decision)


def fold(values: Iterable[bytes]) -> dict[tuple[str, int], list[Decision]]:
    """Decisions of every (stage, partition) by number, repeats dropped.

    Raises JournalError where two records of one number differ, or a number is missing after the first one kept.
    """
    found: dict[tuple[str, int], dict[int, Decision]] = {}
    for value in values:
        record = decode_decision(value)
        numbered = found.setdefault((record.stage, record.partition), {})
        known: Any = numbered.setdefault(record.decision.number, record.decision)
        if known != record.decision:
            raise JournalError(f"{record.stage}/{record.partition}: {known} and {record.decision}")
    ordered: dict[tuple[str, int], list[Decision]] = {}
    for place, numbered in found.items():
        numbers = sorted(numbered)
        if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
            raise JournalError(f"{place[0]}/{place[1]}: decisions {numbers} have a hole")
        ordered[place] = [numbered[number] for number in numbers]
    return ordered
