"""The statistics of a reference's own windows: the yardstick of the rank layer."""
# ruff: noqa: PLR0917 - compiled kernels take their arrays one by one

from __future__ import annotations

import numpy as np
import xxhash
from numpy.typing import NDArray

from detectors.binning import Binning, Kind
from detectors.compiled import compiled
from detectors.reference import fold
from detectors.reference_strata import Strata
from detectors.sequential import default_kernel as kernel
from detectors.sequential.default_tables import hour_shares, share_masses
from detectors.sequential.rank_layer import kept_ranks, order_statistics
from detectors.sequential.scores import score_table
from detectors.sequential.uniforms import seed_prefix, window_seed

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


@compiled
def _all_statistics(
    core: F64,
    shares: I64,
    score: F64,
    nominal: F64,
    shape_scale: F64,
    share_p: F64,
    of: I64,
    seed: I64,
    out: F64,
    tie: F64,
) -> None:
    for w in range(len(core)):
        row = np.uint64(seed[w])
        kernel.statistics(core[w], shares[w], score, nominal, shape_scale, share_p[of[w]], row, out[w], tie[w])


def window_statistics(
    binning: Binning, name: str, first: I64, windows: I64, hours: tuple[I64, I64] | None = None
) -> tuple[F64, F64]:
    """(statistic, tie-break) F64[m, s] of windows I64[m, b + 2], scored by the rows `first` that chose the cuts; `hours`: shares by
    those of their hour, I64[hours, k] as in Strata, and the hour I64[m] of each window.
    """
    folded_first, folded = fold(binning, first), fold(binning, windows)
    core = folded.shape[1] - 2 if binning.kind is Kind.NUMERIC else 0
    table = score_table(folded_first[:core]) if core else None
    score = (table.score, table.nominal, table.shape_scale) if table else (np.zeros((0, 4)), np.zeros(0), np.zeros(0))
    pooled = share_masses(binning, folded_first)
    by_hour, of = hours or (np.zeros((1, 1), np.int64), np.zeros(len(windows), np.int64))
    share_p = np.stack([hour_shares(pooled, row) for row in by_hour])
    # Ties of reference windows need uniforms that no live window has, and each reference its own: with the same for all of them,
    # a target with many ties would have the same luck against every reference that it ever gets.
    prefix = seed_prefix(name, f"windows/{xxhash.xxh3_64_hexdigest(windows.astype(np.int64).tobytes())}")
    seed = np.array([window_seed(prefix, w) >> 1 for w in range(len(windows))], np.int64)
    count = (5 if core else 0) + len(pooled)
    out, tie = np.empty((len(windows), count)), np.empty((len(windows), count))
    parts = np.ascontiguousarray(folded[:, :core], np.float64), np.ascontiguousarray(folded[:, core:])
    _all_statistics(*parts, *score, share_p, of, seed, out, tie)
    return out, tie


def ranked(statistics: F64, ties: F64) -> tuple[I64, F64, F64]:
    """(rank I64[r], order F64[s, r], tie F64[s, r]) of statistics F64[m, s]."""
    rank = kept_ranks(len(statistics))
    pairs = [order_statistics(statistics[:, j], ties[:, j], rank) for j in range(statistics.shape[1])]
    return rank, np.array([value for value, _ in pairs]), np.array([tie for _, tie in pairs])


def common_ranks(windows: I64) -> I64:
    """Rank I64[n, r]: the kept ranks of the smallest stratum, and those of the others at the same probabilities, so that all
    have as many rank bins and a bin means the same in each. windows I64[n]: of each stratum.
    """
    least = int(windows.min())
    kept = kept_ranks(least).astype(np.float64)
    # Steps of at least 1 stay at least 1 when they are stretched and rounded.
    rank = np.floor(kept * (windows[:, None] + 1) / (least + 1) + 0.5).astype(np.int64)
    rank = np.clip(rank, 1, windows[:, None])
    rank[:, 0], rank[:, -1] = 1, windows  # records
    return rank


def ranked_strata(
    by: str, first: I64, statistics: F64, ties: F64, stratum: I64, windows: I64, least: int, bounds: I64 | None = None
) -> Strata:
    """Windows I64[m, b + 2] with statistics and ties F64[m, s] by strata I64[m], of which first I64[strata, k] has all (as in
    Strata); of those with `least` windows or more. bounds: as in Strata, of sizes.
    """
    count = np.bincount(stratum, minlength=len(first)).astype(np.int64)
    rows = np.flatnonzero(count >= least)
    rank = common_ranks(count[rows])
    order, tie = np.empty((2, len(rows), statistics.shape[1], rank.shape[1]))
    for row, hour in enumerate(rows.tolist()):
        inside = stratum == hour
        for j in range(statistics.shape[1]):
            order[row, j], tie[row, j] = order_statistics(statistics[inside, j], ties[inside, j], rank[row])
    counts = np.stack([windows[stratum == hour].sum(axis=0) for hour in rows.tolist()])
    bounds = np.empty(0, np.int64) if bounds is None else bounds
    return Strata(by, count, counts, rank, order, tie, first[rows], bounds)


def first_by_hour(binning: Binning, bins: I64, hour: I64, hours: int) -> I64:
    """I64[hours, k], as Strata.first, of the rows in these bins and hours I64[rows]."""
    group = bins if binning.kind is Kind.CATEGORICAL else np.maximum(bins - binning.bins + 1, 0)
    width = binning.bins + 2 if binning.kind is Kind.CATEGORICAL else 3
    counts: I64 = np.bincount(hour * width + group, minlength=hours * width).reshape(hours, width).astype(np.int64)
    return counts


def grouped(windows: I64, group: int) -> I64:
    """Counts of `group` successive windows added up; what is left over is dropped."""
    count = len(windows) // group
    added: I64 = windows[: count * group].reshape(count, group, windows.shape[1]).sum(axis=1)
    return added
