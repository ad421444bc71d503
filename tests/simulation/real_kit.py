"""The product's own stages in the world: Collector and Monitor on one numeric feature, two models, versions, one segment key."""

from __future__ import annotations

import bisect
import json
import math
import random
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import xxhash
from kits import BaseKit, CarelessMerger
from recount import Cell, Recount, distinct_outputs

from detectors.binning import Binning, Kind
from detectors.reference import ReferenceProfile, WindowRule
from detectors.reference_build import build_reference
from stream.collector import Collector
from stream.columns import Columns, Reject, Tag
from stream.monitor import MissingReference, ModelSettings, Monitor, MonitorSettings
from stream.ownership import PartitionOwner
from stream.panes import Pane
from stream.plan import CollectorPlan, ModelPlan, Role, SegmentPlan, TargetPlan
from stream.plan_codec import sealed
from stream.stage import Output

MODELS = ("m", "k")
VERSIONS = ("1", "2")
VALUES = ("a", "b")
COUNTRIES = ("a", "b", "elsewhere")
LOW, HIGH = 0.05, 0.95
CENTRE = 0.3
EVERY_MS, MIN_EVENTS, LONGEST_MS = 3_000, 6, 9_000
REMOVED = 0.1  # share of the switches that take the model out of the configuration


def text_hash(text: str) -> int:
    return int(xxhash.xxh3_64_intdigest(text.encode()))


def reference(seed: int) -> ReferenceProfile:
    """Windows of some fifty uniform values: live ones are carried until they hold as many, then judged."""
    values = np.random.default_rng(seed).random(1_500)
    rule = WindowRule(False, EVERY_MS, MIN_EVENTS, LONGEST_MS, 1_000)
    return build_reference("m", {"x": values}, {"x": "feature"}, time_ms=np.arange(1_500) * 60, window=rule)


PROFILES = {profile.id: profile for profile in map(reference, range(3))}


def model_plan(model: str, binning: Binning, reference_id: str, *, segments: bool) -> ModelPlan:
    binning = replace(binning, low=LOW, high=HIGH, centre=CENTRE)
    hashes = np.array([text_hash(value) for value in VALUES], np.uint64)
    country = (SegmentPlan("country", 1, VALUES, hashes),) if segments else ()
    return sealed(ModelPlan(model, reference_id, (TargetPlan("x", Role.FEATURE, 0, binning),), country))


PLANS = [
    model_plan("m", profile.targets[0].binning, profile.id, segments=place == 0)
    for place, profile in enumerate(PROFILES.values())
]
HALF = Binning(Kind.NUMERIC, np.array([0.5]), (0, 1), 0.0, 0.0, 1.0, np.empty(0, np.uint64), np.empty(0, np.int32), ())
STEADY = model_plan("k", HALF, "", segments=False)
CUTS = {plan.hash: plan.targets[0].binning.cuts.tolist() for plan in (*PLANS, STEADY)}
SEGMENTED = {plan.hash for plan in PLANS if plan.segments}
SETTINGS = MonitorSettings(
    {
        model: ModelSettings(model, WindowRule(False, EVERY_MS, MIN_EVENTS, LONGEST_MS, 1_000))
        for model in (*MODELS, "__unknown__")
    },
    1_000,
)


class RealKit(BaseKit):
    """Events are (time, record time, id, model or -1, version, value or None, country), None = tombstone, or "reject"."""

    settings = SETTINGS

    def collector(self, partition: int) -> Collector:
        plan = CollectorPlan((PLANS[0], STEADY), self.resolution_ms, self.lateness_ms, self.skew_ms)
        collector = Collector(
            partition, plan, monitors=self.monitors, topic="predictions", config_hash="c", app_version="1"
        )
        for other in PLANS:
            collector.offer(other)
        return collector

    def monitor(self, partition: int) -> Monitor:
        monitor = Monitor(partition, sources=self.partitions, settings=self.settings, profiles={}, app_version="1")
        if not self.rules.deduplicate:
            monitor.merger = CarelessMerger(self.partitions)
        return monitor

    def provide(self, stage: Monitor, waits: MissingReference) -> None:
        """What the shell does: fetch the reference."""
        assert isinstance(stage.profiles, dict)
        stage.profiles[waits.reference] = PROFILES[waits.reference]

    # -- events

    def event(self, generator: random.Random, now_ms: int, recorded_ms: int, log: list[Any]) -> Any:
        draw = generator.random()
        if draw < 0.02:
            return None if draw < 0.01 else "reject"
        if draw < 0.07 and log and isinstance(log[-1], tuple):
            return (log[-1][0], recorded_ms, *log[-1][2:])
        self._ident += 1
        model = -1 if generator.random() < 0.03 else generator.randrange(len(MODELS))
        value = None if generator.random() < 0.05 else generator.random()
        time = self.draw_time(generator, now_ms)
        version, country = VERSIONS[generator.random() < 0.2], generator.choice(COUNTRIES)
        return time, recorded_ms, self._ident, model, version, value, country

    def batch(self, log: list[Any], start: int, stop: int) -> Columns:
        rows = [(at, log[at]) for at in range(start, stop) if isinstance(log[at], tuple)]
        cell = np.zeros((len(rows), 2), np.uint64)
        tag = np.full((len(rows), 2), Tag.TEXT, np.uint8)
        values = np.array([event[5] or 0.0 for _, event in rows])
        cell[:, 0] = values.view(np.uint64)
        tag[:, 0] = [Tag.MISSING if event[5] is None else Tag.NUMBER for _, event in rows]
        cell[:, 1] = [text_hash(event[6]) for _, event in rows]
        return Columns(
            next_offset=stop,
            offset=np.array([at for at, _ in rows], np.int64),
            row=np.zeros(len(rows), np.int32),
            event_time_ms=np.array([event[0] for _, event in rows], np.int64),
            record_time_ms=np.array([event[1] for _, event in rows], np.int64),
            id_high=np.array([event[2] for _, event in rows], np.uint64),
            id_low=np.zeros(len(rows), np.uint32),
            model=np.array([event[3] for _, event in rows], np.int32),
            version=np.array([text_hash(event[4]) for _, event in rows], np.uint64),
            cell=cell,
            tag=tag,
            version_names={text_hash(version): version for version in VERSIONS},
            rejects=tuple(
                Reject(at, 0, "malformed_json", "", "", None, b"{", 0)
                for at in range(start, stop)
                if log[at] == "reject"
            ),
            tombstone_offset=np.array([at for at in range(start, stop) if log[at] is None], np.int64),
        )

    def plain(self, event: Any) -> tuple[Any, ...]:
        time, recorded, ident, model, version, value, country = event
        known = model >= 0
        return (
            time,
            recorded,
            ident,
            MODELS[model] if known else "__unknown__",
            version if known else "",
            (value, country),
        )

    def first_plans(self) -> dict[str, str]:
        return {"m": PLANS[0].hash, "k": STEADY.hash}

    def switch(self, owner: PartitionOwner, generator: random.Random) -> bool:
        if generator.random() < 0.6:  # leave time for windows between transitions
            return False
        plan = "" if generator.random() < REMOVED else generator.choice(PLANS).hash
        owner.decide("plan", {"model": "m", "plan": plan})
        return True

    def watermark_ms(self, stage: Collector) -> int:
        return stage.watermark_ms

    def dead_letter_offset(self, output: Output) -> int:
        return int(dict(output.headers)["dlq.offset"])

    def output_id(self, output: Output) -> bytes:
        """Of a windows record: what it is about."""
        body = json.loads(output.value or b"")
        return json.dumps(
            [body["model"], body["series"], body["collector"], body["segment"], body["window"]["start_ms"]]
        ).encode()

    # -- comparison

    def said(self, pane: Pane) -> Any:
        return (
            pane.events,
            pane.plan,
            pane.bins.tolist(),
            pane.missing.tolist(),
            pane.out_of_range.tolist(),
            pane.sums.tolist(),
            [None if math.isnan(value) else value for value in pane.extremes.ravel().tolist()],
        )

    def expected(self, key: tuple[Any, ...], cell: Cell) -> dict[str, Any]:
        segments = defaultdict(list, {"all": cell.rows})
        if cell.plan in SEGMENTED:
            for value, country in cell.rows:
                segments[f"country={country if country in VALUES else '__other__'}"].append((value, country))
        return {segment: self._expected(cell.plan, rows) for segment, rows in segments.items()}

    def _expected(self, plan: str, rows: list[Any]) -> Any:
        if not plan:
            return len(rows), plan, [], [], [], [], []
        cuts = CUTS[plan]
        bins, first, second, outside = [0] * (len(cuts) + 1), 0.0, 0.0, 0
        values = [value for value, _ in rows if value is not None]
        for value in values:
            bins[bisect.bisect_right(cuts, value)] += 1
            first += value - CENTRE
            second += (value - CENTRE) * (value - CENTRE)
            outside += not LOW <= value <= HIGH
        extremes = [min(values), max(values)] if values else [None, None]
        return len(rows), plan, bins, [len(rows) - len(values)], [outside], [[first, second]], extremes

    def compare_windows(self, world: Any, result: Recount) -> list[str]:
        """Windows of a model do not overlap and hold every event once; each record equals the recount of its edges.

        Records of inputs (series = reference) show the version that feeds them, and what was carried into a judgement.
        """
        records, wrong = distinct_outputs(world, "windows")
        counts: Counts = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
        for (p, model, version, edge), cell in result.panes.items():
            for segment, said in self.expected((p, model, version, edge), cell).items():
                counts[model][edge][cell.plan, version, segment].append(said)
        bodies: dict[str, list[Any]] = defaultdict(list)
        for body in map(json.loads, records.values()):
            bodies[body["model"]].append(body)
            world.counts[f"windows {body['state']}"] += 1
        for model in sorted(set(counts) | set(bodies)):
            wrong += compare_model(world, model, bodies[model], counts[model])
        return wrong


Counts = dict[str, dict[int, dict[tuple[str, str, str], list[Any]]]]


def compare_model(world: Any, model: str, bodies: list[Any], counts: Any) -> list[str]:
    wrong: list[str] = []
    windows = {body["window"]["start_ms"]: (body["window"]["end_ms"], body["window"]["events"]) for body in bodies}
    listed = sorted((start, *rest) for start, rest in windows.items())
    expected, parts = contents(listed, counts, model, wrong)
    world.counts["windows"] += len(listed)
    if listed != expected:
        wrong.append(f"windows of {model}: {listed}, recounted {expected}")
    if model != "m" and listed != window_list(counts):
        wrong.append(f"window list of {model}: {listed}, recounted {window_list(counts)}")
    got = {}
    for body in bodies:
        start, plan = body["window"]["start_ms"], body["collector"]
        said = [parts.get((start, plan, version, body["segment"]), []) for version in body["versions"]]
        if body["series"] != body["reference"] or not body["reference"]:
            got[start, plan, body["versions"][0], body["segment"]] = body["events"]
        elif body["state"] in ("recorded", "transition"):
            panes = [pane for panes in said for pane in panes]
            events, bins = sum(pane[0] for pane in panes), np.sum([pane[2] for pane in panes], axis=0).tolist()
            world.counts["windows with bins"] += 1
            if panes and (body["events"], body["targets"]["x"]["bins"]) != (events, bins):
                wrong.append(f"window {model} {start} {body['segment']}: {body['targets']}, recounted {events} {bins}")
    for key in sorted(set(parts) | set(got)):
        events = sum(pane[0] for pane in parts.get(key, []))
        if got.get(key) != events:
            wrong.append(f"window {model} {key}: {got.get(key)}, recounted {events}")
    return wrong


def contents(
    listed: list[Any], counts: Any, model: str, wrong: list[str]
) -> tuple[list[Any], dict[tuple[Any, ...], list[Any]]]:
    """What the windows with these bounds hold by the recount, in all and by (start, plan, version, segment)."""
    expected, parts = [], defaultdict(list)
    left = set(counts)
    for start, end, _ in listed:
        inside = sorted(edge for edge in left if start <= edge < end)
        left -= set(inside)
        events = 0
        for edge in inside:
            for (plan, version, segment), panes in counts[edge].items():
                parts[start, plan, version, segment] += panes
                events += sum(pane[0] for pane in panes) if segment == "all" else 0
        expected.append((start, end, events))
    if left:
        wrong.append(f"{model}: edges in no window: {sorted(left)}")
    if any(first[1] > second[0] for first, second in pairwise(listed)):
        wrong.append(f"{model}: windows overlap: {listed}")
    return expected, dict(parts)


def window_list(counts: Any) -> list[tuple[int, int, int]]:
    """The list of a model that never changes its plan, by the rule of contracts.md."""
    found, start, last, events = [], None, 0, 0

    def due(until: float) -> None:
        nonlocal start, events
        if start is None:
            return
        enough = events >= MIN_EVENTS
        end = max(start + EVERY_MS, last) if enough else start + LONGEST_MS
        if end <= until:
            found.append((start, end, events))
            start, events = None, 0

    for edge in sorted(counts):
        due(edge)
        start = edge if start is None else start
        last = edge + RealKit.resolution_ms
        events += sum(pane[0] for (_, _, segment), panes in counts[edge].items() if segment == "all" for pane in panes)
    due(math.inf)
    return found
