"""What closing a window costs: one model with many numeric targets, one version, all features on.

python -m load_tests.monitor_speed [--targets 200] [--windows 60] [--partitions 8]
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time

import numpy as np

from detectors.binning import assign_bins
from detectors.reference import ReferenceProfile, WindowRule
from detectors.reference_build import build_reference
from stream.monitor import ModelSettings, Monitor, MonitorSettings, PaneRecord
from stream.panes import INPUTS, Marker, Pane
from stream.registers import Registers

RESOLUTION_MS = 1000
EVENTS = 500
MODEL = "fraud"


def reference(targets: int) -> ReferenceProfile:
    """`targets` normal features of 30,000 rows."""
    random = np.random.default_rng(0)
    columns = {f"feature_{index:03d}": random.normal(size=30_000) for index in range(targets)}
    rule = WindowRule(False, RESOLUTION_MS, EVENTS, 0, RESOLUTION_MS)
    return build_reference(MODEL, columns, dict.fromkeys(columns, "feature"), window=rule)


def panes(profile: ReferenceProfile, partition: int, edge_ms: int, events: int) -> Pane:
    """One pane with values drawn for every target."""
    random = np.random.default_rng([partition, edge_ms])
    bins, sums, extremes = [], [], []
    for target in profile.targets:
        values = random.normal(size=events)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, default=200)
    parser.add_argument("--windows", type=int, default=60)
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    chosen = parser.parse_args()
    profile = reference(chosen.targets)
    rule = WindowRule(False, RESOLUTION_MS, EVENTS, 0, RESOLUTION_MS)
    settings = MonitorSettings({MODEL: ModelSettings(MODEL, window=rule)}, RESOLUTION_MS)
    monitor = Monitor(
        0, sources=chosen.partitions, settings=settings, profiles={profile.id: profile}, app_version="load"
    )
    records: list[PaneRecord] = []
    per_pane = EVENTS // chosen.partitions + 1
    for window in range(chosen.windows + 2):
        edge_ms = window * RESOLUTION_MS
        for partition in range(chosen.partitions):
            body = panes(profile, partition, edge_ms, per_pane)
            records.append(PaneRecord(len(records), edge_ms, 1, body))
        for partition in range(chosen.partitions):
            passed = Marker(partition, INPUTS, edge_ms + RESOLUTION_MS, {}, {}, {MODEL: "p"}, edge_ms)
            records.append(PaneRecord(len(records), edge_ms, 1, passed))
    warm = 2 * 2 * chosen.partitions
    monitor.apply("panes", records[:warm])
    profiler = cProfile.Profile()
    if chosen.profile:
        profiler.enable()
    start = time.process_time()
    monitor.apply("panes", records[warm:])
    taken_ms = 1000 * (time.process_time() - start)
    profiler.disable()
    written = [output for output in monitor.outbox if output.topic == "windows"]
    size = sum(len(output.value or b"") for output in written) / max(1, len(written))
    start = time.process_time()
    blobs = monitor.changed_blobs()
    saved_ms = 1000 * (time.process_time() - start)
    print(f"{chosen.targets} targets, {chosen.partitions} partitions: {taken_ms / chosen.windows:.2f} CPU ms a window,")
    print(
        f"record {size / 1000:.0f} kB; snapshot {sum(len(b or b'') for b in blobs.values()) / 1000:.0f} kB, {saved_ms:.1f} ms"
    )
    if chosen.profile:
        pstats.Stats(profiler).sort_stats("cumulative").print_stats(25)


if __name__ == "__main__":
    main()
