"""The product's stages with feedback: clicks and labels in topics of their own, joined to the predictions of real_kit. Some of the
labels bring a prediction with them: of the one they are about, of another model, of an id that nobody has seen.

What the panes of performance must be is join_oracle.py's word, which reads whole logs event by event.
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import join_oracle as oracle
from join_oracle import END, Event, Prediction, Tick
from quiet import differences, quiet_outputs
from real_kit import MODELS, PLANS, SETTINGS, STEADY, VALUES, RealKit
from recount import LOWEST, Recount, distinct_outputs

from detectors.performance import Layout, Part
from stream.collector import Collector
from stream.columns import Columns, Reject, Tag
from stream.decode_feedback import FeedbackColumns
from stream.join import JoinPlan
from stream.join_feedback import CARRIED, Feedback, FeedbackKind, FeedbackStream
from stream.join_groups import NO_GROUP, Group
from stream.performance_arrivals import WINDOWS_COUNTED
from stream.performance_detection import Chosen, PerformanceDetection, PerformanceLimit, PerformanceWatcher
from stream.performance_plan import FeedbackPlan, ModelPerformance, StreamPerformance
from stream.plan import CollectorPlan
from stream.stage import Output
from stream.watchers import Watcher

HORIZONS = (2_000, 5_000)
AGES = ((2_000, 1_000), (5_000, 2_000), (5_000, 4_000))  # of the first model; one of them is a horizon itself
AGES_ALONE = (1_000, 4_000)
LOW, HIGH = 0.0, 1.0
LATENESS_MS = 3_000
CHUNK_ROWS = 32
STREAMS = tuple(
    FeedbackStream(name, kind, HORIZONS, LATENESS_MS, low, high, carries, classes, numbers=False, ages_ms=AGES_ALONE)
    for name, kind, low, high, carries, classes in (
        ("clicks", FeedbackKind.CLICK, -math.inf, math.inf, False, None),
        ("labels", FeedbackKind.LABEL, LOW, HIGH, True, (0.0, 1.0)),
    )
)
DETECTION = PerformanceDetection(
    learning=5,
    least_rows=5,
    limits=(PerformanceLimit(Chosen("ctr"), None, 0.1), PerformanceLimit(Chosen("accuracy"), 0.9, None)),
    watchers=(
        PerformanceWatcher(
            Chosen("accuracy"), Watcher("ddm", "accuracy", (), (("drift_threshold", 0.5), ("warm_start", 2)))
        ),
    ),
)
LAYOUTS = {"clicks": Layout(proxies=True), "labels": Layout(classes=2, scores=True)}


def performance(model: str, horizons: tuple[int, ...], segments: Any, ages: Any = ()) -> ModelPerformance:
    streams = tuple(
        StreamPerformance(each.name, each.kind, horizons, (), LAYOUTS[each.name], each.carries, ages)
        for each in STREAMS
    )
    disparity = tuple((each.key, each.values[0]) for each in segments)
    others = tuple(name for name in MODELS[1:] if model == MODELS[0])
    return ModelPerformance(
        model, ("0", "1"), 1, streams, segments, disparity, least_events=2, challengers=others, detection=DETECTION
    )  # fmt: skip


MODELS_JOINED = {0: performance("m", HORIZONS, PLANS[0].segments, AGES), 1: performance("k", HORIZONS[:1], ())}
JOIN = FeedbackPlan(
    JoinPlan(1_000, STREAMS, 60_000, 1 << 20, 1 << 20, chunk_rows=CHUNK_ROWS, requests=True), MODELS_JOINED, 2, 3, 4
)

SETTINGS_JOINED = replace(
    SETTINGS,
    models={
        name: replace(
            own,
            budget_ms=1,
            resolve_after=2,
            performance=next((each for each in MODELS_JOINED.values() if each.model == name), None),
        )
        for name, own in SETTINGS.models.items()
    },
)


def predicted(ident: int) -> int:
    return ident * 7 % 3 % 2


def request(ident: int) -> int:
    """What three predictions in a row are about, of whichever models."""
    return ident // 3


def score(ident: int) -> float:
    return (ident * 37 % 101) / 100


CARRIED_GROUPS = tuple(Group(model, version) for model in MODELS for version in ("v1", "v2"))


class FeedbackKit(RealKit):
    """Feedback events are (time, record time, id, value: None = retraction, what it brings: group, prediction, score, or None), or
    "reject".
    """

    feedback = ("clicks", "labels")
    feedback_lateness_ms = LATENESS_MS
    settings = SETTINGS_JOINED

    def collector(self, partition: int) -> Collector:
        plan = CollectorPlan((PLANS[0], STEADY), self.resolution_ms, self.lateness_ms, self.skew_ms, feedback=JOIN)
        collector = Collector(
            partition, plan, monitors=self.monitors, topic="predictions", config_hash="c", app_version="1",
            feedback_topics={name: name for name in self.feedback},
        )  # fmt: skip
        for other in PLANS:
            collector.offer(other)
        return collector

    # -- events

    def batch(self, log: list[Any], start: int, stop: int) -> Columns:
        columns = super().batch(log, start, stop)
        idents = columns.id_high.astype(np.int64).tolist()
        told = [[float(predicted(ident)), score(ident), float(request(ident))] for ident in idents]
        more = np.array(told, np.float64).reshape(-1, 3)
        tags = np.full((len(idents), 3), Tag.NUMBER, np.uint8)
        cell = np.ascontiguousarray(np.hstack([columns.cell, more.view(np.uint64)]))
        return replace(columns, cell=cell, tag=np.ascontiguousarray(np.hstack([columns.tag, tags])))

    def feedback_event(
        self, stream: str, generator: random.Random, now_ms: int, recorded_ms: int, log: list[Any]
    ) -> Any:
        draw = generator.random()
        if draw < 0.03:
            return "reject"
        known = [event for event in log[-40:] if isinstance(event, tuple)]
        about = generator.choice(known) if known and draw < 0.95 else None
        ident = about[2] if about is not None else 10**9 + generator.randrange(100)
        time = self.draw_time(generator, now_ms)
        if about is not None and generator.random() < 0.7:
            time = about[0] + int(generator.expovariate(1 / 1_500))
        brings = None
        if stream == "labels" and generator.random() < 0.25:
            brings = generator.choice(CARRIED_GROUPS), float(generator.random() < 0.5), generator.randrange(101) / 100
        if generator.random() < 0.08:
            return time, recorded_ms, ident, None, None
        odd = generator.random() < 0.08
        value = generator.choice((-1.0, 7.0, 0.5)) if odd else float(generator.random() < 0.5)
        return time, recorded_ms, ident, value, brings

    def feedback_batch(self, stream: str, log: list[Any], start: int, stop: int) -> FeedbackColumns:
        rows = [(at, log[at]) for at in range(start, stop) if log[at] != "reject"]
        times = np.array([[event[0], event[1]] for _, event in rows], np.int64).reshape(-1, 2)
        values = [event[3] for _, event in rows]
        n = len(rows)
        brings = [(None, math.nan, math.nan) if event[4] is None else event[4] for _, event in rows]
        place = [NO_GROUP if group is None else CARRIED_GROUPS.index(group) for group, _, _ in brings]
        feedback = Feedback(
            times[:, 0].copy(), times[:, 1].copy(), np.array([event[2] for _, event in rows], np.uint64), np.zeros(n, np.uint32),
            np.array([math.nan if value is None else value for value in values]), np.array([v is None for v in values], bool),
            np.array(place, np.uint32), np.array([each[1] for each in brings]),
            np.array([each[2] for each in brings]).reshape(-1, 1), CARRIED_GROUPS,
        )  # fmt: skip
        rejects = tuple(
            Reject(at, 0, "malformed_json", "", "", None, b"{", 0) for at in range(start, stop) if log[at] == "reject"
        )
        offset = np.array([at for at, _ in rows], np.int64)
        return FeedbackColumns(stop, offset, np.zeros(n, np.int32), feedback, rejects, None)

    # -- outputs

    def letter_topic(self, output: Output) -> str:
        return dict(output.headers)["dlq.topic"].decode()

    def output_id(self, output: Output) -> bytes:
        if output.topic in {"performance", "alerts"}:
            return str(json.loads(output.value or b"")["id"]).encode()
        return super().output_id(output)

    # -- comparison

    def compare_windows(self, world: Any, result: Recount) -> list[str]:
        wrong = super().compare_windows(world, result)
        for partition in range(self.partitions):
            wrong += self.compare_feedback(world, result, partition)
        records, twice = distinct_outputs(world, "performance")
        wrong += self.compare_outputs(world, records)
        return wrong + twice + self.compare_records(world, [json.loads(body) for body in records.values()])

    def compare_outputs(self, world: Any, performance: dict[bytes, bytes]) -> list[str]:
        """Byte by byte what a monitor writes that reads the panes once, without a fault."""
        found, wrong = distinct_outputs(world, "alerts")
        for value in found.values():
            data = json.loads(value)["data"]
            if data["kind"] == "performance":
                world.counts["performance alerts"] += 1
                world.counts["promised alerts"] += not data["evidence"]["promise"].startswith("none")
                world.counts["alerts of errors"] += "online" in data["evidence"]
        outputs = (each for each in quiet_outputs(world) if each.topic in {"alerts", "performance"})
        return wrong + differences(found | performance, {self.output_id(each): each.value for each in outputs})

    def compare_records(self, world: Any, events: list[Any]) -> list[str]:
        """Of every window what its panes add up to, once; and that groups and versions were compared. A pane counts in the first
        window that ends behind it.
        """
        kept, said, windows = self.kept_performance(world), {}, {}
        shares: dict[Any, Any] = {}
        for event in events:
            data = event["data"]
            window = data["window"]["start_ms"], data["window"]["end_ms"]
            world.counts[event["type"].split(".")[1]] += 1
            world.counts["promotions"] += "promoted_from" in data
            point = data.get("age_ms", data["horizon_ms"])
            about = (data["model"], data["version"], data["segment"], data["feedback"], point, window[0])
            if data.get("samples") == "paired" and data["metric"] == "accuracy":
                against = data["challenger_model"], data["challenger_version"]
                said[*about, against] = data["pairs"], data["champion"]["observed"], None
            if data["metric"] in {"ctr", "confusion_matrix"} and event["type"] == "driftline.performance.v1":
                key = (*about, ())
                counts = data["counts"]
                values = counts["predictions"], counts["observed"], data.get("matrix")
                if said.setdefault(key, values) != values:
                    return [f"performance {key}: final {said[key]}, running {values}"]
                if data["provisional"]:
                    shares[*about, data["horizon_ms"]] = data["share_in"]
                    assert data["revision"] == [age for h, age in AGES if h == data["horizon_ms"]].index(point) + 1
                windows[data["model"], window[0]] = window
        due: dict[Any, Any] = {}
        for (_, model, version, segment, stream, horizon, edge, against), (rows, observed, matrix, *_) in kept.items():
            ends = sorted(span[::-1] for (name, _), span in windows.items() if name == model)
            for start in [start for end, start in ends if edge < end][:1]:
                if start <= edge or horizon == CARRIED:
                    key = (model, version, segment, stream, horizon, start, against)
                    a, b, cells = due.get(key, (0, 0, [[0, 0], [0, 0]]))
                    summed = None if stream == "clicks" or against else (np.array(cells) + np.array(matrix)).tolist()
                    due[key] = a + rows, b + observed, summed
        wrong = [f"performance {key}: {said.get(key)}, its panes {due.get(key)}" for key in said.keys() | due.keys()
                 if said.get(key) != due.get(key)]  # fmt: skip
        world.counts["provisional"] += len(shares)
        world.counts["shares"] += sum(share["value"] is not None for share in shares.values())
        wrong += share_differences(shares, due, windows)
        world.counts["performance windows"] += len(due)
        world.counts["windows of pairs"] += sum(bool(key[-1]) for key in due)
        return sorted(wrong)

    def compare_feedback(self, world: Any, result: Recount, partition: int) -> list[str]:
        """Panes of performance of one source partition, dead letters and counters against the oracle."""
        logs = {stream: self.oracle_log(world, result, stream, partition) for stream in self.feedback}
        known: list[Any] = [
            Prediction(time, ident, score(ident), float(predicted(ident)), (model, version, (row[1], ident)))
            for time, ident, model, version, row in result.applied[partition]
        ]
        streams = [
            (
                oracle.Stream(
                    each.name, each.kind.value, HORIZONS, LATENESS_MS,
                    LOW if each.name == "labels" else -math.inf, HIGH if each.name == "labels" else math.inf, each.classes,
                    AGES_ALONE,
                ),
                logs[each.name],
            )
            for each in STREAMS
        ]  # fmt: skip
        said = oracle.recount([*known, Tick(END)], END, streams, self.resolution_ms, self.skew_ms)
        got = {key: value for key, value in self.kept_performance(world).items() if key[0] == partition}
        expected = self.expected_panes(partition, said)
        world.counts["performance panes"] += len(expected)
        world.counts["carried panes"] += sum(key[5] == CARRIED for key in expected)
        wrong = [
            f"performance {key}: {got.get(key)}, recounted {expected.get(key)}"
            for key in sorted(set(got) | set(expected))
            if got.get(key) != expected.get(key)
        ]
        for stream in self.feedback:
            counts = said.counters[stream]
            letters = {
                self.dead_letter_offset(output)
                for _, output, _ in world.log("dead-letters", partition).records
                if self.letter_topic(output) == stream
            }
            rejected = sum(event == "reject" for event in world.feedback[stream][partition])
            due = rejected + counts["future"] + counts["negative"] + counts["absurd"] + counts["unknown_label"]
            if len(letters) != due:
                wrong.append(f"{stream} {partition}: {len(letters)} dead letters, recounted {due}")
            for term in (
                "late",
                "future",
                "negative",
                "absurd",
                "unknown_label",
                "consumed",
                "matched",
                "orphan",
                "carried",
            ):
                world.counts[f"{stream} {term}"] += counts[term]
                found = world.current["collector", partition].owner.stage.joining.counters(stream)[term]
                if term not in {"matched", "orphan", "carried"} and found != counts[term]:
                    wrong.append(f"{stream} {partition} {term}: {found}, recounted {counts[term]}")
        return wrong

    def oracle_log(self, world: Any, result: Recount, stream: str, partition: int) -> list[Any]:
        """The events of one log with its ticks where the journal has them."""
        ticks: dict[int, list[int]] = defaultdict(list)
        for decision in result.decided[partition]:
            if decision["body"].get("stream") == stream:
                ticks[decision["position"][stream]].append(decision["body"]["until_ms"])
        found: list[Any] = []
        log = world.feedback[stream][partition]
        for offset in range(len(log) + 1):
            found += [Tick(until) for until in ticks[offset]]
            if offset < len(log) and log[offset] != "reject":
                time, recorded, ident, value, brings = log[offset]
                carries = None if brings is None else ((brings[0].model, brings[0].version, None), *brings[1:])
                found.append(Event(time, ident, value or 0.0, value is None, carries, recorded))
        return found

    def expected_panes(self, partition: int, said: Any) -> dict[Any, Any]:
        panes: dict[Any, list[Any]] = defaultdict(list)
        for (stream, horizon, edge), lines in said.panes.items():
            for line in lines:
                model, version, more = line[1]
                if model == "__unknown__" or (model == MODELS[1] and horizon not in (CARRIED, HORIZONS[0])):
                    continue
                segments = ["all"]
                if model == MODELS[0] and horizon != CARRIED:
                    segments.append(named(more[0]))
                for segment in segments:
                    panes[partition, model, version, segment, stream, horizon, edge, ()].append(line)
        pairs = self.expected_pairs(partition, said)
        return {key: expected_sums(key[4], lines) for key, lines in panes.items()} | pairs

    def expected_pairs(self, partition: int, said: Any) -> dict[Any, Any]:
        """Of each request the first prediction of either model in a pane, one after the other."""
        panes: dict[Any, list[Any]] = defaultdict(list)
        for (stream, horizon, edge), lines in said.panes.items():
            if stream != "labels" or horizon not in HORIZONS:
                continue
            first: dict[Any, Any] = {}
            for line in lines:
                model, _, (_, ident) = line[1]
                first.setdefault((model, request(ident)), line)
            for (model, about), own in first.items():
                theirs = first.get((MODELS[1], about))
                if model != MODELS[0] or theirs is None:
                    continue
                for segment in ("all", named(own[1][2][0])):
                    key = (partition, model, own[1][1], segment, stream, horizon, edge, (MODELS[1], theirs[1][1]))
                    panes[key].append((theirs, own))
        return {key: expected_pair_sums(pairs) for key, pairs in panes.items()}

    def kept_performance(self, world: Any) -> dict[Any, Any]:
        """What counts in the panes topics: by the newest epoch, marked, the first of each."""
        kept: dict[Any, Any] = {}
        for monitor in range(self.monitors):
            log = world.log("panes", monitor)
            epochs, marked = [0] * self.partitions, Counter()
            fresh: list[dict[Any, Any]] = [{} for _ in range(self.partitions)]
            for place in range(log.end):
                record = world.pane_record(monitor, place)
                body, p = record.body, record.body.partition
                if record.epoch < epochs[p]:
                    continue
                if hasattr(body, "horizon_ms"):
                    series = f"{body.stream}@{body.horizon_ms}"
                    if body.edge_ms >= marked.get((p, series), LOWEST):
                        about = (body.model, body.version, body.segment, body.stream, body.horizon_ms, body.edge_ms)
                        key = (p, *about, body.against)
                        fresh[p].setdefault(key, body)
                elif hasattr(body, "counters"):
                    if body.edge_ms > marked.get((p, body.stream), LOWEST):
                        marked[p, body.stream] = body.edge_ms
                        for key in [k for k in fresh[p] if f"{k[4]}@{k[5]}" == body.stream and k[6] < body.edge_ms]:
                            assert key not in kept, f"{key} twice"
                            kept[key] = said_sums(fresh[p].pop(key))
                elif not hasattr(body, "segment") and record.epoch > epochs[p]:
                    epochs[p], fresh[p] = record.epoch, {}
            assert not any(fresh), f"panes of performance without a marker: {fresh}"
        return kept


def share_differences(shares: dict[Any, Any], due: dict[Any, Any], windows: dict[Any, Any]) -> list[str]:
    """What has come at an age, of what came within the horizon: of the windows that were finished before, from their panes."""
    observed: Counter[Any] = Counter()
    for (model, _, segment, stream, point, start, against), (_, own, _) in due.items():
        if segment == "all" and not against:
            observed[model, stream, point, start] += own
    wrong = []
    for (model, _, _, stream, age, start, horizon), share in shares.items():
        end = windows[model, start][1]
        ended = sorted((own, first) for (name, first), (_, own) in windows.items() if name == model)
        counted = [first for own, first in ended if own + horizon < end + age][-WINDOWS_COUNTED:]
        came, of = (sum(observed[model, stream, point, first] for first in counted) for point in (age, horizon))
        if (share["observed"], share["observed_finally"]) != (came, of) or share["value"] != (
            came / of if of else None
        ):
            wrong.append(f"share of {stream} at {age} of {horizon}, {model} {start}: {share}, recounted {came} of {of}")
    return wrong


def said_sums(pane: Any) -> Any:
    assert pane.complete
    sums = pane.sums
    if pane.against:
        sides = [side.count(Part.CONFUSION, "matrix").tolist() for side in (sums.a, sums.b)]
        return pane.rows, pane.observed, *sides, sums.b.total(Part.SCORES, "score")
    if pane.stream == "clicks":
        rows = sums.count(Part.PROXIES, "rows").tolist()
        return pane.rows, pane.observed, rows[:5], sums.total(Part.PROXIES, "score")
    matrix = sums.count(Part.CONFUSION, "matrix").tolist()
    return pane.rows, pane.observed, matrix, sums.total(Part.SCORES, "score")


def named(country: str) -> str:
    return f"country={country if country in VALUES else '__other__'}"


def expected_pair_sums(pairs: list[Any]) -> Any:
    """Pairs are lines of the challenger and of the champion, whose label counts where there is one."""
    matrices, scores, observed = [[[0, 0], [0, 0]] for _ in "ab"], [], 0
    for sides in pairs:
        label = next((int(line[5]) for line in reversed(sides) if line[4]), None)
        if label is not None:
            observed += 1
            scores.append(sides[1][3])
            for matrix, line in zip(matrices, sides, strict=True):
                matrix[label][int(line[2])] += 1
    return len(pairs), observed, *matrices, math.fsum(scores)


def expected_sums(stream: str, lines: list[Any]) -> Any:
    """Lines are (time, group, predicted, score, observed, value, delay)."""
    observed = sum(line[4] for line in lines)
    if stream == "clicks":
        scores = math.fsum(line[3] for line in lines)
        return len(lines), observed, [len(lines), observed, 0, len(lines), observed], scores
    matrix = [[0, 0], [0, 0]]
    for line in lines:
        if line[4]:
            matrix[int(line[5])][int(line[2])] += 1
    return len(lines), observed, matrix, math.fsum(line[3] for line in lines if line[4])
