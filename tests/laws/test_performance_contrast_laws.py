"""Laws of what is compared in the stream: groups and versions as their rows say, in every window, once, whatever died."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import performance_kit as world

SEEDS = range(3)
RATES = ("selection_rate", "recall", "false_positive_rate", "precision")


@cache
def outputs(seed):
    stage = world.stage_of()
    stage.apply("panes", world.log_of(seed))
    return tuple(stage.outbox)


def about(data):
    names = ("model", "feedback", "horizon_ms", "version", "segment", "metric")
    return (*(data[name] for name in names), data["window"]["start_ms"])


@cache
def values(seed):
    """What the records of single metrics say, by what they are about."""
    return {about(e["data"]): e["data"] for e in world.performance(outputs(seed))}


def rate_of(part, name, horizon):
    """(part, whole) of a rate, counted in plain Python."""
    seen = [row for row in part if world.within(row.labelled_ms, horizon)]
    hit, of = {
        "selection_rate": ([row for row in part if row.predicted], part),
        "recall": ([r for r in seen if r.label and r.predicted], [r for r in seen if r.label]),
        "false_positive_rate": ([r for r in seen if not r.label and r.predicted], [r for r in seen if not r.label]),
        "precision": ([r for r in seen if r.label and r.predicted], [r for r in seen if r.predicted]),
    }[name]
    return len(hit), len(of)


@pytest.mark.parametrize("seed", SEEDS)
def test_disparities_are_what_the_rows_say_and_too_few_rows_say_nothing(seed):
    rows, checked, few = world.rows(seed), 0, 0
    written = world.performance(outputs(seed), "disparity")
    assert len({about(each["data"]) for each in written}) == len(written)
    for data in (each["data"] for each in written):
        assert (data["segment"], data["reference_segment"], data["model"]) == ("country=FR", "country=DE", world.FRAUD)
        start, end = data["window"]["start_ms"], data["window"]["end_ms"]
        own = [
            row for row in rows
            if row.model == world.FRAUD and row.version == data["version"] and start <= row.time_ms < end
        ]  # fmt: skip
        if data["metric"] not in RATES:
            assert data["metric"] == "calibration"
            continue
        sides = [
            rate_of([row for row in own if row.country == country], data["metric"], data["horizon_ms"])
            for country in ("FR", "DE")
        ]
        if min(whole for _, whole in sides) < world.LEAST:
            assert data["difference"]["value"] is data["ratio"]["value"] is None
            assert "are needed" in data["difference"]["undefined"] or "no " in data["difference"]["undefined"]
            few += 1
            continue
        a, b = (hit / whole for hit, whole in sides)
        difference = data["difference"]
        assert difference["value"] == pytest.approx(a - b, abs=1e-12)
        assert difference["low"] <= a - b <= difference["high"]
        assert [data["group"]["used"], data["reference"]["used"]] == [whole for _, whole in sides]
        if min(a, b) > 0:
            assert data["ratio"]["value"] == pytest.approx(a / b)
        checked += 1
    assert checked > 60
    assert few > 5
    due = {key[2:5] + key[6:] for key in values(seed) if key[:2] == (world.FRAUD, "labels") and key[4] == "country=FR"}
    assert {key[2:5] + key[6:] for key in (about(each["data"]) for each in written)} == due


@pytest.mark.parametrize("seed", SEEDS)
def test_versions_are_compared_with_the_one_that_serves(seed):
    found, checked = values(seed), 0
    written = {about(each["data"]): each["data"] for each in world.performance(outputs(seed), "comparison")}
    for key, data in written.items():
        model, feedback, horizon, version, segment, metric, start = key
        assert version != data["champion_version"] == data["serving"]
        other = found[model, feedback, horizon, data["champion_version"], segment, metric, start]
        own = found[key]
        assert data["challenger"]["value"] == own["value"]
        assert data["champion"]["value"] == other["value"]
        used = min(own["counts"]["used"], other["counts"]["used"])
        if own["value"] is None or other["value"] is None or used < world.LEAST:
            assert data["difference"]["value"] is None
            assert data["difference"]["undefined"].startswith(("version: ", "champion: "))
        elif own["low"] is not None and other["low"] is not None:
            assert data["difference"]["value"] == pytest.approx(own["value"] - other["value"], abs=1e-12)
            checked += 1
    assert checked > 300
    due = {
        key for key, data in found.items()
        if data["metric"] not in {"confusion_matrix", "quantile_loss"} and data["version"] != data["serving"]
        and (*key[:3], data["serving"], *key[4:]) in found
    }  # fmt: skip
    assert due == set(written)


@pytest.mark.parametrize("seed", SEEDS)
def test_who_serves_and_when_that_changed_follows_from_the_counts(seed):
    series = {}
    for data in values(seed).values():
        if data["segment"] == "all":
            window = series.setdefault((data["model"], data["feedback"], data["horizon_ms"]), {})
            now, said = window.setdefault(data["window"]["start_ms"], ({}, set()))
            now[data["version"]] = data["counts"]["predictions"]
            said.add((data["serving"], data.get("promoted_from")))
    changes = 0
    for windows in series.values():
        serving = None
        for _, (now, said) in sorted(windows.items()):
            best = max(sorted(now), key=now.get)
            promoted = serving is not None and best != serving and now[best] >= 2 * max(now.get(serving, 0), 1)
            before, serving = serving, best if serving is None or promoted else serving
            assert said == {(serving, before if promoted else None)}
            changes += promoted
    assert changes > 0
