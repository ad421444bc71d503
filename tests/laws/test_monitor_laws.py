"""Laws of the monitor, with the real detectors: batching, crashes and restarts change no byte of any output."""

from __future__ import annotations

import random
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1]))

import monitor_kit as kit

from detectors.binning import assign_bins
from detectors.reference import WindowRule
from detectors.reference_build import build_reference
from stream.panes import EDGE_END
from stream.schema_sample import SchemaSample

SOURCES = 2
EDGES = 60
WINDOW = WindowRule(False, 20, 100, 200, kit.RESOLUTION)


@cache
def real_reference(seed=0):
    r = np.random.default_rng(seed)
    rows = 20_000
    columns = {"amount": r.normal(size=rows), "age": r.normal(size=rows), "score": r.random(rows)}
    roles = {"amount": "feature", "age": "feature", "score": "score"}
    return build_reference(kit.MODEL, columns, roles, window=WINDOW, origin={"file": "training.parquet"})


def filled(body, profile, r, drift):
    """The same pane with values drawn for every target; `drift` moves `amount`."""
    bins, sums, extremes, missing = [], [], [], []
    for target in profile.targets:
        values = r.random(body.events) if target.name == "score" else r.normal(size=body.events)
        values = values + drift if target.name == "amount" else values
        gone = 0
        kept = values[gone:]
        bins.append(np.bincount(assign_bins(target.binning, kept), minlength=target.binning.bins))
        y = kept - target.binning.centre
        sums.append((y.sum(), (y * y).sum()))
        extremes.append((kept.min(), kept.max()))
        missing.append(gone)
    return kit.replace(
        body, bins=np.concatenate(bins), sums=np.array(sums), extremes=np.array(extremes), missing=np.array(missing)
    )


def with_schema(body, r, extra):
    """The same pane with what was seen of its events' schema; `extra`: they have a feature that the reference has not."""
    sample = SchemaSample(looked=r.randrange(1, 4))
    if extra:
        sample.names = {"device": [0, sample.looked, 0, 0, 0, 0, 0], f"n{r.randrange(10**9)}": [1, 0, 0, 0, 0, 0, 0]}
    return kit.replace(body, schema=sample)


@cache
def world(seed):
    """A log with two versions, a segment, a drift, a feature that comes and goes, owners that die, and a switch to another reference."""
    r = random.Random(seed)
    profiles = real_reference(0), real_reference(1)
    switch = {partition: kit.RESOLUTION * r.randrange(40, 46) for partition in range(SOURCES)}
    rest = []
    for partition in range(SOURCES):
        log, epoch, edge = [], 1, 0
        while edge < EDGES * kit.RESOLUTION:
            late = edge >= switch[partition]
            profile, plan = profiles[late], "q" if late else "p"
            batch = []
            for version, events in (("1", r.randrange(40, 90)), ("2", r.choice((0, 0, 20)))):
                draw = np.random.default_rng([seed, partition, edge, int(version)])
                for segment in ("all", "country=DE") if events else ():
                    body = kit.pane(partition, edge, events, profile, version=version, segment=segment, plan=plan)
                    body = filled(body, profile, draw, 0.9 if 150 <= edge < 350 else 0.0)
                    batch.append(with_schema(body, r, extra=200 <= edge < 320) if segment == "all" else body)
            if r.random() < 0.1:  # dies in the middle of sending; the next owner sends it all again
                log += [(epoch, body) for body in batch if r.random() < 0.5]
                epoch += 1
                log.append((epoch, kit.Announcement(partition)))
            log += [(epoch, body) for body in batch]
            edge += kit.RESOLUTION
            log.append((epoch, kit.marker(partition, edge, "q" if edge >= switch[partition] else "p")))
        log.append((epoch, kit.marker(partition, EDGE_END, "q")))
        rest.append(log)
    records = []
    while any(rest):
        epoch, body = r.choice([log for log in rest if log]).pop(0)
        records.append(kit.PaneRecord(len(records), 10 * len(records), epoch, body))
    return tuple(records), profiles


def stage_of(profiles, **fields):
    return kit.monitor(profiles, sources=SOURCES, window=WINDOW, **fields)


@cache
def uninterrupted(seed):
    records, profiles = world(seed)
    stage = stage_of(profiles)
    stage.apply("panes", records)
    return tuple(stage.outbox), kit.live({}, stage.changed_blobs())


def test_the_world_has_windows_alerts_and_a_transition():
    outputs = [output for seed in range(3) for output in uninterrupted(seed)[0]]
    states = {record["state"] for record in kit.windows(outputs)}
    assert states == {"judged", "recorded", "transition", "insufficient_data", "carried"}
    drifted = [(a["data"]["target"], a["type"].split(".")[2]) for a in kit.alerts(outputs)]
    assert ("amount", "opened") in drifted
    assert {"opened", "resolved"} <= {transition for target, transition in drifted if target == "device"}
    assert {target for target, _ in drifted} - {"__other__"} == {"amount", "device"}


@given(st.integers(0, 2), st.lists(st.integers(0, 400), max_size=12))
@settings(max_examples=25, deadline=None)
def test_batching_changes_no_byte(seed, cuts):
    records, profiles = world(seed)
    stage = stage_of(profiles)
    for start, stop in pairwise(sorted({0, len(records), *(cut % len(records) for cut in cuts)})):
        stage.apply("panes", records[start:stop])
    outputs, blobs = uninterrupted(seed)
    assert tuple(stage.outbox) == outputs
    assert kit.live({}, stage.changed_blobs()) == blobs


@given(st.integers(0, 2), st.lists(st.integers(0, 400), min_size=1, max_size=4), st.integers(0, 30))
@settings(max_examples=30, deadline=None)
def test_a_snapshot_at_any_cut_changes_no_byte(seed, cuts, replayed):
    """`replayed`: records before the cut that come again after a restart: they are passed over."""
    records, profiles = world(seed)
    stage, stored, outputs = stage_of(profiles), {}, []
    for start, stop in pairwise(sorted({0, len(records), *(cut % len(records) for cut in cuts)})):
        stage.apply("panes", records[max(0, start - replayed) : stop])
        outputs += stage.outbox
        kit.live(stored, stage.changed_blobs())
        stage = stage_of(profiles)
        stage.load(stored)
    expected, blobs = uninterrupted(seed)
    assert tuple(outputs) == expected
    assert stored == blobs


@given(st.integers(0, 2), st.integers(0, 400))
@settings(max_examples=10, deadline=None)
def test_a_missing_reference_loaded_in_the_middle_changes_no_byte(seed, cut):
    records, profiles = world(seed)
    known = {}
    stage = kit.Monitor(0, sources=SOURCES, settings=kit.settings(window=WINDOW), profiles=known, app_version="1")
    later = {profile.id: profile for profile in profiles}
    for batch in (records[:cut], records[cut:]):
        while True:
            try:
                stage.apply("panes", batch)
            except kit.MissingReference as missing:
                known[missing.reference] = later.pop(missing.reference)
            else:
                break
    assert tuple(stage.outbox) == uninterrupted(seed)[0]


@pytest.mark.parametrize("seed", range(3))
def test_repeated_records_change_no_byte(seed):
    """At-least-once: any record may come again, later, under a new offset."""
    records, profiles = world(seed)
    r = random.Random(seed)
    repeated = []
    for record in records:
        repeated.append(record)
        if isinstance(record.body, kit.Pane | kit.Marker) and r.random() < 0.3:
            repeated.append(r.choice(records[max(0, record.offset - 20) : record.offset + 1]))
    again = [kit.PaneRecord(i, record.timestamp_ms, record.epoch, record.body) for i, record in enumerate(repeated)]
    stage = stage_of(profiles)
    stage.apply("panes", again)
    without = [output for output in stage.outbox if output.topic == "windows"]
    assert without == [output for output in uninterrupted(seed)[0] if output.topic == "windows"]


def test_new_detection_settings_restart_the_evidence_and_keep_open_incidents():
    records, profiles = world(0)
    stage = stage_of(profiles)
    half = next(
        i for i, record in enumerate(records) if isinstance(record.body, kit.Marker) and record.body.edge_ms > 300
    )
    stage.apply("panes", records[:half])
    assert stage.models[kit.MODEL].book.open
    stored = kit.live({}, stage.changed_blobs())
    again = stage_of(profiles, tolerance=0.2)
    again.load(stored)
    again.apply("panes", records[half:])
    assert not [a for a in kit.alerts(again.outbox) if ".opened." in a["type"]]
    resolved = [a for a in kit.alerts(again.outbox) if ".resolved." in a["type"]]
    assert {a["data"]["detection"] for a in resolved} == {again.models[kit.MODEL].detection}
    left = kit.live(stored, again.changed_blobs())
    fresh = stage_of(profiles, tolerance=0.2)
    fresh.load(left)
