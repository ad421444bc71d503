"""All windows of one target through the default detector in one call: `default.update` of each in turn, bit for bit, at a tenth of
its cost (asserted by tests/unit/test_detection_passes.py).

The compiled step is the product's own, `batch_kernel.decide_all`: there over the targets of one window, here over the windows of
one target, with its tables and its state by the same addresses.
"""

# ruff: noqa: PLR0917 - compiled kernels take their arrays one by one

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.compiled import compiled
from detectors.reference import ReferenceProfile
from detectors.sequential import batch_kernel as at
from detectors.sequential import default_kernel as kernel
from detectors.sequential.batch import Batch, Room
from detectors.sequential.default import LOG10_NOTHING
from detectors.sequential.default_state import start
from detectors.sequential.default_tables import InForce, Prepared, stratum_tables
from detectors.sequential.target_work import work_size
from detectors.sequential.uniforms import seed_prefix, window_seed

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
U8 = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Windows of live rows by the rule of the reference: counts I64[w, b + 2], start, end and last event of each, I64[w]."""

    counts: I64
    start_ms: I64
    end_ms: I64
    last: I64

    def __len__(self) -> int:
        return len(self.last)


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What is judged as one: counts I64[n, b + 2], time F64[n] since the last one, start I64[n], seed U64[n], stratum I64[n], last
    event I64[n].
    """

    counts: I64
    weight: F64
    start_ms: I64
    seed: U64
    stratum: I64
    last: I64

    def __len__(self) -> int:
        return len(self.last)

    def cut(self, first: int, stop: int) -> Judged:
        own = slice(first, stop)
        return Judged(
            self.counts[own],
            self.weight[own],
            self.start_ms[own],
            self.seed[own],
            self.stratum[own],
            self.last[own],
        )

    def until(self, event: int) -> Judged:
        """Those that ended before this event."""
        return self.cut(0, int(np.searchsorted(self.last, event)))


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """What the detector said at each of n windows that it judged.

    last    I64[n] events
    weight  F64[n] time that each brought
    out     F64[n, FIELDS], told F64[n, EFFECT_FIELDS], found I64[n, FOUND], log10 F64[n, 2] as in batch_kernel.decide_all
    floats  F32[n, f] the state's floats after each, empty unless they were asked for
    """

    last: I64
    weight: F64
    out: F64
    told: F64
    found: I64
    log10: F64
    floats: F32

    def events(self, field: int) -> list[int]:
        """Last events of the windows at which a field of `out` is set."""
        events: list[int] = self.last[self.out[:, field] > 0.0].tolist()
        return events


def judged(profile: ReferenceProfile, windows: Windows) -> Judged:
    """Which windows of the profile's only target are judged together: those that the monitor would carry into the next for being
    smaller than any of the reference's, and as `update` has it: a target's `group` is collected, and the time of what no stratum
    can judge goes to the next that one can. The same for all settings.
    """
    (target,) = profile.targets
    group, size_min, least = target.group, target.size_min, profile.windows.size_min
    strata = None if target.strata is None else InForce(target.strata)
    starts, ends = windows.start_ms.tolist(), windows.end_ms.tolist()
    previous = 2 * starts[0] - starts[1] if len(starts) > 1 else 0  # the first window weighs what the second does
    found: list[tuple[int, int, int, int]] = []  # first, stop, weight, stratum
    first, events, carried, taken, weight, unjudged = 0, 0, 0, 0, 0, 0
    for i, count in enumerate(windows.counts.sum(axis=1).tolist()):
        weight += starts[i] - previous
        previous = starts[i]
        carried += count
        if carried < max(1, least):
            continue
        taken, events, carried = taken + 1, events + carried, 0
        if group > 1 and (taken < group or events < size_min):
            continue
        if events >= size_min:  # else `update` says INSUFFICIENT_DATA, and the window is lost
            row = 0 if strata is None else strata.row(starts[first], ends[i], events)
            if row < 0:
                unjudged += weight
            else:
                found.append((first, i + 1, weight + unjudged, row))
                unjudged = 0
        first, events, taken, weight = i + 1, 0, 0, 0
    table = np.array(found, np.int64).reshape(-1, 4)
    counts = windows.counts[table[:, 0]]
    for i in np.flatnonzero(table[:, 1] - table[:, 0] > 1).tolist():
        counts[i] = windows.counts[table[i, 0] : table[i, 1]].sum(axis=0)
    start_ms, prefix = windows.start_ms[table[:, 0]], seed_prefix(target.name, profile.id)
    return Judged(
        counts,
        table[:, 2].astype(np.float64),
        start_ms,
        np.array([window_seed(prefix, ms) for ms in start_ms.tolist()], np.uint64),
        np.ascontiguousarray(table[:, 3]),
        windows.last[table[:, 1] - 1],
    )


@compiled
def _in_turn(
    counts: I64, bounds: I64, act: U8, seed: U64, weight: F64, start_ms: I64, table: I64, place: I64, number: F64, ready: U8,
    scratch: I64, state: F32, out: F64, told: F64, found: I64, log10: F64, floats: F32,
) -> None:  # fmt: skip
    """decide_all of one window after the other. counts I64[n, b + 2], log10 F64[n, 2, 1]; table I64[n]: row of place, number and ready."""
    for i in range(len(seed)):
        r, own = table[i], slice(i, i + 1)
        at.decide_all(
            counts[i], bounds, act, seed[own], weight[own], start_ms[own], place[r : r + 1], number[r : r + 1],
            ready[r : r + 1], scratch, out[own], told[own], found[own], log10[i],
        )  # fmt: skip
        if len(floats) > 0:
            floats[i] = state


class Pass(Batch):
    """A batch of one target, which takes many windows at once. Its state goes on from call to call."""

    def __init__(self, prepared: Prepared) -> None:
        super().__init__([prepared], [start(prepared)], Room())
        self._table_of: dict[
            int, int
        ] = {}  # stratum -> its row in `_place_of`; the tables are held below: addresses are of them
        self._held = [self._tables[0]]
        self._place_of: I64 = np.zeros((0, at.PLACES), np.int64)
        self._number_of: F64 = np.zeros((0, at.NUMBERS))

    def take(self, windows: Judged, *, floats: bool = False) -> Steps:
        """Every window in turn. `floats`: keep the state's after each."""
        self._point(windows.stratum)
        prepared, n, state = self.prepared[0], len(windows.last), self.states[0].flat[0]
        core = prepared.core
        work = np.empty((len(self._place_of), max(work_size(core), 1)))
        self._place_of[:, at.WORK] = work.ctypes.data + work.strides[0] * np.arange(len(work))
        table = np.array([self._table_of[row] for row in windows.stratum.tolist()], np.int64)
        out, told = np.zeros((n, kernel.FIELDS)), np.zeros((n, kernel.EFFECT_FIELDS))
        found, log10 = np.zeros((n, at.FOUND), np.int64), np.full((n, 2, 1), LOG10_NOTHING)
        kept = np.empty((n if floats else 0, len(state)), np.float32)
        _in_turn(
            windows.counts.copy(), self.start, np.full(1, at.JUDGE, np.uint8), windows.seed, windows.weight, windows.start_ms, table,
            self._place_of, self._number_of, np.zeros(len(work), np.uint8), self._scratch_at, state, out, told, found, log10, kept,
        )  # fmt: skip
        return Steps(windows.last, windows.weight, out, told, found, log10[:, :, 0], kept)

    def _point(self, strata: I64) -> None:
        """Addresses of the tables of every stratum, and room for more than 16 bits of windows where there can be so many."""
        state, prepared = self.states[0], self.prepared[0]
        rows = sorted({*self._table_of, *strata.tolist()})
        if not len(state.seen_high) and int(state.clock[kernel.INDEX]) + len(strata) >= kernel.SEEN_CARRY:
            state.seen_high = np.zeros_like(state.seen_low)
        held, places, numbers = [], [], []
        known = dict(zip(self._table_of, self._held, strict=False))
        for row in rows:
            if prepared.strata is not None:
                self._tables[0] = known[row] if row in known else stratum_tables(prepared, row)
            self._row[0] = row
            self._fill(0)
            held.append(self._tables[0])
            places.append(self._place[0].copy())
            numbers.append(self._number[0].copy())
        self._table_of, self._held = {row: i for i, row in enumerate(rows)}, held
        self._place_of, self._number_of = (
            np.array(places, np.int64).reshape(-1, at.PLACES),
            np.array(numbers).reshape(-1, at.NUMBERS),
        )
