"""The join in plain Python dictionaries, from whole logs: no arrays, no index, no state that moves."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

LOWEST = -(1 << 62)
END = 1 << 62


@dataclass(frozen=True)
class Prediction:
    time: int
    id: int
    score: float
    predicted: float
    group: tuple[str, str, tuple[str, ...]]


@dataclass(frozen=True)
class Event:
    time: int
    id: int
    value: float
    retracts: bool = False
    carries: tuple[Any, float, float] | None = None  # group, predicted, score
    record_time: int = END // 2


@dataclass(frozen=True)
class Tick:
    until: int


@dataclass
class Stream:
    name: str
    kind: str
    horizons: tuple[int, ...]
    lateness: int
    low: float
    high: float
    classes: tuple[float, ...] | None = None
    ages: tuple[int, ...] = ()  # panes are given out at them, too; `revised` is of the horizons alone


@dataclass
class Expected:
    """panes: (stream, horizon or age, edge) -> rows; counters by stream."""

    panes: dict[tuple[str, int, int], list[Any]] = field(default_factory=dict)
    counters: dict[str, Counter[str]] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)


def timely(log: list[Any], lateness: int, skew: int) -> tuple[list[tuple[int, Any]], int, Counter[str]]:
    """Accepted events with their places, the watermark, and what was refused: each against what stood before it."""
    largest = floor = LOWEST
    accepted, refused = [], Counter[str]()
    for place, event in enumerate(log):
        if isinstance(event, Tick):
            floor = max(floor, event.until)
        elif event.time > getattr(event, "record_time", END) + skew:
            refused["future"] += 1
        elif event.time < max(largest - lateness, floor):
            refused["late"] += 1
        else:
            largest = max(largest, event.time)
            accepted.append((place, event))
    return accepted, max(largest - lateness, floor), refused


def predictions_of(log: list[Any], lateness: int, resolution: int) -> tuple[list[Prediction], int]:
    """Those that are counted: the first of each id in a pane."""
    accepted, watermark, _ = timely(log, lateness, END)
    seen, found = set(), []
    for _, event in accepted:
        if (event.time // resolution, event.id) not in seen:
            seen.add((event.time // resolution, event.id))
            found.append(event)
    return found, watermark


def recount(
    predictions: list[Any], lateness: int, streams: list[tuple[Stream, list[Any]]], resolution: int, skew: int
) -> Expected:
    known, watermark = predictions_of(predictions, lateness, resolution)
    by_id: dict[int, list[int]] = defaultdict(list)
    for row, prediction in enumerate(known):
        by_id[prediction.id].append(row)
    result = Expected()
    for stream, log in streams:
        accepted, own, counts = timely(log, stream.lateness, skew)
        counts["consumed"] = sum(not isinstance(event, Tick) for event in log)
        good = []
        for place, event in accepted:
            bad = "" if event.retracts or stream.kind == "click" else outside(stream, event.value)
            if bad:
                counts[bad] += 1
            else:
                good.append((event.time, place, event))
        done = result.done[stream.name] = min(watermark, own) // resolution * resolution
        due = [event for time, _, event in sorted(good, key=lambda g: g[:2]) if time < done]
        assigned = assign(stream, due, known, by_id, resolution, counts)
        for row, events in assigned.items():
            classify(stream, known[row].time, events, counts)
        result.counters[stream.name] = counts
        carried(stream, due, resolution, result)
        for horizon in sorted({*stream.horizons, *stream.ages}):
            for row, p in enumerate(known):
                edge = p.time // resolution * resolution
                outcome = at_horizon(stream, p.time, assigned.get(row, []), horizon)
                line = (p.time, p.group, p.predicted, p.score, *outcome)
                if edge + resolution + horizon <= done:
                    result.panes.setdefault((stream.name, horizon, edge), []).append(line)
    return result


def outside(stream: Stream, value: float) -> str:
    if not math.isfinite(value):
        return "absurd"
    if stream.low <= value <= stream.high:
        return "" if stream.classes is None or value in stream.classes else "unknown_label"
    return "negative" if value < 0 and stream.low >= 0 else "absurd"


def assign(
    stream: Stream,
    due: list[Event],
    known: list[Prediction],
    by_id: dict[int, list[int]],
    resolution: int,
    counts: Counter[str],
) -> dict[int, list[Event]]:
    """Events of each prediction in order; the others are counted."""
    winners = last_in_slice(due, resolution)
    found: dict[int, list[Event]] = defaultdict(list)
    for place, event in enumerate(due):
        rows = by_id.get(event.id, [])
        within = [row for row in rows if event.time - stream.horizons[-1] < known[row].time <= event.time]
        slice_end = (event.time // resolution + 1) * resolution
        if within:
            found[max(within, key=lambda row: (known[row].time, -row))].append(event)
        elif any(event.time < known[row].time < slice_end for row in rows):
            counts["before_prediction"] += 1
        elif event.carries and not event.retracts:
            counts["carried" if place in winners else "duplicate"] += 1
        else:
            counts["orphan"] += 1
    return found


def last_in_slice(due: list[Event], resolution: int) -> set[int]:
    """Places of those that are counted without a join."""
    last = {(e.time // resolution, e.id): place for place, e in enumerate(due) if e.carries and not e.retracts}
    return set(last.values())


def carried(stream: Stream, due: list[Event], resolution: int, result: Expected) -> None:
    for event in (due[place] for place in sorted(last_in_slice(due, resolution))):
        group, predicted, score = event.carries or ((), 0.0, 0.0)
        value = 1.0 if stream.kind == "click" else event.value
        line = (event.time, group, predicted, score, True, value, 0)
        result.panes.setdefault((stream.name, 0, event.time // resolution * resolution), []).append(line)


def since_retraction(events: list[Event]) -> list[Event]:
    retractions = [place for place, event in enumerate(events) if event.retracts]
    return events[retractions[-1] + 1 :] if retractions else events


def at_horizon(stream: Stream, start: int, events: list[Event], horizon: int) -> tuple[bool, float, int]:
    """(observed, value, delay), from the events within the horizon alone."""
    good = since_retraction([event for event in events if event.time - start < horizon])
    if not good:
        return False, 0.0, 0
    if stream.kind == "click":
        return True, 1.0, good[0].time - start
    if stream.kind == "label":
        first = len(good) - 1
        while first and good[first - 1].value == good[-1].value:
            first -= 1
        return True, good[-1].value, good[first].time - start
    total, seen = 0.0, set()
    for event in good:
        if event.time not in seen:
            seen.add(event.time)
            total += event.value
    return True, total, max(seen) - start


def classify(stream: Stream, start: int, events: list[Event], counts: Counter[str]) -> None:
    """One event after the other against what the events before it amount to."""
    changed = start  # when the outcome became what it is
    for place, event in enumerate(events):
        before = since_retraction(events[:place])
        if event.retracts:
            what = "retracted" if before else "duplicate"
        elif not before:
            what = "matched"
        elif stream.kind == "click":
            what = "duplicate"
        elif stream.kind == "label":
            what = "duplicate" if before[-1].value == event.value else "contradictory"
        else:
            same = [e for e in before if e.time == event.time]
            what = "matched" if not same else "duplicate" if same[0].value == event.value else "contradictory"
        counts[what] += 1
        keeps = what == "duplicate" or (what == "contradictory" and stream.kind == "conversion")
        if what in {"retracted", "contradictory"} and not keeps:
            counts["revised"] += any(changed - start < h <= event.time - start for h in stream.horizons)
        if not keeps:
            changed = event.time
