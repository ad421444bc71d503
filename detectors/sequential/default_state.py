"""What the default detector remembers of one target, and how it is saved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.sequential import default_kernel as kernel
from detectors.sequential.categories import RANK_BETS
from detectors.sequential.default_tables import Prepared
from detectors.sequential.rank_layer import ADAPTIVE_DECAY, KEPT_MAX, ROUND_DOWN
from detectors.verdict import BadState

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
U16 = NDArray[np.uint16]

VERSION = 2
VERSION_FLOAT64 = 1  # floats, `seen` among them, of 64 bits, and two totals that are made anew since

NO_CARRY: U16 = np.zeros((0, 0), np.uint16)
CLOCK_START = (0, kernel.NEVER, kernel.NEVER, kernel.NEVER, 0)
RANK_ARRAYS = ("evidence", "adaptive", "share_evidence")
EVIDENCE = frozenset({*RANK_ARRAYS, "tube"})


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each array of a state lies in `floats` or `integers`: name -> (begin, end, shape). One for all equal shapes.

    s statistics (v of values, the others of shares), r + 1 rank bins, b bets of the tube, c core bins.

    floats    evidence, adaptive [v, 2], share_evidence: e-SR values of the rank bets; recent [v, 2, r + 1]: the adaptive
              bets' memory; tube, gain [b]: e-SR values of the tube's bets and their running log likelihood; plug: the
              plug-in's memory. All float32; evidence is rounded down (rank_layer.py)
    integers  clock [5]: windows judged, those at which the rank and the tube latch were set, start of the excursion in ms,
              settled; gain_start [b]: where the gain began; pending: a slow target's collected windows, pending_meta [2]:
              how many and their first start
    """

    floats: Mapping[str, tuple[int, int, tuple[int, ...]]]
    integers: Mapping[str, tuple[int, int, tuple[int, ...]]]


class DetectorState:
    """What a target remembers. Build with `start` or `state_from_sections`. Three arrays, of which the others are views.

    seen_low U16[s, r + 1], seen_high the same, or empty while no bin can need it: live rank bins so far, in two halves; of a
    target with n strata U16[n, s, r + 1]. `pending` is empty for a target that judges every window, pending_weight the time
    of windows that were only collected, or of a stratum that cannot be judged, ms.
    """

    __slots__ = ("_floats", "_integers", "_layout", "pending_weight", "seen_high", "seen_low")

    def __init__(self, layout: Layout, seen_shape: tuple[int, ...]) -> None:
        self._layout = layout
        self._floats = np.zeros(_size(layout.floats), np.float32)
        self._integers = np.zeros(_size(layout.integers), np.int64)
        self.seen_low: U16 = np.zeros(seen_shape, np.uint16)
        self.seen_high = NO_CARRY
        self.pending_weight = 0.0
        self.clock[:] = CLOCK_START

    @property
    def seen(self) -> NDArray[np.uint32]:
        """U32[s, r + 1], with strata U32[n, s, r + 1]: live rank bins so far. A copy."""
        low = self.seen_low.astype(np.uint32)
        return low + self.seen_high.astype(np.uint32) * np.uint32(kernel.SEEN_CARRY) if len(self.seen_high) else low

    @seen.setter
    def seen(self, counts: NDArray[Any]) -> None:
        whole = counts.astype(np.uint32)
        self.seen_low[...] = whole % kernel.SEEN_CARRY
        if self.clock[kernel.INDEX] >= kernel.SEEN_CARRY - 1:
            self.seen_high = (whole // kernel.SEEN_CARRY).astype(np.uint16)

    def real(self, name: str) -> F32:
        """One of `floats`: a view."""
        begin, end, shape = self._layout.floats[name]
        return self._floats[begin:end].reshape(shape)

    def whole(self, name: str) -> I64:
        """One of `integers`: a view."""
        begin, end, shape = self._layout.integers[name]
        return self._integers[begin:end].reshape(shape)

    @property
    def flat(self) -> tuple[F32, I64]:
        """All of `floats` and all of `integers`: they are never made anew."""
        return self._floats, self._integers

    @property
    def clock(self) -> I64:
        return self._integers[: len(CLOCK_START)]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All by name: views, and copies of `seen` U32 and pending_weight F64[1]."""
        reals = {name: self.real(name) for name in self._layout.floats}
        apart = {"seen": self.seen, "pending_weight": np.array([self.pending_weight])}
        return reals | {name: self.whole(name) for name in self._layout.integers} | apart


def _size(parts: Mapping[str, tuple[int, int, tuple[int, ...]]]) -> int:
    return max((end for _, end, _ in parts.values()), default=0)


def _placed(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, int, tuple[int, ...]]]:
    placed, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + math.prod(shape)
        placed[name] = (begin, end, shape)
    return placed


@lru_cache(maxsize=1024)
def _layout(bins: int, values: int, shares: int, *, evidence: int, tube: int, plug: int, pending: int) -> Layout:
    adaptive = len(ADAPTIVE_DECAY)
    floats = {
        "evidence": (evidence,), "adaptive": (values, adaptive), "share_evidence": (shares, RANK_BETS),
        "recent": (values, adaptive, bins), "tube": (tube,), "gain": (tube,), "plug": (plug,),
    }  # fmt: skip
    integers = {"clock": (len(CLOCK_START),), "gain_start": (tube,), "pending_meta": (2,), "pending": (pending,)}
    return Layout(_placed(floats), _placed(integers))


def start(prepared: Prepared) -> DetectorState:
    """State before the first window."""
    target = prepared.target
    bins, count = len(prepared.rank[2]), len(prepared.statistics)
    shares, values = len(prepared.share_p), count - len(prepared.share_p)
    layout = _layout(
        bins, values, shares,
        evidence=int(prepared.rank[4][-1]) if values else 0,
        tube=len(prepared.tube[-1]),
        plug=prepared.core or shares,
        pending=_pending(prepared) if target.group > 1 else 0,
    )  # fmt: skip
    strata = () if target.strata is None else (len(target.strata.rank),)
    return DetectorState(layout, (*strata, count, bins))


def _pending(prepared: Prepared) -> int:
    return prepared.target.binning.bins + 2


def state_to_sections(prepared: Prepared, state: DetectorState) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """(header of JSON values, named arrays): as they are in the state, so that a restored one goes on bit for bit."""
    header = {"version": VERSION, "reference": prepared.reference_id, "target": prepared.target.name}
    return header, {name: array.copy() for name, array in _saved(prepared, state).items()}


def _saved(prepared: Prepared, state: DetectorState) -> dict[str, NDArray[Any]]:
    """The arrays of a snapshot, which has `pending` of every target, and what strata have seen in the fewest bits."""
    arrays = state.arrays()
    if prepared.strata is not None:
        arrays["seen"] = arrays["seen"].astype(np.min_scalar_type(int(arrays["seen"].max())))
    if not len(arrays["pending"]):
        arrays["pending"] = np.zeros(_pending(prepared), np.int64)
    return arrays


def state_from_sections(
    prepared: Prepared, header: Mapping[str, Any], sections: Mapping[str, NDArray[Any]]
) -> DetectorState:
    """Inverse of `state_to_sections`; converts states of VERSION_FLOAT64. Raises BadState."""
    wanted = {"version": VERSION, "reference": prepared.reference_id, "target": prepared.target.name}
    converts = dict(header) == wanted | {"version": VERSION_FLOAT64}
    if not converts and dict(header) != wanted:
        raise BadState(f"state of {dict(header)}, expected {wanted}")
    fresh = start(prepared)
    places = fresh.arrays()
    for name, empty in _saved(prepared, fresh).items():
        saved = sections.get(name)
        if converts and saved is not None and saved.dtype == np.float64 and empty.dtype != np.float64:
            saved = _converted(name, saved, empty.dtype)
        if saved is not None and name == "seen" and prepared.strata is not None and saved.dtype.kind == "u":
            empty = empty.astype(saved.dtype)  # noqa: PLW2901
        if saved is None or saved.shape != empty.shape or saved.dtype != empty.dtype:
            raise BadState(f"section {name}: {None if saved is None else (saved.dtype, saved.shape)}")
        if len(places[name]) == len(saved):
            places[name][...] = saved
    fresh.pending_weight = float(sections["pending_weight"][0])
    fresh.seen = sections["seen"]
    return fresh


def _converted(name: str, saved: F64, dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array of VERSION_FLOAT64 in today's precision."""
    lower = np.minimum(saved, KEPT_MAX) * ROUND_DOWN if name in EVIDENCE else saved
    return lower.astype(dtype)
