"""Predictions of two models about one request, in one pane: what came of both, in one label.

Rules
1. Two predictions are a pair where they carry one request id and lie in one pane, of one source partition. So the predictions
   topic, and those of feedback, are keyed by the request, and both models stamp the request's time: what is not so is no pair,
   and the share of the champion's predictions that found one is in every record.
2. Of several predictions of one model about one request in a pane the first in the log counts.
3. The label is that of the champion's prediction; where only the other one has a label, that: feedback need name only one.
4. What a pair says is of the champion's version and segments, in the champion's panes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from detectors.performance import Part, PerformanceSums
from detectors.performance.paired import PairedSums
from stream.columns import F64, I64, U64
from stream.join import Matured
from stream.join_feedback import FeedbackKind
from stream.join_groups import Group
from stream.label_values import numbers_of
from stream.performance_panes import PerformancePane
from stream.performance_plan import NO_CODE, ModelPerformance, StreamPerformance
from stream.plan import ALL

NO_REQUEST = 0  # hash of a request that was not told
Key = tuple[str, str, str, int, str]  # challenger, its version, the champion's version, place and name of the segment


def paired_panes(
    partition: int, champion: ModelPerformance, models: Mapping[str, list[tuple[Group, I64]]], matured: Matured
) -> Iterator[PerformancePane]:
    """One for each challenger and its version, and version and segment of the champion, in this order.

    `models`: groups of the pane and their rows, by model. Cost: a sort of the rows.
    """
    stream = next((each for each in champion.streams if each.stream == matured.stream), None)
    asked = stream is not None and stream.kind is FeedbackKind.LABEL and matured.horizon_ms in stream.horizons_ms
    if stream is None or not asked or matured.request is None or champion.model not in models:
        return
    parts: dict[Key, list[I64]] = {}
    groups = models[champion.model]
    request, mine, group = _first_of_each(groups, matured)
    for other in champion.challengers:
        their_groups = models.get(other, [])
        their_request, their, their_group = _first_of_each(their_groups, matured)
        _, i, j = np.intersect1d(request, their_request, assume_unique=True, return_indices=True)
        pairs = np.stack([their[j], mine[i]], axis=1)
        combined = group[i] * max(len(their_groups), 1) + their_group[j]
        for code in np.unique(combined).tolist():
            own, version = groups[code // len(their_groups)][0], their_groups[code % len(their_groups)][0].version
            for place, segment in enumerate((ALL, *own.segments)):
                key = (other, version, own.version, place, segment)
                parts.setdefault(key, []).append(pairs[combined == code])
    for key in sorted(parts):
        other, their_version, version, _, segment = key
        rows = np.concatenate(parts[key])
        outcome = _outcome(matured, rows)
        sums = _sums(champion, stream, matured, rows, outcome)
        observed = int(np.count_nonzero(~np.isnan(outcome)))
        pane = pane_of(partition, champion, stream, matured, sums=sums, rows=len(rows), observed=observed)
        yield replace(pane, version=version, segment=segment, against=(other, their_version))


def pane_of(
    partition: int,
    plan: ModelPerformance,
    stream: StreamPerformance,
    matured: Matured,
    *,
    sums: PerformanceSums | PairedSums,
    rows: int,
    observed: int,
) -> PerformancePane:
    """What came of `rows` of a pane, `observed` of them with feedback; of all versions and segments until the caller says which."""
    classes = plan.classes if stream.layout.classes else ()
    return PerformancePane(
        partition, plan.model, "", ALL, matured.stream, stream.kind.value, matured.horizon_ms, matured.edge_ms, rows, observed,
        not matured.incomplete, classes, sums,
    )  # fmt: skip


def _first_of_each(groups: list[tuple[Group, I64]], matured: Matured) -> tuple[U64, I64, I64]:
    """Of one model's rows: each request, ascending, its first row, and the place of that row's group."""
    assert matured.request is not None
    rows = np.concatenate([np.empty(0, np.int64), *(rows for _, rows in groups)])
    place = np.repeat(np.arange(len(groups)), [len(rows) for _, rows in groups])
    order = np.argsort(rows, kind="stable")
    order = order[matured.request[rows[order]] != NO_REQUEST]
    request, first = np.unique(matured.request[rows[order]], return_index=True)
    return request, rows[order][first], place[order][first]


def _outcome(matured: Matured, rows: I64) -> F64:
    """F64[n] of pairs (challenger's, champion's row); NaN = none."""
    theirs, own = (np.where(matured.observed[rows[:, i]], matured.outcome[rows[:, i]], np.nan) for i in (0, 1))
    return np.where(matured.observed[rows[:, 1]], own, theirs)


def _sums(plan: ModelPerformance, stream: StreamPerformance, matured: Matured, rows: I64, outcome: F64) -> PairedSums:
    """The challenger's side is a, the champion's b."""
    sums = PairedSums(stream.layout, stream.layout)
    predicted, score = (
        [np.ascontiguousarray(values[rows[:, i]]) for i in (0, 1)]
        for values in (matured.predicted, matured.score[:, 0])
    )
    if not stream.layout.classes:
        sums.add_errors(numbers_of(predicted[0]), numbers_of(predicted[1]), numbers_of(outcome))
        return sums
    label = np.where(np.isnan(outcome), NO_CODE, plan.codes(outcome))
    sums.add_classes(plan.codes(predicted[0]), plan.codes(predicted[1]), label)
    if Part.SCORES in stream.layout.parts:
        sums.add_scores(score[0], score[1], label)
    return sums
