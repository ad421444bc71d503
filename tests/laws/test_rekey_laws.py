"""Laws of re-keying: the partitioner is Kafka's, ids are the decoders' ids, copies read back are their originals, the order is
that of record times, and what was seen is told from what is new.
"""

from __future__ import annotations

import itertools
import json
import random

import numpy as np
import pytest
import xxhash
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.chunks import Plain, from_plain
from stream.columns import Records
from stream.copied import FOREIGN, Seen, first_seen, originals
from stream.copying import STEP_EVENTS, Waiting, copies_of, id_of
from stream.deadletter import letter_writer
from stream.decode import decode
from stream.decode_feedback import FeedbackPaths, decode_feedback, feedback_layout
from stream.join_feedback import FeedbackKind
from stream.kernels.murmur import partitions_of
from stream.limits import EVENT_BYTES_MAX
from stream.mapping import NATIVE, Layout
from stream.original_headers import ORIGIN_HEADER, original_headers

ID = ("prediction_id",)
LABELS = feedback_layout(FeedbackKind.LABEL, FeedbackPaths("prediction_id", "timestamp", "ms", "label"))
EVENTS = Layout.compile(NATIVE, ("fraud",), ())


def plain(offset: int, value: bytes | None, key: bytes | None = None, headers=(), time_ms: int = 1_000) -> Plain:
    return Plain(offset, time_ms + offset, key, value, tuple(headers), offset, offset + 1)


def copied(records: Records, *, partitions: int = 4, partition: int = 7, log: int = 99, path=ID) -> dict[int, Records]:
    """The re-keyed topic's partitions, read as the engine would."""
    made: dict[int, list[Plain]] = {}
    for copy in copies_of(records, np.arange(len(records)), path, partitions, (partition, log)):
        own = made.setdefault(copy.target, [])
        at = len(own)
        own.append(Plain(at, 5_000_000, copy.key, copy.value, copy.headers, at, at + 1, log_append=True))
    return {target: from_plain(run) for target, run in made.items()}


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=30), st.integers(1, 50))
def test_the_partition_is_that_of_kafkas_clients(keys: list[bytes], partitions: int) -> None:
    theirs = [DefaultPartitioner()(key, list(range(partitions)), []) for key in keys]
    assert partitions_of(keys, partitions).tolist() == theirs


IDS = st.one_of(
    st.text(max_size=20), st.integers(-(10**30), 10**30), st.floats(), st.booleans(), st.none(), st.just([1]),
    st.just({"a": 1}),
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(IDS, st.sampled_from(["{}", "-0", "1.50", "1e3", '"\\ud800"', '"\\u00e9"', "0", "00"]), st.booleans())
def test_an_id_is_read_as_the_decoder_reads_it(ident: object, literal: str, as_literal: bool) -> None:
    body = (
        f'{{"prediction_id": {literal if as_literal else json.dumps(ident)}, "timestamp": 1795342503120, "label": 1}}'
    )
    columns = decode_feedback(from_plain([plain(0, body.encode())]), LABELS)
    found = id_of(body.encode(), ID)
    if len(columns):
        assert found is not None
        ident_hash = xxhash.xxh3_128_intdigest(found) >> 32
        assert (int(columns.feedback.id_high[0]), int(columns.feedback.id_low[0])) == (
            ident_hash >> 32, ident_hash & 0xFFFFFFFF
        )  # fmt: skip


RECORDS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.binary(max_size=12), st.integers(0, 9).map(lambda n: b'{"prediction_id":"%d"}' % n)),
        st.one_of(st.none(), st.binary(max_size=6)),
        st.lists(
            st.tuples(st.sampled_from(["a", "trace", ORIGIN_HEADER]), st.one_of(st.none(), st.binary(max_size=4)))
        ),
    ),
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(RECORDS, st.integers(1, 5), st.sampled_from([b"", b"x" * 200]))
def test_copies_read_back_are_their_originals(rows, partitions: int, more: bytes) -> None:
    if not rows:
        return
    source = from_plain([
        plain(3 * i, value, key, headers + [("big", more)] * bool(more)) for i, (value, key, headers) in enumerate(rows)
    ])  # fmt: skip
    seen: dict[int, tuple] = {}
    for records in copied(source, partitions=partitions).values():
        read, copies = originals(records, {})
        assert copies.repeats == 0
        assert read.origin is not None
        assert not read.refused
        assert set(read.origin.partition.tolist()) == {7}
        for i, offset in enumerate(read.origin.offset.tolist()):
            data = read.buffer.data
            key, value = (
                None if length < 0 else bytes(data[start : start + length])
                for start, length in (
                    (int(read.key_start[i]), int(read.key_length[i])), (int(read.value_start[i]), int(read.value_length[i]))
                )
            )  # fmt: skip
            kept = original_headers(read, i)
            seen[offset] = (value, key, kept.kept, kept.dropped, int(read.timestamp_ms[i]), bool(read.log_append[i]))
    for i, (value, key, _) in enumerate(rows):
        kept = original_headers(source, i)
        assert seen[3 * i] == (value, key, kept.kept, kept.dropped, 1_000 + 3 * i, False)
    assert len(seen) == len(rows)


def test_events_of_one_id_lie_together_whatever_their_keys_and_topics() -> None:
    predictions = [plain(i, b'{"prediction_id": "id-%d"}' % i, b"customer-%d" % (i % 3)) for i in range(50)]
    labels = [plain(i, b'{"prediction_id": "id-%d", "label": 1}' % (49 - i), None) for i in range(50)]
    retractions = [plain(i, None, b"id-%d" % i) for i in range(50)]

    def place(records: list[Plain]) -> dict[bytes, int]:
        found = {}
        for target, copies in copied(from_plain(records)).items():
            read, _ = originals(copies, {})
            for i in range(len(read)):
                data = bytes(
                    read.buffer.data[int(read.value_start[i]) : int(read.value_start[i] + max(read.value_length[i], 0))]
                )
                key = bytes(
                    read.buffer.data[int(read.key_start[i]) : int(read.key_start[i] + max(read.key_length[i], 0))]
                )
                found[json.loads(data)["prediction_id"].encode() if data else key] = target
        return found

    expected = dict(zip((ids := [b"id-%d" % i for i in range(50)]), partitions_of(ids, 4).tolist(), strict=True))
    assert place(predictions) == place(labels) == place(retractions) == expected


def test_what_is_too_large_and_what_was_no_batch_become_one_dead_letter_of_the_original() -> None:
    big = plain(0, b'{"prediction_id": "' + b"x" * EVENT_BYTES_MAX + b'"}', b"k")
    torn = Plain(1, 9_000, None, b"head", (), 1, 6, refused=("damaged_batch", "wrong checksum; offsets 1 to 5"))
    write = letter_writer(topic="theirs", partition=2, config_hash="c", app_version="1", copied_to="ours")
    letters = []
    for records in copied(from_plain([big, torn])).values():
        read, _ = originals(records, {})
        letters += [write(reject) for reject in decode(read, EVENTS).rejects]
    told = {dict(letter.headers)["dlq.offset"]: dict(letter.headers) for letter in letters}
    assert set(told) == {b"0", b"1"}
    for headers in told.values():
        assert (headers["dlq.topic"], headers["dlq.partition"]) == (b"theirs", b"7")
        assert headers["dlq.payload"] == b"truncated"
    assert (told[b"0"]["dlq.reason"], told[b"1"]["dlq.reason"]) == (b"too_large", b"damaged_batch")
    assert told[b"1"]["dlq.detail"] == b"wrong checksum; offsets 1 to 5"


@pytest.mark.parametrize("value", [b'{"prediction_id": "1"}', None])
def test_what_somebody_else_wrote_is_refused_where_it_stands(value: bytes | None) -> None:
    write = letter_writer(topic="theirs", partition=2, config_hash="c", app_version="1", copied_to="ours")
    read, copies = originals(from_plain([plain(5, value, None, [("a", b"b"), (ORIGIN_HEADER, b"short")])]), {})
    (reject,) = decode(read, EVENTS).rejects
    headers = dict(write(reject).headers)
    assert (headers["dlq.topic"], headers["dlq.partition"], headers["dlq.offset"]) == (b"ours", b"2", b"5")
    assert headers["dlq.reason"].decode() == FOREIGN[0]
    assert copies.marks == {}


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 2), st.integers(0, 3), st.integers(0, 30)), max_size=60),
    st.lists(st.integers(0, 60), max_size=4),
)
def test_the_filter_is_the_running_maximum_whatever_the_batching(rows, cuts: list[int]) -> None:
    highest: dict[tuple[int, int], int] = {}
    expected = []
    for log, partition, offset in rows:
        expected.append(offset > highest.get((log, partition), -1))
        highest[log, partition] = max(highest.get((log, partition), -1), offset)
    seen, found = Seen(), []
    for start, stop in itertools.pairwise([0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]):
        part = np.array(rows[start:stop], np.int64).reshape(-1, 3)
        fresh, after = first_seen(seen.marks, part[:, 0].astype(np.uint64), part[:, 1], part[:, 2])
        seen.marks |= after
        found += fresh.tolist()
    assert found == expected
    assert seen.marks == highest
    assert Seen.of(seen.header()) == seen


@pytest.mark.parametrize("seed", range(30))
def test_partitions_are_read_side_by_side_in_order_of_record_time(seed: int) -> None:
    """Rows leave in order of the largest record time so far of their partition, each once."""
    r = random.Random(seed)
    logs = {
        p: list(itertools.accumulate((r.choice([-40, 0, 5, 90]) for _ in range(r.randrange(0, 400))), initial=10_000))[
            1:
        ]
        for p in range(r.randrange(1, 5))
    }
    waiting, at, gone = Waiting(dict.fromkeys(logs, 0)), dict.fromkeys(logs, 0), []
    while len(gone) < sum(map(len, logs.values())):
        for p in r.sample(waiting.empty, len(waiting.empty)):
            size = r.randrange(0, 60)
            part = [Plain(i, t, None, b"{}", (), i, i + 1) for i, t in enumerate(logs[p])][at[p] : at[p] + size]
            if part:
                at[p] += len(part)
                waiting.add(p, [from_plain(part)], at[p], 1 << 60)
        runs = waiting.take({p: at[p] == len(logs[p]) for p in waiting.empty})
        assert sum(len(rows) for _, _, rows in runs) <= STEP_EVENTS
        gone += [(p, int(records.offset[row])) for p, records, rows in runs for row in rows]
        waiting.copied(runs)
    reached = {p: list(itertools.accumulate(times, max)) for p, times in logs.items()}
    times = [reached[p][row] for p, row in gone]
    assert times == sorted(times)
    for p, log in logs.items():
        assert [row for other, row in gone if other == p] == list(range(len(log)))
    assert waiting.positions == {p: len(log) for p, log in logs.items()}


def test_a_clock_that_is_wrong_by_a_year_holds_its_partition_back_no_longer_than_now() -> None:
    waiting = Waiting({0: 0, 1: 0})
    waiting.add(0, [from_plain([Plain(0, 10**12, None, b"{}", (), 0, 1)])], 1, 5_000)
    waiting.add(1, [from_plain([Plain(0, 5_000, None, b"{}", (), 0, 1)])], 1, 5_000)
    assert [partition for partition, _, _ in waiting.take({})] == [0, 1]


def test_what_a_partition_has_reached_holds_for_what_is_fetched_later() -> None:
    """Its clock goes back with the next fetch: as if all had been fetched at once."""

    def one(offset: int, time_ms: int) -> Records:
        return from_plain([Plain(offset, time_ms, None, b"{}", (), offset, offset + 1)])

    waiting = Waiting({0: 0, 1: 0})
    waiting.add(0, [one(0, 100)], 1, 1 << 60)
    waiting.add(1, [one(0, 100)], 1, 1 << 60)
    waiting.copied(waiting.take({}))
    waiting.add(0, [one(1, 50)], 2, 1 << 60)
    waiting.add(1, [one(1, 100)], 2, 1 << 60)
    assert [partition for partition, _, _ in waiting.take({})] == [0, 1]
    waiting.copied(waiting.take({}))
    waiting.add(0, [one(2, 150)], 3, 1 << 60)
    waiting.add(1, [one(2, 70)], 3, 1 << 60)
    assert [(partition, rows.tolist()) for partition, _, rows in waiting.take({})] == [(1, [0])]
    assert waiting.take({})[0][1].timestamp_ms.tolist() == [70]


def test_a_partition_with_nothing_to_count_moves_on() -> None:
    waiting = Waiting({0: 3})
    waiting.add(0, [], 9, 0)
    assert waiting.positions == {0: 9}
    assert waiting.take({0: True}) == []


def test_an_id_of_a_refused_event_is_no_reason_to_crash() -> None:
    for value in (
        b"",
        b"[1]",
        b"\xff",
        b'{"prediction_id": {"a": 1}}',
        b"1",
        b'"prediction_id"',
        b'{"prediction_id": NaN}',
    ):
        assert id_of(value, ID) is None
