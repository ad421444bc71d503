"""Row series: the multivariate detectors of a model, from its configuration to what is counted and to a window's numbers. Pure.

Their rows are the numeric features that the reference kept rows of and the plan counts. Only the inputs of segment `all`
have such series.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from detectors import REGISTRY
from detectors.multivariate import ReferenceRows, RowDetector, RowWindow, prepared, sample_rows
from detectors.reference import ReferenceProfile
from detectors.registry import Family
from stream.columns import F64, Tag
from stream.panes import Sample
from stream.plan import RowSumsPlan
from stream.tally import Tally
from stream.watchers import Watcher
from stream.window_series import Threshold

ALL_FEATURES = (
    "__features__"  # the target of alerts about all features together: no feature's name begins so by accident
)
NO_SUMS = np.empty(0, np.int64)


class NoRowsError(ValueError):
    """The reference was built without a sample of rows."""


def is_row_series(asked: Threshold | Watcher) -> bool:
    """Whether it is about a multivariate detector."""
    name = asked.series if isinstance(asked, Watcher) else asked.type
    return name in REGISTRY and REGISTRY[name].family is Family.MULTIVARIATE


def wanted(asked: Iterable[Threshold | Watcher]) -> dict[str, Threshold]:
    """Row series that thresholds and watchers ask for, by name, each once; ascending."""
    found = {}
    for each in filter(is_row_series, asked):
        one = Threshold(each.series, None) if isinstance(each, Watcher) else each
        found[one.series] = one
    return dict(sorted(found.items()))


def rows_sampled(asked: Iterable[Threshold | Watcher]) -> int:
    """Rows that panes must sample; at least 1 where there is any row series, for sums travel with the sample."""
    return max((sample_rows(one.type, dict(one.parameters)) or 1 for one in wanted(asked).values()), default=0)


class RowSeries:
    """The row series of one reference and the targets of one plan. Raises NoRowsError, detectors.reference.BadReference."""

    def __init__(self, asked: Iterable[Threshold | Watcher], profile: ReferenceProfile, names: Sequence[str]) -> None:
        self._wanted = wanted(asked)
        self._detectors: dict[str, RowDetector] = {}
        self._places: list[int] = []
        if not self._wanted:
            return
        if profile.row_sample is None:
            raise NoRowsError(
                f"{', '.join(self._wanted)}: reference {profile.id} was built without a sample of rows; build it anew with this "
                "configuration (driftline reference build) and promote it"
            )
        rows: ReferenceRows = profile.row_sample.of(names)
        self._places = [names.index(name) for name in rows.names]
        for series, one in self._wanted.items():
            self._detectors[series] = prepared(one.type, rows, dict(one.parameters))

    @property
    def sample_rows(self) -> int:
        """Rows that panes must sample."""
        return rows_sampled(self._wanted.values())

    def plans(self) -> tuple[RowSumsPlan, ...]:
        """What collectors add up."""
        return tuple(
            RowSumsPlan(self._wanted[series].type, series, tuple(self._places), detector.carried())
            for series, detector in self._detectors.items()
            if detector.width
        )

    def values(self, tally: Tally) -> dict[str, float]:
        """Every series of a window of all targets; NaN where it has too few rows, or was not counted. 10 ms and less each."""
        sample = tally.sample
        if sample is None:
            return dict.fromkeys(self._detectors, np.nan)
        rows, found = _rows(sample, self._places), {}
        for series, detector in self._detectors.items():
            sums = sample.sums.get(series)
            if detector.width and (sums is None or len(sums) != detector.width):
                found[series] = np.nan  # counted under another configuration
                continue
            own = rows[: sample_rows(self._wanted[series].type, dict(self._wanted[series].parameters))]
            found[series] = detector.measure(RowWindow(NO_SUMS if sums is None else sums, own))
        return found


def _rows(sample: Sample, places: Sequence[int]) -> F64:
    """F64[k, f], NaN for what is no number."""
    number, tag = np.ascontiguousarray(sample.cell[:, places]).view(np.float64), sample.tag[:, places]
    return np.where(tag == Tag.NUMBER, number, np.nan)
