"""Incidents about arrays, or all features, whose detector left the configuration: they end, the others stay."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import monitor_kit as kit

from stream.alerts import NO_TARGET, Breach, Kind, Observation
from stream.monitor import Threshold
from stream.plan import ALL
from stream.row_series import ALL_FEATURES
from stream.window_records import window_body
from stream.windows import Window

PROFILE = kit.reference()
ARRAY = Threshold("mmd_random_features", 1.0, targets=("v",))
DATA = {
    "onset": "sudden",
    "evidence": {
        "statistic": 2.0, "threshold": 1.0, "false_alarms": "not limited", "promise": "none: an operator's threshold",
        "tolerance": 0.0, "thresholds": [{"type": "mmd_random_features", "value": 2.0, "threshold": 1.0}], "online": [],
    },
    "effect": {"shift": None, "unit": "all features together", "reference": {}, "now": {}},
    "largest_changes": [],
    "consequence": {"verdict": "unknown", "why": "no labels yet"},
    "events": 40,
    "window": window_body(Window(60, 80, 40, sufficient=True)),
    "reference": PROFILE.id,
    "historical": False,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _scripted(monkeypatch):
    kit.scripted(monkeypatch)


def restarted(**settings):
    """A monitor that another configuration left three incidents, of row series and of a target; what it writes next."""
    stage = kit.monitor([PROFILE])
    log = kit.Log()
    for edge in range(0, 100, 20):
        log.edge(edge, 40, PROFILE)
    stage.apply("panes", log.records)
    book = stage.models[kit.MODEL].book
    for target in ("v[]", ALL_FEATURES, PROFILE.targets[0].name):
        seen = Observation(
            Kind.FEATURE_DRIFT, PROFILE.id, ALL, target, 80, 60, alarm=False, quiet=False, effect=0.0,
            breaches=(Breach("mmd_random_features", 2.0, 1.0),),
        )  # fmt: skip
        transition, incident = book.observe(seen)
        book.event(transition, incident, 80, DATA | {"summary": "because"})
    stage.models[kit.MODEL].changed = True
    again = kit.monitor([PROFILE], **settings)
    again.load(kit.live({}, stage.changed_blobs()))
    again.outbox.clear()
    first = len(log.records)
    for edge in range(100, 160, 20):
        log.edge(edge, 40, PROFILE)
    again.apply("panes", log.records[first:])
    ended = [each for each in kit.alerts(again.outbox) if each["type"].endswith("resolved.v1")]
    about = {(each["data"]["target"], each["data"]["reason"]) for each in ended}
    return about, {incident.target for incident in again.models[kit.MODEL].book.open.values()}


def test_an_incident_of_rows_that_nobody_asks_about_any_more_ends():
    ended, still = restarted()
    assert {each for each in ended if each[1] == NO_TARGET} == {("v[]", NO_TARGET), (ALL_FEATURES, NO_TARGET)}
    assert not still & {"v[]", ALL_FEATURES}


def test_one_that_is_asked_about_goes_on():
    ended, still = restarted(rows=(ARRAY,))
    assert (ALL_FEATURES, NO_TARGET) in ended
    assert still & {"v[]", ALL_FEATURES} == {"v[]"}
