"""Sentences of alerts, word by word."""

from __future__ import annotations

import pytest

from detectors.verdict import Change
from stream.wording import Movement, chance, clock, instant, movement, percent, period, quantity, since

TEN = 1_795_342_800_000  # 2026-11-22T10:20:00Z


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (0.001, "0.1 %"), (0.0005, "0.05 %"), (0.031, "3.1 %"), (0.04, "4 %"), (0.11, "11 %"), (0.0996, "10 %"),
     (0.5, "50 %"), (0.996, "99.6 %"), (1, "100 %"), (0.00002, "0.002 %")],
)  # fmt: skip
def test_percent(share, text):
    assert percent(share) == text


@pytest.mark.parametrize(
    ("time_ms", "text"),
    [(30 * 86_400_000, "30 days"), (3.5 * 86_400_000, "3.5 days"), (86_400_000, "1 day"), (43_200_000, "12 hours"),
     (60_000, "1 minute"), (500, "0.5 seconds")],
)  # fmt: skip
def test_period(time_ms, text):
    assert period(time_ms) == text


@pytest.mark.parametrize(("value", "text"), [(0.61, "0.6"), (1.0, "1"), (2.34, "2.3"), (12.3, "12"), (0.052, "0.052")])
def test_quantity(value, text):
    assert quantity(value) == text


def test_times():
    assert instant(TEN) == "2026-11-22T10:20:00Z"
    assert instant(TEN + 120) == "2026-11-22T10:20:00.120Z"
    assert clock(TEN - 900_000, TEN) == "10:05"
    assert clock(TEN - 5000, TEN) == "10:19:55"
    assert clock(TEN - 86_400_000, TEN) == "2026-11-21 10:20"
    assert since(TEN - 900_000, TEN, 5120) == "since 10:05; 5,120 events"
    assert chance(30 * 86_400_000) == "one such alarm in 30 days is what chance may do"


def moved(**fields):
    values = {
        "target": "amount", "shift": 0.61, "direction": "up", "share": "",
        "std_ratio": 1.2, "changes": (Change("200 to 350", 0.04, 0.11),),
    }  # fmt: skip
    return movement(Movement(**values | fields))


def test_movements():
    assert moved() == "amount moved up by about 0.6 reference standard deviations"
    assert moved(direction="down", shift=-1.02) == "amount moved down by about 1 reference standard deviations"
    assert (
        moved(direction="spread", std_ratio=1.53) == "amount spread out: standard deviation 1.5 times the reference's"
    )
    assert (
        moved(direction="narrow", std_ratio=0.5)
        == "amount became narrower: standard deviation 0.5 times the reference's"
    )
    unconfirmed = "amount changed its shape: share of 200 to 350 rose from 4 % to 11 %"
    assert moved(direction="spread", std_ratio=None) == unconfirmed
    assert moved(direction="narrow", std_ratio=1.2) == unconfirmed
    assert moved(direction="mixed") == "amount changed its shape: share of 200 to 350 rose from 4 % to 11 %"
    gone = (Change("200 to 350", 0.04, 0.11), Change("missing", 0.001, 0.03))
    assert moved(share="missing", changes=gone) == "missing values of amount rose from 0.1 % to 3 %"


def test_categories():
    def country(*changes, **fields):
        return moved(target="country", share=changes[0].bin if changes else "DE", changes=changes, **fields)

    assert country(Change("DE", 0.04, 0.11)) == "share of 'DE' in country rose from 4 % to 11 %"
    assert country(Change("DE", 0.11, 0.04)) == "share of 'DE' in country fell from 11 % to 4 %"
    unseen = country(Change("__unseen__", 0, 0.005))
    assert unseen == "values of country that the reference does not know rose from 0 % to 0.5 %"
    assert country(Change("__other__", 0.02, 0.03)) == "rare values of country rose from 2 % to 3 %"
    assert country() == "share of 'DE' in country changed"
