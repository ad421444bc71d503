"""The default detector's rank layer alone, for a series of one number a window that learns from its own first windows.

Guarantee: E[alarms in [0, T]] <= T / budget for a series, once it has learnt, when its windows, the learnt ones among them, are
exchangeable as pairs of (number, rows): the first windows choose the centre, the others and all live ones are then numbers made by
one fixed function, and their ranks are uniform given the past (rank_layer.py). The gate `tolerance` can only remove alarms.
Nothing is proven where the rows of a window change with time: the statistics below are on one scale for windows of different
sizes, exactly for shares with windows no smaller than the learnt ones, nearly for other numbers. Hours of the day are not told apart:
what a season does within the learnt windows widens their ranks, what it does beyond them is a change.

Input     a Number: of a share its counts, else value and standard error; the window's weight (as in default.py)
          share: log odds of the binomial tail (categories.count_score), thinned to the largest learnt window; else (value - centre)
          / standard error; both against learnt windows, ties by the hash of the window
State     explicit arrays, about 2.5 KB; while it learns 40 bytes a window                     Cost  about 15 us a window
Refuses   BadNumber, BadWeight; the state is as before. Fewer rows than the smallest learnt window: the caller carries
Source    Shin, Ramdas, Rinaldo 2023, "E-detectors"; rank_layer.py
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.sequential.rank_alone_kernel import FIELDS, SCORE_MAX, UNIT_MIN, judge, score
from detectors.sequential.rank_layer import (
    ADAPTIVE_DECAY,
    LOCATION_BETS,
    kept_ranks,
    order_statistics,
    rank_counts,
    shift_bets,
)
from detectors.verdict import BadSettings, BadState, BadWeight, DetectorError

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

VERSION = 1
LEARNING_MIN = 5  # windows; of fewer than 50 no evidence comes that a month's budget asks for
FIRST_SHARE = 0.15  # of the learnt windows: they choose the centre
LEAST_ROWS = 20  # of any window that is learnt or judged: below it a number's standard error says little
RECENT = 8  # windows that say what is now
BETS = len(LOCATION_BETS)
LOG_BET_MIN = -5.0  # nats that one window can take from the running gain of a bet
HELD_ENDS = 1.0  # nats: the change that was found holds while more of them are left
NOT_COUNTED = -1
NEVER = -(1 << 62)


class BadNumber(DetectorError):  # noqa: N818 - named after what is wrong
    """A number that is not finite, of no rows, or without a standard error."""


class Number(NamedTuple):
    """One window. hits: of `rows` that count towards a share, NOT_COUNTED = it is no share; unit: standard error, of others."""

    value: float
    rows: int
    unit: float
    hits: int = NOT_COUNTED

    @classmethod
    def share(cls, hits: int, rows: int) -> Number:
        return cls(hits / rows if rows else 0.0, rows, 0.0, hits)


class Level(StrEnum):
    """CARRIED: too few rows, the caller adds the next window's. LEARNING, JUDGED: the window was taken."""

    LEARNING = "learning"
    CARRIED = "carried"
    JUDGED = "judged"


@dataclass(frozen=True, slots=True)
class Settings:
    """budget_ms: A of this series, all shares and cells in it. learning: windows. tolerance: standard deviations of one row.
    least_rows: of any window that is learnt or judged.
    """

    budget_ms: float
    learning: int = 200
    tolerance: float = 0.0
    least_rows: int = LEAST_ROWS

    def __post_init__(self) -> None:
        """Raises BadSettings."""
        if not (math.isfinite(self.budget_ms) and self.budget_ms > 0.0):
            raise BadSettings(f"budget {self.budget_ms!r} ms is not positive")
        if self.learning < LEARNING_MIN:
            raise BadSettings(f"learning {self.learning} windows, at least {LEARNING_MIN}")
        if not (math.isfinite(self.tolerance) and self.tolerance >= 0.0):
            raise BadSettings(f"tolerance {self.tolerance!r} is negative or not finite")

    @property
    def first(self) -> int:
        """Windows that choose the centre."""
        return round(FIRST_SHARE * self.learning)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One window.

    log10, threshold_log10   evidence before any reset, and what it has to reach, both of weights in ms; -300 = nothing
    crossed   the evidence reached it; alarm: and what is now is further than the tolerance from the centre
    shift     what is now (the last windows of the excursion) minus the centre, in standard deviations of one row
    quiet     what was found last no longer holds
    since_ms  start of the first window of the excursion, None = there is none
    """

    level: Level
    log10: float = -300.0
    threshold_log10: float = 0.0
    crossed: bool = False
    alarm: bool = False
    shift: float = 0.0
    now: float = 0.0
    quiet: bool = True
    since_ms: int | None = None


class Tables(NamedTuple):
    """Bets of `windows` learnt windows: kept ranks, alpha F64[r + 1], bets and their logarithms F64[r + 1, BETS]."""

    rank: I64
    alpha: F64
    bets: F64
    log_bets: F64


@lru_cache(maxsize=64)
def tables(windows: int) -> Tables:
    """The same for all series that have learnt as many windows."""
    rank = kept_ranks(windows)
    bets = shift_bets(rank, windows, LOCATION_BETS)
    with np.errstate(divide="ignore"):
        log_bets = np.maximum(np.log(bets), LOG_BET_MIN)
    return Tables(rank, rank_counts(rank, windows), bets, np.ascontiguousarray(log_bets))


class RankAlone:
    """State of one series. Build with `RankAlone(settings)` or `from_sections`.

    learnt      F64[k, 4]: value, rows, unit, hits of the windows that are being learnt; empty once `complete`
    centre, scale   of the first windows: what is normal, and the standard deviation of one row; NaN until then
    deviations  F32[m]: (value - centre) / standard error of the windows that were ranked, for whoever sets limits by them
    recent      F64[<= RECENT, 3]: start, value, rows of the last judged windows
    """

    __slots__ = (
        "adaptive", "centre", "deviations", "evidence", "gain", "gain_start", "held", "learnt", "memory", "order", "recent",
        "rows_max", "rows_min", "scale", "seen", "settings", "starts", "tie", "windows",
    )  # fmt: skip

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.learnt: F64 = np.zeros((0, 4))
        self.starts: list[tuple[float, float]] = []  # statistic and tie of the ranked windows while learning
        self.centre = self.scale = math.nan
        self.windows = 0  # ranked ones, 0 until complete
        self.rows_min = self.rows_max = 0
        nothing = np.zeros(0, np.float32)
        self.order, self.tie, self.deviations = nothing, nothing, nothing
        self._fresh(0)
        self.seen: I64 = np.zeros(0, np.int64)
        self.recent: F64 = np.zeros((0, 3))

    def _fresh(self, bins: int) -> None:
        self.evidence: F32 = np.zeros(BETS, np.float32)
        self.adaptive: F32 = np.zeros(len(ADAPTIVE_DECAY), np.float32)
        self.memory: F32 = np.zeros((len(ADAPTIVE_DECAY), bins), np.float32)
        self.gain: F64 = np.zeros(BETS)
        self.gain_start: I64 = np.full(BETS, NEVER, np.int64)
        self.held: F64 = np.array([0.0, -1.0])

    @property
    def complete(self) -> bool:
        """Whether it has learnt, and judges."""
        return self.windows > 0

    @property
    def progress(self) -> int:
        """Windows learnt so far."""
        return self.settings.learning if self.complete else len(self.learnt)

    def restart(self, settings: Settings) -> None:
        """New settings: what was learnt and the counts of ranks stay, the evidence begins anew."""
        self.settings = settings
        self._fresh(len(self.seen))

    def least_rows(self) -> int:
        return max(self.settings.least_rows, self.rows_min)

    def standard_error(self, number: Number) -> float:
        """Of a window, as far as the centre is known: of a share the binomial's at the centre."""
        if number.hits == NOT_COUNTED:
            return max(number.unit, UNIT_MIN * max(abs(number.value), abs(self.centre), 1e-300))
        return math.sqrt(self.centre * (1.0 - self.centre) / number.rows)

    def update(self, number: Number, weight_ms: float, start_ms: int, seed: int) -> Verdict:
        """One window. `seed`: uniforms.window_seed of the series and the window. Raises BadNumber, BadWeight."""
        if not (weight_ms >= 0.0 and math.isfinite(weight_ms)):
            raise BadWeight(f"weight {weight_ms!r} ms")
        if number.rows < self.least_rows():
            return Verdict(Level.CARRIED)
        counted = number.hits != NOT_COUNTED
        if not math.isfinite(number.value) or not (counted or (math.isfinite(number.unit) and number.unit >= 0.0)):
            raise BadNumber(f"{number} cannot be judged")
        if counted and not 0 <= number.hits <= number.rows:
            raise BadNumber(f"{number.hits} of {number.rows} rows")
        if not self.complete:
            self._learn(number, seed)
            return Verdict(Level.LEARNING)
        return self._judge(number, weight_ms, start_ms, seed)

    def _learn(self, number: Number, seed: int) -> None:
        self.learnt = np.vstack([self.learnt, [number.value, number.rows, number.unit, number.hits]])
        first = self.settings.first
        if len(self.learnt) <= first:
            if len(self.learnt) == first:
                self._centre()
            return
        pair = score(number.value, number.unit, number.rows, number.hits, self.centre, 0, np.uint64(seed))
        self.starts.append(pair)
        if len(self.learnt) >= self.settings.learning:
            self._complete()

    def _centre(self) -> None:
        """Of shares all rows together, of others the median window: one window of nonsense must not choose it."""
        value, rows, unit, hits = self.learnt.T
        if hits[0] != NOT_COUNTED:
            self.centre = float((hits.sum() + 0.5) / (rows.sum() + 1.0))
            self.scale = math.sqrt(self.centre * (1.0 - self.centre))
        else:
            self.centre, self.scale = float(np.median(value)), float(np.median(unit * np.sqrt(rows)))

    def _complete(self) -> None:
        pairs = np.array(self.starts)
        ranked = self.learnt[self.settings.first :]
        self.windows = len(pairs)
        rank = tables(self.windows).rank
        values, ties = order_statistics(
            pairs[:, 0].astype(np.float32).astype(np.float64), pairs[:, 1].astype(np.float32).astype(np.float64), rank
        )
        self.order, self.tie = values.astype(np.float32), ties.astype(np.float32)
        self.rows_min, self.rows_max = int(ranked[:, 1].min()), int(ranked[:, 1].max())
        numbers = [Number(row[0], int(row[1]), row[2], int(row[3])) for row in ranked.tolist()]
        found = [(each.value - self.centre) / self.standard_error(each) for each in numbers]
        self.deviations = np.clip(found, -SCORE_MAX, SCORE_MAX).astype(np.float32)
        self.seen = np.zeros(len(rank) + 1, np.int64)
        self._fresh(len(rank) + 1)
        self.learnt, self.starts = np.zeros((0, 4)), []

    def _judge(self, number: Number, weight_ms: float, start_ms: int, seed: int) -> Verdict:
        settings, made, out = self.settings, tables(self.windows), np.empty(FIELDS)
        statistic, tie = score(
            number.value, number.unit, number.rows, number.hits, self.centre, self.rows_max, np.uint64(seed)
        )
        judge(
            statistic, tie, float(weight_ms), start_ms, float(settings.budget_ms), self.order, self.tie,
            made.alpha, made.bets, made.log_bets, ADAPTIVE_DECAY,
            self.evidence, self.adaptive, self.memory, self.seen, self.gain, self.gain_start, self.held, out,
        )  # fmt: skip
        ratio, crossed, leading = out.tolist()
        self.recent = np.vstack([self.recent[1 - RECENT :], [start_ms, number.value, number.rows]])
        place = int(leading)
        since_ms = int(self.gain_start[place]) if self.gain[place] > 0.0 else None
        now, shift = self._effect(since_ms)
        threshold = math.log10(settings.budget_ms)
        return Verdict(
            level=Level.JUDGED,
            log10=max(math.log10(ratio) + threshold, -300.0) if ratio > 0.0 else -300.0,
            threshold_log10=threshold,
            crossed=crossed > 0.0,
            alarm=crossed > 0.0 and abs(shift) > settings.tolerance,
            shift=shift,
            now=now,
            quiet=not crossed and bool(self.held[0] < HELD_ENDS),
            since_ms=since_ms,
        )

    def _effect(self, since_ms: int | None) -> tuple[float, float]:
        """(mean value, in rows, of the last windows since the excursion began, its distance from the centre)."""
        chosen = self.recent[self.recent[:, 0] >= since_ms] if since_ms is not None else self.recent[-1:]
        now = float((chosen[:, 1] * chosen[:, 2]).sum() / chosen[:, 2].sum())
        moved = now - self.centre
        return now, moved / self.scale if self.scale > 0.0 else math.copysign(SCORE_MAX, moved) if moved else 0.0

    # ---- snapshot ---------------------------------------------------------------------------------------------------

    def to_sections(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """(header of JSON values, named arrays): a restored one goes on bit for bit."""
        header = {"version": VERSION, "windows": self.windows, "rows": [self.rows_min, self.rows_max]}
        arrays: dict[str, NDArray[Any]] = {"normal": np.array([self.centre, self.scale])}
        if not self.complete:
            pairs = np.array(self.starts).reshape(-1, 2)
            return header, arrays | {"learnt": self.learnt.ravel(), "pairs": pairs.ravel()}
        small = (self.order, self.tie, self.evidence, self.adaptive, self.memory.ravel())
        return header, arrays | {
            "floats": np.concatenate(small),
            "deviations": self.deviations.copy(),
            "integers": np.concatenate((self.seen, self.gain_start)),
            "gains": np.concatenate((self.gain, self.held)),
            "recent": self.recent.ravel(),
        }

    @classmethod
    def from_sections(
        cls, settings: Settings, header: Mapping[str, Any], sections: Mapping[str, NDArray[Any]]
    ) -> RankAlone:
        """Inverse of `to_sections`. A series that was still learning goes on with the number of windows that the settings ask for
        now; where others choose the centre then, it begins anew. Raises BadState.
        """
        if header.get("version") != VERSION:
            raise BadState(f"state of version {header.get('version')}; this is version {VERSION}")
        found = cls(settings)
        try:
            found.centre, found.scale = (float(each) for each in sections["normal"])
            if not header["windows"]:
                found._load_learning(sections)
                return found
            found.windows = header["windows"]
            found.rows_min, found.rows_max = header["rows"]
            found._load_judging(sections)
        except (KeyError, ValueError) as error:
            raise BadState(f"state of a series of numbers: {error}") from None
        return found

    def _load_learning(self, sections: Mapping[str, NDArray[Any]]) -> None:
        self.learnt = sections["learnt"].astype(np.float64).reshape(-1, 4)
        self.starts = [(float(a), float(b)) for a, b in sections["pairs"].reshape(-1, 2)]
        chosen = len(self.learnt) - len(self.starts)
        if chosen != min(len(self.learnt), self.settings.first):  # other settings: learnt anew, from the next window on
            self.learnt, self.starts, self.centre, self.scale = np.zeros((0, 4)), [], math.nan, math.nan
        elif len(self.learnt) == self.settings.first:  # with other settings these may not have been all that choose it
            self._centre()
        elif self.starts and len(self.learnt) >= self.settings.learning:
            self._complete()

    def _load_judging(self, sections: Mapping[str, NDArray[Any]]) -> None:
        ranks = len(tables(self.windows).rank)
        sizes = (ranks, ranks, BETS, len(ADAPTIVE_DECAY), len(ADAPTIVE_DECAY) * (ranks + 1))
        parts = np.split(_exactly(sections["floats"], sum(sizes), np.float32), np.cumsum(sizes)[:-1])
        self.order, self.tie, self.evidence, self.adaptive = parts[:4]
        self.memory = parts[4].reshape(len(ADAPTIVE_DECAY), ranks + 1)
        self.deviations = _exactly(sections["deviations"], self.windows, np.float32)
        whole = _exactly(sections["integers"], ranks + 1 + BETS, np.int64)
        self.seen, self.gain_start = whole[: ranks + 1].copy(), whole[ranks + 1 :].copy()
        gains = _exactly(sections["gains"], BETS + 2, np.float64)
        self.gain, self.held = gains[:BETS].copy(), gains[BETS:].copy()
        self.recent = sections["recent"].astype(np.float64).reshape(-1, 3)


def _exactly(section: NDArray[Any], length: int, dtype: type[np.generic]) -> NDArray[Any]:
    if section.dtype != dtype or section.shape != (length,):
        raise BadState(f"section of {section.dtype}{section.shape}, not {np.dtype(dtype)}({length},)")
    return section.copy()
