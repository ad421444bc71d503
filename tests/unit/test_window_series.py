"""Thresholds on window series: statistics, distances, tests; what they open, under which name, and what they leave alone."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import orjson
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import monitor_kit as kit

from detectors import RECORDED, REGISTRY
from detectors.distance import ReferenceBins, WindowBins, prepared_distance, prepared_test
from detectors.registry import Family
from detectors.sketches.distinct import REGISTERS, add
from detectors.verdict import BadSettings, Level
from stream.alerts import AlertBook, Breach, Kind, Observation, Transition
from stream.registers import Registers
from stream.window_series import (
    COMPARISONS,
    DISTINCT,
    NAMES,
    QUALITY,
    SUMMARY,
    Threshold,
    parameters_of,
    passed,
    watched,
)


@pytest.fixture(autouse=True)
def _scripted(monkeypatch):
    kit.scripted(monkeypatch)


PROFILE = kit.reference()
drifting = kit.drifting


def found(outputs):
    return [
        (a["type"].split(".")[2], a["subject"], a["data"]["evidence"].get("thresholds")) for a in kit.alerts(outputs)
    ]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in (*QUALITY, DISTINCT)])
def test_every_series_can_page_and_says_its_value_and_limit(name):
    """A window that is all in the last bin; the limit is just inside what the record says the series is."""
    test = name in COMPARISONS and REGISTRY[name].family is Family.TEST
    log = drifting([0.1] * 2 + [0.49] * 4)
    wanted = Threshold(name, None, 2.0, ("amount",)) if test else Threshold(name, -1e9, None, ("amount",))
    records = kit.windows(kit.run(kit.monitor([PROFILE], thresholds=(wanted,)), log))
    values = [record["targets"]["amount"][name] for record in records if "amount" in record["targets"]]
    low, high = min(values[0], values[1]), max(values[0], values[1])
    if low == high:  # an extreme or a quantile at the edge of its bin does not move
        limit = Threshold(name, low - 1.0, None, ("amount",))
    elif values[1] == low:
        limit = Threshold(name, None, (low + high) / 2, ("amount",))
    else:
        limit = Threshold(name, (low + high) / 2, None, ("amount",))
    seen = found(kit.run(kit.monitor([PROFILE], thresholds=(limit,)), log))
    opened = [entry for entry in seen if entry[0] == "opened"]
    assert [entry[1] for entry in opened] == ["feature_drift/amount"]
    (breach,) = opened[0][2]
    assert breach["type"] == name
    assert breach["threshold"] == (limit.above if limit.above is not None else limit.below)
    assert breach["value"] in values


def test_a_series_within_its_limits_opens_nothing():
    limits = (Threshold("mean", 1e9, -1e9), Threshold("g_test", None, 1e-300), Threshold("hellinger", 1.0))
    assert not kit.alerts(kit.run(kit.monitor([PROFILE], thresholds=limits), drifting([0.1] * 2 + [0.49] * 4)))


def test_the_limits_are_those_of_the_series_in_the_record():
    """Independent of the monitor: from the bins of its own record."""
    limits = (Threshold("hellinger", 9.0), Threshold("wasserstein", 9e9, None, (), (("scale", "reference_std"),)),
              Threshold("chi_squared", None, 1e-9))  # fmt: skip
    records = kit.windows(kit.run(kit.monitor([PROFILE], thresholds=limits), drifting([0.1] * 2 + [0.4] * 2)))
    reference = ReferenceBins.of([PROFILE.target("amount")])
    judged = [record for record in records if "amount" in record["targets"]]
    assert len(judged) == 2
    for record in judged:
        said = record["targets"]["amount"]
        rates = [round(said[name] * record["events"]) for name in ("missing", "invalid")]
        extremes = np.array([[said["min"]], [said["max"]]])
        window = WindowBins(np.array([*said["bins"], *rates]), *extremes)
        assert said["hellinger"] == pytest.approx(prepared_distance("hellinger", reference)(window)[0], abs=1e-12)
        assert said["chi_squared"] == pytest.approx(
            prepared_test("chi_squared", reference)(window).p_value[0], rel=1e-9
        )
        scaled = prepared_distance("wasserstein", reference, {"scale": "reference_std"})(window)[0]
        assert said["wasserstein(scale=reference_std)"] == pytest.approx(scaled, abs=1e-12)
        assert "energy" not in said


def test_quality_is_an_incident_of_its_own_beside_drift():
    """The scripted detector alarms on the values; the rate of missing ones has its own limit and its own end."""
    limits = (Threshold("missing", 0.2, None, ("amount",)),)
    log = kit.Log()
    for index, (share, missing) in enumerate([(0.1, 0)] * 8 + [(0.8, 20)] * 4 + [(0.8, 0)] * 6):
        edge = index * kit.RESOLUTION
        pane = kit.pane(0, edge, 40, PROFILE, shifted=share)
        log.add(kit.replace(pane, missing=np.array([missing, 0]), events=40 + missing))
        log.add(kit.marker(0, edge + kit.RESOLUTION))
    seen = [
        (transition, subject)
        for transition, subject, _ in found(kit.run(kit.monitor([PROFILE], thresholds=limits), log))
    ]
    assert seen.count(("opened", "feature_drift/amount")) == 1
    assert seen.count(("opened", "data_quality/amount")) == 1
    assert ("resolved", "data_quality/amount") in seen
    assert ("resolved", "feature_drift/amount") not in seen


def test_what_a_quality_alert_says():
    limits = (Threshold("missing", 0.2, None, ("amount",)),)
    log = kit.Log()
    for index in range(4):
        pane = kit.pane(0, index * kit.RESOLUTION, 40, PROFILE, shifted=0.1)
        log.add(kit.replace(pane, missing=np.array([40, 0]), events=80))
        log.add(kit.marker(0, (index + 1) * kit.RESOLUTION))
    outputs = kit.run(kit.monitor([PROFILE], thresholds=limits), log)
    (alert,) = kit.alerts(outputs)
    assert alert["data"]["kind"] == "data_quality"
    levels = [record["targets"]["amount"]["level"] for record in kit.windows(outputs) if "amount" in record["targets"]]
    assert set(levels) == {"ok"}, "the law of the values has not changed"
    assert alert["data"]["summary"].startswith("amount: missing 0.5 is above the configured 0.2; nothing is promised")
    assert alert["data"]["evidence"]["promise"] == "none: an operator's threshold"


def test_open_incidents_of_both_kinds_survive_a_snapshot():
    limits = (Threshold("missing", 0.2, None, ("amount",)),)
    monitor = kit.monitor([PROFILE], thresholds=limits)
    log = kit.Log()
    for index in range(8):
        pane = kit.pane(0, index * kit.RESOLUTION, 40, PROFILE, shifted=0.1 if index < 4 else 1.0)
        missing = 0 if index < 4 else 20
        log.add(kit.replace(pane, missing=np.array([missing, 0]), events=40 + missing))
        log.add(kit.marker(0, (index + 1) * kit.RESOLUTION))
    kit.run(monitor, log)
    book = monitor.models[kit.MODEL].book
    saved = orjson.loads(orjson.dumps(book.to_header()))
    again = type(book)(book.settings)
    again.load(saved)
    assert again.open == book.open
    assert sorted(key[3] for key in again.open if key[2] == "amount") == [False, True]


def test_the_number_of_distinct_values_has_its_limit_where_values_are_counted():
    profile = kit.reference(
        kit.reference_target("amount"), kit.reference_target("country", binning=kit.categorical("DE", "FR"))
    )
    limits = (Threshold("distinct", 20.0),)
    log = kit.Log()
    for index in range(4):
        registers = np.zeros((1, REGISTERS), np.uint8)
        add(
            registers[0],
            np.random.default_rng(1).integers(0, 1 << 63, 40 if index >= 2 else 5).astype(np.uint64) * np.uint64(2),
        )
        pane = kit.pane(0, index * kit.RESOLUTION, 40, profile, shifted=0.1)
        log.add(
            kit.replace(pane, distinct=Registers.of(np.array([1]), registers)),
            kit.marker(0, (index + 1) * kit.RESOLUTION),
        )
    outputs = kit.run(kit.monitor([profile], thresholds=limits), log)
    records = [record["targets"] for record in kit.windows(outputs) if "country" in record["targets"]]
    assert [record["country"]["distinct"] for record in records] == pytest.approx([5, 40], rel=0.05)
    assert "distinct" not in records[0]["amount"]
    (alert,) = kit.alerts(outputs)
    assert alert["subject"] == "feature_drift/country"
    assert alert["data"]["evidence"]["thresholds"][0]["value"] == pytest.approx(40, rel=0.05)


def test_names_are_told_apart_and_parameters_checked():
    assert set(NAMES) == {*SUMMARY, *COMPARISONS, DISTINCT}
    assert set(RECORDED) < set(COMPARISONS)
    assert parameters_of("psi", {"groups": 10}) == ()
    assert parameters_of("psi", {"groups": 20}) == (("groups", 20),)
    with pytest.raises(BadSettings, match=r"psi\.groups: nan"):
        parameters_of("psi", {"groups": float("nan")})
    limits = [Threshold("psi", 0.2), Threshold("psi", 0.2, None, (), (("groups", 20),)), Threshold("mean", 1.0),
              Threshold("energy", 0.2), Threshold("energy", 0.4, None, ("amount",))]  # fmt: skip
    assert [each.series for each in watched(limits, RECORDED)] == ["psi(groups=20)", "energy"]


def test_a_plain_upper_limit_decides_under_the_hash_it_always_had():
    assert Threshold("psi", 0.25, None, ("amount",)).deciding == ["psi", 0.25, ["amount"]]
    assert Threshold("psi", 0.25, None, ("amount",), (("groups", 20),)).deciding != ["psi", 0.25, ["amount"]]


@pytest.mark.parametrize(
    ("value", "limit"), [(2.0, 1.5), (1.5, None), (0.0, None), (-1.0, None), (-1.1, -1.0), (float("nan"), None)]
)
def test_limits_are_passed_beyond_them_and_never_by_no_value(value, limit):
    assert passed(value, 1.5, -1.0) == limit


def quality(log, index, missing, **fields):
    pane = kit.pane(0, index * kit.RESOLUTION, 40, PROFILE, shifted=0.1, **fields)
    log.add(kit.replace(pane, missing=np.array([missing, 0]), events=40 + missing))
    return log.add(kit.marker(0, (index + 1) * kit.RESOLUTION))


@pytest.mark.parametrize("later", [(), (Threshold("missing", 0.2, None, ("score",)),), (Threshold("psi", 99.0),)])
def test_an_incident_of_quality_ends_under_a_configuration_without_its_limit(later):
    """A restart with other limits: what was opened under the old ones must not stay open for good."""
    first = kit.monitor([PROFILE], thresholds=(Threshold("missing", 0.2, None, ("amount",)),))
    log = kit.Log()
    for index in range(6):
        quality(log, index, 40)
    (opened,) = kit.alerts(kit.run(first, log))
    again = kit.monitor([PROFILE], thresholds=later)
    again.load({name: data for name, data in first.changed_blobs().items() if data is not None})
    seen = len(log.records)
    for index in range(6, 16):
        quality(log, index, 40 if index < 10 else 0)
    (ended,) = kit.alerts(kit.run(again, log.records[seen:]))
    assert (ended["type"], ended["data"]["incident"]) == ("driftline.alert.resolved.v1", opened["data"]["incident"])


def test_limits_are_on_all_that_is_judged_with_what_was_carried_into_it():
    """Nine good events are carried, one without a score follows: a tenth is missing, not all of them."""

    def run(limit):
        log = kit.Log()
        for index in range(4):
            log.add(kit.pane(0, index * kit.RESOLUTION, 40, PROFILE, shifted=0.1))
            if index in {0, 2}:
                pane = kit.pane(0, index * kit.RESOLUTION, 0 if index else 9, PROFILE, shifted=0.1, version="2")
                missing = np.array([1, 1]) if index else pane.missing
                log.add(kit.replace(pane, missing=missing, events=1 if index else 9))
            log.add(kit.marker(0, (index + 1) * kit.RESOLUTION))
        log.add(kit.pane(0, 40, 40, PROFILE, shifted=0.1)).add(kit.marker(0, 50))
        return kit.run(kit.monitor([PROFILE], thresholds=(Threshold("missing", limit, None, ("score",)),)), log)

    outputs = run(0.11)
    states = [(each["state"], each["events"]) for each in kit.windows(outputs) if each["versions"] == ["2"]]
    assert states == [("carried", 9), ("judged", 1)]
    assert not kit.alerts(outputs)
    (alert,) = kit.alerts(run(0.09))
    assert alert["data"]["evidence"]["thresholds"] == [{"type": "missing", "value": 0.1, "threshold": 0.09}]


@pytest.mark.parametrize(
    ("limit", "kind"), [(Threshold("missing", 0.2), "data_quality"), (Threshold("psi", 0.2), "feature_drift")]
)
def test_a_window_that_the_detector_only_collects_has_its_limits(monkeypatch, limit, kind):
    """A slow target is judged once in a few windows; what an operator set a limit on is of each."""
    monkeypatch.setattr(kit.default, "update", _collecting(kit.default.update))
    log = kit.Log()
    for index, missing in enumerate([0] * 4 + [40] * 2 + [0] * 10):
        quality(log, index, missing)
    outputs = kit.run(kit.monitor([PROFILE], thresholds=(limit,)), log)
    assert [(alert["type"].split(".")[2], alert["data"]["kind"]) for alert in kit.alerts(outputs)][:1] == [
        ("opened", kind)
    ]


def _collecting(update):
    """The scripted detector, which says of every window that it was only collected."""

    def collect(*arguments):
        return kit.replace(update(*arguments), judged=False, level=Level.OK)

    return collect


def test_a_limit_that_is_passed_while_a_window_is_collected_leaves_escalation_to_judged_ones():
    book = AlertBook(kit.model_settings())
    far = Observation(Kind.FEATURE_DRIFT, "r", "all", "amount", 1, 0, alarm=True, quiet=False, effect=1.0)
    collected = kit.replace(far, alarm=False, effect=0.0, breaches=(Breach("psi", 1.0, 0.5),), judged=False)
    assert book.observe(far)[0] is Transition.OPENED
    told = [book.observe(seen) for seen in (kit.replace(far, effect=50.0), collected, kit.replace(far, effect=50.0))]
    assert [None if each is None else each[0] for each in told] == [None, None, Transition.ESCALATED]
