"""What the demo prints of a window."""

from __future__ import annotations

import re
from typing import Any

import pytest

from stream.config_loader import load
from stream.demo import CONFIGURATION, FEATURE, window_line
from stream.simulated_model import MODEL, Simulation, write_training_file

WINDOW: dict[str, Any] = {
    "segment": "all",
    "events": 2498,
    "window": {"end_ms": 1_763_806_805_000},
    "targets": {
        FEATURE: {"psi": 0.002, "level": "ok"},
        "items": {"psi": 0.011, "level": "ok"},
        "velocity": {"psi": None},
    },
}


def test_a_quiet_window_and_a_drifting_one() -> None:
    assert window_line(WINDOW) == "10:20:05   2,498 events  no drift          most different: items, psi 0.011"
    targets = WINDOW["targets"] | {FEATURE: {"psi": 0.2, "level": "drift"}}
    drifting = window_line(WINDOW | {"targets": targets})
    assert drifting is not None
    assert f"drift: {FEATURE}" in drifting
    assert f"most different: {FEATURE}, psi 0.200" in drifting


def test_other_series_and_segments_have_no_line() -> None:
    assert window_line(WINDOW | {"segment": "country=DE"}) is None
    assert window_line(WINDOW | {"targets": {"score": {"psi": 0.1}}}) is None
    assert window_line({"segment": "all"}) is None


def test_the_configuration_loads_and_says_what_the_defaults_are(
    tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    text = CONFIGURATION.format(bootstrap_servers="127.0.0.1:9092", window_s=5, model=MODEL, metrics_port=0)
    assert len(re.findall("by default", text)) == 3
    (tmp_path / "monitor.yaml").write_text(text)
    write_training_file(tmp_path / "training.parquet", Simulation(1, 500.0, 1_763_806_500_000), 10)
    loaded = load(tmp_path / "monitor.yaml")
    assert not loaded.warnings
    assert str(loaded.config.resolution) == "1s"
    assert capsys.readouterr().err == ""
