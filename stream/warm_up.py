"""Compiles the kernels before a worker joins the group: a compilation in mid-stream would stop its heartbeats."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import orjson
from numba.np import linalg

from detectors import RECORDED
from detectors.binning import Binning, Kind
from detectors.distance import WindowBins
from detectors.reference import ReferenceProfile
from detectors.sequential import default
from detectors.sequential.batch import Batch
from stream import give_back
from stream.columns import Columns, Tag
from stream.decode import decode
from stream.decode_feedback import FeedbackColumns
from stream.join_feedback import Feedback
from stream.join_groups import NO_GROUP
from stream.kernels.framing import frame, records_from_lines
from stream.kernels.target_text import powers
from stream.merging import PaneRecord
from stream.pane_state import COUNT_DTYPES, Chunk, PaneState, PlanTables
from stream.panes import EDGE_END, decode_record
from stream.plan import ALL, ModelPlan, Role, TargetPlan
from stream.reference_limits import ReferenceLimits
from stream.registers import Registers
from stream.stage import Decision
from stream.tally import Tally
from stream.target_bodies import target_bodies
from stream.topics import TopicRole
from stream.watchers import Watchers
from stream.window_series import Comparisons, Threshold, named, watched
from stream.window_statistics import Lens

if TYPE_CHECKING:
    from stream.collector import Collector
    from stream.mapping import Layout
    from stream.monitor import Monitor
    from stream.plan import CollectorPlan

# one record: length 9, no attributes, deltas 0, key null, value "{}", no headers
ONE_RECORD = bytes([16, 0, 0, 0, 1, 4, 0x7B, 0x7D, 0])
TARGETS_JUDGED = 40  # of each of
PROFILES = 2
BUDGET_MS = 86_400_000.0
START = "2026-01-01T00:00:{:02d}Z"
EVENTS = 2_000  # enough for the set of ids to grow


def chosen_models(plan: CollectorPlan) -> list[ModelPlan]:
    """One model that learns and one that does not: kernels are compiled for kinds of arrays, not for models.

    All of them would cost a worker of 50 models 900 MB for a moment.
    """
    return list({model.learning: model for model in reversed(plan.models)}.values())


def sample_lines(plan: CollectorPlan) -> list[bytes]:
    """Native events of the chosen models, seconds apart, with all targets and the odd escape and missing value."""
    lines = []
    for model in chosen_models(plan):
        for i in range(EVENTS):
            features = {
                target.name: f'te"xt{i % 3}' if target.binning.kind is Kind.CATEGORICAL else i / 7
                for target in model.targets
                if target.role is Role.FEATURE and i % 5
            }
            event = {
                "prediction_id": f"{model.model}-{i % (EVENTS - 5)}",
                "model": model.model,
                "version": str(i % 2),  # rows of several panes are put in order by a kernel of its own
                "timestamp": START.format(i % 60),
                "features": features,
                "prediction": i % 2,
                "score": i / EVENTS,
            }
            lines.append(orjson.dumps(event))
    return lines


def warm_up(
    plan: CollectorPlan,
    layout: Layout,
    collector: Collector,
    monitor: Monitor,
    profiles: Iterable[ReferenceProfile] = (),
) -> None:
    """Run a handful of events through empty stages, which are thrown away. Seconds the first time, then cached on disk.

    The compiler's pages are given back at the end: they are 70 MB of a worker that will not compile again.
    """
    with _without_blas():
        frame(
            ONE_RECORD,
            base_offset=0,
            count=1,
            first_timestamp_ms=0,
            max_timestamp_ms=0,
            log_append=False,
            start_offset=0,
        )
    count_widths()
    columns = decode(records_from_lines(sample_lines(plan)), layout)
    collector.apply(TopicRole.PREDICTIONS.value, replace(columns, record_time_ms=columns.event_time_ms))
    _join(collector, columns)
    collector.decide(Decision(1, "tick", {TopicRole.PREDICTIONS.value: columns.next_offset}, {"until_ms": EDGE_END}))
    collector.changed_blobs()
    sent = [output.value for output in collector.outbox if output.topic == TopicRole.PANES and output.value]
    records = [PaneRecord(i, 0, 1, decode_record(value), value) for i, value in enumerate(sent)]
    monitor.apply(TopicRole.PANES.value, records)
    for number, profile in enumerate(profiles):
        if number < PROFILES:
            _judge(profile)
            _tell(profile)
        settings = monitor.settings.model(profile.model)
        _compare(profile, settings.compared)
        _limit(profile, settings.thresholds)
        Watchers(settings.watchers, ())  # imports their libraries
    del columns, sent, records
    give_back.compiler()
    give_back.trim()


def _join(collector: Collector, columns: Columns) -> None:
    """Join feedback of every stream to the predictions, and save it: all of its kernels are compiled then."""
    n = len(columns)
    for stream in collector.joining.position if collector.joining is not None else ():
        feedback = Feedback(
            columns.event_time_ms, columns.event_time_ms, columns.id_high, columns.id_low, np.ones(n), np.zeros(n, bool),
            np.full(n, NO_GROUP, np.uint32), np.full(n, np.nan), np.full((n, 1), np.nan),
        )  # fmt: skip
        collector.apply(stream, FeedbackColumns(n, columns.offset, columns.row, feedback, (), None))
        collector.decide(Decision(1, "tick", {}, {"until_ms": EDGE_END, "stream": stream}))


def count_widths() -> None:
    """Counting with 16 and with 32 bits, numbers and categories with registers: whatever plans the worker begins with.

    Panes of 2^31 events are left to be compiled when there is one.
    """
    none, no_keys, no_codes = np.empty(0), np.empty(0, np.uint64), np.empty(0, np.int32)
    binnings = (
        Binning(Kind.NUMERIC, none, (0, 0), 0.0, 0.0, 0.0, no_keys, no_codes, ()),
        Binning(Kind.CATEGORICAL, none, (0, 0), 0.0, 0.0, 0.0, no_keys, no_codes, ("__other__", "__unseen__")),
    )
    targets = tuple(TargetPlan(str(i), Role.FEATURE, i, binning) for i, binning in enumerate(binnings))
    tables = PlanTables(ModelPlan("warm-up", "", targets))
    cell = np.zeros((1, 2), np.uint64)
    chunk = Chunk(
        number=cell.view(np.float64),
        cell=cell,
        category=cell,
        tag=np.array([[Tag.NUMBER, Tag.TEXT]], np.uint8),
        id_high=np.zeros(1, np.uint64),
        id_low=np.zeros(1, np.uint32),
        model=np.zeros(1, np.int32),
        version=np.zeros(1, np.uint64),
        version_names={},
        texts_of=lambda row: {row: ""},
    )
    for events in (0, np.iinfo(COUNT_DTYPES[0]).max):
        pane = PaneState(tables, "warm-up", "", ALL)
        pane.events = int(events)
        pane.count(np.zeros(1, np.int64), chunk)


@contextmanager
def _without_blas() -> Iterator[None]:
    """Numba's first call imports scipy's linear algebra, for np.dot inside kernels: 16 MB that no kernel here uses."""
    kept = linalg.ensure_blas

    def refuse() -> None:
        raise ImportError("linear algebra is not used in kernels")

    linalg.ensure_blas = refuse
    try:
        yield
    finally:
        linalg.ensure_blas = kept


def _compare(profile: ReferenceProfile, thresholds: Sequence[Threshold]) -> None:
    """The distances and tests that thresholds are set on, of the reference against itself."""
    targets = profile.targets[:TARGETS_JUDGED]
    counts = np.concatenate([target.histogram for target in targets])
    ends = (np.array([getattr(target, end) for target in targets]) for end in ("minimum", "maximum"))
    Comparisons(watched(thresholds, RECORDED), targets).measured(WindowBins(counts, *ends))


def _limit(profile: ReferenceProfile, thresholds: Sequence[Threshold]) -> None:
    """A limit that the reference makes, of its smallest windows."""
    targets = [target.name for target in profile.targets if target.kept is not None]
    for threshold in thresholds:
        for name in sorted(named([threshold], targets))[:TARGETS_JUDGED]:
            ReferenceLimits(profile, [threshold]).of(threshold, name, profile.windows.size_min, 1)


def _tell(profile: ReferenceProfile) -> None:
    """A windows record of the first targets: the reference itself."""
    targets = profile.targets[:TARGETS_JUDGED]
    names, rows = tuple(target.name for target in targets), [target.histogram for target in targets]
    start = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    count, counts = len(names), np.concatenate(rows).astype(np.int64)
    ends = np.full((count, 2), np.nan)
    tally = Tally(names, 1, start, counts, np.zeros((count, 2)), ends, np.zeros(count, np.int64), Registers.none())
    columns = Lens(names, profile).statistics(tally).named()
    target_bodies(names, columns | {"shift": powers(10.0, np.zeros(count))}, counts, start, {})


def _judge(profile: ReferenceProfile) -> None:
    """Some windows of the first targets through the default detector: the reference itself, which is thinned, and less."""
    chosen = default.DetectionSettings(tolerance=0.05, budget_ms=BUDGET_MS)
    targets = profile.targets[:TARGETS_JUDGED]
    prepared = [default.prepare(target, chosen, profile.id) for target in targets]
    judges = Batch(prepared, [default.start(each) for each in prepared])
    rows = [target.histogram for target in targets]
    few = [own // max(1, int(own.sum()) // target.size_median) for own, target in zip(rows, targets, strict=True)]
    for start_ms, counts in enumerate((rows, rows, few, rows)):
        list(judges.update(np.concatenate(counts), 1.0, start_ms))
    for each, own in zip(prepared, few, strict=True):  # as an alert tells it
        default.describe(each, own)
