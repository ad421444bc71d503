"""What detectors of many targets have in common is kept once, and what they keep at all is small."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
import detector_kits as kit

from detectors.sequential import default_tables as tables
from detectors.sequential.default import DetectionSettings, prepare, start

SETTINGS = DetectionSettings(0.05, 1e9)


def _arrays(prepared):
    found = [*prepared.scores, prepared.score_mean, prepared.share_p, *prepared.rank, *prepared.tube]
    return [each for each in found if isinstance(each, np.ndarray)]


def test_equal_arrays_are_one_and_other_shapes_or_kinds_are_not():
    first, second = tables.shared(np.zeros((2, 3))), tables.shared(np.zeros((2, 3)))
    assert first is second
    assert not first.flags.writeable
    assert tables.shared(np.zeros((3, 2))) is not first
    assert tables.shared(np.zeros((2, 3), np.int64)) is not first


def test_an_array_that_nobody_uses_is_forgotten():
    before = len(tables._SHARED)
    kept = tables.shared(np.arange(977.0))
    assert len(tables._SHARED) == before + 1
    del kept
    gc.collect()
    assert len(tables._SHARED) == before


def test_a_second_target_of_the_same_shape_adds_nothing_but_its_own_reference():
    target = kit.profile("normal").targets[0]
    one, other = prepare(target, SETTINGS, "a"), prepare(target, SETTINGS, "b")
    own = [a for a, b in zip(_arrays(one), _arrays(other), strict=True) if a is not b]
    assert sum(each.nbytes for each in own) == 0


def test_a_numeric_target_keeps_less_than_6_kb_besides_its_reference():
    prepared = prepare(kit.profile("normal").targets[0], SETTINGS, "a")
    target = prepared.target
    bets = prepared.rank[3]  # of the values: the same for all references of so many windows
    of_reference = {id(each) for each in (target.order, target.tie, target.first, target.counts, bets)}
    size = sum(each.nbytes for each in {id(a): a for a in _arrays(prepared)}.values() if id(each) not in of_reference)
    state = start(prepared)
    assert size < 6_000
    assert sum(each.nbytes for each in state.arrays().values()) < 7_000
    assert not len(state.arrays()["pending"])
