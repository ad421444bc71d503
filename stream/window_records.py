"""The records of the windows topic: everything that was counted and found in one window of one series, as compact JSON.

A series of inputs is named by its reference, one of outputs by its version. The `all` records of the versions together
hold every event of the window exactly once. Bins are those of the reference, named by
`labels` where they are categories, its missing and invalid count beside them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import orjson

from detectors.sequential.verdicts import Verdicts
from detectors.sketches.distinct import estimate
from stream.columns import F64
from stream.kernels.target_text import powers
from stream.limits import RECORD_BYTES_MAX
from stream.merging import Hole
from stream.monitor_settings import ModelSettings
from stream.stage import Output
from stream.tally import Tally
from stream.target_bodies import EVIDENCE, Targets, target_bodies
from stream.topics import TopicRole
from stream.watchers import Said
from stream.window_series import DISTINCT, VOLUME
from stream.window_statistics import Statistics
from stream.windows import Window
from stream.wording import instant

NO_TARGETS = Targets.none()
TARGETS = "targets"
EVIDENCE_LOG10_MAX = 300.0  # a JSON number; above it only "very large" is said


class State(StrEnum):
    """What became of a window. Only `JUDGED` ones went to the detectors."""

    JUDGED = "judged"
    CARRIED = "carried"  # too few events for this series: added to the next window
    RECORDED = "recorded"  # may not page: a segment
    LEARNING = "learning"
    TRANSITION = "transition"  # partitions count with different plans
    INSUFFICIENT_DATA = "insufficient_data"
    INCOMPLETE = "incomplete"  # events of it were deleted before they were read


@dataclass(frozen=True, slots=True)
class Recorded:
    """One record before it is JSON. `drifting`: targets with an open incident; `online`: what watchers said, by
    place of the target; `labels`: of categorical targets' bins;
    `learning`: how far a reference that is being learnt had come before this window; `holes`: what it lacks;
    `rows`: what series of all features together say.
    """

    series: str
    reference: str
    versions: tuple[str, ...]
    segment: str
    window: Window
    state: State
    plan: str
    tally: Tally
    statistics: Statistics | None
    verdicts: Verdicts | None
    drifting: frozenset[str]
    online: Mapping[int, Sequence[Said]] = field(default_factory=dict)
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    learning: Mapping[str, Any] | None = None
    holes: Sequence[Hole] = ()
    rows: Mapping[str, Any] = field(default_factory=dict)


def window_outputs(recorded: Recorded, settings: ModelSettings) -> Iterator[Output]:
    """The record, keyed by model; several with a part of the targets each where one would exceed RECORD_BYTES_MAX."""
    window = recorded.window
    body = {
        "model": settings.model,
        "series": recorded.series,
        "reference": recorded.reference,
        "versions": list(recorded.versions),
        "segment": recorded.segment,
        "window": window_body(window),
        "events": recorded.tally.events,
        VOLUME: volume(recorded.tally.events, window),
        "state": recorded.state.value,
        "incomplete": bool(recorded.holes),
        "collector": recorded.plan,
        "detection": settings.detection_hash(),
    }
    if recorded.learning is not None:
        body["learning"] = dict(recorded.learning)
    if recorded.rows:
        body["rows"] = dict(recorded.rows)
    if recorded.holes:
        body["lost"] = lost_body(recorded.holes)
    targets = _targets(recorded)
    whole = _encoded(body, targets.json())
    if len(whole) <= RECORD_BYTES_MAX or len(targets) < 2:
        yield Output(TopicRole.WINDOWS.value, settings.model.encode(), whole)
        return
    parts = min(len(targets), -(-2 * len(whole) // RECORD_BYTES_MAX))  # twice as many as needed: targets differ in size
    for part in range(parts):
        value = _encoded(body | {"part": part, "parts": parts}, targets.part(part, parts))
        yield Output(TopicRole.WINDOWS.value, settings.model.encode(), value)


def _encoded(body: dict[str, Any], targets: bytes | memoryview) -> bytes:
    """Body with `targets` at its place among the sorted keys, which is neither the first nor the last: copied once."""
    before, after = (
        orjson.dumps({key: body[key] for key in body if (key < TARGETS) is first}, option=orjson.OPT_SORT_KEYS)
        for first in (True, False)
    )
    return b"".join((before[:-1], b',"targets":', targets, b",", after[1:]))


def lost_body(holes: Sequence[Hole]) -> dict[str, Any]:
    """What was lost in holes that touch a window: at most so much of it belongs to this one."""
    return {
        "events": sum(hole.events for hole in holes),
        "pane_records": max(hole.pane_records for hole in holes),  # of all source partitions together, in each hole
        "source_partitions": sorted({hole.partition for hole in holes}),
    }


def window_body(window: Window) -> dict[str, Any]:
    """A window of the model's list, as windows and alerts show it; `events` are the model's."""
    return {
        "start": instant(window.start_ms),
        "end": instant(window.end_ms),
        "start_ms": window.start_ms,
        "end_ms": window.end_ms,
        "events": window.events,
    }


def volume(events: int, window: Window) -> float:
    """Events a minute."""
    return events * 60_000 / (window.end_ms - window.start_ms)


def evidence(log10: float) -> float:
    """Evidence as a plain number, finite."""
    return float(10.0 ** min(log10, EVIDENCE_LOG10_MAX))


def columns(statistics: Statistics) -> dict[str, list[float]]:
    """Every statistic by its name in records, as a list over the targets. JSON has no NaN: orjson writes null."""
    return {name: values.tolist() for name, values in statistics.named().items()}


def _said(said: Said) -> dict[str, Any]:
    if said.refused:
        return {"refused": said.refused}
    return {"statistic": said.statistic, "fired": said.fired}


def _evidence(*logs: Sequence[float]) -> F64:
    """`evidence` of every target, a row for each of the logs."""
    exponents = np.minimum(np.array(logs), EVIDENCE_LOG10_MAX)
    return powers(10.0, exponents.ravel()).reshape(exponents.shape)


def _targets(recorded: Recorded) -> Targets:
    tally, verdicts = recorded.tally, recorded.verdicts
    if recorded.statistics is None:
        return NO_TARGETS
    numbers = recorded.statistics.named()
    numbers.pop(DISTINCT, None)
    members: dict[str, Mapping[int, Any] | Sequence[Any]] = {
        "distinct": {place: round(estimate(own), 1) for place, own in tally.distinct.by_target().items()},
        "online": {
            place: {said.watcher.name: _said(said) for said in every} for place, every in recorded.online.items()
        },
    }
    if recorded.labels:
        members["labels"] = {
            place: recorded.labels[name] for place, name in enumerate(tally.names) if name in recorded.labels
        }
    if verdicts is not None:
        found = _evidence(verdicts.rank_log10, verdicts.tube_log10)
        numbers |= dict(zip(EVIDENCE, found, strict=True)) | {"shift": verdicts.shift}
        levels = verdicts.levels
        if recorded.drifting:
            levels = [
                "drift" if name in recorded.drifting else own for name, own in zip(tally.names, levels, strict=True)
            ]
        members["level"] = levels
    return target_bodies(tally.names, numbers, tally.counts, tally.start, members)
