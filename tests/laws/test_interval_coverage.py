"""Intervals hold the truth in 93 to 97 % of windows (`python -m load_tests.interval_coverage` for 1,000 of them)."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.performance import METRICS
from load_tests.interval_coverage import SCENARIOS, coverage, main, outside, stated


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_intervals_hold_the_truth(scenario: str) -> None:
    found = coverage(scenario, seed=1, windows=300)
    assert not outside(found, 300), found
    assert all(share > 0.9 for name, share in found.items() if not stated(name))


def test_every_metric_is_simulated() -> None:
    simulated = {name for draw in SCENARIOS.values() for name, _ in draw(np.random.default_rng(1), 300)}
    assert set(METRICS) <= simulated


def test_the_command_fails_where_an_interval_does_not_hold(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr("load_tests.interval_coverage.coverage", lambda *_: {"auroc": 0.9, "gini": 0.95})
    assert main(["--scenario", "binary"]) == 1
    assert "auroc                               0.900   outside" in capsys.readouterr().out
    monkeypatch.setattr("load_tests.interval_coverage.coverage", lambda *_: {"gini": 0.95, "macro_auroc": 0.99})
    assert main(["--scenario", "binary"]) == 0
