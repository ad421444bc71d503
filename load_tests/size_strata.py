"""What strata by windows' sizes are for, and what they cost: traffic that swings tenfold in 37 hours, windows of ten minutes.

    python -m load_tests.size_strata [--pairs 6] [--targets 200]

`crossed`: how often the ranks of pairs of a reference and a stream of 2M events cross, over one in 10,000 events, which is promised, and in
brackets its standard error; `alarms`, which need the tube too, likewise. With the strata that the reference gets, and the same
reference without. `us`: CPU of one window, a target; each window of another stratum. Under a minute.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from detectors.reference import ReferenceProfile, WindowRule, slim
from detectors.reference_build import build_reference
from detectors.sequential.batch import Batch
from detectors.sequential.default import prepare, start
from load_tests.detection.contenders import RESOLUTION_MS, ROLE, TARGET, Setting, judge, live_judged
from load_tests.detection.streams import (
    OFF_CLOCK_HOURS,
    TRAFFIC_RATIO,
    Rows,
    Values,
    arrivals,
    bernoulli,
    lognormal,
    normal,
)

REFERENCE, LIVE = 288_000, 2_000_000
SETTING = Setting("A=1e4 tau=.03", 1e4, 0.03)
EVERY_MS, MIN_EVENTS = 10 * RESOLUTION_MS, 10
LAWS: dict[str, Callable[[np.random.Generator, NDArray[np.int64]], Values]] = {
    "normal": normal,
    "lognormal": lognormal,
    "2 % ones": bernoulli,
}
WARM, WINDOWS = 50, 300


def reference_of(rows: Rows) -> ReferenceProfile:
    rule = WindowRule(False, EVERY_MS, MIN_EVENTS, 0, RESOLUTION_MS)
    return build_reference("m", {TARGET: rows.value}, {TARGET: ROLE}, time_ms=rows.time_ms, window=rule)


def without_strata(profile: ReferenceProfile) -> ReferenceProfile:
    return replace(profile, targets=tuple(replace(target, strata=None) for target in profile.targets))


def drawn(law: str, number: int, live: int) -> tuple[Rows, Rows]:
    g = np.random.default_rng([1, number, len(law)])
    time_ms = arrivals(g, REFERENCE + live, TRAFFIC_RATIO, OFF_CLOCK_HOURS)
    rows = Rows(time_ms, LAWS[law](g, time_ms))
    return rows.cut(0, REFERENCE), rows.cut(REFERENCE, REFERENCE + live)


def crossings(law: str, pairs: int) -> dict[str, tuple[float, float, float]]:
    """(crossings of the ranks, their standard error, alarms) over what is promised, with strata and without."""
    found: dict[str, list[tuple[int, int]]] = {"strata": [], "none": []}
    for number in range(pairs):
        reference, live = drawn(law, number, LIVE)
        profile = reference_of(reference)
        strata = profile.targets[0].strata
        if strata is None or strata.by_clock:
            raise SystemExit("the reference has no strata by size")
        for name, each in (("strata", profile), ("none", without_strata(profile))):
            run = judge(each, live_judged(each, live), SETTING.settings(1))
            found[name].append((len(run.rank_crossings), len(run.alarms)))
    promised = LIVE / SETTING.budget
    told = {}
    for name, counts in found.items():
        crossed, alarms = np.array(counts).T / promised
        error = float(crossed.std(ddof=1)) / math.sqrt(pairs) if pairs > 1 else math.nan
        told[name] = float(crossed.mean()), error, float(alarms.mean())
    return told


def cost(targets: int) -> dict[str, float]:
    """us of CPU of a window and target."""
    reference, _ = drawn("normal", 0, 1)
    profile = slim(reference_of(reference))
    plain = slim(without_strata(reference_of(reference)))
    batches = {}
    for name, each in (("strata", profile), ("none", plain)):
        prepared = [prepare(each.targets[0], SETTING.settings(targets), each.id) for _ in range(targets)]
        batches[name] = Batch(prepared, [start(one) for one in prepared])
    law = profile.targets[0].counts / profile.targets[0].counts.sum()
    spent: dict[str, list[float]] = {name: [] for name in batches}
    g = np.random.default_rng(2)
    for window in range(WINDOWS):
        size = round(math.exp(math.log(25) + 0.8 * math.sin(window)))
        counts = g.multinomial(size, law, size=targets).ravel().astype(np.int64)
        for name, batch in batches.items():
            began = time.thread_time()
            batch.update(counts, EVERY_MS, window * EVERY_MS, (window + 1) * EVERY_MS)
            if window >= WARM:
                spent[name].append((time.thread_time() - began) / targets * 1e6)
    return {name: float(np.median(each)) for name, each in spent.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--targets", type=int, default=200)
    args = parser.parse_args()
    with threadpool_limits(1):
        for law in LAWS:
            for name, (crossed, error, alarms) in crossings(law, args.pairs).items():
                print(f"{law}, {name}: crossed {crossed:.2f} ({error:.2f}), alarms {alarms:.2f}", flush=True)
        print("us: " + ", ".join(f"{name} {us:.2f}" for name, us in cost(args.targets).items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
