"""The state machine of one incident, window by window: when it is told again, and when it is over."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import monitor_kit as kit

from stream.alerts import STEP_MARGIN, STEP_UNITS, AlertBook, Kind, Observation, Transition

OPENED, ESCALATED, RESOLVED = Transition.OPENED, Transition.ESCALATED, Transition.RESOLVED


def told(*windows: float | None, resolve_after: int = 3) -> list[Transition | None]:
    """What each window changes. A number: its effect, outside; None: a quiet one. The first one has an alarm."""
    book = AlertBook(kit.model_settings(resolve_after=resolve_after))
    changes = [
        book.observe(
            Observation(
                Kind.FEATURE_DRIFT,
                "s",
                "all",
                "amount",
                20 * at,
                0,
                at == 0,
                quiet=effect is None,
                effect=effect or 0.0,
            )
        )
        for at, effect in enumerate(windows)
    ]
    return [None if change is None else change[0] for change in changes]


def test_it_is_over_after_quiet_windows_in_a_row_and_not_after_so_many_in_all() -> None:
    assert told(1.0, None, None, None) == [OPENED, None, None, RESOLVED]
    assert told(1.0, None, None, 1.0, None, None, None) == [OPENED, *[None] * 5, RESOLVED]


def test_it_escalates_after_two_windows_in_a_row_past_a_step_and_not_after_two_in_all() -> None:
    assert told(1.0, 6.0, 6.0) == [OPENED, None, ESCALATED]
    assert told(1.0, 6.0, 1.0, 6.0, 6.0) == [OPENED, None, None, None, ESCALATED]


@pytest.mark.parametrize("step", STEP_UNITS[:3])
def test_an_effect_just_below_a_step_waits_for_the_one_behind_it(step: float) -> None:
    below, clear = 0.9 * step, 0.99 * step / STEP_MARGIN
    assert told(below, step, step, step) == [OPENED, None, None, None]
    assert told(below, 2 * step, 2 * step) == [OPENED, None, ESCALATED]
    assert told(clear, step, step) == [OPENED, None, ESCALATED]


def test_an_effect_that_jumps_over_steps_is_told_once_and_not_once_a_step() -> None:
    assert told(1.0, 45.0, 45.0, 45.0, 45.0, 45.0, 45.0) == [OPENED, None, ESCALATED, None, None, None, None]
    assert told(1.0, 45.0, 45.0, 80.0, 80.0) == [OPENED, None, ESCALATED, None, ESCALATED]
