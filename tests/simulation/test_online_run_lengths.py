"""Run lengths without drift: cusum and ewma against the published tables, all of them against what their files say was seen."""

from __future__ import annotations

import numpy as np
import pytest

import detectors
from detectors.online import started
from detectors.registry import Family, Reads

# Montgomery 2013, Introduction to Statistical Quality Control, table 9.3; Lucas, Saccucci 1990, Technometrics 32, table 3
PUBLISHED = [
    ("cusum", {"slack": 0.5, "threshold": 4.0}, 0.0, 168.0, 1500),
    ("cusum", {"slack": 0.5, "threshold": 4.0}, 0.5, 26.6, 1500),
    ("cusum", {"slack": 0.5, "threshold": 4.0}, 1.0, 8.38, 1500),
    ("cusum", {"slack": 0.5, "threshold": 4.0}, -2.0, 3.34, 1500),
    ("cusum", {"slack": 0.5, "threshold": 5.0}, 0.0, 465.0, 600),
    ("ewma", {"weight": 0.1, "limit": 2.814}, 0.0, 500.0, 600),
    ("ewma", {"weight": 0.1, "limit": 2.814}, 0.5, 31.3, 1500),
    ("ewma", {"weight": 0.1, "limit": 2.814}, -1.0, 10.3, 1500),
    ("ewma", {"weight": 0.25, "limit": 2.998}, 0.0, 500.0, 600),
]


@pytest.mark.parametrize(("name", "told", "shift", "published", "runs"), PUBLISHED)
def test_average_run_length(name: str, told, shift: float, published: float, runs: int) -> None:
    """A detector begins anew after each alarm, so that the gaps between alarms are independent run lengths."""
    rng = np.random.default_rng(1)
    detector = started(name, told | {"mean": 5.0, "deviation": 2.0})
    lengths: list[int] = []
    length = 0
    while len(lengths) < runs:
        for value in (5.0 + 2.0 * (shift + rng.normal(size=1000))).tolist():
            length += 1
            if detector.update(value).fired:
                lengths.append(length)
                length = 0
    mean, error = np.mean(lengths), np.std(lengths) / np.sqrt(len(lengths))
    assert abs(mean - published) < 4 * error + 0.005 * published
    assert error < 0.05 * published


# values, alarms at the defaults: (least, most) of independent ones, of an autocorrelation of .9
SEEN = {
    "adwin": (40_000, (0, 0), (200, 300)),
    "page_hinkley": (40_000, (18, 36), (200, 320)),
    "kswin": (4_000, (2, 8), (25, 45)),
    "cusum": (40_000, (60, 115), (1600, 2400)),
    "ewma": (40_000, (55, 105), (1600, 2400)),
    "ddm": (120_000, (1, 4), None),
    "eddm": (40_000, (20, 130), None),
    "hddm_a": (40_000, (0, 0), None),
    "hddm_w": (40_000, (0, 0), None),
    "fhddm": (40_000, (0, 0), None),
}


def alarms(name: str, values) -> int:
    detector = started(name)
    return sum(detector.update(value).fired for value in values)


def test_every_one_says_what_was_seen() -> None:
    assert set(SEEN) == {name for name, entry in detectors.REGISTRY.items() if entry.family is Family.ONLINE}


@pytest.mark.parametrize("name", SEEN)
def test_false_alarms_at_the_defaults_are_those_of_its_guarantee(name: str) -> None:
    count, (least, most), dependent = SEEN[name]
    rng = np.random.default_rng(1)
    if detectors.REGISTRY[name].reads is Reads.ERRORS:
        assert least <= alarms(name, (rng.random(count) < 0.1).astype(int).tolist()) <= most
        return
    noise = rng.normal(size=count)
    assert least <= alarms(name, noise.tolist()) <= most
    last, values = 0.0, []
    for z in noise.tolist():
        last = 0.9 * last + np.sqrt(1 - 0.81) * z  # of deviation 1
        values.append(float(last))
    low, high = dependent
    assert low <= alarms(name, values) <= high


def test_without_an_error_in_its_warm_start_the_first_one_is_an_alarm_of_ddm() -> None:
    assert alarms("ddm", [0] * 40) == 0
    assert alarms("ddm", [0] * 40 + [1]) == 1
