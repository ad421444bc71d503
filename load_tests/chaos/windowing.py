"""The windows that must be there, from the recounted panes and markers (contracts.md, Windows), and the records of the topic.

A window starts at the first non-empty edge after the last one; it closes once `every` has passed and `min_events` are in it, or
after the longest time; it is cut where the plan in force changes. Independent of the product.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from load_tests.chaos.kept import close
from load_tests.chaos.recount import LOWEST, Cell, Counted, Finding, ModelRules, Rules
from load_tests.chaos.wire import ALL, Plan, Reference, text_hash

MINUTE_MS, HOUR_MS = 60_000, 3_600_000


class Group(NamedTuple):
    """Panes that are added."""

    plan: str
    reference: str
    version: str
    segment: str


class Sum:
    """Cells of one plan, added in the order of edges and partitions."""

    def __init__(self, plan: Plan) -> None:
        n = len(plan.targets)
        self.plan, self.events = plan, 0
        self.bins: list[dict[int, int]] = [{} for _ in range(n)]
        self.tally = [[0, 0, 0] for _ in range(n)]
        self.sums = [[0.0, 0.0] for _ in range(n)]
        self.ranges: list[list[float]] = [[math.inf, -math.inf] for _ in range(n)]

    def add(self, other: Cell | Sum) -> None:
        self.events += other.events
        for place in range(len(self.bins)):
            own = self.bins[place]
            for at, count in other.bins[place].items():
                own[at] = own.get(at, 0) + count
            self.tally[place] = [a + b for a, b in zip(self.tally[place], other.tally[place], strict=True)]
            self.sums[place] = [a + b for a, b in zip(self.sums[place], other.sums[place], strict=True)]
            low, high = other.ranges[place]
            self.ranges[place] = [min(self.ranges[place][0], low), max(self.ranges[place][1], high)]


@dataclass
class Expected:
    """One record of the windows topic, its parts joined. state: transition, or anything else."""

    series: str
    versions: list[str]
    segment: str
    start_ms: int
    end_ms: int
    window_events: int
    plan: str
    transition: bool
    whole: Sum
    names: list[str]

    def key(self, model: str) -> tuple[Any, ...]:
        return model, self.series, self.segment, self.start_ms, self.end_ms, self.plan


@dataclass
class _Open:
    """The window list of one model."""

    model: str
    rules: ModelRules
    resolution_ms: int
    references: Mapping[str, Reference]
    start: int | None = None
    last: int = 0
    events: int = 0
    steady: str | None = None
    reference: str = ""
    groups: dict[Group, Sum] = field(default_factory=dict)
    previous: dict[str, int] | None = None
    found: list[Expected] = field(default_factory=list)

    def lengths(self) -> tuple[int, int, int]:
        """every, min_events, longest (0 = none), in whole panes."""
        own = self.references.get(self.reference)
        learning = max(self.resolution_ms, MINUTE_MS)
        rule = (learning, self.rules.min_events, max(12 * learning, HOUR_MS))
        if self.rules.window is not None:
            rule = self.rules.window
        elif own is not None and own.complete:
            rule = (own.windows["every_ms"], own.windows["min_events"], own.windows["max_duration_ms"])
        whole = [-(-length // self.resolution_ms) * self.resolution_ms for length in (rule[0], rule[2])]
        every = max(whole[0], self.resolution_ms)
        return every, max(rule[1], 1), max(every, whole[1]) if whole[1] else 0

    def due(self, until_ms: int) -> None:
        every, enough, longest = self.lengths()
        if self.start is None:
            return
        if self.events >= enough:
            end = max(self.start + every, self.last)
        elif longest:
            end = self.start + longest
        else:
            return
        if end <= until_ms:
            self._end(end)

    def edge(self, edge_ms: int, cells: Mapping[Group, Sum], in_force: set[str]) -> None:
        """One complete edge with events; `in_force`: the plans of all partitions' markers that passed it."""
        self.due(edge_ms)
        present = {group.plan for group in cells}
        if present != {self.steady}:
            if self.steady is not None:
                self._end(edge_ms)
                self.steady = None
            if len(present) == 1 and present == in_force:
                self._end(edge_ms)
                group = next(iter(cells))
                if group.reference != self.reference:
                    self.previous = None
                self.steady, self.reference = group.plan, group.reference
        if self.start is None:
            self.start = edge_ms
        self.last = edge_ms + self.resolution_ms
        for group, cell in cells.items():
            self.events += cell.events if group.segment == ALL else 0
            if group in self.groups:
                self.groups[group].add(cell)
            else:
                self.groups[group] = cell

    def _end(self, end_ms: int) -> None:
        if self.start is None:
            return
        now: dict[str, int] = defaultdict(int)
        for group, whole in self.groups.items():
            if group.segment == ALL:
                now[group.version] += whole.events
        before = now if self.previous is None or not any(self.previous.values()) else self.previous
        main = min(before, key=lambda version: (-before[version], version))
        for plan, reference in sorted({group[:2] for group in self.groups}):
            own = {group: whole for group, whole in self.groups.items() if group[:2] == (plan, reference)}
            feeding = sorted({group.version for group in own}) if self.rules.split else [main]
            self._records(end_ms, plan, reference, own, feeding)
        if self.steady is not None:
            self.previous = dict(now)
        self.start, self.events, self.groups = None, 0, {}

    def _records(self, end_ms: int, plan: str, reference: str, own: dict[Group, Sum], feeding: list[str]) -> None:
        assert self.start is not None
        some = next(iter(own.values())).plan
        roles = {} if not reference else {target.name: target.role for target in self.references[reference].targets}
        features = [target.name for target in some.targets if roles.get(target.name) == "feature"]
        outputs = [target.name for target in some.targets if roles.get(target.name, "feature") != "feature"]
        window = (self.start, end_ms, self.events, plan, self.steady is None)
        for segment in sorted({group.segment for group in own}):
            fed = [own[plan, reference, v, segment] for v in feeding if (plan, reference, v, segment) in own]
            if reference and (fed or segment == ALL):
                whole = Sum(some)
                for each in fed:
                    whole.add(each)
                self.found.append(Expected(reference, feeding, segment, *window, whole, features))
        for group, whole in own.items():
            names = outputs if reference else []
            series = f"version:{group.version}"
            self.found.append(Expected(series, [group.version], group.segment, *window, whole, names))


def expected_windows(
    counted: Sequence[Counted], rules: Rules, references: Mapping[str, Reference]
) -> dict[tuple[Any, ...], Expected]:
    """Every record, by (model, series, segment, start, end, plan)."""
    low = min((one.markers[-1].edge_ms if one.markers else LOWEST for one in counted), default=LOWEST)
    edges: dict[tuple[int, str], list[tuple[int, Group, Cell]]] = defaultdict(list)
    for one in counted:
        for (partition, edge, model, version, segment), cell in one.panes.items():
            if edge < low:
                group = Group(cell.plan.hash, cell.plan.reference, version, segment)
                edges[edge, model].append((partition, group, cell))
    models: dict[str, _Open] = {}
    passed = [0] * len(counted)
    for edge, model in sorted(edges):
        for place, one in enumerate(counted):
            while one.markers[passed[place]].edge_ms <= edge:
                passed[place] += 1
        merged: dict[Group, Sum] = {}
        for _, group, cell in sorted(edges[edge, model], key=lambda item: item[:2]):
            merged.setdefault(group, Sum(cell.plan)).add(cell)
        in_force = {one.markers[passed[place]].plans.get(model, "") for place, one in enumerate(counted)}
        if model not in models:
            own = rules.models.get(model, ModelRules())
            models[model] = _Open(model, own, rules.resolution_ms, references)
        models[model].edge(edge, merged, in_force)
    found = {}
    for model, state in models.items():
        state.due(low)
        found |= {each.key(model): each for each in state.found}
    return found


def bodies(records: Iterable[Any], findings: list[Finding], monitors: int) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The records of the topic by key, parts joined. Repeats that differ, and records in the wrong partition, are findings."""
    written: dict[tuple[Any, ...], bytes] = {}
    joined: dict[tuple[Any, ...], dict[str, Any]] = {}
    for record in records:
        body = json.loads(record[4])
        window = body["window"]
        place = (body["series"], body["segment"], window["start_ms"], window["end_ms"], body["collector"])
        key = (body["model"], *place)
        if record[0] != text_hash(body["model"]) % monitors:
            findings.append(("wrong", f"window {key} in windows-{record[0]}"))
        part = (*key, body.get("part", 0))
        first = part not in written
        if written.setdefault(part, record[4]) != record[4]:
            findings.append(("wrong", f"window {part} was written twice, and not the same"))
        if first:
            known = joined.setdefault(key, body)
            known["targets"] |= body["targets"]
            known["seen"] = known.get("seen", 0) + 1
    for key, body in joined.items():
        missing = body.get("parts", 1) - body.pop("seen")
        if missing:
            findings.append(("lost", f"window {key}: {missing} of its parts"))
    return joined


def compare_windows(
    said: Mapping[tuple[Any, ...], dict[str, Any]], expected: Mapping[tuple[Any, ...], Expected]
) -> list[Finding]:
    """Every window, its events, bins, means and shares. One that overlaps others of its series counts events twice."""
    findings: list[Finding] = []
    for key in sorted(set(said) - set(expected)):
        taken = any(key[:3] == other[:3] and key[5] == other[5] and key[3] < other[4] and other[3] < key[4]
                    for other in expected if other in said)  # fmt: skip
        findings.append(("double" if taken else "spurious", f"window {key}: {said[key]['events']} events"))
    for key in sorted(expected):
        each = expected[key]
        if key not in said:
            findings.append(("lost", f"window {key}: {each.whole.events} events"))
            continue
        body = said[key]
        for name, one, other in (("events", body["events"], each.whole.events),
                                 ("window.events", body["window"]["events"], each.window_events)):  # fmt: skip
            if one != other:
                findings.append(("double" if one > other else "lost", f"window {key}: {name} {one}, recounted {other}"))
        findings += [
            ("wrong", f"window {key}: {what} {one}, recounted {other}") for what, one, other in _of(body, each)
        ]
    return findings


def _of(body: Mapping[str, Any], each: Expected) -> Iterable[tuple[str, Any, Any]]:
    if body["versions"] != each.versions:
        yield "versions", body["versions"], each.versions
    if (body["state"] == "transition") != each.transition:
        yield "transition", body["state"], each.transition
    if sorted(body["targets"]) != sorted(each.names):
        yield "targets", sorted(body["targets"]), sorted(each.names)
        return
    places = {target.name: place for place, target in enumerate(each.whole.plan.targets)}
    for name in each.names:
        place = places[name]
        target, own, whole = each.whole.plan.targets[place], body["targets"][name], each.whole
        bins = [whole.bins[place].get(at, 0) for at in range(target.bins)]
        if own["bins"] != bins:
            yield f"{name} bins", own["bins"], bins
        numeric = target.kind == "numeric"
        values, events = sum(bins), whole.events
        expected: dict[str, float | None] = {
            "missing": whole.tally[place][0] / events if events else None,
            "invalid": whole.tally[place][1] / events if events else None,
            "out_of_range": whole.tally[place][2] / events if numeric and events else None,
        }
        if numeric:
            low, high = whole.ranges[place]
            mean = whole.sums[place][0] / values if values else None
            expected |= {
                "mean": None if mean is None else mean + target.centre,
                "min": low if values else None,
                "max": high if values else None,
            }
        for what, other in expected.items():
            if not close(own[what], other):
                yield f"{name} {what}", own[what], other
