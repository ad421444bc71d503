"""The load tests' own judgement: figures that are right hold, and each that is not makes its condition fail."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from load_tests import demo_seeds, fuzz, join_speed, label_upload, memory, performance_alarms, real_feedback, soak
from load_tests.real import __main__ as real
from load_tests.real.feedback_recount import HISTOGRAMS
from load_tests.throughput import __main__ as drained
from load_tests.throughput import recount


def failing(holds: dict[str, bool]) -> int:
    return sum(not held for held in holds.values())


# ---- soak


def soaked(**changes: Any) -> dict[str, Any]:
    life = {"slope_mb_per_min": 0.9, "fds": [50.0, 55.0], "threads": [20.0, 20.0], "asyncio_tasks": [30.0, 31.0]}
    counted = {"consumed": 1009, "applied": 999, "dead_letters": 0, "duplicates": 9, "late": 1, "tombstones": 0}
    return {
        "minutes": changes.pop("minutes", 30.0),
        "faults": changes.pop("faults", dict.fromkeys(soak.KINDS, 3)),
        "sent": changes.pop("sent", 1000),
        "lives": changes.pop("lives", [life | changes.pop("life", {})]),
        "counted": counted | changes,
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"sent": 1001},
        {"consumed": 1010},
        {"dead_letters": 1, "duplicates": 8},
        {"applied": 998, "late": 2},
        {"faults": {"kill": 9, "term": 9, "freeze": 9}},
        {"lives": []},
        *({"life": life} for life in (
            {"slope_mb_per_min": 1.01}, {"slope_mb_per_min": np.nan}, {"fds": [50.0, 55.5]}, {"threads": [20.0, 26.0]},
            {"asyncio_tasks": [np.nan, np.nan]},
        )),
    ],
    ids=str,
)  # fmt: skip
def test_each_condition_of_the_soak_can_fail(wrong: dict[str, Any]) -> None:
    assert not failing(soak.conditions(soaked()))
    assert failing(soak.conditions(soaked(**wrong))) == 1


def test_a_short_soak_has_no_slope() -> None:
    assert not failing(soak.conditions(soaked(minutes=3.0, lives=[], faults={})))


# ---- memory


@pytest.mark.parametrize(
    ("wrong", "of_segments"),
    [
        ({"measured_to_estimate": 1.21}, True),
        ({"measured_to_estimate": 0.82}, True),
        ({"lag_events_max": 100_000.0}, True),
        ({"lag_events_max": np.inf}, True),
        ({"consumed_events": 899_999}, True),
        ({"slope_mb_per_min": 1.1}, True),
        ({"slope_mb_per_min": np.nan}, True),
        ({"rss_mb_max": 400.5}, False),
    ],
)
def test_each_condition_of_the_memory_run_can_fail(wrong: dict[str, Any], of_segments: bool) -> None:
    right = {
        "measured_to_estimate": 0.9, "lag_events_max": 99.0, "rate": 10_000, "slope_mb_per_min": 0.5, "rss_mb_max": 400.0,
        "sent_events": 1_000_000, "consumed_events": 999_999,
    }  # fmt: skip
    assert not failing(memory.conditions(right, plain=True))
    assert failing(memory.conditions(right | wrong, plain=True)) == 1
    assert failing(memory.conditions(right | wrong, plain=False)) == of_segments


# ---- throughput


def summed(wrong: list[str] | None = None, **changes: Any) -> dict[str, bool]:
    ours = {
        "events": 100_000,
        "wall_s": 1.0,
        "cpu_s": 1.0,
        "rss_mb_max": 349.0,
        "windows_closed": 100,
        "snapshots": 2,
    } | changes
    others = [{"events": events, "wall_s": 1.0, "cpu_s": 1.0} for events in (100_000, 200_000, 6_666, 6_000)]
    found: dict[str, bool] = drained.summary([ours, *others], 650.0, wrong or [])["holds"]
    return found


@pytest.mark.parametrize(
    "wrong",
    [{"rss_mb_max": 350.0}, {"windows_closed": 99}, {"snapshots": 1}, {"cpu_s": 1.02}, {"wrong": ["a window"]}],
    ids=str,
)
def test_each_condition_of_the_throughput_can_fail(wrong: dict[str, Any]) -> None:
    assert not failing(summed())
    assert failing(summed(**wrong)) == (2 if "cpu_s" in wrong else 1)


def windows_of(counted: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """Records of windows of a minute that say what was counted."""
    found = []
    for edge, pane in counted.items():
        window = {
            name: f"2026-01-01T00:{(edge + more) // 60_000:02d}:00Z" for name, more in (("start", 0), ("end", 60_000))
        }
        own = {
            recount.FEATURE: {"bins": [pane["events"]], "mean": pane["sum"] / pane["events"]},
            recount.CATEGORY: {"bins": list(pane["categories"].values())},
            "prediction": {"bins": [pane["ones"], pane["events"] - pane["ones"]]},
        }
        found += [{"window": window, "events": pane["events"], "targets": {name: said}} for name, said in own.items()]
    return found


def test_a_recount_finds_every_number_that_differs_and_every_window_that_is_missing_or_there_twice() -> None:
    start = 1_767_225_600_000  # 2026-01-01
    pane = {"events": 5, "sum": 2.5, "ones": 2, "categories": {"a": 3, "b": 2}}
    counted = {start: pane, start + 60_000: pane}
    said = windows_of({edge - start: pane for edge, pane in counted.items()})
    assert not recount.differences(said, counted)
    for number, window in enumerate(said):
        (name,) = window["targets"]
        own = window["targets"][name]
        first = own["bins"][0]
        for other in ({"events": 4}, {"targets": {name: own | {"bins": [first - 1, *own["bins"][1:]]}}}):
            assert recount.differences([*said[:number], window | other, *said[number + 1 :]], counted), other
        if name == recount.FEATURE:
            moved = window | {"targets": {name: own | {"mean": own["mean"] + 1e-8}}}
            assert recount.differences([*said[:number], moved, *said[number + 1 :]], counted)
        assert recount.differences([*said[:number], *said[number + 1 :]], counted)
        assert recount.differences([*said, window], counted)
    assert recount.differences([], counted)


# ---- demo, performance, join


def outcomes(late: int = 0, missed: int = 0, others: int = 0, seeds: int = 100) -> dict[str, object]:
    delays = [None] * missed + [6] * late + [5] * (seeds - missed - late)
    made = [demo_seeds.Outcome("shift", seed, delay, [], 1.0) for seed, delay in enumerate(delays)]
    made[-1] = demo_seeds.Outcome("shift", seeds, 5, [("country", 1)] * others, 1.0)
    return demo_seeds.summary(made)


def test_the_demo_keeps_its_promise_in_95_seeds_of_100_and_with_one_other_alarm() -> None:
    assert outcomes(late=3, missed=2, others=1)["kept"]
    for wrong in (outcomes(late=3, missed=3), outcomes(late=6), outcomes(missed=6), outcomes(others=2)):
        assert not wrong["kept"]


def test_each_goal_of_the_performance_alarms_can_fail() -> None:
    def goals(holds: bool = True, drop: int = 100, **signed: int) -> list[str]:
        found = {"mean_signed_error": 20, "share_over_predicted": 20, "mae": 0} | signed
        return performance_alarms.goals({
            "false_alarms": [{"horizon_ms": 1, "holds": True}, {"horizon_ms": 2, "holds": holds}],
            "drop": [{"found": 0, "changes": 100}, {"found": drop, "changes": 100}],
            "signed": [{"metric": name, "found": n, "changes": 20} for name, n in found.items()],
        })  # fmt: skip

    assert goals() == []
    for wrong in ({"holds": False}, {"drop": 99}, {"mean_signed_error": 19}, {"share_over_predicted": 19}):
        assert len(goals(**wrong)) == 1, wrong


@pytest.mark.parametrize(("alarm", "holds"), [(False, True), (True, False)])
def test_alarms_without_a_change_break_the_bound(monkeypatch: pytest.MonkeyPatch, alarm: bool, holds: bool) -> None:
    said = {"ctr": {"alarm": {"direction": "up"} if alarm else None}}
    monkeypatch.setattr(performance_alarms, "judged", lambda *_: said)
    assert [each["holds"] for each in performance_alarms.false_alarms(2000, 2, 1)] == [holds] * 3


RIGHT = {
    "predictions_per_cpu_s": 1e5, "feedback_per_cpu_s_beside_them": 2e4, "burst_feedback_per_cpu_s": 2e4, "snapshot_share": 0.1,
    "bytes_per_waiting": {"index": 40.0, "all": 64.0, "resident": 64.0}, "waiting": 100, "waiting_least": 100, "burst_taken": 0.8,
    "restored_is_the_same": True,
}  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        {"predictions_per_cpu_s": 99_999.0}, {"feedback_per_cpu_s_beside_them": 19_999.0}, {"burst_feedback_per_cpu_s": 1.0},
        {"snapshot_share": 0.11}, {"bytes_per_waiting": {"all": 64.1, "resident": 64.0}},
        {"bytes_per_waiting": {"all": 64.0, "resident": 64.1}}, {"waiting": 99}, {"burst_taken": 0.79},
        {"restored_is_the_same": False},
    ],
    ids=str,
)  # fmt: skip
def test_each_promise_of_the_join_can_be_missed(wrong: dict[str, Any]) -> None:
    assert not join_speed.missed(RIGHT, 64.0)
    assert len(join_speed.missed(RIGHT | wrong, 64.0)) == 1


def test_a_burst_of_labels_finds_the_predictions_that_wait() -> None:
    traffic = join_speed.Traffic(pairs=False)
    traffic.run(40 * join_speed.BATCH)
    assert len(traffic.join.index) == 200_000
    rate, taken = traffic.burst(2_000)
    assert rate > 0
    assert taken > join_speed.TAKEN_MIN


# ---- flights


def outcome(**changes: Any) -> real.Outcome:
    right = {"windows": {"w": {}}, "alerts": {"a": {}}, "dead_letters": 0, "events": 9, "killed": 0, "seconds": 1.0}
    return real.Outcome(**right | changes)


def test_two_runs_over_the_flights_hold_when_they_say_the_same_and_lose_nothing() -> None:
    def holds(published: int = 9, killed: int = 1, **changes: Any) -> bool:
        return real.holds(outcome(), outcome(killed=killed, **changes), published)

    assert holds()
    for wrong in (
        {"published": 10},
        {"killed": 0},
        {"events": 8},
        {"dead_letters": 1},
        {"windows": {}},
        {"alerts": {}},
    ):
        assert not holds(**wrong), wrong
    assert not real.holds(outcome(alerts={}), outcome(alerts={}, killed=1), 9), "a year without an alert"


# ---- uploads of labels


def group(name: str, *samples: tuple[float, float, float, float]) -> label_upload.Group:
    return label_upload.Group(name, 1, Path(), samples=list(samples))


def test_what_stalls_must_reach_its_cap_stay_below_it_and_not_grow() -> None:
    cap = label_upload.CAP_ROWS

    def wrong(*waiting: float, mb: float = 0.0, evicted: float = 1.0) -> list[str]:
        seen = [(float(at), 100.0 + (mb if at > 2 else 0.0), rows, evicted) for at, rows in enumerate(waiting)]
        calm = [(float(at), 100.0, 0.0, 0.0) for at in range(len(waiting))]
        found: list[str] = []
        label_upload.memory([group("alone", *calm), group("upload", *calm), group("stalled", *seen)], found)
        return found

    assert not wrong(cap, cap, cap, cap, mb=14.0)
    assert wrong(cap, cap, cap)
    assert wrong(cap, cap, cap, cap, evicted=0.0)
    assert wrong(cap, cap, cap, 9.0 * cap)
    assert wrong(0.0, 0.0, 0.0, 0.0), "a metric that says nothing"
    assert wrong(cap, cap, cap, cap, cap, cap, mb=30.0)


def written(
    monkeypatch: pytest.MonkeyPatch, topics: dict[tuple[str, str], dict[bytes, tuple[bytes, int]]], **labels: int
) -> list[str]:
    monkeypatch.setattr(label_upload, "values", lambda _, group, topic: topics[group, topic])
    monkeypatch.setattr(label_upload, "labels_joined", lambda *_: Counter({"matched": 50} | labels))
    monkeypatch.setattr(label_upload, "memory", lambda *_: {})
    traffic = type("Sent", (), {"sent": 50, "uploaded": 50})()
    found: list[str] = label_upload.verdict("", [], traffic, [100.0], 200_000)["wrong"]
    return found


def test_an_upload_may_change_nothing_delay_nothing_and_lose_no_label(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(alert: dict[bytes, tuple[bytes, int]], window: dict[bytes, tuple[bytes, int]], **labels: int) -> list[str]:
        same = {b"a": (b"body", 101_000)}, {b"w": (b"body", 101_000)}
        topics = {
            ("stalled", "alerts"): same[0], ("stalled", "windows"): same[1], ("upload", "alerts"): alert, ("upload", "windows"): window,
        }  # fmt: skip
        return written(monkeypatch, topics, **labels)

    right = {b"a": (b"body", 101_900)}, {b"w": (b"body", 101_900)}
    assert of(*right) == []
    assert of({b"a": (b"body", 102_000)}, right[1]) == ["an alert of upload came 1000 ms later"]
    assert of({b"a": (b"other", 101_000)}, right[1])
    assert of(right[0], {b"w": (b"other", 101_000)})
    assert of(right[0], {})
    assert of(*right, matched=49)
    assert of(*right, late=1)
    nothing: dict[tuple[str, str], dict[bytes, tuple[bytes, int]]] = {
        (name, topic): {} for name in ("stalled", "upload") for topic in ("alerts", "windows")
    }
    assert written(monkeypatch, nothing)


# ---- metrics of flights against scikit-learn


def test_what_differs_is_missing_or_too_much_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(real_feedback.STATED_MAX) == HISTOGRAMS

    def key(metric: str) -> tuple[Any, ...]:
        return ("m", "1", "all", metric, 2, None, 0, 1)

    counts = {"predictions": 9, "observed": 8, "share_in": None}
    values: dict[str, float | None] = {"accuracy": 0.5, "auroc": 0.7, "f1": None}
    expected = [(key(name), {"value": value, **counts}) for name, value in values.items()]
    monkeypatch.setattr(real_feedback, "expected_performance", lambda _: iter(expected))

    def said(metric: str = "", **changes: Any) -> dict[tuple[Any, ...], dict[str, Any]]:
        found = {}
        for name, value in values.items():
            own = {"value": value, "counts": {"predictions": 9, "observed": 8}, "final": True, "provisional": False}
            own |= {"incomplete": False, "error": 0.01} | ({"undefined": "no labels"} if value is None else {})
            found[key(name)] = own | (changes if name == metric else {})
        return found

    def wrong(found: dict[tuple[Any, ...], dict[str, Any]]) -> list[str]:
        differing: list[str] = real_feedback.differences(found, None)[0]  # type: ignore[arg-type]
        return differing

    assert wrong(said()) == []
    assert wrong(said("auroc", value=0.7099)) == []
    for metric, changes in (
        ("accuracy", {"value": 0.5 + 1e-8}), ("accuracy", {"value": None}), ("accuracy", {"value": float("nan")}),
        ("auroc", {"value": 0.711}), ("auroc", {"value": 0.7, "error": 1.0}), ("f1", {"value": 0.0}),
        ("f1", {"undefined": None}), ("accuracy", {"incomplete": True}), ("accuracy", {"final": False}),
        ("accuracy", {"counts": {"predictions": 9, "observed": 7}}),
    ):  # fmt: skip
        assert len(wrong(said(metric, **changes))) == 1, (metric, changes)
    found = said()
    del found[key("f1")]
    assert wrong(found) == [f"missing: {key('f1')}"]
    assert wrong(said() | {key("mae"): {}}) == [f"extra: {key('mae')}"]


# ---- the fuzzer


def fuzzed(**changes: int) -> fuzz.Fuzzer:
    found = fuzz.Fuzzer(1)
    vars(found).update({"messages": 1000, "applied": 10, "accepted": 20, "strict": 10} | changes)
    return found


def test_a_fuzzer_that_applies_nothing_or_compares_the_strict_tier_with_itself_shows_nothing() -> None:
    assert fuzzed().enough()
    for wrong in ({"applied": 9}, {"strict": 11}, {"messages": 0, "applied": 0}):
        assert not fuzzed(**wrong).enough()


def test_most_of_what_the_fuzzer_makes_and_a_tier_accepts_is_read_by_the_fast_one() -> None:
    found = fuzz.Fuzzer(1)
    for name in fuzz.LAYOUTS:
        found.chunk(name)
    assert found.strict > 0
    assert found.enough()
