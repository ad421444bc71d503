"""Figures from the tasks' results, what is asked of them, and the tables on stdout.

Of every stream: alarms at most T / A, the upper end of their 95 % interval at most UPPER_MAX of it. Of the streams whose
windows are exchangeable, as they are, by the hour or by size, or nearly so in windows as long as `window: auto` takes them, also that
the one-step factor of the rank layer is 1 on average: there that layer carries the bound, for any A. Elsewhere (days that
differ, drift inside the tolerance) windows are not like the reference's, and a factor above 1 is no fault but what the rank
layer is for. The bound is the tube's there: its evidence is that of a law outside the tolerance, so it is asked of alarms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from load_tests.detection.calibrated import CALIBRATED
from load_tests.detection.contenders import CELLS, SETTINGS, Ours, Setting
from load_tests.detection.figures import (
    alarm_figures,
    delay_figures,
    factor_figures,
    geometric_mean,
    poisson_interval,
    ratio_to_best,
)
from load_tests.detection.streams import BY_HOUR, BY_NAME, BY_SIZE, CASES, EXCHANGEABLE, NEARLY, NO, SIX, Stream

UPPER_MAX = 1.1  # of T / A
FACTOR_ERROR_MAX = 0.01
RATIO_MAX = 0.5  # of the best calibrated rival's delays
SEEDS_MIN = 64
RANKS_ALL, RANKS_NEARLY = (
    "rank layer: windows are exchangeable",
    "rank layer: windows as long as auto takes them nearly are",
)
RANKS_HOUR = "rank layer: windows of the same hour are exchangeable"
RANKS_SIZE = "rank layer: windows of about the same number of events are exchangeable"
TUBE_DAYS = "tube as wide as `tolerance: auto` makes it: days differ, windows are not exchangeable"
TUBE_INSIDE = "tube: the drift is inside the tolerance, live windows are not like the reference's"
Task = Mapping[str, Mapping[str, Any]]


def alarm_report(stream: str, tasks: Sequence[Task]) -> dict[str, Any]:
    """False alarms of every contender on one stream, and our factor: of all its pairs."""
    names = list(dict.fromkeys(name for task in tasks for name in task if name != "factor"))
    contenders = {}
    for name in names:
        of = [task[name] for task in tasks if name in task]
        first = of[0]
        contenders[name] = alarm_figures([o["count"] for o in of], first["events"], first["budget"], first["cells"])
    factors = [task["factor"] for task in tasks if "factor" in task]
    lengths, times = np.unique([f["every_ms"] for f in factors], return_counts=True)
    factor = factor_figures([f["before"] for f in factors], [f["factor"] for f in factors])
    factor["set_back"] = int(sum(f["set_back"] for f in factors))
    return {
        "windows": BY_NAME[stream].windows,
        "contenders": contenders,
        "factor": factor,
        "window_every_ms": {str(ms): count for ms, count in zip(lengths.tolist(), times.tolist(), strict=True)},
    }


def delay_report(tasks: Sequence[Mapping[str, float]], seed: int) -> dict[str, Any]:
    names = list(dict.fromkeys(name for task in tasks for name in task))
    return {name: delay_figures([task[name] for task in tasks if name in task], seed) for name in names}


def means_over_six(delays: Mapping[str, Sequence[Mapping[str, float]]], seed: int) -> dict[str, Any]:
    """Geometric mean of the mean delays of the six changes of normal data, by contender; seeds resampled."""
    length = {case.name: float(case.events) for case in CASES}
    if any(name not in delays for name in SIX):
        return {}
    names = dict.fromkeys(name for case in SIX for task in delays[case] for name in task)
    out = {}
    for name in names:
        found = [[task[name] for task in delays[case] if name in task] for case in SIX]
        if all(found):
            out[name] = geometric_mean(found, [length[case] for case in SIX], seed)
    return out


def against_calibrated(delays: Mapping[str, Sequence[Mapping[str, float]]], seed: int) -> dict[str, Any]:
    """Our geometric mean over the six at the small budget, over that of the best rival calibrated to it, on the same streams.

    {} unless all were measured. Seeds are resampled for both together, and the best rival is chosen anew in each resample.
    """
    names = list(dict.fromkeys(name for tasks in delays.values() for task in tasks for name in task))
    rivals = [name for name in names if name.startswith(CALIBRATED)]
    if not rivals or any(name not in delays for name in SIX):
        return {}
    length = {case.name: float(case.events) for case in CASES}
    found = {
        name: [np.array([task[name] for task in delays[case]], float) for case in SIX]
        for name in (Ours(SETTINGS[0]).name, *rivals)
    }
    figures = ratio_to_best(*found.values(), penalty=[length[case] for case in SIX], seed=seed)
    return figures | {"ours": Ours(SETTINGS[0]).name, "best": rivals[figures["best"]]}


def rival_conditions(against: Mapping[str, Any], seeds: int) -> list[dict[str, Any]]:
    """What is claimed against the best calibrated rival."""
    if not against:
        return []
    told = {"against": against["best"], "ratio": against["ratio"], "interval_95": against["interval_95"]}
    return [told | {"enough": seeds >= SEEDS_MIN, "holds": against["ratio"] <= RATIO_MAX}]


def carried_by(stream: Stream) -> str:
    """What the bound on false alarms rests on there."""
    if stream.windows == NO:
        return TUBE_INSIDE if stream.inside else TUBE_DAYS
    carried = {EXCHANGEABLE: RANKS_ALL, NEARLY: RANKS_NEARLY, BY_HOUR: RANKS_HOUR, BY_SIZE: RANKS_SIZE}
    return carried[stream.windows]


def conditions(alarms: Mapping[str, Any], settings: Sequence[Setting] = SETTINGS) -> list[dict[str, Any]]:
    """What is asked of our own default, held against what was measured. One entry a stream, setting and number of cells, and
    one for the factor of each stream: `holds` None where it is not asked. `because`: what carries the bound there.
    """
    found: list[dict[str, Any]] = []
    for stream, report in alarms.items():
        because = carried_by(BY_NAME[stream])
        for setting in settings:
            for cells in CELLS:
                figures = report["contenders"].get(Ours(setting, cells).name)
                if figures is None:
                    continue
                enough = figures["pairs"] >= 200 and figures["events"] >= 200 * setting.budget
                enough &= poisson_interval(0)[1] * cells * setting.budget <= UPPER_MAX * figures["events"]
                entry = {"stream": stream, "setting": setting.name, "cells": cells, "ratio": figures["ratio"]}
                entry |= {"ratio_upper": figures["ratio_upper"], "enough": enough, "because": because}
                found.append(entry | {"holds": figures["ratio_upper"] <= UPPER_MAX})
        means = [report["factor"]["mean"], *(mean for mean, _ in report["factor"]["deciles"])]
        worst = max(means, key=lambda mean: abs(mean - 1.0))
        asked = because not in {TUBE_DAYS, TUBE_INSIDE}
        holds = abs(worst - 1.0) <= FACTOR_ERROR_MAX if asked else None
        found.append({"stream": stream, "factor_furthest_from_1": worst, "because": because, "holds": holds})
    return found


# ---- the table ----------------------------------------------------------------------------------------------------------


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.0f}" if value >= 10 or value == 0 else f"{value:.2g}"


def _lines(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
    shown = [
        [c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True))]
        for r in (heads, *rows)
    ]
    return [title, *("  ".join(row) for row in shown), ""]


def _asked(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which condition is asked of which stream, why, and what was measured."""
    rows = []
    for one in found:
        if "stream" not in one:
            continue
        said = {True: "holds", False: "does not hold", None: "not asked"}[one["holds"]]
        if "factor_furthest_from_1" in one:
            rows.append([one["stream"], "factor 1 ± 1 %", f"{one['factor_furthest_from_1']:.4f}", said, one["because"]])
            continue
        said += "" if one["enough"] else ", too few to tell"
        measured = f"{one['ratio']:.2f}, at most {one['ratio_upper']:.2f}"
        rows.append(
            [one["stream"], f"alarms / (T/A), {one['setting']} d={one['cells']}", measured, said, one["because"]]
        )
    heads = ["no change", f"asked (alarms: at most {UPPER_MAX:g})", "measured", "", "what carries the bound"]
    return _lines("what is asked of the default", heads, rows) if rows else []


def show(result: Mapping[str, Any]) -> str:
    """Text of a whole result."""
    lines: list[str] = []
    for stream, report in result["false_alarms"].items():
        rows = [
            [
                name,
                str(f["events"]),
                str(f["alarms"]),
                _number(f["per_million"]),
                f"{_number(f['poisson_95'][0])} to {_number(f['poisson_95'][1])}",
                _number(f["bound_per_million"]) if name.startswith("driftline") else "none",
            ]
            for name, f in report["contenders"].items()
        ]
        factor = report["factor"]
        title = (
            f"{stream}: windows {report['windows']}; one-step factor {factor['mean']:.4f} ± {factor['error']:.4f}, "
            f"deciles {min(m for m, _ in factor['deciles']):.3f} to {max(m for m, _ in factor['deciles']):.3f}"
        )
        heads = ["no change", "events", "alarms", "x cells, a million", "Poisson 95 %", "bound"]
        lines += _lines(title, heads, rows)
    for case, report in result["delays"].items():
        rows = [
            [
                name,
                _number(f["mean"]),
                "-" if f["mean_95"] is None else f"{_number(f['mean_95'][0])} to {_number(f['mean_95'][1])}",
                _number(f["p95"]),
                f"{f['misses']} of {f['seeds']}",
            ]
            for name, f in report.items()
        ]
        lines += _lines(f"{case}: delay in events", ["change", "mean", "95 %", "p95", "missed"], rows)
    rows = [
        [name, _number(f["value"]), f"{_number(f['interval_95'][0])} to {_number(f['interval_95'][1])}"]
        for name, f in result["geometric_mean_of_six"].items()
    ]
    if rows:
        lines += _lines("geometric mean of six delays on normal data", ["", "events", "95 %"], rows)
    against = result["against_calibrated"]
    if against:
        low, high = against["interval_95"]
        lines.append(
            f"{against['ours']} takes {against['ratio']:.2f} ({low:.2f} to {high:.2f}) of the events that the best rival takes, "
            f"{against['best']}\n"
        )
    lines += _asked(result["conditions"])
    lines += [f"left out: {name}: {why}" for name, why in result["left_out"].items()]
    return "\n".join(lines)
