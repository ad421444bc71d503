"""Row series: the multivariate detectors of a model, from its configuration to what is counted and to a window's numbers. Pure.

Their rows are the numeric features that the reference kept rows of and the plan counts, or the arrays of one feature. Only the
inputs of segment `all` have such series.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from detectors import REGISTRY
from detectors.multivariate import ReferenceRows, RowDetector, RowWindow, prepared, sample_rows
from detectors.multivariate.rows import ROWS_MIN
from detectors.reference import BadReference, ReferenceProfile
from detectors.registry import Family
from stream.columns import F64, Tag
from stream.panes import Sample
from stream.plan import RowSumsPlan
from stream.tally import Tally
from stream.watchers import Watcher
from stream.window_series import Threshold

ALL_FEATURES = "__features__"  # the target of alerts about all features together
ARRAY = "[]"  # ends that of alerts about the arrays of a feature
ANEW = "build it anew with this configuration (driftline reference build) and promote it"
NO_SUMS = np.empty(0, np.int64)


class NoRowsError(BadReference):
    """A reference whose rows, or arrays, give no such series; the message says which series, which reference, why, and what to do."""


def is_row_series(asked: Threshold | Watcher) -> bool:
    """Whether it is about a multivariate detector."""
    name = asked.series if isinstance(asked, Watcher) else asked.type
    return name in REGISTRY and REGISTRY[name].family is Family.MULTIVARIATE


def array_of(asked: Threshold | Watcher) -> str:
    """The feature whose arrays it is about; "" = all numeric features together."""
    return next(iter(asked.targets), "")


def target_of(asked: Threshold | Watcher) -> str:
    """The target of alerts about its row series, which no watched target may be called; those about an array itself are about its
    norm.
    """
    array = array_of(asked)
    return f"{array}{ARRAY}" if array else ALL_FEATURES


def names_rows(target: str) -> bool:
    """Whether alerts about a row series may be called so."""
    return target == ALL_FEATURES or target.endswith(ARRAY)


def series_of(asked: Threshold | Watcher) -> str:
    """Name of its row series."""
    return _limit(asked).series


def _limit(asked: Threshold | Watcher) -> Threshold:
    return Threshold(asked.series, None, targets=asked.targets) if isinstance(asked, Watcher) else asked


def wanted(asked: Iterable[Threshold | Watcher]) -> dict[str, Threshold]:
    """Row series that thresholds and watchers ask for, by name, each once; ascending."""
    found = {series_of(each): _limit(each) for each in filter(is_row_series, asked)}
    return dict(sorted(found.items()))


def rows_sampled(asked: Iterable[Threshold | Watcher]) -> int:
    """Rows that panes must sample; at least 1 where there is any row series, for sums travel with the sample."""
    return max((sample_rows(one.type, dict(one.parameters)) or 1 for one in wanted(asked).values()), default=0)


class RowSeries:
    """The row series of one reference and the targets of one plan."""

    def __init__(
        self,
        asked: Iterable[Threshold | Watcher],
        profile: ReferenceProfile,
        names: Sequence[str],
        lengths: Mapping[str, int] | None = None,
    ) -> None:
        """`lengths`: of the arrays of features, as they are configured; None = as the reference has them.

        Raises NoRowsError.
        """
        self._wanted = wanted(asked)
        for series, one in self._wanted.items():
            if (target := target_of(one)) in names:
                raise NoRowsError(
                    f"{series}: reference {profile.id} has a target {target}, as alerts about this series are called; rename that"
                    f" feature, set watch: false for it, or leave this detector out"
                )
        self._detectors: dict[str, RowDetector] = {}
        self._places: dict[str, list[int]] = {}
        self._length: dict[str, int] = {}
        for series, one in self._wanted.items():
            array = array_of(one)
            rows = self._rows(series, array, profile, names, (lengths or {}).get(array))
            counted = (array,) if array else rows.names
            self._places[series] = [names.index(name) for name in counted]
            self._length[series] = len(rows.names) if array else 0
            try:
                self._detectors[series] = prepared(one.type, rows, dict(one.parameters))
            except BadReference as error:
                raise NoRowsError(f"{series}: reference {profile.id}: {error}; {_mends(array)}") from None

    def _rows(
        self, series: str, array: str, profile: ReferenceProfile, names: Sequence[str], length: int | None
    ) -> ReferenceRows:
        """What the reference has of the rows of one series."""
        if not array:
            return _rows_of(self._wanted, profile, names)
        if array not in names:
            read = f"reference {profile.id} has no target {array}, or it is not watched"
            raise NoRowsError(f"{series}: {read}; {ANEW}")
        return _rows_of_array(series, array, profile, length)

    @property
    def sample_rows(self) -> int:
        """Rows that panes must sample."""
        return rows_sampled(self._wanted.values())

    def plans(self) -> tuple[RowSumsPlan, ...]:
        """What collectors add up."""
        return tuple(
            RowSumsPlan(
                self._wanted[series].type,
                series,
                tuple(self._places[series]),
                detector.carried(),
                self._length[series],
            )
            for series, detector in self._detectors.items()
            if detector.width
        )

    def values(self, tally: Tally) -> dict[str, float]:
        """Every series of a window of all targets; NaN where it has too few rows, or was not counted. 10 ms and less each."""
        sample = tally.sample
        if sample is None:
            return dict.fromkeys(self._detectors, np.nan)
        found = {}
        for series, detector in self._detectors.items():
            sums = sample.sums.get(series)
            if detector.width and (sums is None or len(sums) != detector.width):
                found[series] = np.nan  # counted under another configuration
                continue
            count = sample_rows(self._wanted[series].type, dict(self._wanted[series].parameters))
            own = _rows(sample, self._places[series], count)
            found[series] = detector.measure(RowWindow(NO_SUMS if sums is None else sums, own))
        return found


def _rows_of(series: Iterable[str], profile: ReferenceProfile, names: Sequence[str]) -> ReferenceRows:
    if profile.row_sample is None:
        raise NoRowsError(f"{', '.join(series)}: {_without(profile, 'rows')}")
    return profile.row_sample.of(names)


def _rows_of_array(series: str, array: str, profile: ReferenceProfile, length: int | None) -> ReferenceRows:
    rows = profile.row_sample
    if rows is None or array not in rows.arrays:
        raise NoRowsError(f"{series}: {_without(profile, f'the arrays of {array}')}")
    there = rows.arrays[array].shape[1]
    if length is not None and there != length:
        raise NoRowsError(
            f"{series}: targets.{array}.dimension is {length}, reference {profile.id} has arrays of {there} numbers; {ANEW}"
        )
    return rows.of_array(array)


def _mends(array: str) -> str:
    what = f"arrays of {array}" if array else "numeric features"
    return f"build it of a file where at least {ROWS_MIN} rows have {what} that differ, or leave this detector out"


def _without(profile: ReferenceProfile, what: str) -> str:
    return f"reference {profile.id} was built without a sample of {what}; {ANEW}"


def _rows(sample: Sample, places: Sequence[int], count: int) -> F64:
    """F64[k, f] of the first `count` rows, NaN for what is no number."""
    number, tag = np.ascontiguousarray(sample.cell[:count, places]).view(np.float64), sample.tag[:count, places]
    return np.where(tag == Tag.NUMBER, number, np.nan)
