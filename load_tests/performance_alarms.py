"""False alarms and delays of the default detector on performance: final windows of clicks that come late, and signed errors.

    python -m load_tests.performance_alarms [--windows 1000000] [--streams 25] [--changes 100] [--seed 2027] [--json]

Windows go through the stages as a monitor's do: sums of a window -> metric -> series -> detector (stream/performance_watch.py).
A click comes with probability CLICK_RATE, an exponential delay after its prediction; a window at a horizon has those that came within it.

false alarms  a constant click rate, every horizon a series, `--windows` windows in `--streams` models, each of which learns
              anew. Allowed in T windows: T / A of the model, of which a series may spend PERFORMANCE_SHARE / series. The numbers of
              a window are of one law, so the bound must hold.
drop          the rate falls by a tenth of itself; a month's budget; windows from the change to the alarm
signed        predictions of a target with standard deviation 1, errors of .1, that become too high by .01; the same
              for what the signed error, the share of too high ones, and the mean absolute error see of it

Exit code 1 if a bound or a goal fails. About ten minutes, single process.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.performance import Layout, Part, PerformanceSums
from load_tests.detection.figures import poisson_interval
from stream.join_feedback import FeedbackKind
from stream.monitor_settings import ModelSettings
from stream.performance_cells import PERFORMANCE_SHARE, cells_of
from stream.performance_merging import Horizon
from stream.performance_plan import ModelPerformance, StreamPerformance
from stream.performance_records import Measured
from stream.performance_watch import PerformanceWatch
from stream.plan import ALL
from stream.window_log import Closed

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

MINUTE_MS = 60_000
ROWS = 1000  # predictions of a window
CLICK_RATE = 0.05
MEAN_DELAY_MS = 10 * MINUTE_MS
HORIZONS_MS = (MINUTE_MS, 10 * MINUTE_MS, 60 * MINUTE_MS)
TIGHT_WINDOWS = 1000  # A of the false alarms, in windows: so tight that a wrong bound shows
MONTH_MS = 30 * 86_400_000
DROP = 0.1
SETTLED = 300  # live windows before a change
PATIENCE = 1500  # windows that a change may take
ERROR_STD, BIAS = 0.1, 0.01  # of the target's standard deviation
LABELLED_ROWS = 200
LABEL_METRICS = ("mean_signed_error", "share_over_predicted", "mae")
LEARNING = 200


@dataclass(frozen=True)
class Setting:
    """One topic of feedback of one model, judged within a budget."""

    stream: StreamPerformance
    budget_ms: int

    def watch(self, number: int) -> PerformanceWatch:
        plan = ModelPerformance(f"m{number}", (), 0, (self.stream,))
        return PerformanceWatch(ModelSettings(plan.model, budget_ms=self.budget_ms, performance=plan))

    @property
    def cells(self) -> int:
        return len(cells_of(ModelPerformance("m", (), 0, (self.stream,))))


CLICKS = StreamPerformance("clicks", FeedbackKind.CLICK, HORIZONS_MS, ("ctr",), Layout(proxies=True))
LABELS = StreamPerformance("labels", FeedbackKind.LABEL, (60 * MINUTE_MS,), LABEL_METRICS, Layout(errors=True))


def clicks_within(g: np.random.Generator, rates: F64) -> I64:
    """I64[windows, horizons]: clicks of ROWS predictions each, at these rates F64[windows], by when they came."""
    came = 1.0 - np.exp(-np.array(HORIZONS_MS) / MEAN_DELAY_MS)
    share = np.diff(np.concatenate([[0.0], came]))
    parts = np.concatenate([rates[:, None] * share, 1.0 - rates[:, None] * came[-1]], axis=1)
    found: I64 = g.multinomial(ROWS, parts)[:, :-1].cumsum(axis=1)
    return found


def judged(
    watch: PerformanceWatch, stream: StreamPerformance, horizon_ms: int, number: int, sums: PerformanceSums
) -> Any:
    """One final window of a series: metric -> what its record says."""
    rows = ROWS if stream is CLICKS else LABELLED_ROWS
    window = Closed(number * MINUTE_MS, (number + 1) * MINUTE_MS, rows, lost=False)
    measured = Measured(
        watch.settings.model, "1", ALL, stream.stream, horizon_ms, sums.layout.identity, window, stream.kind.value, rows, rows,
        True, (), sums,
    )  # fmt: skip
    states, _ = watch.window(Horizon(stream.stream, horizon_ms), window, [measured], whole=True)
    return {metric: state for (_, _, metric), state in states.items()}


def click_alarms(watch: PerformanceWatch, clicks: I64) -> Iterator[tuple[int, int]]:
    """(window, horizon's place) of every alarm."""
    sums = PerformanceSums(CLICKS.layout)
    counts = sums.count(Part.PROXIES, "rows")
    for number in range(len(clicks)):
        for place, horizon_ms in enumerate(HORIZONS_MS):
            counts[:] = (ROWS, clicks[number, place], 0, 0, 0, 0)
            if judged(watch, CLICKS, horizon_ms, number, sums)["ctr"].get("alarm"):
                yield number, place


def false_alarms(windows: int, streams: int, seed: int) -> list[dict[str, Any]]:
    """Of every horizon: alarms in all live windows, and what is allowed."""
    setting = Setting(CLICKS, TIGHT_WINDOWS * MINUTE_MS)
    each = windows // streams
    found = np.zeros(len(HORIZONS_MS), np.int64)
    for number in range(streams):
        g = np.random.default_rng([seed, 1, number])
        clicks = clicks_within(g, np.full(LEARNING + each, CLICK_RATE))
        for _, place in click_alarms(setting.watch(number), clicks):
            found[place] += 1
    live = each * streams
    allowed = live / TIGHT_WINDOWS
    own = allowed * PERFORMANCE_SHARE / setting.cells
    return [
        {
            "horizon_ms": horizon_ms,
            "windows": live,
            "alarms": int(count),
            "interval": list(poisson_interval(int(count))),
            "allowed_model": allowed,
            "allowed_series": own,
            "holds": poisson_interval(int(count))[0] <= own and int(count) <= allowed,
        }
        for horizon_ms, count in zip(HORIZONS_MS, found, strict=True)
    ]


def drops(changes: int, seed: int) -> list[dict[str, Any]]:
    """Of every horizon: windows from the drop to the first alarm after it, in `changes` models."""
    setting = Setting(CLICKS, MONTH_MS)
    start = LEARNING + SETTLED
    delays: list[list[int]] = [[] for _ in HORIZONS_MS]
    for number in range(changes):
        g = np.random.default_rng([seed, 2, number])
        rates = np.full(start + PATIENCE, CLICK_RATE)
        rates[start:] *= 1.0 - DROP
        first: dict[int, int] = {}
        for window, place in click_alarms(setting.watch(number), clicks_within(g, rates)):
            if window >= start:
                first.setdefault(place, window - start + 1)
            if len(first) == len(HORIZONS_MS):
                break
        for place, delay in first.items():
            delays[place].append(delay)
    return [
        {"horizon_ms": horizon_ms} | summary(found, changes)
        for horizon_ms, found in zip(HORIZONS_MS, delays, strict=True)
    ]


def signed(changes: int, seed: int) -> list[dict[str, Any]]:
    """The same of every metric of numeric labels, when predictions become too high."""
    setting = Setting(LABELS, MONTH_MS)
    start = LEARNING + SETTLED
    delays: dict[str, list[int]] = {metric: [] for metric in LABEL_METRICS}
    for number in range(changes):
        g, watch = np.random.default_rng([seed, 3, number]), setting.watch(number)
        first: dict[str, int] = {}
        for window in range(start + PATIENCE):
            sums, labels = PerformanceSums(LABELS.layout), g.normal(size=LABELLED_ROWS)
            errors = g.normal(BIAS if window >= start else 0.0, ERROR_STD, LABELLED_ROWS)
            sums.add_errors(labels + errors, labels)
            said = judged(watch, LABELS, LABELS.horizons_ms[0], window, sums)
            for metric in LABEL_METRICS:
                if window >= start and said[metric].get("alarm"):
                    first.setdefault(metric, window - start + 1)
            if {"mean_signed_error", "share_over_predicted"} <= set(first) and window >= start + 300:
                break  # what mae finds is looked for in as many windows: 300, far more than the others need
        for metric, delay in first.items():
            delays[metric].append(delay)
    return [{"metric": metric} | summary(found, changes) for metric, found in delays.items()]


def summary(delays: Sequence[int], changes: int) -> dict[str, Any]:
    """Windows until the alarm, of those that were found."""
    found = np.array(delays, np.float64)
    return {
        "changes": changes,
        "found": len(found),
        "mean_windows": round(float(found.mean()), 1) if len(found) else None,
        "p95_windows": round(float(np.quantile(found, 0.95)), 1) if len(found) else None,
    }


def goals(result: dict[str, Any]) -> list[str]:
    """What fails."""
    wrong = [f"false alarms at {each['horizon_ms']} ms" for each in result["false_alarms"] if not each["holds"]]
    longest = result["drop"][-1]
    if longest["found"] < longest["changes"]:
        wrong.append("a drop was not found at the longest horizon")
    by_name = {each["metric"]: each for each in result["signed"]}
    wrong += [
        f"{name} did not find the bias"
        for name in ("mean_signed_error", "share_over_predicted")
        if by_name[name]["found"] < by_name[name]["changes"]
    ]
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=1_000_000)
    parser.add_argument("--streams", type=int, default=25)
    parser.add_argument("--changes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=2027)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    begun = time.monotonic()
    result: dict[str, Any] = {
        "false_alarms": false_alarms(asked.windows, asked.streams, asked.seed),
        "drop": drops(asked.changes, asked.seed),
        "signed": signed(max(asked.changes // 5, 1), asked.seed),
    }
    result["wrong"], result["seconds"] = goals(result), round(time.monotonic() - begun)
    if asked.json:
        sys.stdout.write(json.dumps(result, indent=1) + "\n")
    else:
        for part in ("false_alarms", "drop", "signed"):
            sys.stdout.writelines(f"{part}: {each}\n" for each in result[part])
        sys.stdout.write(f"{'; '.join(result['wrong']) or 'all conditions hold'} ({result['seconds']} s)\n")
    return 1 if result["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
