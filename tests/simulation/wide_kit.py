"""The product's stages with everything on: schema changes, volume, segment shares, row series, also of arrays, limits of the
reference, hours, learning.

Events are JSON that the product decodes. Every hour of event time has its own trouble, so incidents open and end. Beside the
recount of every event, what the faulted world wrote is compared with what the stages write when nothing ever fails: the same
logs and decisions, each log in one batch, without a snapshot.
"""

from __future__ import annotations

import json
import math
import random
import tempfile
from collections import Counter, defaultdict
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import xxhash
from kits import BaseKit, CarelessMerger
from pyarrow import parquet
from quiet import differences, quiet_outputs
from recount import Cell, Recount, journal, kept_panes

from detectors.reference import ReferenceProfile
from stream.collector import Collector
from stream.columns import Columns
from stream.config import Config, config_from
from stream.deadletter import REASONS
from stream.decode import decode
from stream.kernels.framing import records_from_lines
from stream.monitor import MissingReference, Monitor
from stream.ownership import PartitionOwner
from stream.panes import Pane, encode_pane
from stream.plan import ModelPlan
from stream.planning import collector_plan, model_plan, monitor_settings
from stream.preflight import build_from_file
from stream.reference_records import ReferenceLog
from stream.stage import Decision, Output

WIDE, YOUNG = "wide", "young"
SCALE = 300  # ms of event time in one of the world: a run lasts hours
MINUTE, HOUR = 60_000, 3_600_000
START_MS = 1_763_769_600_000  # midnight
WINDOW_MIN, RESOLVE_AFTER = 10, 2
LEARN_EVENTS, LEARN_WINDOWS = 400, 20
COUNTRIES = ("DE", "FR", "US")
REMOVED = 0.05  # share of the switches that take the model out of the configuration
LOOKED_AT = 0.4  # share of the events whose id is made to be in the schema's sample
TROUBLES = ("none", "new", "lost", "retyped", "crowd", "shifted")
ARRAY = 3
OUTPUT_TOPICS = ("windows", "alerts", "control", "references")

DETECTORS: list[dict[str, Any]] = [
    {"type": "volume", "below": 3.0, "threshold": 25.0},
    {"type": "page_hinkley", "series": "volume", "parameters": {"min_instances": 2, "threshold": 5.0}},
    {"type": "mean", "threshold": "1 std", "below": "1 std", "targets": ["x"]},
    {"type": "psi", "threshold": "1 per 1h"},
    {"type": "missing", "threshold": 0.2},
    {"type": "page_hinkley", "series": "mean", "parameters": {"min_instances": 2, "threshold": 0.2}, "targets": ["x"]},
    {"type": "mmd_random_features", "threshold": 0.02},
    {"type": "mmd_random_features", "threshold": 0.1, "targets": ["v"]},
    {"type": "pca_reconstruction", "threshold": 1.3, "parameters": {"explained": 0.5}},
    {"type": "domain_classifier", "threshold": 0.6, "parameters": {"rows": 60}},
    {"type": "page_hinkley", "series": "mmd_random_features", "parameters": {"min_instances": 2, "threshold": 0.01}},
    {
        "type": "page_hinkley",
        "series": "mmd_random_features",
        "parameters": {"min_instances": 2, "threshold": 0.01},
        "targets": ["v"],
    },
]


def config(folder: Path, seed: int) -> Config:
    return config_from(
        {
            "kafka": {"bootstrap_servers": "unused:9092"},
            "topics": {
                "predictions": {
                    "name": "p",
                    "lateness": f"{WideKit.lateness_ms}ms",
                    "mapping": {"timestamp_unit": "ms"},
                }
            },
            "resolution": "5m",
            "max_future_skew": f"{WideKit.skew_ms}ms",
            "monitors": WideKit.monitors,
            "defaults": {
                "window": {"every": f"{WINDOW_MIN}m", "min_events": 30, "max_duration": "30m"},
            },
            "models": {
                WIDE: {
                    "reference": {"file": f"training_{seed}.parquet", "time": "at"},
                    "season": "hour_of_day",
                    "segments": {"country": ["DE", "FR"]},
                    "targets": {"v": {"dimension": ARRAY}},
                    "detectors": DETECTORS,
                },
                YOUNG: {
                    "reference": {"first": 5_000},
                    "window": {"every": "5m", "min_events": 20, "max_duration": "15m"},
                    "targets": {"x": {"kind": "numeric"}, "y": {"kind": "numeric"}, "z": {"kind": "categorical"}},
                    "segments": {"country": ["DE", "FR"]},
                    "detectors": [{"type": "volume", "below": 3.0}, {"type": "missing", "threshold": 0.2}],
                },
            },
        },
        base=folder,
    )


def features(r: np.random.Generator, hour: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x follows the clock, y follows x, z is one of three."""
    x = r.normal(size=len(hour)) * 0.3 + np.sin(hour / 24 * 2 * math.pi)
    return x, x + r.normal(size=len(hour)) * 0.1, r.integers(0, 3, len(hour))


@cache
def built() -> tuple[Config, tuple[ReferenceProfile, ...]]:
    """The configuration, and references of six days each: windows of ten minutes, 30 events and more each."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed in range(2):
            r = np.random.default_rng(seed)
            at = np.sort(r.integers(0, 6 * 24 * HOUR, 40_000))
            x, y, z = features(r, at // HOUR % 24)
            table = {
                "at": pa.array(at + START_MS, pa.timestamp("ms", "UTC")),
                "x": x, "y": y, "z": np.array(["p", "q", "s"])[z], "v": list(1 + r.normal(size=(len(at), ARRAY))),
                "segments.country": np.array(COUNTRIES)[r.integers(0, 3, len(at))],
            }  # fmt: skip
            parquet.write_table(pa.table(table), folder / f"training_{seed}.parquet")
            found.append(build_from_file(config(folder, seed), WIDE))
        return config(folder, 0), tuple(found)


def array(ident: str, time: int) -> dict[str, Any]:
    """Of one event, by its id; some are too short. In hours in which everything is shifted, or absent, it is that, too; its norm
    stays what it was.
    """
    r, trouble = random.Random(ident), TROUBLES[time // HOUR % len(TROUBLES)]
    if trouble == "lost":
        return {}
    sign = -1 if trouble == "shifted" else 1
    return {"v": [sign * r.gauss(1, 1) for _ in range(ARRAY - (r.random() < 0.03))]}


def id_bits(ident: str) -> int:
    """What decides whether an event is looked at: contracts of the schema's sample, restated."""
    return (xxhash.xxh3_128_intdigest(ident.encode()) >> 32) & 255


class WideKit(BaseKit):
    """Events are (time, record time, id, model, version, features, country, JSON), None = tombstone, or "reject"."""

    resolution_ms, lateness_ms, skew_ms = 5 * MINUTE, 2_500 * SCALE, 60_000 * SCALE
    burst = 20
    scale = SCALE
    eager = True

    def __init__(self, generator: random.Random, rules: Any) -> None:
        super().__init__(generator, rules)
        self.config, self.profiles = built()
        references = {WIDE: self.profiles[0], YOUNG: None}
        self.plan, self.layout = collector_plan(self.config, references)
        self.first = {plan.model: plan for plan in self.plan.models}
        self.plans: dict[str, ModelPlan] = {plan.hash: plan for plan in self.plan.models}
        for profile in self.profiles:
            self._plan(WIDE, profile)
        settings = monitor_settings(self.config)
        models = {name: replace(own, resolve_after=RESOLVE_AFTER) for name, own in settings.models.items()}
        models[YOUNG] = replace(models[YOUNG], learn_first=LEARN_EVENTS)
        self.settings = replace(settings, models=models)
        self._read: Counter[tuple[str, int]] = Counter()
        self._references = ReferenceLog()
        self._learnt = ""  # the reference of the young model that is in force

    def _plan(self, model: str, profile: ReferenceProfile) -> ModelPlan:
        plan = model_plan(self.config, model, profile, self.layout.paths)
        return self.plans.setdefault(plan.hash, plan)

    def wall_ms(self, now_ms: int) -> int:
        return START_MS + SCALE * now_ms

    # -- stages

    def collector(self, partition: int) -> Collector:
        collector = Collector(
            partition, self.plan, monitors=self.monitors, topic="predictions", config_hash="c", app_version="1"
        )
        for plan in self.plans.values():
            collector.offer(plan)
        return collector

    def monitor(self, partition: int) -> Monitor:
        monitor = Monitor(partition, sources=self.partitions, settings=self.settings, profiles={}, app_version="1")
        if not self.rules.deduplicate:
            monitor.merger = CarelessMerger(self.partitions)
        return monitor

    def provide(self, stage: Monitor, waits: MissingReference) -> None:
        """What the shell does: fetch the reference."""
        assert isinstance(stage.profiles, dict)
        known = {profile.id: profile for profile in self.profiles}
        self._follow()
        found = known.get(waits.reference) or self._references.get(waits.reference)
        assert found is not None, waits.reference
        stage.profiles[waits.reference] = found

    def _follow(self) -> None:
        """Read what the monitors have said of references."""
        for place, log in list(self.world.logs.items()):
            if place[0] in ("references", "control"):
                for _, output, _ in log.records[self._read[place] :]:
                    if place[0] == "references":
                        self._references.add(output.key, output.value)
                    elif output.key == f"learnt/{YOUNG}".encode():
                        self._learnt = json.loads(output.value)["reference"]
                self._read[place] = len(log.records)

    def switch(self, owner: PartitionOwner, generator: random.Random) -> bool:
        """Of the young model as soon as there is a reference; of the other seldom."""
        self._follow()
        in_force = owner.stage.in_force()
        learnt = self._references.get(self._learnt) if self._learnt else None
        if learnt is not None and in_force.get(YOUNG) == self.first[YOUNG].hash:
            plan = self._plan(YOUNG, learnt)
            owner.stage.offer(plan)
            owner.decide("plan", {"model": YOUNG, "plan": plan.hash})
            return True
        if generator.random() < 0.997:
            return False
        plans = [plan.hash for plan in self.plans.values() if plan.model == WIDE]
        chosen = "" if generator.random() < REMOVED else generator.choice(plans)
        owner.decide("plan", {"model": WIDE, "plan": chosen})
        return True

    # -- events

    def event(self, generator: random.Random, now_ms: int, recorded_ms: int, log: list[Any]) -> Any:
        draw = generator.random()
        recorded = self.wall_ms(recorded_ms)
        if draw < 0.02:
            return None if draw < 0.01 else "reject"
        if draw < 0.07 and log and isinstance(log[-1], tuple):
            return (log[-1][0], recorded, *log[-1][2:])
        time = self.wall_ms(now_ms) - int(generator.expovariate(1 / (700 * SCALE)))
        if generator.random() < 0.005:
            time += self.skew_ms + generator.randrange(1, 10**9)
        model = generator.choice((WIDE, WIDE, WIDE, YOUNG, YOUNG, YOUNG, "nobody"))
        version = "2" if generator.random() < 0.2 else "1"
        ident = self._identity(generator)
        held = self._features(generator, time)
        if model == WIDE:
            held |= array(ident, time)
        country = generator.choice(COUNTRIES)
        body = {"prediction_id": ident, "model": model, "version": version, "timestamp": time, "features": held}
        return (
            time,
            recorded,
            ident,
            model,
            version,
            held,
            country,
            orjson.dumps(body | {"segments": {"country": country}}),
        )

    def _identity(self, generator: random.Random) -> str:
        looked = generator.random() < LOOKED_AT
        while True:
            self._ident += 1
            ident = f"p{self._ident}"
            if not looked or id_bits(ident) == 0:
                return ident

    def _features(self, generator: random.Random, time: int) -> dict[str, Any]:
        hour = time // HOUR
        trouble = TROUBLES[hour % len(TROUBLES)]
        x = generator.gauss(math.sin(hour % 24 / 24 * 2 * math.pi), 0.3)
        found: dict[str, Any] = {"x": x, "y": x + generator.gauss(0, 0.1), "z": generator.choice("pqs")}
        if trouble == "new" and generator.random() < 0.4:
            found["fresh"] = generator.choice((1, "a", None, True, [1]))
        elif trouble == "lost":
            del found["y"]
        elif trouble == "retyped":
            found["z"] = generator.choice((1.5, 2, True, {}))
            found["x"] = str(found["x"])
        elif trouble == "crowd":
            found |= {f"n{generator.randrange(10**6)}": 1 for _ in range(3)}
        elif trouble == "shifted":
            found["x"], found["y"] = found["x"] + 2, -found["y"]
        if generator.random() < 0.02:
            found["x"] = None
        return found

    def batch(self, log: list[Any], start: int, stop: int) -> Columns:
        lines = [b"{" if event == "reject" else b"" if event is None else event[7] for event in log[start:stop]]
        times = [0 if not isinstance(event, tuple) else event[1] for event in log[start:stop]]
        records = records_from_lines(lines, start, times)
        records.value_length[[at for at, event in enumerate(log[start:stop]) if event is None]] = -1
        return decode(records, self.layout)

    def plain(self, event: Any) -> tuple[Any, ...]:
        time, recorded, ident, model, version, held, country, _ = event
        known = model != "nobody"
        return (
            time,
            recorded,
            ident,
            model if known else "__unknown__",
            version if known else "",
            (ident, held, country),
        )

    def first_plans(self) -> dict[str, str]:
        return {model: plan.hash for model, plan in self.first.items()}

    def watermark_ms(self, stage: Collector) -> int:
        return stage.watermark_ms

    def dead_letter_offset(self, output: Output) -> int:
        headers = dict(output.headers)
        assert headers["dlq.reason"].decode() in REASONS
        return int(headers["dlq.offset"])

    # -- the recount: how many events, what is missing, and what the schema's sample holds

    def said(self, pane: Pane) -> Any:
        place = {name: index for index, name in enumerate(pane.names)}
        missing = {name: int(pane.missing[place[name]]) for name in ("x", "y", "z") if name in place and len(pane.bins)}
        return pane.events, pane.plan, missing, None if pane.schema is None else pane.schema.header()

    def expected(self, key: tuple[Any, ...], cell: Cell) -> dict[str, Any]:
        plan = self.plans.get(cell.plan)
        groups = defaultdict(list, {"all": cell.rows})
        if plan is not None and not plan.learning:
            for row in cell.rows:
                groups[f"country={row[2] if row[2] != 'US' else '__other__'}"].append(row)
        return {segment: self._expected(plan, segment, rows) for segment, rows in groups.items()}

    def _expected(self, plan: ModelPlan | None, segment: str, rows: list[Any]) -> Any:
        if plan is None:
            return len(rows), "", {}, None
        if plan.learning:
            return len(rows), plan.hash, {}, None
        missing = {name: sum(held.get(name) is None for _, held, _ in rows) for name in ("x", "y", "z")}
        schema = None if segment != "all" else schema_of(plan, [held for ident, held, _ in rows if id_bits(ident) == 0])
        return len(rows), plan.hash, missing, schema

    def compare_windows(self, world: Any, result: Recount) -> list[str]:
        """What was written, against the same stages without a fault."""
        wrong = self._compare_panes(world)
        outputs = (each for each in quiet_outputs(world) if each.topic in OUTPUT_TOPICS)
        quiet = {(each.topic, ident_of(each)): each.value for each in outputs}
        written: dict[tuple[str, bytes], bytes | None] = {}
        for (topic, _), log in sorted(world.logs.items()):
            for _, output, _ in log.records if topic in OUTPUT_TOPICS else ():
                key = topic, ident_of(output)
                if written.setdefault(key, output.value) != output.value:
                    wrong.append(f"{key}: two bodies {written[key]!r} {output.value!r}")
        self._note(world, written)
        return wrong + differences(written, quiet)

    def _compare_panes(self, world: Any) -> list[str]:
        """Every pane, byte by byte, against a collector that read its whole log in as few batches as there are decisions."""
        decided = journal(output.value for _, output, _ in world.log("journal", 0).records)
        quiet: dict[Any, Any] = {}
        for partition, events in enumerate(world.sources):
            collector = self.collector(partition)
            for number, each in enumerate([*decided.get(("collector", partition), []), None], 1):
                stop = len(events) if each is None else each["position"]["predictions"]
                if stop > collector.next_offset:
                    collector.apply("predictions", self.batch(events, collector.next_offset, stop))
                if each is not None:
                    collector.decide(Decision(number, each["kind"], each["position"], each["body"]))
            for output in collector.outbox:
                body = self.body(output.value) if output.topic == "panes" else None
                if isinstance(body, Pane):
                    quiet[self._name(body)] = encode_pane(body)
        wrong: list[str] = []
        for monitor in range(self.monitors):
            kept = [pane for panes in kept_panes(world, monitor, []).values() for pane in panes]
            others = [pane for pane in kept if quiet.pop(self._name(pane), None) != encode_pane(pane)]
            wrong += [f"pane {self._name(pane)} is another one without faults" for pane in others]
        return wrong + [f"pane {name} is missing" for name in quiet]

    @staticmethod
    def _name(pane: Pane) -> tuple[Any, ...]:
        return pane.partition, pane.edge_ms, pane.model, pane.version, pane.segment, pane.plan, pane.first_target

    def _note(self, world: Any, written: dict[tuple[str, bytes], bytes | None]) -> None:
        ends: dict[str, set[int]] = defaultdict(set)  # of the windows of each reference
        for (topic, _), value in written.items():
            if topic == "windows":
                body = json.loads(value or b"")
                ends[body["reference"]].add(body["window"]["end_ms"])
        for (topic, _), value in written.items():
            body = json.loads(value or b"{}") if topic in ("windows", "alerts") else {}
            if topic == "alerts":
                transition = body["type"].split(".")[2]
                data = body["data"]
                change = data.get("schema_change", {}).get("change")
                what = f"schema {change}" if change else data.get("target", "job")
                world.counts[f"alert {what} {transition}"] += 1
                if change and any(
                    data["window"]["start_ms"] < end < data["window"]["end_ms"] for end in ends[data["reference"]]
                ):
                    world.counts["schema of windows added up"] += 1
            elif topic == "windows":
                world.counts[f"windows {body['model']} {body['state']}"] += 1


def ident_of(output: Output) -> bytes:
    """Of a windows record: what it is about; of an alert its id; of others, which are written anew as learning goes on, all."""
    if output.topic == "windows":
        body = json.loads(output.value or b"")
        about = [body["model"], body["series"], body["collector"], body["segment"], body["versions"]]
        return json.dumps([*about, body["window"]["start_ms"]]).encode()
    if output.topic == "alerts":
        return json.loads(output.value or b"")["id"].encode()
    return (output.key or b"") + xxhash.xxh3_64_hexdigest(output.value).encode()


def json_type(value: Any) -> int:
    """Place in stream.schema_sample.JsonType."""
    return {float: 0, int: 0, str: 1, bool: 2, type(None): 3, list: 4, dict: 5}[type(value)]


def of_kind(name: str, value: Any) -> bool:
    if name == "v":
        return type(value) is list and len(value) == ARRAY
    return type(value) is str if name == "z" else type(value) in (int, float)


def schema_of(plan: ModelPlan, looked: list[dict[str, Any]]) -> list[Any]:
    """The schema's sample of these events, counted again: names that the plan lacks, the 16 with the smallest hashes."""
    names: dict[str, list[int]] = {}
    odd: dict[int, list[int]] = {}
    own = {target.name: place for place, target in enumerate(plan.targets)}
    for held in looked:
        for name, value in held.items():
            if name not in own:
                names.setdefault(name, [0] * 7)[json_type(value)] += 1
            elif value is not None and not of_kind(name, value):
                odd.setdefault(own[name], [0] * 7)[json_type(value)] += 1
    ranked = sorted(names, key=lambda name: (xxhash.xxh3_64_intdigest(name.encode()), name))
    crowd = sum(sum(names[name]) for name in ranked[16:])
    kept = {name: names[name] for name in sorted(ranked[:16])}
    return [len(looked), crowd, kept, [[place, *counts] for place, counts in sorted(odd.items())]]
