"""Laws of every registered online detector, whichever they are: a new one is held to them by being registered."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import detectors
from detectors.online import restored, started
from detectors.online.series import VALUE_MAX
from detectors.registry import Family, Reads
from detectors.verdict import BadSettings, BadState, BadValue

NAMES = [name for name, entry in detectors.REGISTRY.items() if entry.family is Family.ONLINE]
NUMBERS = [name for name in NAMES if detectors.REGISTRY[name].reads is Reads.NUMBERS]
ERRORS = [name for name in NAMES if detectors.REGISTRY[name].reads is Reads.ERRORS]
every = pytest.mark.parametrize("name", NAMES)

#: Ways to be told something else than the default, so that every branch of a state is written and read back.
OTHERS = {
    "adwin": {"delta": 0.05, "clock": 3, "max_buckets": 3, "min_window_length": 2, "grace_period": 4},
    "page_hinkley": {"mode": "down", "threshold": 5.0, "min_instances": 5, "alpha": 0.99},
    "kswin": {"alpha": 0.05, "stat_size": 20, "seed": 7},
    "cusum": {"mean": 0.2, "deviation": 0.7, "slack": 0.25, "threshold": 4.0},
    "ewma": {"mean": 0.2, "deviation": 0.7, "weight": 0.3, "limit": 2.0},
    "ddm": {"warm_start": 5, "warning_threshold": 1.0, "drift_threshold": 1.5},
    "eddm": {"warm_start": 5, "alpha": 0.95, "beta": 0.8},
    "hddm_a": {"drift_confidence": 0.05, "warning_confidence": 0.2, "sides": "both"},
    "hddm_w": {"drift_confidence": 0.05, "warning_confidence": 0.2, "lambda_val": 0.2, "sides": "both"},
    "fhddm": {"sliding_window_size": 50, "confidence_level": 0.01, "short_window_size": 15},
}
TOLD = [pytest.param(name, {}, id=f"{name}-default") for name in NAMES] + [
    pytest.param(name, OTHERS[name], id=f"{name}-other") for name in OTHERS
]


def series(name, seed, before=700, after=300):
    """Normal values that jump by 3 deviations and back, or errors whose rate goes from 10 to 70 % and back."""
    rng = np.random.default_rng(seed)
    moved = np.repeat([False, True, False], [before, after, before])
    if name in ERRORS:
        return (rng.random(len(moved)) < np.where(moved, 0.7, 0.1)).astype(int).tolist()
    return (rng.normal(size=len(moved)) + 3.0 * moved).tolist()


def written_and_read(detector):
    """As a snapshot would: JSON text and raw bytes, nothing else."""
    header, arrays = detector.sections()
    raw = {name: (array.dtype.str, array.tobytes()) for name, array in arrays.items()}
    assert all(array.dtype != object and array.ndim == 1 for array in arrays.values())
    return json.loads(json.dumps(header, allow_nan=False)), {
        name: np.frombuffer(data, dtype) for name, (dtype, data) in raw.items()
    }


def same(one, other):
    (header, arrays), (other_header, other_arrays) = one.sections(), other.sections()
    return (
        header == other_header
        and arrays.keys() == other_arrays.keys()
        and all(arrays[name].tobytes() == other_arrays[name].tobytes() for name in arrays)
    )


def largest_value(name):
    return getattr(detectors.load(name), "VALUE_MAX", VALUE_MAX)


def run(detector, values):
    return [detector.update(value) for value in values]


def test_every_one_is_here() -> None:
    assert set(OTHERS) <= set(NAMES) == set(NUMBERS) | set(ERRORS)
    assert len(NAMES) >= 10


# ---- saved and read back --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "told"), TOLD)
def test_one_that_is_restored_goes_on_bit_for_bit(name: str, told) -> None:
    values = series(name, 1)
    straight = started(name, told)
    expected = run(straight, values)
    assert any(step.fired for step in expected)
    every_k = 37 if name != "kswin" else 149
    through = started(name, told)
    found = []
    for i, value in enumerate(values):
        after_an_alarm = i > 0 and expected[i - 1].fired
        if i % every_k == 0 or after_an_alarm:
            through = restored(name, *written_and_read(through), told)
        found.append(through.update(value))
    assert found == expected
    assert same(through, straight)


@every
def test_what_was_saved_does_not_change_with_the_detector(name: str) -> None:
    values = series(name, 2)
    detector = started(name)
    run(detector, values[:150])
    header, arrays = detector.sections()
    before = {key: array.copy() for key, array in arrays.items()}
    after = run(detector, values[150:400])
    assert all((arrays[key] == before[key]).all() for key in before)
    twice = [restored(name, header, arrays) for _ in range(2)]
    assert run(twice[0], values[150:400]) == after
    assert run(twice[1], values[150:400]) == after


@every
def test_a_state_of_something_else_is_refused(name: str) -> None:
    detector = started(name)
    run(detector, series(name, 3)[:150])
    header, arrays = detector.sections()
    other = next(x for x in NAMES if x != name)
    for wrong in ({"detector": other}, {"version": 0}, {"more": 1}):
        with pytest.raises(BadState):
            restored(name, header | wrong, arrays)
    if name in OTHERS:
        with pytest.raises(BadState, match="expected"):
            restored(name, header, arrays, OTHERS[name])
    for key, array in arrays.items():
        for damaged in (
            {k: v for k, v in arrays.items() if k != key},
            arrays | {key: np.append(array, np.repeat(array, 20_000))},
            arrays | {key: array.astype(np.complex64)},
            arrays | {key: array.reshape(1, -1)},
        ):
            with pytest.raises(BadState):
                restored(name, header, damaged)
        if array.dtype == np.float64:
            with pytest.raises(BadState):
                restored(name, header, arrays | {key: np.full_like(array, np.nan)})
    assert same(restored(name, header, arrays), detector)


# ---- what is refused ------------------------------------------------------------------------------------------------

NOT_NUMBERS = (
    math.nan,
    math.inf,
    -math.inf,
    2e100,
    -2e100,
    10**400,
    None,
    "1",
    True,
    np.float64("nan"),
    np.array([1.0]),
)
NOT_ERRORS = (math.nan, math.inf, -math.inf, 2, -1, 0.5, 1e-9, None, "1", np.float64("nan"), np.array([1.0]))


@every
def test_what_is_not_finite_or_out_of_range_is_refused_with_the_state_untouched(name: str) -> None:
    values = series(name, 4)
    clean, troubled = started(name), started(name)
    for i, value in enumerate(values[:400]):
        if i % 50 == 0:
            for bad in NOT_NUMBERS if name in NUMBERS else NOT_ERRORS:
                with pytest.raises(BadValue, match=f"^{name}: "):
                    troubled.update(bad)
            assert same(troubled, clean)
        assert troubled.update(value) == clean.update(value)


@every
def test_numbers_of_numpy_are_read_as_pythons(name: str) -> None:
    values = series(name, 5)[:150]
    kind = np.bool_ if name in ERRORS else np.float64
    assert run(started(name), [kind(value) for value in values]) == run(started(name), values)


@pytest.mark.parametrize("name", NUMBERS)
def test_the_largest_values_leave_everything_finite_and_larger_ones_are_refused(name: str) -> None:
    rng = np.random.default_rng(6)
    detector = started(name)
    largest = largest_value(name)
    with pytest.raises(BadValue, match=rf"^{name}: .* is outside \+-1e\+"):
        detector.update(math.nextafter(largest, math.inf))
    for value in np.where(rng.random(300) < 0.5, -largest, largest).tolist():
        assert math.isfinite(detector.update(value).statistic)
    restored(name, *written_and_read(detector))


def test_a_name_of_another_family_is_refused() -> None:
    for name in ("psi", "nothing"):
        with pytest.raises(BadSettings, match=f"{name!r} is no online detector; known here: adwin, cusum"):
            started(name)


# ---- what they find -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "constant"),
    [(name, x) for name in ERRORS for x in (0, 1)]
    + [(name, x) for name in NUMBERS for x in (0.0, 0.1, -123.456, 1 / 3, -1 / 3)],
)
def test_a_constant_series_never_fires(name: str, constant: float) -> None:
    """1/3: that share of the largest value that is taken, whose sums are rounded."""
    constant = constant * largest_value(name) if abs(constant) == 1 / 3 else constant
    told = {"mean": constant} if hasattr(detectors.card(name).parameters(), "mean") else {}  # at what they were told
    detector = started(name, told)
    length = 20_000 if name != "kswin" else 400
    assert not any(step.fired for step in run(detector, [constant] * length))


def test_rounding_makes_adwin_fire_on_a_long_constant_series_of_large_values() -> None:
    """River's sums are rounded anew with each value, and its bound is in the unit of the values."""
    detector = started("adwin")
    assert any(step.fired for step in run(detector, [1e9 / 3] * 42_000))


CALM = {  # told so that a series of 700 values without drift is calm
    "page_hinkley": {"delta": 0.5, "threshold": 20.0},
    "kswin": {"alpha": 1e-6},
    "cusum": {"threshold": 8.0},
    "ewma": {"limit": 5.0},
    "ddm": {"warm_start": 200, "drift_threshold": 5.0},
    "eddm": {"warm_start": 60, "beta": 0.6},
}
CALM_BY_DEFAULT = {"adwin", "hddm_a", "hddm_w", "fhddm"}
NOISY = {"eddm"}  # nothing calms it that lets it find something


@every
@pytest.mark.parametrize("seed", range(5))
def test_a_gross_jump_is_found_and_not_before_it(name: str, seed: int) -> None:
    steps = run(started(name, CALM.get(name)), series(name, seed + 10))
    fired = [i for i, step in enumerate(steps) if step.fired]
    calm = name in {*CALM, *CALM_BY_DEFAULT} - NOISY  # others may promise nothing at their defaults
    assert any(700 <= i < (800 if calm else 1000) for i in fired)
    assert not calm or fired[0] >= 700


@every
def test_after_an_alarm_it_begins_from_nothing(name: str) -> None:
    values = series(name, 20)
    detector = started(name)
    first = next(i for i, value in enumerate(values) if detector.update(value).fired)
    fresh = started(name)
    assert run(detector, values[first + 1 : first + 400]) == run(fresh, values[first + 1 : first + 400])


@every
def test_the_order_of_values_is_part_of_what_it_knows(name: str) -> None:
    """So states of parts of a series cannot be put together to the state of the whole, and there is no such function."""
    values = series(name, 21)[:300]
    one, other = started(name), started(name)
    run(one, values)
    run(other, values[::-1])
    assert not same(one, other)
    assert not hasattr(detectors.load(name), "merge")
