"""One test per cap: what an attacker can make many of, and how many of it are held."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson

sys.path.insert(0, str(Path(__file__).parents[1]))

import monitor_kit as kit

from load_tests import collector_speed
from stream.collector import Collector
from stream.decode import decode
from stream.kernels.framing import records_from_lines
from stream.limits import KEYS_MAX
from stream.mapping import Layout, Mapping
from stream.model_state import VERSIONS_FOLLOWED_MAX
from stream.plan import OTHER, UNKNOWN_MODEL, SegmentPlan
from stream.topics import TopicRole

EVENTS = 20_000


def _counted(**changes):
    stage = collector_speed.collector()
    part = collector_speed.columns(0, EVENTS, np.random.default_rng(1), 0.1)
    stage.apply(TopicRole.PREDICTIONS.value, replace(part, **changes))
    return stage


def _panes(stage) -> set[tuple[str, str, str]]:
    return {key for edge in stage.edges.values() for key in edge.panes}


def test_versions_beyond_the_limit_share_a_pane():
    names = {i + 1: f"version-{i}" for i in range(EVENTS)}
    stage = _counted(version=np.arange(1, EVENTS + 1).astype(np.uint64), version_names=names)
    by_edge_and_model = {}
    for edge_ms, edge in stage.edges.items():
        for model, version, _ in edge.panes:
            by_edge_and_model.setdefault((edge_ms, model), set()).add(version)
    assert all(len(versions) == 21 and OTHER in versions for versions in by_edge_and_model.values())
    plain = _counted()
    assert stage.memory_bytes() < 21 * plain.memory_bytes()


def test_unknown_models_share_a_pane():
    stage = _counted(model=np.full(EVENTS, -1, np.int32))
    assert _panes(stage) == {(UNKNOWN_MODEL, "", "all")}
    assert stage.accounting().unknown_model == EVENTS


def _segmented(texts):
    """Panes of EVENTS events whose first categorical column is also a segment of two values, filled with `texts` in turn."""
    plain, column = collector_speed.collector(), collector_speed.NUMERIC
    known = tuple(f"category-{i}" for i in range(2))
    segment = SegmentPlan("region", column, known, np.array([collector_speed.hashed(v) for v in known], np.uint64))
    models = tuple(replace(model, segments=(segment,)) for model in plain._plan.models)
    plan = replace(plain._plan, models=models)
    stage = Collector(0, plan, monitors=8, topic="predictions", config_hash="c", app_version="1")
    part = collector_speed.columns(0, EVENTS, np.random.default_rng(1), 0.1)
    part.cell[:, column] = np.resize(np.array([collector_speed.hashed(text) for text in texts], np.uint64), EVENTS)
    stage.apply(TopicRole.PREDICTIONS.value, part)
    return stage


def test_segment_values_that_are_not_configured_share_a_pane():
    few, many = (
        _segmented(["category-0", "category-1", "elsewhere"]),
        _segmented([f"region-{i}" for i in range(EVENTS)]),
    )
    names = {segment for _, _, segment in _panes(few)}
    assert names == {"all", "region=category-0", "region=category-1", "region=__other__"}
    assert {segment for _, _, segment in _panes(many)} == {"all", "region=__other__"}
    assert many.memory_bytes() <= few.memory_bytes()


def test_features_that_nobody_configured_are_not_kept():
    layout = Layout.compile(Mapping(), ["m"], ["features.known"])

    def decoded(features):
        event = {"prediction_id": "a", "model": "m", "version": "1", "timestamp": "2026-01-01T00:00:00Z"}
        return decode(records_from_lines([orjson.dumps(event | {"features": each}) for each in features]), layout)

    plain = decoded([{"known": 1.0}] * 200)
    wide = decoded([{"known": 1.0, **{f"new_{i}_{k}": k for k in range(50)}} for i in range(200)])
    assert wide.cell.shape == plain.cell.shape
    np.testing.assert_array_equal(wide.cell, plain.cell)
    too_wide = decoded([{f"new_{k}": k for k in range(KEYS_MAX + 1)}])
    assert not len(too_wide)
    assert [reject.code for reject in too_wide.rejects] == ["too_many_keys"]


def test_a_monitor_judges_the_outputs_of_so_many_versions_and_records_the_others(monkeypatch):
    kit.scripted(monkeypatch)
    profile = kit.reference()
    stage = kit.monitor([profile])
    log = kit.Log()
    per_window = VERSIONS_FOLLOWED_MAX // 2 + 10
    for window in range(3):
        panes = [
            kit.pane(0, window * 2 * kit.RESOLUTION, 20, profile, version=f"v{window * per_window + i}")
            for i in range(per_window)
        ]
        for pane in panes:
            log.add(pane)
        log.add(kit.marker(0, (window + 1) * 2 * kit.RESOLUTION))
    records = kit.windows(kit.run(stage, log))
    series = stage.models[kit.MODEL].series
    assert len({key.version for key in series if key.outputs}) == VERSIONS_FOLLOWED_MAX
    outputs = [record for record in records if record["series"].startswith("version:")]
    assert {record["state"] for record in outputs} == {"judged", "recorded"}
    assert sum(record["state"] == "recorded" for record in outputs) == len(outputs) - VERSIONS_FOLLOWED_MAX
