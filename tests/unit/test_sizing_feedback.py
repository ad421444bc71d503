"""What check-config says of what waits for feedback: against a join that was filled, and where the caps are too small."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream.commands.configuration import _report
from stream.commands.shared import Output
from stream.config import Config
from stream.config_errors import ConfigError
from stream.join import Join
from stream.join_feedback import Feedback, FeedbackKind
from stream.join_groups import NO_GROUP, Group
from stream.join_index import CHUNK_ROWS, Predictions
from stream.plan import CollectorPlan
from stream.planning import collector_hash, collector_plan
from stream.preflight import preflight, too_much_waits
from stream.sizing import Estimate, estimate
from stream.sizing_feedback import CHANGE_BYTES, EVENT_BYTES, FEEDBACK_SHARE, NEWEST_BYTES, waits
from tests.unit.test_feedback_wiring import LABELS, config

RATE = 500
PERFORMANCE = {"horizons": ["2m", "5m"], "proxies": ["ctr"], "metrics": ["accuracy"]}


def plan_of(own: Config) -> CollectorPlan:
    return collector_plan(own, {"fraud": None})[0]


def fill(join: Join, rate: float, seconds: int, step_s: int) -> Iterator[tuple[int, int]]:
    """`rate` predictions a second with their feedback, step by step: (the most that waited, the most that was allocated) in each."""
    code, rows = join.group_code(Group("fraud", "1")), round(rate * step_s)
    for number in range(seconds // step_s):
        ids = np.arange(number * rows, (number + 1) * rows).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        time = number * step_s * 1000 + np.arange(rows) * step_s * 1000 // rows
        score, group = np.zeros((rows, 1)), np.full(rows, code, np.uint32)
        batch = Predictions(time, ids, np.zeros(rows, np.uint32), score, np.zeros(rows), group)
        join.add_predictions(batch, int(time[-1]) - 60_000)
        for name, state in join.streams.items():
            n = round(rows * FEEDBACK_SHARE[state.plan.kind])
            own, nothing = np.arange(n) * rows // n, np.full(n, np.nan)
            feedback = Feedback(
                time[own], time[own], ids[own], np.zeros(n, np.uint32), np.ones(n), np.zeros(n, bool),
                np.full(n, NO_GROUP, np.uint32), nothing, nothing.reshape(-1, 1),
            )  # fmt: skip
            join.add_feedback(name, feedback)
        waiting, allocated = len(join.index), join.nbytes
        join.advance(lambda matured: None)
        yield max(waiting, len(join.index)), max(allocated, join.nbytes)


def test_the_estimate_is_what_a_join_holds() -> None:
    plan = plan_of(config(performance=PERFORMANCE))
    assert plan.feedback is not None
    join = Join(plan.feedback.join)
    most = max(waiting for waiting, _ in fill(join, RATE, 25 * 60, 60))
    said = {each.name: each for each in waits(plan, 1, RATE)}
    assert 0.85 * said[""].needed < most <= said[""].needed + RATE * 60
    for name, state in join.streams.items():
        assert 0.85 * said[name].needed < state.waiting <= said[name].needed
    rows = len(join.index.log.chunks) * CHUNK_ROWS
    most_each = said[""].bytes_each
    assert (
        most_each - NEWEST_BYTES * len(join.streams) < join.index.nbytes / rows < most_each
    )  # the younger have no feedback
    for state in join.streams.values():
        assert state.changes.nbytes / (len(state.changes.chunks) * CHUNK_ROWS) == CHANGE_BYTES
    clicks = join.streams["clicks"].log
    assert clicks.nbytes / (len(clicks.chunks) * CHUNK_ROWS) == EVENT_BYTES


@pytest.mark.parametrize(("rate", "chunks", "step_s"), [(2.5, 2.4, 600), (20, 2.4, 60), (100, 4, 10), (500, 12, 10)])
def test_the_estimate_bounds_what_a_join_allocates_at_any_rate(rate: float, chunks: float, step_s: int) -> None:
    """Until so many chunks of predictions came: at low rates little more is held than what chunks hold that nobody waits for."""
    plan = plan_of(config(performance=PERFORMANCE))
    assert plan.feedback is not None
    seconds = int(chunks * CHUNK_ROWS / rate)
    allocated = max(size for _, size in fill(Join(plan.feedback.join), rate, seconds, step_s))
    said = sum(each.nbytes for each in waits(plan, 1, rate))
    assert 0.6 * said < allocated <= said


def test_the_estimate_bounds_what_a_join_allocates_at_its_caps() -> None:
    """Labels stall: everything up to the caps waits, whatever the rate is."""
    plan = plan_of(config(feedback={"waiting_predictions_max": 2 * CHUNK_ROWS, "waiting_events_max": 50_000}))
    assert plan.feedback is not None
    join, rows, most = Join(plan.feedback.join), 20_000, 0
    code = join.group_code(Group("fraud", "1"))
    for number in range(20):
        ids = np.arange(number * rows, (number + 1) * rows).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        time = np.full(rows, number * 60_000, np.int64)
        zeros, nothing = np.zeros(rows), np.full(rows, np.nan)
        group, none = np.full(rows, code, np.uint32), np.full(rows, NO_GROUP, np.uint32)
        low = np.zeros(rows, np.uint32)
        join.add_predictions(Predictions(time, ids, low, zeros.reshape(-1, 1), zeros, group), int(time[0]) - 60_000)
        clicks = Feedback(time, time, ids, low, zeros, zeros > 0, none, nothing, nothing.reshape(-1, 1))
        join.add_feedback("clicks", clicks)
        most = max(most, join.nbytes)
        join.advance(lambda matured: None)
    assert join.evicted > 0
    said = sum(each.most_bytes for each in waits(plan, 1, 10_000))
    assert 0.4 * said < most <= said


def test_fetches_of_every_input_are_counted() -> None:
    none = plan_of(config(performance=None, topics={"clicks": None, "labels": None}))
    both = plan_of(config(performance=PERFORMANCE))
    assert both.feedback is not None
    assert [each.name for each in both.feedback.join.streams] == ["clicks", "labels"]
    columns = estimate(none, 8).buffers_bytes - 8 * (2 << 20)
    assert estimate(both, 8).buffers_bytes == 3 * 8 * (2 << 20) + columns


def test_the_caps_are_the_configurations() -> None:
    own = config(feedback={"waiting_predictions_max": 200_000, "waiting_events_max": 20_000})
    plan = plan_of(own)
    assert plan.feedback is not None
    assert (plan.feedback.join.rows_max, plan.feedback.join.waiting_max) == (200_000, 20_000)
    assert collector_hash(own, plan) != collector_hash(config(), plan_of(config()))
    for name, value in (("waiting_predictions_max", 2 * CHUNK_ROWS - 1), ("waiting_events_max", 9_999)):
        with pytest.raises(ConfigError, match=name):
            config(feedback={name: value})


def test_horizons_beyond_the_cap_are_told_with_what_is_lost() -> None:
    own = config(performance=PERFORMANCE | {"horizons": ["2m", "10h"]})
    plan = plan_of(own)
    fits = 4_000_000 * 8 / (36_000 + 600 + 60) - CHUNK_ROWS * 8 / 36_660
    assert not list(too_much_waits(own, plan, 8, int(fits)))
    ((path, read, expected),) = too_much_waits(own, plan, 8, int(4 * fits))
    assert path == ("models", "fraud", "performance", "horizons", 1)
    assert "predictions a partition wait 10.2 hours for their feedback" in read
    assert "feedback.waiting_predictions_max is 4,000,000: the oldest 75% go after 2.6 hours" in read
    assert "larger cap" in expected


def test_lateness_beyond_the_cap_is_told_with_what_is_lost() -> None:
    own = config(topics={"labels": LABELS | {"lateness": "2h"}})
    plan = plan_of(own)
    ((path, read, _),) = [found for found in too_much_waits(own, plan, 8, 2_200) if found[0][0] == "topics"]
    assert path == ("topics", "labels", "lateness")
    assert (
        "1,996,500 events a partition wait for the lateness, feedback.waiting_events_max is 1,000,000: 50% are dropped"
        in read
    )
    assert not [found for found in too_much_waits(own, plan, 8, 1_000) if found[0][0] == "topics"]


def test_the_total_holds_what_waits_and_not_what_may() -> None:
    plan = plan_of(config(performance=PERFORMANCE | {"horizons": ["1h"]}))
    small, large, huge = (estimate(plan, 8, events_per_s=rate) for rate in (100, 10_000, 1_000_000))
    assert small.feedback_bytes * 10 < large.feedback_bytes < huge.feedback_bytes
    assert small.total_bytes - small.feedback_bytes < 240_000_000
    most = {each.feedback_bytes + each.stalled_bytes for each in (small, large, huge)}
    assert len(most) == 1
    assert huge.stalled_bytes < 0.1 * huge.feedback_bytes  # clicks alone do not reach their cap
    assert large.snapshot_bytes_per_s - small.snapshot_bytes_per_s > 10_000 * 100
    none = estimate(plan_of(config(performance=None, topics={"clicks": None, "labels": None})), 8)
    assert (none.feedback_bytes, none.stalled_bytes) == (0, 0)


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "monitor.yaml"
    body = {
        "kafka": {"bootstrap_servers": "unused:9092"},
        "topics": {"predictions": "p", "labels": "labels"},
        "models": {
            "fraud": {
                "reference": {"first": 5000},
                "targets": {"amount": {"kind": "numeric"}},
                "performance": {"horizons": ["1d"], "metrics": ["accuracy"]},
            }
        },
    }
    path.write_text(json.dumps(body | changes))
    return path


def test_check_config_refuses_and_says_how_to_mend_it(tmp_path: Path) -> None:
    found = {
        problem.code: problem for problem in preflight(written(tmp_path), partitions=8, events_per_s=10_000).problems
    }
    assert set(found) == {"DL-C025", "DL-C028"}
    assert "wait for feedback at 10,000 events a second (--rate)" in found["DL-C025"].expected
    assert found["DL-C028"].path == "models.fraud.performance.horizons[0]"
    assert found["DL-C028"].line == 1
    ok = preflight(written(tmp_path), partitions=8, events_per_s=50)
    assert not ok.problems
    assert ok.estimate is not None
    assert ok.estimate.stalled_bytes > 10**9


def test_copies_to_rekeyed_topics_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(**topics: Any) -> Estimate:
        path = written(tmp_path, topics={"predictions": "p", "labels": "labels"} | topics)
        found = preflight(path, partitions=8, events_per_s=50).estimate
        assert found is not None
        return found

    none, one = said(), said(labels={"name": "labels", "rekey": True})
    both = said(labels={"name": "labels", "rekey": True}, predictions={"name": "p", "rekey": "request.id"})
    assert (none.copies_bytes, none.unpacked_bytes) == (0, 0)
    assert one.copies_bytes == one.total_bytes - none.total_bytes == 8 * (2 << 20)
    assert both.copies_bytes == both.total_bytes - none.total_bytes == 16 * (2 << 20)
    assert both.unpacked_bytes == 16 * (31 << 20)  # a fetch of a megabyte that is 32 unpacked
    _report([], none, Output.TEXT)
    assert "re-keyed" not in capsys.readouterr().out
    _report([], both, Output.TEXT)
    out = capsys.readouterr().out
    assert "copies 33.6" in out
    assert "up to 520 MB more if all partitions that are copied to re-keyed topics have to catch up" in out


def test_fetched_panes_are_counted_by_their_partitions(tmp_path: Path) -> None:
    def buffers(monitors: int) -> int:
        path = written(tmp_path, topics={"predictions": "p", "labels": "labels"}, monitors=monitors)
        found = preflight(path, partitions=8, events_per_s=50).estimate
        assert found is not None
        return found.buffers_bytes

    assert buffers(32) - buffers(8) == 24 * (2 << 20)


def test_kinds_have_a_share() -> None:
    assert set(FEEDBACK_SHARE) == set(FeedbackKind)
