"""Seeds of the stages with feedback under faults: every pane of performance is what an oracle makes of the whole logs.

A seed that fails is replayed by `python tests/simulation/run.py --kit feedback --seed N`.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from run import simulate

SEEDS, CHUNK = 24, 8
seen: Counter[str] = Counter()


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_seeds_are_right(first: int) -> None:
    for seed in range(first, first + CHUNK):
        wrong, world = simulate(seed, "feedback")
        assert not wrong, f"python tests/simulation/run.py --kit feedback --seed {seed}\n" + "\n".join(wrong[:5])
        seen.update(world.counts)


def test_the_seeds_have_seen_everything() -> None:
    for stream in ("clicks", "labels"):
        for what in ("consumed", "late", "future", "matched", "orphan"):
            assert seen[f"{stream} {what}"] > SEEDS, (stream, what, seen)
    for what in ("labels negative", "labels absurd", "labels unknown_label", "ticks", "switches", "torn"):
        assert seen[what] > SEEDS / 8, (what, seen)
    for what in ("feedback ticks", "labels carried", "carried panes"):
        assert seen[what] > SEEDS, (what, seen)
    assert seen["performance panes"] > 100 * SEEDS
    for what in ("performance windows", "disparity", "comparison", "provisional", "shares"):
        assert seen[what] > 10 * SEEDS, (what, seen)
    assert seen["performance alerts"] > SEEDS
    for what in ("promised alerts", "alerts of errors"):
        assert seen[what] > SEEDS / 8, (what, seen)
    assert seen["promotions"] > 0
    assert seen["windows of pairs"] > SEEDS
