"""What closing a window costs: one model with many numeric targets, one version, all features on.

    python -m load_tests.monitor_speed [--targets 200 --events 1000 --windows 200 --partitions 8] [--json] [--profile]

The real path from complete panes to records: merging, statistics, the default detector with both layers, incidents, records.
CPU time of the thread, median and 95th percentile over the windows after the first WARM; what a stage is, STAGES says. Windows of
`events` events, as the reference's are; half of the targets have drifted a little from the middle on. Exit code 1 when closing a
window takes more than CLOSE_MS_MAX, or the detector more than DETECTOR_NS_MAX for each target and event (of the median).
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import orjson

from detectors.binning import assign_bins
from detectors.reference import ReferenceProfile, WindowRule, slim
from detectors.reference_build import build_reference
from detectors.sequential.batch import Batch
from stream import model_monitor
from stream.model_monitor import ModelMonitor
from stream.monitor import ModelSettings, Monitor, MonitorSettings, PaneRecord
from stream.panes import INPUTS, Marker, Pane
from stream.registers import Registers
from stream.window_statistics import Lens

RESOLUTION_MS = 1000
MODEL = "fraud"
WARM = 20
ROWS = 200_000  # of the reference
CLOSE_MS_MAX, DETECTOR_NS_MAX = 2.0, 5.0
SHIFT = 0.05  # of half of the targets, from the middle on: some latches are set, and the tube holds
STAGES: dict[str, tuple[Any, str]] = {
    "close": (ModelMonitor, "_close"),  # all of a window once its panes are merged: what follows, and what is between
    "detectors": (Batch, "update"),
    "statistics": (Lens, "statistics"),
    "records": (model_monitor, "window_outputs"),
}


def reference(targets: int, events: int) -> ReferenceProfile:
    """`targets` normal features in windows of `events`."""
    random = np.random.default_rng(0)
    columns = {f"feature_{index:03d}": random.normal(size=ROWS) for index in range(targets)}
    rule = WindowRule(False, RESOLUTION_MS, events, 0, RESOLUTION_MS)
    time_ms = np.arange(ROWS) * RESOLUTION_MS // events
    return slim(build_reference(MODEL, columns, dict.fromkeys(columns, "feature"), time_ms=time_ms, window=rule))


def panes(profile: ReferenceProfile, partition: int, edge_ms: int, events: int, shift: float) -> Pane:
    """One pane with values drawn for every target, every other one shifted."""
    random = np.random.default_rng([partition, edge_ms])
    bins, sums, extremes = [], [], []
    for place, target in enumerate(profile.targets):
        values = random.normal(size=events) + shift * (place % 2)
        bins.append(np.bincount(assign_bins(target.binning, values), minlength=target.binning.bins))
        centred = values - target.binning.centre
        sums.append((centred.sum(), (centred * centred).sum()))
        extremes.append((values.min(), values.max()))
    width = [target.binning.bins for target in profile.targets]
    zero = np.zeros(len(width), np.int64)
    return Pane(
        partition=partition,
        edge_ms=edge_ms,
        model=MODEL,
        version="1",
        segment="all",
        plan="p",
        reference=profile.id,
        events=events,
        names=tuple(target.name for target in profile.targets),
        first_target=0,
        last_block=True,
        bin_start=np.cumsum([0, *width]),
        bins=np.concatenate(bins),
        sums=np.array(sums),
        extremes=np.array(extremes),
        missing=zero,
        invalid=zero,
        out_of_range=zero,
        distinct=Registers.none(),
    )


class Stopwatch:
    """CPU ms of each stage in each window, nested ones in each other."""

    def __init__(self) -> None:
        self.taken: dict[str, list[float]] = defaultdict(list)
        self._now: dict[str, float] = defaultdict(float)

    def window(self) -> None:
        """What was measured since the last one is of one window."""
        for stage, ms in self._now.items():
            self.taken[stage].append(ms)
        self._now.clear()

    def add(self, stage: str, begun_ns: int) -> None:
        self._now[stage] += (time.thread_time_ns() - begun_ns) / 1e6

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Every function of STAGES is measured inside."""
        kept = {stage: getattr(owner, name) for stage, (owner, name) in STAGES.items()}
        for stage, (owner, name) in STAGES.items():
            setattr(owner, name, self._measured(stage, kept[stage]))
        try:
            yield
        finally:
            for stage, (owner, name) in STAGES.items():
                setattr(owner, name, kept[stage])

    def _measured(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*arguments: Any) -> Any:
            begun = time.thread_time_ns()
            found = function(*arguments)
            found = list(found) if isinstance(found, Iterator) else found  # what is made lazily is made here
            self.add(stage, begun)
            return found

        return measured


def edges(profile: ReferenceProfile, windows: int, partitions: int, events: int) -> Iterator[list[PaneRecord]]:
    """Records of one edge after the other: a pane of each partition, then its marker."""
    offset, per_pane = 0, -(-events // partitions)
    for window in range(windows):
        edge_ms, records = window * RESOLUTION_MS, []
        shift = SHIFT if window > windows // 2 else 0.0
        bodies = [panes(profile, partition, edge_ms, per_pane, shift) for partition in range(partitions)]
        passed = edge_ms + RESOLUTION_MS
        markers = [Marker(p, INPUTS, passed, {}, {}, {MODEL: "p"}, edge_ms) for p in range(partitions)]
        everything: list[Pane | Marker] = [*bodies, *markers]
        for body in everything:
            records.append(PaneRecord(offset, edge_ms, 1, body))
            offset += 1
        yield records


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    profile = reference(chosen.targets, chosen.events)
    rule = WindowRule(False, RESOLUTION_MS, chosen.events, 0, RESOLUTION_MS)
    settings = MonitorSettings({MODEL: ModelSettings(MODEL, window=rule)}, RESOLUTION_MS)
    monitor = Monitor(
        0, sources=chosen.partitions, settings=settings, profiles={profile.id: profile}, app_version="load"
    )
    watch, profiler = Stopwatch(), cProfile.Profile()
    bins = {target.binning.core[1] - target.binning.core[0] + 1 for target in profile.targets}
    with watch.watching():
        for number, records in enumerate(edges(profile, chosen.windows + WARM, chosen.partitions, chosen.events)):
            if chosen.profile and number == WARM:
                profiler.enable()
            begun = time.thread_time_ns()
            monitor.apply("panes", records)
            watch.add("apply", begun)
            watch.window()
    profiler.disable()
    if chosen.profile:
        pstats.Stats(profiler).sort_stats("cumulative").print_stats("stream|detectors", 45)
    written = [output for output in monitor.outbox if output.topic == "windows"]
    judged = [body for output in written if (body := orjson.loads(output.value or b""))["state"] == "judged"]
    begun = time.thread_time_ns()
    blobs = monitor.changed_blobs()
    saved_ms = (time.thread_time_ns() - begun) / 1e6
    stages = {}
    for stage, every in watch.taken.items():
        ms = every[-chosen.windows :]
        stages[stage] = {"median_ms": round(float(np.median(ms)), 3), "p95_ms": round(float(np.percentile(ms, 95)), 3)}
    detector_ns = stages["detectors"]["median_ms"] * 1e6 / (chosen.targets * chosen.events)
    return {
        "targets": chosen.targets,
        "events": chosen.events,
        "core_bins": [min(bins), max(bins)],
        "partitions": chosen.partitions,
        "windows": len(judged),
        "thinned": bool(profile.windows.size_max < chosen.events),
        "levels": sorted({target["level"] for body in judged for target in body["targets"].values()}),
        "stages": stages,
        "detector_ns_per_feature_event": round(detector_ns, 2),
        "record_kb": round(sum(len(output.value or b"") for output in written) / max(1, len(judged)) / 1000, 1),
        "snapshot_kb": round(sum(len(blob or b"") for blob in blobs.values()) / 1000),
        "snapshot_ms": round(saved_ms, 1),
        "holds": {
            f"closing a window at most {CLOSE_MS_MAX:g} ms": stages["close"]["median_ms"] <= CLOSE_MS_MAX,
            f"detector at most {DETECTOR_NS_MAX:g} ns a feature and event": detector_ns <= DETECTOR_NS_MAX,
            "every window was judged": len(judged) == chosen.windows + WARM,
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("targets", 200), ("events", 1000), ("windows", 200), ("partitions", 8)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    result = measure(parser.parse_args())
    if "--json" in sys.argv:
        print(orjson.dumps(result).decode())
    else:
        for name, value in result.items():
            for key, held in value.items() if isinstance(value, dict) else [("", value)]:
                print(f"{name:<32}{key:<52}{held}")
    return 0 if all(result["holds"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
