"""Delay against false alarms, from a result of `python -m load_tests.detection --json`: one point a detector.

    python -m load_tests.detection_figure RESULT.json load_tests/detection_delays.svg

Across: false alarms in a million events of normal data without a change; of a detector without any in all of its events the
upper end of the 95 % interval, hollow. Up: geometric mean of the mean delays of the six changes of normal data, a miss counted as
the whole stretch. Lower left is better. Detectors with several settings or cells are points of their own.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STREAM = "normal"
FAMILIES = {
    "driftline": "#1f77b4",
    "calibrated": "#2ca02c",
    "river": "#d62728",
    "nannyml": "#9467bd",
    "evidently": "#ff7f0e",
    "": "#7f7f7f",
}


@dataclass(frozen=True, slots=True)
class Point:
    """`at_most`: no alarm was seen, `alarms` is what there can be."""

    name: str
    alarms: float
    delay: float
    at_most: bool

    @property
    def colour(self) -> str:
        return next(colour for family, colour in FAMILIES.items() if self.name.startswith(family))


def points(result: Mapping[str, Any]) -> list[Point]:
    """Detectors whose alarms on STREAM and whose six delays were measured. Raises KeyError where a result has neither."""
    delays, found = result["geometric_mean_of_six"], []
    for name, figures in result["false_alarms"][STREAM]["contenders"].items():
        if name in delays:
            none = figures["alarms"] == 0
            alarms = figures["poisson_95"][1] if none else figures["per_million"]
            found.append(Point(name, alarms, delays[name]["value"], none))
    return found


def draw(found: Sequence[Point], path: Path) -> None:
    """An SVG that is the same for the same points."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "driftline", "svg.fonttype": "none", "font.size": 8}):
        figure = Figure(figsize=(9, 5.5), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for number, point in enumerate(found, start=1):
            filled = "white" if point.at_most else point.colour
            label = f"{number} {point.name}" + (", no alarm seen" if point.at_most else "")
            axes.plot(point.alarms, point.delay, "o", ms=8, mec=point.colour, mfc=filled, clip_on=False, label=label)
            axes.annotate(str(number), (point.alarms, point.delay), xytext=(5, 4), textcoords="offset points")
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="false alarms in a million events without a change",
            ylabel="events until a change is found, geometric mean of six",
        )
        axes.grid(visible=True, which="major", color="#dddddd")
        figure.legend(loc="outside right upper", frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None})


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path)
    parser.add_argument("figure", type=Path)
    args = parser.parse_args(argv)
    draw(points(json.loads(args.result.read_text())), args.figure)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
