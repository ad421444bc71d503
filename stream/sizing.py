"""What a configuration costs: memory of one worker and bytes of its snapshots, by the arithmetic of the design. Pure.

An estimate for `check-config`, from the plan alone: what is allocated on first touch counts as touched, and all partitions
are taken to be on one worker, so that the figure holds when the others are down.

What no plan says is assumed: events are spread evenly over models and partitions (16 bits a count while so many fit); one version
of each model; and a categorical target takes 2 kB for distinct values in an open pane if its reference has categories that
share a bin, or is not known yet. A new category, or one that a reference lacks, costs those 2 kB too in the panes where it turns
up. Under `season: auto` rows alone show which targets need hours (`check-reference` does): what it would be if all did is said
apart, where the rows can carry them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np

from detectors.binning import Kind
from detectors.reference_targets import CATEGORIES_MAX
from detectors.sequential.default_tables import NUMERIC_STATISTICS
from stream.alignment import ahead_edges_max
from stream.mapping import Layout
from stream.plan import CollectorPlan, ModelPlan, Role, TargetPlan
from stream.sizing_feedback import monitor_bytes, panes_bytes_per_s, saved_bytes_per_s, waits
from stream.unpack import UNPACKED_BYTES_MAX

COUNT_BYTES = ((0xFFFF, 2), (0x7FFF_FFFF, 4))  # events of a pane up to so many: bytes of one count; else 8
COUNTS_PER_TARGET = 3  # besides its bins: missing, invalid, out of range
SUMS_BYTES = 32  # of a target: sums and extremes
PANE_OBJECTS_BYTES = 1_500  # around the arrays of one open pane, measured with tracemalloc
PENDING_BIN_BYTES, PENDING_TARGET_BYTES = 4, 56  # of a pane that waits in the monitors, at most
IMPORTS_BYTES = 155_000_000  # interpreter, numpy, the client, numba and the kernels; LLVM's pages are given back
REGISTERS_BYTES = 1 << 11  # of one distinct counter
ID_BYTES = 26  # 12 in a log and 8 in a table that is at most three quarters full; both grow by a quarter
NUMERIC_BINS = 38 + 20 * 2  # before a reference is known
CATEGORICAL_BINS = CATEGORIES_MAX // 2 + 2  # half the most, other, unseen
REFERENCE_TARGET_BYTES = 6_100  # the profile as the detectors and plans read it
KEPT_TARGET_BYTES = 40_000  # 400 windows, of a target with limits that they make, and the figures that are made of them
DETECTOR_TARGET_BYTES = 5_000  # tables 2 kB, state 3 kB
DETECTOR_CATEGORY_BYTES = 900  # bets and their likelihoods .5 kB, state .4 kB
STRATA_BYTES = {
    Kind.NUMERIC: 4_500,
    Kind.CATEGORICAL: 9_500,
}  # of a target with hours: objects, tables of the hour in force; its ranks are on disk (row_file.py)
SEEN_BYTES = 2  # of an hour and rank bin
STRATUM_COUNT_BYTES = 2  # of an hour and bin, up to 65,535 events
FIRST_COUNTS = 3  # of an hour: valid, missing and invalid rows among those that chose the cuts
WINDOW_TARGET_BYTES = 4_000  # what statistics need 1 kB; the last 8 windows 2 kB, starts and shifts of the last 256
OPEN_WINDOW_TARGET_BYTES = 100  # besides 8 bytes a bin and the registers
SAMPLE_CELL_BYTES = 9
ROWS_TARGET_BYTES = 70_000  # rows of a reference 16 kB, what a domain classifier makes of them 48 kB
ARRAY_NUMBER_BYTES = 42_000  # rows of a reference 8 kB, twice 16 kB while tables are made of them, tables 2 kB
PANE_BYTES = 8_000  # objects and keys around the counts of one decoded pane
BUFFERED_FETCHES = 2  # of each partition of an input: one on its way, one as chunks, or waiting to be copied
FETCH_BYTES = 1 << 20
STEP_EVENTS = 4_000  # a step of 10-20 ms: heartbeats and probes stay prompt
ARRAY_STEP_NUMBERS = 40  # so many numbers of an array take about as long to read as all else of an event
STEP_CELL_BYTES = 27  # cell, tag, category and a working copy while a step is decoded and counted
EVENTS_PER_S = 10_000
SNAPSHOT_EVERY_S = 10
SAVED_TARGET_BYTES = 8_000  # of a monitor's snapshot: state of the detector, the last windows
BLOB_COPIES = 2  # of a monitor at a time: the blobs, and their pieces on the way


@dataclass(frozen=True, slots=True)
class StrataPlan:
    """Strata of a model's targets: how many hours, or sizes of windows, have enough windows, and how many ranks are kept of each.
    `auto`: it may come so.
    """

    count: int
    ranks: int
    auto: bool = False
    by_clock: bool = True


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes. `edge_bytes`: all open statistics of one pane edge, all partitions; it is in `panes_bytes`, not in the total.
    `auto_strata_bytes`: on top of the total if all targets turn out to need the strata that `auto` may give them;
    `stalled_bytes`: if a topic of feedback stalls until all that may wait does; `unpacked_bytes`: if fetches that are copied to
    re-keyed topics unpack to as much as one may. `performance_panes_bytes_per_s`: what the panes topic gets of performance, all
    partitions.

    panes, ids, sample   what the collectors hold open: statistics, ids of `dedup`, rows of models that learn
    references           profiles
    detectors, windows   what the monitors hold: tables and states of the detectors; open and remembered windows
    strata               of detectors with hours, where `season` names them, or with sizes of windows, where `window` has a length
    buffers, encoding    fetched, of predictions, feedback, panes, and being decoded; snapshot blobs until the broker has acknowledged them
    feedback             predictions that wait for feedback, and feedback that waits, as far as `feedback` lets them
    copies               fetched of topics that are re-keyed, as if each had as many partitions as the predictions
    imports              the programs themselves
    """

    edge_bytes: int
    panes_bytes: int
    ids_bytes: int
    sample_bytes: int
    references_bytes: int
    detectors_bytes: int
    strata_bytes: int
    windows_bytes: int
    buffers_bytes: int
    encoding_bytes: int
    feedback_bytes: int
    copies_bytes: int
    imports_bytes: int
    snapshot_bytes_per_s: int
    auto_strata_bytes: int = 0
    stalled_bytes: int = 0
    unpacked_bytes: int = 0
    performance_panes_bytes_per_s: int = 0

    @property
    def terms(self) -> dict[str, int]:
        """What adds up to the total, by name."""
        apart = {"edge_bytes", "snapshot_bytes_per_s", "auto_strata_bytes", "stalled_bytes", "unpacked_bytes"}
        apart.add("performance_panes_bytes_per_s")
        return {name.removesuffix("_bytes"): size for name, size in asdict(self).items() if name not in apart}

    @property
    def total_bytes(self) -> int:
        return sum(self.terms.values())

    def as_json(self) -> dict[str, int]:
        return asdict(self) | {"total_bytes": self.total_bytes}


def step_events(layout: Layout) -> int:
    """Events that are decoded and counted in one step: so many fewer as their arrays are long, which take .1 us and 24 bytes a
    number.
    """
    numbers = sum(max(each.lengths, default=0) for each in layout.arrays)
    return max(1, STEP_EVENTS // (1 + numbers // ARRAY_STEP_NUMBERS))


def estimate(
    plan: CollectorPlan,
    partitions: int,
    *,
    events_per_s: int = EVENTS_PER_S,
    learning: Collection[str] | None = None,
    planned_strata: Mapping[str, StrataPlan] | None = None,
    kept: Mapping[str, int] | None = None,
    row_samples: Mapping[str, int] | None = None,
    copied: int = 0,
    array_numbers: int = 0,
    monitors: int = 0,
) -> Estimate:
    """Cost of `plan` with P source partitions at a rate of events (all partitions together).

    `learning`: models that learn from the stream, where the plan was made before their references were looked for.
    `planned_strata`: of models whose targets may have them. `kept`: how many targets of each model have limits that the reference makes.
    `row_samples`: rows that panes of each model sample for multivariate detectors. `copied`: topics that are re-keyed.
    `array_numbers`: of the arrays that such detectors are about, how many they have, all together.
    `monitors`: partitions of the panes topic, which one worker fetches all of; 0: none is counted.
    """
    if learning is None:
        learning = {model.model for model in plan.models if model.learning}
    open_edges = 1 + -(-plan.lateness_ms // plan.resolution_ms)
    targets = sum(len(model.targets) for model in plan.models)
    pane_events = events_per_s * plan.resolution_ms / 1000 / max(partitions * len(plan.models), 1)
    edge = partitions * sum(_edge_bytes(model, pane_events) for model in plan.models)
    ids_edge = round(events_per_s * plan.resolution_ms / 1000 * ID_BYTES) if plan.dedup else 0
    rows = {} if row_samples is None else row_samples
    sampled = {m.model: m.sample_rows if m.model in learning else rows.get(m.model, 0) for m in plan.models}
    sample = sum(sampled[m.model] * len(m.targets) for m in plan.models)
    in_rows = sum(len(m.targets) for m in plan.models if rows.get(m.model))
    columns = {target.column for model in plan.models for target in model.targets}
    strata = {False: 0, True: 0}
    for model in plan.models:
        found = (planned_strata or {}).get(model.model)
        if found is not None:
            strata[found.auto] += _strata_bytes(model, found)
    saved = BLOB_COPIES * (targets * SAVED_TARGET_BYTES + (strata[False] // 2))
    changed = edge + (events_per_s * SNAPSHOT_EVERY_S * 12 if plan.dedup else 0)
    changed += round(saved_bytes_per_s(plan, events_per_s) * SNAPSHOT_EVERY_S)
    topics = 0 if plan.feedback is None else len(plan.feedback.join.streams)
    waiting = list(waits(plan, partitions, events_per_s))
    feedback = partitions * sum(each.nbytes for each in waiting)
    return Estimate(
        edge_bytes=edge,
        panes_bytes=edge * open_edges,
        ids_bytes=ids_edge * open_edges,
        sample_bytes=partitions * open_edges * sample * SAMPLE_CELL_BYTES,
        references_bytes=targets * REFERENCE_TARGET_BYTES
        + sum((kept or {}).values()) * KEPT_TARGET_BYTES
        + in_rows * ROWS_TARGET_BYTES
        + array_numbers * ARRAY_NUMBER_BYTES,
        detectors_bytes=sum(map(_detector_bytes, plan.models)),
        strata_bytes=strata[False],
        windows_bytes=targets * WINDOW_TARGET_BYTES
        + sum(_window_bytes(model) for model in plan.models)
        + monitor_bytes(plan),
        buffers_bytes=(partitions * (1 + topics) + monitors) * BUFFERED_FETCHES * FETCH_BYTES
        + STEP_EVENTS * len(columns) * STEP_CELL_BYTES,
        encoding_bytes=edge // 2 + (changed + saved) // max(partitions, 1),
        feedback_bytes=feedback,
        copies_bytes=copied * partitions * BUFFERED_FETCHES * FETCH_BYTES,
        imports_bytes=IMPORTS_BYTES,
        snapshot_bytes_per_s=round(changed / SNAPSHOT_EVERY_S),
        auto_strata_bytes=strata[True],
        unpacked_bytes=copied * partitions * (UNPACKED_BYTES_MAX - FETCH_BYTES),
        stalled_bytes=max(partitions * sum(each.most_bytes for each in waiting) - feedback, 0),
        performance_panes_bytes_per_s=panes_bytes_per_s(plan, partitions),
    )


def with_categories(model: ModelPlan, categories: Mapping[str, int]) -> ModelPlan:
    """The plan as a reference with so many categories of each target will make it, for `estimate` alone: nothing is named.

    Each of the first CATEGORIES_MAX has a bin, the others share one. Rare ones share it too, which only a count would show.
    """
    targets = []
    for target in model.targets:
        found = categories.get(target.name)
        if found is not None and target.binning.kind is Kind.CATEGORICAL and not target.binning.labels:
            bins = min(found, CATEGORIES_MAX)
            code = np.minimum(np.arange(found), bins).astype(np.int32)
            keys = np.arange(found).astype(np.uint64)
            binning = replace(target.binning, key=keys, code=code, labels=("",) * (bins + 2))
            target = replace(target, binning=binning)  # noqa: PLW2901
        targets.append(target)
    return replace(model, targets=tuple(targets))


def ahead_ms_max(plan: CollectorPlan, sources: int) -> int:
    """How far in event time a source partition may be ahead of the slowest (alignment.py)."""
    panes = sum(1 + sum(len(segment.values) + 1 for segment in model.segments) for model in plan.models)
    edge_bytes = sum(_pending_bytes(model) for model in plan.models) + panes * PANE_BYTES
    return ahead_edges_max(sources, edge_bytes, panes) * plan.resolution_ms


def _detector_bytes(model: ModelPlan) -> int:
    """Of the segment "all"; missing and invalid values are two shares more, which most targets have in common."""
    bins = sum(_target_bins(t) + 2 for t in model.targets if t.binning.kind is Kind.CATEGORICAL)
    return len(model.targets) * DETECTOR_TARGET_BYTES + bins * DETECTOR_CATEGORY_BYTES


def _strata_bytes(model: ModelPlan, strata: StrataPlan) -> int:
    """What strata add to the detectors: live ranks of each statistic, counts, the tables in force; of sizes all are."""
    found = 0
    for target in model.targets:
        bins = _target_bins(target) + 2
        categorical = target.binning.kind is Kind.CATEGORICAL
        statistics, first = (bins, bins) if categorical else (len(NUMERIC_STATISTICS), FIRST_COUNTS)
        seen, counts = statistics * (strata.ranks + 1) * SEEN_BYTES, (bins + first) * STRATUM_COUNT_BYTES
        in_force = 1 if strata.by_clock else strata.count
        found += in_force * STRATA_BYTES[target.binning.kind] + strata.count * (seen + counts)
    return found


def _window_bytes(model: ModelPlan) -> int:
    """The open window in the monitor: a tally of each segment, all partitions merged."""
    bins, categorical = _bins(model)
    registers = REGISTERS_BYTES * categorical
    return _segments(model) * (bins * 8 + OPEN_WINDOW_TARGET_BYTES * len(model.targets)) + registers


def _edge_bytes(model: ModelPlan, events: float) -> int:
    """Open panes of one source partition and edge, of so many events."""
    bins, _ = _bins(model)
    counts = bins + COUNTS_PER_TARGET * len(model.targets)
    count_bytes = next((size for most, size in COUNT_BYTES if events <= most), 8)
    pane = counts * count_bytes + SUMS_BYTES * len(model.targets) + PANE_OBJECTS_BYTES
    return _segments(model) * pane + REGISTERS_BYTES * sum(map(_has_registers, model.targets))


def _pending_bytes(model: ModelPlan) -> int:
    """The same panes where they wait in the monitors, in the form in which they were sent, at most."""
    bins, categorical = _bins(model)
    pane = bins * PENDING_BIN_BYTES + PENDING_TARGET_BYTES * len(model.targets)
    return _segments(model) * pane + categorical * REGISTERS_BYTES


def _has_registers(target: TargetPlan) -> bool:
    """Whether values without a bin of their own are expected in every pane."""
    binning = target.binning
    if binning.kind is not Kind.CATEGORICAL:
        return False
    return not binning.labels or len(set(binning.code.tolist())) < len(binning.code)


def _segments(model: ModelPlan) -> int:
    return 1 + sum(len(segment.values) + 1 for segment in model.segments)


def _target_bins(target: TargetPlan) -> int:
    binning = target.binning
    if len(binning.cuts) or binning.labels:
        return binning.bins
    return CATEGORICAL_BINS if binning.kind is Kind.CATEGORICAL else NUMERIC_BINS


def _bins(model: ModelPlan) -> tuple[int, int]:
    """(bins of all targets, targets with distinct registers)."""
    tracked = sum(t.binning.kind is Kind.CATEGORICAL and t.role is not Role.SCORE for t in model.targets)
    return sum(map(_target_bins, model.targets)), tracked
