"""Laws of the collector, against a recount in plain Python that reads the log event by event.

1. outputs and counters equal the recount; 2. any splitting of the log gives the same bytes, outputs and state alike;
3. a snapshot at any cut, loaded elsewhere, goes on as if nothing had happened, with incremental blobs too.
"""

from __future__ import annotations

import bisect
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.binning import Binning, Kind
from detectors.sketches import distinct
from stream.category import category_text
from stream.claims import GAP
from stream.collector import Collector
from stream.columns import Columns, Reject, Tag
from stream.panes import EDGE_END, EDGE_MIN, Marker, Pane, decode_record, merge_blocks
from stream.plan import CollectorPlan, ModelPlan, Role, SegmentPlan, TargetPlan
from stream.plan_codec import sealed
from stream.stage import Decision, Output

INVALID = object()
WORDS = ["red", "green", "blue", "7", "true", "x y", "é"]
MODELS = ["alpha", "beta", "gamma"]
MONITORS = 3
TEXTS = 2  # of one target and sample


def text_hash(text: str) -> int:
    return int(xxhash.xxh3_64_intdigest(text.encode()))


def numeric(cuts: list[float], centre: float, low: float = -2.0, high: float = 2.0) -> Binning:
    keys, codes = np.empty(0, np.uint64), np.empty(0, np.int32)
    return Binning(Kind.NUMERIC, np.array(cuts), (0, len(cuts)), centre, low, high, keys, codes, ())


def categorical(labels: list[str]) -> Binning:
    known = sorted((text_hash(label), i) for i, label in enumerate(labels))
    keys, codes = np.array([k for k, _ in known], np.uint64), np.array([c for _, c in known], np.int32)
    names = (*labels, "__other__", "__unseen__")
    return Binning(Kind.CATEGORICAL, np.empty(0), (0, 0), 0.0, -math.inf, math.inf, keys, codes, names)


def segment(key: str, column: int, values: list[str]) -> SegmentPlan:
    return SegmentPlan(key, column, tuple(values), np.array([text_hash(v) for v in values], np.uint64))


def model_plans() -> list[ModelPlan]:
    """Three in force at first, then alternatives that are switched to. Columns: 0, 1 numbers; 2, 3 categories."""
    far = [-1e9, -1.0, -0.25, 0.0, 0.5, 3.0, 1e12]
    alpha = (
        TargetPlan("a", Role.FEATURE, 0, numeric(far, 0.1)),
        TargetPlan("c", Role.FEATURE, 2, categorical(["red", "blue", "7"])),
        TargetPlan("score", Role.SCORE, 1, numeric([], -0.3)),
        TargetPlan("prediction", Role.PREDICTION, 3, categorical(["true", "false"])),
    )
    beta = (TargetPlan("c", Role.FEATURE, 2, categorical([])), TargetPlan("a", Role.FEATURE, 0, numeric([0.0], 0.0)))
    gamma = (TargetPlan("prediction", Role.PREDICTION, 3, categorical(["green"])),)
    segments = (segment("country", 2, ["green", "7"]), segment("site", 3, []))
    plans = [
        ModelPlan("alpha", "r1", alpha, segments),
        ModelPlan("beta", "", beta, segments, sample_rows=4, learning=True),
        ModelPlan("gamma", "r3", gamma),
        ModelPlan("alpha", "r4", (replace(alpha[0], binning=numeric([0.0, 0.25], 0.7)), alpha[1]), segments[:1]),
        ModelPlan("beta", "r5", beta, segments[1:], sample_rows=2),
        ModelPlan("gamma", "r6", (*gamma, replace(alpha[2], column=1))),
    ]
    return [sealed(plan) for plan in plans]


@dataclass
class Event:
    offset: int
    kind: str  # "event", "reject", "tombstone"
    row: int = 0
    time: int = 0
    record_time: int = 0
    id: int = 0
    model: int = 0
    version: str = ""
    cells: tuple[Any, ...] = (None, None, None, None)


@dataclass
class World:
    plan: CollectorPlan = field(repr=False)
    log: list[Event]
    decisions: dict[int, list[tuple[str, dict[str, Any]]]]  # before the event of this index


@st.composite
def worlds(draw: st.DrawFn) -> World:
    n = draw(st.integers(0, 120))
    seed = draw(st.integers(0, 1 << 20))
    g = np.random.default_rng(seed)
    plan = CollectorPlan(
        tuple(model_plans()[:3]),
        resolution_ms=draw(st.sampled_from([1, 10, 60])),
        lateness_ms=draw(st.sampled_from([0, 5, 25, 200])),
        max_future_skew_ms=draw(st.sampled_from([0, 30])),
        dedup=draw(st.booleans()),
        versions_max=draw(st.sampled_from([1, 2, 9])),
    )
    clock, log, offset = draw(st.sampled_from([-100, 0, 1 << 40])), [], 0
    jump = draw(st.sampled_from([0, 3, 3000]))
    for _ in range(n):
        offset += int(g.choice([0, 1, 1, 1, 2])) if log else 0
        same = bool(log) and log[-1].offset == offset
        clock += int(g.integers(0, 4)) + (int(g.integers(0, jump + 1)) if g.random() < 0.1 else 0)
        kind = str(g.choice(["event"] * 8 + ["reject", "tombstone"]))
        if same and (log[-1].kind == "tombstone" or kind == "tombstone"):
            offset, same = offset + 1, False
        if kind == "event" and log and g.random() < 0.15 and log[-1].kind == "event" and not same:
            log.append(replace(log[-1], offset=offset, row=0))
            continue
        time = clock - int(g.exponential(8)) + (int(g.integers(0, 80)) if g.random() < 0.05 else 0)
        version = "" if g.random() < 0.2 else f"v{g.integers(0, 4)}"
        log.append(
            Event(offset, kind, log[-1].row + 1 if same else 0, time, clock, random_id(g),
                  int(g.integers(-1, 3)), version, random_cells(g))
        )  # fmt: skip
    decisions: dict[int, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
    for place in draw(st.lists(st.integers(0, n), max_size=3)):
        if g.random() < 0.5:
            near = log[place - 1].time if place else clock
            decisions[place].append(("tick", {"until_ms": near + int(g.integers(-50, 120))}))
            if g.random() < 0.3:
                decisions[place].append((GAP, {"lost": int(g.integers(1, 9))}))
        else:
            chosen = model_plans()[int(g.integers(0, 6))]
            decisions[place].append(("plan", {"model": chosen.model, "plan": chosen.hash if g.random() < 0.8 else ""}))
    decisions[n].append(("tick", {"until_ms": draw(st.sampled_from([clock + 100, EDGE_END]))}))
    return World(plan, log, dict(decisions))


def random_id(g: np.random.Generator) -> int:
    """96 bits; some agree in the upper 64, and all in those that choose the first slot of the table."""
    return (int(g.integers(0, 5) if g.random() < 0.1 else g.integers(0, 1 << 40)) << 56) | int(g.integers(0, 4))


def random_cells(g: np.random.Generator) -> tuple[Any, ...]:
    def number() -> Any:
        wild = float(g.normal()) * 10.0 ** int(g.integers(-8, 9))  # sums in another order differ
        return [None, INVALID, "text", True, math.inf, 0.5, -0.0][int(g.integers(0, 7))] if g.random() < 0.4 else wild

    def category() -> Any:
        return [None, INVALID, True, 7.0, 2.5, *WORDS, -0.0][int(g.integers(0, 13))]

    return (number(), number(), category(), category())


@pytest.fixture(autouse=True, scope="module")
def _small_spans() -> Iterator[None]:
    """A chunk is counted in several passes, as those of thousands of closings are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stream.collector.SPAN_CLOSINGS", 3)
        patch.setattr("stream.sample_texts.SAMPLE_TEXTS_MAX", TEXTS)
        yield


# -- the log as columns


def cell_of(value: Any) -> tuple[int, int]:
    if value is None:
        return 0, Tag.MISSING
    if value is INVALID:
        return 99, Tag.INVALID
    if isinstance(value, bool):
        return int(value), Tag.BOOL
    if isinstance(value, str):
        return text_hash(value), Tag.TEXT
    return int(np.float64(value).view(np.uint64)), Tag.NUMBER


def to_columns(log: list[Event], next_offset: int) -> Columns:
    rows = [e for e in log if e.kind == "event"]
    cells = [[cell_of(v) for v in e.cells] for e in rows]
    shape = (len(rows), 4)
    return Columns(
        next_offset=next_offset,
        offset=np.array([e.offset for e in rows], np.int64),
        row=np.array([e.row for e in rows], np.int32),
        event_time_ms=np.array([e.time for e in rows], np.int64),
        record_time_ms=np.array([e.record_time for e in rows], np.int64),
        id_high=np.array([e.id >> 32 for e in rows], np.uint64),
        id_low=np.array([e.id & 0xFFFFFFFF for e in rows], np.uint32),
        model=np.array([e.model for e in rows], np.int32),
        version=np.array([text_hash(e.version) if e.version else 0 for e in rows], np.uint64),
        cell=np.array([[c[0] for c in line] for line in cells], np.uint64).reshape(shape),
        tag=np.array([[c[1] for c in line] for line in cells], np.uint8).reshape(shape),
        version_names={text_hash(e.version): e.version for e in rows if e.version},
        rejects=tuple(
            Reject(e.offset, e.row, "malformed_json", "d", "", b"k", b"v", e.record_time)
            for e in log
            if e.kind == "reject"
        ),
        tombstone_offset=np.array([e.offset for e in log if e.kind == "tombstone"], np.int64),
        texts=lambda offset, row: next(texts_of(e) for e in rows if (e.offset, e.row) == (offset, row)),
        features=lambda offset, row: next(features_of(e) for e in rows if (e.offset, e.row) == (offset, row)),
    )


def features_of(event: Event) -> dict[str, Any]:
    """What the plans do not have: one name of many, and one always."""
    return {"stranger": event.cells[0], f"s{event.id % 97}": event.cells[2]}


def texts_of(event: Event) -> dict[int, str]:
    return {text_hash(value): value for value in event.cells if isinstance(value, str)}


def new_collector(world: World) -> Collector:
    collector = Collector(5, world.plan, monitors=MONITORS, topic="predictions", config_hash="c", app_version="1")
    for plan in model_plans():
        collector.offer(plan)
    return collector


def run(world: World, cuts: list[int], crash: Any = None) -> tuple[Collector, list[Output]]:
    """Apply the log cut at `cuts`; `crash(collector)` after each chunk may replace the collector."""
    collector, outputs = new_collector(world), []
    n = len(world.log)
    number = 0
    bounds = sorted({0, n, *(c % (n + 1) for c in cuts), *world.decisions})
    for first, stop in zip(bounds, [*bounds[1:], n], strict=True):
        for kind, body in world.decisions.get(first, ()):
            number += 1
            at = collector.next_offset
            said = {"predictions": [at, at + body["lost"]]} if kind == GAP else body
            collector.decide(Decision(number, kind, {"predictions": at}, said))
        if stop > first:
            end = world.log[stop].offset if stop < n else world.log[-1].offset + 1
            collector.apply("predictions", to_columns(world.log[first:stop], end))
        outputs += collector.outbox
        collector.outbox.clear()
        if crash is not None:
            collector = crash(collector)
    return collector, outputs


# -- the recount


@dataclass
class Recount:
    """What the rules say, one event at a time."""

    world: World
    largest: int = EDGE_MIN
    floor: int = EDGE_MIN
    marked: int = EDGE_MIN
    open: dict[int, list[Event]] = field(default_factory=dict)
    ids: set[tuple[int, int]] = field(default_factory=set)
    plans: dict[str, list[tuple[int, ModelPlan | None]]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    said: list[Any] = field(default_factory=list)

    def go(self) -> Recount:
        self.plans = {p.model: [(EDGE_MIN, p)] for p in self.world.plan.models}
        position = 0
        for i in range(len(self.world.log) + 1):
            for kind, body in self.world.decisions.get(i, ()):
                self.decide(kind, body, position)
                position += body.get("lost", 0)
            if i < len(self.world.log):
                event = self.world.log[i]
                self.event(event)
                later = self.world.log[i + 1].offset if i + 1 < len(self.world.log) else event.offset + 1
                position = later
        return self

    def decide(self, kind: str, body: dict[str, Any], position: int) -> None:
        if kind == "tick":
            self.floor = max(self.floor, body["until_ms"])
            self.close(position)
        elif kind == GAP:
            self.counts["gap"] += body["lost"]
        else:
            edges = [self.marked, *(e + self.world.plan.resolution_ms for e in self.open)]
            chosen = next((p for p in model_plans() if p.hash == body["plan"]), None)
            self.plans[body["model"]].append((max(edges), chosen))

    def event(self, event: Event) -> None:
        plan = self.world.plan
        self.counts["consumed"] += 1
        if event.kind == "tombstone":
            self.counts["tombstones"] += 1
        elif event.kind == "reject" or event.time > event.record_time + plan.max_future_skew_ms:
            reason = "malformed_json" if event.kind == "reject" else "future_timestamp"
            self.counts["dead_letters"] += 1
            self.counts[f"reason:{reason}"] += 1
            self.said.append(("dead", event.offset, event.row, reason))
        elif event.time < max(self.largest - plan.lateness_ms, self.floor):
            self.counts["late"] += 1
        else:
            self.accept(event)
            self.largest = max(self.largest, event.time)
            self.close(event.offset + 1)

    def accept(self, event: Event) -> None:
        edge = event.time // self.world.plan.resolution_ms * self.world.plan.resolution_ms
        if self.world.plan.dedup and (edge, event.id) in self.ids:
            self.counts["duplicates"] += 1
            return
        self.ids.add((edge, event.id))
        self.counts["applied"] += 1
        self.open.setdefault(edge, []).append(event)
        if self.plan_of(event.model, edge) is None:
            self.counts["unknown_model"] += 1

    def plan_of(self, model: int, edge: int) -> ModelPlan | None:
        if model < 0:
            return None
        return [plan for first, plan in self.plans[MODELS[model]] if first <= edge][-1]

    def close(self, position: int) -> None:
        watermark, resolution = (
            max(self.largest - self.world.plan.lateness_ms, self.floor),
            self.world.plan.resolution_ms,
        )
        edge = EDGE_END if self.floor >= EDGE_END else watermark // resolution * resolution
        if edge <= self.marked:
            return
        for closed in sorted(e for e in self.open if e < edge):
            self.said += self.panes(closed, self.open.pop(closed))
        self.marked = edge
        force = {model: entries[-1][1] for model, entries in self.plans.items()}
        named = {model: plan.hash for model, plan in force.items() if plan is not None}
        self.said += [("marker", m, edge, position, dict(self.counts), named, self.largest) for m in range(MONITORS)]

    def panes(self, edge: int, events: list[Event]) -> list[Any]:
        groups: dict[tuple[str, str, int, str], list[Event]] = defaultdict(list)
        versions: dict[str, list[str]] = defaultdict(list)
        plans = {}
        for event in events:
            plan = self.plan_of(event.model, edge)
            if plan is None:
                groups["__unknown__", "", 0, "all"].append(event)
                continue
            plans[plan.model] = plan
            seen, version = versions[plan.model], event.version
            if version not in seen:
                if len(seen) < self.world.plan.versions_max:
                    seen.append(version)
                else:
                    version = "__other__"
            groups[plan.model, version, 0, "all"].append(event)
            rank = 0
            for s in () if plan.learning else plan.segments:
                text = category(event.cells[s.column])
                place = s.values.index(text) if text in s.values else len(s.values)
                name = f"{s.key}={text if text in s.values else '__other__'}"
                groups[plan.model, version, rank + place + 1, name].append(event)
                rank += len(s.values) + 1
        return [("pane", edge, k[0], k[1], k[3], pane_of(plans.get(k[0]), k[3], groups[k])) for k in sorted(groups)]


def category(value: Any) -> str | None:
    return None if value is None or value is INVALID else category_text(value)


def pane_of(plan: ModelPlan | None, segment_name: str, events: list[Event]) -> Any:
    if plan is None:
        return "", "", len(events), [], None
    sample = None
    if plan.sample_rows and segment_name == "all":
        # equal ids (without deduplication) keep the order of the log
        rows = sorted(events, key=lambda e: e.id)[: plan.sample_rows]
        cells = [(e.id >> 32, [cell_of(e.cells[t.column]) for t in plan.targets]) for e in rows]
        texts: set[str] = set()
        for t in plan.targets:
            words = [e.cells[t.column] for e in rows if isinstance(e.cells[t.column], str)]
            texts.update(list(dict.fromkeys(words))[:TEXTS])
        sample = (cells, {text_hash(text): text for text in texts if plan.learning})  # another needs only numbers
    targets = [target_of(t, segment_name, [e.cells[t.column] for e in events], plan.learning) for t in plan.targets]
    return plan.hash, plan.reference, len(events), targets, sample


def target_of(target: TargetPlan, segment_name: str, values: list[Any], learning: bool) -> Any:
    b = target.binning
    missing = sum(v is None for v in values)
    bins, sums, low, high, outside = [0] * b.bins, [0.0, 0.0], math.inf, -math.inf, 0
    registers = np.zeros(distinct.REGISTERS, np.uint8)
    if learning:
        return [], [0.0, 0.0], None, None, missing, sum(v is INVALID for v in values), 0, b""
    if b.kind is Kind.CATEGORICAL:
        texts = [category(v) for v in values if category(v) is not None]
        codes = dict(zip(b.key.tolist(), b.code.tolist(), strict=True))
        for text in texts:
            bins[codes.get(text_hash(text), b.bins - 1)] += 1
        if segment_name == "all":
            distinct.add(registers, np.array([text_hash(t) for t in texts], np.uint64))
        used = registers.tobytes() if segment_name == "all" else b""
        return bins, sums, None, None, missing, sum(v is INVALID for v in values), 0, used
    good = [v for v in values if isinstance(v, float) and math.isfinite(v)]
    for x in good:
        bins[bisect.bisect_right(b.cuts.tolist(), x)] += 1
        sums[0] += x - b.centre
        sums[1] += (x - b.centre) * (x - b.centre)
        low, high, outside = min(low, x), max(high, x), outside + (x < b.low or x > b.high)
    used = b""
    return (
        bins,
        sums,
        low if good else None,
        high if good else None,
        missing,
        len(values) - len(good) - missing,
        outside,
        used,
    )


def say(outputs: list[Output]) -> list[Any]:
    """Outputs in the recount's words."""
    said: list[Any] = []
    for output in outputs:
        if output.topic == "dead-letters":
            head = dict(output.headers)
            assert output.partition == 5
            said.append(("dead", int(head["dlq.offset"]), int(head["dlq.row"]), head["dlq.reason"].decode()))
            continue
        body = decode_record(output.value or b"")
        if isinstance(body, Marker):
            assert (output.barrier, body.partition) == (True, 5)
            counters = {k: v for k, v in body.counters.items() if v}
            said.append(
                (
                    "marker",
                    output.partition,
                    body.edge_ms,
                    body.next_offset["predictions"],
                    counters,
                    body.plans,
                    body.largest_ms,
                )
            )
        else:
            assert isinstance(body, Pane)
            assert output.key == body.model.encode()
            assert output.partition == text_hash(body.model) % MONITORS
            said.append(("pane", body.edge_ms, body.model, body.version, body.segment, plain(merge_blocks([body]))))
    return said


def plain(pane: Pane) -> Any:
    targets, distinct_rows = [], pane.distinct.by_target()
    for i in range(len(pane.names)):
        low, high = (None if math.isnan(x) else x for x in pane.extremes[i].tolist())
        kept = distinct_rows[i].tobytes() if i in distinct_rows else b""
        bins = pane.bins[pane.bin_start[i] : pane.bin_start[i + 1]].tolist()
        counts = [int(x[i]) for x in (pane.missing, pane.invalid, pane.out_of_range)]
        targets.append((bins, pane.sums[i].tolist(), low, high, *counts, kept))
    sample = None
    if pane.sample is not None:
        cells = [
            [(int(c), int(t)) for c, t in zip(*line, strict=True)]
            for line in zip(pane.sample.cell, pane.sample.tag, strict=True)
        ]
        sample = (list(zip(pane.sample.hash.tolist(), cells, strict=True)), pane.sample.texts)
    return pane.plan, pane.reference, pane.events, targets, sample


def without_empty(said: list[Any]) -> list[Any]:
    """Registers in which nothing was counted are the same as none."""
    for item in said:
        if item[0] == "pane":
            for i, t in enumerate(item[5][3]):
                item[5][3][i] = (*t[:7], t[7] if any(t[7]) else b"")
    return said


CUTS = st.lists(st.integers(0, 200), max_size=8)


@settings(max_examples=120, deadline=None)
@given(worlds(), CUTS)
def test_outputs_equal_the_recount(world: World, cuts: list[int]) -> None:
    collector, outputs = run(world, cuts)
    expected = Recount(world).go()
    got, want = say(outputs), without_empty(expected.said)
    for item, right in zip(got, want, strict=False):
        assert item == right
    assert len(got) == len(want)
    counters = collector.accounting()
    assert {
        n: getattr(counters, n) for n in ("consumed", "applied", "late", "duplicates", "dead_letters", "tombstones")
    } == {n: expected.counts[n] for n in ("consumed", "applied", "late", "duplicates", "dead_letters", "tombstones")}
    parts = counters.applied + counters.late + counters.duplicates + counters.dead_letters + counters.tombstones
    assert counters.consumed == parts == len(world.log)
    assert counters.gap == expected.counts["gap"]


@settings(max_examples=80, deadline=None)
@given(worlds(), CUTS)
def test_any_splitting_gives_the_same_bytes(world: World, cuts: list[int]) -> None:
    whole, outputs = run(world, [])
    parts, pieces = run(world, cuts)
    assert pieces == outputs
    assert parts.full_blobs() == whole.full_blobs()
    single, ones = run(world, list(range(len(world.log))))
    assert ones == outputs
    assert single.full_blobs() == whole.full_blobs()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1 << 20), CUTS)
def test_sums_run_in_log_order_whatever_the_cuts(seed: int, cuts: list[int]) -> None:
    g = np.random.default_rng(seed)
    values = g.normal(size=100) * 10.0 ** g.integers(-6, 7, 100)
    log = [Event(i, "event", 0, 5, 5, i << 60, 0, "", (float(x), None, None, None)) for i, x in enumerate(values)]
    plan = CollectorPlan(tuple(model_plans()[:3]), resolution_ms=60, lateness_ms=0, max_future_skew_ms=0)
    world = World(plan, log, {100: [("tick", {"until_ms": EDGE_END})]})
    _, outputs = run(world, [c % 101 for c in cuts])
    pane = next(body for o in outputs if isinstance(body := decode_record(o.value or b""), Pane))
    total = squares = 0.0
    for x in values.tolist():
        total += x - 0.1
        squares += (x - 0.1) * (x - 0.1)
    assert pane.sums[0].tolist() == [total, squares]
    assert outputs == run(world, [])[1]


@settings(max_examples=80, deadline=None)
@given(worlds(), CUTS, st.lists(st.sampled_from(["go on", "save", "move"]), min_size=1, max_size=6))
def test_a_snapshot_at_any_cut_continues_as_if_nothing_had_happened(
    world: World, cuts: list[int], acts: list[str]
) -> None:
    store: dict[str, bytes] = {}
    turn = iter(range(1 << 20))

    def crash(collector: Collector) -> Collector:
        act = acts[next(turn) % len(acts)]
        if act == "go on":
            return collector
        for name, blob in collector.changed_blobs().items():
            if blob is None:
                del store[name]
            else:
                assert not (name in store and name.startswith(("plan/", "ids/"))), "append-only and immutable"
                store[name] = blob
        assert collector.changed_blobs() == {}
        if act == "save":
            return collector
        moved = new_collector(world)
        moved.load(store)
        assert moved.full_blobs() == collector.full_blobs()
        assert moved.changed_blobs() == {}
        return moved

    whole, outputs = run(world, cuts)
    parts, pieces = run(world, cuts, crash)
    assert pieces == outputs
    assert parts.full_blobs() == whole.full_blobs()
