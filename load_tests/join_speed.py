"""CPU time and memory of the join while many predictions wait, against what is promised; exit 1 where one is missed.

    python -m load_tests.join_speed [--filled 12000000] [--measured 1000000] [--pairs]

Traffic: 2,400 predictions a second of event time; a click on one in ten after 60 s on average, a label of one in ten after up to
an hour, evenly; 12 groups; one score. Resolution 60 s, lateness 60 s and 10 min, horizons 1m and 10m of clicks, 10m and 1h of
labels: so 10.2M predictions wait. Batches are of 5,000 predictions and 500 events of either kind of feedback; a snapshot
every 10 s of event time. The state is filled first, then `--measured` predictions and a fifth as many events are
timed, with what they close; the receiver of panes counts outcomes by group. `burst`: labels of random waiting predictions, as
an upload brings them, in one batch and in batches of 5,000. Only calls of the join are timed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import numpy as np
import psutil

from stream.columns import F64, I64, U32, U64
from stream.give_back import trim
from stream.join import Join, JoinPlan, Matured
from stream.join_feedback import Feedback, FeedbackKind, FeedbackStream
from stream.join_groups import NO_GROUP, Group
from stream.join_index import Predictions

PER_SECOND = 2_400
BATCH, SHARE = 5_000, 10  # one in ten has a click, one in ten a label
FIRST_MS = 1_767_225_600_000
MINUTE_MS, HOUR_MS = 60_000, 3_600_000
SNAPSHOT_ROWS = 10 * PER_SECOND
GROUPS = [Group("fraud", str(v), (f"country={c}",)) for v in range(2) for c in ("DE", "FR", "US", "GB", "IT", "ES")]
FAR_MS = 1 << 60

PREDICTIONS_PER_S, FEEDBACK_PER_S = 100_000, 20_000
BYTES_MAX, SNAPSHOT_SHARE_MAX = 64.0, 0.10
REQUEST_BYTES = 8  # may be held more where models are compared in pairs
WAITING_MIN = 10_000_000  # after the default's filling
TAKEN_MIN = 0.8  # of the labels of a burst; the others come too late for their predictions
TAKEN = ("matched", "contradictory", "duplicate")


def plan(*, pairs: bool) -> JoinPlan:
    clicks = FeedbackStream("clicks", FeedbackKind.CLICK, (MINUTE_MS, 10 * MINUTE_MS), 10 * MINUTE_MS)
    labels = FeedbackStream("labels", FeedbackKind.LABEL, (10 * MINUTE_MS, HOUR_MS), 10 * MINUTE_MS, 0.0, 1.0)
    return JoinPlan(MINUTE_MS, (clicks, labels), 5 * MINUTE_MS, 100_000_000, 10_000_000, requests=pairs)


def ids_of(row: I64) -> tuple[U64, U32]:
    """96 bits of a row number, as scattered as a hash (SplitMix64)."""
    with np.errstate(over="ignore"):
        mixed = row.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31)), (row.astype(np.uint64) * np.uint64(0x85EBCA6B)).astype(np.uint32)


class Traffic:
    """Drives one join; `spent` holds CPU seconds by what they were spent on."""

    def __init__(self, *, pairs: bool) -> None:
        self.pairs = pairs
        self.join = Join(plan(pairs=pairs))
        self.generator = np.random.default_rng(1)
        self.made = 0
        self.coming: dict[str, tuple[I64, I64]] = {n: (np.empty(0, np.int64),) * 2 for n in ("clicks", "labels")}
        self.spent: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.outcomes: Counter[tuple[str, int, str]] = Counter()
        self.blobs: dict[str, bytes] = {}
        self.worst_s = 0.0

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        start = time.process_time()
        yield
        used = time.process_time() - start
        self.spent[what] += used
        self.worst_s = max(self.worst_s, used)

    def sink(self, matured: Matured) -> None:
        total = np.bincount(matured.group, minlength=len(GROUPS))
        seen = np.bincount(matured.group[matured.observed], minlength=len(GROUPS))
        self.outcomes[matured.stream, matured.horizon_ms, "predictions"] += int(total.sum())
        self.outcomes[matured.stream, matured.horizon_ms, "observed"] += int(seen.sum())

    def batch(self) -> None:
        """One batch of predictions and the feedback that is known by then."""
        g = self.generator
        row = np.arange(self.made, self.made + BATCH)
        self.made += BATCH
        at = FIRST_MS + row * 1_000 // PER_SECOND - g.exponential(200, BATCH).astype(np.int64)
        codes = np.array([self.join.group_code(group) for group in GROUPS], np.uint32)
        batch = Predictions(
            at, *ids_of(row), g.random((BATCH, 1)), (g.random(BATCH) < 0.3).astype(float), codes[row % len(GROUPS)],
            ids_of(row // 2)[0] if self.pairs else None,
        )  # fmt: skip
        self.coming["clicks"] = self._more("clicks", row, at, g.exponential(MINUTE_MS, BATCH))
        self.coming["labels"] = self._more("labels", row, at, g.uniform(0, HOUR_MS, BATCH))
        with self.timed("predictions"):
            self.join.add_predictions(batch, int(FIRST_MS + row[-1] * 1_000 // PER_SECOND - MINUTE_MS))
        self.counts["predictions"] += BATCH
        for name, (known, its) in self.coming.items():
            now = known <= FIRST_MS + row[-1] * 1_000 // PER_SECOND
            self.coming[name] = (known[~now], its[~now])
            order = np.argsort(known[now], kind="stable")
            self.feed(name, known[now][order], its[now][order])
        with self.timed("advance"):
            self.join.advance(self.sink)

    def _more(self, name: str, row: I64, at: I64, delay: F64) -> tuple[I64, I64]:
        chosen = np.flatnonzero(self.generator.random(BATCH) < 1 / SHARE)
        known, its = self.coming[name]
        return np.append(known, at[chosen] + delay[chosen].astype(np.int64)), np.append(its, row[chosen])

    def feed(self, name: str, known: I64, its: I64) -> None:
        n = len(known)
        value = self.generator.integers(0, 2, n).astype(float)
        batch = Feedback(
            known, np.full(n, FAR_MS), *ids_of(its), value, np.zeros(n, bool), np.full(n, NO_GROUP, np.uint32),
            np.zeros(n), np.zeros((n, 1)),
        )  # fmt: skip
        with self.timed("feedback"):
            self.join.add_feedback(name, batch)
        self.counts["feedback"] += n

    def snapshot(self) -> None:
        with self.timed("snapshots"):
            blobs = self.join.changed_blobs()
        self.counts["snapshot_bytes"] += sum(len(blob) for blob in blobs.values() if blob)
        for name, blob in blobs.items():
            if blob is None:
                del self.blobs[name]
            else:
                self.blobs[name] = blob

    def run(self, rows: int) -> None:
        """So many predictions with their feedback, and snapshots in between."""
        stop = self.made + rows
        while self.made < stop:
            before = self.made // SNAPSHOT_ROWS
            self.batch()
            if self.made // SNAPSHOT_ROWS > before:
                self.snapshot()

    def taken(self) -> int:
        """Labels that found their prediction."""
        counters = asdict(self.join.streams["labels"].counters)
        return sum(counters[name] for name in TAKEN)

    def burst(self, labels: int) -> tuple[float, float]:
        """Labels of random waiting predictions that become known within a minute, per CPU second, with all that they close; and how
        many of all that were closed found their prediction, in shares of the burst.
        """
        start = (max(self.join.watermark_ms, self.join.streams["labels"].largest_ms) // MINUTE_MS + 1) * MINUTE_MS
        its = self.generator.integers(self.join.index.log.tail, self.made, labels)
        self.spent.clear()
        before = self.taken()
        self.feed("labels", start + np.arange(labels) * MINUTE_MS // labels, its)
        self.join.add_predictions(nothing(pairs=self.pairs), start + MINUTE_MS)
        with self.timed("advance"):
            self.join.tick("labels", start + MINUTE_MS)
            self.join.advance(self.sink)
        return labels / self.spent.total(), (self.taken() - before) / labels


def nothing(*, pairs: bool) -> Predictions:
    none = np.empty(0, np.int64)
    request = none.astype(np.uint64) if pairs else None
    return Predictions(none, *ids_of(none), np.empty((0, 1)), np.empty(0), np.empty(0, np.uint32), request)


def restored(traffic: Traffic) -> tuple[float, Join]:
    """CPU seconds of a restore from the blobs, and what came of it."""
    join = Join(plan(pairs=traffic.pairs))
    start = time.process_time()
    join.load(traffic.blobs)
    return time.process_time() - start, join


def measure(filled: int, measured: int, burst: int, *, pairs: bool) -> dict[str, object]:
    process = psutil.Process()
    warm = Traffic(pairs=pairs)
    warm.run(40 * BATCH)  # compiles the kernels
    restored(warm)
    del warm
    trim()
    empty_bytes = process.memory_info().rss
    traffic = Traffic(pairs=pairs)
    traffic.run(filled)
    held = len(traffic.join.index)
    coming = sum(array.nbytes for pair in traffic.coming.values() for array in pair)
    saved = sum(map(len, traffic.blobs.values()))
    trim()  # as a worker does after each snapshot
    resident = process.memory_info().rss - empty_bytes - coming - saved
    traffic.spent.clear()
    traffic.counts.clear()
    traffic.worst_s = 0.0
    traffic.run(measured)
    spent, counts = dict(traffic.spent), dict(traffic.counts)
    traffic.snapshot()
    whole = traffic.join.whole_blobs()
    restore_s, again = restored(traffic)
    same = again.whole_blobs() == whole
    work_s = spent["predictions"] + spent["feedback"] + spent["advance"]
    result = {
        "waiting": held,
        "cpu_s": {name: round(value, 3) for name, value in spent.items()},
        "predictions_per_cpu_s": counts["predictions"] / work_s,
        "feedback_per_cpu_s_beside_them": counts["feedback"] / work_s,
        "bytes_per_waiting": {
            "index": traffic.join.index.nbytes / len(traffic.join.index),
            "all": traffic.join.nbytes / len(traffic.join.index),
            "resident": resident / held,
        },
        "snapshot_share": spent["snapshots"] / work_s,
        "snapshot_bytes_per_prediction": counts["snapshot_bytes"] / counts["predictions"],
        "snapshot_blobs": len(traffic.blobs),
        "worst_call_ms": 1e3 * traffic.worst_s,
        "restore_cpu_s": restore_s,
        "restored_is_the_same": same,
        "counters": {name: asdict(state.counters) for name, state in traffic.join.streams.items()},
        "outcomes": {f"{s}/{h // 1_000}s/{what}": n for (s, h, what), n in sorted(traffic.outcomes.items())},
    }
    del again, whole
    result["waiting_least"] = min(WAITING_MIN, filled)
    result["burst_feedback_per_cpu_s"], result["burst_taken"] = traffic.burst(burst)
    return result


def missed(result: dict[str, object], bytes_max: float) -> list[str]:
    """What is promised and was not reached."""
    found = []
    per_waiting = result["bytes_per_waiting"]
    assert isinstance(per_waiting, dict)
    for name, value, limit, least in (
        ("predictions_per_cpu_s", result["predictions_per_cpu_s"], PREDICTIONS_PER_S, True),
        ("feedback_per_cpu_s_beside_them", result["feedback_per_cpu_s_beside_them"], FEEDBACK_PER_S, True),
        ("burst_feedback_per_cpu_s", result["burst_feedback_per_cpu_s"], FEEDBACK_PER_S, True),
        ("bytes_per_waiting.resident", per_waiting["resident"], bytes_max, False),
        ("bytes_per_waiting.all", per_waiting["all"], bytes_max, False),
        ("snapshot_share", result["snapshot_share"], SNAPSHOT_SHARE_MAX, False),
        ("waiting", result["waiting"], result["waiting_least"], True),
        ("burst_taken", result["burst_taken"], TAKEN_MIN, True),
    ):
        assert isinstance(value, float | int)
        assert isinstance(limit, float | int)
        if (value < limit) if least else (value > limit):
            found.append(f"{name}: {value:.4g}, {'at least' if least else 'at most'} {limit:g}")
    if not result["restored_is_the_same"]:
        found.append("the restored state is another")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--filled", type=int, default=12_000_000, help="predictions before measuring; the first expire")
    parser.add_argument("--measured", type=int, default=1_000_000)
    parser.add_argument("--burst", type=int, default=500_000)
    parser.add_argument(
        "--pairs", action="store_true", help="predictions tell their request, two of each: 8 bytes more"
    )
    options = parser.parse_args()
    result = measure(options.filled, options.measured, options.burst, pairs=options.pairs)
    missing = missed(result, BYTES_MAX + REQUEST_BYTES * options.pairs)
    conditions = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "nice": os.nice(0),
        "options": vars(options),
    }
    print(json.dumps(result | {"missed": missing, "conditions": conditions}, indent=2))
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    main()
