"""The independent recount: what must be there, event by event, from the source logs and the journal. Plain Python.

Rules are restated from contracts.md (Time, Identity, Decisions, From collector to monitor); nothing of the product is
imported, tests/unit/test_chaos_verdict.py asserts it. About 60 us an event of 22 targets.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from load_tests.chaos.reading import ABSENT, Number, Refused, Shape, as_float, lookup, read, split
from load_tests.chaos.wire import ALL, Marker, Plan, Target, text_hash

LOWEST, END = -(1 << 62), 1 << 62
OTHER, UNKNOWN = "__other__", "__unknown__"
VERSIONS_MAX = 20
REGISTER_BITS = 11
LOOKED_AT_MASK = 255  # of the id's last bits: the events whose schema is looked at
JSON_TYPES = 7  # number, text, bool, null, array, object, no finite number
TERMS = ("applied", "dead_letters", "duplicates", "late", "tombstones")
NO_PLAN = Plan("", UNKNOWN, "", [])

Finding = tuple[str, str]  # lost, double, wrong or spurious; and what
PaneKey = tuple[int, int, str, str, str]  # partition, edge, model, version, segment


@dataclass
class ModelRules:
    """What the configuration says of one model. window: (every, min_events, longest) in ms; None = the reference's own."""

    unwatched: set[str] = field(default_factory=set)
    columns: set[str] = field(default_factory=set)  # of the reference's file, that are no features
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    segments: dict[str, tuple[str, ...]] = field(default_factory=dict)
    window: tuple[int, int, int] | None = None
    min_events: int = 500
    split: bool = False
    learns: bool = False


@dataclass
class Rules:
    """What the configuration says of everything. `mapping` is as in the configuration."""

    topic: str
    partitions: int
    monitors: int
    resolution_ms: int
    lateness_ms: int
    skew_ms: int
    dedup: bool
    mapping: dict[str, Any]
    models: dict[str, ModelRules]


@dataclass(frozen=True, slots=True)
class Decision:
    """One entry of the journal: it stands before the record at `position`."""

    number: int
    kind: str
    position: int
    body: dict[str, Any]


def journal(values: Iterable[bytes], findings: list[Finding]) -> dict[tuple[str, int], list[Decision]]:
    """Decisions by (stage, partition), by number, repeats dropped. Two of one number, and holes, are findings."""
    found: dict[tuple[str, int], dict[int, Decision]] = defaultdict(dict)
    for value in values:
        body = json.loads(value)
        place = body["position"].get("predictions", 0)
        decision = Decision(body["number"], body["kind"], place, body["body"])
        known = found[body["stage"], body["partition"]].setdefault(body["number"], decision)
        if known != decision:
            findings.append(("wrong", f"journal: two decisions of one number: {known}, {decision}"))
    for (stage, partition), numbered in found.items():
        holes = sorted(set(range(1, max(numbered) + 1)) - set(numbered))
        findings += [("lost", f"journal: decision {hole} of {stage} {partition}") for hole in holes]
    return {place: [numbered[number] for number in sorted(numbered)] for place, numbered in found.items()}


class Cell:
    """One pane: what its events say of each target."""

    __slots__ = ("bins", "events", "ids", "plan", "ranges", "registers", "schema", "sums", "tally")

    def __init__(self, plan: Plan, *, registers: bool) -> None:
        n = len(plan.targets)
        self.plan = plan
        self.events = 0
        self.bins: list[dict[int, int]] = [{} for _ in range(n)]
        self.tally = [[0, 0, 0] for _ in range(n)]  # missing, invalid, out of range
        self.sums = [[0.0, 0.0] for _ in range(n)]
        self.ranges: list[list[float]] = [[float("inf"), float("-inf")] for _ in range(n)]
        self.registers: dict[int, dict[int, int]] | None = {} if registers else None
        self.ids: list[int] | None = [] if plan.learning and registers else None
        self.schema: Schema | None = None  # of `all`, once an event was looked at


@dataclass
class Schema:
    """What the looked-at events of one pane have besides the plan's features: names that it lacks, values of another type."""

    looked: int = 0
    names: dict[str, list[int]] = field(default_factory=dict)
    odd: dict[int, list[int]] = field(default_factory=dict)


class Compiled:
    """A plan as events are counted with it."""

    def __init__(self, plan: Plan, shape: Shape) -> None:
        self.plan = plan
        self.targets = [
            (place, shape.keys(target.name, target.role), target) for place, target in enumerate(plan.targets)
        ]
        self.segments = [
            (key, shape.keys(key, "segment"), frozenset(values)) for key, values in plan.segments.items()
        ]  # fmt: skip
        self.features = {t.name: (place, t.kind) for place, t in enumerate(plan.targets) if t.role == "feature"}
        self.container = split(shape.mapping["features"])
        self.known = {target.name for target in plan.targets} | set(plan.known)

    def look(self, cell: Cell, body: dict[str, Any]) -> None:
        """Look at the schema of one event. Every category of this traffic is a text."""
        features = lookup(body, self.container)
        if not self.features or type(features) is not dict:
            return
        schema = cell.schema = cell.schema or Schema()
        schema.looked += 1
        for name, value in features.items():
            held = json_type(value)
            if name not in self.known:
                schema.names.setdefault(name, [0] * JSON_TYPES)[held] += 1
            elif name in self.features and value is not None:
                place, kind = self.features[name]
                if held != (0 if kind == "numeric" else 1):
                    schema.odd.setdefault(place, [0] * JSON_TYPES)[held] += 1

    def count(self, cell: Cell, body: dict[str, Any]) -> None:
        """Count one event, after all before it in the log."""
        cell.events += 1
        learning = self.plan.learning
        for place, keys, target in self.targets:
            value = lookup(body, keys)
            if value is None or value is ABSENT:
                cell.tally[place][0] += 1
            elif learning:
                cell.tally[place][1] += category(value) is None
            elif target.kind == "numeric":
                number = as_float(value) if type(value) is Number else None
                if number is None:
                    cell.tally[place][1] += 1
                else:
                    _count_number(cell, place, target, number)
            else:
                _count_category(cell, place, target, value)


def _count_number(cell: Cell, place: int, target: Target, x: float) -> None:
    bins, sums, ends = cell.bins[place], cell.sums[place], cell.ranges[place]
    at = bisect_right(target.cuts, x)
    bins[at] = bins.get(at, 0) + 1
    d = x - target.centre
    sums[0] += d
    sums[1] += d * d
    ends[0], ends[1] = min(ends[0], x), max(ends[1], x)
    if x < target.low or x > target.high:
        cell.tally[place][2] += 1


def _count_category(cell: Cell, place: int, target: Target, value: Any) -> None:
    text = category(value)
    if text is None:
        cell.tally[place][1] += 1
        return
    hashed, register, rank = _hashed(text)
    at = target.codes.get(hashed, target.bins - 1)
    cell.bins[place][at] = cell.bins[place].get(at, 0) + 1
    if cell.registers is not None:
        own = cell.registers.setdefault(place, {})
        if own.get(register, 0) < rank:
            own[register] = rank


def json_type(value: Any) -> int:
    """0 number, 1 text, 2 bool, 3 null, 4 array, 5 object, 6 a number that is not finite."""
    if type(value) is Number:
        return 6 if as_float(value) is None else 0
    types = {str: 1, bool: 2, type(None): 3, list: 4, dict: 5}
    return types.get(type(value), 6)


def category(value: Any) -> str | None:
    """The text under which a scalar is a category; None = it is none."""
    if type(value) is Number:
        number = as_float(value)
        if number is None:
            return None
        return str(int(number)) if number.is_integer() and abs(number) < 2.0**53 else repr(number)
    if isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool) else None


_known: dict[str, tuple[int, int, int]] = {}


def _hashed(text: str) -> tuple[int, int, int]:
    """Hash, and the register and rank of the distinct count (HyperLogLog with 2,048 registers)."""
    found = _known.get(text)
    if found is None:
        hashed = text_hash(text)
        rest = hashed & ((1 << (64 - REGISTER_BITS)) - 1)
        found = (hashed, hashed >> (64 - REGISTER_BITS), 64 - REGISTER_BITS - rest.bit_length() + 1)
        if len(_known) < 1_000_000:
            _known[text] = found
    return found


@dataclass
class Counted:
    """What one partition must have come to. panes: those that a marker has passed; markers in order."""

    partition: int
    counters: Counter[str] = field(default_factory=Counter)
    panes: dict[PaneKey, Cell] = field(default_factory=dict)
    markers: list[Marker] = field(default_factory=list)
    letters: dict[tuple[int, int, int], str] = field(default_factory=dict)
    largest_ms: int = LOWEST


@dataclass
class Edge:
    """An open edge: ids seen, versions with panes of their own."""

    ids: set[int] = field(default_factory=set)
    versions: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    cells: dict[tuple[str, str, str], Cell] = field(default_factory=dict)


class Recount:
    """One partition, record by record, with the decisions where they stand."""

    def __init__(self, partition: int, rules: Rules, shape: Shape, plans: Mapping[str, Compiled]) -> None:
        self.rules, self.shape, self.plans = rules, shape, plans
        self.out = Counted(partition)
        self.floor = self.marked = LOWEST
        self.skip_until = 0
        self.schedule: dict[str, list[tuple[int, str]]] = {}
        self.open: dict[int, Edge] = {}

    def run(self, records: Sequence[Any], decisions: Sequence[Decision], first: Mapping[str, str]) -> list[Finding]:
        """`records`: (partition, offset, timestamp_ms, key, value, ...) in offset order; `first`: model -> plan hash before
        any decision. What is wrong with the journal itself is returned.
        """
        self.schedule = {model: [(LOWEST, plan)] for model, plan in first.items()}
        findings: list[Finding] = []
        due = iter(decisions)
        decision = next(due, None)
        for record in records:
            while decision is not None and decision.position <= record[1]:
                findings += self._decide(decision)
                decision = next(due, None)
            if record[1] >= self.skip_until:
                self._take(record[1], record[2], record[4])
        while decision is not None:
            findings += self._decide(decision)
            decision = next(due, None)
        return findings

    @property
    def _watermark(self) -> int:
        return max(self.out.largest_ms - self.rules.lateness_ms, self.floor)

    def _decide(self, decision: Decision) -> list[Finding]:
        body, resolution = decision.body, self.rules.resolution_ms
        if decision.kind == "tick":
            self.floor = max(self.floor, body["until_ms"])
            edge = END if self.floor >= END else self._watermark // resolution * resolution
            if edge > self.marked:
                self._close(edge, decision.position, self.out.largest_ms, idle=edge < END)
        elif decision.kind == "plan":
            first = max([self.marked, *(edge + resolution for edge in self.open)])
            earlier = [entry for entry in self.schedule.get(body["model"], []) if entry[0] < first]
            if (earlier[-1][1] if earlier else "") != body["plan"]:
                earlier.append((first, body["plan"]))
            self.schedule[body["model"]] = earlier
            if body["plan"] and body["plan"] not in self.plans:
                return [("wrong", f"journal: plan {body['plan']} of {body['model']} follows from no stored reference")]
        elif decision.kind == "gap":
            start, stop = body["predictions"]
            self.skip_until = stop
            self.out.counters["gap"] += stop - start
        else:
            return [("wrong", f"journal: a decision of kind {decision.kind!r}")]
        return []

    def _take(self, offset: int, record_ms: int, value: bytes | None) -> None:
        counters, rules = self.out.counters, self.rules
        counters["consumed"] += 1
        if value is None:
            counters["tombstones"] += 1
            return
        try:
            event = read(value, record_ms, self.shape)
        except Refused as refused:
            self._refuse(offset, refused.args[0])
            return
        if event.time_ms > record_ms + rules.skew_ms:
            self._refuse(offset, "future_timestamp")
            return
        if event.time_ms < self._watermark:
            counters["late"] += 1
            return
        at = event.time_ms // rules.resolution_ms * rules.resolution_ms
        edge = self.open.get(at)
        if edge is None:
            edge = self.open[at] = Edge()
        if rules.dedup and event.ident in edge.ids:
            counters["duplicates"] += 1
        else:
            edge.ids.add(event.ident)
            self._apply(at, edge, event)
        if event.time_ms > self.out.largest_ms:
            self.out.largest_ms = event.time_ms
            if self._watermark >= self.marked + rules.resolution_ms:
                closed = self._watermark // rules.resolution_ms * rules.resolution_ms
                self._close(closed, offset + 1, event.time_ms, idle=False)

    def _refuse(self, offset: int, reason: str) -> None:
        self.out.counters["dead_letters"] += 1
        self.out.counters[f"reason:{reason}"] += 1
        self.out.letters[self.out.partition, offset, 0] = reason

    def _apply(self, at: int, edge: Edge, event: Any) -> None:
        self.out.counters["applied"] += 1
        plan = next((p for first, p in reversed(self.schedule.get(event.model, ())) if first <= at), "")
        compiled = self.plans.get(plan)
        if not plan or compiled is None:
            self.out.counters["unknown_model"] += 1
            cell = edge.cells.get((UNKNOWN, "", ALL))
            if cell is None:
                cell = edge.cells[UNKNOWN, "", ALL] = Cell(NO_PLAN, registers=False)
            cell.events += 1
            return
        version, known = event.version, edge.versions[event.model]
        if version not in known:
            if len(known) >= VERSIONS_MAX or version == OTHER:
                version = OTHER
            else:
                known.add(version)
        names = [ALL]
        if not compiled.plan.learning:
            for key, keys, values in compiled.segments:
                text = category(lookup(event.body, keys))
                names.append(f"{key}={text}" if text in values else f"{key}={OTHER}")
        for name in names:
            cell = edge.cells.get((event.model, version, name))
            if cell is None:
                cell = edge.cells[event.model, version, name] = Cell(compiled.plan, registers=name == ALL)
            compiled.count(cell, event.body)
            if cell.ids is not None:
                cell.ids.append(event.ident >> 32)
            if name == ALL and not compiled.plan.learning and event.ident & LOOKED_AT_MASK == 0:
                compiled.look(cell, event.body)

    def _close(self, edge_ms: int, next_offset: int, largest_ms: int, *, idle: bool) -> None:
        """Everything before `edge_ms` is sent, then the marker."""
        for at in sorted(edge for edge in self.open if edge < edge_ms):
            for (model, version, segment), cell in self.open.pop(at).cells.items():
                self.out.panes[self.out.partition, at, model, version, segment] = cell
        self.marked = edge_ms
        counters = dict(self.out.counters)
        plans = {model: entries[-1][1] for model, entries in self.schedule.items() if entries and entries[-1][1]}
        self.out.markers.append(
            Marker(
                self.out.partition, "inputs", edge_ms, {"predictions": next_offset}, counters, plans, largest_ms, idle
            )
        )
