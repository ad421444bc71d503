"""Replays seeds of the simulator: `python tests/simulation/run.py --seed 17`, `--seeds 0..199`, `--without hold`."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from kits import ToyKit
from real_kit import RealKit
from recount import verdict
from world import Rules, World

KITS = {"toy": ToyKit, "real": RealKit}
STEPS = {"toy": 1_500, "real": 450}


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
    world = World(seed, KITS[kit], rules)
    world.run(steps or STEPS[kit], emphasis)
    world.drain()
    return verdict(world), world


def main() -> int:
    names = [field.name for field in fields(Rules)]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--seeds", default="0..19", help="first..last")
    parser.add_argument("--kit", default="toy", choices=sorted(KITS))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--emphasis", choices=sorted(EMPHASIS), help="make frequent what this rule is for")
    parser.add_argument("--without", choices=names, action="append", default=[], help="leave a rule out")
    arguments = parser.parse_args()
    first, last = (int(part) for part in arguments.seeds.split(".."))
    seeds = [arguments.seed] if arguments.seed is not None else range(first, last + 1)
    rules = Rules(**dict.fromkeys(arguments.without, False))
    counts: Counter[str] = Counter()
    crashes: Counter[tuple[str, str]] = Counter()
    red: Counter[str] = Counter()
    began = time.perf_counter()
    for seed in seeds:
        try:
            wrong, world = simulate(seed, arguments.kit, rules, arguments.steps, EMPHASIS.get(arguments.emphasis))
        except Exception as error:
            if not arguments.without:
                print(f"seed {seed}")
                raise
            wrong, world = [repr(error)], None
        if world is not None:
            counts += world.counts
            crashes += world.crashes
        if wrong:
            red["seeds"] += 1
            red["findings"] += len(wrong)
            print(f"seed {seed}: {len(wrong)} wrong, first: {wrong[0][:300]}")
    print(
        f"{len(seeds)} runs in {time.perf_counter() - began:.1f} s, without {arguments.without or 'nothing'}; red: {dict(red)}"
    )
    print(dict(sorted(counts.items())))
    for (step, where), number in sorted(crashes.items()):
        print(f"  {step:26} {where:14} {number}")
    return 1 if red else 0


if __name__ == "__main__":
    raise SystemExit(main())
