"""Alerts in the terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.terminal import clean, number, render_alert

ALERT = {
    "specversion": "1.0",
    "type": "driftline.alert.opened.v1",
    "source": "driftline/fraud",
    "id": "9d41",
    "time": "2026-11-22T10:20:00Z",
    "subject": "feature_drift/amount",
    "data": {
        "incident": "51ac0b7d9e8f12345",
        "kind": "feature_drift",
        "severity": "warning",
        "model": "fraud",
        "target": "amount",
        "summary": "amount moved up by about 0.6 reference standard deviations since 10:05; 5,120 events; "
        "one such alarm in 30 days is what chance may do.",
        "onset": "sudden",
        "historical": False,
        "effect": {"shift": 0.61, "reference": {"p50": 41.0, "missing": 0.001}, "now": {"p50": 66.0, "missing": 0.001}},
        "largest_changes": [{"bin": "200 to 350", "reference": 0.04, "now": 0.11}],
        "consequence": {"verdict": "unknown", "why": "no labels yet"},
        "owner": "payments-ml",
    },
}

EXPECTED = """\
10:20:00  WARNING  fraud · amount moved up by about 0.6σ since 10:05; 5,120 events; one such alarm in 30 days is what
          chance may do.
          sudden · typical value 41 → 66 · largest change: 200 to 350 4.0% → 11.0%
          performance: no labels yet · owner: payments-ml · incident 51ac0b7d9e8f"""


def test_what_a_person_reads() -> None:
    assert render_alert(ALERT, colour=False, width=118) == EXPECTED


def test_resolved_and_changed_missing_values() -> None:
    data = {"model": "fraud", "target": "age", "summary": "age is back inside its tolerance.", "severity": "warning"}
    resolved = {"type": "driftline.alert.resolved.v1", "time": "2026-11-22T10:30:00Z", "data": data}
    assert render_alert(resolved, colour=False) == "10:30:00  RESOLVED  fraud · age is back inside its tolerance."
    gone = data | {"effect": {"now": {"missing": 0.4}, "reference": {"missing": 0.02}}, "historical": True}
    text = render_alert(resolved | {"data": gone}, colour=False)
    assert "from replayed history · missing 2.0% → 40.0%" in text


def test_colour_is_for_terminals_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert "\x1b[1;33mWARNING\x1b[0m" in render_alert(ALERT, colour=True)
    print(render_alert(ALERT))
    assert "\x1b" not in capsys.readouterr().out


def test_numbers() -> None:
    assert [number(value) for value in (0.01234, 4.56, 41.0, 3500.0, -12.34)] == [
        "0.0123",
        "4.56",
        "41",
        "3,500",
        "-12.3",
    ]


@given(st.text())
def test_nothing_from_outside_reaches_the_terminal_as_a_command(text: str) -> None:
    data = ALERT["data"] | {"summary": text, "model": text, "owner": text, "onset": text}  # type: ignore[operator]
    data["largest_changes"] = [{"bin": text, "reference": 0.1, "now": 0.2}]
    shown = render_alert(ALERT | {"data": data, "time": text}, colour=False)
    assert clean(shown.replace("\n", "")) == shown.replace("\n", "")
