"""The ring of a series' last windows against the plain lists that it stands for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stream.series_history import HISTORY_WINDOWS, History

TARGETS = 3


def rows(windows: int) -> tuple[list[int], list[int], np.ndarray]:
    random = np.random.default_rng(windows)
    return (
        [1000 * each for each in range(windows)],
        random.integers(1, 1000, windows).tolist(),
        random.normal(size=(windows, TARGETS)),
    )


def added(history: History, windows: int, first: int = 0) -> None:
    starts, events, shifts = rows(windows)
    for place in range(first, windows):
        history.add(starts[place], events[place], shifts[place])


def is_the_end_of(history: History, windows: int) -> None:
    starts, events, shifts = rows(windows)
    starts, events, shifts = starts[-HISTORY_WINDOWS:], events[-HISTORY_WINDOWS:], shifts[-HISTORY_WINDOWS:]
    assert history.starts.tolist() == starts
    assert history.events.tolist() == events
    assert history.shifts.dtype == np.float32
    assert history.shifts.flags.c_contiguous
    assert np.array_equal(history.shifts, shifts.astype(np.float32))
    for target in range(TARGETS):
        found = history.shifts_of(target)
        assert found.dtype == np.float64
        assert np.array_equal(found, history.shifts[:, target])


@pytest.mark.parametrize(
    "windows", [1, 7, HISTORY_WINDOWS - 1, HISTORY_WINDOWS, HISTORY_WINDOWS + 1, 3 * HISTORY_WINDOWS + 5]
)
def test_it_has_the_last_windows_in_their_order(windows: int) -> None:
    history = History(TARGETS)
    added(history, windows)
    is_the_end_of(history, windows)


def test_without_a_window_it_is_empty() -> None:
    history = History(TARGETS)
    assert len(history.starts) == len(history.events) == len(history.shifts_of(0)) == 0
    assert history.shifts.shape == (0, TARGETS)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("saved", [5, HISTORY_WINDOWS, HISTORY_WINDOWS + 40])
def test_a_saved_one_goes_on_as_if_it_had_not_been_saved(saved: int, dtype: type[np.floating]) -> None:
    windows = saved + 50
    starts, events, shifts = rows(windows)
    last = slice(max(saved - HISTORY_WINDOWS, 0), saved)
    history = History(TARGETS)
    added(history, 9)
    history.load(np.array(starts[last]), np.array(events[last]), shifts[last].astype(dtype))
    added(history, windows, saved)
    is_the_end_of(history, windows)


def test_what_it_gives_is_not_written_by_the_next_window() -> None:
    history = History(TARGETS)
    added(history, HISTORY_WINDOWS)
    before: list[NDArray[Any]] = [history.starts, history.events, history.shifts]
    kept = [each.tolist() for each in before]
    history.add(-1, -1, np.full(TARGETS, 9.0))
    for was, now in zip(kept, before, strict=True):
        assert was == now.tolist()
