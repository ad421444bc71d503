"""A pass of the load test over many windows is `update` of each in turn, bit for bit: verdicts, evidence and state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from detectors.reference import ReferenceProfile
from detectors.sequential import batch_kernel as at
from detectors.sequential import default_kernel as kernel
from detectors.sequential.default import DetectionSettings, DetectorState, direction, prepare, start, update
from detectors.sequential.rank_layer import ADAPTIVE_SHARE, BETS
from detectors.sequential.windows_auto import reserve
from detectors.verdict import Level, Verdict
from load_tests.detection import passes
from load_tests.detection.contenders import factors, judge, live_judged, live_windows, reference_of
from load_tests.detection.streams import BY_NAME, EVENT_MS, Rows

REFERENCE, LIVE = 40_000, 30_000
SETTINGS = DetectionSettings(0.03, 2e3 * EVENT_MS, 1, auto=True)  # so small a budget that both layers cross often


def in_force(profile: ReferenceProfile, settings: DetectionSettings) -> DetectionSettings:
    """As the product tells its detectors."""
    return replace(settings, reserve=reserve(profile.windows.auto, profile.targets[0].group))


class Product:
    """The product's own way, window by window, with what is carried until `update` is called."""

    def __init__(self, profile: ReferenceProfile, settings: DetectionSettings) -> None:
        self.prepared = prepare(profile.targets[0], in_force(profile, settings), profile.id)
        self.state: DetectorState = start(self.prepared)
        self.least = profile.windows.size_min
        self.verdicts: list[Verdict] = []
        self.last: list[int] = []
        self.floats: list[Any] = []
        self.weights: list[float] = []

    def run(self, windows: passes.Windows) -> None:
        carried, weight, held = np.zeros(windows.counts.shape[1], np.int64), 0.0, 0.0
        starts = windows.start_ms.tolist()
        previous, began = 2 * starts[0] - starts[1], None
        for counts, start_ms, end_ms, last in zip(
            windows.counts, starts, windows.end_ms.tolist(), windows.last.tolist(), strict=True
        ):
            weight += start_ms - previous
            previous, began = start_ms, start_ms if began is None else began
            carried += counts
            if carried.sum() < self.least:
                continue
            verdict = update(self.prepared, self.state, carried.copy(), weight, began, end_ms)
            held += weight if verdict.level is not Level.INSUFFICIENT_DATA else 0.0
            carried[:] = 0
            weight, began = 0.0, None
            if verdict.judged:
                self.verdicts.append(verdict)
                self.last.append(last)
                self.floats.append(self.state.flat[0].copy())
                self.weights.append(held)
                held = 0.0


def rows_of(name: str, seed: int = 1) -> tuple[Rows, Rows]:
    rows = BY_NAME[name].draw(np.random.default_rng(seed), REFERENCE + LIVE)
    live = rows.cut(REFERENCE, REFERENCE + LIVE)
    if BY_NAME[name].numeric:  # a change half way: latches, excursions and resets in every run
        live.value[LIVE // 2 : LIVE // 2 + 3_000] += 0.6
    else:
        live.value[LIVE // 2 : LIVE // 2 + 3_000 : 9] = "e"
    return rows.cut(0, REFERENCE), live


def same(product: Product, steps: passes.Steps, state: DetectorState) -> None:
    assert len(steps.last) == len(product.verdicts)
    assert steps.last.tolist() == product.last
    assert steps.weight.tolist() == product.weights
    np.testing.assert_array_equal(steps.floats, np.array(product.floats))
    for i, said in enumerate(product.verdicts):
        out, told, found = steps.out[i], steps.told[i].tolist(), steps.found[i].tolist()
        assert bool(out[kernel.FIRES]) == (said.level is Level.ALARM)
        assert (out[kernel.RANK_CROSSED] > 0, out[kernel.TUBE_CROSSED] > 0) == (said.rank_crossed, said.tube_crossed)
        assert steps.log10[i].tolist() == [said.rank_log10, said.tube_log10]
        assert (told[kernel.SHIFT], direction(told)) == (said.shift, said.direction)
        assert (found[at.EVENTS], bool(found[at.THINNED])) == (said.events, said.thinned)
        assert found[at.SINCE] == (kernel.NEVER if said.since_ms is None else said.since_ms)
        assert product.prepared.statistics[int(out[kernel.LEADING])] == said.statistic
    for name, array in product.state.arrays().items():
        np.testing.assert_array_equal(state.arrays()[name], array, err_msg=name)


def both(profile: ReferenceProfile, live: Rows, settings: DetectionSettings) -> tuple[Product, passes.Steps]:
    windows = live_windows(profile, live)
    product = Product(profile, settings)
    product.run(windows)
    whole = passes.judged(profile, windows)
    detector = passes.Pass(prepare(profile.targets[0], in_force(profile, settings), profile.id))
    steps = detector.take(whole, floats=True)
    state = detector.states[0]
    # what a pass does not touch: the time that still waits for a window that is judged
    state.pending_weight = product.state.pending_weight
    if profile.targets[0].group > 1:
        for name in ("pending", "pending_meta"):
            state.whole(name)[...] = product.state.whole(name)
    same(product, steps, state)
    return product, steps


BY_CLOCK, OFF_CLOCK = "season 1 sd, traffic x10", "normal, traffic x10 in 37 hours"
STREAMS = ("normal", "categories", BY_CLOCK, OFF_CLOCK, "missing .1 %", "AR .5", "flights: delay, shuffled")


@pytest.mark.parametrize("name", STREAMS)
def test_a_pass_is_update_of_every_window(name: str) -> None:
    reference, live = rows_of(name)
    profile = reference_of(reference)
    product, _ = both(profile, live, SETTINGS)
    levels = {said.level for said in product.verdicts}
    assert levels >= {Level.OK, Level.ALARM}, "there is something to compare"
    assert (profile.targets[0].strata is not None) == (name in {BY_CLOCK, OFF_CLOCK})
    run = judge(profile, live_judged(profile, live), SETTINGS)
    assert run.alarms == [
        e for e, said in zip(product.last, product.verdicts, strict=True) if said.level is Level.ALARM
    ]
    assert run.rank_crossings == [
        e for e, said in zip(product.last, product.verdicts, strict=True) if said.rank_crossed
    ]
    assert run.tube_crossings == [
        e for e, said in zip(product.last, product.verdicts, strict=True) if said.tube_crossed
    ]
    half = LIVE // 2
    until = judge(profile, live_judged(profile, live), SETTINGS, after=half)
    assert until.alarms == [e for e in run.alarms if e < half] + [e for e in run.alarms if e >= half][:1]


def test_what_is_too_small_is_carried_collected_or_lost_as_update_has_it() -> None:
    reference, live = rows_of("normal")
    profile = reference_of(reference)
    target = profile.targets[0]
    for group, least, size_min in ((1, 60, 20), (1, 1, 22), (3, 1, 20), (2, 50, 120)):
        changed = replace(target, group=group, size_min=size_min)
        windows = replace(profile.windows, size_min=least)
        product, _ = both(replace(profile, targets=(changed,), windows=windows), live, SETTINGS)
        assert len(product.verdicts) < len(live_windows(profile, live)), "something was not judged alone"


def test_large_windows_are_thinned() -> None:
    reference, live = rows_of("normal")
    profile = reference_of(reference)
    changed = replace(profile.targets[0], size_max=profile.targets[0].size_median)
    product, _ = both(replace(profile, targets=(changed,)), live, SETTINGS)
    assert 0.2 < np.mean([said.thinned for said in product.verdicts]) < 0.8


def test_more_windows_than_sixteen_bits_and_calls_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state goes on from call to call; counts of live ranks carry where `update` carries them."""
    reference, live = rows_of("normal")
    profile = reference_of(reference)
    _, steps = both(profile, live, SETTINGS)
    whole = live_judged(profile, live)
    detector = passes.Pass(prepare(profile.targets[0], SETTINGS, profile.id))
    parts = [detector.take(whole.cut(first, first + 97)) for first in range(0, len(whole), 97)]
    np.testing.assert_array_equal(np.concatenate([part.log10 for part in parts]), steps.log10)
    wide = Product(profile, SETTINGS)
    detector = passes.Pass(prepare(profile.targets[0], SETTINGS, profile.id))
    for state in (wide.state, detector.states[0]):
        state.clock[kernel.INDEX] = kernel.SEEN_CARRY - 500
        state.seen_low[...] = kernel.SEEN_CARRY - 50
    wide.run(live_windows(profile, live))
    same(wide, detector.take(whole, floats=True), detector.states[0])
    assert wide.state.seen.max() > kernel.SEEN_CARRY


@pytest.mark.parametrize("name", ["normal", "categories"])
def test_factors_are_those_that_the_evidence_grew_by(name: str) -> None:
    reference, live = rows_of(name)
    profile = reference_of(reference)
    settings = replace(SETTINGS, budget_ms=1e9 * EVENT_MS)
    product, steps = both(profile, live.cut(0, LIVE // 2), settings)
    found = factors(product.prepared, steps)
    assert found.set_back == 0
    # evidence from the state, statistic by statistic
    state, expected = start(product.prepared), []
    for floats in product.floats:
        state.flat[0][:] = floats
        fixed, adaptive = state.real("evidence").astype(float), state.real("adaptive").astype(float)
        values, begin = [], 0
        for j, bets in enumerate(BETS if len(fixed) else ()):
            own = fixed[begin : begin + len(bets)]
            begin += len(bets)
            values.append((1 - ADAPTIVE_SHARE) * own.mean() + ADAPTIVE_SHARE * adaptive[j].mean())
        expected.append([*values, *state.real("share_evidence").astype(float).mean(axis=1)])
    after = np.array(expected)
    weight = np.array(product.weights)[:, None]
    before = np.concatenate([np.zeros_like(after[:1]), after[:-1]])
    np.testing.assert_allclose(found.before, (before / weight).ravel(), rtol=1e-12)
    np.testing.assert_allclose(found.factor, (after / (before + weight)).ravel(), rtol=1e-12)
    # and it is the evidence that the verdicts tell, on the scale of the thresholds
    thresholds = product.prepared.rank[-1]
    told = [10.0 ** (said.rank_log10 - said.threshold_log10) for said in product.verdicts]
    np.testing.assert_allclose((after / thresholds).max(axis=1), told, rtol=1e-5)


def test_a_crossing_sets_back_and_has_no_factor() -> None:
    reference, live = rows_of("normal")
    profile = reference_of(reference)
    run = judge(profile, live_judged(profile, live), SETTINGS, factor=True)
    assert run.factor is not None
    assert run.factor.set_back >= len(run.rank_crossings) > 0
    assert len(run.factor.factor) == len(run.factor.before)
    assert np.isfinite(run.factor.factor).all()


def test_no_window_no_verdict() -> None:
    reference, live = rows_of("normal")
    profile = reference_of(reference)
    run = judge(profile, live_judged(profile, live).until(0), SETTINGS)
    assert (run.alarms, run.rank_crossings, run.tube_crossings) == ([], [], [])
