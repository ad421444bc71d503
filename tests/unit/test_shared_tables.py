"""What detectors of many targets have in common is kept once, and what they keep at all is small."""

from __future__ import annotations

import gc
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
import detector_kits as kit

from detectors.reference import NotWritableError, slim, to_sections
from detectors.sequential import default_tables as tables
from detectors.sequential.categories import BET_VALUES, bet_codes
from detectors.sequential.default import DetectionSettings, prepare, start
from detectors.sequential.default_kernel import judge

SETTINGS = DetectionSettings(0.05, 1e9)


def _arrays(prepared):
    found = [*prepared.scores, prepared.tables.score_mean, prepared.share_p, *prepared.rank, *prepared.tube]
    return [each for each in found if isinstance(each, np.ndarray)]


def test_equal_arrays_are_one_and_other_shapes_or_kinds_are_not():
    first, second = tables.shared(np.zeros((2, 3))), tables.shared(np.zeros((2, 3)))
    assert first is second
    assert not first.flags.writeable
    assert tables.shared(np.zeros((3, 2))) is not first
    assert tables.shared(np.zeros((2, 3), np.int64)) is not first


def test_an_array_that_nobody_uses_is_forgotten():
    gc.collect()  # what tests before this one left
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


def test_a_category_keeps_little_more_than_400_bytes_of_bets():
    prepared = prepare(kit.profile("categories").targets[0], SETTINGS, "a")
    bets = prepared.rank[5]
    assert bets.dtype == np.uint8
    assert bets.nbytes <= 432 * len(prepared.share_p)


def test_a_bet_is_kept_to_half_a_step_of_its_ratio():
    bets = np.concatenate([[0.0, 1e-9, 1e9], np.geomspace(2.0**-12, 2.0**19, 5_000)])
    kept = BET_VALUES[bet_codes(bets)]
    assert kept[0] == kept[1] == 0.0
    assert kept[2] == BET_VALUES[-1]
    assert np.abs(np.log2(kept[3:] / bets[3:])).max() <= 1 / 16 + 1e-12


def test_a_slim_profile_judges_as_the_whole_one_and_cannot_be_written():
    whole = kit.profile("categories")
    small = slim(whole)
    assert small.id == whole.id
    assert small.targets[0].order.nbytes * 2 == whole.targets[0].order.nbytes
    counts = kit.windows(whole.targets[0], kit.DRAWS["categories"](np.random.default_rng(1), 4_000))
    assert kit.run(*kit.ready(small), counts) == kit.run(*kit.ready(whole), counts)
    with pytest.raises(NotWritableError):
        to_sections(small)


def test_a_slim_profile_needs_no_kernel_of_its_own():
    """A worker warms up with slim profiles; the one that it has learnt itself is whole, and comes in mid-stream."""
    whole = kit.profile("normal")
    counts = kit.windows(whole.targets[0], np.zeros(40))
    kit.run(*kit.ready(slim(whole)), counts)
    compiled = list(judge.signatures)
    kit.run(*kit.ready(whole), counts)
    assert judge.signatures == compiled


def test_a_profile_that_is_still_being_learnt_can_be_written():
    whole = kit.profile("categories")
    cuts = replace(whole, windows=replace(whole.windows, count=0))
    assert slim(cuts) is cuts
    assert to_sections(slim(cuts))[0]["id"] == whole.id


def test_a_numeric_target_keeps_less_than_3500_bytes_besides_its_reference():
    prepared = prepare(slim(kit.profile("normal")).targets[0], SETTINGS, "a")
    target = prepared.target
    bets = prepared.rank[3]  # of the values: the same for all references of so many windows
    of_reference = {id(each) for each in (target.order, target.tie, target.first, target.counts, bets)}
    size = sum(each.nbytes for each in {id(a): a for a in _arrays(prepared)}.values() if id(each) not in of_reference)
    state = start(prepared)
    assert size < 3_500
    assert sum(each.nbytes for each in (state._floats, state._integers, state.seen_low, state.seen_high)) < 3_500
    assert not len(state.arrays()["pending"])
