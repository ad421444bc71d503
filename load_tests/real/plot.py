"""The picture of the README: what each target did over the year, and when driftline spoke."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from load_tests.real.flights import NUMERIC

SHOWN = ("departure_delay", "air_temperature", "humidity", "distance", "score")
COLOURS = {"opened": "#c62828", "escalated": "#6a1b9a", "resolved": "#2e7d32"}
assert set(SHOWN) - {"score"} <= set(NUMERIC)


def draw(path: Path, windows: Iterable[dict[str, Any]], alerts: Iterable[dict[str, Any]]) -> None:
    """Window means of a few targets with their alerts as vertical lines; PNG or SVG by the file's ending."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    judged = sorted((w for w in windows if w["segment"] == "all"), key=lambda w: w["window"]["start"])
    figure, axes = plt.subplots(len(SHOWN), 1, figsize=(10, 1.7 * len(SHOWN)), sharex=True, layout="constrained")
    for axis, target in zip(axes, SHOWN, strict=True):
        shown = [w for w in judged if target in w["targets"]]
        times = [datetime.fromisoformat(w["window"]["end"]) for w in shown]
        axis.plot(times, [w["targets"][target]["mean"] for w in shown], color="#455a64", linewidth=0.7)
        axis.set_ylabel(target.replace("_", "\n"), rotation=0, ha="right", va="center")
        axis.spines[["top", "right"]].set_visible(False)
    for alert in alerts:
        target, transition = alert["data"]["target"], alert["type"].split(".")[-2]
        if target in SHOWN:
            axis = axes[SHOWN.index(target)]
            axis.axvline(datetime.fromisoformat(alert["time"]), color=COLOURS[transition], linewidth=1.4)
    for transition, colour in COLOURS.items():
        axes[0].plot([], [], color=colour, label=transition)
    axes[0].legend(loc="upper right", ncols=3, frameon=False, fontsize=8)
    axes[0].set_title(
        "Flights from New York, February to December 2013, against January: window means and alerts", fontsize=10
    )
    figure.savefig(path, dpi=110)
