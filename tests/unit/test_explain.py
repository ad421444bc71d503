"""Every value says where it comes from: the file, a default, or the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detectors.reference import WindowRule
from detectors.reference_build import build_reference
from stream.config_loader import load
from stream.explain import Setting, explain, shown

TEXT = """\
kafka: {bootstrap_servers: [a:1, b:2]}
topics: {predictions: {name: p, lateness: 5s}}
defaults:
  tolerance: 0.1
models:
  fraud:
    reference: {first: 5000}
    segments: {country: [DE, 1]}
    targets:
      amount: {tolerance: 0.2}
      "a.b": {range: [0, 9]}
    detectors:
      - {type: psi, threshold: 0.25}
"""


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Setting]:
    path = tmp_path / "monitor.yaml"
    path.write_text(TEXT)
    generator = np.random.default_rng(1)
    columns = {name: generator.normal(50, 10, 6000) for name in ("amount", "a.b", "other")}
    window = WindowRule(False, 60_000, 100, 720_000, 60_000)
    time_ms = np.arange(6000) * 600
    profile = build_reference("fraud", columns, dict.fromkeys(columns, "feature"), time_ms=time_ms, window=window)
    return {setting.path: setting for setting in explain(load(path), {"fraud": profile})}


def test_values_of_the_file_carry_their_line(settings: dict[str, Setting]) -> None:
    for path, value, line in [
        ("kafka.bootstrap_servers", "[a:1, b:2]", 1),
        ("topics.predictions.lateness", "5s", 2),
        ("defaults.tolerance", "0.1", 4),
        ("models.fraud.segments", "{country: [DE, 1]}", 8),
        ("models.fraud.targets.amount.tolerance", "0.2", 10),
        ('models.fraud.targets."a.b".range', "[0, 9]", 11),
        ("models.fraud.detectors[0].threshold", "0.25", 13),
        ("models.fraud.tolerance", "0.1", 4),
    ]:
        assert settings[path].value == value
        assert settings[path].origin.endswith(f"monitor.yaml:{line}")


def test_the_rest_are_defaults_with_a_meaning(settings: dict[str, Setting]) -> None:
    assert settings["monitors"] == Setting(
        "monitors", "8", "default", "partitions of driftline's own topics: models are spread over them"
    )
    assert settings["models.fraud.false_alarms"].origin == "default"
    assert settings["models.fraud.window"].value == "auto"


def test_what_the_reference_says_names_it(settings: dict[str, Setting]) -> None:
    assert settings["models.fraud.targets.other.kind"].value == "numeric"
    assert settings["models.fraud.targets.other.kind"].origin.startswith("reference sha256:")
    assert settings["models.fraud.targets.other.range"].origin.startswith("reference sha256:")
    assert settings["models.fraud.targets.other.tolerance"].value == "0.1"
    assert settings["models.fraud.window.every"].value == "1m"
    assert not settings['models.fraud.targets."a.b".range'].origin.startswith("reference")


def test_values_are_shown_as_they_would_be_written() -> None:
    assert [shown(value) for value in (None, True, 0.05, (1, "a"), {"a": 1.0})] == [
        "null",
        "true",
        "0.05",
        "[1, a]",
        "{a: 1}",
    ]
