"""The whole pipeline in one process: what comes out of a file of events."""

from __future__ import annotations

import doctest
import json
import random
from itertools import chain
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from detectors.reference import ReferenceProfile
from stream import replay as replay_module
from stream.cli import app
from stream.config import Config, config_from
from stream.preflight import build_from_file
from stream.replay import ReplayError, ReplayResult, replay
from stream.simulated_model import MODEL, Drift, Simulation, json_lines, table, write_training_file
from stream.wording import instant

START_MS = 1_763_806_500_000
RATE = 200.0
WINDOW_S = 5
DRIFT_MS = START_MS + 10 * WINDOW_S * 1000
EVENTS = 20 * WINDOW_S * int(RATE)


def config(folder: Path, **more: Any) -> Config:
    data = {
        "kafka": {"bootstrap_servers": "unused:9092"},
        "topics": {"predictions": {"name": "predictions", "lateness": "2s"}},
        "resolution": "1s",
        "defaults": {"window": {"every": f"{WINDOW_S}s", "min_events": 100}},
        "models": {MODEL: {"reference": {"file": "training.parquet"}, "owner": "payments"}},
    }
    return config_from(data | more, base=folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("replay")
    write_training_file(path / "training.parquet", Simulation(7, RATE, START_MS - 86_400_000), 400_000)
    return path


@pytest.fixture(scope="module")
def profile(folder: Path) -> ReferenceProfile:
    return build_from_file(config(folder), MODEL)


NO_DRIFT = Drift()


def events(drift: Drift = NO_DRIFT, seed: int = 1, count: int = EVENTS) -> list[bytes]:
    return list(chain.from_iterable(map(json_lines, Simulation(seed, RATE, START_MS, drift).blocks(count))))


def run(folder: Path, profile: ReferenceProfile, lines: list[bytes]) -> ReplayResult:
    return replay(config(folder), lines, references={MODEL: profile})


@pytest.fixture(scope="module")
def shifted(folder: Path, profile: ReferenceProfile) -> ReplayResult:
    return run(folder, profile, events(Drift(DRIFT_MS, "amount", 1.0)))


def opened(result: ReplayResult) -> list[str]:
    return [alert["data"]["target"] for alert in result.alerts if ".opened." in alert["type"]]


def test_a_shift_is_found_on_its_feature_alone(shifted: ReplayResult) -> None:
    assert opened(shifted) == ["amount"]
    (alert,) = (alert for alert in shifted.alerts if ".opened." in alert["type"])
    assert alert["specversion"] == "1.0"
    assert alert["data"]["model"] == MODEL
    assert alert["data"]["owner"] == "payments"
    assert "amount moved up by about" in alert["data"]["summary"]


def test_nothing_is_found_where_nothing_changed(folder: Path, profile: ReferenceProfile) -> None:
    result = run(folder, profile, events())
    assert opened(result) == []
    assert result.accounting.applied == EVENTS
    assert sum(window["events"] for window in result.windows if "amount" in window["targets"]) == EVENTS


def test_the_same_events_give_the_same_result_however_they_are_cut(
    folder: Path, profile: ReferenceProfile, shifted: ReplayResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "CHUNK_EVENTS", 777)
    again = run(folder, profile, events(Drift(DRIFT_MS, "amount", 1.0)))
    assert again.as_json() == shifted.as_json()


def test_files_of_lines_and_of_rows_give_what_the_events_give(
    folder: Path, profile: ReferenceProfile, tmp_path: Path
) -> None:
    from pyarrow import parquet

    drift = Drift(DRIFT_MS, "amount", 1.0)
    count = 12_288  # three whole blocks
    (tmp_path / "events.jsonl").write_bytes(b"\r\n".join(events(drift, count=count)) + b"\n\n")
    blocks = list(Simulation(1, RATE, START_MS, drift).blocks(count))
    with parquet.ParquetWriter(tmp_path / "events.parquet", table(blocks[0]).schema) as writer:
        for block in blocks:
            writer.write_table(table(block))
    made = config(folder)
    whole = replay(made, events(drift, count=count), references={MODEL: profile})
    lines = replay(made, tmp_path / "events.jsonl", references={MODEL: profile})
    assert lines.as_json() == whole.as_json()
    rows = replay(made, str(tmp_path / "events.parquet"), references={MODEL: profile})
    assert rows.accounting.applied == whole.accounting.applied
    assert opened(rows) == opened(whole)
    assert [window["events"] for window in rows.windows] == [window["events"] for window in whole.windows]


def test_bad_events_are_counted_by_reason(folder: Path, profile: ReferenceProfile) -> None:
    good = events(count=1000)
    other = orjson.loads(good[0]) | {"model": "somebody"}
    bad = [b"{", b'{"model": "fraud"}', b"[]", good[480], orjson.dumps(other)]
    lines = [*good[:500], *bad, *good[500:]]
    result = run(folder, profile, lines)
    counts = result.accounting
    assert counts.consumed == len(lines)
    assert counts.consumed == counts.applied + counts.dead_letters + counts.duplicates + counts.late + counts.tombstones
    assert (counts.dead_letters, counts.duplicates) == (3, 1)
    assert sorted(letter["reason"] for letter in result.dead_letters) == [
        "malformed_json",
        "missing_field",
        "not_an_object",
    ]
    assert {letter["offset"] for letter in result.dead_letters} == {"500", "501", "502"}
    assert "3 dead letters, 1 duplicates" in result.summary()
    assert "dead letters: 1 malformed_json" in result.summary()


def test_mappings_are_events_too(folder: Path, profile: ReferenceProfile) -> None:
    lines = events(count=500)
    assert (
        run(folder, profile, [orjson.loads(line) for line in lines]).as_json() == run(folder, profile, lines).as_json()
    )


def test_a_reference_is_learnt_from_the_first_events(tmp_path: Path) -> None:
    rate, quiet_s = 40.0, 620
    made = config(
        tmp_path,
        models={MODEL: {"reference": {"first": 8_000}, "targets": {"country": {"watch": False}}}},
        defaults={"window": {"every": "1s", "min_events": 10}},
    )
    drift = Drift(START_MS + quiet_s * 1000, "amount", 2.0)
    simulation = Simulation(3, rate, START_MS, drift)
    lines = list(chain.from_iterable(map(json_lines, simulation.blocks(int(rate * (quiet_s + 60))))))
    result = replay(made, lines)
    profile = result.references[MODEL]
    assert profile.complete
    assert profile.windows.count >= 400
    names = {target.name for target in profile.targets}
    assert {"amount", "device_os", "prediction", "score"} <= names
    assert "country" not in names
    assert "amount" in opened(result)
    assert set(opened(result)) == {"amount"}


def test_record_time_cannot_be_replayed(folder: Path) -> None:
    made = config(folder, topics={"predictions": {"name": "p", "mapping": {"timestamp": "$record"}}})
    with pytest.raises(ReplayError, match="map a timestamp"):
        replay(made, [])


def test_the_command_prints_alerts_and_data(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "events.jsonl"
    source.write_bytes(b"\n".join(events(Drift(DRIFT_MS, "amount", 1.0))))
    path = folder / "monitor.yaml"
    path.write_text(
        "kafka: {bootstrap_servers: unused:9092}\n"
        "topics: {predictions: {name: predictions, lateness: 2s}}\n"
        "resolution: 1s\n"
        f"models: {{{MODEL}: {{reference: {{file: training.parquet}}, window: {{every: {WINDOW_S}s, min_events: 100}}}}}}\n"
    )
    shown = CliRunner().invoke(app, ["replay", "-c", str(path), str(source)])
    assert shown.exit_code == 0, shown.output
    assert "amount" in shown.stdout
    assert f"{EVENTS:,} events" in shown.stdout
    data = CliRunner().invoke(app, ["replay", "-c", str(path), str(source), "-o", "json"])
    found = json.loads(data.stdout)
    assert [alert["data"]["target"] for alert in found["alerts"] if ".opened." in alert["type"]] == ["amount"]
    assert found["accounting"]["applied"] == EVENTS


def test_the_example_of_the_module_runs() -> None:
    result = doctest.testmod(replay_module)
    assert result.failed == 0
    assert result.attempted > 0


def classes(seed: int, start_ms: int, count: int, shares: dict[str, float]) -> list[bytes]:
    """Ten events a second of a model that says "yes" or "no"; `country` and the answer have texts."""
    r = random.Random(seed)
    lines = []
    for i in range(count):
        country = r.choices(list(shares), list(shares.values()))[0]
        event = {
            "prediction_id": f"{seed}-{i}", "model": MODEL, "version": "1",
            "timestamp": instant(start_ms + 100 * i),
            "features": {"country": country, "amount": r.gauss(0, 1), "long": "x" * 300 + r.choice("ab")},
            "prediction": r.choice(("yes", "no")),
        }  # fmt: skip
        lines.append(orjson.dumps(event))
    return lines


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> ReplayResult:
    """No target is declared; learning needs 5,000 events for the cuts, then 5,000 more in 400 windows."""
    made = config(
        tmp_path_factory.mktemp("learnt"),
        models={MODEL: {"reference": {"first": 5_000}}},
        defaults={"window": {"every": "2s", "min_events": 10}},
    )
    quiet = classes(1, START_MS, 16_000, {"DE": 0.5, "FR": 0.3, "AT": 0.2})
    drifted = classes(2, START_MS + 1_600_000, 3_000, {"DE": 0.1, "FR": 0.7, "AT": 0.2})
    return replay(made, quiet + drifted)


def test_a_learnt_reference_names_categories_by_their_texts(learnt: ReplayResult) -> None:
    labels = {target.name: target.binning.labels[:-2] for target in learnt.references[MODEL].targets}
    assert set(labels["country"]) == {"DE", "FR", "AT"}
    assert set(labels["prediction"]) == {"yes", "no"}
    assert all(label.startswith("xxx") and len(label) == 200 for label in labels["long"])
    assert len(set(labels["long"])) == 2
    last = [window for window in learnt.windows if "country" in window["targets"]][-1]
    assert set(last["targets"]["country"]["labels"]) == {"DE", "FR", "AT", "__other__", "__unseen__"}
    assert "labels" not in last["targets"]["amount"]
    (alert,) = (alert for alert in learnt.alerts if ".opened." in alert["type"])
    assert alert["data"]["target"] == "country"
    assert {change["bin"] for change in alert["data"]["largest_changes"]} & {"DE", "FR"}
    assert "#" not in alert["data"]["summary"]


def test_windows_say_how_far_learning_has_come(learnt: ReplayResult) -> None:
    inputs = [window for window in learnt.windows if window["series"].startswith("sha256:")]
    states = [window["state"] for window in inputs]
    first_judged = states.index("judged")
    assert set(states[:first_judged]) == {"learning"}
    assert "learning" not in states[first_judged:]
    progress = [window["learning"] for window in learnt.windows if window["state"] == "learning"]
    assert progress[0]["phase"] == "sampling"
    assert progress[0]["events_needed"] == 5_000
    assert progress[-1]["phase"] == "counting"
    assert progress[-1]["windows"] == 399
    assert (progress[-1]["events_needed"], progress[-1]["windows_needed"]) == (5_000, 400)
    assert all("learning" not in window for window in learnt.windows if window["state"] != "learning")
