"""What hours of the day cost the default detector: the tables of the next hour, and windows beside those of targets without hours.

    python -m load_tests.hour_speed [--targets 20 --days 2]

Numeric targets of a stream with a daily season, through the detector as the monitor calls it, two windows of each hour: the first one
of an hour makes its tables. The same windows go to the same targets with `season: none`. Microseconds of CPU time of the thread a
target, medians over the hours after the first HOURS_WARM.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from detectors.reference import ReferenceProfile
from detectors.sequential.batch import Batch
from detectors.sequential.default import prepare, start
from detectors.sequential.strata import hour_counts
from load_tests.detection.contenders import SETTINGS, reference_of
from load_tests.detection.measure import FULL, pair
from load_tests.detection.streams import BY_NAME, SEASON

HOUR_MS = 3_600_000
HOURS_WARM = 4
EVENTS = 50


def batch_of(profile: ReferenceProfile, targets: int) -> Batch:
    prepared = [prepare(profile.targets[0], SETTINGS[1].settings(targets), profile.id) for _ in range(targets)]
    return Batch(prepared, [start(each) for each in prepared])


def measure(targets: int, days: int) -> dict[str, float]:
    """us a target: `first` windows of an hour and `next` ones, of targets with hours and of the same without (`plain`)."""
    stream = BY_NAME[SEASON]
    reference, _ = pair(stream, FULL, 1, 0, 1)
    profile = reference_of(reference)
    target = profile.targets[0]
    strata = target.strata
    if strata is None:
        raise SystemExit("the reference has no hours")
    without = replace(profile, targets=(replace(target, strata=None),))
    hours, plain, r = batch_of(profile, targets), batch_of(without, targets), np.random.default_rng(1)
    spent: dict[str, list[float]] = {"first": [], "next": [], "plain": []}
    for hour in range(24 * days):
        for number, kind in enumerate(("first", "next")):
            start_ms = hour * HOUR_MS + number * HOUR_MS // 4
            law = hour_counts(strata, start_ms)
            assert law is not None  # sixty days fill every hour
            counts = r.multinomial(EVENTS, law / law.sum(), size=targets).ravel().astype(np.int64)
            for name, batch in ((kind, hours), ("plain", plain)):
                began = time.thread_time()
                batch.update(counts, HOUR_MS / 4, start_ms, start_ms + HOUR_MS // 4)
                if hour >= HOURS_WARM:
                    spent[name].append((time.thread_time() - began) / targets * 1e6)
    return {name: float(np.median(each)) for name, each in spent.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=int, default=20)
    parser.add_argument("--days", type=int, default=2)
    args = parser.parse_args()
    with threadpool_limits(1):
        found = measure(args.targets, args.days)
    print(f"us of CPU a target, {args.targets} targets")
    print(f"first window of an hour, with its tables   {found['first']:8.1f}")
    print(f"next window of an hour                     {found['next']:8.1f}")
    print(f"the same windows without hours             {found['plain']:8.1f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
