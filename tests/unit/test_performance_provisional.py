"""Running values of windows that are not final: which ages they have, what they say, and what share of the feedback is in."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import monitor_kit as kit
import performance_kit as world

from detectors.performance import PerformanceSums
from stream import container, performance_arrivals
from stream.config import Config
from stream.config_errors import ConfigError
from stream.join_feedback import FeedbackKind
from stream.monitor import PaneRecord
from stream.performance_arrivals import BLOCK, Arrivals
from stream.performance_merging import Horizon
from stream.performance_panes import PerformancePane, encode_performance_pane, series_name
from stream.performance_plan import ModelPerformance, StreamPerformance
from stream.planning import collector_hash, collector_plan
from stream.sizing import estimate
from stream.sizing_feedback import PANE_WIRE_BYTES, WINDOW_GROUP_BYTES
from stream.window_log import Closed
from tests.unit.test_feedback_wiring import config

STEP, ROWS = world.RESOLUTION, 70  # of an edge: more than a window needs
POINTS, AGES = (10, 20, 40), ((20, 10), (40, 10), (40, 20))
EDGES = range(0, 400, STEP)
SPAN = 2 * STEP  # of a window


def stream(horizons: tuple[int, ...] = (20, 40), ages: Any = AGES) -> StreamPerformance:
    return StreamPerformance("clicks", FeedbackKind.CLICK, horizons, ("ctr",), world.PROXIES, ages=ages)


def clicked(edge: int, point: int) -> int:
    """Of ROWS predictions: more come with time."""
    return (edge // STEP * 7 % 5 + 2) * POINTS.index(point) + 3


def pane(edge: int, point: int) -> PerformancePane:
    sums, hit = PerformanceSums(world.PROXIES), np.arange(ROWS) < clicked(edge, point)
    sums.add_proxies(hit, np.zeros(ROWS, bool), np.zeros(ROWS), np.full(ROWS, 0.5))
    return PerformancePane(
        0, world.FRAUD, "1", "all", "clicks", "click", point, edge, ROWS, clicked(edge, point), True, (), sums
    )


def log(seed: int | None = None, points: tuple[int, ...] = POINTS) -> list[PaneRecord]:
    """What a collector sends: all at the end, or, with a seed, as far as feedback had come at times drawn by it."""
    chance, bodies = random.Random(seed), []
    for edge in EDGES:
        bodies += [kit.pane(0, edge, ROWS, None, model=world.FRAUD), world.marker(0, edge + STEP)]
    done, marked = 0, dict.fromkeys(points, 0)
    late: list[Any] = []
    while done < EDGES.stop + points[-1]:
        done += EDGES.stop + points[-1] if seed is None else STEP * chance.choice((1, 1, 2, 7, 20))
        for point in points:
            until = done - point
            if until > marked[point]:
                late += [pane(edge, point) for edge in range(marked[point], min(until, EDGES.stop), STEP)]
                late.append(world.marker(0, until, series_name("clicks", point)))
                marked[point] = until
    if seed is not None:  # inputs and feedback come as they like, each in its order
        mixed = []
        while bodies or late:
            mixed.append((bodies if bodies and (not late or chance.random() < 0.5) else late).pop(0))
        bodies, late = mixed, []
    wires = (encode_performance_pane(body) if isinstance(body, PerformancePane) else b"" for body in [*bodies, *late])
    return [
        PaneRecord(n, 1000, 1, body, wire) for n, (body, wire) in enumerate(zip([*bodies, *late], wires, strict=True))
    ]


def stage_of(own: StreamPerformance) -> Any:
    return world.stage_of({world.FRAUD: (own,)}, sources=1)


def said(own: StreamPerformance, records: list[PaneRecord] | None = None) -> list[Any]:
    stage = stage_of(own)
    stage.apply("panes", log() if records is None else records)
    return world.performance(stage.outbox)


# ---- which ages ---------------------------------------------------------------------------------------------------------


def asked(horizons: list[str], provisional: Any) -> Config:
    return config(
        performance={"horizons": horizons, "proxies": ["ctr"], "provisional": provisional}, topics={"labels": None}
    )


def planned(horizons: list[str], provisional: Any) -> tuple[list[tuple[int, int]], list[int]]:
    """(horizon, age) in minutes of the model, and the ages that the join has besides the horizons."""
    plan = collector_plan(asked(horizons, provisional), {"fraud": None})[0]
    assert plan.feedback is not None
    (own,), (joined,) = plan.feedback.models[0].streams, plan.feedback.join.streams[:1]
    return [(h // 60_000, a // 60_000) for h, a in own.ages], [age // 60_000 for age in joined.ages_ms]


@pytest.mark.parametrize(
    ("horizons", "provisional", "ages", "joined"),
    [
        (["10m", "1d"], "auto", [(10, 2), (10, 5), (1440, 180), (1440, 720)], [2, 5, 180, 720]),
        (["2m", "1m"], "auto", [(2, 1)], []),  # an age that is a horizon shares its series; a pane has none
        (["1m"], "auto", [], []),
        (["10m", "1h"], ["10m", "5m"], [(10, 5), (60, 5), (60, 10)], [5]),
        (["10m", "1h"], "none", [], []),
    ],
)
def test_ages_of_a_configuration(horizons: list[str], provisional: Any, ages: Any, joined: Any) -> None:
    assert planned(horizons, provisional) == (ages, joined)


@pytest.mark.parametrize(
    ("provisional", "code", "words"),
    [
        ("often", "DL-C013", "auto, none, or a list"),
        (["5m", "5m"], "DL-C020", "stands twice"),
        (["10m"], "DL-C020", "10m is below no horizon"),
        ([], "DL-C014", "at least 1"),
        (["1m", "2m", "3m", "4m", "5m", "6m"], "DL-C014", "at most 5"),
    ],
)
def test_ages_that_cannot_be(provisional: Any, code: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        asked(["10m"], provisional)
    assert code in str(refused.value)
    assert words in str(refused.value)


def test_workers_must_agree_on_ages_and_none_is_what_was_before_there_were_any() -> None:
    hashes = {
        str(each): collector_hash(own := asked(["10m"], each), collector_plan(own, {"fraud": None})[0])
        for each in ("auto", "none", ["5m"])
    }
    assert len(set(hashes.values())) == 3


def test_what_ages_cost_is_in_the_estimate() -> None:
    plans = [collector_plan(asked(["10m"], each), {"fraud": None})[0] for each in ("none", ["5m"], "auto")]
    none, one, two = (estimate(plan, 8, events_per_s=100) for plan in plans)
    assert none.performance_panes_bytes_per_s == 8 * PANE_WIRE_BYTES // 60
    assert two.performance_panes_bytes_per_s == pytest.approx(3 * none.performance_panes_bytes_per_s, abs=2)
    assert one.windows_bytes - none.windows_bytes > WINDOW_GROUP_BYTES
    assert two.windows_bytes - one.windows_bytes > WINDOW_GROUP_BYTES
    assert none.terms.keys() == two.terms.keys()
    assert 0.3 * PANE_WIRE_BYTES < len(encode_performance_pane(pane(0, 10))) < 2 * PANE_WIRE_BYTES


# ---- records ------------------------------------------------------------------------------------------------------------


def flags(event: Any) -> Any:
    """A record without what tells a running value from a final one."""
    data = {k: v for k, v in event["data"].items() if k not in FLAGS}
    return {k: v for k, v in event.items() if k not in {"data", "id"}} | {"data": data}


FLAGS = {"judged", "horizon_ms", "age_ms", "final", "provisional", "revision", "share_in"}


def test_a_running_value_is_what_a_horizon_of_that_length_says() -> None:
    events = said(stream())
    alone = {point: said(stream((point,), ())) for point in POINTS}
    assert len({event["id"] for event in events}) == len(events) == 5 * len(alone[10])
    for horizon, age in AGES:
        running = [e for e in events if (e["data"]["horizon_ms"], e["data"].get("age_ms")) == (horizon, age)]
        assert [flags(event) for event in running] == [flags(event) for event in alone[age]]
        assert {(e["data"]["final"], e["data"]["provisional"]) for e in running} == {(False, True)}
        assert not any("judged" in event["data"] for event in running)


def test_a_final_value_is_what_it_is_without_ages_but_for_its_revision() -> None:
    finals = [event for event in said(stream()) if event["data"]["final"]]
    without = said(stream(ages=()))
    assert [e["data"]["provisional"] for e in finals] == [False] * len(without) == [False] * 40
    assert {(e["data"]["horizon_ms"], e["data"]["revision"]) for e in finals} == {(20, 2), (40, 3)}
    assert {e["data"]["revision"] for e in without} == {1}
    for event in (*finals, *without):
        del event["data"]["revision"]
    key = lambda event: (event["data"]["horizon_ms"], event["time"])  # noqa: E731
    assert sorted(finals, key=key) == sorted(without, key=key)


@pytest.mark.parametrize("seed", [None, *range(8)])
def test_revisions_ascend_in_the_order_in_which_they_are_written(seed: int | None) -> None:
    revisions: dict[Any, list[int]] = {}
    for event in said(stream(), log(seed)):
        data = event["data"]
        revisions.setdefault((data["horizon_ms"], event["time"]), []).append(data["revision"])
    assert {tuple(found) for (horizon, _), found in revisions.items() if horizon == 20} == {(1, 2)}
    assert {tuple(found) for (horizon, _), found in revisions.items() if horizon == 40} == {(1, 2, 3)}


# ---- the share that is in -----------------------------------------------------------------------------------------------


def came(end: int, point: int) -> int:
    """Clicks of the window that ends there."""
    return sum(clicked(edge, point) for edge in range(end - SPAN, end, STEP))


def shares(events: list[Any]) -> dict[tuple[int, int, int], Any]:
    return {
        (e["data"]["horizon_ms"], e["data"]["age_ms"], e["data"]["window"]["end_ms"]): e["data"]["share_in"]
        for e in events
        if e["data"]["provisional"]
    }


def test_the_share_that_is_in_is_of_the_last_windows_that_were_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(performance_arrivals, "WINDOWS_COUNTED", 4)
    found = shares(said(stream()))
    assert len(found) == len(AGES) * len(EDGES) // 2
    for (horizon, age, end), share in found.items():
        ends = [other for other in range(SPAN, end, SPAN) if other + horizon < end + age][-4:]
        a, b = (sum(came(other, point) for other in ends) for point in (age, horizon))
        expected = {"value": a / b if b else None, "observed": a, "observed_finally": b, "windows": len(ends)}
        assert share == expected if b else share == expected | {"undefined": "no window is finished"}
    assert found[40, 10, SPAN]["value"] is None
    assert 0 < found[40, 10, 400]["value"] < found[40, 20, 400]["value"] < 1


def test_it_does_not_depend_on_how_markers_came() -> None:
    expected = {event["id"]: event for event in said(stream())}
    for seed in range(20):
        assert {event["id"]: event for event in said(stream(), log(seed))} == expected


def test_windows_of_which_something_was_lost_do_not_count() -> None:
    records = [
        r for r in log() if not (isinstance(r.body, PerformancePane) and (r.body.edge_ms, r.body.horizon_ms) == (0, 40))
    ]
    share = shares(said(stream(), records))[40, 20, 400]
    whole = shares(said(stream()))[40, 20, 400]
    assert (share["windows"], share["observed"]) == (whole["windows"] - 1, whole["observed"] - came(SPAN, 20))


def test_without_any_feedback_there_is_no_share() -> None:
    arrivals = Arrivals(ModelPerformance("m", (), 0, (stream(),)))
    for number in range(9):
        window = Closed(number * 10, number * 10 + 10, 5, lost=False)
        for point in POINTS:
            arrivals.note(Horizon("clicks", point), number, window, 0, whole=True)
    found = [each.share_in for each in arrivals.provisional(Horizon("clicks", 20), window)]
    assert found == [
        {
            "value": None,
            "observed": 0,
            "observed_finally": 0,
            "windows": 6,
            "undefined": "no feedback in the finished windows",
        }
    ]


# ---- state --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_a_restart_anywhere_changes_nothing(seed: int) -> None:
    records, chance = log(seed), random.Random(seed)
    whole = stage_of(stream())
    whole.apply("panes", records)
    stage, stored, written, first = stage_of(stream()), {}, [], 0
    while first < len(records):
        stop = first + chance.randrange(1, 12)
        stage.apply("panes", records[first:stop])
        written += [output.value for output in stage.outbox]
        stored = kit.live(stored, stage.changed_blobs())
        stage, first = stage_of(stream()), stop
        stage.load(stored)
    assert written == [output.value for output in whole.outbox]


def test_a_state_from_before_there_were_ages_loads_and_counts_from_there() -> None:
    records = log(3)
    old = stage_of(stream(ages=()))
    half = len(records) // 2
    old.apply("panes", records[:half])
    stored = kit.live({}, old.changed_blobs())
    for name in [name for name in stored if name.endswith("/performance")]:
        header = dict(container.decode(stored[name]).header)
        del header["arrivals"]
        stored[name] = container.encode("performance-windows", 1, header, {})
    stage = stage_of(stream())
    stage.load(stored)
    stage.apply("panes", records)
    events = world.performance([*old.outbox, *stage.outbox])
    finals = [e for e in events if e["data"]["final"]]
    assert [flags(e) for e in sorted(finals, key=_about)] == [
        flags(e) for e in sorted(said(stream(ages=())), key=_about)
    ]
    found = shares(events)
    assert found
    assert max(share["windows"] for share in found.values()) < len(EDGES) // 2
    assert any(share["value"] for share in found.values())


@pytest.mark.parametrize("before", [(), ((20, 10),), ((40, 20),)])
def test_ages_may_be_added_and_taken_away_at_any_time(before: Any) -> None:
    records = log(5)
    finals, counted = [flags(e) for e in sorted(said(stream(ages=())), key=_about)], 0
    for cut in range(10, 160, 20):  # markers of every series follow: with other ages it goes on at its next one
        first = stage_of(stream(ages=before))
        first.apply("panes", records[:cut])
        stored = kit.live({}, first.changed_blobs())
        for ages in (AGES, before):  # added, and half of the rest later taken away
            stage = stage_of(stream(ages=ages))
            stage.load(stored)
            stage.apply("panes", records[: (cut + len(records)) // 2] if ages is AGES else records)
            stored = kit.live(stored, stage.changed_blobs())
            first.outbox += stage.outbox
        events = world.performance(first.outbox)
        assert len({event["id"] for event in events}) == len(events)
        assert [flags(e) for e in sorted(events, key=_about) if e["data"]["final"]] == finals
        counted += sum(share["windows"] for share in shares(events).values())
    assert counted


@pytest.mark.parametrize("ages", [(), ((40, 20),)])
def test_windows_that_waited_for_an_age_that_is_gone_come_without_another_marker(ages: Any) -> None:
    records = log(points=(20, 40, 10))  # the age that goes comes last
    first = stage_of(stream())
    cut = next(
        n
        for n, record in enumerate(records)
        if isinstance(record.body, PerformancePane) and record.body.horizon_ms == 10
    )
    first.apply("panes", records[:cut])
    assert not world.performance(first.outbox)
    stage = stage_of(stream(ages=ages))
    stage.load(kit.live({}, first.changed_blobs()))
    stage.apply("panes", records[: cut + 1])
    assert world.performance(stage.outbox) == said(stream(ages=ages), records)
    stage.outbox.clear()
    stage.apply("panes", records)
    assert not world.performance(stage.outbox)


def _about(event: Any) -> Any:
    return event["data"]["horizon_ms"], event["time"]


def test_what_is_kept_of_windows_is_bounded() -> None:
    arrivals, stored, between = Arrivals(ModelPerformance("m", (), 0, (stream(),))), {}, 3
    for number in range(10 * BLOCK):
        for point in reversed(POINTS):
            behind = number - POINTS.index(point) * (point // STEP)
            if behind >= 0:
                window = Closed(behind * STEP, (behind + 1) * STEP, 5, lost=False)
                arrivals.note(Horizon("clicks", point), behind, window, 3, whole=True)
                list(arrivals.provisional(Horizon("clicks", point), window))
        arrivals.drop()
        stored |= arrivals.blobs("a")
    assert all(len(log) <= performance_arrivals.WINDOWS_COUNTED + between + 8 for log in arrivals.logs.values())
    assert len(arrivals.names("a")) <= 2 * len(POINTS) < len(stored)
    assert orjson.loads(orjson.dumps(arrivals.header())) == arrivals.header()
