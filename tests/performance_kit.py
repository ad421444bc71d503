"""A small world of predictions and their feedback, as the collectors of several partitions send it: owners die, markers lag, logs mix."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

import monitor_kit as kit
import numpy as np
import orjson

from detectors.performance import Layout, PerformanceSums
from detectors.reference import WindowRule
from stream.events import ComparisonEvent, DisparityEvent, PerformanceEvent
from stream.join_feedback import FeedbackKind
from stream.monitor import ModelSettings, Monitor, MonitorSettings, PaneRecord
from stream.panes import EDGE_END, INPUTS, Announcement, Marker
from stream.performance_panes import PerformancePane, encode_performance_pane, series_name
from stream.performance_plan import ModelPerformance, StreamPerformance

SOURCES, EDGES, RESOLUTION = 3, 30, kit.RESOLUTION
END = EDGES * RESOLUTION
FRAUD, PRICE = "fraud", "price"
WINDOW = WindowRule(False, 20, 60, 100, RESOLUTION)
CLASSES = ("no", "yes")
BINARY, NUMBERS, PROXIES = Layout(classes=2, scores=True), Layout(errors=True), Layout(proxies=True)
STREAMS = {
    FRAUD: (
        StreamPerformance("clicks", FeedbackKind.CLICK, (30, 100), (), PROXIES),
        StreamPerformance("conversions", FeedbackKind.CONVERSION, (50,), (), PROXIES),
        StreamPerformance("labels", FeedbackKind.LABEL, (30, 200), (), BINARY),
    ),
    PRICE: (StreamPerformance("labels", FeedbackKind.LABEL, (30,), ("mae", "mean_signed_error"), NUMBERS),),
}
DISPARITY, LEAST = (("country", "DE"),), 5
SERIES = sorted({(each.stream, h) for streams in STREAMS.values() for each in streams for h in each.horizons_ms})


@dataclass(frozen=True)
class Row:
    """One prediction, and what came of it."""

    partition: int
    model: str
    time_ms: int
    version: str
    country: str
    score: float
    predicted: float
    clicked_ms: int | None
    bought_ms: int | None
    amount: float
    labelled_ms: int | None
    label: float


def within(delay_ms, horizon_ms):
    return delay_ms is not None and delay_ms <= horizon_ms


@cache
def rows(seed):
    r = random.Random(seed)

    def delay(share):
        return r.randrange(300) if r.random() < share else None

    found = []
    for partition in range(SOURCES):
        for edge in range(0, END, RESOLUTION):
            versions = "112" if edge < END // 2 else "122"
            quiet = 150 <= edge < 190  # no traffic at all: windows do not touch
            for _ in range(0 if quiet else r.randrange(25)):
                model = FRAUD if r.random() < 0.8 else PRICE
                score = r.random()
                found.append(Row(
                    partition, model, edge + r.randrange(RESOLUTION), r.choice(versions), r.choice(("DE", "FR")), score,
                    float(score > 0.5) if model == FRAUD else r.gauss(100, 10), delay(0.6), delay(0.3), r.gauss(20, 5), delay(0.9),
                    float(r.random() < score) if model == FRAUD else r.gauss(100, 10),
                ))  # fmt: skip
    return found


def sums_of(part, layout, stream, horizon):
    sums = PerformanceSums(layout)
    score = np.array([row.score for row in part])
    none = np.zeros(len(part), bool)
    if stream == "clicks":
        sums.add_proxies(np.array([within(row.clicked_ms, horizon) for row in part]), none, np.zeros(len(part)), score)
    elif stream == "conversions":
        hit = np.array([within(row.bought_ms, horizon) for row in part])
        sums.add_proxies(none, hit, np.array([row.amount for row in part]) * hit, score)
    elif layout.errors:
        label = np.array([row.label if within(row.labelled_ms, horizon) else np.nan for row in part])
        sums.add_errors(np.array([row.predicted for row in part]), label)
    else:
        label = np.array([int(row.label) if within(row.labelled_ms, horizon) else -1 for row in part], np.int64)
        sums.add_classes(np.array([int(row.predicted) for row in part], np.int64), label)
        sums.add_scores(score, label)
    return sums


DELAYS = {"clicks": "clicked_ms", "conversions": "bought_ms", "labels": "labelled_ms"}


def groups_of(part):
    """(version, segment) -> rows, sorted."""
    found = {}
    for row in part:
        for segment in ("all", f"country={row.country}"):
            found.setdefault((row.version, segment), []).append(row)
    return dict(sorted(found.items()))


def performance_panes(part, partition, edge, stream, horizon):
    for model in (FRAUD, PRICE):
        plan = next((each for each in STREAMS[model] if each.stream == stream and horizon in each.horizons_ms), None)
        own = [row for row in part if row.model == model]
        for (version, segment), group in groups_of(own).items() if plan else ():
            observed = sum(within(getattr(row, DELAYS[stream]), horizon) for row in group)
            classes = CLASSES if plan.layout.classes else ()
            yield PerformancePane(
                partition, model, version, segment, stream, plan.kind.value, horizon, edge, len(group), observed, True, classes,
                sums_of(group, plan.layout, stream, horizon),
            )  # fmt: skip


def input_panes(part, partition, edge):
    for model in (FRAUD, PRICE):
        for (version, segment), group in groups_of([row for row in part if row.model == model]).items():
            yield kit.pane(partition, edge, len(group), None, model=model, version=version, segment=segment)


def marker(partition, edge, stream=INPUTS, counters=None):
    plans = {FRAUD: "p", PRICE: "p"} if stream == INPUTS else {}
    return Marker(partition, stream, edge, {}, counters or {}, plans, min(edge, END))


@cache
def panes_of(seed):
    """(partition, series or None, edge) -> panes."""
    found = {}
    for partition in range(SOURCES):
        for edge in range(0, END, RESOLUTION):
            part = [
                row
                for row in rows(seed)
                if row.partition == partition and row.time_ms // RESOLUTION * RESOLUTION == edge
            ]
            found[partition, None, edge] = list(input_panes(part, partition, edge))
            for series in SERIES:
                found[partition, series, edge] = list(performance_panes(part, partition, edge, *series))
    return found


def owner_log(seed, partition):
    """What the owners of one partition send. One that dies has sent a part of it; the next one may begin a little further back."""
    r = random.Random(f"{seed} {partition}")
    panes, log, epoch = panes_of(seed), [], 1
    marked = {None: 0, **dict.fromkeys(SERIES, 0)}
    log.append((epoch, Announcement(partition)))
    watermark = 0
    while watermark < END + 300:
        watermark += RESOLUTION * r.choice((1, 1, 2, 4))
        for series in (None, *SERIES):
            reach = watermark - (series[1] + RESOLUTION * r.randrange(4) if series else 0)
            if reach <= marked[series]:
                continue
            batch = [
                pane
                for edge in range(marked[series], min(reach, END), RESOLUTION)
                for pane in panes[partition, series, edge]
            ]
            if r.random() < 0.08:
                log += [(epoch, pane) for pane in batch if r.random() < 0.5]
                epoch += 1
                log.append((epoch, Announcement(partition)))
                back = max(0, marked[series] - RESOLUTION * r.randrange(3))
                again = [p for edge in range(back, min(reach, END), RESOLUTION) for p in panes[partition, series, edge]]
                batch = again
                if r.random() < 0.5:  # a marker behind its predecessor's says nothing
                    log.append((epoch, marker(partition, back, series_name(*series) if series else INPUTS)))
            r.shuffle(batch)
            log += [(epoch, pane) for pane in batch]
            log.append((epoch, marker(partition, reach, series_name(*series) if series else INPUTS)))
            marked[series] = reach
    for series in (None, *SERIES):
        log.append((epoch, marker(partition, EDGE_END, series_name(*series) if series else INPUTS)))
    return log


@cache
def log_of(seed, order=0):
    """`order`: how the partitions' logs are mixed."""
    r = random.Random(order)
    rest = [list(owner_log(seed, partition)) for partition in range(SOURCES)]
    records = []
    while any(rest):
        source = r.choice([log for log in rest if log])
        for _ in range(min(len(source), r.randrange(1, 30))):
            epoch, body = source.pop(0)
            wire = encode_performance_pane(body) if isinstance(body, PerformancePane) else b""
            records.append(PaneRecord(len(records), 1000, epoch, body, wire))
    return tuple(records)


def settings(streams=None, window=WINDOW):
    chosen = STREAMS if streams is None else streams
    models = {
        model: ModelSettings(
            model,
            window=window,
            performance=ModelPerformance(model, CLASSES, 1, chosen[model], disparity=DISPARITY, least_events=LEAST)
            if chosen.get(model)
            else None,
        )
        for model in STREAMS
    }
    return MonitorSettings(models, RESOLUTION)


def stage_of(streams=None, sources=SOURCES):
    return Monitor(0, sources=sources, settings=settings(streams), profiles={}, app_version="1")


WIRE = {"performance": PerformanceEvent, "disparity": DisparityEvent, "comparison": ComparisonEvent}


def performance(outputs, kind="performance"):
    """Records of one kind; all have the shape that the wire contract promises, and the key and kind of a CloudEvent."""
    found = []
    for output in (output for output in outputs if output.topic == "performance"):
        body = orjson.loads(output.value)
        own = body["type"].split(".")[1]
        event = WIRE[own].model_validate_json(output.value)
        assert output.key == event.data.model.encode()
        assert output.headers == (("content-type", b"application/cloudevents+json"),)
        if own == kind:
            found.append(body)
    return found


def by_series(outputs):
    """(model, stream, horizon) -> bytes in order of output."""
    found = {}
    for output in outputs:
        if output.topic == "performance":
            data = orjson.loads(output.value)["data"]
            found.setdefault((data["model"], data["feedback"], data["horizon_ms"]), []).append(output.value)
    return found
