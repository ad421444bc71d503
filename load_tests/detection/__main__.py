"""False alarms and delays of the default detector, of river's, and of one that always fires, on the same seeded streams.

    python -m load_tests.detection --quick [--json]         a minute or two: shows that it runs, not that bounds hold
    python -m load_tests.detection --jobs 2 --out FOLDER --json    the whole: 200 pairs a stream, 64 seeds a change; about an hour
    python -m load_tests.detection --stream normal --case ".5 sd" --pairs 20 --seeds 10
    python -m load_tests.detection --six --jobs 2           ours against the best calibrated rival on the six changes of normal data
    python -m load_tests.detection --six --reference 10000 --budget 10000 --no-calibration     shorter references, more false alarms
    python -m load_tests.detection --rivals FOLDER --stream normal     beside nannyml's and evidently's defaults

One default configuration with two named settings of budget and tolerance; nothing is set per stream. Figures do not depend on
the machine or on --jobs: pair n of a stream has the same rows in every run of a seed. With --out every stream and change is kept
as soon as it is finished, and a run of the same code, seed and size takes it over: after a stop, or from parts made with --stream
and --case. River's detectors, interpreted loops, see 20 pairs a stream; KSWIN 3,000 events of each, and of a change 16 seeds and
5,000 events. nannyml sees 20 pairs and seeds, evidently two, and 20,000 events of a pair: FOLDER is an environment of their own
(nannyml 0.13.1, evidently 0.7.23, pandas 2.3.3), made by pip if it is not there, as they cannot live with our versions.

An event is one row; a delay counts the first changed event as 1 and ends with the last event of the alarming window. For d cells
one feature is watched with the threshold of d, and its alarms are counted d times: the expectation of d equal features, however
they depend on each other.
Exit code 1 when a condition fails for which enough was measured.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from load_tests.detection import report
from load_tests.detection.calibrated import clean_task, thresholds
from load_tests.detection.measure import FULL, QUICK, Size, alarm_task, delay_task
from load_tests.detection.parts import Parts, code_digest
from load_tests.detection.rivals import LEFT_OUT, RivalEnvironment
from load_tests.detection.streams import BY_NAME, CASES, SIX


def commit() -> dict[str, Any]:
    """Which code was measured."""
    here = Path(__file__).parent
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, cwd=here)
    changes = subprocess.run(
        ["git", "status", "--porcelain", "--", "../../detectors"], capture_output=True, text=True, check=True, cwd=here
    )
    return {"id": head.stdout.strip(), "detectors_changed_since": bool(changes.stdout.strip())}


def one_thread() -> None:
    """Linear algebra of a worker on its own core. With threads of its own, processes wait for each other, and sums depend on cores."""
    threadpool_limits(1)


def calibration(pool: ProcessPoolExecutor, parts: Parts, size: Size, seed: int) -> dict[str, float]:
    """Thresholds of the calibrated rivals."""
    limits: dict[str, float] | None = parts.get("calibration", "thresholds")
    if limits is None:
        runs = [pool.submit(clean_task, size.reference, seed, n, size.clean_events) for n in range(size.clean_runs)]
        limits = thresholds([future.result() for future in runs], size.clean_events)
        parts.keep("calibration", "thresholds", limits)
        print(f"calibrated on {size.clean_runs} clean runs", file=sys.stderr, flush=True)
    return limits


def measure(
    size: Size,
    seed: int,
    jobs: int,
    *,
    streams: Sequence[str],
    cases: Sequence[str],
    rivals: RivalEnvironment | None,
    calibrate: bool,
    out: Path | None = None,
) -> dict[str, Any]:
    """Every task in a process of its own pool, results in the order of their numbers. `out`: a folder for finished parts."""
    alarms: dict[str, list[Future[Any]]] = defaultdict(list)
    found: dict[str, list[Future[Any]]] = defaultdict(list)
    place = {case.name: i for i, case in enumerate(CASES)}
    asked = {"seed": seed, "size": asdict(size), "calibrated": calibrate, "rivals": rivals is not None}
    parts = Parts(out, {"code": code_digest(), **asked})
    of_streams: dict[str, Any] = {name: parts.get("stream", name) for name in streams}
    of_cases: dict[str, Any] = {name: parts.get("case", name) for name in cases}
    began = time.monotonic()
    with ProcessPoolExecutor(jobs, initializer=one_thread) as pool:
        limits = calibration(pool, parts, size, seed) if calibrate else {}
        for name in [name for name in streams if of_streams[name] is None]:
            pairs = range(size.pairs_of(BY_NAME[name]))
            alarms[name] = [pool.submit(alarm_task, name, size, seed, n, limits) for n in pairs]
        for name in [name for name in cases if of_cases[name] is None]:
            found[name] = [pool.submit(delay_task, place[name], size, seed, n, limits) for n in range(size.delays)]
        for name in list(alarms):
            tasks = [future.result() for future in alarms.pop(name)]
            if rivals is not None:
                tasks = [task | more for task, more in zip(tasks, rivals.alarms(name, size, seed), strict=True)]
            of_streams[name] = report.alarm_report(name, tasks)
            parts.keep("stream", name, of_streams[name])
            print(f"{name}: {len(tasks)} pairs, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        for name in list(found):
            delays = [future.result() for future in found.pop(name)]
            if rivals is not None:
                delays = [task | more for task, more in zip(delays, rivals.delays(name, size, seed), strict=True)]
            of_cases[name] = delays
            parts.keep("case", name, delays)
            print(f"{name}: {len(delays)} seeds, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    against = report.against_calibrated(of_cases, seed)
    return {
        "commit": commit(),
        "seed": seed,
        "size": asdict(size),
        "false_alarms": of_streams,
        "delays": {name: report.delay_report(tasks, seed) for name, tasks in of_cases.items()},
        "geometric_mean_of_six": report.means_over_six(of_cases, seed),
        "thresholds": limits,
        "against_calibrated": against,
        "conditions": report.conditions(of_streams, size.settings) + report.rival_conditions(against, size.delays),
        "left_out": {} if rivals is not None else LEFT_OUT,
    }


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few pairs and seeds")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--pairs", type=int, help="(reference, stream) pairs of every stream")
    parser.add_argument("--seeds", type=int, help="seeds of every change")
    parser.add_argument("--reference", type=int, help="rows of every reference; 288,000, sixty days, without it")
    parser.add_argument(
        "--budget", type=float, help="of the smaller setting: one false alarm in so many events; 100,000 without it"
    )
    parser.add_argument("--stream", action="append", choices=list(BY_NAME), help="only these; also without any --case")
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES])
    parser.add_argument("--six", action="store_true", help="only the six changes of normal data")
    parser.add_argument(
        "--rivals", type=Path, help="folder for an environment with nannyml and evidently; made if absent"
    )
    parser.add_argument(
        "--no-calibration", action="store_true", help="without the rivals whose thresholds are calibrated"
    )
    parser.add_argument(
        "--out", type=Path, help="folder for finished streams and changes, which a later run takes over"
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    if args.budget and not args.no_calibration:
        parser.error("rivals are calibrated to a budget of 100,000 events: --budget needs --no-calibration")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    size = QUICK if args.quick else FULL
    size = replace(
        size,
        pairs=args.pairs or size.pairs,
        delays=args.seeds or size.delays,
        reference=args.reference or size.reference,
        budget=args.budget or size.budget,
    )
    chosen = args.stream or args.case or args.six
    streams = args.stream or ([] if chosen else list(BY_NAME))
    cases = args.case or (list(SIX) if args.six else [] if chosen else [case.name for case in CASES])
    rivals = RivalEnvironment(args.rivals) if args.rivals else None
    result = measure(
        size,
        args.seed,
        args.jobs,
        streams=streams,
        cases=cases,
        rivals=rivals,
        calibrate=not args.no_calibration,
        out=args.out,
    )
    print(report.show(result), file=sys.stderr if args.json else sys.stdout)
    if args.json:
        print(json.dumps(result))
    failed = [c for c in result["conditions"] if c.get("enough", size.pairs >= FULL.pairs) and c["holds"] is False]
    for condition in failed:
        print(f"does not hold: {condition}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
