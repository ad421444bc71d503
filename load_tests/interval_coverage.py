"""How often the intervals that the stream says hold the truth: over simulated windows whose truth is known.

    python -m load_tests.interval_coverage --windows 1000 --seed 0

Rows are drawn (load_tests/interval_worlds.py), summed up as collectors do, and the records of performance, disparity, comparison
and pairs are read back: every metric, of several sizes and base rates. The truth is the value of a window of two million rows. With
1,000 windows the coverage of a true 95 % interval has a standard error of .7 points, with 10,000 of .2; what is promised is 93 to
97 %. The command fails if a cell is outside, if one that has rows enough says no interval, or if none is judged.

Of hundreds of cells some are outside by chance: of 1,000 windows a cell that holds 95 % is with a probability of .003 to .005. So a
world with a cell outside is measured again, over four times as many windows of the next seed (independent ones), and such a cell
is judged by all five together; the line has all three figures. The windows that brought it there count as well, so that what is
at the edge is rather found outside than inside. What was inside is not measured again.

In brackets, and not judged: metrics whose entry says that their interval is too high or too wide; values of fewer than 30 rows of
the kind that they are made of (positive labels, say), where no comparison is made either; what fewer than half of the windows
have enough rows for; and what load_tests/interval_worlds.py names with a reason (`stated`). `said` is the share of windows that
have an interval, where that is not all.
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
ENOUGH = 1.5  # times the rows that an interval needs, on average: nearly every window has them
AGAIN = 4  # times as many windows, where a cell is outside
STATED = frozenset(name for name, m in METRICS.items() if "too high" in m.interval or "too wide" in m.interval)


@dataclass(slots=True)
class Cell:
    """One quantity of one world: windows with an interval, those whose interval is above or below the truth, rows it is made of.
    `rows`: that a window has on average, as the truth says.
    """

    truth: float | None
    said: int = 0
    above: int = 0
    below: int = 0
    used: int = 0
    stated: bool = False
    rows: float = 0.0

    def with_more(self, other: Cell) -> Cell:
        """Of both runs; each has compared with a truth of its own."""
        said, used = self.said + other.said, self.used + other.used
        return Cell(self.truth, said, self.above + other.above, self.below + other.below, used, self.stated, self.rows)

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
    cells = {name: Cell(said.value, stated=name in world.stated, rows=said.used / scale) for name, said in truth}
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
    return not (few or cell.stated) and name.partition(",")[0] not in STATED


def silent(name: str, cell: Cell, windows: int) -> bool:
    """Whether a cell says too seldom what it has rows enough to say: what is not said cannot be wrong."""
    promised = not cell.stated and name.partition(",")[0] not in STATED
    return promised and cell.rows >= ENOUGH * LEAST_EVENTS and cell.said < LEAST_SAID * windows


def holds(cell: Cell, windows: int) -> bool:
    """Whether its share is what is promised; of fewer than 1,000 windows with two standard errors more."""
    slack = 2.0 * (0.05 * 0.95 / windows) ** 0.5 if windows < 1000 else 0.0
    return PROMISED[0] - slack <= cell.share <= PROMISED[1] + slack


def outside(cells: Cells, windows: int) -> list[str]:
    """Names of those that are judged and do not hold."""
    return [name for name, cell in cells.items() if judged(name, cell, windows) and not holds(cell, windows)]


@dataclass(frozen=True, slots=True)
class Found:
    """What a world has shown. `again`: of the cells that were outside, what was measured then; `broken`: names of those that are
    outside with both together; `silent`: of those that say nothing.
    """

    cells: Cells
    again: Cells
    broken: tuple[str, ...]
    silent: tuple[str, ...]


def found_of(world: World, seed: int, windows: int) -> Found:
    """Cells of one world, and of those outside what AGAIN times as many windows of the next seed say."""
    cells = coverage(world, seed, windows)
    names = outside(cells, windows)
    more = coverage(world, seed + 1, AGAIN * windows) if names else {}
    again = {name: more[name] for name in names}
    total = (1 + AGAIN) * windows
    broken = tuple(name for name in names if not holds(cells[name].with_more(again[name]), total))
    return Found(cells, again, broken, tuple(name for name, cell in cells.items() if silent(name, cell, windows)))


def _line(name: str, found: Found, windows: int) -> str:
    cell, again = found.cells[name], found.again.get(name)
    figure = f" {cell.share:.3f} " if judged(name, cell, windows) else f"({cell.share:.3f})"
    said = "" if cell.said == windows else f"  said {cell.said / windows:.2f}"
    more = "" if again is None else f"  again {again.share:.3f}, together {cell.with_more(again).share:.3f}"
    wrong = "  outside" if name in found.broken else "  silent" if name in found.silent else ""
    return f"  {name:44} {figure}{said}{more}{wrong}"


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
    found: dict[str, Found] = {}
    for world in chosen:
        each = found[str(world)] = found_of(world, args.seed, args.windows)
        if not args.json:
            print(f"{world} rows")
            for name in each.cells:
                print(_line(name, each, args.windows), flush=True)
    promised = [
        name for each in found.values() for name, cell in each.cells.items() if judged(name, cell, args.windows)
    ]
    count, again = sum(len(each.broken) for each in found.values()), sum(len(each.again) for each in found.values())
    quiet = sum(len(each.silent) for each in found.values())
    if args.json:
        print(json.dumps({"windows": args.windows, "seed": args.seed, **_told(found)}))
    else:
        more = f"; silent: {quiet}" if quiet else ""
        print(
            f"{count} of {len(promised)} cells outside {PROMISED[0]:g} to {PROMISED[1]:g}; measured again: {again}{more}"
        )
    return int(count > 0 or quiet > 0 or not promised)


def _told(found: dict[str, Found]) -> dict[str, object]:
    """Shares by world and name: of the first run, of the second where there was one, and of both; and what is outside."""
    return {
        "coverage": {world: {name: cell.share for name, cell in x.cells.items()} for world, x in found.items()},
        "again": {world: {name: cell.share for name, cell in x.again.items()} for world, x in found.items()},
        "together": {
            world: {name: x.cells[name].with_more(cell).share for name, cell in x.again.items()}
            for world, x in found.items()
        },
        "outside": {world: list(x.broken) for world, x in found.items()},
        "silent": {world: list(x.silent) for world, x in found.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
