"""Features that are new in the traffic, lost from it or of another type: from JSON to alerts, in one process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from pyarrow import parquet

from detectors.reference import ReferenceProfile, WindowRule
from detectors.reference_strata import Strata
from detectors.sequential.strata import Season
from stream import replay as replay_module
from stream.alerts import AlertBook
from stream.config import Config, config_from
from stream.events import AlertEvent
from stream.monitor_settings import ModelSettings
from stream.preflight import build_from_file
from stream.registers import Registers
from stream.replay import ReplayResult, replay
from stream.schema_sample import SchemaSample
from stream.schema_sights import Change, Known, Stretch, sights
from stream.schema_watch import SchemaWatch
from stream.tally import Tally
from stream.windows import Window
from stream.wording import instant

START_MS = 1_763_806_500_000
WINDOW = 1_500  # events: 15 s
ROWS = 60_000
COUNTRIES = np.array(["DE", "FR", "US"])
Event = dict[str, Any]
Edit = Callable[[Event, int], None]


def config(folder: Path, **model: Any) -> Config:
    return config_from(
        {
            "kafka": {"bootstrap_servers": "unused:9092"},
            "topics": {"predictions": {"name": "p", "lateness": "1s"}},
            "resolution": "1s",
            "defaults": {"window": {"every": "15s", "min_events": 100}},
            "models": {"fraud": {"reference": {"file": "training.parquet"}} | model},
        },
        base=folder,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("schema")
    r = np.random.default_rng(1)
    columns = {
        "amount": r.normal(size=ROWS), "age": r.normal(size=ROWS), "country": COUNTRIES[r.integers(0, 3, ROWS)],
        "level": r.integers(0, 3, ROWS), "score": r.random(ROWS),
    }  # fmt: skip
    parquet.write_table(pa.table(columns), path / "training.parquet")
    return path


@pytest.fixture(scope="module")
def profile(folder: Path) -> ReferenceProfile:
    return build_from_file(config(folder, targets={"level": {"kind": "categorical"}}), "fraud")


def nothing(_event: Event, _window: int) -> None:
    return


def lines(edit: Edit = nothing, windows: int = 6) -> list[bytes]:
    """`windows` windows; `edit` changes the features of an event, given the number of its window."""
    r = np.random.default_rng(2)
    found = []
    for place in range(windows * WINDOW + 200):  # the last ones move the watermark
        amount, age, score = r.normal(size=3).tolist()
        features: Event = {"amount": amount, "age": age, "country": str(COUNTRIES[place % 3]), "level": place % 3}
        edit(features, place // WINDOW)
        event = {
            "prediction_id": f"{place}",
            "model": "fraud",
            "timestamp": instant(START_MS + place * 10),
            "features": features,
            "score": abs(score) % 1,
        }
        found.append(orjson.dumps(event))
    return found


def run(folder: Path, profile: ReferenceProfile, edit: Edit = nothing, windows: int = 6, **model: Any) -> ReplayResult:
    settings = config(folder, **{"targets": {"level": {"kind": "categorical"}}} | model)
    return replay(settings, lines(edit, windows), references={"fraud": profile})


def changes(result: ReplayResult) -> list[dict[str, Any]]:
    """Alerts of a schema change, each as the wire contract says."""
    found = [alert for alert in result.alerts if "schema_change" in alert["data"]]
    for alert in found:
        AlertEvent.model_validate(alert)
        assert alert["data"]["kind"] == "data_quality"
    return found


def told(result: ReplayResult) -> list[tuple[str, str, str]]:
    return [
        (alert["type"].split(".")[2], alert["data"]["schema_change"]["change"], alert["data"]["target"])
        for alert in changes(result)
    ]


def test_nothing_is_said_where_nothing_changed(folder: Path, profile: ReferenceProfile) -> None:
    def holes(features: Event, window: int) -> None:
        if window % 2:
            del features["age"]  # every other window: never two in a row

    assert told(run(folder, profile)) == []
    assert told(run(folder, profile, holes)) == []


def test_a_new_feature_is_named_with_its_share_and_type_and_no_value(folder: Path, profile: ReferenceProfile) -> None:
    numbers = count()

    def newcomer(features: Event, window: int) -> None:
        if window >= 4 and next(numbers) % 2:
            features["device"] = "a secret"

    result = run(folder, profile, newcomer, windows=7)
    assert told(result) == [("opened", "new", "device")]
    (alert,) = changes(result)
    data = alert["data"]
    assert alert["subject"] == "data_quality/device"
    assert data["since"] == instant(START_MS + 4 * WINDOW * 10)
    assert alert["time"] == instant(START_MS + 6 * WINDOW * 10)
    assert data["schema_change"]["types"] == {"text": 1.0}
    assert 0.2 < data["schema_change"]["share"] < 0.8
    assert "device is new among the features: text in" in data["summary"]
    assert b"secret" not in orjson.dumps(result.as_json())


def test_a_lost_feature_opens_and_ends_when_it_is_back(folder: Path, profile: ReferenceProfile) -> None:
    def lose(features: Event, window: int) -> None:
        if 3 <= window < 6:
            features.pop("age") if window % 2 else features.update(age=None)

    result = run(folder, profile, lose, windows=20)
    assert told(result) == [("opened", "lost", "age"), ("resolved", "lost", "age")]
    opened, resolved = changes(result)
    assert opened["data"]["summary"].startswith("age is lost: missing in 100 % of the events, in the reference in 0 %")
    assert opened["data"]["since"] == instant(START_MS + 3 * WINDOW * 10)
    assert resolved["data"]["incident"] == opened["data"]["incident"]
    assert resolved["data"]["reason"] == "it is back"
    assert resolved["time"] == instant(START_MS + 18 * WINDOW * 10)  # twelve windows later


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("amount", "12.5", "text"),
        ("amount", True, "bool"),
        ("amount", [1.5], "array"),
        ("country", 7, "number"),
        ("country", {"code": "DE"}, "object"),
        ("level", "two", "text"),
    ],
)
def test_a_feature_of_another_type_is_named_with_it(
    folder: Path, profile: ReferenceProfile, name: str, value: Any, kind: str
) -> None:
    def retype(features: Event, window: int) -> None:
        if window >= 3:
            features[name] = value

    result = run(folder, profile, retype)
    assert told(result) == [("opened", "retyped", name)]
    (alert,) = changes(result)
    assert alert["data"]["schema_change"]["types"] == {kind: 1.0}
    assert (
        f"{name} has another type: 100 % of its values are none of its kind, most often {kind}"
        in (alert["data"]["summary"])
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("country", "another spelling"),  # unseen, of its type: the default detector's
        ("level", "1"),  # the same category as the number
        ("device", None),
    ],
)
def test_what_is_no_change_of_type(folder: Path, profile: ReferenceProfile, name: str, value: Any) -> None:
    def other(features: Event, window: int) -> None:
        if window >= 3:
            features[name] = value

    assert [change for _, change, _ in told(run(folder, profile, other))] == (["new"] if name == "device" else [])


def test_not_a_number_is_invalid_and_no_type(folder: Path, profile: ReferenceProfile) -> None:
    ended = [line.replace(b'"age":', b'"age":NaN,"was":') for line in lines()]
    settings = config(folder, targets={"level": {"kind": "categorical"}, "was": {"watch": False}})
    assert told(replay(settings, ended, references={"fraud": profile})) == []


def test_what_was_there_from_the_start_is_one_alert_and_what_is_configured_none(
    folder: Path, profile: ReferenceProfile
) -> None:
    def wide(features: Event, window: int) -> None:
        features |= {f"extra{i}": 1.0 for i in range(12)} | {"row": 7}

    ignored = {"file": "training.parquet", "ignore": ["row"]}
    result = run(folder, profile, wide, reference=ignored)
    assert told(result) == [("opened", "new", "__other__")]
    summary = changes(result)[0]["data"]["summary"]
    assert summary.startswith("12 features (extra0, extra1, extra10, extra11, extra2, extra3, extra4, extra5, ")
    assert "and 2 more) are new" in summary


def test_many_at_once_are_few_incidents(folder: Path, profile: ReferenceProfile) -> None:
    def lose(features: Event, window: int) -> None:
        if window >= 3:
            features.clear()
            features |= {f"wide{i}": 1.0 for i in range(14)}

    found = told(run(folder, profile, lose, windows=7))
    assert [name for _, change, name in found if change == "lost"] == ["age", "amount", "country", "level"]
    assert [name for _, change, name in found if change == "new"][-1] == "__other__"
    assert len(found) == 4 + 8 + 1


@pytest.mark.parametrize(("later", "escalated"), [(10, 0), (11, 1)])
def test_the_shared_incident_escalates_when_it_has_doubled(
    folder: Path, profile: ReferenceProfile, later: int, escalated: int
) -> None:
    """Three features share it from the start; of those that come later eight have incidents of their own."""

    def widen(features: Event, window: int) -> None:
        features |= {f"early{i}": 1.0 for i in range(3)}
        if window >= 4:
            features |= {f"late{i:02d}": 1.0 for i in range(later)}

    found = told(run(folder, profile, widen, windows=8))
    assert found[0] == ("opened", "new", "__other__")
    assert [name for transition, _, name in found[1:] if transition == "opened"] == [f"late{i:02d}" for i in range(8)]
    assert [name for transition, _, name in found if transition == "escalated"] == ["__other__"] * escalated


def test_names_that_change_from_event_to_event_are_one_alert(folder: Path, profile: ReferenceProfile) -> None:
    numbers = count()

    def attack(features: Event, window: int) -> None:
        if window >= 4:
            features |= {f"n{next(numbers)}": 1 for _ in range(30)}

    result = run(folder, profile, attack, windows=8)
    assert told(result) == [("opened", "new", "__other__")]
    assert "names of features that change from event to event" in changes(result)[0]["data"]["summary"]


def test_a_reference_learnt_from_the_stream_knows_what_it_did_not_watch(folder: Path) -> None:
    def text(features: Event, window: int) -> None:
        features["note"] = f"free text {features['amount']}"
        if window >= 36:
            features["device"] = 1

    settings = config(folder, reference={"first": 10_000}, window={"every": "1s", "min_events": 50})
    result = replay(settings, lines(text, windows=40))
    assert any(window["state"] == "judged" for window in result.windows)
    assert told(result) == [("opened", "new", "device")]


def test_more_names_than_are_kept_are_no_news_if_they_were_learnt(folder: Path) -> None:
    numbers = count()

    def nested(features: Event, window: int) -> None:
        features |= {f"vector{i}": [1.0] for i in range(30)}
        if window >= 36:
            features |= {f"n{next(numbers)}": 1 for _ in range(5)}

    settings = config(folder, reference={"first": 10_000}, window={"every": "1s", "min_events": 50})
    quiet, loud = (replay(settings, lines(nested, windows=windows)) for windows in (35, 40))
    assert any(window["state"] == "judged" for window in quiet.windows)
    assert told(quiet) == []
    assert told(loud) == [("opened", "new", "__other__")]


HOUR_MS = 3_600_000
DARK = range(18, 24)  # hours without the sun


def dated(days: int, seed: int, start_ms: int) -> tuple[Any, dict[str, Any]]:
    """Rows of so many days: times in ms, and a feature that is missing in the dark."""
    r = np.random.default_rng(seed)
    at = np.sort(r.integers(0, days * 24 * HOUR_MS, days * 10_000)) + start_ms
    sun = np.where(at // HOUR_MS % 24 >= DARK.start, np.nan, r.normal(size=len(at)))
    return at, {"amount": r.normal(size=len(at)), "sun": sun}


def of_day(start_ms: int, lost_from: int = 24) -> list[bytes]:
    """Two days of events; on the first one the sun is lost from that hour on."""
    at, columns = dated(2, 2, start_ms)
    found = []
    for place, time in enumerate(at.tolist()):
        hour = (time - start_ms) // HOUR_MS
        held = {name: float(values[place]) for name, values in columns.items()}
        if np.isnan(held["sun"]) or lost_from <= hour < 24:
            del held["sun"]
        event = {"prediction_id": f"{place}", "model": "fraud", "timestamp": instant(time), "features": held}
        found.append(orjson.dumps(event))
    return found


@pytest.mark.parametrize(("every", "events"), [("10m", 30), ("2m", 10)])
def test_a_feature_that_is_missing_every_night_is_not_lost_and_one_that_is_lost_is_not_back_by_night(
    tmp_path: Path, every: str, events: int
) -> None:
    """In windows that are judged alone, and in those that are added up, of two hours here and there."""
    start_ms = 20_000 * 24 * HOUR_MS
    at, columns = dated(7, 1, start_ms)
    table = pa.table({"at": pa.array(at, pa.timestamp("ms", "UTC")), **columns})
    parquet.write_table(table, tmp_path / "training.parquet")
    reference = {"file": "training.parquet", "time": "at"}
    settings = config(tmp_path, reference=reference, window={"every": every, "min_events": events})
    profile = build_from_file(settings, "fraud")
    assert {target.name: target.strata is not None for target in profile.targets} == {"amount": False, "sun": True}
    start_ms += 10 * 24 * HOUR_MS
    assert told(replay(settings, of_day(start_ms), references={"fraud": profile})) == []
    result = replay(settings, of_day(start_ms, lost_from=12), references={"fraud": profile})
    assert told(result) == [("opened", "lost", "sun"), ("resolved", "lost", "sun")]
    opened, resolved = changes(result)
    hours = [start_ms + int(each * HOUR_MS) for each in (12, 12.5, 25.4, 26.5)]
    assert instant(hours[0]) <= opened["data"]["since"] < instant(hours[1])
    assert instant(hours[2]) <= resolved["time"] < instant(hours[3])  # twelve judgements of the next day


def test_windows_of_few_events_are_added_up_until_they_say_something(folder: Path, profile: ReferenceProfile) -> None:
    def lose(features: Event, window: int) -> None:
        if 3 <= window < 6:
            del features["age"]

    settings = config(
        folder,
        targets={"level": {"kind": "categorical"}},
        window={"every": "1s", "min_events": 10, "max_duration": "2s"},
    )
    result = replay(settings, lines(lose, windows=12)[::10], references={"fraud": profile})
    assert {window["window"]["events"] for window in result.windows if window["state"] == "judged"} == {10}
    assert told(result) == [("opened", "lost", "age"), ("resolved", "lost", "age")]
    opened, resolved = changes(result)
    assert opened["data"]["since"] == instant(START_MS + 45_000)
    assert opened["time"] == instant(START_MS + 55_000)  # two stretches of five windows
    assert opened["data"]["window"]["start"] == instant(START_MS + 50_000)
    assert (opened["data"]["events"], opened["data"]["window"]["events"]) == (50, 50)
    assert resolved["time"] == instant(START_MS + 150_000)  # twelve stretches after it was back


WATCHED = ModelSettings(model="fraud", window=WindowRule(False, 1_000, 10, 0, 1_000))


def small_window(profile: ReferenceProfile, number: int, events: int, *, lost: bool) -> tuple[Window, Tally]:
    """A window of so many events, with a name that is new in it where the feature is lost."""
    names = tuple(target.name for target in profile.targets)
    width = [len(target.histogram) for target in profile.targets]
    start = np.concatenate(([0], np.cumsum(width))).astype(np.int64)
    counts = np.zeros(int(start[-1]), np.int64)
    for place, name in enumerate(names):
        counts[start[place + 1] - 2 if lost and name == "age" else start[place]] = events
    sums, none = np.zeros((len(names), 2)), np.zeros(len(names), np.int64)
    sample = SchemaSample(1, 0, {"device": [1, 0, 0, 0, 0, 0, 0]} if lost else {}, {})
    tally = Tally(names, events, start, counts, sums, sums, none, Registers.none(), None, sample)
    return Window(number * 1_000, number * 1_000 + 1_000, events, sufficient=True), tally


def watched(profile: ReferenceProfile, restarts: bool) -> tuple[list[Any], Any]:
    """Events of a watch over windows of 17 events, and what it would save; `restarts`: it is loaded anew after each."""
    watch = SchemaWatch(AlertBook(WATCHED))
    found: list[Any] = []
    for number in range(60):
        window, tally = small_window(profile, number, 17, lost=9 <= number < 20)
        found += watch.observe(window, tally, profile, ["1"], historical=False)
        if restarts:
            header = orjson.loads(orjson.dumps(watch.header()))
            sections, watch = watch.sections(), SchemaWatch(AlertBook(WATCHED))
            watch.load(header, sections)
    return found, (watch.header(), {name: part.tolist() for name, part in watch.sections().items()})


def test_a_stretch_that_is_not_judged_yet_goes_on_after_a_restart(profile: ReferenceProfile) -> None:
    whole, saved = watched(profile, restarts=False)
    assert watched(profile, restarts=True)[0] == whole
    assert orjson.dumps(watched(profile, restarts=True)[1]) == orjson.dumps(saved)
    assert [output.value.count(b"opened.v1") for output in whole] == [1, 1, 0, 0]


def test_a_snapshot_of_before_windows_were_added_up_is_gone_on_with(profile: ReferenceProfile) -> None:
    watch = SchemaWatch(AlertBook(WATCHED))
    window, tally = small_window(profile, 0, 17, lost=True)
    assert list(watch.observe(window, tally, profile, ["1"], historical=False)) == []
    old = {name: part for name, part in watch.header().items() if name != "stretch"}
    again = SchemaWatch(AlertBook(WATCHED))
    again.load(old, {})
    assert again.stretch is None
    assert again.header() == watch.header() | {"stretch": None}


def test_what_hours_say_is_weighed_by_the_events_of_each(profile: ReferenceProfile) -> None:
    """A reference in which a feature is missing in every second hour, and nothing of it is in the windows."""
    of_age = next(target for target in profile.targets if target.name == "age")
    hours = np.zeros((24, len(of_age.histogram)), np.int64)
    hours[0::2, 0], hours[1::2, -2] = 1_000, 100
    ranks, none = np.zeros((24, 0), np.int64), np.zeros((24, 0, 0))
    strata = Strata(Season.HOUR_OF_DAY, np.full(24, 100), hours, ranks, none, none, np.zeros((24, 3), np.int64))
    dated_one = replace(profile, targets=(replace(of_age, strata=strata),))
    for dark, was in ((40, 0.8), (41, None), (25, 0.5)):
        stretch = Stretch(np.array([[0, 50, 0]]), [(0, 50 - dark), (HOUR_MS, dark)], 50, 50, 2 * HOUR_MS)
        seen, _ = sights(stretch, ("age",), dated_one, Known(frozenset(), frozenset(), 0.0))
        assert {key: sight.was for key, sight in seen.items()} == ({} if was is None else {(Change.LOST, "age"): was})
    by_size = replace(strata, by="window_size", bounds=np.arange(20, 43))
    sized, plain = (replace(profile, targets=(replace(of_age, strata=each),)) for each in (by_size, None))
    stretch = Stretch(np.array([[0, 50, 0]]), [(0, 10), (HOUR_MS, 40)], 50, 50, 2 * HOUR_MS)
    told = [sights(stretch, ("age",), each, Known(frozenset(), frozenset(), 0.0)) for each in (sized, plain)]
    assert told[0] == told[1]  # sizes of windows say nothing about the hour


def test_alerts_do_not_depend_on_how_the_events_are_cut(
    folder: Path, profile: ReferenceProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def several(features: Event, window: int) -> None:
        if window >= 3:
            features |= {f"wide{i}": 1.0 for i in range(20)} | {"amount": "x"}
            del features["age"]

    whole = run(folder, profile, several)
    monkeypatch.setattr(replay_module, "CHUNK_EVENTS", 77)
    again = run(folder, profile, several)
    assert len(changes(whole)) == 11
    assert again.alerts == whole.alerts
