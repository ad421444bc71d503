"""The figures of load_tests.bad_input: sums over rounds, nothing that was measured left out."""

from __future__ import annotations

from typing import Any

import pytest

from load_tests.bad_input import ALL, CLEAN, HALF, LITTLE, backlogs, bad_of, summary, values


def row(name: str, cpu_s: float, *, bad: int = 0, written: int | None = None) -> dict[str, Any]:
    return {
        "name": name, "events": 1000, "bad": bad, "cpu_s": cpu_s, "wall_s": 2.0,
        "dead_letters_written": bad if written is None else written, "good": 1000 - bad, "applied": 1000 - bad,
    }  # fmt: skip


def rounds(*cpu_s: tuple[float, float]) -> list[dict[str, Any]]:
    pairs = [each for clean, little in cpu_s for each in (row(CLEAN, clean), row(LITTLE, little, bad=10))]
    return [*pairs, row(HALF, 0.02, bad=500), row(ALL, 0.03, bad=999)]


def held(result: dict[str, Any]) -> list[bool]:
    return list(result["holds"].values())


def test_a_share_is_of_the_sums_of_all_rounds() -> None:
    result = summary(rounds((1.0, 1.1), (1.2, 1.3), (0.8, 0.9)), [20.0])
    clean, little, *_ = result["rows"]
    assert clean["cpu_s"] == pytest.approx(3.0)
    assert little["events"] == 3000
    assert little["bad"] == 30
    assert little["of_clean"] == pytest.approx(3.0 / 3.3, abs=1e-3)
    assert result["rounds"]["of_clean"] == [0.909, 0.923, 0.889]
    assert held(result) == [True] * 6


def test_what_the_first_bad_event_costs_once_is_told_and_in_the_sums() -> None:
    result = summary(rounds((1.0, 1.9), (1.0, 1.1), (1.0, 1.1)), [20.0])
    assert result["rounds"]["once_cpu_s"] == pytest.approx(0.8)
    assert result["rows"][1]["cpu_s"] == pytest.approx(4.1)
    assert not result["holds"]["1 % bad: at least 80% of the clean rate"]


def test_a_share_that_swings_from_round_to_round_is_no_figure() -> None:
    result = summary(rounds((1.0, 0.8), (1.0, 1.2), (1.0, 1.0)), [20.0])
    assert result["rounds"]["error"] == pytest.approx(0.1211, abs=1e-4)
    assert held(result).count(False) == 1
    assert not result["holds"]["the standard error of that share is at most 3%"]


def test_one_letter_too_few_in_one_round_is_not_made_up_by_another() -> None:
    rows = rounds((1.0, 1.1), (1.0, 1.1))
    rows[1]["dead_letters_written"] -= 1
    rows[3]["dead_letters_written"] += 1
    assert not summary(rows, [20.0])["holds"]["every bad event is one dead letter in Kafka"]


def test_the_order_within_a_round_changes_and_the_warm_up_has_no_bad_event() -> None:
    plan = backlogs(100, 3)
    assert [name for name, _ in plan] == [CLEAN, CLEAN, LITTLE, LITTLE, CLEAN, CLEAN, LITTLE, HALF, ALL]
    assert [size for _, size in plan] == [20, *[100] * 6, 50, 100]


@pytest.mark.parametrize("every", [0, 1, 2, 100])
def test_the_number_of_bad_events_is_the_number_of_spoilt_ones(every: int) -> None:
    text = b'{"prediction_id":"a","timestamp":"2026","score":1,"segments":{"country":"DE"}}'
    out = [value for _, value in values([(b"k", text)] * 401, every)]
    assert sum(value != text for value in out) == bad_of(401, every)
    assert out[-1] == text
