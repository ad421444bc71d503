"""Volume: events a minute, limits and online detectors on it, and traffic that stops."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import monitor_kit as kit

from stream.config import config_from
from stream.config_errors import ConfigError
from stream.events import AlertEvent
from stream.panes import EDGE_END
from stream.planning import monitor_settings
from stream.watchers import Watcher
from stream.window_series import Threshold

MINUTE = 60_000 / (2 * kit.RESOLUTION)  # events of a window of two panes -> events a minute
LOW = Threshold("volume", None, 50 * MINUTE)


def traffic(*windows: int) -> kit.Log:
    """So many events in each window of two panes."""
    log = kit.Log()
    profile = kit.reference()
    for number, events in enumerate(windows):
        for half in range(2):
            log.edge((2 * number + half) * kit.RESOLUTION, events // 2, profile)
    return log


def run(log: kit.Log, **fields: Any) -> list[Any]:
    return kit.run(kit.monitor([kit.reference()], **fields), log)


def told(outputs: list[Any]) -> list[tuple[str, str, int]]:
    """(transition, target, end in ms) of the alerts about volume."""
    found = []
    for alert in kit.alerts(outputs):
        AlertEvent.model_validate(alert)
        data = alert["data"]
        if data["target"] == "volume":
            assert data["kind"] == "data_quality"
            found.append((alert["type"].split(".")[2], data["summary"], data["window"]["end_ms"]))
    return found


@pytest.fixture(autouse=True)
def _scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    kit.scripted(monkeypatch)


def test_it_is_in_every_record_and_silent_without_configuration() -> None:
    outputs = run(traffic(80, 40, 4, 80, 80))
    records = [
        record for record in kit.windows(outputs) if record["segment"] == "all" and "amount" in record["targets"]
    ]
    volumes = [record["volume"] for record in records]
    assert volumes[:2] == [80 * MINUTE, 40 * MINUTE]
    assert volumes[0] == records[0]["events"] * 60_000 / (
        records[0]["window"]["end_ms"] - records[0]["window"]["start_ms"]
    )
    assert told(outputs) == []


def test_a_limit_opens_once_and_resolves_after_enough_windows_within_it() -> None:
    outputs = run(traffic(80, 40, 40, 80, 80, 80), volume_thresholds=(LOW,))
    opened, resolved = told(outputs)
    assert opened == (
        "opened",
        "volume: 120,000 events a minute, below the configured 150000; nothing is promised about false alarms; since 00:00; 40 events.",
        4 * kit.RESOLUTION,
    )
    assert (resolved[0], resolved[2]) == ("resolved", 10 * kit.RESOLUTION)
    above = run(traffic(80, 160, 80), volume_thresholds=(Threshold("volume", 100 * MINUTE),))
    assert [(transition, end) for transition, _, end in told(above)] == [("opened", 4 * kit.RESOLUTION)]


def test_windows_with_too_few_events_are_judged_too() -> None:
    """Kit's windows: at least 20 events, open for at most 10 panes."""
    log = kit.Log()
    for edge in range(12):
        log.edge(edge * kit.RESOLUTION, 1, kit.reference())
    outputs = run(log, volume_thresholds=(LOW,))
    assert next(record["state"] for record in kit.windows(outputs)) == "insufficient_data"
    assert [(transition, end) for transition, _, end in told(outputs)] == [("opened", 10 * kit.RESOLUTION)]


def silent(until: int, **fields: Any) -> list[Any]:
    """Two windows of traffic, then only markers up to pane `until`."""
    log = traffic(80, 80)
    for edge in range(5, until + 1):
        log.add(kit.marker(0, edge * kit.RESOLUTION))
    return run(log, **fields)


def test_traffic_that_stops_is_found_after_the_longest_window() -> None:
    """The last window ended at pane 4; the longest takes 10."""
    assert told(silent(13, volume_thresholds=(LOW,))) == []
    (alert,) = told(silent(60, volume_thresholds=(LOW,)))
    assert alert[1].startswith("volume: no event, below the configured 150000;")
    assert alert[2] == 14 * kit.RESOLUTION
    assert told(silent(60)) == []


def test_the_end_of_a_bounded_input_is_no_silence_and_a_long_one_costs_nothing() -> None:
    log = traffic(80, 80).add(kit.marker(0, EDGE_END))
    assert told(run(log, volume_thresholds=(LOW,))) == []
    log = traffic(80, 80).add(kit.marker(0, 10**14 * kit.RESOLUTION))
    assert [transition for transition, _, _ in told(run(log, volume_thresholds=(LOW,)))] == ["opened"]


def test_a_window_that_lost_events_is_not_judged() -> None:
    log = kit.Log()
    for edge in range(4):
        log.add(kit.pane(0, edge * kit.RESOLUTION, 10, kit.reference()))
        log.add(kit.marker(0, (edge + 1) * kit.RESOLUTION, counters={"consumed": 0, "gap": 100 * (edge + 1)}))
    assert told(run(log, volume_thresholds=(LOW,))) == []


@pytest.mark.parametrize("saved_at", [None, 10])
def test_a_stretch_that_lost_events_is_no_silence(saved_at: int | None) -> None:
    """The loss is long complete when the stretch ends: pane 14 of one that began with pane 4."""
    log = traffic(80, 80)
    for edge in range(5, 25):
        log.add(kit.marker(0, edge * kit.RESOLUTION, counters={"consumed": 0, "gap": 100 * (edge >= 7)}))
    stage = kit.monitor([kit.reference()], volume_thresholds=(LOW,))
    outputs = list(kit.run(stage, log.records[:saved_at]))
    if saved_at is not None:
        stage, saved = kit.monitor([kit.reference()], volume_thresholds=(LOW,)), kit.live({}, stage.changed_blobs())
        stage.load(saved)
        outputs += kit.run(stage, log.records[saved_at:])
    assert [end for _, _, end in told(outputs)] == [24 * kit.RESOLUTION]


def test_an_online_detector_watches_it_and_survives_a_restart() -> None:
    watcher = Watcher("page_hinkley", "volume", parameters=(("min_instances", 5),))
    log = traffic(*[80] * 20, *[800] * 10)  # windows
    whole = run(log, volume_watchers=(watcher,))
    alert = told(whole)[0]
    assert alert[0] == "opened"
    assert "page_hinkley(volume, min_instances=5) has found a change" in alert[1]
    for cut in (7, 40, 55, 80):
        stage = kit.monitor([kit.reference()], volume_watchers=(watcher,), volume_thresholds=())
        first = kit.run(stage, log.records[:cut])
        again = kit.monitor([kit.reference()], volume_watchers=(watcher,))
        again.load(kit.live({}, stage.changed_blobs()))
        assert [*first, *kit.run(again, log.records[cut:])] == list(whole)


def test_what_is_open_resolves_where_nobody_asks_any_more() -> None:
    log = traffic(80, 40, 40, *[40] * 5)
    stage = kit.monitor([kit.reference()], volume_thresholds=(LOW,))
    assert [transition for transition, _, _ in told(kit.run(stage, log.records[:10]))] == ["opened"]
    again = kit.monitor([kit.reference()])
    again.load(kit.live({}, stage.changed_blobs()))
    assert [transition for transition, _, _ in told(kit.run(again, log.records[10:]))] == ["resolved"]


def test_silence_survives_a_restart_at_every_record() -> None:
    log = traffic(80, 80)
    for edge in range(5, 40):
        log.add(kit.marker(0, edge * kit.RESOLUTION))
    for edge in range(40, 50):
        log.edge(edge * kit.RESOLUTION, 80, kit.reference())
    whole = run(log, volume_thresholds=(LOW,))
    assert [transition for transition, _, _ in told(whole)] == ["opened", "resolved"]
    for cut in range(1, len(log.records), 3):
        stage = kit.monitor([kit.reference()], volume_thresholds=(LOW,))
        first = kit.run(stage, log.records[:cut])
        again = kit.monitor([kit.reference()], volume_thresholds=(LOW,))
        again.load(kit.live({}, stage.changed_blobs()))
        assert [*first, *kit.run(again, log.records[cut:])] == list(whole)


def settings(*detectors: dict[str, Any]) -> Any:
    config = config_from(
        {
            "kafka": {"bootstrap_servers": "a:1"},
            "topics": {"predictions": "p"},
            "models": {"fraud": {"reference": {"file": "x.parquet"}, "detectors": list(detectors)}},
        }
    )
    return monitor_settings(config).model("fraud")


def test_it_is_configured_as_any_series() -> None:
    plain = settings({"type": "psi", "threshold": 0.2})
    chosen = settings(
        {"type": "psi", "threshold": 0.2},
        {"type": "volume", "below": 100, "threshold": 9_000},
        {"type": "adwin", "series": "volume"},
    )
    assert chosen.volume_thresholds == (Threshold("volume", 9_000.0, 100.0),)
    assert chosen.volume_watchers == (Watcher("adwin", "volume"),)
    assert (chosen.thresholds, chosen.watchers) == (plain.thresholds, plain.watchers)
    assert chosen.detection_hash() != plain.detection_hash()


@pytest.mark.parametrize(
    ("detector", "message"),
    [
        ({"type": "volume", "below": 1, "targets": ["amount"]}, "volume is of the model, not of a target"),
        ({"type": "adwin", "series": "volume", "targets": ["amount"]}, "volume is of the model, not of a target"),
        ({"type": "volume", "below": "3 std"}, "a reference keeps no volume of its windows"),
        ({"type": "volume"}, "volume has no limit"),
    ],
)
def test_what_makes_no_sense_is_refused(detector: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(detector)
