"""Online detectors on window series: the same as the detector alone, through snapshots, in records and in alerts."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import monitor_kit as kit

from detectors import REGISTRY
from detectors.online import started
from detectors.registry import Family, Reads
from stream.config_detectors import Detector
from stream.series import Series
from stream.watchers import KIND, WATCHERS_PER_BLOB, Watcher, Watchers
from stream.window_statistics import Lens


@pytest.fixture(autouse=True)
def _scripted(monkeypatch):
    kit.scripted(monkeypatch)


PROFILE = kit.reference()
QUICK = {
    "adwin": (("clock", 1), ("delta", 0.3), ("grace_period", 2), ("min_window_length", 2)),
    "page_hinkley": (("delta", 0.001), ("min_instances", 2), ("threshold", 0.5)),
    "kswin": (("alpha", 0.2),),
    "cusum": (("deviation", 0.05), ("mean", 0.1), ("threshold", 2.0)),
    "ewma": (("deviation", 0.05), ("mean", 0.1), ("weight", 0.5)),
}
SHARES = [0.1] * 240 + [0.45] * 120  # never more than half: the scripted detector is silent


def moved(records):
    return [record for record in records if "amount" in record["targets"] and record["state"] == "judged"]


def test_every_detector_of_numbers_can_be_configured():
    numbers = [n for n, entry in REGISTRY.items() if entry.family is Family.ONLINE and entry.reads is Reads.NUMBERS]
    assert set(QUICK) <= set(numbers)
    for name in numbers:
        assert Detector(type=name, series="mean").read() == Watcher(name, "mean")


@pytest.mark.parametrize("name", QUICK)
def test_a_watcher_says_what_the_detector_says_of_the_recorded_series(name):
    """The record's own p75, given to the detector alone."""
    watcher = Watcher(name, "p75", ("amount",), QUICK[name])
    outputs = kit.run(kit.monitor([PROFILE], watchers=(watcher,)), kit.drifting(SHARES, PROFILE))
    alone, fired = started(name, dict(QUICK[name])), []
    for record in moved(kit.windows(outputs)):
        step = alone.update(record["targets"]["amount"]["p75"])
        said = record["targets"]["amount"]["online"][watcher.name]
        assert (said["fired"], said["statistic"]) == (step.fired, pytest.approx(step.statistic, rel=1e-12))
        fired.append((record["window"]["end_ms"], step.fired))
    assert any(each for _, each in fired)
    alerts = kit.alerts(outputs)
    assert alerts[0]["data"]["window"]["end_ms"] == next(end for end, each in fired if each)
    assert {alert["subject"] for alert in alerts} == {"feature_drift/amount"}
    data = alerts[0]["data"]
    assert data["evidence"]["promise"] == "none: an operator's threshold"
    assert data["evidence"]["online"][0]["type"] == watcher.name
    assert f"{watcher.name} has found a change; nothing is promised" in data["summary"]


@pytest.mark.parametrize("name", QUICK)
def test_a_restored_series_goes_on_bit_for_bit(name):
    watchers = (Watcher(name, "psi", (), QUICK[name]), Watcher(name, "hellinger", ("amount",), QUICK[name]))
    log = kit.drifting(SHARES, PROFILE)
    whole = kit.run(kit.monitor([PROFILE], watchers=watchers), log)
    half = len(log.records) // 2 + 1
    first = kit.monitor([PROFILE], watchers=watchers)
    kit.run(first, log.records[:half])
    saved = first.changed_blobs()
    assert any(f"/{KIND}/" in blob for blob in saved)
    second = kit.monitor([PROFILE], watchers=watchers)
    second.load({blob: data for blob, data in saved.items() if data is not None})
    kit.run(second, log.records[half:])
    assert [output.value for output in [*first.outbox, *second.outbox]] == [output.value for output in whole]


def test_rates_open_an_incident_of_data_quality():
    watcher = Watcher("cusum", "missing", ("amount",), (("deviation", 0.05), ("threshold", 2.0)))
    log = kit.Log()
    for index in range(12):
        pane = kit.pane(0, index * kit.RESOLUTION, 40, PROFILE, shifted=0.1)
        missing = 0 if index < 4 else 20
        log.add(kit.replace(pane, missing=np.array([missing, 0]), events=40 + missing))
        log.add(kit.marker(0, (index + 1) * kit.RESOLUTION))
    alerts = kit.alerts(kit.run(kit.monitor([PROFILE], watchers=(watcher,)), log))
    assert alerts[0]["subject"] == "data_quality/amount"
    assert alerts[0]["data"]["summary"].startswith(
        "amount: cusum(missing, deviation=0.05, threshold=2.0) has found a change"
    )


def test_a_value_that_is_refused_is_said_and_changes_nothing():
    watcher = Watcher("adwin", "mean", ("amount",))
    log = kit.Log()
    for index in range(4):
        pane = kit.pane(0, index * kit.RESOLUTION, 40, PROFILE, shifted=0.1)
        sums = pane.sums.copy()
        sums[0] = (1e12, 1e24) if index < 2 else sums[0]
        log.add(kit.replace(pane, sums=sums)).add(kit.marker(0, (index + 1) * kit.RESOLUTION))
    records = moved(kit.windows(kit.run(kit.monitor([PROFILE], watchers=(watcher,)), log)))
    said = [record["targets"]["amount"]["online"]["adwin(mean)"] for record in records]
    assert "is outside +-1e+09" in said[0]["refused"]
    assert said[1]["statistic"] == pytest.approx(records[1]["targets"]["amount"]["mean"])


def test_a_model_without_watchers_pays_nothing_and_keeps_its_detection_hash():
    assert kit.model_settings().detection_hash() == kit.model_settings(watchers=()).detection_hash()
    assert (
        kit.model_settings().detection_hash()
        != kit.model_settings(watchers=(Watcher("cusum", "mean"),)).detection_hash()
    )
    records = moved(kit.windows(kit.run(kit.monitor([PROFILE]), kit.drifting([0.1] * 4, PROFILE))))
    assert all("online" not in record["targets"]["amount"] for record in records)
    assert not Watchers((), ["amount"]).blobs("x")


def test_many_watchers_are_spread_over_blobs():
    names = [f"target_{i}" for i in range(WATCHERS_PER_BLOB + 1)]
    watchers = Watchers((Watcher("ewma", "mean"),), names)
    blobs = watchers.blobs("series")
    assert set(blobs) == watchers.names("series") == {f"series/{KIND}/0", f"series/{KIND}/1"}


def test_series_know_the_blobs_of_their_watchers():
    lens = Lens(("amount",), PROFILE)
    series = Series(kit_key(), PROFILE, lens, kit_promise(), [], watched=(Watcher("ewma", "mean"),))
    assert set(series.blobs("m/x/series/y")) == series.names("m/x/series/y")


def kit_key():
    from stream.series import INPUTS_VERSION, SeriesKey

    return SeriesKey(PROFILE.id, INPUTS_VERSION, "all")


def kit_promise():
    from stream.series import Promise

    return Promise(1, 1)
