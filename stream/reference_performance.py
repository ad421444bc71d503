"""Test metrics: what a reference file's labelled rows say of performance, of all rows and of each segment.

They are measured as the live ones are, by the same sums, classes and bins, so that the two can stand side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.binning import category_hash
from detectors.column_values import VALID, read_column
from detectors.performance import Part, PerformanceSums
from detectors.reference_performance import ReferencePerformance, reference_performance
from stream.columns import F64, I64
from stream.config import Config
from stream.feedback_planning import performance_of, score_of
from stream.label_values import numbers_of, text_value
from stream.mapping import PREDICTION
from stream.pane_state import segment_name
from stream.performance_panes import kept_name
from stream.performance_plan import ModelPerformance, StreamPerformance, possible
from stream.plan import ALL, Role, SegmentPlan
from stream.tables import column_values, output_columns, segment_column
from stream.topics import TopicRole

if TYPE_CHECKING:
    import pyarrow as pa


class _Rows(NamedTuple):
    """Of a file: label, decision and score F64[n], class_scores F64[n, c] in the order of the classes; NaN = none."""

    label: F64
    predicted: F64
    score: F64
    class_scores: F64

    def where(self, which: NDArray[np.bool_]) -> _Rows:
        return _Rows(*(each[which] for each in self))


def measured_rows(config: Config, model: str, table: pa.Table) -> tuple[ReferencePerformance | None, str]:
    """Metrics of the table's labelled rows, or why there are none, for people; ("", None) where nobody asks for them.

    Raises TableError for a column that cannot be read. Cost: a second per 3M rows and segment key.
    """
    plan, named = performance_of(config, model), config.models[model].reference
    stream = next((each for each in plan.streams if each.stream == TopicRole.LABELS.value), None) if plan else None
    if plan is None or stream is None or named.label is None:
        return None, ""
    column_of = {target: name for name, (_, target) in output_columns(config, named, table.column_names).items()}
    if PREDICTION not in column_of:
        return None, "no test metrics: the file has no column of predictions (reference.prediction)"
    rows = _read(plan, table, named.label, column_of, score_of(config))
    segments = {ALL: _sums(plan, stream, rows)}
    for segment in plan.segments:
        column = segment_column(segment.key, table.column_names)
        if column is None:
            continue
        place = _places(segment, column_values(table, column))
        for at, value in enumerate((*segment.values, None)):
            if (place == at).any():
                segments[segment_name(segment.key, value)] = _sums(plan, stream, rows.where(place == at))
    series = {plan.told.stored(each): each for each in possible(stream.kind.value, stream.layout, plan.told)}
    classes = plan.classes if stream.layout.classes else ()
    kept = kept_name(stream.layout, classes)
    return reference_performance(
        kept, tuple(series), segments, lambda name, sums: plan.told.measure(series[name], sums)
    ), ""


def values_of_file(values: NDArray[Any]) -> F64:
    """A column as decoding would have its cells: numbers, bools as 1 and 0, texts as text_value; NaN where there is none."""
    if values.dtype != object:
        return values.astype(np.float64)
    known = {each: _value(each) for each in set(values.tolist())}
    return np.array([known[each] for each in values.tolist()], np.float64)


def _value(value: Any) -> float:
    if value is None:
        return np.nan
    if isinstance(value, str):
        return float(text_value(np.array([category_hash(value)], np.uint64))[0])
    return float(value)


def _places(segment: SegmentPlan, values: NDArray[Any]) -> I64:
    """Place of each row's value among the segment's, their number for any other."""
    column = read_column(segment.key, values, Role.SHARE.value, "categorical")
    place = np.full(len(values), len(segment.values), np.int64)
    for at, wanted in enumerate(segment.value_hash):
        place[(column.hash == wanted) & (column.state == VALID)] = at
    return place


def _read(plan: ModelPerformance, table: pa.Table, label: str, column_of: Mapping[str, str], score: str) -> _Rows:
    """`column_of`: name of a prediction or score -> column; a score without one has no values. Raises TableError."""
    missing = np.full(table.num_rows, np.nan)

    def values(name: str) -> F64:
        return values_of_file(column_values(table, column_of[name])) if name in column_of else missing

    of_classes = np.stack([values(name) for name in plan.class_scores] or [missing], axis=1)
    return _Rows(values_of_file(column_values(table, label)), values(PREDICTION), values(score), of_classes)


def _sums(plan: ModelPerformance, stream: StreamPerformance, rows: _Rows) -> PerformanceSums:
    sums = PerformanceSums(stream.layout)
    if not stream.layout.classes:
        sums.add_errors(numbers_of(rows.predicted), numbers_of(rows.label))
        return sums
    codes = plan.codes(rows.label)
    sums.add_classes(plan.codes(rows.predicted), codes)
    if Part.SCORES in stream.layout.parts:
        sums.add_scores(rows.score, codes)
    if Part.CLASS_SCORES in stream.layout.parts:
        sums.add_class_scores(rows.class_scores, codes)
    return sums
