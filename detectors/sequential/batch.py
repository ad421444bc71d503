"""Many targets judged in one call: `default.update` of each, bit for bit, at a tenth of its cost.

What a window needs of a numeric target's reference (masses, edges and bets of the tube, 8 kB) is kept from window to window while
that takes less than KEPT_BYTES_MAX in the process; with more targets it is made anew for each window, some 60 us each, as memory is
dearer than a share of a CPU then.
"""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.sequential import batch_kernel as at
from detectors.sequential import default_kernel as kernel
from detectors.sequential.categories import BET_VALUES, RANK_BETS
from detectors.sequential.default import LOG10_NOTHING, direction, largest_changes
from detectors.sequential.default_state import DetectorState
from detectors.sequential.default_tables import Prepared
from detectors.sequential.target_work import work_size
from detectors.sequential.uniforms import WindowSeeds
from detectors.sequential.verdicts import CODES, LEVELS, Verdicts
from detectors.verdict import BadCounts, BadWeight, Level, Verdict

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]

DECODED_FOR = 8  # targets with the same bets on their shares: 7 kB of a numeric one
WINDOWS_NEVER = 1 << 62
KEPT_BYTES_MAX = 16 << 20  # 3,300 numeric targets
LATCHED = np.array([CODES[level] for level in (Level.OK, Level.CROSSED_RANK, Level.CROSSED_TUBE)], np.uint8)


class Room:
    """How many bytes the batches of the process would like to keep. `there_is`: they may."""

    def __init__(self, most: int = KEPT_BYTES_MAX) -> None:
        self._most = most
        self._wanted = 0

    def ask(self, owner: object, size: int) -> None:
        """For as long as the owner lives."""
        self._wanted += size
        weakref.finalize(owner, self._leave, size)

    def _leave(self, size: int) -> None:
        self._wanted -= size

    @property
    def there_is(self) -> bool:
        return self._wanted <= self._most


ROOM = Room()


class _Window(NamedTuple):
    """Of each target: what is judged, how many events that is, its time and first start, whether it is judged, and if not, why."""

    counts: I64
    total: I64
    weight: F64
    start_ms: I64
    act: U8
    insufficient: NDArray[np.bool_]


class Batch:
    """Targets with their states, in one order. States must not be replaced: make a new batch for others.

    Addresses of all arrays are taken once: `prepared` and `states` are kept here, and the arrays of a state are never made anew
    but `seen_high`, which is looked after below.
    """

    def __init__(self, prepared: Sequence[Prepared], states: Sequence[DetectorState], room: Room = ROOM) -> None:
        self.prepared, self.states, self._room = list(prepared), list(states), room
        width = [each.target.binning.bins + 2 for each in self.prepared]
        count = len(width)
        self.start: I64 = np.concatenate(([0], np.cumsum(width))).astype(np.int64)
        self._place = np.zeros((count, at.PLACES), np.int64)
        self._number = np.zeros((count, at.NUMBERS))
        self._ready = np.zeros(count, np.uint8)
        self._row = [0] * count
        self._rows_of: list[dict[int, I64]] = [{} for _ in range(count)]  # rows of `_place` by stratum, of sizes
        self._seeds = WindowSeeds([each.prefix for each in self.prepared])
        self._tables = [each.tables for each in self.prepared]
        self._known = self._decode()
        for t in range(count):
            self._fill(t)
        sizes = np.array([work_size(core) for core in self._place[:, at.CORE].tolist()], np.int64)
        self._work_start: I64 = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
        room_sizes = [
            kernel.room_of(row[at.CORE], row[at.STATISTICS], row[at.RANK_BINS], RANK_BETS, row[at.TUBE_BETS])
            for row in self._place.tolist()
        ]
        most = int(sizes.max(initial=0)), int(self._place[:, at.CORE].max(initial=0)), max(room_sizes, default=0)
        self._scratch = [np.empty(size, np.float64) for size in most]
        self._scratch_at = np.array([each.ctypes.data for each in self._scratch], np.int64)
        self._work: F64 | None = None
        room.ask(self, 8 * int(sizes.sum()))
        limits = [each.size_range for each in self.prepared]
        self._size_min = np.array([least for least, _ in limits], np.int64)
        # those that collect several windows, or have strata
        self._apart = [t for t, p in enumerate(self.prepared) if p.target.group > 1 or p.strata is not None]
        self._windows_left = self._until_carry()

    def update(self, counts: I64, weight_ms: float, window_start_ms: int, window_end_ms: int | None = None) -> Verdicts:
        """One window: counts I64[start[-1]], those of each target where `start` says. Raises BadCounts, BadWeight, all states
        untouched. What `default.update` says of each. Cost: some 4 us a target.
        """
        if counts.dtype != np.int64 or counts.shape != (int(self.start[-1]),):
            raise BadCounts(f"{counts.dtype}{counts.shape}, not int64[{self.start[-1]}]")
        if not (weight_ms >= 0.0 and math.isfinite(weight_ms)):
            raise BadWeight(f"weight {weight_ms!r} ms")
        count = len(self.prepared)
        judged, total = np.array(counts), np.empty(count, np.int64)
        wrong = at.totals(judged, self.start, total)
        if wrong >= 0:
            raise BadCounts(f"{self.prepared[wrong].target.name}: negative counts")
        enough = total >= self._size_min
        window = _Window(
            judged, total, np.full(count, float(weight_ms)), np.full(count, window_start_ms, np.int64),
            enough.astype(np.uint8), ~enough,
        )  # fmt: skip
        for t in self._apart:
            self._collect(t, window, window_end_ms)
        self._keep_work()
        self._carry()
        seed = self._seeds.of(window.start_ms)
        out, told = np.zeros((count, kernel.FIELDS)), np.zeros((count, kernel.EFFECT_FIELDS))
        found, log10 = np.zeros((count, at.FOUND), np.int64), np.full((2, count), LOG10_NOTHING)
        at.decide_all(
            judged, self.start, window.act, seed, window.weight, window.start_ms, self._place, self._number, self._ready,
            self._scratch_at, out, told, found, log10,
        )  # fmt: skip
        return self._verdicts(window, out, told, found, log10.tolist())

    def _verdicts(self, window: _Window, out: F64, told: F64, found: I64, logs: list[list[float]]) -> Verdicts:
        level = LATCHED[found[:, at.LATCHED]]
        level[out[:, kernel.FIRES] > 0.0] = CODES[Level.ALARM]
        level[window.insufficient] = CODES[Level.INSUFFICIENT_DATA]
        rank, tube = logs
        tables, prepared = list(self._tables) if self._apart else self._tables, self.prepared
        start = self.start

        def make(t: int) -> Verdict:
            said, since = LEVELS[level[t]], int(found[t, at.SINCE])
            begun = None if since == kernel.NEVER else since
            if window.act[t] == at.SKIP:
                return Verdict(
                    said,
                    LOG10_NOTHING,
                    LOG10_NOTHING,
                    prepared[t].threshold_log10,
                    since_ms=begun,
                    events=int(window.total[t]),
                    judged=False,
                )
            own, effect = window.counts[start[t] : start[t + 1]], told[t].tolist()
            return Verdict(
                level=said,
                rank_log10=rank[t],
                tube_log10=tube[t],
                threshold_log10=prepared[t].threshold_log10,
                rank_crossed=bool(out[t, kernel.RANK_CROSSED] > 0.0),
                tube_crossed=bool(out[t, kernel.TUBE_CROSSED] > 0.0),
                inside_tube=effect[kernel.INSIDE] > 0.0,
                shift=effect[kernel.SHIFT],
                direction=direction(effect),
                statistic=prepared[t].statistics[int(out[t, kernel.LEADING])],
                since_ms=begun,
                events=int(found[t, at.EVENTS]),
                thinned=bool(found[t, at.THINNED]),
                largest_changes=() if said is Level.OK else largest_changes(prepared[t], own, tables[t].tube[2]),
            )

        return Verdicts(level, rank, tube, told[:, kernel.SHIFT].copy(), make)

    def _collect(self, t: int, window: _Window, end_ms: int | None) -> None:
        """What `default.update` does before it judges a target that takes several windows as one, or has strata."""
        prepared, state, window_ms = self.prepared[t], self.states[t], int(window.start_ms[t])
        if prepared.target.group > 1:
            own = window.counts[self.start[t] : self.start[t + 1]]
            pending, meta = state.whole("pending"), state.whole("pending_meta")
            meta[1] = window_ms if meta[0] == 0 else meta[1]
            meta[0] += 1
            pending += own
            window.total[t] = pending.sum()
            window.insufficient[t] = False
            if meta[0] < prepared.target.group or window.total[t] < self._size_min[t]:
                window.act[t] = at.SKIP
                state.pending_weight += float(window.weight[t])
                return
            own[:], window_ms, window.act[t] = pending, int(meta[1]), at.JUDGE
            window.start_ms[t] = window_ms
            pending[:] = 0
            meta[:] = 0
        elif window.insufficient[t]:
            return
        row = 0 if prepared.strata is None else prepared.strata.row(window_ms, end_ms, int(window.total[t]))
        if row < 0:
            window.act[t] = at.SKIP
            state.pending_weight += float(window.weight[t])
            return
        window.weight[t], state.pending_weight = window.weight[t] + state.pending_weight, 0.0
        if prepared.strata is not None:
            tables = prepared.strata.tables(prepared, row)
            if tables is not self._tables[t]:
                self._tables[t], self._row[t] = tables, row
                self._change(t)

    def _change(self, t: int) -> None:
        """Another stratum is in force: of hours everything is different, of sizes the ranks, whose addresses are taken once."""
        strata = self.prepared[t].strata
        if strata is None or strata.by_clock:
            self._ready[t] = 0
            self._fill(t)
            return
        kept = self._rows_of[t].get(self._row[t])
        if kept is None:
            self._fill(t)
            self._rows_of[t][self._row[t]] = self._place[t].copy()
            return
        work = self._place[t, at.WORK]
        self._place[t] = kept
        self._place[t, at.WORK] = work

    def _decode(self) -> dict[int, F64]:
        """Bets on shares that many targets have in common, decoded once, by the address of their codes."""
        every = list(self._tables)
        for prepared in self.prepared:
            if prepared.strata is not None and not prepared.strata.by_clock:
                every += [prepared.strata.tables(prepared, row) for row in range(1, len(prepared.strata.rows))]
        codes = {tables.rank[5].ctypes.data: tables.rank[5] for tables in every}
        users = Counter(tables.rank[5].ctypes.data for tables in every)
        return {place: BET_VALUES[codes[place]] for place, count in users.items() if count >= DECODED_FOR}

    def _keep_work(self) -> None:
        """Where the work of every target is: kept, or made anew each time."""
        if self._room.there_is == (self._work is not None):
            return
        self._ready[:] = 0
        self._work = np.empty(int(self._work_start[-1])) if self._room.there_is else None
        base = 0 if self._work is None else self._work.ctypes.data
        self._place[:, at.WORK] = base + 8 * self._work_start[:-1] if base else 0

    def _until_carry(self) -> int:
        """How many windows no count of live ranks can pass 16 bits in, that has no room for more yet."""
        judged = [int(state.clock[kernel.INDEX]) for state in self.states if not len(state.seen_high)]
        return kernel.SEEN_CARRY - 1 - max(judged, default=-WINDOWS_NEVER)

    def _carry(self) -> None:
        """Make room for counts above 16 bits, in time: all windows may be in one bin."""
        self._windows_left -= 1
        if self._windows_left >= 0:
            return
        for t, state in enumerate(self.states):
            if state.clock[kernel.INDEX] >= kernel.SEEN_CARRY - 1 and not len(state.seen_high):
                state.seen_high = np.zeros_like(state.seen_low)
                self._rows_of[t].clear()
                self._fill(t)
        self._windows_left = max(self._until_carry() - 1, -1)

    def _fill(self, t: int) -> None:
        """Addresses and sizes of a target, with the tables of the stratum in force."""
        prepared, state, tables, row = self.prepared[t], self.states[t], self._tables[t], self._place[t]
        order, tie, alpha, bets, bet_start, share_bets, _, _, thresholds = tables.rank
        threshold, tolerance, reference, share_in, share_out, share_masses, share_lo, share_hi, bet_weight = tables.tube
        known = self._known.get(share_bets.ctypes.data)
        row[at.KNOWN] = 0 if known is None else known.ctypes.data
        seen, high = state.seen_low, state.seen_high
        if prepared.strata is not None:
            seen, high = seen[self._row[t]], high[self._row[t]] if len(high) else high
        floats, integers = state.flat
        f32, f64, i64, u8, u16 = np.float32, np.float64, np.int64, np.uint8, np.uint16
        places: Sequence[tuple[int, NDArray[Any], type[np.generic]]] = (
            (at.SCORE, prepared.scores[0], f64), (at.CHOSE, prepared.scores[1], i64), (at.SCORE_MEAN, tables.score_mean, f64),
            (at.SHARE_P, tables.share_p, f64), (at.ORDER, order, f32), (at.TIE, tie, f32), (at.ALPHA, alpha, f64),
            (at.BETS, bets, f64), (at.BET_START, bet_start, i64), (at.SHARE_BETS, share_bets, u8),
            (at.THRESHOLDS, thresholds, f64), (at.REFERENCE, reference, i64), (at.SHARE_IN, share_in, f64),
            (at.SHARE_OUT, share_out, f64), (at.SHARE_MASSES, share_masses, f64), (at.SHARE_LO, share_lo, f64),
            (at.SHARE_HI, share_hi, f64), (at.BET_WEIGHT, bet_weight, f64), (at.FLOATS, floats, f32),
            (at.INTEGERS, integers, i64), (at.SEEN, seen, u16), (at.SEEN_HIGH, high, u16),
        )  # fmt: skip
        for place, array, dtype in places:
            if array.dtype != dtype or not array.flags.c_contiguous:
                raise TypeError(
                    f"{prepared.target.name}: table {place} is {array.dtype}, not a contiguous {dtype.__name__}"
                )
            row[place] = array.ctypes.data
        shares = len(prepared.share_p)
        values = len(prepared.statistics) - shares
        sizes = {
            at.FIRST: prepared.first, at.CORE: prepared.core, at.STATISTICS: len(thresholds), at.SHARES: shares,
            at.RANK_BINS: len(alpha), at.VALUE_BETS: int(bet_start[-1]) if values else 0, at.TUBE_BETS: len(bet_weight),
            at.SHARE_TUBE_BETS: share_in.shape[1], at.HIGH: int(len(high) > 0), at.SIZE_MAX: prepared.size_range[1],
            at.EXPIRY: prepared.latch_windows,
        }  # fmt: skip
        for place, size in sizes.items():
            row[place] = size
        self._number[t] = threshold, tolerance, prepared.threshold_log10
