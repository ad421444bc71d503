"""What a configuration costs: memory of one worker and bytes of its snapshots, by the arithmetic of the design. Pure.

An estimate for `check-config`, from the plan alone: what is allocated on first touch counts as touched, and all partitions
are taken to be on one worker, so that the figure holds when the others are down.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass

from detectors.binning import Kind
from detectors.reference_targets import CATEGORIES_MAX
from stream.alignment import ahead_edges_max
from stream.plan import CollectorPlan, ModelPlan, Role, TargetPlan

ROW_BYTES = 4  # int32
IMPORTS_BYTES = 155_000_000  # interpreter, numpy, the client, numba and the kernels; LLVM's pages are given back
REGISTERS_BYTES = 1 << 11  # of one distinct counter
ID_BYTES = 26  # 12 in a log and 8 in a table that is at most three quarters full; both grow by a quarter
NUMERIC_BINS = 38 + 20 * 2  # before a reference is known
CATEGORICAL_BINS = CATEGORIES_MAX // 2 + 2  # half the most, other, unseen
REFERENCE_TARGET_BYTES = 8_500  # the profile as the detectors and plans read it
DETECTOR_TARGET_BYTES = 10_000  # tables 2 kB, state 8 kB
DETECTOR_CATEGORY_BYTES = 2_450  # bets 1.9 kB, state .5 kB
WINDOW_TARGET_BYTES = 8_000  # what statistics need 2 kB; the last 8 windows, and starts and shifts of the last 256
OPEN_WINDOW_TARGET_BYTES = 100  # besides 8 bytes a bin and the registers
SAMPLE_CELL_BYTES = 9
PANE_BYTES = 8_000  # objects and keys around the counts of one decoded pane
BUFFERED_FETCHES = 2  # of each source partition: one on its way, one as chunks
FETCH_BYTES = 1 << 20
STEP_EVENTS = 4_000
STEP_CELL_BYTES = 27  # cell, tag, category and a working copy while a step is decoded and counted
EVENTS_PER_S = 10_000
SNAPSHOT_EVERY_S = 10


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes. `edge_bytes`: all open statistics of one pane edge, all partitions; it is in `panes_bytes`, not in the total.

    panes, ids, sample   what the collectors hold open: statistics, ids of `dedup`, rows of models that learn
    references           profiles
    detectors, windows   what the monitors hold: tables and states of the detectors; open and remembered windows
    buffers, encoding    fetched and being decoded; snapshot blobs until the broker has acknowledged them
    imports              the programs themselves
    """

    edge_bytes: int
    panes_bytes: int
    ids_bytes: int
    sample_bytes: int
    references_bytes: int
    detectors_bytes: int
    windows_bytes: int
    buffers_bytes: int
    encoding_bytes: int
    imports_bytes: int
    snapshot_bytes_per_s: int

    @property
    def terms(self) -> dict[str, int]:
        """What adds up to the total, by name."""
        apart = {"edge_bytes", "snapshot_bytes_per_s"}
        return {name.removesuffix("_bytes"): size for name, size in asdict(self).items() if name not in apart}

    @property
    def total_bytes(self) -> int:
        return sum(self.terms.values())

    def as_json(self) -> dict[str, int]:
        return asdict(self) | {"total_bytes": self.total_bytes}


def estimate(
    plan: CollectorPlan, partitions: int, *, events_per_s: int = EVENTS_PER_S, learning: Collection[str] | None = None
) -> Estimate:
    """Cost of `plan` with P source partitions at a rate of events (all partitions together).

    `learning`: models that learn from the stream, where the plan was made before their references were looked for.
    """
    if learning is None:
        learning = {model.model for model in plan.models if model.learning}
    open_edges = 1 + -(-plan.lateness_ms // plan.resolution_ms)
    targets = sum(len(model.targets) for model in plan.models)
    edge = partitions * sum(_edge_bytes(model) for model in plan.models)
    ids_edge = round(events_per_s * plan.resolution_ms / 1000 * ID_BYTES) if plan.dedup else 0
    sample = sum(m.sample_rows * len(m.targets) for m in plan.models if m.model in learning)
    columns = {target.column for model in plan.models for target in model.targets}
    changed = edge + (events_per_s * SNAPSHOT_EVERY_S * 12 if plan.dedup else 0)
    return Estimate(
        edge_bytes=edge,
        panes_bytes=edge * open_edges,
        ids_bytes=ids_edge * open_edges,
        sample_bytes=partitions * open_edges * sample * SAMPLE_CELL_BYTES,
        references_bytes=targets * REFERENCE_TARGET_BYTES,
        detectors_bytes=sum(_detector_bytes(model) for model in plan.models),
        windows_bytes=targets * WINDOW_TARGET_BYTES + sum(_window_bytes(model) for model in plan.models),
        buffers_bytes=partitions * BUFFERED_FETCHES * FETCH_BYTES + STEP_EVENTS * len(columns) * STEP_CELL_BYTES,
        encoding_bytes=edge // 2 + changed // max(partitions, 1),
        imports_bytes=IMPORTS_BYTES,
        snapshot_bytes_per_s=round(changed / SNAPSHOT_EVERY_S),
    )


def ahead_ms_max(plan: CollectorPlan, sources: int) -> int:
    """How far in event time a source partition may be ahead of the slowest (alignment.py)."""
    panes = sum(1 + sum(len(segment.values) + 1 for segment in model.segments) for model in plan.models)
    edge_bytes = sum(_edge_bytes(model) for model in plan.models) + panes * PANE_BYTES
    return ahead_edges_max(sources, edge_bytes, panes) * plan.resolution_ms


def _detector_bytes(model: ModelPlan) -> int:
    """Of the segment "all"; missing and invalid values are two shares more, which most targets have in common."""
    bins = sum(_target_bins(t) + 2 for t in model.targets if t.binning.kind is Kind.CATEGORICAL)
    return len(model.targets) * DETECTOR_TARGET_BYTES + bins * DETECTOR_CATEGORY_BYTES


def _window_bytes(model: ModelPlan) -> int:
    """The open window in the monitor: a tally of each segment, all partitions merged."""
    bins, categorical = _bins(model)
    registers = REGISTERS_BYTES * len(model.targets) if categorical else 0
    return _segments(model) * (bins * 8 + OPEN_WINDOW_TARGET_BYTES * len(model.targets)) + registers


def _edge_bytes(model: ModelPlan) -> int:
    bins, categorical = _bins(model)
    about = 8 * 7 * len(model.targets)  # sums, extremes and the three counts
    return _segments(model) * (bins * ROW_BYTES + about) + categorical * REGISTERS_BYTES


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
