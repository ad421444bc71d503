"""Replays seeds of the simulator: `python tests/simulation/run.py --seed 17`, `--seeds 0..199 --jobs 2`, `--without hold`.

`make simulate` runs thousands of all kits; every seed is independent of the others and of their order.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent))

from feedback_kit import FeedbackKit
from kits import ToyKit
from real_kit import RealKit
from recount import verdict
from wide_kit import LEARN_EVENTS, LEARN_WINDOWS, WideKit
from world import Rules, World

from stream import learning, state_writer

FAR_FLOOR_BYTES = 6_000  # the states are small: let their blobs and claims fall behind as large ones do
KITS = {"toy": ToyKit, "real": RealKit, "feedback": FeedbackKit, "wide": WideKit}
STEPS = {"toy": 1_500, "real": 450, "feedback": 450, "wide": 1_200}


CHANCES = {"wide": {"jump": 0.0001}}
"""A clock that jumps makes most events late or of the future: too few are left to learn a reference from."""


EMPHASIS: dict[str, dict[str, float]] = {
    "claim_check": {"race": 0.04, "act_zombie": 0.6, "end_zombie": 0.0},
}
"""What must happen often for a rule to matter: two writers at once."""


def simulate(
    seed: int,
    kit: str,
    rules: Rules = Rules(),  # noqa: B008
    steps: int | None = None,
    emphasis: Mapping[str, float] | None = None,
) -> tuple[list[str], World]:
    """Run one seed; what is wrong, and the world as it ended."""
    with (
        mock.patch.object(state_writer, "FAR_FLOOR_BYTES", FAR_FLOOR_BYTES),
        mock.patch.object(learning, "CUTS_EVENTS_MIN", LEARN_EVENTS // 2),
        mock.patch.object(learning, "WINDOWS_MIN", LEARN_WINDOWS),
    ):
        world = World(seed, KITS[kit], rules)
        world.run(steps or STEPS[kit], CHANCES.get(kit, {}) | dict(emphasis or {}))
        world.drain()
        return verdict(world), world


@dataclass(frozen=True, slots=True)
class Task:
    """One seed to run; `tolerant`: an exception is a finding (a rule is left out), not the end."""

    seed: int
    kit: str
    rules: Rules
    steps: int | None
    emphasis: str | None
    tolerant: bool


def run_task(task: Task) -> tuple[int, list[str], Counter[str], Counter[tuple[str, str]]]:
    """Seed, what is wrong, counts, crashes by place."""
    try:
        wrong, world = simulate(task.seed, task.kit, task.rules, task.steps, EMPHASIS.get(task.emphasis or ""))
    except Exception as error:
        if not task.tolerant:
            print(f"seed {task.seed}", flush=True)
            raise
        return task.seed, [repr(error)], Counter(), Counter()
    return task.seed, wrong, world.counts, world.crashes


def results(tasks: list[Task], jobs: int) -> Iterator[tuple[int, list[str], Counter[str], Counter[tuple[str, str]]]]:
    if jobs == 1:
        yield from map(run_task, tasks)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(run_task, tasks, chunksize=4)


def main() -> int:
    names = [field.name for field in fields(Rules)]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--seeds", default="0..19", help="first..last")
    parser.add_argument("--kit", default="toy", choices=sorted(KITS))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--emphasis", choices=sorted(EMPHASIS), help="make frequent what this rule is for")
    parser.add_argument("--without", choices=names, action="append", default=[], help="leave a rule out")
    given = parser.parse_args()
    first, last = (int(part) for part in given.seeds.split(".."))
    seeds = [given.seed] if given.seed is not None else range(first, last + 1)
    rules = Rules(**dict.fromkeys(given.without, False))
    tasks = [Task(seed, given.kit, rules, given.steps, given.emphasis, bool(given.without)) for seed in seeds]
    counts: Counter[str] = Counter()
    crashes: Counter[tuple[str, str]] = Counter()
    red: Counter[str] = Counter()
    began = time.perf_counter()
    for seed, wrong, seen, places in results(tasks, given.jobs):
        counts += seen
        crashes += places
        if wrong:
            red["seeds"] += 1
            red["findings"] += len(wrong)
            print(f"seed {seed}: {len(wrong)} wrong, first: {wrong[0][:300]}")
    without = f"without {', '.join(given.without)}" if given.without else "nothing left out"
    print(
        f"{len(tasks)} runs of the {given.kit} kit in {time.perf_counter() - began:.1f} s, {without}; red: {dict(red)}"
    )
    print(dict(sorted(counts.items())))
    for (step, where), number in sorted(crashes.items()):
        print(f"  {step:26} {where:14} {number}")
    return 1 if red else 0


if __name__ == "__main__":
    raise SystemExit(main())
