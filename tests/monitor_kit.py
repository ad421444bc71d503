"""A small world of panes for the monitor's tests, and a scripted detector that makes every transition easy to provoke.

The scripted detector alarms when more than half of a window's values are in the last bin for two windows in a row.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import orjson

from detectors.binning import Binning, Kind
from detectors.reference import ReferenceProfile, TargetReference, WindowInfo, WindowRule, with_id
from detectors.sequential import batch, default
from detectors.sequential.default_tables import tolerances_of
from detectors.sequential.tolerance_auto import Tolerances
from detectors.sequential.verdicts import Verdicts
from detectors.verdict import Change, Level, Verdict
from stream.events import AlertEvent
from stream.monitor import MissingReference, ModelSettings, Monitor, MonitorSettings, PaneRecord
from stream.panes import INPUTS, Announcement, Marker, Pane
from stream.registers import Registers

__all__ = ["Announcement", "Marker", "MissingReference", "Monitor", "Pane", "PaneRecord", "replace"]

RESOLUTION = 10
MODEL = "fraud"
CUTS = np.array([0.0, 1.0, 2.0])


def numeric(cuts=CUTS, centre=0.0):
    none = np.empty(0)
    return Binning(Kind.NUMERIC, np.asarray(cuts, float), (0, len(cuts)), centre, -1e9, 1e9,
                   none.astype(np.uint64), none.astype(np.int32), ())  # fmt: skip


def categorical(*labels):
    none = np.empty(0)
    return Binning(Kind.CATEGORICAL, none, (0, 0), 0.0, -1e9, 1e9, none.astype(np.uint64), none.astype(np.int32),
                   (*labels, "__other__", "__unseen__"))  # fmt: skip


def reference_target(name, role="feature", binning=None, counts=None, summary=None):
    binning = binning or numeric()
    counts = np.full(binning.bins + 2, 50) if counts is None else np.asarray(counts)
    ranks = np.zeros((7 if binning.kind is Kind.NUMERIC else binning.bins + 2, 2))  # a row for each statistic
    return TargetReference(
        name=name, role=role, binning=binning, first=counts // 2, counts=counts - counts // 2, rank=np.array([1, 50]),
        order=ranks, tie=ranks, windows=50, size_min=10, size_max=10_000, size_median=100, group=1,
        summary=summary or {"mean": 1.0, "std": 1.0, "median": 1.0, "p99": 3.0, "missing": 0.0}, minimum=-1.0, maximum=4.0,
    )  # fmt: skip


def reference(*targets, size_min=10, count=50, checked=True, rows=1000, model=MODEL):
    info = WindowInfo(count, 20, 20, 100, RESOLUTION, size_min, 10_000, checked=checked)
    targets = targets or (reference_target("amount"), reference_target("score", "score"))
    return with_id(ReferenceProfile("", model, targets, info, rows, {"file": "training.parquet"}))


def model_settings(**fields):
    values = {"window": WindowRule(False, 20, 20, 100, RESOLUTION), "resolve_after": 2, "owner": "payments-ml"}
    return ModelSettings(MODEL, **values | fields)


def settings(**fields):
    return MonitorSettings({MODEL: model_settings(**fields)}, RESOLUTION)


def pane(partition, edge, events, profile, *, shifted=0.0, version="1", segment="all", plan="p", model=MODEL, seed=0):
    """`shifted`: share of the values in the last bin. The others are spread over the first three."""
    targets = profile.targets if profile is not None else ()
    r = random.Random(f"{seed} {partition} {edge} {version} {segment}")
    bins, sums, extremes = [], [], []
    for target in targets:
        last = round(events * shifted)
        part = [0] * target.binning.bins
        part[-1] = last
        for _ in range(events - last):
            part[r.randrange(target.binning.bins - 1)] += 1
        bins += part
        x = 0.3 * r.random()
        sums.append((events * x, events * (1 + x)))
        extremes.append((-x, 3 + x))
    start = np.cumsum([0] + [target.binning.bins for target in targets])
    zero = np.zeros(len(targets), np.int64)
    return Pane(
        partition=partition, edge_ms=edge, model=model, version=version, segment=segment, plan=plan,
        reference="" if profile is None else profile.id, events=events, names=tuple(t.name for t in targets), first_target=0,
        last_block=True, bin_start=start, bins=np.array(bins, np.int64), sums=np.array(sums, float).reshape(-1, 2),
        extremes=np.array(extremes, float).reshape(-1, 2), missing=zero, invalid=zero, out_of_range=zero,
        distinct=Registers.none(),
    )  # fmt: skip


def marker(partition, edge, plan="p", counters=None):
    return Marker(partition, INPUTS, edge, {"predictions": edge}, counters or {"consumed": 0}, {MODEL: plan}, edge)


@dataclass
class Log:
    """A panes log; `ms` is the LogAppendTime of the next record."""

    records: list[PaneRecord] = field(default_factory=list)
    ms: int = 0

    def add(self, *bodies, epoch=1):
        for body in bodies:
            self.records.append(PaneRecord(len(self.records), self.ms, epoch, body))
        return self

    def edge(self, edge, events, profile, *, sources=1, plan="p", **fields):
        """`events` in every source partition at `edge`, and the markers that pass it."""
        for partition in range(sources):
            if events:
                self.add(pane(partition, edge, events, profile, plan=plan, **fields))
        return self.add(*(marker(partition, edge + RESOLUTION, plan) for partition in range(sources)))


def drifting(shares, profile=None, events=40, **fields):
    """One edge of `events` after the other, two a window; the usual reference where none is given."""
    log = Log()
    for index, share in enumerate(shares):
        log.edge(index * RESOLUTION, events, profile or reference(), shifted=share, **fields)
    return log


def monitor(profiles=(), sources=1, **fields):
    known = {profile.id: profile for profile in profiles}
    return Monitor(0, sources=sources, settings=settings(**fields), profiles=known, app_version="1")


def run(stage, log):
    stage.apply("panes", log.records if isinstance(log, Log) else log)
    return stage.outbox


def bodies(outputs, topic):
    return [orjson.loads(output.value) for output in outputs if output.topic == topic]


def windows(outputs):
    return bodies(outputs, "windows")


def alerts(outputs):
    """All alerts, each of which has the shape that the wire contract promises."""
    for output in outputs:
        if output.topic == "alerts":
            AlertEvent.model_validate_json(output.value)
    return bodies(outputs, "alerts")


class ScriptedTables(NamedTuple):
    target: TargetReference
    tolerances: Tolerances


class Scripted:
    """Stands in for detectors.sequential.default: install with `scripted(monkeypatch)`."""

    @staticmethod
    def prepare(target, chosen, reference_id):
        return ScriptedTables(target, tolerances_of(target, chosen))

    @staticmethod
    def start(prepared):
        return {"row": np.zeros(3, np.int64), "weight": np.zeros(1)}

    @staticmethod
    def update(prepared, state, counts, weight_ms, window_start_ms, window_end_ms=None):
        total = int(counts.sum())
        share = float(counts[-3]) / total
        outside = share > 0.5
        state["weight"] += weight_ms
        if outside and state["row"][0] == 0:
            state["row"][1] = window_start_ms
        state["row"][0] = state["row"][0] + 1 if outside else 0
        state["row"][2] += 1
        level = Level.ALARM if state["row"][0] == 2 else Level.CROSSED_TUBE if outside else Level.OK
        return Verdict(
            level, float(state["weight"][0]), 3.0, 6.0, tube_crossed=outside, inside_tube=not outside,
            shift=2 * share if outside else 0.0, direction="up" if outside else "none", statistic="location",
            since_ms=int(state["row"][1]) if outside else None, events=total,
        )  # fmt: skip

    @staticmethod
    def describe(prepared, counts, windows=()):
        share = float(counts[-3]) / max(1, int(counts.sum()))
        return default.Effect(2 * share, 2 * share, "up", "", share <= 0.5, (Change("2 and above", 0.2, share),))

    @staticmethod
    def state_to_sections(prepared, state):
        return {"target": prepared.target.name}, {"row": state["row"].copy(), "weight": state["weight"].copy()}

    @staticmethod
    def state_from_sections(prepared, header, sections):
        assert header["target"] == prepared.target.name
        return {"row": sections["row"].copy(), "weight": sections["weight"].copy()}


class ScriptedBatch:
    """Stands in for detectors.sequential.batch.Batch: its targets one by one."""

    def __init__(self, prepared, states):
        self.targets = list(zip(prepared, states, strict=True))
        self.ends = np.cumsum([each.target.binning.bins + 2 for each in prepared])

    def update(self, counts, weight_ms, window_start_ms, window_end_ms=None):
        parts = np.split(counts, self.ends[:-1]) if len(self.ends) else []
        return Verdicts.of(
            default.update(prepared, state, own, weight_ms, window_start_ms, window_end_ms)
            for (prepared, state), own in zip(self.targets, parts, strict=True)
        )


def scripted(monkeypatch):
    monkeypatch.setattr(batch, "Batch", ScriptedBatch)
    for name in ("prepare", "start", "update", "describe", "state_to_sections", "state_from_sections"):
        monkeypatch.setattr(default, name, getattr(Scripted, name))


def owner(partition):
    return Announcement(partition)


def replace_reference(body, reference_id):
    """The same pane under another reference: a plan that watches fewer of its targets."""
    return replace(body, reference=reference_id)


def live(stored, changed):
    """Apply what `changed_blobs` gave to a store of live blobs."""
    for name, data in changed.items():
        stored.pop(name, None)
        if data is not None:
            stored[name] = data
    return stored
