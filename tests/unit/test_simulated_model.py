"""The simulated model: the same events from the same seed, and a drift that is what it says and nothing more."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest

from stream.simulated_model import (
    BLOCK,
    FEATURES,
    NUMBERS,
    Drift,
    Simulation,
    json_lines,
    table,
    write_json_lines,
    write_training_file,
)

START_MS = 1_700_000_000_000


def simulation(drift: Drift | None = None, seed: int = 7) -> Simulation:
    return Simulation(seed, 500.0, START_MS, drift or Drift())


def test_a_block_is_the_same_in_any_order_and_size() -> None:
    whole = json_lines(simulation().block(1))
    assert json_lines(simulation().block(1, 100)) == whole[:100]
    assert json_lines(list(simulation().blocks(BLOCK + 100))[1]) == whole[:100]
    assert json_lines(next(islice(simulation().blocks(), 1, None))) == whole
    assert json_lines(simulation(seed=8).block(1)) != whole


def test_json_and_table_say_the_same() -> None:
    block = simulation().block(0, 500)
    rows = table(block).to_pylist()
    lines = json_lines(block)
    assert len({orjson.loads(line)["prediction_id"] for line in lines}) == len(rows) == 500
    missing = 0
    for line, row in zip(lines, rows, strict=True):
        event = orjson.loads(line)
        assert set(event["features"]) == set(FEATURES)
        assert event["features"] == {name: row[name] for name in FEATURES}
        missing += sum(value is None for value in event["features"].values())
        assert (event["prediction"], event["score"]) == (row["prediction"], row["score"])
        assert event["segments"] == {"country": row["country"]}
        assert event["timestamp"] == row["timestamp"].isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert missing > 0


def test_a_shift_moves_its_feature_by_as_much_from_its_time_on() -> None:
    at_ms = START_MS + 4_000
    before = table(simulation().block(0)).to_pandas()
    after = table(simulation(Drift(at_ms, "velocity", shift=0.5)).block(0)).to_pandas()
    times = simulation().block(0).time_ms
    drifted = times >= at_ms
    assert 0 < drifted.sum() < BLOCK
    moved = (after["velocity"] - before["velocity"]).to_numpy()
    np.testing.assert_allclose(moved[drifted], 0.5, atol=1e-3)
    assert (moved[~drifted] == 0).all()
    others = [name for name in FEATURES if name != "velocity"]
    assert after[others].equals(before[others])


def test_a_shift_of_the_amount_leaves_score_and_decision_alone() -> None:
    before = table(simulation().block(0)).drop_columns(["amount"])
    after = table(simulation(Drift(START_MS, "amount", shift=0.5)).block(0)).drop_columns(["amount"])
    assert after.equals(before)


def test_a_moved_threshold_changes_decisions_only() -> None:
    before = table(simulation().block(0))
    after = table(simulation(Drift(START_MS, threshold=0.45)).block(0))
    assert after.drop_columns(["prediction"]).equals(before.drop_columns(["prediction"]))
    score, decision = after["score"].to_numpy(), after["prediction"].to_numpy()
    assert (decision == (score >= 0.45)).all()
    assert (decision != before["prediction"].to_numpy()).mean() == pytest.approx(0.048, abs=0.015)


def test_an_unknown_feature_is_refused() -> None:
    with pytest.raises(ValueError, match="amonut"):
        Drift(feature="amonut")


def test_missing_shares_and_rate_are_as_declared() -> None:
    blocks = list(simulation().blocks(5 * BLOCK))
    for number in NUMBERS:
        values = np.concatenate([block.numbers[number.name] for block in blocks])
        assert np.isnan(values).mean() == pytest.approx(number.missing, abs=0.01)
    times = np.concatenate([block.time_ms for block in blocks])
    assert len(times) / (times.max() - times.min()) * 1000 == pytest.approx(500, rel=0.02)
    assert (np.diff(times) < 0).any()  # not quite in order, as real topics are


def test_files(tmp_path: Path) -> None:
    events = BLOCK + 10
    write_training_file(tmp_path / "training.parquet", simulation(), events)
    write_json_lines(tmp_path / "events.jsonl", simulation(), events)
    rows = pq.read_table(tmp_path / "training.parquet")
    lines = (tmp_path / "events.jsonl").read_bytes().splitlines()
    assert rows.num_rows == len(lines) == events
    assert rows.schema.field("timestamp").type.tz == "UTC"
    assert orjson.loads(lines[-1])["prediction_id"] == rows["prediction_id"][-1].as_py()
