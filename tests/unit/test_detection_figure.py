"""The figure of delay against false alarms shows what the result says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from load_tests import detection_figure as figure
from load_tests.detection.figures import alarm_figures

EVENTS = 100_000


def result() -> dict[str, Any]:
    counts = {"driftline A": 0, "river B": 40, "calibrated C": 1, "only alarms": 3}
    delays = {"driftline A": 300.0, "river B": 100.0, "calibrated C": 500.0, "only delays": 1.0}
    return {
        "false_alarms": {
            "normal": {"contenders": {name: alarm_figures([n], EVENTS, 1e5, 1) for name, n in counts.items()}},
            "AR .9": {"contenders": {"river B": alarm_figures([9_999], EVENTS, 1e5, 1)}},
        },
        "geometric_mean_of_six": {name: {"value": value, "interval_95": [1, 2]} for name, value in delays.items()},
    }


def test_points_are_alarms_and_delays_of_the_same_detector() -> None:
    found = {point.name: point for point in figure.points(result())}
    assert list(found) == ["driftline A", "river B", "calibrated C"]
    assert (found["river B"].alarms, found["river B"].delay, found["river B"].at_most) == (400.0, 100.0, False)
    none = found["driftline A"]
    assert none.at_most
    assert 36.8 < none.alarms < 37.0, "3.69 in 100,000 events"
    assert len({point.colour for point in found.values()}) == 3


def test_the_command_writes_the_same_svg_twice_with_better_points_lower_left(tmp_path: Path) -> None:
    source, out = tmp_path / "result.json", tmp_path / "out.svg"
    source.write_text(json.dumps(result()))
    assert figure.main([str(source), str(out)]) == 0
    first = out.read_text()
    assert figure.main([str(source), str(out)]) == 0
    assert out.read_text() == first
    for text in ("1 driftline A, no alarm seen", "2 river B", "3 calibrated C"):
        assert text in first
    assert "only" not in first
    drawn = {}
    for point in figure.points(result()):  # the first marker of each colour is the point, those after it the legend's
        style = f"stroke: {point.colour}"
        x, y = re.findall(rf'<use xlink:href="[^"]*" x="([\d.]+)" y="([\d.]+)" style="[^"]*{style}', first)[0]
        drawn[point.name] = float(x), float(y)
    assert drawn["driftline A"][0] < drawn["river B"][0]
    assert drawn["river B"][1] > drawn["driftline A"][1] > drawn["calibrated C"][1], "y grows downwards: 100, 300, 500"
