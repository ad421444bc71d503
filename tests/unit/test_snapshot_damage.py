"""Every byte of every record of a snapshot, every length, every swap: noticed, counted once, and never a wrong state.

The log: an epoch with two manifests, then the claim of a second owner that has written one manifest more. What a
restore gives must be one of the states that were saved, the newest that the damage leaves; else it is refused by name.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stream.protocol import LogRecord, ProtocolError, StateCorrupt, StateLost
from stream.snapshot_format import parse_key

_spec = importlib.util.spec_from_file_location("ownership_kit", Path(__file__).with_name("test_ownership.py"))
assert _spec is not None
assert _spec.loader is not None
kit: Any = sys.modules.setdefault("ownership_kit", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(kit)
STATE = kit.STATE
PATTERNS = (0x01, 0x20, 0x80, 0xFF)


def saved_log(*, decision: bool = False) -> list[LogRecord]:
    """Two owners, the first with two snapshots, the second with one. Nothing is compacted away."""
    broker = kit.Broker()
    first, _ = broker.restored(home="c")
    kit.say(broker, first, ("a", b"1"), ("b", b"1"))
    kit.say(broker, first, ("a", b"2"))
    second, _ = broker.restored(home="c")
    if decision:
        second.vector["panes"] = 50  # past what the predecessor can have read
        second.decide("tick", {})
        broker.drive(second.snapshot())
    else:
        kit.say(broker, second, ("a", b"3"))
    log: list[LogRecord] = broker.logs[STATE]
    return log


def restored(log: list[LogRecord]) -> tuple[dict[str, bytes], dict[str, int], int]:
    """Words, vector and corruptions of a restore from this log."""
    broker = kit.Broker()
    broker.logs[STATE] = list(log)
    owner, summary = broker.restored(home="c")
    return kit.words(owner), owner.vector, summary.corrupt


#: What was saved: the first owner's claim, its two manifests (the second owner's claim is a copy), the second's manifest.
SAVED = (
    ({}, {"panes": 3}),
    ({"a": b"1", "b": b"1"}, {"panes": 5}),
    ({"a": b"2", "b": b"1"}, {"panes": 6}),
    ({"a": b"3", "b": b"1"}, {"panes": 7}),
)


def flips(data: bytes) -> Iterator[bytes]:
    for place in range(len(data)):
        for pattern in PATTERNS:
            yield data[:place] + bytes([data[place] ^ pattern]) + data[place + 1 :]


def judged(log: list[LogRecord], at: int, record: LogRecord) -> tuple[dict[str, bytes], dict[str, int], int] | str:
    damaged = [*log[:at], record, *log[at + 1 :]]
    try:
        return restored(damaged)
    except ProtocolError as error:
        return type(error).__name__


def live(log: list[LogRecord]) -> list[int]:
    """Places of the records with a value."""
    return [at for at, record in enumerate(log) if record.value is not None]


def test_the_whole_log_gives_the_newest_state() -> None:
    assert restored(saved_log()) == (*SAVED[3], 0)


@pytest.mark.parametrize("part", ["key", "value"])
def test_a_flip_anywhere_is_noticed_and_gives_a_state_that_was_saved(part: str) -> None:
    log = saved_log()
    tried = 0
    seen = set()
    for at in live(log):
        record = log[at]
        for bad in flips(record.key if part == "key" else record.value or b""):
            result = judged(log, at, replace(record, **{part: bad}))
            tried += 1
            assert not isinstance(result, str), (record.key, part, result)
            words, vector, corrupt = result
            assert (words, vector) in SAVED, (record.key, part)
            needed = needed_by_newest(log, at)
            if part == "key" or needed:
                assert corrupt >= 1, (record.key, part)
            if not needed or (part == "key" and (parse_key(record.key) or record)[1] in ("c", "m")):
                assert (words, vector) == SAVED[3]  # a manifest says itself what it is
            seen.add(SAVED.index((words, vector)))
    assert seen == {0, 2, 3}  # what every state needs takes all of them away: everything is read again
    assert tried > 1_000


def needed_by_newest(log: list[LogRecord], at: int) -> bool:
    """Whether the newest manifest needs the record at this place."""
    from stream.snapshot_format import decode_manifest

    last = [r for r in log if r.value is not None and (parse_key(r.key) or r)[1] == "m"][-1]
    assert last.value is not None
    keys = {key for ref in decode_manifest(last.value).refs.values() for key in ref.keys}
    return log[at] is last or log[at].key in keys


def test_a_cut_at_any_length_is_noticed() -> None:
    log = saved_log()
    assert {needed_by_newest(log, at) for at in live(log)} == {False, True}
    for at in live(log):
        value = log[at].value or b""
        assert value
        for length in range(len(value)):
            result = judged(log, at, replace(log[at], value=value[:length]))
            assert not isinstance(result, str)
            assert (result[2] >= 1) == needed_by_newest(log, at)


def test_two_values_swapped_are_noticed() -> None:
    log = saved_log()
    places = live(log)
    assert len({log[place].value for place in places}) > 2
    for one in places:
        for other in places:
            if log[one].value == log[other].value:
                continue
            swapped = list(log)
            swapped[one] = replace(log[one], value=log[other].value)
            swapped[other] = replace(log[other], value=log[one].value)
            try:
                got = restored(swapped)
            except (StateCorrupt, StateLost):
                continue
            assert got[:2] in SAVED
            if needed_by_newest(log, one) or needed_by_newest(log, other):
                assert got[2] >= 1


def test_a_damaged_claim_gives_way_to_the_manifest_that_it_was_copied_from() -> None:
    broker = kit.Broker()
    first, _ = broker.restored()
    kit.say(broker, first, ("a", b"1"))
    broker.restored()  # claims epoch 2 and dies before its first snapshot
    broker.damage("c")
    third, summary = broker.restored()
    assert (kit.words(third), third.epoch, summary.corrupt) == ({"a": b"1"}, 3, 1)


def test_a_stranger_manifest_behind_the_base_is_no_way_back() -> None:
    """A zombie wrote once more after its successor had read the log: only what the claim names is its base."""
    broker = kit.Broker()
    zombie, _ = broker.restored()
    kit.say(broker, zombie, ("a", b"1"))

    def late(effect: Any) -> None:
        if effect.step == "restore.4-claim":
            kit.say(broker, zombie, ("a", b"zombie"))

    broker.drive(broker.owner().restore(), late)
    broker.damage("c")
    third, _ = broker.restored()
    assert kit.words(third) == {"a": b"1"}


def test_going_back_never_forgets_a_decision() -> None:
    log = saved_log(decision=True)
    at = [n for n in live(log) if (parse_key(log[n].key) or log[n])[1] == "m"][-1]
    for bad in flips(log[at].value or b""):
        assert judged(log, at, replace(log[at], value=bad)) == "StateCorrupt"


@pytest.mark.parametrize("value", [b"", b"\x80\x04K\x01.", b"{}", b"DRFT"])
def test_values_of_others_are_passed_over(value: bytes) -> None:
    log = saved_log()
    at = live(log)[-1]
    words, _, corrupt = restored([*log[:at], replace(log[at], value=value), *log[at + 1 :]])
    assert (words["a"], corrupt) == (b"2", 1)
    with pytest.raises(StateLost):  # a log with nothing but strangers is no empty partition
        restored([LogRecord(0, b"stranger", value)])
