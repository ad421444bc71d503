"""Mutated messages through both tiers of decoding, the mapping, the dead letters and the collector.

    python -m load_tests.fuzz [--messages N] [--seed S] [--seconds S] [--json]

Seeded and structure-aware: a corpus of events (tests/data/corpus, one file per row of the bad-input table) and freshly written
ones are flipped bit by bit, cut, joined, repeated, and have their JSON tokens swapped; mutants that are accepted join the pool.
It holds that nothing is raised, that the fast tier gives what the strict tier gives, and that every message is exactly one
of: applied, dead letter, duplicate, late, tombstone. A failure prints the message that is to blame and the seed; the same
seed gives the same messages. Exit code 1 then, and where next to nothing was applied or read by the fast tier: that compares
the strict tier with itself.

Not atheris, which has wheels for some platforms of the supported Pythons only: libFuzzer sees neither into the compiled kernels
nor into the C scanner, so that its coverage guides it by the lines of 500 lines of Python, and it calls for one message a
time, where a call costs more than a hundred messages of a chunk.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import orjson

from detectors.binning import Binning, Kind
from stream.category import category_hash
from stream.collector import Collector
from stream.columns import Columns, Records
from stream.decode import Layout, Mapping, decode, decode_strict, records_from_lines
from stream.decode_strict import decode_event
from stream.original_headers import read_headers
from stream.plan import CollectorPlan, ModelPlan, Role, TargetPlan

CORPUS = Path(__file__).resolve().parents[1] / "tests" / "data" / "corpus"
CHUNK = 2_000
POOL_MAX = 4_000
APPLIED_MIN, FAST_MIN = 0.01, 0.5  # of all messages; of those that a tier accepts, by the fast one
RECORD_MS = 1_795_342_503_120
TOKEN = re.compile(rb'"(?:[^"\\]|\\.){0,80}"|[-+0-9.eE]{1,40}|[a-zA-Z]{2,10}|[\[\]{}:,]')
WORDS = [
    b"null", b"true", b"NaN", b"-Infinity", b"1e400", b"-0.0", b"9007199254740993", b"0x1", b"01", b"{}", b"[]", b"[[", b'""',
    b'"\\ud800"', b'"\\u0000"', b'"\xed\xa0\x80"', b"\xef\xbb\xbf", b"\xff", b"\x00", b'"2026-11-22T10:15:60Z"', b"1795342503120",
    b'"2026-02-30T00:00:00Z"', b'"prediction_id"', b'"features"', b'"amount"', b'"\\u0061mount"', b":", b",", b'"', b"\\", b"1" * 400,
]  # fmt: skip
PATHS = ["features.amount", "features.country", "prediction", "score", "segments.country"]
LAYOUTS = {
    "native": Layout.compile(Mapping(), ["fraud"], PATHS),
    "strict": Layout.compile(
        Mapping(strict_duplicate_keys=True, unknown_models="dlq", timestamp_unit="ms"),
        ["fraud"], PATHS, coerce=["features.amount", "score"],
    ),
    "flat": Layout.compile(Mapping(features="", segments="features", timestamp_unit="s", version="=1"), ["fraud"], PATHS),
    "record time": Layout.compile(Mapping(timestamp="$record", model="=fraud", prediction_id="features.country"), ["fraud"], PATHS),
}  # fmt: skip


def fresh(rng: random.Random) -> bytes:
    """A valid event in most places."""
    event = {
        "prediction_id": rng.choice((f"{rng.getrandbits(64):x}", rng.getrandbits(60))),
        "model": rng.choice(("fraud", "fraud", "other")),
        "version": rng.choice(("1", None, 2)),
        "timestamp": rng.choice(("2026-11-22T10:15:03.120Z", RECORD_MS - rng.randrange(10**7), RECORD_MS // 1000)),
        "features": {"amount": rng.uniform(-1e3, 1e3), "country": rng.choice(("DE", "naïve 😀", ""))},
        "prediction": rng.choice((0, 1, "yes")),
        "score": rng.random(),
        "segments": {"country": "DE"},
    }
    return orjson.dumps(event)


class Mutator:
    """Messages, one after the other, from one seed. About 6 us each."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.pool = [path.read_bytes() for path in sorted(CORPUS.iterdir())]
        self.seeds = len(self.pool)

    def message(self) -> bytes:
        rng, r = self.rng, self.rng.random()
        data = fresh(rng) if r < 0.5 else self.pool[int(r * 1e6) % len(self.pool)]
        for _ in range(1 if rng.random() < 0.75 else rng.randrange(1, 6)):
            data = MUTATIONS[int(rng.random() * len(MUTATIONS))](self, data)
        return data

    def keep(self, data: bytes) -> None:
        """A message that was read far is worth changing again; the corpus itself stays in the pool."""
        if len(data) > 3_000:
            return
        if len(self.pool) < POOL_MAX:
            self.pool.append(data)
        else:
            self.pool[self.rng.randrange(self.seeds, POOL_MAX)] = data

    def place(self, data: bytes) -> int:
        return int(self.rng.random() * (len(data) + 1))

    def flip(self, data: bytes) -> bytes:
        at = self.place(data) - 1
        return data if at < 0 else data[:at] + bytes((data[at] ^ 1 << self.rng.randrange(8),)) + data[at + 1 :]

    def byte(self, data: bytes) -> bytes:
        at = self.place(data)
        return data[:at] + bytes((self.rng.randrange(256),)) + data[at + self.rng.randrange(2) :]

    def cut(self, data: bytes) -> bytes:
        at = self.place(data)
        return data[:at] if self.rng.random() < 0.5 else data[at:]

    def drop(self, data: bytes) -> bytes:
        at = self.place(data)
        return data[:at] + data[at + self.rng.randrange(1, 20) :]

    def repeat(self, data: bytes) -> bytes:
        at = self.place(data)
        piece = data[at : at + self.rng.randrange(1, 30)]
        return data[:at] + piece * self.rng.choice((1, 1, 2, 40)) + data[at:]

    def splice(self, data: bytes) -> bytes:
        other = self.pool[int(self.rng.random() * len(self.pool))]
        return data[: self.place(data)] + other[self.place(other) :]

    def word(self, data: bytes) -> bytes:
        at = self.place(data)
        return data[:at] + WORDS[int(self.rng.random() * len(WORDS))] + data[at:]

    def token(self, data: bytes) -> bytes:
        """One JSON token replaced by a word or by another token of the message."""
        spans = [found.span() for found in TOKEN.finditer(data, 0, 1_000)]
        if len(spans) < 2:
            return data
        start, stop = spans[int(self.rng.random() * len(spans))]
        if self.rng.random() < 0.5:
            put = WORDS[int(self.rng.random() * len(WORDS))]
        else:
            other = spans[int(self.rng.random() * len(spans))]
            put = data[other[0] : other[1]]
        return data[:start] + put + data[stop:]


MUTATIONS = (
    Mutator.flip, Mutator.byte, Mutator.cut, Mutator.drop, Mutator.repeat, Mutator.splice, Mutator.word, Mutator.token,
    Mutator.token, Mutator.token,
)  # fmt: skip


def same(one: Columns, other: Columns) -> bool:
    arrays = ("offset", "event_time_ms", "id_high", "id_low", "model", "version", "cell", "tag", "tombstone_offset")
    return (
        one.rejects == other.rejects
        and one.version_names == other.version_names
        and all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays)
    )


def model_plan() -> ModelPlan:
    """A numeric and a categorical target: columns 0 and 1 of every layout."""
    keys, codes = np.empty(0, np.uint64), np.empty(0, np.int32)
    numeric = Binning(Kind.NUMERIC, np.array([0.0, 100.0]), (0, 2), 50.0, -1e3, 1e3, keys, codes, ())
    key = np.array([category_hash("DE")], np.uint64)
    labels = ("DE", "__other__", "__unseen__")
    texts = Binning(Kind.CATEGORICAL, np.empty(0), (0, 0), 0.0, 0.0, 0.0, key, np.zeros(1, np.int32), labels)
    targets = (TargetPlan("amount", Role.FEATURE, 0, numeric), TargetPlan("country", Role.FEATURE, 1, texts))
    return ModelPlan("fraud", "sha256:00", targets)


class Fuzzer:
    def __init__(self, seed: int) -> None:
        self.mutator = Mutator(seed)
        self.messages = self.refused = self.applied = self.accepted = self.strict = 0
        self.reasons: dict[str, int] = {}
        self.collectors = {name: self._collector() for name in LAYOUTS}

    @staticmethod
    def _collector() -> Collector:
        plan = CollectorPlan((model_plan(),), resolution_ms=60_000, lateness_ms=60_000, max_future_skew_ms=300_000)
        return Collector(0, plan, monitors=1, topic="predictions", config_hash="c", app_version="1")

    def chunk(self, name: str) -> None:
        """One chunk of messages through one layout. Raises AssertionError with the message to blame."""
        lines = [self.mutator.message() for _ in range(CHUNK)]
        first = self.collectors[name].next_offset
        records = records_from_lines(lines, first, RECORD_MS)
        try:
            refused = self._judge(records, name)
        except Exception as error:
            raise AssertionError(f"layout {name}: {blame(lines, name)!r}") from error
        self.messages += len(lines)
        for at in self.mutator.rng.sample(range(CHUNK), 20):
            if first + at not in refused:
                self.mutator.keep(lines[at])

    def _decode(self, records: Records, layout: Layout) -> Columns:
        """Counts what was accepted, and what of it the fast tier had left to the strict one."""

        def strictly(*event: Any) -> Any:
            row = decode_event(*event)
            self.strict += 1
            return row

        with patch("stream.decode.decode_event", strictly):
            columns = decode(records, layout)
        self.accepted += len(columns)
        return columns

    def enough(self) -> bool:
        """Whether the run has shown something."""
        return self.applied >= APPLIED_MIN * self.messages > 0 and self.strict <= (1.0 - FAST_MIN) * self.accepted

    def _judge(self, records: Records, name: str) -> set[int]:
        columns = self._decode(records, LAYOUTS[name])
        assert same(columns, decode_strict(records, LAYOUTS[name])), "the tiers differ"
        state = self.collectors[name]
        before = state.accounting()
        state.apply("predictions", columns)
        told = state.accounting()
        assert told.consumed - before.consumed == len(records)
        assert told.consumed == told.applied + told.dead_letters + told.duplicates + told.late + told.tombstones
        letters = [output for output in state.outbox if output.topic == "dead-letters"]
        assert len(letters) == told.dead_letters - before.dead_letters
        state.outbox.clear()
        for reject in columns.rejects:
            self.reasons[reject.code] = self.reasons.get(reject.code, 0) + 1
        read_headers(records.buffer.data, int(records.value_start[-1]))  # any bytes as headers: never raises
        self.refused += len(columns.rejects)
        self.applied += told.applied - before.applied
        return {reject.offset for reject in columns.rejects}


def blame(lines: list[bytes], name: str) -> bytes:
    """The first message that fails alone; nothing where only the chunk does."""
    for line in lines:
        records = records_from_lines([line], 0, RECORD_MS)
        try:
            if not same(decode(records, LAYOUTS[name]), decode_strict(records, LAYOUTS[name])):
                return line
        except Exception:  # noqa: BLE001  that is what is looked for
            return line
    return b""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop earlier, after this much CPU time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    fuzzer, began, names = Fuzzer(arguments.seed), time.process_time(), list(LAYOUTS)
    while fuzzer.messages < arguments.messages and time.process_time() - began < arguments.seconds:
        try:
            fuzzer.chunk(names[fuzzer.messages // CHUNK % len(names)])
        except AssertionError as failure:
            print(f"seed {arguments.seed}, after {fuzzer.messages} messages: {failure}", file=sys.stderr)
            raise
    result = {
        "messages": fuzzer.messages,
        "seed": arguments.seed,
        "cpu_s": round(time.process_time() - began, 1),
        "applied": fuzzer.applied,
        "accepted": fuzzer.accepted,
        "of them by the strict tier": fuzzer.strict,
        "dead_letters": dict(sorted(fuzzer.reasons.items())),
        "exceptions": 0,
        "differences_of_the_tiers": 0,
    }
    print(orjson.dumps(result, option=orjson.OPT_INDENT_2).decode() if arguments.json else result)
    return 0 if fuzzer.enough() else 1


if __name__ == "__main__":
    sys.exit(main())
