"""How often the intervals that the stream says hold the truth: over simulated windows whose truth is known.

    python -m load_tests.interval_coverage --windows 1000 --seed 0

Rows are drawn (load_tests/interval_worlds.py), summed up as collectors do, and the records of performance, disparity, comparison
and pairs are read back: every metric, of several sizes and base rates. The truth is the value of a window of two million rows. With
1,000 windows the coverage of a true 95 % interval has a standard error of .7 points, with 10,000 of .2; what is promised is 93 to
97 %. The command fails if a cell is outside.

In brackets, and not judged: metrics whose entry says that their interval is too high or too wide; values of fewer than 30 rows of
the kind that they are made of (positive labels, say), where no comparison is made either; and what fewer than half of the windows
have enough rows for. `said` is the share of windows that have an interval, where that is not all.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detectors.performance import METRICS
from detectors.performance.disparity import LEAST_EVENTS
from load_tests.interval_worlds import WORLDS, World

TRUTH_ROWS = 2_000_000
PROMISED = (0.93, 0.97)
LEAST_SAID = 0.5
STATED = frozenset(name for name, m in METRICS.items() if "too high" in m.interval or "too wide" in m.interval)


@dataclass(slots=True)
class Cell:
    """One quantity of one world: windows with an interval, those whose interval is above or below the truth, rows it is made of."""

    truth: float | None
    said: int = 0
    above: int = 0
    below: int = 0
    used: int = 0

    @property
    def share(self) -> float:
        """Of the windows with an interval, those that hold the truth."""
        return 1.0 - (self.above + self.below) / max(self.said, 1)


Cells = dict[str, Cell]


def coverage(world: World, seed: int, windows: int) -> Cells:
    """Name of what is said -> its cell. Deterministic in (world, seed, window)."""
    number = WORLDS.index(world)
    scale = max(TRUTH_ROWS // sum(world.rows), 1)
    truth = world.draw(np.random.default_rng([seed, number, 0]), tuple(scale * rows for rows in world.rows))
    cells = {name: Cell(said.value) for name, said in truth}
    for window in range(windows):
        for name, said in world.draw(np.random.default_rng([seed, number, 1 + window]), world.rows):
            cell = cells[name]
            if said.low is None or said.high is None or cell.truth is None:
                continue
            cell.said += 1
            cell.used += said.used
            cell.above += said.low > cell.truth
            cell.below += said.high < cell.truth
    return cells


def judged(name: str, cell: Cell, windows: int) -> bool:
    """Whether a cell is promised to hold."""
    few = cell.used < LEAST_EVENTS * max(cell.said, 1) or cell.said < LEAST_SAID * windows
    return not few and name.partition(",")[0] not in STATED


def outside(cells: Cells, windows: int) -> list[str]:
    """Names of those outside of what is promised; of fewer than 1,000 windows by more than two standard errors."""
    slack = 2.0 * (0.05 * 0.95 / windows) ** 0.5 if windows < 1000 else 0.0
    return [
        name
        for name, cell in cells.items()
        if judged(name, cell, windows) and not PROMISED[0] - slack <= cell.share <= PROMISED[1] + slack
    ]


def _line(name: str, cell: Cell, windows: int, broken: Sequence[str]) -> str:
    figure = f" {cell.share:.3f} " if judged(name, cell, windows) else f"({cell.share:.3f})"
    said = "" if cell.said == windows else f"  said {cell.said / windows:.2f}"
    return f"  {name:44} {figure}{said}{'  outside' if name in broken else ''}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--world", action="append", help="beginning of the names of those to run; none = all")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    chosen = [world for world in WORLDS if not args.world or str(world).startswith(tuple(args.world))]
    if not chosen:
        parser.error(f"--world: none of {', '.join(map(str, WORLDS))}")
    if not args.json:
        print(f"share of {args.windows} windows whose 95 % interval holds the truth, seed {args.seed}")
    found: dict[str, Cells] = {}
    broken: dict[str, list[str]] = {}
    for world in chosen:
        cells = found[str(world)] = coverage(world, args.seed, args.windows)
        bad = broken[str(world)] = outside(cells, args.windows)
        if not args.json:
            print(f"{world} rows")
            for name, cell in cells.items():
                print(_line(name, cell, args.windows, bad), flush=True)
    promised = [name for cells in found.values() for name, cell in cells.items() if judged(name, cell, args.windows)]
    count = sum(map(len, broken.values()))
    if args.json:
        shares = {world: {name: cell.share for name, cell in cells.items()} for world, cells in found.items()}
        print(json.dumps({"windows": args.windows, "seed": args.seed, "coverage": shares, "outside": broken}))
    else:
        print(f"{count} of {len(promised)} cells outside {PROMISED[0]:g} to {PROMISED[1]:g}")
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main())
